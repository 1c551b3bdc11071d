//! Packed samples of one person, in ranges of start times.
