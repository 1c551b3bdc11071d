//! What happened to a batch.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::outcome::{DeletionOutcome, SampleOutcome};
use super::{TYPE, blob};
use crate::event::{DecodeError, Encoded, EventType, Purpose, StoredEvent};
use crate::metric::Metric;
use crate::segment::{Key, Sample};

/// An event of a batch's stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum HealthBatchEvent {
    #[serde(rename = "health_batch.applied")]
    Applied(Box<Applied>),
}

/// A batch was decided and its effects took place. Holds resolved rows, never the request: replay
/// needs no catalogue and no clock.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Applied {
    /// The readable part of the payload.
    pub facts: Facts,
    /// One outcome a sample, in the batch's canonical order.
    pub samples: Vec<SampleOutcome>,
    /// One outcome a deletion, in the batch's canonical order.
    pub deletions: Vec<DeletionOutcome>,
    /// New rows, in key order.
    pub recorded: Vec<Sample>,
    /// Rows whose content changed, in key order.
    pub corrected: Vec<Correction>,
    /// Rows that are deleted from here on, in key order, as they were when deleted: a reader needs
    /// no look-up to know which days change.
    pub deleted: Vec<Sample>,
    /// Deletions of records that are not known yet; they refuse what arrives later.
    pub tombstoned: Vec<Tombstone>,
}

/// A row before and after a correction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    pub before: Sample,
    pub after: Sample,
}

/// A deletion that outlives the absence of its target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tombstone {
    pub source_id: std::sync::Arc<str>,
    pub record_id: std::sync::Arc<str>,
    /// `None` stands for every start of the record.
    pub start_ms: Option<i64>,
}

impl Tombstone {
    /// The tombstone of one key.
    pub fn of(key: &Key) -> Self {
        Self {
            source_id: key.source_id.clone(),
            record_id: key.record_id.clone(),
            start_ms: Some(key.start_ms),
        }
    }
}

/// The small facts of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Facts {
    /// The client's idempotency key.
    pub request_id: Uuid,
    /// The batch's place among the person's uploads by receipt.
    pub received_seq: i64,
    /// When the batch was applied, in ms since the Unix epoch; `created_ms` of its new rows.
    pub applied_at_ms: i64,
    /// From receipt to decision, in ms. Part of the answer, so that replays equal it.
    pub duration_ms: i64,
    pub config_version: u32,
    pub catalogue_version: u32,
    /// Minutes east of UTC from the request's header.
    pub request_offset_min: Option<i16>,
    /// Whether any row changed.
    pub changed: bool,
    /// The person's health watermark after the batch; one more than before if a row changed.
    pub health_seq: i64,
    pub counts: Counts,
    /// What readers must recompute; `None` where no row changed.
    pub affected: Option<Affected>,
    /// What privacy or the catalogue kept out, without values: when the rule changes, the client
    /// can be told what to send again.
    pub refused: Vec<RefusedRange>,
}

/// How many samples met which fate.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counts {
    pub samples: u32,
    pub deletions: u32,
    pub recorded: u32,
    pub corrected: u32,
    pub unchanged: u32,
    pub superseded: u32,
    pub refused: u32,
    /// Rows deleted, which a lossless deletion may multiply.
    pub deleted: u32,
    pub tombstoned: u32,
}

/// The days, nights and times whose content changed: of new and deleted rows, and of both
/// versions of corrected ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Affected {
    /// Local dates by metric.
    pub days: BTreeMap<Metric, BTreeSet<NaiveDate>>,
    /// Nights of sleep metrics, each named by the date its noon-to-noon window begins.
    pub nights: BTreeSet<NaiveDate>,
    /// Least start, in ms since the Unix epoch.
    pub range_start_ms: i64,
    /// Greatest end.
    pub range_end_ms: i64,
    /// Least and greatest offset among the rows, in minutes; `None` where none has one.
    pub offset_min: Option<i16>,
    pub offset_max: Option<i16>,
}

/// A stretch of samples that were kept out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RefusedRange {
    pub reason: RefusalReason,
    /// The wire's code, known or not.
    pub metric: String,
    pub from_ms: i64,
    pub to_ms: i64,
    pub count: u32,
}

/// Why a stretch of samples was kept out by a rule that may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RefusalReason {
    Privacy,
    UnknownMetric,
}

impl Applied {
    /// The rows as they are after the batch, by key: what both a replay and the segments store.
    pub fn rows(&self) -> BTreeMap<&Key, &Sample> {
        let corrected = self.corrected.iter().map(|correction| &correction.after);
        self.recorded
            .iter()
            .chain(corrected)
            .chain(&self.deleted)
            .map(|sample| (&sample.key, sample))
            .collect()
    }
}

const TYPES: [EventType; 1] = [EventType {
    name: "health_batch.applied",
    version: 1,
    aggregate: TYPE,
    purpose: Some(Purpose::Health),
    summary: "An upload of health samples and deletions was decided: what was recorded, \
              corrected, deleted and refused.",
}];

impl cqrs_es::DomainEvent for HealthBatchEvent {
    fn event_type(&self) -> String {
        self.descriptor().name.to_owned()
    }

    fn event_version(&self) -> String {
        self.descriptor().version.to_string()
    }
}

impl StoredEvent for HealthBatchEvent {
    fn types() -> &'static [EventType] {
        &TYPES
    }

    fn descriptor(&self) -> &'static EventType {
        match self {
            Self::Applied(_) => &TYPES[0],
        }
    }

    fn encode(&self) -> Encoded {
        match self {
            Self::Applied(data) => {
                Encoded { payload: crate::event::to_payload(&data.facts), blob: blob::pack(data) }
            }
        }
    }

    fn decode(event_type: &str, payload: &str, packed: &[u8]) -> Result<Self, DecodeError> {
        match event_type {
            "health_batch.applied" => {
                let facts = crate::event::from_payload(event_type, payload)?;
                let malformed =
                    |reason| DecodeError::Blob { event_type: event_type.to_owned(), reason };
                let applied =
                    blob::unpack(facts, packed).map_err(|fault| malformed(fault.reason()))?;
                Ok(Self::Applied(Box::new(applied)))
            }
            _ => Err(DecodeError::unknown(event_type)),
        }
    }
}

/// In JSON, an event is its stored form: the facts, and the packed part in hexadecimal. Only
/// tests and the framework's own stores see it.
impl Serialize for Applied {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.facts, hex::encode(blob::pack(self))).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Applied {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (facts, packed) = <(Facts, String)>::deserialize(deserializer)?;
        let packed = hex::decode(packed).map_err(serde::de::Error::custom)?;
        blob::unpack(facts, &packed).map_err(|fault| serde::de::Error::custom(fault.reason()))
    }
}
