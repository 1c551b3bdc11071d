//! People who write, and who know what they were answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tidemark::client::wire::wire_time;
use tokio::sync::watch;
use uuid::Uuid;

use crate::dice::Dice;
use crate::served::{Answer, Client};

/// 2026-03-01T00:00:00Z.
const MARCH: i64 = 1_772_323_200_000;
pub const SOURCE: &str = "apple_healthkit";
/// How long anything may take on a busy machine before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two attempts of one request.
const PAUSE: Duration = Duration::from_millis(10);

/// What the people of one log share with whoever watches them.
pub struct Shared {
    bases: watch::Receiver<Vec<String>>,
    stopped: AtomicBool,
    begun: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
}

impl Shared {
    pub fn new(bases: watch::Receiver<Vec<String>>) -> Self {
        Self {
            bases,
            stopped: AtomicBool::new(true),
            begun: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub fn go_on(&self) {
        self.stopped.store(false, Ordering::SeqCst);
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Waits until so many more requests have been sent.
    pub async fn until_begun(&self, more: u64) {
        until(&self.begun, more).await;
    }

    /// Waits until so many more requests have been answered 2xx in full.
    pub async fn until_answered(&self, more: u64) {
        until(&self.answered, more).await;
    }

    /// Waits until so many more have been told to come back.
    pub async fn until_refused(&self, more: u64) {
        until(&self.refused, more).await;
    }
}

async fn until(counter: &AtomicU64, more: u64) {
    let goal = counter.load(Ordering::SeqCst) + more;
    let began = Instant::now();
    while counter.load(Ordering::SeqCst) < goal {
        assert!(began.elapsed() < PATIENCE, "people do not get on");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a person may rely on: all of it was answered.
#[derive(Default)]
pub struct Known {
    pub name: Option<String>,
    /// Client ids.
    pub consumptions: BTreeSet<String>,
    /// Record and value; deleted ones are gone from here.
    pub samples: BTreeMap<String, i64>,
    /// Uploads, each of which changed something.
    pub batches: u64,
}

/// One person with one phone.
pub struct Person {
    pub client: Client,
    pub known: Known,
    dice: Dice,
    next: u64,
}

impl Person {
    pub fn new(client: Client, dice: Dice) -> Self {
        Self { client, known: Known::default(), dice, next: 0 }
    }

    /// Writes until told to stop, and then finishes what was begun.
    pub async fn write(mut self, shared: Arc<Shared>) -> Self {
        while !shared.stopped.load(Ordering::SeqCst) {
            self.next += 1;
            match self.dice.below(3) {
                0 => self.rename(&shared).await,
                1 => self.push(&shared).await,
                _ => self.upload(&shared).await,
            }
            shared.answered.fetch_add(1, Ordering::SeqCst);
        }
        self
    }

    async fn rename(&mut self, shared: &Shared) {
        let name = format!("name {}", self.next);
        let body = json!({ "name": name });
        self.answered(shared, Method::PATCH, "/users/me", &body).await;
        self.known.name = Some(name);
    }

    /// Two consumptions. What the server could not take is pushed again, what it took is not.
    async fn push(&mut self, shared: &Shared) {
        let mut outbox = VecDeque::from([self.consumption(), self.consumption()]);
        while !outbox.is_empty() {
            let body = json!({ "deviceId": self.client.device, "syncOperationId": self.dice.id(),
                "changes": outbox });
            let answer = self.answered(shared, Method::POST, "/sync/push", &body).await;
            let data = &answer.body["data"];
            for failed in data["failed"].as_array().expect("a list") {
                assert_eq!(failed["retryable"], true, "{failed}");
            }
            for done in data["successful"].as_array().expect("a list") {
                outbox.retain(|item| item["requestId"] != done["requestId"]);
                let id = done["clientId"].as_str().expect("the client's id");
                assert!(self.known.consumptions.insert(id.to_owned()), "{id} came before");
            }
            if !outbox.is_empty() {
                shared.refused.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn consumption(&mut self) -> Value {
        let id = self.dice.id();
        let at = MARCH + i64::try_from(self.dice.below(20 * 86_400)).expect("seconds") * 1000;
        json!({ "entityType": "consumptions", "entityId": id, "clientId": id,
            "changeType": "CREATE", "requestId": self.dice.id(), "version": 1,
            "timestamp": iso(at), "data": { "clientConsumptionId": id, "durationMs": 1000,
                "timestamp": iso(at) } })
    }

    /// New samples, and now and then an old one corrected and another deleted.
    async fn upload(&mut self, shared: &Shared) {
        let mut after = self.known.samples.clone();
        let mut samples = Vec::new();
        for n in 0..self.dice.between(1, 20) {
            let (record, value) = (format!("r-{}-{n}", self.next), self.value());
            samples.push(sample(&record, value));
            after.insert(record, value);
        }
        let mut deleted = Vec::new();
        let old: Vec<&String> = self.known.samples.keys().collect();
        if old.len() > 2 && self.dice.below(2) == 0 {
            let corrected = (*self.dice.one_of(&old)).clone();
            let gone = (*self.dice.one_of(&old)).clone();
            if corrected != gone {
                let value = self.value();
                samples.push(sample(&corrected, value));
                after.insert(corrected, value);
            }
            deleted.push(json!({ "sourceId": SOURCE, "sourceRecordId": gone }));
            after.remove(&gone);
        }
        let body = json!({ "requestId": self.dice.id(), "payloadHash": "0".repeat(64),
            "configVersion": 3, "samples": samples, "deleted": deleted });
        let path = "/health/samples/batch-upsert";
        let answer = self.answered(shared, Method::POST, path, &body).await;
        assert_eq!(answer.body["data"]["failed"], json!([]), "nothing of it is refused");
        self.known.samples = after;
        self.known.batches += 1;
    }

    fn value(&mut self) -> i64 {
        i64::try_from(self.dice.between(40, 180)).expect("a heart rate")
    }

    /// Sends one request, always the same, until it is answered 2xx. Until then the connection may
    /// break, and a server may say that it is unavailable and when to come back; nothing else.
    async fn answered(
        &mut self,
        shared: &Shared,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Answer {
        shared.begun.fetch_add(1, Ordering::SeqCst);
        let began = Instant::now();
        loop {
            let base = self.dice.one_of(&shared.bases.borrow()).clone();
            let path = format!("/api/v1{path}");
            match self.client.at(&base).send(method.clone(), &path, Some(body)).await {
                Some(answer) if (200..300).contains(&answer.status) => return answer,
                Some(answer) => {
                    assert_eq!(answer.status, 503, "{path}: {}", answer.body);
                    assert!(answer.retry_after.is_some(), "503 says when to come back");
                    shared.refused.fetch_add(1, Ordering::SeqCst);
                }
                None => {}
            }
            assert!(began.elapsed() < PATIENCE, "{path} is not answered");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The time of a sample follows from its record, so that a correction has the key of the original.
fn sample(record: &str, value: i64) -> Value {
    let spread = Uuid::new_v5(&Uuid::NAMESPACE_OID, record.as_bytes()).as_u128() % 86_400;
    let at = iso(MARCH + i64::try_from(spread).expect("seconds") * 1000);
    json!({ "sourceId": SOURCE, "sourceRecordId": record, "metricCode": "heart_rate",
        "valueKind": "SCALAR_NUM", "value": value, "unit": "bpm", "startAt": at, "endAt": at,
        "durationSeconds": 0, "timezoneOffsetMinutes": 0 })
}

fn iso(at_ms: i64) -> String {
    wire_time(chrono::DateTime::from_timestamp_millis(at_ms).expect("a time"))
}
