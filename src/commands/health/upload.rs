//! One upload of samples and deletions, from the parsed batch to its answer.
//!
//! Everything after parsing happens under the person's lane: look the request up, read what the
//! batch touches, decide, append. The event, the rows, the receipt and the watermark are one
//! commit, so that no crash can part them.

use std::sync::Arc;

use aggregates::health_batch::{
    self, Answer, Applied, Batch, HealthBatch, HealthBatchCommand, HealthBatchError,
    HealthBatchEvent, render,
};
use aggregates::segment::plan;
use aggregates::{AnyEvent, Metadata, Purpose, StreamId, UserId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::facts;
use crate::commands::observe::{Ending, about, count_replays, observed};
use crate::commands::users::{AccountError, health_rules};
use crate::commands::{ATTEMPTS, CommandError, events_of};
use crate::ids;
use crate::keys::{KeyError, SubjectKey};
use crate::metrics::HEALTH_SAMPLES;
use crate::store::lane::UserLane;
use crate::store::segments::Segments;
use crate::store::streams::StoredReceipt;
use crate::store::{
    AppendError, HealthWrites, Member, Op, Outcome, PrivacyGuard, ReadError, Receipt, Store,
    StreamChange,
};

/// Scope of the receipts of uploads.
const SCOPE: &str = "health";

/// A request to upload.
#[derive(Clone, Debug)]
pub struct Upload {
    pub user: UserId,
    pub batch: Box<Batch>,
    /// Minutes east of UTC from the request's header.
    pub offset_min: Option<i16>,
    /// When the request arrived, in ms since the Unix epoch.
    pub received_ms: i64,
    pub metadata: Metadata,
}

/// What became of an upload.
#[derive(Clone, Debug)]
pub struct Uploaded {
    pub answer: Answer,
    /// The person's watermark after the batch; a repeated request tells the one it told before.
    pub health_seq: i64,
    /// Whether the request had been answered before.
    pub replayed: bool,
}

/// Why nothing of an upload took effect.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The request id was used before with other samples or deletions.
    #[error("the request id was used before with other content")]
    ContentDiffers,
    #[error("health uploads are turned off")]
    UploadsDisabled,
    #[error(transparent)]
    Account(#[from] AccountError),
}

impl From<CommandError> for UploadError {
    fn from(error: CommandError) -> Self {
        Self::Account(error.into())
    }
}

impl From<ReadError> for UploadError {
    fn from(error: ReadError) -> Self {
        match error {
            // Erased health data takes the consent to store more of it along.
            ReadError::Key(KeyError::Shredded { .. }) => Self::UploadsDisabled,
            other => CommandError::from(other).into(),
        }
    }
}

/// What a receipt remembers: where the answer can be rendered from.
#[derive(Serialize, Deserialize)]
struct Remembered {
    stream: Uuid,
    status: u16,
}

/// Applies an upload, or finds the answer it had before.
///
/// # Errors
/// [`UploadError`]; nothing of the batch took effect then.
pub async fn upload(store: &Store, request: Upload) -> Result<Uploaded, UploadError> {
    let handling = async {
        let mut lane = store.lane(request.user).await?;
        let result = upload_in(store, &mut lane, &request).await;
        lane.release().await;
        result
    };
    let outcome = |result: &Result<Answered, UploadError>| match result {
        Ok((uploaded, _)) if uploaded.replayed => "repeated",
        Ok(_) => "applied",
        Err(error) => error.ending(),
    };
    let result = observed(health_batch::TYPE, "upload", handling, outcome).await;
    if let Ok((uploaded, applied)) = &result {
        observe(&request.batch, applied, uploaded.replayed);
    }
    result.map(|(uploaded, _)| uploaded)
}

type Answered = (Uploaded, Box<Applied>);

async fn upload_in(
    store: &Store,
    lane: &mut UserLane,
    request: &Upload,
) -> Result<Answered, UploadError> {
    for _ in 0..ATTEMPTS {
        let receipt = receipt(store, request).await?;
        if let Some(answered) = replay(store, request, &receipt).await? {
            return Ok(answered);
        }
        if let Some(answered) = apply(store, lane, request, receipt).await? {
            return Ok(answered);
        }
    }
    Err(CommandError::Busy.into())
}

/// The receipt of this request, without its outcome.
async fn receipt(store: &Store, request: &Upload) -> Result<Receipt, ReadError> {
    let key = store.sealer().key(request.user, Purpose::Identity).await?;
    let hashes = key.identity_hashes()?;
    let (id, content) = (request.batch.request_id.to_string(), request.batch.content.as_bytes());
    Ok(Receipt {
        user: request.user,
        scope: SCOPE,
        hmac: hashes.receipt_hash(SCOPE, &id, None).to_vec(),
        content_hmac: Some(hashes.content_hash(SCOPE, content).to_vec()),
        outcome: String::new(),
    })
}

/// The answer the request had before, if there is one.
async fn replay(
    store: &Store,
    request: &Upload,
    receipt: &Receipt,
) -> Result<Option<Answered>, UploadError> {
    let hmacs = std::slice::from_ref(&receipt.hmac);
    let Some(stored) = store.receipts(request.user, SCOPE, hmacs).await?.pop() else {
        return Ok(None);
    };
    if stored.content_hmac != receipt.content_hmac {
        return Err(UploadError::ContentDiffers);
    }
    // The key first: where it was destroyed, the event says nothing any more.
    let key = store.health_key(request.user).await?;
    let applied = stored_event(store, &stored).await?;
    answered(request, applied, &key, true).map(Some).map_err(Into::into)
}

async fn stored_event(store: &Store, receipt: &StoredReceipt) -> Result<Box<Applied>, ReadError> {
    let damaged = |reason: &str| ReadError::Corrupt {
        position: receipt.position.unwrap_or(0),
        reason: reason.to_owned(),
    };
    let remembered: Remembered = serde_json::from_str(&receipt.outcome)
        .map_err(|_| damaged("the receipt does not say what was answered"))?;
    let stream = StreamId::new(health_batch::TYPE, remembered.stream);
    let event = store.stream(&stream, 0, 1, 1).await?.pop();
    match event.as_ref().and_then(|recorded| recorded.event()) {
        Some(AnyEvent::HealthBatch(HealthBatchEvent::Applied(applied))) => Ok(applied.clone()),
        _ => Err(damaged("the batch of a receipt is not there")),
    }
}

/// Decides and appends; `None` where somebody else was faster.
async fn apply(
    store: &Store,
    lane: &mut UserLane,
    request: &Upload,
    receipt: Receipt,
) -> Result<Option<Answered>, UploadError> {
    let (rules, guard) = health_rules(store, request.user).await?;
    let key = store.health_key(request.user).await?;
    let context = facts::load(lane, request, &rules, &key).await?;
    let command = HealthBatchCommand::Submit(request.batch.clone());
    let Some(HealthBatchEvent::Applied(applied)) =
        HealthBatch::default().decide(&command, &context)?.pop()
    else {
        return Ok(None);
    };
    let writes = HealthWrites {
        user: request.user.0,
        seq: context.health_seq,
        changed: applied.facts.changed,
        segments: Segments::new(request.user, &key)
            .seal(&plan(&context.segments, &applied.rows()))?,
        tombstones: tombstones(&applied, &key)?,
    };
    let answered = answered(request, applied, &key, false)?;
    let member = member(request, receipt, guard, &answered);
    match lane.append(member, Some(writes)).await {
        Ok(Outcome::Appended { .. }) => Ok(Some(answered)),
        // The request was answered meanwhile, the rules changed or a key went: look again.
        Ok(_) => Ok(None),
        Err(AppendError::Key(error)) if matches!(*error, KeyError::Shredded { .. }) => {
            Err(UploadError::UploadsDisabled)
        }
        Err(error) => Err(CommandError::from(error).into()),
    }
}

impl From<HealthBatchError> for UploadError {
    fn from(error: HealthBatchError) -> Self {
        match error {
            HealthBatchError::UploadsDisabled => Self::UploadsDisabled,
            // A batch is decided on a stream that does not exist yet.
            HealthBatchError::AlreadyApplied => CommandError::Busy.into(),
        }
    }
}

fn tombstones(applied: &Applied, key: &SubjectKey) -> Result<Vec<Vec<u8>>, ReadError> {
    if applied.tombstoned.is_empty() {
        return Ok(Vec::new());
    }
    Ok(facts::hashed(key.health_hashes()?, &applied.tombstoned))
}

fn answered(
    request: &Upload,
    applied: Box<Applied>,
    key: &Arc<SubjectKey>,
    replayed: bool,
) -> Result<Answered, ReadError> {
    let ids = key.health_hashes()?.sample_ids();
    let answer = render(&applied, &request.batch, &|key| {
        ids.of(&key.source_id, &key.record_id, key.start_ms)
    });
    let health_seq = applied.facts.health_seq;
    Ok((Uploaded { answer, health_seq, replayed }, applied))
}

fn member(request: &Upload, receipt: Receipt, guard: PrivacyGuard, answered: &Answered) -> Member {
    let (uploaded, applied) = answered;
    let stream = ids::new_id();
    about(&StreamId::new(health_batch::TYPE, stream));
    let remembered = Remembered { stream, status: uploaded.answer.status };
    let event = HealthBatchEvent::Applied(applied.clone());
    Member {
        streams: vec![StreamChange {
            stream: StreamId::new(health_batch::TYPE, stream),
            user: request.user,
            expected: 0,
            events: events_of([event], &request.metadata),
            op: Op::Create,
            origin: None,
            state: None,
        }],
        receipts: vec![Receipt { outcome: aggregates::event::to_payload(&remembered), ..receipt }],
        privacy: Some(guard),
        ..Member::default()
    }
}

/// Counts, and nothing that says what was measured.
fn observe(batch: &Batch, applied: &Applied, replayed: bool) {
    let counts = &applied.facts.counts;
    tracing::info!(
        samples = counts.samples,
        deletions = counts.deletions,
        recorded = counts.recorded,
        corrected = counts.corrected,
        unchanged = counts.unchanged,
        superseded = counts.superseded,
        refused = counts.refused,
        deleted = counts.deleted,
        tombstoned = counts.tombstoned,
        changed = applied.facts.changed,
        hash_matched = batch.hash_matched,
        replayed,
        "health batch"
    );
    if replayed {
        count_replays(SCOPE, 1);
        return;
    }
    for (outcome, count) in [
        ("recorded", counts.recorded),
        ("corrected", counts.corrected),
        ("unchanged", counts.unchanged),
        ("superseded", counts.superseded),
        ("refused", counts.refused),
        ("deleted", counts.deleted),
        ("tombstoned", counts.tombstoned),
    ] {
        metrics::counter!(HEALTH_SAMPLES, "outcome" => outcome).increment(u64::from(count));
    }
}
