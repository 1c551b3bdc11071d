//! The tables people read: for each, how rows are written and how they are queried, side by side.

pub mod entities;
mod fold;
pub mod health_rollup;
pub mod reader;

use std::collections::BTreeSet;

use aggregates::{AnyEvent, Purpose, Recorded, UserId, subject::SubjectEvent};
use projections::entities::EntityRow;
use projections::registry::{self, ProjectorSpec};
use projections::rollup::{self, DayRow};
use sqlx::PgConnection;
use uuid::Uuid;

pub use fold::{Folded, Stopped};

use crate::projector::{ProjectorError, StateReader};

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

impl Row {
    /// Which of a person's rows it is.
    pub fn key(&self) -> String {
        match self {
            Self::Day(row) => format!("{} {}", row.key.metric.code(), row.key.day),
            Self::Entity(row) => format!("{} {}", row.entity_type, row.id),
        }
    }

    /// The columns in which two versions of a row differ.
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        let columns = match (self, other) {
            (Self::Day(a), Self::Day(b)) => vec![
                ("count_val", a.count == b.count),
                ("sum_val", a.sum_micro == b.sum_micro),
                ("min_val", a.min == b.min),
                ("max_val", a.max == b.max),
                ("sum_sq", a.sum_sq_micro == b.sum_sq_micro),
                ("tz_offset_min", a.offset_min == b.offset_min),
            ],
            (Self::Entity(a), Self::Entity(b)) => vec![
                ("version", a.version == b.version),
                ("position", a.position == b.position),
                ("deleted", a.deleted == b.deleted),
                ("purpose", a.purpose == b.purpose),
                ("status", a.status == b.status),
                ("session_id", a.session_id == b.session_id),
                ("product_id", a.product_id == b.product_id),
                ("at_ms", a.at_ms == b.at_ms),
                ("data", a.data == b.data),
            ],
            _ => Vec::new(),
        };
        columns.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }

    /// Whether it may still be there when these purposes were erased.
    pub fn survives(&self, wiped: &BTreeSet<Purpose>) -> bool {
        match self {
            Self::Day(_) => !health_rollup::is_wiped(wiped),
            Self::Entity(row) => row.purpose.is_none_or(|purpose| !wiped.contains(&purpose)),
        }
    }
}

/// What changes for one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub user: UserId,
    /// Purposes whose rows go first.
    pub wiped: BTreeSet<Purpose>,
    /// Rows to write.
    pub rows: Vec<Row>,
    /// The person does not allow such rows: none are written until all are made anew.
    pub hidden: bool,
    /// The person's health watermark, where the events say it; else 0.
    pub health_seq: i64,
}

impl Change {
    /// Nothing but an erasure.
    pub fn wipe_only(user: UserId, wiped: BTreeSet<Purpose>) -> Self {
        Self { user, wiped, rows: Vec::new(), hidden: false, health_seq: 0 }
    }

    /// All of a person's rows, as a fold of the log gives them.
    pub fn whole(user: UserId, folded: Folded) -> Self {
        let Folded { rows, hidden, health_seq, .. } = folded;
        Self { user, wiped: BTreeSet::new(), rows, hidden, health_seq }
    }
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
        // Every projector has its events skipped by the same kind of event.
        if aggregate_type == aggregates::projection::TYPE {
            return true;
        }
        match self {
            Self::HealthRollup => {
                use aggregates::{health_batch, subject, user};
                [health_batch::TYPE, subject::TYPE, user::TYPE].contains(&aggregate_type)
            }
            Self::Entities => projections::entities::hears(aggregate_type),
        }
    }

    /// Whether an event changes rows that current state does not lead to: then all of the person's
    /// rows are made anew from the log.
    pub fn turns(self, event: &Recorded) -> bool {
        let rules = self == Self::HealthRollup && rollup::hidden_after(event).is_some();
        rules || self.skip(event).is_some()
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

    /// Removes all rows of these people.
    ///
    /// # Errors
    /// Database errors.
    pub async fn clear(self, db: &mut PgConnection, users: &[Uuid]) -> Result<(), ProjectorError> {
        for table in self.spec().tables {
            let sql = format!("DELETE FROM {table} WHERE user_id = ANY($1)");
            sqlx::query(&sql).bind(users).execute(&mut *db).await?;
        }
        Ok(())
    }
}
