//! Checks of what is stored against what it should follow from.
//!
//! Everything here only reads. A fault names a place and a kind, never content.

pub mod bookkeeping;
pub mod log;

use serde::Serialize;

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
