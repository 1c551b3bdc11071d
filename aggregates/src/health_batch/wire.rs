//! The body of an upload as typed items.
//!
//! Only the envelope and the fields an answer is correlated by (ids and start) can fail a whole
//! batch: a client discards every sample of a batch that is refused for good. Any other fault
//! belongs to its sample.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::DateTime;
use serde_json::{Map, Number, Value};
use uuid::Uuid;

use super::canonical;
use super::outcome::SampleOutcome;
use crate::segment::{Key, Metadata, Revision};

/// Most samples in one batch, and most deletions.
pub const MAX_ITEMS: usize = 500;
/// The newest configuration a client may claim.
pub const CONFIG_VERSION: u32 = 3;
/// Starts further apart than this are read as separate ranges.
const RANGE_GAP_MS: i64 = 2 * 60 * 60 * 1000;

const MAX_METADATA_BYTES: usize = 4096;
const MAX_METADATA_DEPTH: usize = 3;

/// Metadata that is kept; anything else is dropped before hashing.
const METADATA_KEYS: [&str; 11] = [
    "sourceAppId",
    "sourceAppVersion",
    "deviceManufacturer",
    "deviceModel",
    "osName",
    "osVersion",
    "hkQuantityType",
    "hkCategoryType",
    "isManualEntry",
    "dataSource",
    "sampleReliability",
];
const TOP_FIELDS: [&str; 6] =
    ["requestId", "payloadHash", "configVersion", "leaseId", "samples", "deleted"];
const SAMPLE_FIELDS: [&str; 16] = [
    "sourceId",
    "sourceRecordId",
    "metricCode",
    "valueKind",
    "value",
    "unit",
    "categoryCode",
    "startAt",
    "endAt",
    "durationSeconds",
    "timezoneOffsetMinutes",
    "deviceId",
    "externalUuid",
    "metadata",
    "recordVersion",
    "modifiedAt",
];

/// Why a whole batch is refused. Names fields, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("{0}")]
    Invalid(String),
    #[error("configVersion is newer than this server")]
    ConfigVersionTooNew,
}

/// A parsed upload.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub request_id: Uuid,
    pub config_version: u32,
    pub lease_id: Option<Uuid>,
    /// In the order of the request.
    pub samples: Vec<SampleItem>,
    /// In the order of the request.
    pub deletions: Vec<DeletionItem>,
    /// The canonical text of the content. Requests are the same if their ids and these are equal;
    /// it is personal, so store only a keyed hash of it.
    pub content: String,
    /// Whether the client's own hash is the one computed here.
    pub hash_matched: bool,
}

/// One sample of the request.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleItem {
    /// Place in the canonical order, which outcomes are stored in.
    pub place: usize,
    pub key: Key,
    /// As sent, if it is a text of at most 64 characters without control characters.
    pub metric_code: Option<String>,
    /// For refused ranges: the end where it can be read.
    pub end_ms: Option<i64>,
    /// The rest, or the fault of shape that refuses the sample.
    pub content: Result<SampleContent, SampleOutcome>,
}

/// What a sample says, well formed but not yet checked against the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleContent {
    pub value_kind: String,
    pub value: Option<Number>,
    pub unit: Option<String>,
    pub category_code: Option<String>,
    pub end_ms: i64,
    pub duration_s: Option<u32>,
    pub offset_min: Option<i16>,
    pub device_id: Option<Arc<str>>,
    pub external_uuid: Option<Arc<str>>,
    pub metadata: Option<Arc<Metadata>>,
    pub revision: Revision,
}

/// One deletion of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionItem {
    /// Place in the canonical order.
    pub place: usize,
    pub source_id: Arc<str>,
    pub record_id: Arc<str>,
    /// One sample if given, every sample of the record otherwise.
    pub start_ms: Option<i64>,
    /// By the client's clock.
    pub deleted_ms: Option<i64>,
}

impl Batch {
    /// Reads a request body.
    ///
    /// # Errors
    /// [`BatchError`] for a fault of the envelope or of a field that answers are correlated by.
    pub fn parse(body: &[u8]) -> Result<Self, BatchError> {
        let Ok(Value::Object(mut body)) = serde_json::from_slice(body) else {
            return Err(invalid("the body must be a JSON object"));
        };
        body.retain(|_, value| !value.is_null());
        if let Some(unknown) = body.keys().find(|name| !TOP_FIELDS.contains(&name.as_str())) {
            let name: String = unknown.chars().take(64).collect();
            return Err(invalid(&format!("{name} is not a field of this request")));
        }
        let request_id =
            uuid(&body, "requestId")?.ok_or_else(|| invalid("requestId is required"))?;
        let claimed_hash = payload_hash(&body)?;
        let config_version = config_version(&body)?;
        let lease_id = uuid(&body, "leaseId")?;
        let mut samples =
            elements(&mut body, "samples")?.ok_or_else(|| invalid("samples must be an array"))?;
        let mut deleted = elements(&mut body, "deleted")?.unwrap_or_default();
        if samples.is_empty() && deleted.is_empty() {
            return Err(invalid("samples and deleted are both empty"));
        }
        // Metadata is judged as it came and hashed as it is kept.
        let metadata: Vec<_> = samples.iter_mut().map(sanitise_metadata).collect();
        let keys = samples
            .iter_mut()
            .enumerate()
            .map(|(place, sample)| sample_key(sample, place))
            .collect::<Result<Vec<Key>, BatchError>>()?;
        let deletions = deleted
            .iter_mut()
            .enumerate()
            .map(|(place, deletion)| deletion_item(deletion, place))
            .collect::<Result<Vec<DeletionItem>, BatchError>>()?;

        let sample_order = canonical::sort(
            &samples,
            &["sourceId", "sourceRecordId", "metricCode", "startAt", "endAt", "valueKind"],
        );
        let deletion_order = canonical::sort(&deleted, &["sourceId", "sourceRecordId", "startAt"]);
        let content = canonical::envelope(&sample_order.text, &deletion_order.text);
        let computed_hash = if config_version >= 2 {
            canonical::sha256(&content)
        } else {
            deleted.iter_mut().for_each(|deletion| {
                deletion.remove("startAt");
            });
            let order = canonical::sort(&deleted, &["sourceId", "sourceRecordId"]);
            canonical::sha256(&canonical::envelope(&sample_order.text, &order.text))
        };
        let samples = samples
            .into_iter()
            .zip(keys)
            .zip(metadata)
            .zip(&sample_order.places)
            .map(|(((sample, key), metadata), place)| sample_item(&sample, key, metadata, *place))
            .collect();
        let deletions = deletions
            .into_iter()
            .zip(deletion_order.places)
            .map(|(deletion, place)| DeletionItem { place, ..deletion })
            .collect();
        Ok(Self {
            request_id,
            config_version,
            lease_id,
            samples,
            deletions,
            hash_matched: computed_hash == claimed_hash,
            content,
        })
    }

    /// The ranges of start times, both ends included, whose segments decide this batch.
    pub fn ranges(&self) -> Vec<(i64, i64)> {
        let samples = self.samples.iter().map(|item| item.key.start_ms);
        let precise = self.deletions.iter().filter_map(|item| item.start_ms);
        let starts: BTreeSet<i64> = samples.chain(precise).collect();
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        for start in starts {
            match ranges.last_mut() {
                Some((_, end)) if start.saturating_sub(*end) <= RANGE_GAP_MS => *end = start,
                _ => ranges.push((start, start)),
            }
        }
        ranges
    }

    /// Record ids deleted as a whole: every segment whose folds name one is needed too.
    pub fn lossless_records(&self) -> BTreeSet<&str> {
        let lossless = self.deletions.iter().filter(|item| item.start_ms.is_none());
        lossless.map(|item| &*item.record_id).collect()
    }

    /// Every (source, record) of the batch: those whose tombstones are needed.
    pub fn records(&self) -> BTreeSet<(&str, &str)> {
        let samples = self.samples.iter().map(|item| (&*item.key.source_id, &*item.key.record_id));
        samples
            .chain(self.deletions.iter().map(|item| (&*item.source_id, &*item.record_id)))
            .collect()
    }
}

fn invalid(message: &str) -> BatchError {
    BatchError::Invalid(message.to_owned())
}

fn uuid(body: &Map<String, Value>, name: &str) -> Result<Option<Uuid>, BatchError> {
    let Some(value) = body.get(name) else { return Ok(None) };
    let parsed = value.as_str().and_then(|text| Uuid::try_parse(text).ok());
    parsed.map(Some).ok_or_else(|| invalid(&format!("{name} must be a UUID")))
}

fn payload_hash(body: &Map<String, Value>) -> Result<String, BatchError> {
    let hash = body.get("payloadHash").and_then(Value::as_str).unwrap_or_default();
    let digits = hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hash.len() == 64 && digits {
        Ok(hash.to_owned())
    } else {
        Err(invalid("payloadHash must be 64 lower-case hexadecimal digits"))
    }
}

fn config_version(body: &Map<String, Value>) -> Result<u32, BatchError> {
    let Some(value) = body.get("configVersion") else { return Ok(1) };
    let version = integer(value).filter(|version| *version >= 1);
    let version = version.ok_or_else(|| invalid("configVersion must be a positive integer"))?;
    u32::try_from(version)
        .ok()
        .filter(|version| *version <= CONFIG_VERSION)
        .ok_or(BatchError::ConfigVersionTooNew)
}

fn elements(
    body: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<Vec<Map<String, Value>>>, BatchError> {
    let array = match body.remove(name) {
        None => return Ok(None),
        Some(Value::Array(array)) => array,
        Some(_) => return Err(invalid(&format!("{name} must be an array"))),
    };
    if array.len() > MAX_ITEMS {
        return Err(invalid(&format!("{name} holds more than {MAX_ITEMS} items")));
    }
    let objects = array.into_iter().enumerate().map(|(place, element)| match element {
        Value::Object(mut members) => {
            members.retain(|_, value| !value.is_null());
            Ok(members)
        }
        _ => Err(invalid(&format!("{name}[{place}] must be an object"))),
    });
    objects.collect::<Result<Vec<_>, BatchError>>().map(Some)
}

/// Reads source and record, and lower-cases the record in place, as it is hashed.
fn record(item: &mut Map<String, Value>, path: &str) -> Result<(Arc<str>, Arc<str>), BatchError> {
    let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
    let fits = |text: &str, most: usize| {
        (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)
    };
    let source_id = text("sourceId").trim();
    if !fits(source_id, 128) {
        return Err(invalid(&format!("{path}.sourceId must have 1 to 128 characters")));
    }
    let record_id = text("sourceRecordId");
    if !fits(record_id, 256) || record_id.trim() != record_id {
        return Err(invalid(&format!("{path}.sourceRecordId must have 1 to 256 characters")));
    }
    let (source_id, record_id) = (Arc::from(source_id), record_id.to_lowercase());
    item.insert("sourceRecordId".to_owned(), Value::String(record_id.clone()));
    Ok((source_id, Arc::from(record_id)))
}

fn sample_key(sample: &mut Map<String, Value>, place: usize) -> Result<Key, BatchError> {
    let path = format!("samples[{place}]");
    let (source_id, record_id) = record(sample, &path)?;
    let start_ms = sample
        .get("startAt")
        .and_then(instant)
        .ok_or_else(|| invalid(&format!("{path}.startAt must be an ISO 8601 date and time")))?;
    Ok(Key { start_ms, source_id, record_id })
}

/// Reads a deletion and leaves in the object what is hashed of it. The intent is clear without
/// the rest: an unreadable `deletedAt` is as good as none.
fn deletion_item(
    deletion: &mut Map<String, Value>,
    place: usize,
) -> Result<DeletionItem, BatchError> {
    let path = format!("deleted[{place}]");
    let (source_id, record_id) = record(deletion, &path)?;
    let start_ms = match deletion.get("startAt") {
        None => None,
        Some(value) => Some(instant(value).ok_or_else(|| {
            invalid(&format!("{path}.startAt must be an ISO 8601 date and time"))
        })?),
    };
    let deleted_ms = deletion.get("deletedAt").and_then(instant);
    deletion.retain(|name, _| ["sourceId", "sourceRecordId", "startAt"].contains(&name.as_str()));
    Ok(DeletionItem { place, source_id, record_id, start_ms, deleted_ms })
}

/// Milliseconds since the Unix epoch, finer digits cut off.
fn instant(value: &Value) -> Option<i64> {
    DateTime::parse_from_rfc3339(value.as_str()?).ok().map(|at| at.timestamp_millis())
}

/// An integer, also when written with a zero fraction.
fn integer(value: &Value) -> Option<i64> {
    let double = || value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9.0e15);
    value.as_i64().or_else(|| double().map(|whole| whole as i64))
}

/// Keeps what the whitelist names, in the object too; `Err` where even that is too much.
fn sanitise_metadata(
    sample: &mut Map<String, Value>,
) -> Result<Option<Arc<Metadata>>, SampleOutcome> {
    let members = match sample.get_mut("metadata") {
        None => return Ok(None),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(SampleOutcome::BadMetadata),
    };
    members.retain(|name, value| METADATA_KEYS.contains(&name.as_str()) && !value.is_null());
    let deep = members.values().any(|value| depth(value) + 1 > MAX_METADATA_DEPTH);
    if deep || canonical::object(members).len() > MAX_METADATA_BYTES {
        return Err(SampleOutcome::BadMetadata);
    }
    let kept: Metadata =
        members.iter().map(|(name, value)| (name.clone(), cleaned(value))).collect();
    Ok((!kept.is_empty()).then(|| Arc::new(kept)))
}

/// Text without control characters, some of which no database stores.
fn clean(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).collect()
}

fn cleaned(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(elements) => elements.iter().map(cleaned).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (clean(name), cleaned(value))).collect()
        }
        other => other.clone(),
    }
}

/// Levels of nesting; a plain value has none.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn sample_item(
    sample: &Map<String, Value>,
    key: Key,
    metadata: Result<Option<Arc<Metadata>>, SampleOutcome>,
    place: usize,
) -> SampleItem {
    let code = sample.get("metricCode").and_then(Value::as_str);
    let metric_code = code
        .filter(|code| code.chars().count() <= 64 && !code.chars().any(char::is_control))
        .map(str::to_owned);
    let end_ms = sample.get("endAt").and_then(instant);
    let content = metadata.and_then(|metadata| sample_content(sample, metadata));
    SampleItem { place, key, metric_code, end_ms, content }
}

fn sample_content(
    sample: &Map<String, Value>,
    metadata: Option<Arc<Metadata>>,
) -> Result<SampleContent, SampleOutcome> {
    use SampleOutcome::{BadDuration, BadOffset, BadShape, BadTimes, BadValue};
    if sample.keys().any(|name| !SAMPLE_FIELDS.contains(&name.as_str())) {
        return Err(BadShape);
    }
    let text = |name: &str| match sample.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= 256 => Ok(Some(clean(text))),
        Some(_) => Err(BadShape),
    };
    let whole = |name: &str, range: std::ops::RangeInclusive<i64>, fault: SampleOutcome| {
        let number = sample.get(name).map(|value| integer(value).filter(|n| range.contains(n)));
        number.map(|number| number.ok_or(fault)).transpose()
    };
    let value = match sample.get("value") {
        None => None,
        Some(Value::Number(number)) => Some(number.clone()),
        Some(_) => return Err(BadValue),
    };
    let modified_ms = match sample.get("modifiedAt") {
        None => None,
        Some(value) => Some(instant(value).ok_or(BadShape)?),
    };
    let duration_s = whole("durationSeconds", 0..=i64::from(i32::MAX), BadDuration)?;
    let offset_min = whole("timezoneOffsetMinutes", -720..=840, BadOffset)?;
    Ok(SampleContent {
        value_kind: text("valueKind")?.ok_or(BadShape)?,
        value,
        unit: text("unit")?,
        category_code: text("categoryCode")?,
        end_ms: sample.get("endAt").and_then(instant).ok_or(BadTimes)?,
        duration_s: duration_s.and_then(|seconds| u32::try_from(seconds).ok()),
        offset_min: offset_min.and_then(|minutes| i16::try_from(minutes).ok()),
        device_id: text("deviceId")?.map(Arc::from),
        external_uuid: text("externalUuid")?.map(Arc::from),
        metadata,
        revision: Revision {
            record_version: whole("recordVersion", 0..=i64::MAX, BadShape)?,
            modified_ms,
        },
    })
}
