//! Keys: one per person and purpose, and a few of the server's own.
//!
//! Everything personal in the log is sealed with a key that lies in another database, wrapped by a
//! master key that lies in neither. Destroying a person's key therefore ends access to the log, its
//! replicas and its backups at once, without touching an event.
//!
//! | Module | Holds |
//! |---|---|
//! | [`keyring`] | what the rest of the server uses: create, fetch, destroy, with a small cache |
//! | [`subject`] | a person's key and its commitment |
//! | [`hashes`] | keyed hashes and ids derived from keys |
//! | [`server`] | the server's own keys |
//! | [`master`] | the key that wraps all others |
//! | [`store`], [`postgres`] | where wrapped keys lie |
//!
//! Invariants: a key is durable before it is handed out; a missing or altered key is an error that
//! someone must look at, and never passes for an erasure; no key prints.

pub mod hashes;
pub mod keyring;
pub mod master;
pub mod postgres;
pub mod server;
pub mod store;
pub mod subject;

mod secret;

pub use hashes::{HealthHashes, IdentityHashes, Pseudonym, SampleIds, TombstoneHashes};
pub use keyring::{CacheLimits, Keyring};
pub use master::{MasterKey, MasterKeyError};
pub use postgres::PostgresKeyStore;
pub use secret::Secret;
pub use server::{ServerKey, ServerKeyName};
pub use store::{KeyStore, StoredServerKey, StoredSubjectKey};
pub use subject::{Commitment, KeyStatus, SubjectKey, SubjectKeyRef};

use aggregates::Purpose;
use uuid::Uuid;

/// Why a key is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The person had the key destroyed, and the log says so. What it sealed is gone for good.
    #[error("key {key_id} was destroyed")]
    Shredded { key_id: Uuid },
    /// The key store has no such key and the log knows of no destruction. An alarm.
    #[error("key {key_id} is missing from the key store though it was never destroyed")]
    Missing { key_id: Uuid },
    /// The key store holds something else under this id than what was committed to. An alarm.
    #[error("key {key_id} does not match what was committed to")]
    Corrupt { key_id: Uuid },
    /// The server has no key of this name yet.
    #[error("the server's {name} key does not exist")]
    NoServerKey { name: ServerKeyName },
    /// Stored keys are wrapped by another master key than the one at hand.
    #[error("keys are wrapped by master key {wrapped_by}, but the master key at hand is {at_hand}")]
    OtherMaster { wrapped_by: String, at_hand: String },
    /// A key of one purpose was asked for what only another one gives.
    #[error("a key for {has} cannot do what needs the key for {needs}")]
    WrongPurpose { has: Purpose, needs: Purpose },
    /// The key store did not answer. Worth another try.
    #[error("the key store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The cipher or the operating system's random source failed.
    #[error("the cipher or the random source of the operating system failed")]
    Cipher,
}

impl KeyError {
    /// Whether someone has to look at it: keys vanish or change only by fault or by attack.
    pub fn is_alarm(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Corrupt { .. } | Self::OtherMaster { .. })
    }
}

#[cfg(test)]
mod tests;
