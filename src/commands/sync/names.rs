//! What the database keeps instead of a person's names for things: hashes under a key of theirs.

use std::sync::Arc;

use aggregates::sync::desk::{AliasKey, ClaimName};
use aggregates::{Purpose, UserId};

use crate::keys::{IdentityHashes, SubjectKey};
use crate::store::{ReadError, Store};

/// Reservations of client ids.
pub(super) const ALIAS: &str = "alias";
/// The reservation of the one open session.
pub(super) const OPEN_SESSION: &str = "open_session";
/// Receipts of pushed items.
const PUSH: &str = "push";

/// Makes the hashes of one person.
#[derive(Clone)]
pub(super) struct Names {
    key: Arc<SubjectKey>,
}

impl Names {
    pub async fn of(store: &Store, user: UserId) -> Result<Self, ReadError> {
        let key = store.sealer().key(user, Purpose::Identity).await?;
        key.identity_hashes()?;
        Ok(Self { key })
    }

    fn hashes(&self) -> Option<&IdentityHashes> {
        self.key.identity_hashes().ok()
    }

    fn hash(&self, scope: &str, text: &str) -> Vec<u8> {
        // The key was seen to be an identity key when this was made.
        self.hashes().map(|hashes| hashes.alias_hash(scope, text).to_vec()).unwrap_or_default()
    }

    /// A slot of a client id.
    pub fn alias(&self, alias: &AliasKey, slot: usize) -> Vec<u8> {
        match slot {
            0 => self.hash(alias.entity_type, &alias.text),
            // No type has such a name.
            _ => self.hash(&format!("{}#{slot}", alias.entity_type), &alias.text),
        }
    }

    pub fn open_session(&self) -> Vec<u8> {
        self.hash(OPEN_SESSION, "")
    }

    /// An installation, by what the client calls it.
    pub fn device(&self, device_id: &str) -> Vec<u8> {
        self.hash("device", &device_id.to_ascii_lowercase())
    }

    /// The scope and the hash of a name.
    pub fn claim(&self, name: &ClaimName) -> (&'static str, Vec<u8>) {
        match name {
            ClaimName::Alias { alias, slot } => (ALIAS, self.alias(alias, *slot)),
            ClaimName::OpenSession => (OPEN_SESSION, self.open_session()),
        }
    }

    /// The receipt of a pushed item: the same request with other content is another one.
    pub fn push_receipt(&self, request_id: &str, content: &[u8]) -> Vec<u8> {
        self.hashes()
            .map(|hashes| hashes.receipt_hash(PUSH, request_id, Some(content)).to_vec())
            .unwrap_or_default()
    }
}
