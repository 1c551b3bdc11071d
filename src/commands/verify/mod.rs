//! Is what is stored still what it follows from?
//!
//! [`log`] checks the log against itself; the others check rows, states and marks that commands
//! read, and that are written together with the events they follow from, against the fold of
//! those events. Everything here only reads. A finding holds ids, places and types, never what a
//! person recorded.

pub mod bookkeeping;
pub mod keys;
pub mod log;
pub mod people;
pub mod samples;
pub mod streams;

pub use keys::verify_keys;
pub use samples::verify_segments;
pub use streams::verify_streams;

use aggregates::{Recorded, UserId};
use serde::Serialize;

use crate::store::{Filter, ReadError, Store};

/// Events of one page.
const PAGE: i64 = 500;

/// By name, for a test that prepares each.
pub fn statements() -> impl Iterator<Item = (&'static str, &'static str)> {
    let checks = bookkeeping::CHECKS.iter().map(|(kind, _, query)| (*kind, *query));
    checks.chain([("by stream", log::BY_STREAM), ("people", people::PEOPLE)])
}

/// Calls `fold` with every event of a person and the given types up to `upto`, in order.
async fn each_event(
    store: &Store,
    user: UserId,
    aggregate_types: &[&str],
    upto: i64,
    mut fold: impl FnMut(Recorded),
) -> Result<(), ReadError> {
    let filter = Filter {
        user: Some(user),
        aggregate_types: aggregate_types.iter().map(|&name| name.to_owned()).collect(),
        ..Filter::default()
    };
    let mut after = 0;
    loop {
        let page = store.page(after, upto, PAGE, &filter).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.position;
        page.into_iter().for_each(&mut fold);
    }
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The event at fault, or after which one is missing; none where it is not about one event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
    /// A stable name: `leaf`, `gap`, `sequence`, …
    pub kind: &'static str,
    /// For people: ids, numbers and names of types.
    pub detail: String,
}

/// Faults found: all are counted, the first are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    pub count: u64,
    pub first: Vec<Fault>,
    #[serde(skip)]
    keep: usize,
}

impl Faults {
    /// Keeps the first `keep` faults.
    pub fn keeping(keep: usize) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn add(
        &mut self,
        position: impl Into<Option<i64>>,
        kind: &'static str,
        detail: impl Into<String>,
    ) {
        self.count += 1;
        if self.first.len() < self.keep {
            let detail = detail.into();
            self.first.push(Fault { position: position.into(), kind, detail });
        }
    }
}
