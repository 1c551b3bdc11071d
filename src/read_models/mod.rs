//! The tables people read: for each, how rows are written and how they are queried, side by side.

pub mod entities;
pub mod health_rollup;
pub mod reader;

use std::collections::BTreeSet;

use aggregates::{AnyEvent, Content, Purpose, Recorded, UserId, subject::SubjectEvent};
use projections::entities::EntityRow;
use projections::registry::{self, ProjectorSpec};
use projections::rollup::{self, DayRow};
use sqlx::PgConnection;

use crate::projector::{LogReader, ProjectorError, SourceError, StateReader};

/// Events of one person that are read at a time when folding from the log.
const FOLD_PAGE: i64 = 1_000;

/// A read model and its projector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadModel {
    HealthRollup,
    Entities,
}

/// A row of any read model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    Day(DayRow),
    Entity(EntityRow),
}

/// What changes for one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub user: UserId,
    /// Purposes whose rows go first.
    pub wiped: BTreeSet<Purpose>,
    /// Rows to write.
    pub rows: Vec<Row>,
    /// The person's health watermark, where the events say it; else 0.
    pub health_seq: i64,
}

impl Change {
    /// Nothing but an erasure.
    pub fn wipe_only(user: UserId, wiped: BTreeSet<Purpose>) -> Self {
        Self { user, wiped, rows: Vec::new(), health_seq: 0 }
    }
}

/// One person's rows as a fold of the log gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// In the order in which [`ReadModel::rows_of`] lists them.
    pub rows: Vec<Row>,
    pub health_seq: i64,
    /// The last event that was heard; 0 where there is none.
    pub position: i64,
    /// Events that were heard and say nothing any more, because their key was destroyed.
    pub shredded: u64,
}

impl ReadModel {
    pub const ALL: [ReadModel; 2] = [Self::HealthRollup, Self::Entities];

    /// Its entry in the register.
    pub fn spec(self) -> &'static ProjectorSpec {
        match self {
            Self::HealthRollup => &registry::HEALTH_ROLLUP,
            Self::Entities => &registry::ENTITIES,
        }
    }

    /// The read model with this projector name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.spec().name == name)
    }

    /// The tables of a new generation, in unqualified names.
    pub fn ddl(self) -> &'static str {
        match self {
            Self::HealthRollup => health_rollup::DDL,
            Self::Entities => entities::DDL,
        }
    }

    /// Whether events of such streams concern it.
    pub fn hears(self, aggregate_type: &str) -> bool {
        match self {
            Self::HealthRollup => [aggregates::health_batch::TYPE, aggregates::subject::TYPE]
                .contains(&aggregate_type),
            Self::Entities => projections::entities::hears(aggregate_type),
        }
    }

    /// The purposes that a run of events erases.
    pub fn wiped(self, events: &[&Recorded]) -> BTreeSet<Purpose> {
        let destroyed = |event: &&Recorded| match event.event() {
            Some(AnyEvent::Subject(SubjectEvent::KeyDestroyed(key))) => Some(key.purpose),
            _ => None,
        };
        events.iter().filter_map(destroyed).collect()
    }

    /// The live way: what a person's events change, from current state.
    ///
    /// # Errors
    /// Errors of the source.
    pub async fn refresh<S: StateReader>(
        self,
        source: &S,
        user: UserId,
        events: &[&Recorded],
    ) -> Result<Change, ProjectorError> {
        let mut change = Change::wipe_only(user, self.wiped(events));
        match self {
            Self::HealthRollup => {
                let scope = rollup::scope(events.iter().copied());
                change.health_seq = scope.health_seq;
                for days in health_rollup::runs(&scope.days) {
                    let (from_ms, to_ms) = rollup::range_ms(days.first, days.last);
                    let samples = source.samples(user, from_ms, to_ms).await?;
                    let rows = rollup::refresh(&days.keys, &samples);
                    change.rows.extend(rows.into_iter().map(Row::Day));
                }
            }
            Self::Entities => {
                let scope = projections::entities::scope(events.iter().copied());
                for stream in &scope.streams {
                    let row = source.entity(stream).await?.and_then(|entity| entity.row());
                    change.rows.extend(row.map(Row::Entity));
                }
            }
        }
        Ok(change)
    }

    /// The definition: one person's rows from their events up to a position, and nothing else.
    ///
    /// # Errors
    /// Errors of the log; [`SourceError::Unreadable`] if one of the events cannot be read.
    pub async fn fold<L: LogReader>(
        self,
        log: &L,
        user: UserId,
        upto: i64,
    ) -> Result<Folded, ProjectorError> {
        let mut days = rollup::Fold::default();
        let mut entities = projections::entities::Fold::default();
        let (mut after, mut position, mut shredded) = (0, 0, 0);
        while after < upto {
            let page = log.user_page(user, after, upto, FOLD_PAGE).await?;
            if let Some(event) = page.unreadable.iter().find(|one| self.hears(&one.aggregate_type))
            {
                return Err(SourceError::Unreadable { class: event.class }.into());
            }
            for event in page.events.iter().filter(|one| self.hears(&one.stream.aggregate_type)) {
                match self {
                    Self::HealthRollup => days.apply(event),
                    Self::Entities => entities.apply(event),
                }
                position = event.position;
                shredded += u64::from(event.content == Content::Shredded);
            }
            if page.through <= after {
                break;
            }
            after = page.through;
        }
        let rows = match self {
            Self::HealthRollup => days.rows().into_iter().map(Row::Day).collect(),
            Self::Entities => entities.rows().into_iter().map(Row::Entity).collect(),
        };
        Ok(Folded { rows, health_seq: days.health_seq(), position, shredded })
    }

    /// Writes changes into the tables that the search path names.
    ///
    /// # Errors
    /// Database errors.
    pub async fn write(
        self,
        db: &mut PgConnection,
        changes: &[&Change],
    ) -> Result<(), ProjectorError> {
        match self {
            Self::HealthRollup => health_rollup::write(db, changes).await,
            Self::Entities => entities::write(db, changes).await,
        }
    }

    /// One person's rows, from the tables that the search path names, in a fixed order. What a
    /// row says, without when it was computed.
    ///
    /// # Errors
    /// Database errors.
    pub async fn rows_of(
        self,
        db: &mut PgConnection,
        user: UserId,
    ) -> Result<Vec<Row>, ProjectorError> {
        Ok(match self {
            Self::HealthRollup => {
                health_rollup::of_user(db, user).await?.into_iter().map(Row::Day).collect()
            }
            Self::Entities => {
                entities::of_user(db, user).await?.into_iter().map(Row::Entity).collect()
            }
        })
    }

    /// Removes all rows of one person.
    ///
    /// # Errors
    /// Database errors.
    pub async fn clear(self, db: &mut PgConnection, user: UserId) -> Result<(), ProjectorError> {
        for table in self.spec().tables {
            let sql = format!("DELETE FROM {table} WHERE user_id = $1");
            sqlx::query(&sql).bind(user.0).execute(&mut *db).await?;
        }
        Ok(())
    }
}
