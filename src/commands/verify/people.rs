//! Everybody's inline state against the fold of their events.

use aggregates::UserId;
use serde::Serialize;
use uuid::Uuid;

use super::{Faults, verify_segments, verify_streams};
use crate::keys::KeyError;
use crate::store::{ReadError, Store};

/// People of one page.
const PAGE: i64 = 500;

pub(crate) const PEOPLE: &str =
    "SELECT user_id FROM user_heads WHERE user_id > $1 ORDER BY user_id LIMIT $2";

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PeopleReport {
    pub people: u64,
    #[serde(flatten)]
    pub faults: Faults,
}

/// Checks stream states and samples of everybody. `progress` hears how many people are done.
///
/// # Errors
/// Where a database does not answer. A person whose log cannot be read is a fault of theirs, and
/// the others are still checked.
pub async fn verify_people(
    store: &Store,
    keep: usize,
    mut progress: impl FnMut(u64),
) -> Result<PeopleReport, ReadError> {
    let mut report = PeopleReport { people: 0, faults: Faults::keeping(keep) };
    let mut after = Uuid::nil();
    loop {
        let people: Vec<Uuid> =
            sqlx::query_scalar(PEOPLE).bind(after).bind(PAGE).fetch_all(store.pool()).await?;
        let Some(last) = people.last() else { return Ok(report) };
        after = *last;
        for user in people.into_iter().map(UserId).filter(|user| !user.is_system()) {
            let found = verify_streams(store, user).await;
            report.faults.extend(user, "state", found)?;
            let found = verify_segments(store, user).await;
            report.faults.extend(user, "samples", found)?;
            report.people += 1;
            progress(report.people);
        }
    }
}

impl Faults {
    fn extend(
        &mut self,
        user: UserId,
        kind: &'static str,
        found: Result<Vec<String>, ReadError>,
    ) -> Result<(), ReadError> {
        match found {
            Ok(findings) => {
                for finding in findings {
                    self.add(None, kind, format!("{user}: {finding}"));
                }
            }
            Err(ReadError::Corrupt { position, reason }) => {
                self.add((position > 0).then_some(position), kind, format!("{user}: {reason}"));
            }
            Err(ReadError::Newer { position, source }) => {
                self.add(Some(position), kind, format!("{user}: {source}"));
            }
            Err(ReadError::Key(error @ (KeyError::Missing { .. } | KeyError::Corrupt { .. }))) => {
                self.add(None, "key", format!("{user}: {error}"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
