//! The answer to an upload, from its event and the request. The first answer and every replay are
//! rendered here, so they are the same.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::event::Applied;
use super::instant;
use super::outcome::{DeletionOutcome, Failure, Stage};
use super::wire::Batch;
use crate::segment::Key;

/// An answer: 207 if anything failed, 200 otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub data: Data,
}

/// The wire's `data`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    pub successful: Vec<Accepted>,
    pub failed: Vec<Refused>,
    /// Only where the request carried deletions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletions: Option<Deletions>,
    pub metrics: Metrics,
}

/// A sample that is stored, whether this batch changed it or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    #[serde(serialize_with = "text")]
    pub source_id: Arc<str>,
    #[serde(serialize_with = "text")]
    pub source_record_id: Arc<str>,
    pub start_at: Moment,
    pub server_id: Uuid,
}

/// An item that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    #[serde(serialize_with = "text")]
    pub source_id: Arc<str>,
    #[serde(serialize_with = "text")]
    pub source_record_id: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Moment>,
    pub error: &'static str,
    pub error_code: &'static str,
    pub retryable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Deletions {
    pub successful: Vec<Deleted>,
    pub failed: Vec<Refused>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    #[serde(serialize_with = "text")]
    pub source_id: Arc<str>,
    #[serde(serialize_with = "text")]
    pub source_record_id: Arc<str>,
    /// Echoed where the request named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Moment>,
    pub already_deleted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    pub total_received: usize,
    pub successful_count: usize,
    pub failed_count: usize,
    /// Rows this batch deleted; only where the request carried deletions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_count: Option<u32>,
    pub duration_ms: i64,
}

/// A time in ms since the Unix epoch; `YYYY-MM-DDTHH:MM:SS.sssZ` on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub i64);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(24);
        instant::put(&mut text, self.0);
        serializer.serialize_str(&text)
    }
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Stands in where an event and a request do not belong together, so that no item goes missing.
const UNKNOWN: Failure = Failure {
    stage: Stage::Persistence,
    code: "SERVER_ERROR",
    message: "the outcome of this item is not known",
    retryable: true,
};

/// Renders the answer. `batch` is the request, first or repeated, whose content the event decided;
/// `server_id` derives a sample's id from its key.
pub fn render(applied: &Applied, batch: &Batch, server_id: &dyn Fn(&Key) -> Uuid) -> Answer {
    let mut successful = Vec::with_capacity(batch.samples.len());
    let mut failed: Vec<(Stage, Refused)> = Vec::new();
    for item in &batch.samples {
        let key = &item.key;
        let failure =
            applied.samples.get(item.place).map_or(Some(UNKNOWN), |outcome| outcome.failure());
        let (source_id, source_record_id) = (key.source_id.clone(), key.record_id.clone());
        let start_at = Moment(key.start_ms);
        match failure {
            None => successful.push(Accepted {
                source_id,
                source_record_id,
                start_at,
                server_id: server_id(key),
            }),
            Some(failure) => failed.push((
                failure.stage,
                Refused {
                    source_id,
                    source_record_id,
                    start_at: Some(start_at),
                    error: failure.message,
                    error_code: failure.code,
                    retryable: failure.retryable,
                },
            )),
        }
    }
    // Stable: within a stage the order of the request stays.
    failed.sort_by_key(|(stage, _)| *stage);
    let failed: Vec<Refused> = failed.into_iter().map(|(_, refused)| refused).collect();
    let deletions = (!batch.deletions.is_empty()).then(|| deletions(applied, batch));
    let failures = failed.len() + deletions.as_ref().map_or(0, |list| list.failed.len());
    let metrics = Metrics {
        total_received: batch.samples.len(),
        successful_count: successful.len(),
        failed_count: failed.len(),
        deleted_count: deletions.as_ref().map(|_| applied.facts.counts.deleted),
        duration_ms: applied.facts.duration_ms,
    };
    Answer {
        status: if failures == 0 { 200 } else { 207 },
        data: Data { successful, failed, deletions, metrics },
    }
}

fn deletions(applied: &Applied, batch: &Batch) -> Deletions {
    let mut answer = Deletions::default();
    for item in &batch.deletions {
        let (source_id, source_record_id) = (item.source_id.clone(), item.record_id.clone());
        let start_at = item.start_ms.map(Moment);
        let refusal = match applied.deletions.get(item.place) {
            Some(DeletionOutcome::Deleted | DeletionOutcome::AlreadyDeleted) => None,
            Some(DeletionOutcome::NotFound) => {
                Some(("DELETE_NOT_FOUND", "the record is not known", false))
            }
            None => Some(("DELETE_FAILED", UNKNOWN.message, true)),
        };
        match refusal {
            None => answer.successful.push(Deleted {
                source_id,
                source_record_id,
                start_at,
                already_deleted: applied.deletions.get(item.place)
                    == Some(&DeletionOutcome::AlreadyDeleted),
            }),
            Some((error_code, error, retryable)) => answer.failed.push(Refused {
                source_id,
                source_record_id,
                start_at,
                error,
                error_code,
                retryable,
            }),
        }
    }
    answer
}
