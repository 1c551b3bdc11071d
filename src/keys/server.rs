//! The server's own keys.

use std::fmt;

use uuid::Uuid;

use super::hashes::{HashKey, Pseudonym};
use super::{KeyError, Secret};
use crate::sealing::{CursorKey, Fields};

/// What a key of the server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerKeyName {
    /// Pseudonyms that are found before anyone knows whose they are: issuer and subject, e-mail,
    /// hardware ids.
    Lookup,
    /// Tags of sync cursors.
    Cursor,
    /// Signatures of the development token issuer.
    Signing,
}

impl ServerKeyName {
    pub const ALL: [Self; 3] = [Self::Lookup, Self::Cursor, Self::Signing];

    /// The stable name, as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Cursor => "cursor",
            Self::Signing => "signing",
        }
    }
}

impl fmt::Display for ServerKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One of the server's keys, unwrapped.
#[derive(Debug)]
pub struct ServerKey {
    key_id: Uuid,
    name: ServerKeyName,
    secret: Secret,
    lookup: HashKey,
}

impl ServerKey {
    pub(super) fn new(key_id: Uuid, name: ServerKeyName, secret: Secret) -> Result<Self, KeyError> {
        let lookup = HashKey::derive(&secret, "lookup")?;
        Ok(Self { key_id, name, secret, lookup })
    }

    /// Stored beside what the key made, so that it is known which key to try.
    pub fn key_id(&self) -> Uuid {
        self.key_id
    }

    pub fn name(&self) -> ServerKeyName {
        self.name
    }

    /// The bytes themselves.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Stands for a personal value that must be found again: the same scope and value always give
    /// the same pseudonym. A value may have several parts (issuer and subject); the caller brings
    /// each to its canonical form first.
    pub fn lookup_hash(&self, scope: &str, value: &[&str]) -> Pseudonym {
        let scoped = Fields::labelled(scope);
        self.lookup.hash(value.iter().fold(scoped, |fields, part| fields.text(part)))
    }

    /// This key as the key of cursor tags.
    ///
    /// # Errors
    /// [`KeyError::Cipher`] where the library fails.
    pub fn cursor_key(&self) -> Result<CursorKey, KeyError> {
        Ok(CursorKey::new(self.secret.derive("cursor")?.expose()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed outside this program. With other values everyone would be a stranger.
    #[test]
    fn pseudonyms_never_change() {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
        let key = ServerKey::new(Uuid::nil(), ServerKeyName::Lookup, bytes.into()).unwrap();
        assert_eq!(
            hex::encode(key.lookup_hash("issuer", &["https://id.example", "s-1"])),
            "a6f9dab9812abf840fdd39f82aa51fc7967bb91badbd78e5e385d5113aac6bce"
        );
        assert_ne!(key.lookup_hash("email", &["a", "bc"]), key.lookup_hash("email", &["ab", "c"]));
        assert_ne!(key.lookup_hash("email", &["a"]), key.lookup_hash("hardware", &["a"]));
    }
}
