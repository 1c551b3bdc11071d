//! How far a row can be trusted.
//!
//! A row is fresh when its projector has passed every event of the person that the projector
//! listens to. Freshness therefore belongs to (projector, person) and not to a row: one upload
//! never leaves the rows it did not touch looking stale.

use serde::Serialize;

use crate::registry::Class;

/// Where the log stands for one person, by class of event. 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserHead {
    /// How many uploads changed the person's health data: the wire's watermark.
    pub health_seq: i64,
    pub pos_health: i64,
    pub pos_session: i64,
    pub pos_other: i64,
}

impl UserHead {
    /// The latest position of the person's events in these classes.
    pub fn heard(&self, classes: &[Class]) -> i64 {
        let position = |class: &Class| match class {
            Class::Health => self.pos_health,
            Class::Session => self.pos_session,
            Class::Other => self.pos_other,
        };
        classes.iter().map(position).max().unwrap_or(0)
    }
}

/// How far a projector has come for one person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every event of the person up to here is in the rows.
    pub position: i64,
    /// The last folded health sequence: the watermark of every row of the person.
    pub health_seq: i64,
    /// The projector failed on an event of the person and stays before it until an operator has
    /// it retried or skipped.
    pub parked: bool,
    /// An event of the person was skipped: something is missing in the rows, and will be in every
    /// rebuild.
    pub partial: bool,
}

impl Progress {
    /// Progress of a person whose shard is at `checkpoint`: idle people are as far as their shard,
    /// parked ones stand just before the event that failed.
    pub fn new(checkpoint: i64, health_seq: i64, parked_at: Option<i64>) -> Self {
        let position = parked_at.map_or(checkpoint, |at| checkpoint.min(at - 1));
        Self { position, health_seq, parked: parked_at.is_some(), partial: false }
    }

    /// The same, of a person some of whose events were skipped, or none.
    #[must_use]
    pub fn with_partial(self, partial: bool) -> Self {
        Self { partial, ..self }
    }

    /// Whether the rows contain everything up to `heard`, a result of [`UserHead::heard`] that was
    /// read *after* the rows.
    pub fn covers(&self, heard: i64) -> bool {
        self.position >= heard
    }

    /// The watermark as the wire writes 64-bit numbers.
    pub fn watermark(&self) -> String {
        self.health_seq.to_string()
    }
}

/// What a projector stored about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Reserved, never computed.
    Pending,
    Computing,
    Ready,
    /// Computed, but not from all input: a cap was hit, or an event was skipped.
    Partial,
    /// Computed, and nothing qualifies.
    NoData,
    /// Its inputs are known to have moved.
    Stale,
    Failed,
}

/// A row's status as phones know it; any other literal makes them reject the whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Ready,
    Computing,
    Stale,
    Failed,
    NoData,
}

/// Whether all input was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DataQuality {
    Full,
    PartialTruncated,
}

impl Stored {
    /// What a stored row is worth where the person's progress is known. With an event skipped no
    /// row is complete, and a day without data may only look like one.
    #[must_use]
    pub fn given(self, progress: &Progress) -> Self {
        match self {
            Self::Ready | Self::NoData if progress.partial => Self::Partial,
            other => other,
        }
    }

    /// The status to serve, given whether the projector covers the person's events and whether
    /// the person is parked. Nothing computed from old input is called ready or empty.
    pub fn served(self, covered: bool, parked: bool) -> Status {
        match self {
            Self::Pending | Self::Computing => Status::Computing,
            Self::Failed => Status::Failed,
            Self::Stale => Status::Stale,
            _ if !covered && parked => Status::Failed,
            _ if !covered => Status::Stale,
            Self::Ready | Self::Partial => Status::Ready,
            Self::NoData => Status::NoData,
        }
    }

    /// The data quality to serve beside the status.
    pub fn quality(self) -> DataQuality {
        match self {
            Self::Partial => DataQuality::PartialTruncated,
            _ => DataQuality::Full,
        }
    }
}

/// The freshness object of one item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Freshness {
    pub status: Status,
    pub computed_at_iso: Option<String>,
    pub source_watermark: String,
    pub compute_version: i32,
}

/// How many items of a response have which status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusCounts {
    pub ready: u64,
    pub computing: u64,
    pub no_data: u64,
    pub failed: u64,
    pub stale: u64,
}

impl StatusCounts {
    /// Counts `n` items of one status.
    pub fn add(&mut self, status: Status, n: u64) {
        *match status {
            Status::Ready => &mut self.ready,
            Status::Computing => &mut self.computing,
            Status::Stale => &mut self.stale,
            Status::Failed => &mut self.failed,
            Status::NoData => &mut self.no_data,
        } += n;
    }

    /// All items.
    pub fn total(&self) -> u64 {
        self.ready + self.computing + self.no_data + self.failed + self.stale
    }
}

/// The state of a whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    Ready,
    Computing,
    Stale,
    NoData,
    Partial,
    Empty,
    Failed,
}

/// The summary of a response, over the whole query and not only its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub state: State,
    pub total_items: u64,
    pub status_counts: StatusCounts,
}

impl Summary {
    /// The summary of these items. A phone prunes its rows on `EMPTY`, and clears its repair keys
    /// on `PARTIAL`, so neither is said while anything may still change by itself. Where an event
    /// was skipped, `PARTIAL` is the best that is ever said.
    pub fn of(counts: StatusCounts, covered: bool, progress: &Progress) -> Self {
        let total = counts.total();
        let state = if total == 0 {
            match (covered, progress.parked) {
                (true, _) => State::Empty,
                (false, true) => State::Failed,
                (false, false) => State::Computing,
            }
        } else if counts.computing > 0 {
            State::Computing
        } else if counts.stale > 0 {
            State::Stale
        } else if counts.failed == total {
            State::Failed
        } else if counts.failed > 0 {
            State::Partial
        } else if counts.no_data == total {
            State::NoData
        } else {
            State::Ready
        };
        let state = match state {
            State::Ready | State::NoData | State::Empty if progress.partial => State::Partial,
            state => state,
        };
        Self { state, total_items: total, status_counts: counts }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STORED: [Stored; 7] = [
        Stored::Pending,
        Stored::Computing,
        Stored::Ready,
        Stored::Partial,
        Stored::NoData,
        Stored::Stale,
        Stored::Failed,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Projections invariant 23: an event beyond the progress is never hidden by a terminal
        /// status, whatever is stored and whoever is parked.
        #[test]
        fn projections_23_no_false_ready(
            checkpoint in 0i64..50, heard in 0i64..50, parked in proptest::option::of(1i64..50),
            stored in proptest::collection::vec(0usize..7, 0..6), partial: bool,
        ) {
            let progress = Progress::new(checkpoint, 0, parked).with_partial(partial);
            let behind = checkpoint < heard || parked.is_some_and(|at| at <= heard);
            let covered = progress.covers(heard);
            prop_assert_eq!(covered, !behind);
            let mut counts = StatusCounts::default();
            for index in stored {
                let status = STORED[index].given(&progress).served(covered, progress.parked);
                if behind {
                    prop_assert!(!matches!(status, Status::Ready | Status::NoData));
                }
                counts.add(status, 1);
            }
            let state = Summary::of(counts, covered, &progress).state;
            if behind {
                let success = [State::Ready, State::NoData, State::Empty, State::Partial];
                prop_assert!(!success.contains(&state));
            } else if !partial {
                prop_assert_eq!(counts.total() == 0, state == State::Empty);
            }
            // Projections invariant 31: what was left out is never passed off as complete.
            let complete = [State::Ready, State::NoData, State::Empty];
            prop_assert!(!partial || !complete.contains(&state));
        }

        /// Projections invariant 24: once covered, whatever was computed is terminal again.
        #[test]
        fn projections_24_no_permanent_stale(heard in 0i64..50, ahead in 0i64..5) {
            let covered = Progress::new(heard + ahead, 0, None).covers(heard);
            prop_assert_eq!(Stored::Ready.served(covered, false), Status::Ready);
            prop_assert_eq!(Stored::NoData.served(covered, false), Status::NoData);
        }
    }

    #[test]
    fn summary_follows_its_order_of_rules() {
        let state = |ready, computing, no_data, failed, stale| {
            let counts = StatusCounts { ready, computing, no_data, failed, stale };
            Summary::of(counts, true, &Progress::default()).state
        };
        assert_eq!(state(1, 1, 0, 1, 1), State::Computing);
        assert_eq!(state(1, 0, 0, 1, 1), State::Stale);
        assert_eq!(state(0, 0, 0, 2, 0), State::Failed);
        assert_eq!(state(1, 0, 0, 1, 0), State::Partial);
        assert_eq!(state(0, 0, 2, 0, 0), State::NoData);
        assert_eq!(state(1, 0, 2, 0, 0), State::Ready);
    }

    #[test]
    fn wire_literals_are_those_phones_accept() {
        assert_eq!(json(&Status::NoData), "\"NO_DATA\"");
        assert_eq!(json(&DataQuality::PartialTruncated), "\"PARTIAL_TRUNCATED\"");
        assert_eq!(
            json(&Summary::of(
                StatusCounts { ready: 2, ..Default::default() },
                true,
                &Progress::default()
            )),
            r#"{"state":"READY","totalItems":2,"statusCounts":{"ready":2,"computing":0,"noData":0,"failed":0,"stale":0}}"#
        );
    }

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }
}
