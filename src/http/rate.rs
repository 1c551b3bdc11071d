//! How often one person may ask.
//!
//! A token bucket per person and class of route, in the memory of this process: several processes
//! allow that many times the rate. Over the limit the answer is 429 with the time to wait; nothing
//! is ever queued or half accepted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aggregates::ids::UserId;
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use moka::future::Cache;

use super::error::{ApiError, code};
use super::time;

/// Which routes share a bucket. Set per route group with `layer::rate_class`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RateClass {
    #[default]
    Standard,
    /// Sync and health data.
    Sync,
    /// Routes that destroy an account.
    Strict,
}

/// So many requests in so much time, at once or spread out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub requests: u32,
    pub window: Duration,
}

/// What is left after a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    rate: Rate,
    remaining: u32,
    /// Until the bucket is full again.
    full_in: Duration,
}

/// The rates that hold where nothing else is configured.
pub fn default_rates() -> BTreeMap<RateClass, Rate> {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    BTreeMap::from([
        (RateClass::Standard, Rate { requests: 500, window: minutes(15) }),
        (RateClass::Sync, Rate { requests: 200, window: minutes(15) }),
        (RateClass::Strict, Rate { requests: 60, window: minutes(60) }),
    ])
}

/// The buckets of all people seen lately.
pub(super) struct RateLimiter {
    rates: BTreeMap<RateClass, Rate>,
    buckets: Cache<(UserId, RateClass), Arc<Mutex<Bucket>>>,
}

impl RateLimiter {
    /// Classes without a rate are not limited.
    pub(super) fn new(rates: BTreeMap<RateClass, Rate>) -> Self {
        let longest = rates.values().map(|rate| rate.window).max().unwrap_or(Duration::ZERO);
        // A bucket untouched for its whole window is full, so forgetting it changes nothing.
        let buckets = Cache::builder()
            .max_capacity(200_000)
            .time_to_idle(longest + Duration::from_secs(1))
            .build();
        Self { rates, buckets }
    }

    /// Takes one request out of the person's bucket.
    ///
    /// Answers what is left, and whether there was a request to take.
    pub(super) async fn take(
        &self,
        user: UserId,
        class: RateClass,
    ) -> (Option<Quota>, Result<(), ApiError>) {
        let Some(rate) = self.rates.get(&class).copied() else { return (None, Ok(())) };
        let now = Instant::now();
        let fresh = async { Arc::new(Mutex::new(Bucket::full(rate, now))) };
        let bucket = self.buckets.get_with((user, class), fresh).await;
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = bucket.take(rate, now).map_err(|wait| {
            let seconds = wait.as_millis().div_ceil(1000) as u64;
            ApiError::new(code::RATE_LIMIT_EXCEEDED)
                .with_retry_after(wait)
                .with_details(serde_json::json!({ "retryAfter": seconds, "limit": rate.requests }))
        });
        (Some(bucket.quota(rate)), taken)
    }
}

/// Tokens come back evenly; a request takes one.
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: f64::from(rate.requests), at: now }
    }

    /// Takes a token, or says how long until there is one.
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let capacity = f64::from(rate.requests);
        let seconds_per_token = seconds_per_token(rate);
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed / seconds_per_token).min(capacity);
        self.at = self.at.max(now);
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) * seconds_per_token));
        }
        self.tokens -= 1.0;
        Ok(())
    }

    fn quota(&self, rate: Rate) -> Quota {
        // Truncation is meant: part of a token lets nobody in.
        let remaining = self.tokens as u32;
        let missing = (f64::from(rate.requests) - self.tokens).max(0.0);
        let full_in = Duration::from_secs_f64(missing * seconds_per_token(rate));
        Quota { rate, remaining, full_in }
    }
}

fn seconds_per_token(rate: Rate) -> f64 {
    rate.window.as_secs_f64() / f64::from(rate.requests).max(1.0)
}

impl Quota {
    /// Tells the client how much is left.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        let reset = DateTime::<Utc>::from(SystemTime::now() + self.full_in);
        for (name, value) in [
            ("x-ratelimit-limit", self.rate.requests.to_string()),
            ("x-ratelimit-remaining", self.remaining.to_string()),
            ("x-ratelimit-reset", time::iso_ms(reset)),
            ("x-ratelimit-window", self.rate.window.as_secs().to_string()),
        ] {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { requests: 4, window: Duration::from_secs(40) };

    #[test]
    fn a_full_bucket_allows_a_burst_and_then_one_per_interval() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut bucket = Bucket::full(RATE, start);
        for left in [3, 2, 1, 0] {
            bucket.take(RATE, start).unwrap();
            assert_eq!(bucket.quota(RATE).remaining, left);
        }
        assert_eq!(bucket.take(RATE, start), Err(Duration::from_secs(10)));
        assert_eq!(bucket.take(RATE, at(9)).unwrap_err().as_secs_f64().round(), 1.0);
        assert!(bucket.take(RATE, at(11)).is_ok());
        assert!(bucket.take(RATE, at(12)).is_err());
        bucket.take(RATE, at(900)).unwrap();
        assert_eq!(bucket.quota(RATE).remaining, 3, "never above the limit");
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut bucket = Bucket::full(Rate { requests: 1, ..RATE }, start);
        assert!(bucket.take(RATE, start).is_ok());
        assert!(bucket.take(RATE, start - Duration::from_secs(50)).is_err());
        assert!(bucket.take(RATE, start).is_err());
    }
}
