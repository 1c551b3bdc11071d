//! The definition of the rows: one person's events, folded from the first to the last.
//!
//! Nothing but the log is read. An event that cannot be read, or that makes a fold panic, ends the
//! fold before it, unless a later event of the log says that an operator had it skipped.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use aggregates::projection::ProjectionEvent;
use aggregates::{AnyEvent, Content, Recorded, UserId};
use projections::{entities, rollup};

use super::{ReadModel, Row};
use crate::projector::{LogReader, ProjectorError, SourceError};

/// Events of one person that are read at a time.
const PAGE: i64 = 1_000;

/// One person's rows as a fold of the log gives them.
#[derive(Debug)]
pub struct Folded {
    /// In the order in which [`ReadModel::rows_of`] lists them.
    pub rows: Vec<Row>,
    pub health_seq: i64,
    /// The last event that was heard; 0 where there is none.
    pub position: i64,
    /// Events that were heard and say nothing any more, because their key was destroyed.
    pub shredded: u64,
    /// Whether the person does not allow such rows.
    pub hidden: bool,
    /// Events that an operator had this projector leave out.
    pub skipped: BTreeSet<i64>,
    /// The first event that cannot be folded: the rows are those before it.
    pub stopped: Option<Stopped>,
}

/// Where a person's rows end although the log goes on.
#[derive(Debug)]
pub struct Stopped {
    pub position: i64,
    pub error: ProjectorError,
}

/// A fold on its way.
enum Folding {
    HealthRollup(rollup::Fold),
    Entities(entities::Fold),
}

impl Folding {
    fn new(model: ReadModel) -> Self {
        match model {
            ReadModel::HealthRollup => Self::HealthRollup(rollup::Fold::default()),
            ReadModel::Entities => Self::Entities(entities::Fold::default()),
        }
    }

    fn apply(&mut self, event: &Recorded) {
        match self {
            Self::HealthRollup(days) => days.apply(event),
            Self::Entities(entities) => entities.apply(event),
        }
    }

    fn rows(&self) -> Vec<Row> {
        match self {
            Self::HealthRollup(days) => days.rows().into_iter().map(Row::Day).collect(),
            Self::Entities(entities) => entities.rows().into_iter().map(Row::Entity).collect(),
        }
    }

    fn hidden(&self) -> bool {
        match self {
            Self::HealthRollup(days) => days.hidden(),
            Self::Entities(_) => false,
        }
    }

    fn health_seq(&self) -> i64 {
        match self {
            Self::HealthRollup(days) => days.health_seq(),
            Self::Entities(_) => 0,
        }
    }
}

/// What one pass over a person's events came to.
enum Pass {
    Done(Folded),
    /// An event of this position was skipped, and the pass did not know yet.
    Skip(i64),
}

impl ReadModel {
    /// One person's rows from their events up to a position, and nothing else.
    ///
    /// # Errors
    /// Errors of the log. [`ProjectorError::Panicked`] if the rows cannot be made although each
    /// event can be folded.
    pub async fn fold<L: LogReader>(
        self,
        log: &L,
        user: UserId,
        upto: i64,
    ) -> Result<Folded, ProjectorError> {
        self.fold_skipping(log, user, upto, &BTreeSet::new()).await
    }

    /// The same with the skips known, also those that the log only names after `upto`.
    ///
    /// # Errors
    /// As [`Self::fold`].
    pub async fn fold_skipping<L: LogReader>(
        self,
        log: &L,
        user: UserId,
        upto: i64,
        skipped: &BTreeSet<i64>,
    ) -> Result<Folded, ProjectorError> {
        // Skips are rare, and each is met after what it skips: then the pass begins anew.
        let mut skipped = skipped.clone();
        loop {
            match self.pass(log, user, upto, &skipped).await? {
                Pass::Done(folded) => return Ok(folded),
                Pass::Skip(position) => skipped.insert(position),
            };
        }
    }

    async fn pass<L: LogReader>(
        self,
        log: &L,
        user: UserId,
        upto: i64,
        skipped: &BTreeSet<i64>,
    ) -> Result<Pass, ProjectorError> {
        let panicked = || ProjectorError::Panicked { projector: self.spec().name };
        let mut folding = Folding::new(self);
        let mut stopped: Option<Stopped> = None;
        let (mut after, mut position, mut shredded) = (0, 0, 0);
        while after < upto {
            let page = log.user_page(user, after, upto, PAGE).await?;
            let broken = page.unreadable.iter().find(|event| {
                self.hears(&event.aggregate_type) && !skipped.contains(&event.position)
            });
            for event in page.events.iter().filter(|one| self.hears(&one.stream.aggregate_type)) {
                if let Some(skip) = self.skip(event).filter(|skip| !skipped.contains(skip)) {
                    return Ok(Pass::Skip(skip));
                }
                // After the end only skips are looked for.
                let ended = broken.is_some_and(|broken| broken.position < event.position);
                if stopped.is_some() || ended {
                    continue;
                }
                if !skipped.contains(&event.position)
                    && catch_unwind(AssertUnwindSafe(|| folding.apply(event))).is_err()
                {
                    stopped = Some(Stopped { position: event.position, error: panicked() });
                    continue;
                }
                position = event.position;
                shredded += u64::from(event.content == Content::Shredded);
            }
            if let (None, Some(broken)) = (&stopped, broken) {
                let error = SourceError::Unreadable { class: broken.class }.into();
                stopped = Some(Stopped { position: broken.position, error });
            }
            if page.through <= after {
                break;
            }
            after = page.through;
        }
        let rows = catch_unwind(AssertUnwindSafe(|| folding.rows())).map_err(|_| panicked())?;
        let (health_seq, hidden) = (folding.health_seq(), folding.hidden());
        let skipped = skipped.clone();
        Ok(Pass::Done(Folded { rows, health_seq, position, shredded, hidden, skipped, stopped }))
    }

    /// The position that an event has this projector leave out.
    pub fn skip(self, event: &Recorded) -> Option<i64> {
        match event.event()? {
            AnyEvent::Projection(projection) => match &**projection {
                ProjectionEvent::EventSkipped(skip) => {
                    (skip.projector == self.spec().name).then_some(skip.position)
                }
            },
            _ => None,
        }
    }
}
