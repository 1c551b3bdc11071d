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
//! | [`lookup`] | the generations of the key of pseudonyms, and which to use when |
//! | [`master`] | the keys that wrap all others |
//! | [`rotate`] | wrapping everything anew under another master key |
//! | [`store`], [`postgres`] | where wrapped keys lie |
//!
//! Invariants: a key is durable before it is handed out; a missing or altered key is an error that
//! someone must look at, and never passes for an erasure; no key prints.

pub mod hashes;
pub mod keyring;
pub mod lookup;
pub mod master;
pub mod postgres;
pub mod rotate;
pub mod server;
pub mod store;
pub mod subject;

mod secret;

pub use hashes::{HealthHashes, IdentityHashes, Pseudonym, SampleIds, TombstoneHashes};
pub use keyring::{CacheLimits, Keyring};
pub use lookup::{Lookup, LookupView};
pub use master::{MasterKey, MasterKeyError, Masters};
pub use postgres::PostgresKeyStore;
pub use secret::Secret;
pub use server::{ServerKey, ServerKeyName};
pub use store::{
    KeyStore, MasterState, Rewrapped, StoredMaster, StoredServerKey, StoredSubjectKey, Wrapped,
};
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
    #[error(
        "keys are wrapped by master key {wrapped_by}, which is not at hand (known: {at_hand}); \
         give this process that key too, in TIDEMARK_MASTER_KEY or in master.key"
    )]
    OtherMaster { wrapped_by: String, at_hand: String },
    /// A rotation has retired the master key; it is not taken back into use.
    #[error("master key {kek_id} was retired by a rotation; put a new one before it")]
    RetiredMaster { kek_id: String },
    /// The key store does not settle on a master key to wrap new keys with.
    #[error("the key store has no current master key")]
    NoMaster,
    /// The newest generation of a key is not known everywhere yet.
    #[error("the newest {name} key was made {age_s} s ago; the next can follow after {rest_s} s")]
    TooSoon { name: ServerKeyName, age_s: i64, rest_s: i64 },
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
        self.alarm().is_some()
    }

    /// What kind of alarm it is.
    pub fn alarm(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } => Some("missing"),
            Self::Corrupt { .. } => Some("corrupt"),
            Self::OtherMaster { .. } => Some("other master"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
