//! The public keys an issuer signs with.

use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::jwks::RemoteKeys;

/// The algorithms that tokens may be signed with. Only ones whose verifying key signs nothing.
pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// More keys than any provider publishes.
const MAX_KEYS: usize = 100;

/// Where an issuer's keys come from.
pub enum Keys {
    /// A set that is given at start.
    Fixed(Arc<KeySet>),
    /// A set that the issuer publishes.
    Published(Arc<RemoteKeys>),
}

impl From<KeySet> for Keys {
    fn from(keys: KeySet) -> Self {
        Self::Fixed(Arc::new(keys))
    }
}

impl From<RemoteKeys> for Keys {
    fn from(keys: RemoteKeys) -> Self {
        Self::Published(Arc::new(keys))
    }
}

/// A set of verification keys, each bound to the one algorithm it may be used with.
pub struct KeySet {
    pub(super) keys: Vec<Key>,
}

pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

impl Key {
    /// The key, if it is one that tokens may be verified with.
    fn of(jwk: &Jwk) -> Option<jsonwebtoken::errors::Result<Self>> {
        let algorithm = pinned_algorithm(jwk)?;
        let id = jwk.common.key_id.clone();
        Some(DecodingKey::from_jwk(jwk).map(|decoding| Self { id, algorithm, decoding }))
    }
}

/// Why a key set was refused.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    #[error("cannot read the key set file")]
    Read(#[from] std::io::Error),
    #[error("the key set is not a JSON Web Key Set")]
    Parse(#[from] serde_json::Error),
    #[error("key {0} cannot be used")]
    Key(usize, #[source] jsonwebtoken::errors::Error),
    #[error("the key set holds no RS256, ES256 or EdDSA signing key")]
    Empty,
}

impl KeySet {
    /// Reads a JSON Web Key Set, such as an identity provider publishes at `jwks.json`.
    ///
    /// Keys for encryption and of other algorithms are left out: symmetric keys in particular, with
    /// which anybody who can verify could also sign.
    ///
    /// # Errors
    /// When the text is no key set, a key is damaged, or no usable key remains.
    pub fn from_json(json: &str) -> Result<Self, KeySetError> {
        let set: JwkSet = serde_json::from_str(json)?;
        let mut keys = Vec::with_capacity(set.keys.len());
        for (index, jwk) in set.keys.iter().enumerate() {
            if let Some(key) = Key::of(jwk) {
                keys.push(key.map_err(|error| KeySetError::Key(index, error))?);
            }
        }
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(Self { keys }) }
    }

    /// As [`from_json`](Self::from_json), for a set from the network: one key that cannot be read does
    /// not take the others with it.
    ///
    /// # Errors
    /// When the text is no key set or no usable key remains.
    pub fn from_published(json: &str) -> Result<Self, KeySetError> {
        #[derive(serde::Deserialize)]
        struct Published {
            keys: Vec<serde_json::Value>,
        }
        let set: Published = serde_json::from_str(json)?;
        let readable = set.keys.into_iter().take(MAX_KEYS);
        let keys = readable.filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let keys: Vec<Key> = keys.filter_map(|jwk| Key::of(&jwk)?.ok()).collect();
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(Self { keys }) }
    }

    /// Reads the set from a file.
    ///
    /// # Errors
    /// As [`KeySet::from_json`], and when the file cannot be read.
    pub fn from_file(path: &Path) -> Result<Self, KeySetError> {
        Self::from_json(&std::fs::read_to_string(path)?)
    }
}

/// The algorithm a key is for, from its type; a declared algorithm must agree with it.
fn pinned_algorithm(jwk: &Jwk) -> Option<Algorithm> {
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)))
    {
        return None;
    }
    let by_type = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    match jwk.common.key_algorithm {
        Some(declared) if Algorithm::try_from(declared).ok() != Some(by_type) => None,
        _ => Some(by_type),
    }
}
