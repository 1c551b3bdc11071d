//! Where wrapped keys lie.

use aggregates::{Purpose, UserId};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::{KeyError, ServerKeyName};

/// A person's key as stored: useless without the master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSubjectKey {
    pub key_id: Uuid,
    pub user: UserId,
    pub purpose: Purpose,
    pub wrapped: Vec<u8>,
    /// Which master key wrapped it.
    pub kek_id: String,
    /// In ms since the Unix epoch.
    pub created_at_ms: i64,
}

/// One of the server's keys as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredServerKey {
    pub key_id: Uuid,
    pub name: ServerKeyName,
    /// From 1; the highest of a name is the current one.
    pub generation: i32,
    pub wrapped: Vec<u8>,
    /// Which master key wrapped it.
    pub kek_id: String,
    /// In ms since the Unix epoch. A store moves a time that has passed up to its own clock, which
    /// all processes share: how long others can have known of the key follows from it.
    pub created_at_ms: i64,
    /// How long the store has had it, by the store's clock; not looked at when it is stored.
    pub age_ms: i64,
}

/// What a master key is to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterState {
    /// New keys are wrapped by it.
    Current,
    /// What it wrapped is still opened with it.
    Accepted,
    /// Nothing is wrapped by it any more, and nothing ever will be.
    Retired,
}

impl MasterState {
    /// The stable name, as stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Accepted => "accepted",
            Self::Retired => "retired",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Current, Self::Accepted, Self::Retired].into_iter().find(|it| it.as_str() == name)
    }
}

/// A master key as the store knows it: its id alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMaster {
    pub kek_id: String,
    pub state: MasterState,
}

/// How many keys a master key wraps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    pub kek_id: String,
    pub subject_keys: i64,
    pub server_keys: i64,
}

/// A key wrapped anew, to replace what another master key wrapped.
#[derive(Clone, Debug)]
pub struct Rewrapped {
    pub key_id: Uuid,
    /// The master key whose wrapping is replaced; if it is another one by now, nothing happens.
    pub from: String,
    pub wrapped: Vec<u8>,
}

/// Durable storage of wrapped keys, apart from the log and with backups of its own. It never sees
/// an unwrapped key.
///
/// Methods fail with [`KeyError::Unavailable`] where the storage does not answer.
pub trait KeyStore: Send + Sync {
    /// Stores a new key if the master key that wrapped it is the current one; it is durable when
    /// this returns. Whether it was: so a key under a master key that is on its way out cannot slip
    /// in behind a rotation.
    fn insert(&self, key: StoredSubjectKey) -> BoxFuture<'_, Result<bool, KeyError>>;

    /// The key with this id, if there is one.
    fn find(&self, key_id: Uuid) -> BoxFuture<'_, Result<Option<StoredSubjectKey>, KeyError>>;

    /// The keys of one person, oldest first.
    fn of_user(&self, user: UserId) -> BoxFuture<'_, Result<Vec<StoredSubjectKey>, KeyError>>;

    /// Deletes a key, durably. Whether it was still there.
    fn destroy(&self, key_id: Uuid) -> BoxFuture<'_, Result<bool, KeyError>>;

    /// Stores a key of the server unless its name and generation are taken; then nothing happens.
    /// Whether the master key that wrapped it is the current one, as with [`insert`](Self::insert).
    fn insert_server(&self, key: StoredServerKey) -> BoxFuture<'_, Result<bool, KeyError>>;

    /// The server's keys of this name, newest first.
    fn server_keys(
        &self,
        name: ServerKeyName,
    ) -> BoxFuture<'_, Result<Vec<StoredServerKey>, KeyError>>;

    /// The master keys on record, the oldest first. Cheap: asked at every readiness check.
    fn masters(&self) -> BoxFuture<'_, Result<Vec<StoredMaster>, KeyError>>;

    /// Makes a master key the current one and accepts the one before it until it is retired. A store
    /// without any takes the first it is offered; with `only_first`, nothing happens to one that has.
    ///
    /// Fails with [`KeyError::RetiredMaster`] where it was retired before.
    fn make_current(&self, kek_id: &str, only_first: bool) -> BoxFuture<'_, Result<(), KeyError>>;

    /// A page of the subject keys that other master keys wrap, by key id.
    fn subjects_not_under(
        &self,
        kek_id: &str,
        after: Uuid,
        limit: i64,
    ) -> BoxFuture<'_, Result<Vec<StoredSubjectKey>, KeyError>>;

    /// Replaces wrappings by those of the current master key; answers how many were replaced. Keys
    /// that were destroyed meanwhile stay destroyed, and nothing happens if `to` is not the current
    /// master key any more.
    fn rewrap(&self, keys: Vec<Rewrapped>, to: &str) -> BoxFuture<'_, Result<u64, KeyError>>;

    /// Retires the accepted master keys that wrap nothing any more; answers their ids.
    fn retire_unused(&self) -> BoxFuture<'_, Result<Vec<String>, KeyError>>;

    /// How many keys each master key wraps, counted one by one.
    fn wrapped(&self) -> BoxFuture<'_, Result<Vec<Wrapped>, KeyError>>;
}
