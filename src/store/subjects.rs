//! Which keys a person has, as the log says: consulted at every seal and every unseal.
//!
//! The table holds no key material. A short cache in front of it is safe: an append with a key
//! that was destroyed meanwhile is refused under the head lock, and a reader that is a moment
//! late reads what it could have read a moment before.

use std::sync::Arc;
use std::time::Duration;

use aggregates::{Purpose, UserId};
use moka::future::Cache;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::read::ReadError;
use crate::keys::{Commitment, KeyStatus, SubjectKeyRef};

pub(crate) const UNFINISHED: &str = "SELECT user_id, purpose, key_id FROM subjects \
     WHERE status = 2 ORDER BY user_id, purpose LIMIT 100";
pub(crate) const SUBJECTS: &str = "SELECT purpose, key_id, commitment, status, privacy_version \
     FROM subjects WHERE user_id = $1";

/// A person's keys, by purpose.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    keys: [Option<(SubjectKeyRef, i64)>; 3],
}

impl Subject {
    /// The key of a purpose, whatever its status.
    pub fn key(&self, purpose: Purpose) -> Option<SubjectKeyRef> {
        self.entry(purpose).map(|(key, _)| key)
    }

    /// The version of the rules for a purpose; raised by every change of key or privacy.
    pub fn privacy_version(&self, purpose: Purpose) -> i64 {
        self.entry(purpose).map_or(0, |(_, version)| version)
    }

    /// Whether the person's identity was erased.
    pub fn is_erased(&self) -> bool {
        self.key(Purpose::Identity).is_some_and(|key| key.status == KeyStatus::Destroyed)
    }

    /// The key with this id, if it is one of the person's.
    pub fn by_id(&self, key_id: Uuid) -> Option<SubjectKeyRef> {
        self.keys.iter().flatten().map(|(key, _)| *key).find(|key| key.key_id == key_id)
    }

    fn entry(&self, purpose: Purpose) -> Option<(SubjectKeyRef, i64)> {
        self.keys[purpose as usize]
    }
}

/// Looks subjects up, with a bounded cache.
#[derive(Clone)]
pub struct Subjects {
    pool: PgPool,
    cache: Cache<UserId, Arc<Subject>>,
}

impl Subjects {
    pub(crate) fn new(pool: PgPool) -> Self {
        let cache =
            Cache::builder().max_capacity(20_000).time_to_live(Duration::from_secs(30)).build();
        Self { pool, cache }
    }

    /// The person's keys; empty for a stranger.
    ///
    /// # Errors
    /// [`ReadError`] where the database does not answer or a row is damaged.
    pub async fn of(&self, user: UserId) -> Result<Arc<Subject>, ReadError> {
        if let Some(subject) = self.cache.get(&user).await {
            return Ok(subject);
        }
        self.fresh(user).await
    }

    /// As [`of`](Self::of), past the cache.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub async fn fresh(&self, user: UserId) -> Result<Arc<Subject>, ReadError> {
        let rows = sqlx::query(SUBJECTS).bind(user.0).fetch_all(&self.pool).await?;
        let mut subject = Subject::default();
        for row in rows {
            let purpose: String = row.try_get(0)?;
            let commitment: Vec<u8> = row.try_get(2)?;
            let (Some(purpose), Ok(commitment)) =
                (Purpose::parse(&purpose), <[u8; 32]>::try_from(commitment))
            else {
                return Err(ReadError::Corrupt {
                    position: 0,
                    reason: "a subject row is damaged".to_owned(),
                });
            };
            let status: i16 = row.try_get(3)?;
            let key = SubjectKeyRef {
                key_id: row.try_get(1)?,
                user,
                purpose,
                commitment: Commitment::from(commitment),
                status: if status == 1 { KeyStatus::Active } else { KeyStatus::Destroyed },
            };
            subject.keys[purpose as usize] = Some((key, row.try_get(4)?));
        }
        let subject = Arc::new(subject);
        if subject.key(Purpose::Identity).is_some() {
            self.cache.insert(user, Arc::clone(&subject)).await;
        } else {
            self.cache.invalidate(&user).await;
        }
        Ok(subject)
    }

    /// Erasures that were recorded but not carried through, as by a crash in between.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub async fn unfinished(&self) -> Result<Vec<(UserId, Purpose, Uuid)>, ReadError> {
        let rows = sqlx::query(UNFINISHED).fetch_all(&self.pool).await?;
        let mut unfinished = Vec::new();
        for row in rows {
            let purpose: String = row.try_get(1)?;
            if let Some(purpose) = Purpose::parse(&purpose) {
                unfinished.push((UserId(row.try_get(0)?), purpose, row.try_get(2)?));
            }
        }
        Ok(unfinished)
    }

    /// Forgets what is cached of a person, after their keys or rules changed.
    pub async fn invalidate(&self, user: UserId) {
        self.cache.invalidate(&user).await;
    }
}
