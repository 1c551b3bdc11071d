use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::dev::{AUDIENCE, DevIssuer, DevIssuerError, ISSUER};
use super::*;

fn issuer() -> (tempfile::TempDir, DevIssuer, Verifier) {
    let dir = tempfile::tempdir().unwrap();
    let dev = DevIssuer::open(dir.path()).unwrap();
    let verifier = Verifier::new(vec![dev.trusted()]);
    (dir, dev, verifier)
}

/// Nothing is fetched for the keys of these tests.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Good claims, overridden by `changes`; null removes a claim.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "token_use": "id", "exp": now() + 600,
    });
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// `ok`, or which error a token with the changed claims meets.
fn outcome(changes: &Value) -> String {
    let (_dir, dev, verifier) = issuer();
    match block_on(verifier.verify(&dev.sign(&claims(changes)).unwrap())) {
        Ok(_) => "ok".to_owned(),
        Err(TokenError::Invalid(reason)) => reason.to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn an_issued_token_names_its_subject_and_roles() {
    let (_dir, dev, verifier) = issuer();
    let roles = BTreeSet::from([Role::Auditor]);
    let token = dev.issue("ann", &roles, Duration::from_secs(60)).unwrap();
    let identity = block_on(verifier.verify_header(Some(&format!("bearer {token}")))).unwrap();
    assert_eq!((identity.issuer.as_str(), identity.subject.as_str()), (ISSUER, "ann"));
    assert!(identity.has(Role::User) && identity.has(Role::Auditor) && !identity.has(Role::Admin));
    assert!(!format!("{identity:?}").contains("ann"));
}

#[test]
fn every_claim_is_checked() {
    for (changes, expected) in [
        (json!({}), "ok"),
        (json!({ "exp": now() - 30 }), "ok"),
        (json!({ "exp": now() - 90 }), "Expired"),
        (json!({ "exp": null }), "missing claim"),
        (json!({ "exp": "soon" }), "missing claim"),
        (json!({ "nbf": now() + 30 }), "ok"),
        (json!({ "nbf": now() + 90 }), "not yet valid"),
        (json!({ "iss": "https://elsewhere.example" }), "issuer"),
        (json!({ "iss": null }), "claims"),
        (json!({ "iss": [ISSUER] }), "claims"),
        (json!({ "sub": null }), "claims"),
        (json!({ "sub": "  " }), "subject"),
        (json!({ "sub": "x".repeat(256) }), "subject"),
        (json!({ "aud": "another-app" }), "audience"),
        (json!({ "aud": null }), "audience"),
        (json!({ "aud": ["another-app", AUDIENCE] }), "ok"),
        (json!({ "token_use": "refresh" }), "token use"),
        (json!({ "token_use": null }), "ok"),
        (json!({ "token_use": "access" }), "audience"),
        (json!({ "token_use": "access", "aud": null, "client_id": AUDIENCE }), "ok"),
        (json!({ "token_use": "id", "aud": null, "client_id": AUDIENCE }), "audience"),
    ] {
        let found = outcome(&changes);
        assert_eq!(found, expected, "{changes}");
    }
}

#[test]
fn roles_come_from_groups_and_unknown_ones_give_nothing() {
    let (_dir, dev, verifier) = issuer();
    let token = dev.sign(&claims(&json!({ "cognito:groups": ["analyst", "root"] }))).unwrap();
    let roles = block_on(verifier.verify(&token)).unwrap().roles;
    assert_eq!(roles, BTreeSet::from([Role::User, Role::Analyst]));
}

#[test]
fn what_is_no_token_is_malformed() {
    let (_dir, _, verifier) = issuer();
    let huge = format!("e30.{}.x", URL_SAFE_NO_PAD.encode("x".repeat(20_000)));
    for token in ["", "x", "a.b", "a.b.c", "e30.e30.e30.e30", "bnVsbA.e30.", huge.as_str()] {
        assert!(
            matches!(block_on(verifier.verify(token)), Err(TokenError::Malformed)),
            "{token:.20}"
        );
    }
    for header in [None, Some(""), Some("Basic YTpi"), Some("Bearer")] {
        assert!(
            matches!(block_on(verifier.verify_header(header)), Err(TokenError::Missing)),
            "{header:?}"
        );
    }
}

#[test]
fn nobody_signs_with_what_everybody_knows() {
    let (_dir, dev, verifier) = issuer();
    let public = URL_SAFE_NO_PAD.decode(dev.jwks()["keys"][0]["x"].as_str().unwrap()).unwrap();
    let secret = EncodingKey::from_secret(&public);
    let kid = dev.jwks()["keys"][0]["kid"].as_str().unwrap().to_owned();
    for kid in [Some(kid), None] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = kid;
        let token = encode(&header, &claims(&json!({})), &secret).unwrap();
        assert!(matches!(block_on(verifier.verify(&token)), Err(TokenError::Invalid(_))));
    }
    let body = URL_SAFE_NO_PAD.encode(claims(&json!({})).to_string());
    for alg in ["none", "NONE", "HS999"] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
        let found = block_on(verifier.verify(&format!("{header}.{body}.")));
        assert!(matches!(found, Err(TokenError::Invalid(_))), "{alg}");
    }
}

#[test]
fn a_changed_or_foreign_signature_is_refused() {
    let (_dir, dev, verifier) = issuer();
    let token = dev.sign(&claims(&json!({}))).unwrap();
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let other = URL_SAFE_NO_PAD.encode(claims(&json!({ "sub": "bob" })).to_string());
    let forged = format!("{header}.{other}.{signature}");
    assert!(matches!(block_on(verifier.verify(&forged)), Err(TokenError::Invalid(_))));
    let (_dir, stranger, _) = issuer();
    let foreign = stranger.sign(&claims(&json!({}))).unwrap();
    assert!(matches!(block_on(verifier.verify(&foreign)), Err(TokenError::Invalid(_))));
}

/// A verifier for one ES256 key whose set also holds what must be ignored, and the signing key.
fn es256(kid: &str) -> (Verifier, EncodingKey) {
    let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(signing, &SystemRandom::new()).unwrap();
    let key = EncodingKey::from_ec_der(pkcs8.as_ref());
    let mut jwk =
        serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
    jwk["kid"] = kid.into();
    let shared = json!({ "kty": "oct", "kid": "shared", "alg": "HS256", "k": "c2VjcmV0" });
    let keys = KeySet::from_json(&json!({ "keys": [shared, jwk] }).to_string()).unwrap();
    let audiences = BTreeSet::from([AUDIENCE.to_owned()]);
    let trusted = TrustedIssuer::new(ISSUER, audiences, keys);
    (Verifier::new(vec![trusted]), key)
}

#[test]
fn a_key_set_verifies_by_key_id_and_ignores_shared_secrets() {
    let (verifier, key) = es256("one");
    for (kid, accepted) in [(Some("one"), true), (None, true), (Some("two"), false)] {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = kid.map(str::to_owned);
        let token = encode(&header, &claims(&json!({})), &key).unwrap();
        assert_eq!(block_on(verifier.verify(&token)).is_ok(), accepted, "{kid:?}");
    }
    let secret = EncodingKey::from_secret(b"secret");
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("shared".to_owned());
    let token = encode(&header, &claims(&json!({})), &secret).unwrap();
    assert!(matches!(block_on(verifier.verify(&token)), Err(TokenError::Invalid(_))));
}

#[test]
fn rs256_is_accepted() {
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let pkcs8 = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair);
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        base64::engine::general_purpose::STANDARD.encode(pkcs8.unwrap().as_ref())
    );
    let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    let jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap();
    let keys = KeySet::from_json(&json!({ "keys": [jwk] }).to_string()).unwrap();
    let audiences = BTreeSet::from([AUDIENCE.to_owned()]);
    let trusted = TrustedIssuer::new(ISSUER, audiences, keys);
    let token = encode(&Header::new(Algorithm::RS256), &claims(&json!({})), &key).unwrap();
    let verifier = Verifier::new(vec![trusted]);
    assert!(block_on(verifier.verify(&token)).is_ok());
    let token = encode(&Header::new(Algorithm::RS512), &claims(&json!({})), &key).unwrap();
    assert!(block_on(verifier.verify(&token)).is_err(), "the key is pinned to RS256");
}

#[test]
fn a_set_without_usable_keys_is_refused_at_start() {
    for json in ["{", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#] {
        assert!(KeySet::from_json(json).is_err(), "{json}");
    }
}

#[test]
fn the_development_key_is_kept_private_and_stays_the_same() {
    let (dir, first, _) = issuer();
    let path = dir.path().join("dev-issuer.pk8");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left behind");
    assert_eq!(DevIssuer::open(dir.path()).unwrap().jwks(), first.jwks());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(DevIssuer::open(dir.path()), Err(DevIssuerError::Exposed(_))));
    let published = KeySet::from_json(&first.jwks().to_string()).unwrap();
    let audiences = BTreeSet::from([AUDIENCE.to_owned()]);
    let trusted = TrustedIssuer::new(ISSUER, audiences, published);
    let token = first.sign(&claims(&json!({}))).unwrap();
    assert!(block_on(Verifier::new(vec![trusted]).verify(&token)).is_ok());
}
