//! Published key sets, from a server on this machine that can be made to misbehave.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::jwks::MAX_BYTES;
use super::*;

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "app";

/// A key pair and its public half as published.
struct Pair {
    signing: EncodingKey,
    jwk: Value,
    kid: String,
}

impl Pair {
    fn new(kid: &str) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        let signing = EncodingKey::from_ec_der(pkcs8.as_ref());
        let jwk = Jwk::from_encoding_key(&signing, Algorithm::ES256).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = kid.into();
        Self { signing, jwk, kid: kid.to_owned() }
    }

    fn token(&self, changes: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.clone());
        encode(&header, &claims(changes), &self.signing).unwrap()
    }
}

fn claims(changes: &Value) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 600 });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = match value.as_i64() {
            Some(offset) => json!(now.checked_add_signed(offset).unwrap()),
            None => value.clone(),
        };
    }
    claims
}

/// What the provider answers.
#[derive(Clone)]
enum Answer {
    Text(String),
    Status(u16),
    Redirect(String),
    /// This text, once somebody lets it go.
    Held(Arc<tokio::sync::Semaphore>, String),
    Never,
}

/// An identity provider on this machine.
#[derive(Clone)]
struct Provider {
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
    url: String,
}

impl Provider {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let provider =
            Self { answer: Arc::new(Mutex::new(Answer::Status(500))), asked: Arc::default(), url };
        let answering = provider.clone();
        let route = axum::routing::get(move || answering.clone().reply());
        let router = axum::Router::new().route("/jwks.json", route);
        tokio::spawn(async move {
            let service = hyper_util::service::TowerToHyperService::new(router);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let io = hyper_util::rt::TokioIo::new(stream);
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(builder.serve_connection(io, service.clone()));
            }
        });
        provider
    }

    async fn reply(self) -> Response {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().unwrap().clone();
        match answer {
            Answer::Text(text) => text.into_response(),
            Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
            Answer::Redirect(to) => Redirect::temporary(&to).into_response(),
            Answer::Held(gate, text) => {
                let _open = gate.acquire().await.unwrap();
                text.into_response()
            }
            Answer::Never => std::future::pending().await,
        }
    }

    fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn publishes(&self, pairs: &[&Pair]) {
        self.says(Answer::Text(published(pairs)));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn issuer(&self, name: &str, timing: JwksTiming) -> TrustedIssuer {
        let keys = RemoteKeys::new(name, &self.url, timing).unwrap();
        TrustedIssuer::new(name, BTreeSet::from([AUDIENCE.to_owned()]), keys)
    }

    fn verifier(&self, timing: JwksTiming) -> Verifier {
        Verifier::new(vec![self.issuer(ISSUER, timing)])
    }
}

fn published(pairs: &[&Pair]) -> String {
    let keys: Vec<&Value> = pairs.iter().map(|pair| &pair.jwk).collect();
    json!({ "keys": keys }).to_string()
}

/// Asks at every occasion.
const EAGER: JwksTiming = JwksTiming {
    refresh: Duration::from_secs(600),
    pause: Duration::ZERO,
    stale: Duration::from_secs(3600),
    timeout: Duration::from_millis(300),
};

async fn outcome(verifier: &Verifier, token: &str) -> String {
    match verifier.verify(token).await {
        Ok(_) => "ok".to_owned(),
        Err(TokenError::Invalid(reason)) => reason.to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

#[tokio::test]
async fn keys_are_fetched_once_and_rotated_keys_when_they_turn_up() {
    let provider = Provider::start().await;
    let (old, new) = (Pair::new("old"), Pair::new("new"));
    provider.publishes(&[&old]);
    let verifier = provider.verifier(EAGER);
    for _ in 0..3 {
        assert_eq!(outcome(&verifier, &old.token(&json!({}))).await, "ok");
    }
    assert_eq!(provider.asked(), 1);
    provider.publishes(&[&old, &new]);
    assert_eq!(outcome(&verifier, &new.token(&json!({}))).await, "ok");
    assert_eq!(provider.asked(), 2);
    // A key that the provider takes back is not accepted once that is known.
    provider.publishes(&[&new]);
    assert_eq!(outcome(&verifier, &Pair::new("x").token(&json!({}))).await, "no key fits");
    assert_eq!(outcome(&verifier, &old.token(&json!({}))).await, "no key fits");
    assert_eq!(outcome(&verifier, &new.token(&json!({}))).await, "ok");
}

#[tokio::test]
async fn unknown_keys_make_nobody_ask_more_often_than_agreed() {
    let provider = Provider::start().await;
    let known = Pair::new("known");
    provider.publishes(&[&known]);
    let verifier = provider.verifier(JwksTiming { pause: Duration::from_secs(60), ..EAGER });
    assert_eq!(outcome(&verifier, &known.token(&json!({}))).await, "ok");
    for n in 0..20 {
        let stranger = Pair::new(&format!("random-{n}"));
        assert_eq!(outcome(&verifier, &stranger.token(&json!({}))).await, "no key fits");
    }
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn callers_that_come_at_once_share_one_fetch() {
    let provider = Provider::start().await;
    let pair = Pair::new("one");
    provider.publishes(&[&pair]);
    let verifier = provider.verifier(EAGER);
    let token = pair.token(&json!({}));
    let all = futures_util::future::join_all((0..10).map(|_| outcome(&verifier, &token))).await;
    assert!(all.iter().all(|outcome| outcome == "ok"), "{all:?}");
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn a_caller_that_hangs_up_takes_no_fetch_with_it() {
    let provider = Provider::start().await;
    let (old, new) = (Pair::new("old"), Pair::new("new"));
    provider.publishes(&[&old]);
    let long = Duration::from_secs(60);
    let keys =
        RemoteKeys::new(ISSUER, &provider.url, JwksTiming { pause: long, timeout: long, ..EAGER });
    let keys = Arc::new(keys.unwrap());
    let known = keys.current().await.unwrap();
    keys.end_pause();

    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    provider.says(Answer::Held(Arc::clone(&gate), published(&[&old, &new])));
    let asking = |keys: Arc<RemoteKeys>, known: Arc<KeySet>| {
        tokio::spawn(async move { keys.newer(&known).await })
    };
    let stranger = asking(Arc::clone(&keys), Arc::clone(&known));
    while provider.asked() < 2 {
        tokio::task::yield_now().await;
    }
    stranger.abort();
    assert!(stranger.await.is_err_and(|error| error.is_cancelled()));
    let person = asking(Arc::clone(&keys), known);
    tokio::task::yield_now().await;
    gate.add_permits(1);
    let newer = person.await.unwrap().unwrap().expect("the new keys");
    assert_eq!((newer.keys.len(), provider.asked()), (2, 2));
}

#[tokio::test]
async fn a_provider_without_tls_is_told_as_that() {
    let provider = Provider::start().await;
    let pair = Pair::new("one");
    provider.publishes(&[&pair]);
    let url = provider.url.replace("http://", "https://");
    let keys = Arc::new(RemoteKeys::new(ISSUER, &url, EAGER).unwrap());
    keys.tend().await;
    let failure = keys.health().failure.expect("a failure");
    assert!(failure.contains("corrupt message"), "{failure}");
    assert_eq!(provider.asked(), 0);
}

#[tokio::test]
async fn known_keys_hold_while_the_provider_is_away_but_not_for_ever() {
    let provider = Provider::start().await;
    let pair = Pair::new("one");
    provider.publishes(&[&pair]);
    let token = pair.token(&json!({}));
    let patient = provider.verifier(JwksTiming { refresh: Duration::ZERO, ..EAGER });
    let strict = provider.verifier(JwksTiming { stale: Duration::ZERO, ..EAGER });
    patient.tend().await;
    strict.tend().await;
    assert!(patient.health()[0].usable && patient.health()[0].failure.is_none());

    let huge = format!("{{\"keys\": [], \"pad\": \"{}\"}}", "x".repeat(MAX_BYTES));
    for answer in [
        Answer::Status(500),
        Answer::Status(204),
        Answer::Text("<html>down for maintenance</html>".to_owned()),
        Answer::Text("{}".to_owned()),
        Answer::Text(json!({ "keys": [] }).to_string()),
        Answer::Text(json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string()),
        Answer::Text(huge),
        Answer::Redirect(provider.url.clone()),
        Answer::Never,
    ] {
        provider.says(answer);
        let before = provider.asked();
        while provider.asked() == before {
            patient.tend().await;
            tokio::task::yield_now().await;
        }
        let health = &patient.health()[0];
        assert!(health.usable && health.failure.is_some(), "{health:?}");
        assert_eq!(outcome(&patient, &token).await, "ok");
        strict.tend().await;
        assert!(!strict.health()[0].usable);
        assert_eq!(outcome(&strict, &token).await, "Unavailable");
    }
    // Whether a key that is not known is good, nobody can say now.
    let stranger = Pair::new("new");
    assert_eq!(outcome(&patient, &stranger.token(&json!({}))).await, "Unavailable");

    provider.publishes(&[&pair, &stranger]);
    while patient.health()[0].failure.is_some() {
        patient.tend().await;
        tokio::task::yield_now().await;
    }
    assert_eq!(outcome(&patient, &stranger.token(&json!({}))).await, "ok");
}

#[tokio::test]
async fn without_any_keys_nobody_is_told_that_their_token_is_bad() {
    let provider = Provider::start().await;
    let verifier = provider.verifier(EAGER);
    let pair = Pair::new("one");
    assert_eq!(outcome(&verifier, &pair.token(&json!({}))).await, "Unavailable");
    provider.publishes(&[&pair]);
    assert_eq!(outcome(&verifier, &pair.token(&json!({}))).await, "ok");
    let gone = RemoteKeys::new(ISSUER, "http://127.0.0.1:9/jwks", EAGER).unwrap();
    let trusted = TrustedIssuer::new(ISSUER, BTreeSet::from([AUDIENCE.to_owned()]), gone);
    let verifier = Verifier::new(vec![trusted]);
    assert_eq!(outcome(&verifier, &pair.token(&json!({}))).await, "Unavailable");
    assert!(verifier.health()[0].failure.is_some());
}

#[tokio::test]
async fn one_key_that_cannot_be_read_does_not_take_the_others_with_it() {
    let provider = Provider::start().await;
    let pair = Pair::new("one");
    let odd = json!({ "kty": "ML-DSA", "kid": "future" });
    let broken = json!({ "kty": "EC", "crv": "P-256", "x": "!", "y": "!", "kid": "broken" });
    provider.says(Answer::Text(json!({ "keys": [odd, broken, pair.jwk] }).to_string()));
    assert_eq!(outcome(&provider.verifier(EAGER), &pair.token(&json!({}))).await, "ok");
}

#[tokio::test]
async fn claims_are_checked_whatever_signed_them() {
    let provider = Provider::start().await;
    let pair = Pair::new("one");
    provider.publishes(&[&pair]);
    let verifier = provider.verifier(EAGER);
    for (changes, expected) in [
        (json!({ "exp": -90 }), "Expired"),
        (json!({ "nbf": 90 }), "not yet valid"),
        (json!({ "aud": "another" }), "audience"),
        (json!({ "iss": "https://elsewhere.example" }), "issuer"),
        (json!({ "iss": [ISSUER] }), "claims"),
    ] {
        assert_eq!(outcome(&verifier, &pair.token(&changes)).await, expected, "{changes}");
    }
    assert!(provider.asked() <= 1, "a bad claim is no reason to ask for keys");
}

#[tokio::test]
async fn the_published_key_is_no_secret_to_sign_with() {
    let provider = Provider::start().await;
    let pair = Pair::new("one");
    provider.publishes(&[&pair]);
    let verifier = provider.verifier(EAGER);
    assert_eq!(outcome(&verifier, &pair.token(&json!({}))).await, "ok");
    let public = URL_SAFE_NO_PAD.decode(pair.jwk["x"].as_str().unwrap()).unwrap();
    for secret in [public, pair.jwk.to_string().into_bytes()] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("one".to_owned());
        let secret = EncodingKey::from_secret(&secret);
        let token = encode(&header, &claims(&json!({})), &secret).unwrap();
        assert_eq!(outcome(&verifier, &token).await, "algorithm");
    }
    let body = URL_SAFE_NO_PAD.encode(claims(&json!({})).to_string());
    for alg in ["none", "None", ""] {
        let header = json!({ "alg": alg, "kid": "one" }).to_string();
        let token = format!("{}.{body}.", URL_SAFE_NO_PAD.encode(header));
        assert_eq!(outcome(&verifier, &token).await, "header", "{alg:?}");
    }
}

#[tokio::test]
async fn each_issuer_speaks_for_itself_alone() {
    let (one, two) = (Provider::start().await, Provider::start().await);
    // Both use the same key id, as providers do that count their keys.
    let (ours, theirs) = (Pair::new("1"), Pair::new("1"));
    one.publishes(&[&ours]);
    two.publishes(&[&theirs]);
    let other = "https://other.example";
    let mut second = two.issuer(other, EAGER);
    second.audiences = BTreeSet::from(["other-app".to_owned()]);
    let verifier = Verifier::new(vec![one.issuer(ISSUER, EAGER), second]);
    let of_other = json!({ "iss": other, "aud": "other-app" });
    assert_eq!(outcome(&verifier, &ours.token(&json!({}))).await, "ok");
    assert_eq!(outcome(&verifier, &theirs.token(&of_other)).await, "ok");
    assert_eq!(outcome(&verifier, &theirs.token(&json!({}))).await, "no key fits");
    assert_eq!(outcome(&verifier, &ours.token(&of_other)).await, "no key fits");
    let foreign_audience = json!({ "iss": other, "aud": AUDIENCE });
    assert_eq!(outcome(&verifier, &theirs.token(&foreign_audience)).await, "audience");

    // An issuer that may only sign with RSA is not served by an elliptic key in its set.
    let mut rsa_only = one.issuer(ISSUER, EAGER);
    rsa_only.algorithms = vec![Algorithm::RS256];
    assert_eq!(outcome(&Verifier::new(vec![rsa_only]), &ours.token(&json!({}))).await, "algorithm");

    // One provider that is away is no trouble for the other one's people.
    one.says(Answer::Never);
    let verifier = Verifier::new(vec![one.issuer(ISSUER, EAGER), two.issuer(other, EAGER)]);
    let token = theirs.token(&json!({ "iss": other }));
    assert_eq!(outcome(&verifier, &token).await, "ok");
    assert_eq!(outcome(&verifier, &ours.token(&json!({}))).await, "Unavailable");
}
