//! A person's key for one purpose.

use std::fmt;

use aggregates::{Purpose, UserId};
use uuid::Uuid;

use super::hashes::{HealthHashes, IdentityHashes};
use super::{KeyError, Secret};
use crate::sealing::SealingKey;

const COMMITMENT_LABEL: &[u8] = b"tidemark subject key v1";

/// What the log says a key is, without telling the key: SHA-256 over a fixed label, the key id and
/// the key bytes. Its text form is lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Commitment([u8; 32]);

impl Commitment {
    /// The commitment to `secret` under this id.
    pub fn to(key_id: Uuid, secret: &Secret) -> Self {
        Self(secret.sha256_after(&[COMMITMENT_LABEL, key_id.as_bytes()]))
    }

    /// The commitment with this text form.
    pub fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(hex, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The raw hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Commitment {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the log currently says of a key. Only the caller, who reads the log, can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStatus {
    Active,
    /// A destroy event for it exists, whether or not the bytes are gone yet.
    Destroyed,
}

/// A key as the log knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectKeyRef {
    pub key_id: Uuid,
    pub user: UserId,
    pub purpose: Purpose,
    pub commitment: Commitment,
    pub status: KeyStatus,
}

/// A person's key, unwrapped. Its bytes are only ever used to derive others.
pub struct SubjectKey {
    key_id: Uuid,
    user: UserId,
    purpose: Purpose,
    commitment: Commitment,
    secret: Secret,
    sealing: SealingKey,
    derived: Derived,
}

/// What a key of each purpose gives besides sealing.
enum Derived {
    Identity(IdentityHashes),
    Activity,
    Health(HealthHashes),
}

impl SubjectKey {
    /// A key from its bytes.
    ///
    /// # Errors
    /// [`KeyError::Cipher`] where the library fails.
    pub fn new(
        key_id: Uuid,
        user: UserId,
        purpose: Purpose,
        secret: Secret,
    ) -> Result<Self, KeyError> {
        let sealing =
            SealingKey::new(secret.derive("seal")?.expose()).map_err(|_| KeyError::Cipher)?;
        let derived = match purpose {
            Purpose::Identity => Derived::Identity(IdentityHashes::derive(&secret)?),
            Purpose::Activity => Derived::Activity,
            Purpose::Health => Derived::Health(HealthHashes::derive(&secret)?),
        };
        let commitment = Commitment::to(key_id, &secret);
        Ok(Self { key_id, user, purpose, commitment, secret, sealing, derived })
    }

    pub fn key_id(&self) -> Uuid {
        self.key_id
    }

    pub fn user(&self) -> UserId {
        self.user
    }

    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// What the event that announces the key says of it.
    pub fn commitment(&self) -> Commitment {
        self.commitment
    }

    /// Seals and opens the person's content of this purpose.
    pub fn sealing(&self) -> &SealingKey {
        &self.sealing
    }

    /// Another key, named by `label`, that dies with this one.
    ///
    /// # Errors
    /// [`KeyError::Cipher`] where the library fails.
    pub fn derive(&self, label: &str) -> Result<Secret, KeyError> {
        self.secret.derive(label)
    }

    /// Hashes for receipts, client ids, content and digests.
    ///
    /// # Errors
    /// [`KeyError::WrongPurpose`] unless this is an identity key.
    pub fn identity_hashes(&self) -> Result<&IdentityHashes, KeyError> {
        match &self.derived {
            Derived::Identity(hashes) => Ok(hashes),
            _ => Err(self.lacks(Purpose::Identity)),
        }
    }

    /// Sample ids and folds.
    ///
    /// # Errors
    /// [`KeyError::WrongPurpose`] unless this is a health key.
    pub fn health_hashes(&self) -> Result<&HealthHashes, KeyError> {
        match &self.derived {
            Derived::Health(hashes) => Ok(hashes),
            _ => Err(self.lacks(Purpose::Health)),
        }
    }

    fn lacks(&self, needs: Purpose) -> KeyError {
        KeyError::WrongPurpose { has: self.purpose, needs }
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectKey")
            .field("key_id", &self.key_id)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use uuid::uuid;

    use super::*;

    fn key(purpose: Purpose) -> SubjectKey {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
        let key_id = uuid!("00000000-0000-4000-8000-0000000000aa");
        SubjectKey::new(key_id, UserId(Uuid::nil()), purpose, bytes.into()).unwrap()
    }

    /// Computed outside this program. Commitments are in the log for good.
    #[test]
    fn commitment_never_changes() {
        let commitment = key(Purpose::Health).commitment();
        let text = "3d85fb4ab441c5c7495e86237a66626effe7770b9626878b05b08bdcbde276e6";
        assert_eq!(commitment.to_string(), text);
        assert_eq!(Commitment::parse(text), Some(commitment));
        assert_eq!(Commitment::parse("3d85"), None);
    }

    #[test]
    fn each_purpose_gives_its_own_hashes() {
        assert!(key(Purpose::Identity).identity_hashes().is_ok());
        assert!(key(Purpose::Health).health_hashes().is_ok());
        for purpose in [Purpose::Activity, Purpose::Health] {
            assert!(matches!(
                key(purpose).identity_hashes(),
                Err(KeyError::WrongPurpose { needs: Purpose::Identity, .. })
            ));
        }
        assert!(key(Purpose::Activity).health_hashes().is_err());
    }

    #[test]
    fn does_not_print_its_bytes() {
        let printed = format!("{:?}", key(Purpose::Health));
        assert!(printed.contains("health") || printed.contains("Health"));
        assert!(!printed.to_lowercase().contains("secret"));
        assert!(!printed.contains("[0, 1, 2"));
    }
}
