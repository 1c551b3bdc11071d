//! What differs between two versions of the same rows: two generations, or the live one and what
//! the log gives under this program's formulas.
//!
//! A report names people, rows and columns, never values: which day a person has data for is as
//! much as an operator needs to find out why, and already more than a stranger may know.

use std::collections::{BTreeMap, BTreeSet};

use aggregates::UserId;
use sqlx::PgPool;

use super::checkpoint::Generation;
use super::source::{LogReader, StateReader};
use super::{ProjectorError, generation, progress};
use crate::read_models::reader::{Attempt, Pinned};
use crate::read_models::{ReadModel, Row};

/// People listed at a time.
pub(super) const USERS: i64 = 200;
/// Differing rows that are named for one person.
const SAMPLES: usize = 3;

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It says something else.
    Changed,
    /// Only the old version has it.
    OnlyOld,
    /// Only the new version has it.
    OnlyNew,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Changed, Self::OnlyOld, Self::OnlyNew];

    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::OnlyOld => "only-old",
            Self::OnlyNew => "only-new",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// What comparing two versions of all rows found. The old one is live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// People whose rows are equal.
    pub same: u64,
    /// People whose events were still arriving; nothing can be said about them.
    pub unsettled: u64,
    /// People the live generation is parked for.
    pub parked: u64,
    /// Rows of compared people that are equal.
    pub equal_rows: u64,
    pub differences: Vec<Difference>,
}

/// A person whose rows differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub user: UserId,
    /// Rows by how they differ.
    pub rows: BTreeMap<Kind, u64>,
    /// The first few of them.
    pub samples: Vec<Sample>,
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Sample {
    pub kind: Kind,
    /// Which row of the person, such as a metric and a day.
    pub key: String,
    /// Where both have it, the columns that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<&'static str>,
}

impl Comparison {
    /// Rows that differ in this way.
    pub fn rows(&self, kind: Kind) -> u64 {
        self.differences.iter().filter_map(|one| one.rows.get(&kind)).sum()
    }

    /// People with rows that differ in this way.
    pub fn people(&self, kind: Kind) -> usize {
        self.differences.iter().filter(|one| one.rows.contains_key(&kind)).count()
    }

    /// The ways in which rows differ.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        self.differences.iter().flat_map(|one| one.rows.keys().copied()).collect()
    }

    fn compare(&mut self, user: UserId, old: &[Row], new: &[Row]) {
        let by_key = |rows: &[Row]| -> BTreeMap<String, Row> {
            rows.iter().map(|row| (row.key(), row.clone())).collect()
        };
        let (old, new) = (by_key(old), by_key(new));
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let mut difference = Difference { user, rows: BTreeMap::new(), samples: Vec::new() };
        for key in keys {
            let (kind, columns) = match (old.get(key), new.get(key)) {
                (Some(old), Some(new)) if old == new => {
                    self.equal_rows += 1;
                    continue;
                }
                (Some(old), Some(new)) => (Kind::Changed, old.differing(new)),
                (Some(_), None) => (Kind::OnlyOld, Vec::new()),
                (None, _) => (Kind::OnlyNew, Vec::new()),
            };
            *difference.rows.entry(kind).or_default() += 1;
            if difference.samples.len() < SAMPLES {
                difference.samples.push(Sample { kind, key: key.clone(), columns });
            }
        }
        if difference.rows.is_empty() {
            self.same += 1;
        } else {
            self.differences.push(difference);
        }
    }
}

/// Compares two generations, person by person.
///
/// # Errors
/// Errors of the database and of the source.
pub async fn generations<S: LogReader + StateReader>(
    pool: &PgPool,
    source: &S,
    old: &Generation,
    new: &Generation,
) -> Result<Comparison, ProjectorError> {
    let mut comparison = Comparison::default();
    let mut after = None;
    loop {
        let users = source.users(after, USERS).await?;
        let Some(last) = users.last() else { return Ok(comparison) };
        after = Some(*last);
        for user in users {
            let mut sides = Vec::with_capacity(2);
            for generation in [old, new] {
                let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
                generation::use_schema(&mut tx, generation).await?;
                let progress = progress::of_user(&mut tx, generation, user).await?;
                sides.push((generation.model.rows_of(&mut tx, user).await?, progress));
            }
            // Read last: what both cover now, both covered when their rows were read.
            let heard = source.user_head(user).await?.heard(old.model.spec().hears);
            match &sides[..] {
                [(_, old_at), _] if old_at.parked => comparison.parked += 1,
                [(old, old_at), (new, new_at)] if old_at.covers(heard) && new_at.covers(heard) => {
                    comparison.compare(user, old, new);
                }
                _ => comparison.unsettled += 1,
            }
        }
    }
}

/// Compares the live rows of everybody with a fold of the log: whether they are right, or, where
/// another version of the formulas made them, what a rebuild would change.
///
/// # Errors
/// Database errors and errors of the source; a person whose log cannot be read counts as parked.
pub async fn verify<S: LogReader + StateReader>(
    pool: &PgPool,
    source: &S,
    model: ReadModel,
    mut on_progress: impl FnMut(u64) + Send,
) -> Result<Comparison, ProjectorError> {
    let mut comparison = Comparison::default();
    let mut after = None;
    let mut people = 0;
    loop {
        let users = source.users(after, USERS).await?;
        let Some(last) = users.last() else { return Ok(comparison) };
        after = Some(*last);
        people += users.len() as u64;
        for user in users {
            verify_user(pool, source, model, user, &mut comparison).await?;
        }
        on_progress(people);
    }
}

async fn verify_user<S: LogReader + StateReader>(
    pool: &PgPool,
    source: &S,
    model: ReadModel,
    user: UserId,
    comparison: &mut Comparison,
) -> Result<(), ProjectorError> {
    let mut pinned = Pinned::open(pool, model, user, Attempt::First).await?;
    let live = model.rows_of(&mut pinned.tx, user).await?;
    let progress = pinned.progress;
    pinned.tx.rollback().await?;
    let heard = source.user_head(user).await?.heard(model.spec().hears);
    if progress.parked {
        comparison.parked += 1;
    } else if !progress.covers(heard) {
        comparison.unsettled += 1;
    } else {
        match model.fold(source, user, progress.position).await {
            Ok(folded) if folded.stopped.is_some() => comparison.parked += 1,
            Ok(folded) => comparison.compare(user, &live, &folded.rows),
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => comparison.parked += 1,
        }
    }
    Ok(())
}
