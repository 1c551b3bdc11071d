//! The body of an upload as typed items.
//!
//! Only the envelope and the fields an answer is correlated by (ids and start) can fail a whole
//! batch: a client discards every sample of a batch that is refused for good. Any other fault
//! belongs to its sample.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Number, Value};
use uuid::Uuid;

use super::item::{Body, Content, Field, Item};
use super::outcome::SampleOutcome;
use super::{canonical, instant};
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
/// The order of samples in canonical text.
const SAMPLE_ORDER: [Field; 6] = [
    Field::SourceId,
    Field::SourceRecordId,
    Field::MetricCode,
    Field::StartAt,
    Field::EndAt,
    Field::ValueKind,
];
/// The order of deletions, and all that is hashed of one.
const DELETION_ORDER: [Field; 3] = [Field::SourceId, Field::SourceRecordId, Field::StartAt];

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
    pub metric_code: Option<Arc<str>>,
    /// For refused ranges: the end where it can be read.
    pub end_ms: Option<i64>,
    /// The rest, or the fault of shape that refuses the sample.
    pub content: Result<SampleContent, SampleOutcome>,
}

/// What a sample says, well formed but not yet checked against the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleContent {
    pub value_kind: Arc<str>,
    pub value: Option<Number>,
    pub unit: Option<Arc<str>>,
    pub category_code: Option<Arc<str>>,
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
        let Ok(Body { members, samples, deleted }) = serde_json::from_slice(body) else {
            return Err(fault(body));
        };
        let envelope = Envelope::read(&members)?;
        let mut samples = samples.ok_or_else(|| invalid("samples must be an array"))?;
        let mut deleted = deleted.unwrap_or_default();
        if samples.is_empty() && deleted.is_empty() {
            return Err(invalid("samples and deleted are both empty"));
        }
        // Metadata is judged as it came and hashed as it is kept.
        let metadata: Vec<_> = samples.iter_mut().map(sanitise_metadata).collect();
        let mut texts = Texts::default();
        let keys = samples
            .iter_mut()
            .enumerate()
            .map(|(place, sample)| sample_key(sample, place, &mut texts))
            .collect::<Result<Vec<Key>, BatchError>>()?;
        let deletions = deleted
            .iter_mut()
            .enumerate()
            .map(|(place, deletion)| deletion_item(deletion, place, &mut texts))
            .collect::<Result<Vec<DeletionItem>, BatchError>>()?;

        let sample_order = canonical::sort(&samples, &SAMPLE_ORDER);
        let deletion_order = canonical::sort(&deleted, &DELETION_ORDER);
        let content = canonical::envelope(&sample_order.text, &deletion_order.text);
        let computed_hash = if envelope.config_version >= 2 {
            canonical::sha256(&content)
        } else {
            deleted.iter_mut().for_each(|deletion| deletion.set(Field::StartAt, None));
            let order = canonical::sort(&deleted, &[Field::SourceId, Field::SourceRecordId]);
            canonical::sha256(&canonical::envelope(&sample_order.text, &order.text))
        };
        let samples = samples
            .iter()
            .zip(keys)
            .zip(metadata)
            .zip(sample_order.places)
            .map(|(((sample, key), metadata), place)| {
                sample_item(sample, key, metadata, place, &mut texts)
            })
            .collect();
        let deletions = deletions
            .into_iter()
            .zip(deletion_order.places)
            .map(|(deletion, place)| DeletionItem { place, ..deletion })
            .collect();
        Ok(Self {
            request_id: envelope.request_id,
            config_version: envelope.config_version,
            lease_id: envelope.lease_id,
            samples,
            deletions,
            hash_matched: computed_hash == envelope.claimed_hash,
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

/// Everything around the items.
struct Envelope {
    request_id: Uuid,
    claimed_hash: String,
    config_version: u32,
    lease_id: Option<Uuid>,
}

impl Envelope {
    fn read(members: &Map<String, Value>) -> Result<Self, BatchError> {
        if let Some(unknown) = members.keys().find(|name| !TOP_FIELDS.contains(&name.as_str())) {
            let name: String = unknown.chars().take(64).collect();
            return Err(invalid(&format!("{name} is not a field of this request")));
        }
        Ok(Self {
            request_id: uuid(members, "requestId")?
                .ok_or_else(|| invalid("requestId is required"))?,
            claimed_hash: payload_hash(members)?,
            config_version: config_version(members)?,
            lease_id: uuid(members, "leaseId")?,
        })
    }
}

/// What is wrong with a body that is not made as it should be; looked for in the whole tree of it.
fn fault(body: &[u8]) -> BatchError {
    let not_an_object = "the body must be a JSON object";
    let Ok(Value::Object(mut members)) = serde_json::from_slice(body) else {
        return invalid(not_an_object);
    };
    members.retain(|_, value| !value.is_null());
    let found = Envelope::read(&members)
        .and_then(|_| elements(&members, "samples"))
        .and_then(|()| elements(&members, "deleted"));
    found.err().unwrap_or_else(|| invalid(not_an_object))
}

/// Whether a member, if it is there, is an array of not too many objects.
fn elements(members: &Map<String, Value>, name: &str) -> Result<(), BatchError> {
    let array = match members.get(name) {
        None => return Ok(()),
        Some(Value::Array(array)) => array,
        Some(_) => return Err(invalid(&format!("{name} must be an array"))),
    };
    if array.len() > MAX_ITEMS {
        return Err(invalid(&format!("{name} holds more than {MAX_ITEMS} items")));
    }
    match array.iter().position(|element| !element.is_object()) {
        Some(place) => Err(invalid(&format!("{name}[{place}] must be an object"))),
        None => Ok(()),
    }
}

/// Texts that many items of a batch share: sources, metrics, units.
#[derive(Default)]
struct Texts(Vec<Arc<str>>);

impl Texts {
    /// Looked through one by one; a batch with more of them has its own copy of the rest.
    const KEPT: usize = 16;

    fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| &***known == text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = Arc::from(text);
        if self.0.len() < Self::KEPT {
            self.0.push(Arc::clone(&shared));
        }
        shared
    }
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
    let version = value.as_number().and_then(integer).filter(|version| *version >= 1);
    let version = version.ok_or_else(|| invalid("configVersion must be a positive integer"))?;
    u32::try_from(version)
        .ok()
        .filter(|version| *version <= CONFIG_VERSION)
        .ok_or(BatchError::ConfigVersionTooNew)
}

/// Reads source and record, and lower-cases the record in place, as it is hashed.
fn record(
    item: &mut Item<'_>,
    path: impl Fn() -> String,
    texts: &mut Texts,
) -> Result<(Arc<str>, Arc<str>), BatchError> {
    let source_id = item.text(Field::SourceId).unwrap_or_default().trim();
    if !fits(source_id, 128) {
        return Err(invalid(&format!("{}.sourceId must have 1 to 128 characters", path())));
    }
    let source_id = texts.get(source_id);
    let record_id = item.text(Field::SourceRecordId).unwrap_or_default();
    if !fits(record_id, 256) || record_id.trim() != record_id {
        return Err(invalid(&format!("{}.sourceRecordId must have 1 to 256 characters", path())));
    }
    let record_id: Arc<str> = if record_id.is_ascii() {
        let mut lower: Arc<str> = Arc::from(record_id);
        if let Some(text) = Arc::get_mut(&mut lower) {
            text.make_ascii_lowercase();
        }
        lower
    } else {
        Arc::from(record_id.to_lowercase())
    };
    item.set(Field::SourceRecordId, Some(Content::Shared(Arc::clone(&record_id))));
    Ok((source_id, record_id))
}

/// Whether a text has 1 to `most` characters, none of them a control character.
fn fits(text: &str, most: usize) -> bool {
    if is_printable(text) {
        return (1..=most).contains(&text.len());
    }
    (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Whether a text is ASCII without control characters, as nearly all are.
fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn sample_key(sample: &mut Item<'_>, place: usize, texts: &mut Texts) -> Result<Key, BatchError> {
    let path = || format!("samples[{place}]");
    let (source_id, record_id) = record(sample, path, texts)?;
    let start_ms = moment(sample, Field::StartAt)
        .ok_or_else(|| invalid(&format!("{}.startAt must be an ISO 8601 date and time", path())))?;
    Ok(Key { start_ms, source_id, record_id })
}

/// Reads a deletion and leaves in the item what is hashed of it. The intent is clear without the
/// rest: an unreadable `deletedAt` is as good as none.
fn deletion_item(
    deletion: &mut Item<'_>,
    place: usize,
    texts: &mut Texts,
) -> Result<DeletionItem, BatchError> {
    let path = || format!("deleted[{place}]");
    let (source_id, record_id) = record(deletion, path, texts)?;
    let start_ms = match deletion.get(Field::StartAt) {
        None => None,
        Some(_) => Some(moment(deletion, Field::StartAt).ok_or_else(|| {
            invalid(&format!("{}.startAt must be an ISO 8601 date and time", path()))
        })?),
    };
    let deleted_ms = moment(deletion, Field::DeletedAt);
    deletion.keep(&DELETION_ORDER);
    Ok(DeletionItem { place, source_id, record_id, start_ms, deleted_ms })
}

/// Milliseconds since the Unix epoch, finer digits cut off.
fn moment(item: &Item<'_>, field: Field) -> Option<i64> {
    instant::parse(item.text(field)?)
}

/// An integer, also when written with a zero fraction.
fn integer(number: &Number) -> Option<i64> {
    let double = || number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9.0e15);
    number.as_i64().or_else(|| double().map(|whole| whole as i64))
}

/// Keeps what the whitelist names, in the item too; `Err` where even that is too much.
fn sanitise_metadata(sample: &mut Item<'_>) -> Result<Option<Arc<Metadata>>, SampleOutcome> {
    let members = match sample.get_mut(Field::Metadata) {
        None => return Ok(None),
        Some(Content::Other(value)) => value.as_object_mut().ok_or(SampleOutcome::BadMetadata)?,
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
fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars().filter(|character| !character.is_control()).collect()
    } else {
        text.into()
    }
}

fn cleaned(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean(text).into_owned()),
        Value::Array(elements) => elements.iter().map(cleaned).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (clean(name).into_owned(), cleaned(value))).collect()
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
    sample: &Item<'_>,
    key: Key,
    metadata: Result<Option<Arc<Metadata>>, SampleOutcome>,
    place: usize,
    texts: &mut Texts,
) -> SampleItem {
    let code = sample.text(Field::MetricCode);
    let metric_code =
        code.filter(|code| code.is_empty() || fits(code, 64)).map(|code| texts.get(code));
    let end_ms = moment(sample, Field::EndAt);
    let content = metadata.and_then(|metadata| sample_content(sample, end_ms, metadata, texts));
    SampleItem { place, key, metric_code, end_ms, content }
}

fn sample_content(
    sample: &Item<'_>,
    end_ms: Option<i64>,
    metadata: Option<Arc<Metadata>>,
    texts: &mut Texts,
) -> Result<SampleContent, SampleOutcome> {
    use SampleOutcome::{BadDuration, BadOffset, BadShape, BadTimes, BadValue};
    if !sample.others.is_empty() || sample.get(Field::DeletedAt).is_some() {
        return Err(BadShape);
    }
    let own_text = |field: Field| match sample.get(field).map(Content::text) {
        None => Ok(None),
        Some(Some(text)) if text.chars().count() <= 256 => Ok(Some(clean(text))),
        Some(_) => Err(BadShape),
    };
    let mut text = |field| own_text(field).map(|text| text.map(|text| texts.get(&text)));
    let whole = |field: Field, range: std::ops::RangeInclusive<i64>, fault: SampleOutcome| {
        let number = |content: &Content<'_>| content.number().and_then(integer);
        let number = sample.get(field).map(|content| number(content).filter(|n| range.contains(n)));
        number.map(|number| number.ok_or(fault)).transpose()
    };
    let value = match sample.get(Field::Value) {
        None => None,
        Some(content) => Some(content.number().ok_or(BadValue)?.clone()),
    };
    let modified_ms = match sample.get(Field::ModifiedAt) {
        None => None,
        Some(_) => Some(moment(sample, Field::ModifiedAt).ok_or(BadShape)?),
    };
    let duration_s = whole(Field::DurationSeconds, 0..=i64::from(i32::MAX), BadDuration)?;
    let offset_min = whole(Field::TimezoneOffsetMinutes, -720..=840, BadOffset)?;
    Ok(SampleContent {
        value_kind: text(Field::ValueKind)?.ok_or(BadShape)?,
        value,
        unit: text(Field::Unit)?,
        category_code: text(Field::CategoryCode)?,
        end_ms: end_ms.ok_or(BadTimes)?,
        duration_s: duration_s.and_then(|seconds| u32::try_from(seconds).ok()),
        offset_min: offset_min.and_then(|minutes| i16::try_from(minutes).ok()),
        device_id: text(Field::DeviceId)?,
        // Other than device ids, these rarely repeat.
        external_uuid: own_text(Field::ExternalUuid)?.map(Arc::from),
        metadata,
        revision: Revision {
            record_version: whole(Field::RecordVersion, 0..=i64::MAX, BadShape)?,
            modified_ms,
        },
    })
}
