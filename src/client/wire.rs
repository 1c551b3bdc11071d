//! The bodies of the public API, as a client writes and reads them.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

use super::hash::payload_hash;

/// The most samples, and the most deletions, of one batch.
pub const MAX_BATCH: usize = 500;

/// How a metric's values combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ValueKind {
    /// A reading at a moment, such as a heart rate.
    ScalarNum,
    /// A count that adds up, such as steps.
    CumulativeNum,
    /// An amount spread over an interval, such as energy.
    IntervalNum,
    /// A code instead of a number, such as a sleep stage.
    Category,
}

/// One health sample as uploaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// The producer, such as `apple_healthkit`.
    pub source_id: String,
    /// The producer's id of the record, lower-case, at most 256 characters.
    pub source_record_id: String,
    /// A code of the metric catalogue.
    pub metric_code: String,
    /// Must be the catalogue's kind of the metric.
    pub value_kind: ValueKind,
    /// Finite and not negative; absent for categories.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "plain_number")]
    pub value: Option<f64>,
    /// The unit of `value`; the server converts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The code of a category metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category_code: Option<String>,
    /// UTC, ISO 8601 with milliseconds and `Z`.
    pub start_at: String,
    /// As `start_at`, not before it.
    pub end_at: String,
    /// Whole seconds between start and end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<i64>,
    /// Minutes east of UTC where the sample was taken, −720 to 840.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone_offset_minutes: Option<i32>,
    /// Keys outside the API's whitelist are dropped by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, Value>>,
}

/// A request to delete one record of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// The producer.
    pub source_id: String,
    /// The producer's id of the record, lower-case.
    pub source_record_id: String,
    /// Present: exactly this key. Absent: every row of the record id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<String>,
    /// When the producer's device noticed; not part of the payload hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<String>,
}

/// The body of `POST /health/samples/batch-upsert`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// Idempotency key, unique per user.
    pub request_id: Uuid,
    /// SHA-256 of the canonical samples and deletions, lower-case hex.
    pub payload_hash: String,
    /// The version of the producer's upload rules.
    pub config_version: u32,
    /// At most [`MAX_BATCH`].
    pub samples: Vec<Sample>,
    /// At most [`MAX_BATCH`].
    #[serde(default)]
    pub deleted: Vec<Deletion>,
}

impl Batch {
    /// A batch under an id of its own.
    pub fn new(request_id: Uuid, samples: Vec<Sample>, deleted: Vec<Deletion>) -> Self {
        let payload_hash = payload_hash(&samples, &deleted);
        Self { request_id, payload_hash, config_version: 3, samples, deleted }
    }

    /// A batch whose id follows from its content, so that sending the same content again, even
    /// from another process, is the same request and answered with the stored outcome. For an
    /// import that is what one wants; to have the same content judged again, use [`Batch::new`].
    pub fn of_content(samples: Vec<Sample>, deleted: Vec<Deletion>) -> Self {
        let mut batch = Self::new(Uuid::nil(), samples, deleted);
        batch.request_id = Uuid::new_v5(&CONTENT_NAMESPACE, batch.payload_hash.as_bytes());
        batch
    }
}

const CONTENT_NAMESPACE: Uuid = Uuid::from_u128(0x8f4b_6d1e_3c52_4a0b_9d77_52e0_1c6a_40f3);

/// The wire form of a time: UTC, milliseconds, `Z`.
pub fn wire_time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Whole numbers travel without a fraction, as other JSON writers send them.
fn plain_number<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        None => serializer.serialize_none(),
        // 2^53: above it a float no longer names each integer.
        Some(v) if v.fract() == 0.0 && v.abs() <= 9_007_199_254_740_992.0 => {
            serializer.serialize_i64(*v as i64)
        }
        Some(v) => serializer.serialize_f64(*v),
    }
}

/// What the server says about a batch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResult {
    /// Samples that are stored now.
    pub successful: Vec<SampleOk>,
    /// Samples that are not, each with its reason.
    pub failed: Vec<SampleFailed>,
    /// Present when the batch carried deletions.
    pub deletions: Option<Deletions>,
    /// Counts, free-form.
    #[serde(default)]
    pub metrics: Value,
}

/// A stored sample.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SampleOk {
    /// As sent.
    pub source_id: String,
    /// As sent, lower-case.
    pub source_record_id: String,
    /// The instant as sent.
    pub start_at: String,
    /// The server's id, stable for the key's life.
    pub server_id: String,
}

/// A sample or deletion that was refused.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SampleFailed {
    /// As sent.
    pub source_id: String,
    /// As sent, lower-case.
    pub source_record_id: String,
    /// The instant as sent; deletions may have none.
    pub start_at: Option<String>,
    /// A stable code such as `INVALID_UNIT`.
    pub error_code: String,
    /// Whether the same item may succeed later.
    pub retryable: bool,
    /// For people.
    #[serde(default)]
    pub error: String,
}

/// Outcomes of the deletions of a batch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Deletions {
    /// Deleted now or before.
    pub successful: Vec<DeletionOk>,
    /// Unknown or not possible.
    pub failed: Vec<SampleFailed>,
}

/// A deletion that holds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletionOk {
    /// As sent.
    pub source_id: String,
    /// As sent, lower-case.
    pub source_record_id: String,
    /// Echoed when it was sent.
    pub start_at: Option<String>,
    /// Whether an earlier request had deleted it.
    pub already_deleted: bool,
}

/// One item of `POST /sync/push`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Canonical entity type, such as `sessions`.
    pub entity_type: String,
    /// The client's id on CREATE, the server's id once it is known.
    pub entity_id: String,
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub change_type: Operation,
    /// The id the client uses locally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Identifies this change across retries.
    pub request_id: String,
    /// The fields of a CREATE, the changed ones of an UPDATE, `{}` of a DELETE.
    pub data: Value,
    /// The local version after the edit.
    pub version: i64,
    /// When the person made the change, by the device's clock.
    pub timestamp: String,
    /// The version the person saw while editing, where the client knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<i64>,
}

/// What happened to an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// It came to be.
    Create,
    /// Some fields changed.
    Update,
    /// It is gone for good.
    Delete,
}

/// The body of `POST /sync/push`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushRequest {
    /// The device that pushes.
    pub device_id: String,
    /// Identifies the whole push across retries.
    pub sync_operation_id: String,
    /// At most 1,000; phones send at most 100.
    pub changes: Vec<Change>,
}

/// The outcome of a push: each item in exactly one list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PushResult {
    /// Applied, replayed or superseded.
    pub successful: Vec<Pushed>,
    /// Refused, each with its reason.
    pub failed: Vec<PushFailed>,
    /// Left to the person.
    #[serde(default)]
    pub conflicts: Vec<Value>,
}

/// An accepted change.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pushed {
    /// The id the client used.
    pub client_id: String,
    /// The id to use from now on.
    pub server_id: String,
    /// Canonical entity type.
    pub entity_type: String,
    /// Which change this answers.
    #[serde(deserialize_with = "text_or_number")]
    pub request_id: String,
    /// The entity's version after the change.
    #[serde(default)]
    pub version: Option<i64>,
    /// Such as `superseded`, when the change was kept but lost.
    #[serde(default)]
    pub outcome: Option<String>,
}

/// A refused change.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushFailed {
    /// The id the client used.
    pub client_id: String,
    /// Which change this answers.
    #[serde(deserialize_with = "text_or_number")]
    pub request_id: String,
    /// For people.
    #[serde(default)]
    pub error: String,
    /// A stable code such as `NOT_FOUND`.
    #[serde(default)]
    pub error_code: Option<String>,
    /// Whether the same change may succeed later.
    pub retryable: bool,
}

/// One page of `GET /sync/changes`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangesPage {
    /// In dependency order, and by position within a type.
    pub changes: Vec<Changed>,
    /// Position after the page; opaque while paging.
    pub cursor: Option<String>,
    /// Whether another page follows.
    pub has_more: bool,
    /// Positions of the types that advanced.
    #[serde(default)]
    pub entity_cursors: BTreeMap<String, String>,
}

/// One row of the change feed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// Canonical entity type.
    pub entity_type: String,
    /// What happened last.
    pub operation: Operation,
    /// The entity.
    pub server_id: String,
    /// The whole entity after the change.
    pub data: Value,
}

/// Request ids come back as they were sent: text or a number.
fn text_or_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        other => Ok(other.to_string()),
    }
}
