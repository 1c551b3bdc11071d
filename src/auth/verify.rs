//! Verification of bearer tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwks::{JwksHealth, RemoteKeys};
use super::keys::{ALGORITHMS, Key, KeySet, Keys};
use super::{Identity, Role};
use crate::metrics::TOKENS_REFUSED;

/// Difference between clocks that is forgiven on `exp` and `nbf`, in seconds.
const LEEWAY_S: u64 = 60;
/// Longest token looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// Longest subject accepted, in bytes.
const MAX_SUBJECT: usize = 255;

/// An identity provider whose tokens are accepted.
pub struct TrustedIssuer {
    /// The exact `iss` claim.
    pub issuer: String,
    /// Accepted client ids: `aud` of id tokens, `client_id` of access tokens.
    pub audiences: BTreeSet<String>,
    /// What its tokens may be signed with; a key of another kind in its set is not used.
    pub algorithms: Vec<Algorithm>,
    pub keys: Keys,
}

impl TrustedIssuer {
    /// An issuer that may use every algorithm we know.
    pub fn new(issuer: &str, audiences: BTreeSet<String>, keys: impl Into<Keys>) -> Self {
        let algorithms = ALGORITHMS.to_vec();
        Self { issuer: issuer.to_owned(), audiences, algorithms, keys: keys.into() }
    }
}

/// Checks tokens against the trusted issuers.
pub struct Verifier {
    issuers: Vec<TrustedIssuer>,
}

/// Why a token was refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("no bearer token was sent")]
    Missing,
    #[error("the token is not a signed JWT")]
    Malformed,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// Nobody can tell now: the issuer's keys are not to be had. No fault of the token.
    #[error("the issuer's keys are not available")]
    Unavailable,
}

impl TokenError {
    /// A code for metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Expired => "expired",
            Self::Invalid(reason) => reason,
            Self::Unavailable => "keys unavailable",
        }
    }
}

/// What became of a token among the keys of its issuer.
enum Tried {
    Verified(Identity),
    /// Some key signed it, but it says what it must not, or too late.
    Refused(TokenError),
    /// No key signed it. With other keys, one might have.
    NoKeyFits,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    #[serde(default)]
    aud: OneOrMany,
    client_id: Option<String>,
    token_use: Option<String>,
    #[serde(rename = "cognito:groups", default)]
    groups: OneOrMany,
    #[serde(default)]
    roles: OneOrMany,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn as_slice(&self) -> &[String] {
        match self {
            OneOrMany::None => &[],
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

impl Verifier {
    /// A verifier that trusts these issuers and no other.
    pub fn new(issuers: Vec<TrustedIssuer>) -> Self {
        Self { issuers }
    }

    /// The caller named by an `Authorization` header.
    ///
    /// # Errors
    /// See [`TokenError`]; the header is missing when it is absent or of another scheme.
    pub async fn verify_header(&self, header: Option<&str>) -> Result<Identity, TokenError> {
        let verified = self.verify_bearer(header).await;
        if let Err(error) = &verified {
            metrics::counter!(TOKENS_REFUSED, "reason" => error.reason()).increment(1);
        }
        verified
    }

    async fn verify_bearer(&self, header: Option<&str>) -> Result<Identity, TokenError> {
        let (scheme, token) = header.unwrap_or_default().trim().split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(TokenError::Missing);
        }
        self.verify(token.trim()).await
    }

    /// The caller named by a token. Only the keys of the issuer that the token names are tried, and
    /// each key only with the algorithm it is for.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        let named = check_shape(token)?;
        let header = decode_header(token).map_err(|_| TokenError::Invalid("header"))?;
        if header.crit.is_some() {
            return Err(TokenError::Invalid("critical header"));
        }
        let named = named.as_str().ok_or(TokenError::Invalid("claims"))?;
        let issuer = self.issuers.iter().find(|issuer| issuer.issuer == named);
        let issuer = issuer.ok_or(TokenError::Invalid("issuer"))?;
        if !issuer.algorithms.contains(&header.alg) {
            return Err(TokenError::Invalid("algorithm"));
        }
        let (keys, published) = match &issuer.keys {
            Keys::Fixed(keys) => (keys.clone(), None),
            Keys::Published(published) => (published.current().await?, Some(published)),
        };
        let tried = match (try_keys(token, &header, issuer, &keys), published) {
            // The issuer may have new keys.
            (Tried::NoKeyFits, Some(published)) => match published.newer(&keys).await? {
                Some(keys) => try_keys(token, &header, issuer, &keys),
                None => Tried::NoKeyFits,
            },
            (tried, _) => tried,
        };
        match tried {
            Tried::Verified(identity) => Ok(identity),
            Tried::Refused(error) => Err(error),
            Tried::NoKeyFits => Err(TokenError::Invalid("no key fits")),
        }
    }

    /// Fetches published keys that are due, so that they are there before somebody asks.
    pub async fn tend(&self) {
        let published = self.issuers.iter().filter_map(TrustedIssuer::published);
        futures_util::future::join_all(published.map(|keys| keys.tend())).await;
    }

    /// Whether the tokens of some issuer can be verified now, if there is any.
    pub fn is_usable(&self) -> bool {
        let usable =
            |issuer: &TrustedIssuer| issuer.published().is_none_or(|keys| keys.health().usable);
        self.issuers.is_empty() || self.issuers.iter().any(usable)
    }

    /// How the published key sets are.
    pub fn health(&self) -> Vec<JwksHealth> {
        let published = self.issuers.iter().filter_map(TrustedIssuer::published);
        published.map(|keys| keys.health()).collect()
    }
}

impl TrustedIssuer {
    fn published(&self) -> Option<&Arc<RemoteKeys>> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Published(keys) => Some(keys),
        }
    }
}

/// Tries the keys with the token's key id; all keys if it names none.
fn try_keys(token: &str, header: &Header, issuer: &TrustedIssuer, keys: &KeySet) -> Tried {
    for key in &keys.keys {
        let named = header.kid.is_none() || key.id == header.kid;
        if !named || key.algorithm != header.alg {
            continue;
        }
        match verify_with(token, issuer, key) {
            Ok(identity) => return Tried::Verified(identity),
            Err(TokenError::Invalid("signature")) => {}
            Err(error) => return Tried::Refused(error),
        }
    }
    Tried::NoKeyFits
}

/// Three base64url parts, the first two JSON objects. What fails here never was a token, so the
/// client must not try to refresh it. Answers the issuer it claims to be from, unverified.
fn check_shape(token: &str) -> Result<Value, TokenError> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { return Err(TokenError::Malformed) };
    if token.len() > MAX_TOKEN || URL_SAFE_NO_PAD.decode(signature).is_err() {
        return Err(TokenError::Malformed);
    }
    let object = |part| {
        let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
        serde_json::from_slice::<Map<String, Value>>(&bytes).map_err(|_| TokenError::Malformed)
    };
    object(header)?;
    Ok(object(claims)?.remove("iss").unwrap_or(Value::Null))
}

fn verify_with(token: &str, issuer: &TrustedIssuer, key: &Key) -> Result<Identity, TokenError> {
    let mut validation = Validation::new(key.algorithm);
    validation.leeway = LEEWAY_S;
    validation.validate_nbf = true;
    // Access tokens carry the client in `client_id` instead of `aud`; see `check_audience`.
    validation.validate_aud = false;
    validation.set_issuer(&[&issuer.issuer]);
    validation.set_required_spec_claims(&["exp", "iss", "sub"]);
    let claims = decode::<Claims>(token, &key.decoding, &validation)
        .map_err(|error| refusal(&error))?
        .claims;
    // The library also accepts a list of issuers of which one fits.
    if claims.iss != issuer.issuer {
        return Err(TokenError::Invalid("issuer"));
    }
    if claims.sub.trim().is_empty() || claims.sub.len() > MAX_SUBJECT {
        return Err(TokenError::Invalid("subject"));
    }
    check_audience(&claims, issuer)?;
    let named = claims.groups.as_slice().iter().chain(claims.roles.as_slice());
    let mut roles: BTreeSet<Role> = named.filter_map(|name| Role::find(name)).collect();
    roles.insert(Role::User);
    Ok(Identity { issuer: claims.iss, subject: claims.sub, roles })
}

fn check_audience(claims: &Claims, issuer: &TrustedIssuer) -> Result<(), TokenError> {
    let known = |id: &String| issuer.audiences.contains(id);
    let in_aud = claims.aud.as_slice().iter().any(known);
    let in_client = claims.client_id.as_ref().is_some_and(known);
    let accepted = match claims.token_use.as_deref() {
        Some("id") => in_aud,
        Some("access") => in_client,
        Some(_) => return Err(TokenError::Invalid("token use")),
        None => in_aud || in_client,
    };
    if accepted { Ok(()) } else { Err(TokenError::Invalid("audience")) }
}

fn refusal(error: &jsonwebtoken::errors::Error) -> TokenError {
    match error.kind() {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::Invalid("not yet valid"),
        ErrorKind::InvalidIssuer => TokenError::Invalid("issuer"),
        ErrorKind::InvalidSignature => TokenError::Invalid("signature"),
        ErrorKind::MissingRequiredClaim(_) => TokenError::Invalid("missing claim"),
        _ => TokenError::Invalid("claims"),
    }
}
