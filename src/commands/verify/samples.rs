//! A person's segments, tombstones and watermark against the fold of their health batches.

use std::collections::{BTreeMap, BTreeSet};

use aggregates::health_batch::{self, HealthBatchEvent, Samples};
use aggregates::segment::{Key, LoadedSegment, Sample, pack_folds};
use aggregates::{AnyEvent, Content, UserId};

use super::each_event;
use crate::commands::health::facts;
use crate::keys::{HealthHashes, KeyError, SubjectKey};
use crate::store::lane::UserLane;
use crate::store::segments::{self, Segments, Span};
use crate::store::{ReadError, Store};

/// Segments opened at once.
const PAGE: i64 = 64;

/// What differs; empty where everything is as the log says. Uploads of the person wait meanwhile.
///
/// # Errors
/// [`ReadError`] where the log or a segment cannot be read at all.
pub async fn verify_segments(store: &Store, user: UserId) -> Result<Vec<String>, ReadError> {
    let mut lane = store.lane(user).await?;
    let findings = findings(store, &mut lane).await;
    lane.release().await;
    findings
}

async fn findings(store: &Store, lane: &mut UserLane) -> Result<Vec<String>, ReadError> {
    let user = lane.user();
    let upto = store.head().await?.position;
    let (folded, batches, shredded) = fold(store, user, upto).await?;
    let spans = segments::spans(lane.connection()?, user).await?;
    let tombstones = segments::all_tombstones(lane.connection()?, user).await?;
    let key = match store.health_key(user).await {
        Ok(key) => key,
        Err(ReadError::Key(KeyError::Shredded { .. } | KeyError::Missing { .. }))
            if folded.rows.is_empty() =>
        {
            return Ok(leftovers(&spans, &tombstones));
        }
        Err(error) => return Err(error),
    };
    let mut findings = Vec::new();
    if shredded > 0 {
        findings.push(format!("{shredded} health batches do not open though their key is active"));
    }
    let head = store.user_head(user).await?;
    for (name, stored, folded) in [
        ("health_seq", head.health_seq, folded.health_seq),
        ("received_seq", head.received_seq, batches),
    ] {
        if stored != folded {
            findings.push(format!("{name} is {stored}, the log says {folded}"));
        }
    }
    compare_tombstones(&folded, &tombstones, key.health_hashes()?, &mut findings);
    compare_rows(lane, &key, &spans, folded.rows, &mut findings).await?;
    Ok(findings)
}

/// The samples as the log says, how many batches there were, and how many of them do not open.
async fn fold(store: &Store, user: UserId, upto: i64) -> Result<(Samples, i64, usize), ReadError> {
    let (mut samples, mut batches, mut shredded) = (Samples::default(), 0, 0);
    each_event(store, user, &[health_batch::TYPE], upto, |recorded| match recorded.content {
        Content::Open { event, .. } => {
            if let AnyEvent::HealthBatch(HealthBatchEvent::Applied(applied)) = *event {
                samples.apply(&applied);
                batches += 1;
            }
        }
        Content::Shredded => shredded += 1,
    })
    .await?;
    Ok((samples, batches, shredded))
}

/// Whatever outlives the key it was sealed with.
fn leftovers(spans: &[Span], tombstones: &BTreeSet<Vec<u8>>) -> Vec<String> {
    [("segments", spans.len()), ("tombstones", tombstones.len())]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what} are left without a key"))
        .collect()
}

fn compare_tombstones(
    folded: &Samples,
    stored: &BTreeSet<Vec<u8>>,
    hashes: &HealthHashes,
    findings: &mut Vec<String>,
) {
    let expected: BTreeSet<Vec<u8>> =
        facts::hashed(hashes, &folded.tombstones).into_iter().collect();
    let (missing, extra) =
        (expected.difference(stored).count(), stored.difference(&expected).count());
    if missing > 0 {
        findings.push(format!("{missing} tombstones are missing"));
    }
    if extra > 0 {
        findings.push(format!("{extra} tombstones are not in the log"));
    }
}

async fn compare_rows(
    lane: &mut UserLane,
    key: &SubjectKey,
    spans: &[Span],
    mut expected: BTreeMap<Key, Sample>,
    findings: &mut Vec<String>,
) -> Result<(), ReadError> {
    let hashes = key.health_hashes()?;
    let segments = Segments::new(lane.user(), key);
    let mut after = i64::MIN;
    let mut spans = spans.iter().peekable();
    loop {
        let page = segments.page(lane.connection()?, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.lo_ms;
        for segment in page {
            let span = spans.next();
            let until = spans.peek().map_or(i64::MAX, |next| next.lo_ms);
            compare_span(&segment, span, until, hashes, findings);
            for sample in segment.samples {
                compare_row(&sample, expected.remove(&sample.key).as_ref(), hashes, findings);
            }
        }
    }
    let missing = expected.keys().map(|key| format!("sample {} is missing", id(hashes, key)));
    findings.extend(missing);
    Ok(())
}

/// What is in the clear beside a segment must fit what is in it: look-ups go by it.
fn compare_span(
    segment: &LoadedSegment,
    span: Option<&Span>,
    until: i64,
    hashes: &HealthHashes,
    findings: &mut Vec<String>,
) {
    let name = segment.segment_id;
    let Some(span) = span.filter(|span| span.lo_ms == segment.lo_ms) else {
        findings.push(format!("segment {name} moved while it was checked"));
        return;
    };
    let last = segment.samples.last().map_or(segment.lo_ms, |sample| sample.key.start_ms);
    if span.hi_ms != last || last >= until {
        findings.push(format!("segment {name} ends elsewhere than its span says"));
    }
    if usize::try_from(span.n) != Ok(segment.samples.len()) {
        findings.push(format!("segment {name} holds another number of samples than it says"));
    }
    if span.folds != pack_folds(&segment.samples, &|id| hashes.fold(id)) {
        findings.push(format!("segment {name} has folds of other records"));
    }
}

fn compare_row(
    stored: &Sample,
    expected: Option<&Sample>,
    hashes: &HealthHashes,
    findings: &mut Vec<String>,
) {
    let id = id(hashes, &stored.key);
    match expected {
        None => findings.push(format!("sample {id} is stored twice or is not in the log")),
        Some(expected) if expected != stored => {
            findings.push(format!("sample {id} differs from what the log says"));
        }
        Some(_) => {}
    }
}

fn id(hashes: &HealthHashes, key: &Key) -> uuid::Uuid {
    hashes.sample_ids().of(&key.source_id, &key.record_id, key.start_ms)
}
