//! What a batch is decided on, read under the person's lane.

use std::collections::{BTreeMap, BTreeSet};

use aggregates::health_batch::{Batch, Context, Tombstone};
use aggregates::metric::Metric;
use aggregates::segment::LoadedSegment;
use aggregates::user::HealthPrivacy;

use super::upload::Upload;
use crate::clock;
use crate::keys::{HealthHashes, SubjectKey};
use crate::store::ReadError;
use crate::store::lane::UserLane;
use crate::store::segments::{self, Segments};

/// Everything the decision needs besides the batch.
pub(super) async fn load(
    lane: &mut UserLane,
    request: &Upload,
    rules: &HealthPrivacy,
    key: &SubjectKey,
) -> Result<Context, ReadError> {
    let batch = &*request.batch;
    let user = lane.user();
    let standing = segments::standing(lane.connection()?, user).await?;
    let segments = relevant(lane, batch, key).await?;
    let tombstones = match standing.has_tombstones {
        true => tombstones(lane, batch, key.health_hashes()?).await?,
        false => BTreeSet::new(),
    };
    Ok(Context {
        uploads_allowed: rules.allow_upload,
        blocked: Metric::all().filter(|metric| !rules.allows(metric.code())).collect(),
        request_offset_min: request.offset_min,
        received_ms: request.received_ms,
        now_ms: clock::now_ms(),
        received_seq: standing.received_seq + 1,
        health_seq: standing.health_seq,
        segments,
        tombstones,
    })
}

/// The segments that cover a start of the batch or hold a record that is deleted as a whole.
async fn relevant(
    lane: &mut UserLane,
    batch: &Batch,
    key: &SubjectKey,
) -> Result<Vec<LoadedSegment>, ReadError> {
    let stored = Segments::new(lane.user(), key);
    let connection = lane.connection()?;
    let mut found = stored.covering(connection, &starts(batch)).await?;
    found.extend(stored.holding(connection, &batch.lossless_records()).await?);
    Ok(segments::once_each(found))
}

fn starts(batch: &Batch) -> BTreeSet<i64> {
    let samples = batch.samples.iter().map(|item| item.key.start_ms);
    samples.chain(batch.deletions.iter().filter_map(|item| item.start_ms)).collect()
}

/// The earlier deletions that may concern the batch. Only hashes are stored, so each candidate is
/// hashed and looked up.
async fn tombstones(
    lane: &mut UserLane,
    batch: &Batch,
    hashes: &HealthHashes,
) -> Result<BTreeSet<Tombstone>, ReadError> {
    let whole = batch.records().into_iter().map(|(source_id, record_id)| Tombstone {
        source_id: source_id.into(),
        record_id: record_id.into(),
        start_ms: None,
    });
    let samples = batch.samples.iter().map(|item| Tombstone::of(&item.key));
    let deletions = batch.deletions.iter().map(|item| Tombstone {
        source_id: item.source_id.clone(),
        record_id: item.record_id.clone(),
        start_ms: item.start_ms,
    });
    let tombstones = hashes.tombstones();
    let mut candidates: BTreeMap<Vec<u8>, Tombstone> = whole
        .chain(samples)
        .chain(deletions)
        .map(|one| (tombstones.hash(&one.source_id, &one.record_id, one.start_ms).to_vec(), one))
        .collect();
    let hmacs: Vec<Vec<u8>> = candidates.keys().cloned().collect();
    let user = lane.user();
    let known = segments::tombstones(lane.connection()?, user, &hmacs).await?;
    candidates.retain(|hmac, _| known.contains(hmac));
    Ok(candidates.into_values().collect())
}

/// What the database keeps of tombstones.
pub(crate) fn hashed<'a>(
    hashes: &HealthHashes,
    tombstones: impl IntoIterator<Item = &'a Tombstone>,
) -> Vec<Vec<u8>> {
    let hasher = hashes.tombstones();
    let hash = |one: &Tombstone| hasher.hash(&one.source_id, &one.record_id, one.start_ms).to_vec();
    tombstones.into_iter().map(hash).collect()
}
