//! Keys as the rest of the server uses them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aggregates::{Purpose, UserId};
use moka::future::Cache;
use uuid::Uuid;

use super::store::MasterState;
use super::{
    KeyError, KeyStatus, KeyStore, MasterKey, Masters, Secret, ServerKey, ServerKeyName,
    StoredServerKey, StoredSubjectKey, SubjectKey, SubjectKeyRef,
};
use crate::metrics::KEY_ALARMS;
use crate::sealing::Aad;
use crate::{clock, ids};

/// How often a key is wrapped again because the current master key changed meanwhile.
const WRAPPINGS: usize = 3;

/// How long nothing more is said of a key that cannot be used.
const SILENCE: Duration = Duration::from_secs(60);

/// How many unwrapped keys stay in memory, and for how long.
///
/// Another process may destroy a key. This one refuses its use as soon as it has looked at the log's
/// list of keys again, which it does every 30 s, and forgets the bytes then; a key that nobody asks
/// for is forgotten after `time_to_live`, at the next [`Keyring::sweep`].
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
    pub(super) store: Arc<dyn KeyStore>,
    pub(super) masters: Arc<Masters>,
    /// Id of the master key that wraps new keys, as last heard from the store.
    current: Arc<Mutex<Option<String>>>,
    cache: Cache<Uuid, Arc<SubjectKey>>,
    /// Keys whose trouble was told lately.
    sounded: Cache<Uuid, ()>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("masters", &self.masters).finish_non_exhaustive()
    }
}

impl Keyring {
    /// A keyring over stored keys. Call [`check_master`](Self::check_master) at start.
    pub fn new(store: Arc<dyn KeyStore>, masters: impl Into<Masters>, limits: CacheLimits) -> Self {
        let cache = Cache::builder()
            .max_capacity(limits.capacity)
            .time_to_live(limits.time_to_live)
            .build();
        let sounded = Cache::builder().max_capacity(1000).time_to_live(SILENCE).build();
        Self { store, masters: Arc::new(masters.into()), current: Arc::default(), cache, sounded }
    }

    /// Where the wrapped keys lie.
    pub fn store(&self) -> &dyn KeyStore {
        &*self.store
    }

    /// The master keys at hand.
    pub fn masters(&self) -> &Masters {
        &self.masters
    }

    /// Refuses to work without a master key that something stored is wrapped by, as after the loss
    /// of its file: going on would create keys beside an unreadable log.
    ///
    /// # Errors
    /// [`KeyError::OtherMaster`], or [`KeyError::Unavailable`].
    pub async fn check_master(&self) -> Result<(), KeyError> {
        let masters = self.store.masters().await?;
        let mut used = masters.iter().filter(|master| master.state != MasterState::Retired);
        used.try_for_each(|master| self.master(&master.kek_id).map(drop))
    }

    /// The master key that wraps new keys.
    async fn wrapping(&self) -> Result<Arc<MasterKey>, KeyError> {
        let heard = self.heard().clone();
        let current = match heard {
            Some(current) => current,
            None => self.ask_current().await?,
        };
        self.master(&current)
    }

    async fn ask_current(&self) -> Result<String, KeyError> {
        if let Some(newest) = self.masters.newest() {
            self.store.make_current(newest.id(), true).await?;
        }
        let masters = self.store.masters().await?;
        let current = masters.into_iter().find(|master| master.state == MasterState::Current);
        let current = current.ok_or(KeyError::NoMaster)?.kek_id;
        *self.heard() = Some(current.clone());
        Ok(current)
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
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
        for _ in 0..WRAPPINGS {
            let master = self.wrapping().await?;
            let stored = StoredSubjectKey {
                key_id: key.key_id(),
                user,
                purpose,
                wrapped: master.wrap(&aad, key.secret())?,
                kek_id: master.id().to_owned(),
                created_at_ms: clock::now_ms(),
            };
            if self.store.insert(stored).await? {
                return Ok(self.remember(key).await);
            }
            // A rotation has begun since we last asked.
            *self.heard() = None;
        }
        Err(KeyError::NoMaster)
    }

    async fn remember(&self, key: SubjectKey) -> Arc<SubjectKey> {
        let key = Arc::new(key);
        self.cache.insert(key.key_id(), Arc::clone(&key)).await;
        key
    }

    /// The key that the log speaks of.
    ///
    /// # Errors
    /// [`KeyError::Shredded`] only if `key.status` says so; without that, a key that is not there
    /// is [`KeyError::Missing`], and one that is not what the log says is [`KeyError::Corrupt`].
    pub async fn fetch(&self, key: &SubjectKeyRef) -> Result<Arc<SubjectKey>, KeyError> {
        let fetched = self.fetch_quietly(key).await;
        if let Err(error) = &fetched
            && let Some(kind) = error.alarm()
        {
            metrics::counter!(KEY_ALARMS, "kind" => kind).increment(1);
            self.sound(key.key_id, error).await;
        }
        fetched
    }

    /// Says that a key is missing or altered; once a minute, however many requests need it.
    async fn sound(&self, key_id: Uuid, error: &KeyError) {
        if self.sounded.contains_key(&key_id) {
            return;
        }
        self.sounded.insert(key_id, ()).await;
        tracing::error!(
            key = %key_id,
            %error,
            action = "restore the key store that belongs to this log, and find out who touched it",
            "a person's key cannot be used: their data stays closed, everybody else is served"
        );
    }

    async fn fetch_quietly(&self, key: &SubjectKeyRef) -> Result<Arc<SubjectKey>, KeyError> {
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
        // Whatever becomes of the stored bytes, those in memory go.
        self.cache.invalidate(&key_id).await;
        let existed = self.store.destroy(key_id).await?;
        self.cache.invalidate(&key_id).await;
        self.sweep().await;
        Ok(existed)
    }

    /// Lets go of the bytes of keys that are to leave memory. The cache would do so when it is next
    /// used, which in an idle process may be never.
    pub async fn sweep(&self) {
        self.cache.run_pending_tasks().await;
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
            self.create_server_key(name, 1).await?;
        }
        let current = self.server_keys(name).await?.into_iter().next();
        current.ok_or(KeyError::NoServerKey { name })
    }

    /// Makes a key of the server unless the generation exists.
    pub(super) async fn create_server_key(
        &self,
        name: ServerKeyName,
        generation: i32,
    ) -> Result<(), KeyError> {
        let key_id = ids::new_id();
        let aad = Aad::server_key(key_id, name.as_str());
        let secret = Secret::random()?;
        for _ in 0..WRAPPINGS {
            let master = self.wrapping().await?;
            let stored = StoredServerKey {
                key_id,
                name,
                generation,
                wrapped: master.wrap(&aad, &secret)?,
                kek_id: master.id().to_owned(),
                created_at_ms: clock::now_ms(),
                age_ms: 0,
            };
            if self.store.insert_server(stored).await? {
                return Ok(());
            }
            *self.heard() = None;
        }
        Err(KeyError::NoMaster)
    }

    fn unwrap_subject(&self, stored: StoredSubjectKey) -> Result<SubjectKey, KeyError> {
        let master = self.master(&stored.kek_id)?;
        let StoredSubjectKey { key_id, user, purpose, wrapped, .. } = stored;
        let secret = master
            .unwrap(&Aad::subject_key(key_id, user, purpose), &wrapped)
            .ok_or(KeyError::Corrupt { key_id })?;
        SubjectKey::new(key_id, user, purpose, secret)
    }

    pub(super) fn unwrap_server(&self, stored: StoredServerKey) -> Result<ServerKey, KeyError> {
        let master = self.master(&stored.kek_id)?;
        let StoredServerKey { key_id, name, wrapped, .. } = stored;
        let secret = master
            .unwrap(&Aad::server_key(key_id, name.as_str()), &wrapped)
            .ok_or(KeyError::Corrupt { key_id })?;
        ServerKey::new(key_id, name, secret)
    }

    pub(super) fn master(&self, kek_id: &str) -> Result<Arc<MasterKey>, KeyError> {
        self.masters.get(kek_id).ok_or_else(|| KeyError::OtherMaster {
            wrapped_by: kek_id.to_owned(),
            at_hand: self.masters.ids().join(", "),
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
