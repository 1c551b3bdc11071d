//! Keys as the rest of the server uses them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aggregates::{Purpose, UserId};
use moka::future::Cache;
use uuid::Uuid;

use super::{
    KeyError, KeyStatus, KeyStore, MasterKey, Secret, ServerKey, ServerKeyName, StoredServerKey,
    StoredSubjectKey, SubjectKey, SubjectKeyRef,
};
use crate::sealing::Aad;
use crate::{clock, ids};

/// How many unwrapped keys stay in memory, and for how long.
///
/// Another process may destroy a key; this one forgets the bytes when it next hears of the
/// destruction, and after `time_to_live` in any case.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    pub capacity: u64,
    pub time_to_live: Duration,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { capacity: 10_000, time_to_live: Duration::from_secs(300) }
    }
}

/// Creates, fetches and destroys keys. Cheap to clone.
#[derive(Clone)]
pub struct Keyring {
    store: Arc<dyn KeyStore>,
    master: Arc<MasterKey>,
    cache: Cache<Uuid, Arc<SubjectKey>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("master", &self.master).finish_non_exhaustive()
    }
}

impl Keyring {
    /// A keyring over stored keys. Call [`check_master`](Self::check_master) at start.
    pub fn new(store: Arc<dyn KeyStore>, master: MasterKey, limits: CacheLimits) -> Self {
        let cache = Cache::builder()
            .max_capacity(limits.capacity)
            .time_to_live(limits.time_to_live)
            .build();
        Self { store, master: Arc::new(master), cache }
    }

    /// Refuses to work with a master key that does not open what is stored, as after the loss of
    /// its file: going on would create keys beside an unreadable log.
    ///
    /// # Errors
    /// [`KeyError::OtherMaster`], or [`KeyError::Unavailable`].
    pub async fn check_master(&self) -> Result<(), KeyError> {
        let others = self.store.kek_ids().await?;
        others.iter().try_for_each(|kek_id| self.same_master(kek_id))
    }

    /// Makes a key for a person. It is durable when this returns; the event that announces it
    /// carries its [`commitment`](SubjectKey::commitment).
    ///
    /// # Errors
    /// [`KeyError::Unavailable`], [`KeyError::Cipher`].
    pub async fn create(
        &self,
        user: UserId,
        purpose: Purpose,
    ) -> Result<Arc<SubjectKey>, KeyError> {
        let key = SubjectKey::new(ids::new_id(), user, purpose, Secret::random()?)?;
        let aad = Aad::subject_key(key.key_id(), user, purpose);
        self.store
            .insert(StoredSubjectKey {
                key_id: key.key_id(),
                user,
                purpose,
                wrapped: self.master.wrap(&aad, key.secret())?,
                kek_id: self.master.id().to_owned(),
                created_at_ms: clock::now_ms(),
            })
            .await?;
        let key = Arc::new(key);
        self.cache.insert(key.key_id(), Arc::clone(&key)).await;
        Ok(key)
    }

    /// The key that the log speaks of.
    ///
    /// # Errors
    /// [`KeyError::Shredded`] only if `key.status` says so; without that, a key that is not there
    /// is [`KeyError::Missing`], and one that is not what the log says is [`KeyError::Corrupt`].
    pub async fn fetch(&self, key: &SubjectKeyRef) -> Result<Arc<SubjectKey>, KeyError> {
        let key_id = key.key_id;
        if key.status == KeyStatus::Destroyed {
            self.cache.invalidate(&key_id).await;
            return Err(KeyError::Shredded { key_id });
        }
        if let Some(cached) = self.cache.get(&key_id).await {
            return verified(cached, key);
        }
        let stored = self.store.find(key_id).await?.ok_or(KeyError::Missing { key_id })?;
        let unwrapped = verified(Arc::new(self.unwrap_subject(stored)?), key)?;
        self.cache.insert(key_id, Arc::clone(&unwrapped)).await;
        Ok(unwrapped)
    }

    /// The stored keys of one person, wrapped, oldest first.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`].
    pub async fn of_user(&self, user: UserId) -> Result<Vec<StoredSubjectKey>, KeyError> {
        self.store.of_user(user).await
    }

    /// Destroys a key; the destroy event comes first. Whether it was still there: doing it again
    /// changes nothing.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`].
    pub async fn destroy(&self, key_id: Uuid) -> Result<bool, KeyError> {
        let existed = self.store.destroy(key_id).await?;
        self.cache.invalidate(&key_id).await;
        Ok(existed)
    }

    /// The server's keys of one name, the current one first. Older ones still open what they made.
    ///
    /// # Errors
    /// [`KeyError::NoServerKey`] where there is none.
    pub async fn server_keys(&self, name: ServerKeyName) -> Result<Vec<ServerKey>, KeyError> {
        let stored = self.store.server_keys(name).await?;
        if stored.is_empty() {
            return Err(KeyError::NoServerKey { name });
        }
        stored.into_iter().map(|key| self.unwrap_server(key)).collect()
    }

    /// The server's current key of one name, made at the first call. Processes that race for it
    /// get the same one.
    ///
    /// Only for the set-up of an empty log: with a lookup key made anew beside existing pseudonyms,
    /// everyone would be a stranger.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`] and the alarms of unwrapping.
    pub async fn get_or_create_server_key(
        &self,
        name: ServerKeyName,
    ) -> Result<ServerKey, KeyError> {
        if self.store.server_keys(name).await?.is_empty() {
            let key_id = ids::new_id();
            let aad = Aad::server_key(key_id, name.as_str());
            self.store
                .insert_server(StoredServerKey {
                    key_id,
                    name,
                    generation: 1,
                    wrapped: self.master.wrap(&aad, &Secret::random()?)?,
                    kek_id: self.master.id().to_owned(),
                    created_at_ms: clock::now_ms(),
                })
                .await?;
        }
        let current = self.server_keys(name).await?.into_iter().next();
        current.ok_or(KeyError::NoServerKey { name })
    }

    fn unwrap_subject(&self, stored: StoredSubjectKey) -> Result<SubjectKey, KeyError> {
        self.same_master(&stored.kek_id)?;
        let StoredSubjectKey { key_id, user, purpose, wrapped, .. } = stored;
        let secret = self
            .master
            .unwrap(&Aad::subject_key(key_id, user, purpose), &wrapped)
            .ok_or(KeyError::Corrupt { key_id })?;
        SubjectKey::new(key_id, user, purpose, secret)
    }

    fn unwrap_server(&self, stored: StoredServerKey) -> Result<ServerKey, KeyError> {
        self.same_master(&stored.kek_id)?;
        let StoredServerKey { key_id, name, wrapped, .. } = stored;
        let secret = self
            .master
            .unwrap(&Aad::server_key(key_id, name.as_str()), &wrapped)
            .ok_or(KeyError::Corrupt { key_id })?;
        ServerKey::new(key_id, name, secret)
    }

    fn same_master(&self, kek_id: &str) -> Result<(), KeyError> {
        if kek_id == self.master.id() {
            return Ok(());
        }
        Err(KeyError::OtherMaster {
            wrapped_by: kek_id.to_owned(),
            at_hand: self.master.id().to_owned(),
        })
    }
}

/// The key, if it is the one the log committed to.
fn verified(key: Arc<SubjectKey>, expected: &SubjectKeyRef) -> Result<Arc<SubjectKey>, KeyError> {
    let same = key.commitment() == expected.commitment
        && key.user() == expected.user
        && key.purpose() == expected.purpose;
    if same { Ok(key) } else { Err(KeyError::Corrupt { key_id: expected.key_id }) }
}
