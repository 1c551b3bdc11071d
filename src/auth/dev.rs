//! An identity provider for the embedded mode: one signing key in the data directory.
//!
//! It lets a person try the system without an account anywhere. It is not meant for a deployment:
//! whoever can read the key can become anybody.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::keys::{Key, KeySet};
use super::{Role, TrustedIssuer};

/// The `iss` claim of development tokens.
pub const ISSUER: &str = "https://tidemark.invalid/dev";
/// The `aud` claim of development tokens.
pub const AUDIENCE: &str = "tidemark-dev";
/// Longest validity of a development token.
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// The key's file, inside the data directory.
const FILE: &str = "dev-issuer.pk8";

/// Signs tokens for development.
pub struct DevIssuer {
    signing: EncodingKey,
    public: Vec<u8>,
    key_id: String,
}

/// Why the development issuer cannot work.
#[derive(Debug, thiserror::Error)]
pub enum DevIssuerError {
    #[error("cannot read or write the development key {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("the development key {0} must be readable by its owner only (chmod 600)")]
    Exposed(PathBuf),
    #[error("the development key {0} is damaged; delete it to have a new one made")]
    Damaged(PathBuf),
    #[error("cannot make a development key")]
    Generate,
    #[error("cannot sign a token")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

impl DevIssuer {
    /// Opens the issuer of a data directory, making its Ed25519 key the first time.
    ///
    /// # Errors
    /// When the key cannot be read, written or used, or others may read it.
    pub fn open(data_dir: &Path) -> Result<Self, DevIssuerError> {
        let path = data_dir.join(FILE);
        let failed = |source| DevIssuerError::File { path: path.clone(), source };
        if !path.try_exists().map_err(failed)? {
            create_key(&path)?;
        }
        if fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(DevIssuerError::Exposed(path));
        }
        let pkcs8 = fs::read(&path).map_err(failed)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8)
            .map_err(|_| DevIssuerError::Damaged(path))?;
        let public = pair.public_key().as_ref().to_vec();
        let key_id = format!("dev-{}", hex::encode(&digest(&SHA256, &public).as_ref()[..8]));
        Ok(Self { signing: EncodingKey::from_ed_der(&pkcs8), public, key_id })
    }

    /// A token for `subject`, valid from now for `ttl`, at most [`MAX_TTL`].
    ///
    /// # Errors
    /// When signing fails.
    pub fn issue(
        &self,
        subject: &str,
        roles: &BTreeSet<Role>,
        ttl: Duration,
    ) -> Result<String, DevIssuerError> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = since_epoch.as_secs();
        let claims = json!({
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "token_use": "id",
            "iat": now,
            "exp": now + ttl.min(MAX_TTL).as_secs(),
            "roles": roles,
        });
        Ok(self.sign(&claims)?)
    }

    /// A token with exactly these claims.
    pub(crate) fn sign(&self, claims: &Value) -> jsonwebtoken::errors::Result<String> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.key_id.clone());
        encode(&header, claims, &self.signing)
    }

    /// What a verifier needs to accept this issuer's tokens.
    pub fn trusted(&self) -> TrustedIssuer {
        let key = Key {
            id: Some(self.key_id.clone()),
            algorithm: Algorithm::EdDSA,
            decoding: DecodingKey::from_ed_der(&self.public),
        };
        let audiences = BTreeSet::from([AUDIENCE.to_owned()]);
        TrustedIssuer::new(ISSUER, audiences, KeySet { keys: vec![key] })
    }

    /// The public key as a JSON Web Key Set.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [{
            "kty": "OKP",
            "crv": "Ed25519",
            "use": "sig",
            "alg": "EdDSA",
            "kid": self.key_id,
            "x": URL_SAFE_NO_PAD.encode(&self.public),
        }]})
    }
}

/// Writes a new key beside its place and links it there, so that of two processes starting at once
/// both end up with the same, complete key.
fn create_key(path: &Path) -> Result<(), DevIssuerError> {
    let failed = |source| DevIssuerError::File { path: path.to_owned(), source };
    let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new())
        .map_err(|_| DevIssuerError::Generate)?;
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let options =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
    let written = options.open(&draft).and_then(|mut file| {
        file.write_all(pkcs8.as_ref())?;
        file.sync_all()
    });
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => removed.map_err(failed),
    }
}
