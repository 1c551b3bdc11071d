//! Key sets that an identity provider publishes: fetched, kept, renewed.
//!
//! | What happens | What a caller sees |
//! |---|---|
//! | keys are young | nothing is asked of the provider |
//! | keys are older than [`JwksTiming::refresh`] | the known keys; the set is fetched behind their back |
//! | a token names an unknown key | the set is fetched, once in [`JwksTiming::pause`] at most, then the token is looked at again |
//! | the provider does not answer, or answers nonsense | the known keys, until they are [`JwksTiming::stale`] old |
//! | there are no keys, or they are too old | "try again later", never "your token is bad" |
//!
//! The provider is asked within [`JwksTiming::timeout`], without following redirects, and at most
//! [`MAX_BYTES`] of its answer are read. What replaces a set is another set with a usable key.
//!
//! A fetch is a task of its own: the callers that wait for it may hang up, which ends their part in
//! it, but not the fetch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, redirect};
use tokio::sync::OwnedMutexGuard;

use super::TokenError;
use super::keys::{KeySet, KeySetError};
use crate::metrics::{JWKS_AGE_SECONDS, JWKS_FETCHES};

/// Largest answer that is read, in bytes. Sets with a dozen RSA keys have about 6,000.
pub const MAX_BYTES: usize = 256 * 1024;
/// Callers that wait for one fetch at once. Tokens that name keys at random must not fill the server.
const WAITING: usize = 16;

/// When a key set is fetched and how long it holds.
#[derive(Clone, Copy, Debug)]
pub struct JwksTiming {
    /// Age from which on a set is fetched anew.
    pub refresh: Duration,
    /// Shortest time between two fetches.
    pub pause: Duration,
    /// Age from which on a set is not relied on any more.
    pub stale: Duration,
    /// For one fetch.
    pub timeout: Duration,
}

impl Default for JwksTiming {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(15 * 60),
            pause: Duration::from_secs(10),
            stale: Duration::from_secs(24 * 60 * 60),
            timeout: Duration::from_secs(5),
        }
    }
}

/// The published keys of one issuer.
pub struct RemoteKeys {
    issuer: String,
    url: String,
    client: Client,
    timing: JwksTiming,
    state: Mutex<State>,
    /// Held by who fetches.
    fetching: Arc<tokio::sync::Mutex<()>>,
    waiting: tokio::sync::Semaphore,
}

#[derive(Default)]
struct State {
    keys: Option<(Arc<KeySet>, Instant)>,
    tried: Option<Instant>,
    /// Why the last fetch failed; none where it did not.
    failure: Option<String>,
}

/// How a published key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksHealth {
    pub issuer: String,
    /// Since the last fetch that succeeded.
    pub age: Option<Duration>,
    /// Why the last fetch failed.
    pub failure: Option<String>,
    /// Whether tokens can be verified now.
    pub usable: bool,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the provider cannot be reached")]
    Request(#[from] reqwest::Error),
    #[error("the provider answered {0}")]
    Status(u16),
    #[error("the answer is longer than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the answer is no text")]
    NoText,
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

impl RemoteKeys {
    /// The keys at `url`, which has been checked. Nothing is fetched yet.
    ///
    /// # Errors
    /// Where no HTTP client can be made.
    pub fn new(issuer: &str, url: &str, timing: JwksTiming) -> reqwest::Result<Self> {
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(timing.timeout)
            .build()?;
        Ok(Self {
            issuer: issuer.to_owned(),
            url: url.to_owned(),
            client,
            timing,
            state: Mutex::default(),
            fetching: Arc::default(),
            waiting: tokio::sync::Semaphore::new(WAITING),
        })
    }

    /// The keys to verify with, fetched first if there are none.
    pub(super) async fn current(self: &Arc<Self>) -> Result<Arc<KeySet>, TokenError> {
        match self.usable() {
            Some((keys, age)) => {
                if age >= self.timing.refresh && self.may_try() {
                    let this = Arc::clone(self);
                    tokio::spawn(async move { this.tend().await });
                }
                Ok(keys)
            }
            None => self.renewed(None).await?.ok_or(TokenError::Unavailable),
        }
    }

    /// Newer keys than those that did not fit, if there are any.
    pub(super) async fn newer(
        self: &Arc<Self>,
        old: &Arc<KeySet>,
    ) -> Result<Option<Arc<KeySet>>, TokenError> {
        self.renewed(Some(old)).await
    }

    /// Fetches the set if it is time to. For a loop that sees to it while nobody calls.
    pub async fn tend(self: &Arc<Self>) {
        let due = self.usable().is_none_or(|(_, age)| age >= self.timing.refresh);
        if due
            && let Ok(turn) = Arc::clone(&self.fetching).try_lock_owned()
            && self.may_try()
        {
            self.fetch_apart(turn).await;
        }
        if let Some((_, age)) = self.known() {
            metrics::gauge!(JWKS_AGE_SECONDS, "issuer" => self.issuer.clone())
                .set(age.as_secs_f64());
        }
    }

    /// How the set is.
    pub fn health(&self) -> JwksHealth {
        let failure = self.state().failure.clone();
        let age = self.known().map(|(_, age)| age);
        let usable = age.is_some_and(|age| age < self.timing.stale);
        JwksHealth { issuer: self.issuer.clone(), age, failure, usable }
    }

    /// Other keys than `old`: those that somebody else has fetched meanwhile, or fetched now. None
    /// where the provider was asked just now and has no others; an error where that is not known.
    async fn renewed(
        self: &Arc<Self>,
        old: Option<&Arc<KeySet>>,
    ) -> Result<Option<Arc<KeySet>>, TokenError> {
        let _place = self.waiting.try_acquire().map_err(|_| TokenError::Unavailable)?;
        let turn = Arc::clone(&self.fetching).lock_owned().await;
        let other = || {
            let keys = self.usable().map(|(keys, _)| keys);
            keys.filter(|keys| old.is_none_or(|old| !Arc::ptr_eq(keys, old)))
        };
        if let Some(keys) = other() {
            return Ok(Some(keys));
        }
        let known =
            if self.may_try() { self.fetch_apart(turn).await } else { self.last_succeeded() };
        if known { Ok(other()) } else { Err(TokenError::Unavailable) }
    }

    /// Fetches the set in a task that keeps the turn until it is done, whatever becomes of the
    /// caller. Whether it succeeded.
    async fn fetch_apart(self: &Arc<Self>, turn: OwnedMutexGuard<()>) -> bool {
        let this = Arc::clone(self);
        let fetch = tokio::spawn(async move {
            let _turn = turn;
            this.fetch().await;
            this.last_succeeded()
        });
        fetch.await.unwrap_or(false)
    }

    /// Fetches the set, by one caller at a time.
    async fn fetch(&self) {
        self.state().tried = Some(Instant::now());
        let fetched = self.ask().await;
        let outcome = if fetched.is_ok() { "ok" } else { "failed" };
        metrics::counter!(JWKS_FETCHES, "issuer" => self.issuer.clone(), "outcome" => outcome)
            .increment(1);
        let mut state = self.state();
        match fetched {
            Ok(keys) => {
                if state.failure.take().is_some() {
                    tracing::info!(issuer = self.issuer, "the identity provider's keys are back");
                }
                state.keys = Some((Arc::new(keys), Instant::now()));
            }
            Err(error) => {
                let told = chain(&error);
                if state.failure.as_ref() != Some(&told) {
                    tracing::warn!(
                        issuer = self.issuer,
                        cause = told,
                        age_s = state.keys.as_ref().map(|(_, at)| at.elapsed().as_secs()),
                        "the identity provider's keys cannot be fetched; known keys hold for a day: \
                         see that this host reaches the key set's address"
                    );
                }
                state.failure = Some(told);
            }
        }
    }

    async fn ask(&self) -> Result<KeySet, FetchError> {
        let mut response =
            self.client.get(&self.url).header("accept", "application/json").send().await?;
        if response.status().as_u16() != 200 {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(body).map_err(|_| FetchError::NoText)?;
        Ok(KeySet::from_published(&text)?)
    }

    fn known(&self) -> Option<(Arc<KeySet>, Duration)> {
        self.state().keys.as_ref().map(|(keys, at)| (Arc::clone(keys), at.elapsed()))
    }

    fn usable(&self) -> Option<(Arc<KeySet>, Duration)> {
        self.known().filter(|(_, age)| *age < self.timing.stale)
    }

    /// Whether the last fetch brought a set. One that was broken off did not.
    fn last_succeeded(&self) -> bool {
        let state = self.state();
        state.keys.as_ref().is_some_and(|(_, at)| state.tried.is_none_or(|tried| tried <= *at))
    }

    fn may_try(&self) -> bool {
        self.state().tried.is_none_or(|at| at.elapsed() >= self.timing.pause)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl RemoteKeys {
    /// Lets the pause be over.
    pub(super) fn end_pause(&self) {
        self.state().tried = None;
    }
}

/// An error with its causes. The URL has neither user nor password: it may be told.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}
