//! Daily statistics of one metric: what a person's samples add up to on one local day.
//!
//! A row is keyed by (person, metric, local day). A sample belongs to exactly one day: the date of
//! its start at the offset that was resolved for it when it arrived. An interval that crosses
//! midnight counts wholly on the day it started. Categories have no rollup. Counters such as steps
//! arrive as increments and add up; several sources of one metric are all counted.
//!
//! A day that ever held a sample keeps its row: once emptied it says `NO_DATA`, because a phone
//! that shows the old value has to be told.
//!
//! Who does not allow aggregation has no rows; who allows it again gets all of them back. Without
//! the identity key nobody can tell what a person allows, so its destruction hides them for good.
//!
//! [`Fold`] is the definition. [`scope`] and [`refresh`] are the live way: which days a page of
//! events touches, and those days from current samples.

mod day;
mod fold;
mod scope;

#[cfg(test)]
mod tests;

pub use day::{DayKey, DayRow, Reading, compute, range_ms};
pub use fold::{Fold, refresh};
pub use scope::{Scope, hidden_after, scope};
