//! What Tidemark's events mean: pure folds from events to read-model rows.
//!
//! This crate does no IO and reads no clock. A projector of the server calls it in two ways that
//! must agree: *live*, where a page of events names the keys that became dirty and each key is
//! computed anew from current state, and *from the log*, where one person's events are folded from
//! the first to the last. The second is the definition; the first is the fast way to the same rows.
//!
//! | Read model | Hears | Answers |
//! |---|---|---|
//! | [`rollup`] | health batches | what did a metric add up to on one local day? |
//! | [`entities`] | sessions, consumptions | what does a synced entity look like now, in lists? |
//!
//! [`freshness`] says how far a row can be trusted, [`registry`] lists the projectors as data.

pub mod entities;
pub mod freshness;
pub mod registry;
pub mod rollup;
