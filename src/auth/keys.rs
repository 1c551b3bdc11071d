//! The public keys an issuer signs with.

use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

/// A fixed set of verification keys, each bound to the one algorithm it may be used with.
pub struct KeySet {
    pub(super) keys: Vec<Key>,
}

pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// Why a key set was refused at start-up.
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
            if let Some(algorithm) = pinned_algorithm(jwk) {
                let decoding =
                    DecodingKey::from_jwk(jwk).map_err(|error| KeySetError::Key(index, error))?;
                keys.push(Key { id: jwk.common.key_id.clone(), algorithm, decoding });
            }
        }
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
