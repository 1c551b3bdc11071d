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
    /// In ms since the Unix epoch.
    pub created_at_ms: i64,
}

/// Durable storage of wrapped keys, apart from the log and with backups of its own. It never sees
/// an unwrapped key.
///
/// Methods fail with [`KeyError::Unavailable`] where the storage does not answer.
pub trait KeyStore: Send + Sync {
    /// Stores a new key; it is durable when this returns.
    fn insert(&self, key: StoredSubjectKey) -> BoxFuture<'_, Result<(), KeyError>>;

    /// The key with this id, if there is one.
    fn find(&self, key_id: Uuid) -> BoxFuture<'_, Result<Option<StoredSubjectKey>, KeyError>>;

    /// The keys of one person, oldest first.
    fn of_user(&self, user: UserId) -> BoxFuture<'_, Result<Vec<StoredSubjectKey>, KeyError>>;

    /// Deletes a key, durably. Whether it was still there.
    fn destroy(&self, key_id: Uuid) -> BoxFuture<'_, Result<bool, KeyError>>;

    /// Stores a key of the server unless its name and generation are taken; then nothing happens.
    fn insert_server(&self, key: StoredServerKey) -> BoxFuture<'_, Result<(), KeyError>>;

    /// The server's keys of this name, newest first.
    fn server_keys(
        &self,
        name: ServerKeyName,
    ) -> BoxFuture<'_, Result<Vec<StoredServerKey>, KeyError>>;

    /// The ids of all master keys that any stored key is wrapped by.
    fn kek_ids(&self) -> BoxFuture<'_, Result<Vec<String>, KeyError>>;
}
