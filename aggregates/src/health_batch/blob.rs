//! The packed part of a batch's event: outcomes, then the sections of rows.

use std::sync::Arc;

use super::event::{Applied, Correction, Facts, Tombstone};
use super::outcome::{DeletionOutcome, SampleOutcome};
use super::wire::MAX_ITEMS;
use crate::segment::{self, Malformed, Reader, Sample, put_signed, put_unsigned};

/// Number of this layout; the first byte.
const FORMAT: u8 = 1;

/// Packs everything but the facts.
pub(super) fn pack(data: &Applied) -> Vec<u8> {
    let mut out = vec![FORMAT];
    put_numbers(&mut out, data.samples.iter().map(|outcome| *outcome as u8));
    put_numbers(&mut out, data.deletions.iter().map(|outcome| *outcome as u8));
    let before: Vec<Sample> = data.corrected.iter().map(|c| c.before.clone()).collect();
    let after: Vec<Sample> = data.corrected.iter().map(|c| c.after.clone()).collect();
    for section in [&data.recorded, &before, &after, &data.deleted] {
        put_samples(&mut out, section);
    }
    put_tombstones(&mut out, &data.tombstoned);
    out
}

/// The event back from its two parts.
pub(super) fn unpack(facts: Facts, bytes: &[u8]) -> Result<Applied, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.byte()? != FORMAT {
        return Err(Malformed("unknown format"));
    }
    let samples = take_numbers(&mut reader, SampleOutcome::from_number)?;
    let deletions = take_numbers(&mut reader, DeletionOutcome::from_number)?;
    let recorded = take_samples(&mut reader)?;
    let before = take_samples(&mut reader)?;
    let after = take_samples(&mut reader)?;
    let deleted = take_samples(&mut reader)?;
    let tombstoned = take_tombstones(&mut reader)?;
    reader.finish()?;
    if before.len() != after.len() || before.iter().zip(&after).any(|(b, a)| b.key != a.key) {
        return Err(Malformed("corrections do not pair"));
    }
    let corrected =
        before.into_iter().zip(after).map(|(before, after)| Correction { before, after }).collect();
    Ok(Applied { facts, samples, deletions, recorded, corrected, deleted, tombstoned })
}

fn put_numbers(out: &mut Vec<u8>, numbers: impl ExactSizeIterator<Item = u8>) {
    put_unsigned(out, numbers.len() as u64);
    segment::put_runs(out, numbers.map(u64::from));
}

fn take_numbers<T>(
    reader: &mut Reader<'_>,
    known: impl Fn(u8) -> Option<T>,
) -> Result<Vec<T>, Malformed> {
    let n = usize::try_from(reader.unsigned()?).ok().filter(|n| *n <= MAX_ITEMS);
    let numbers = reader.runs(n.ok_or(Malformed("number of outcomes"))?)?;
    let outcome = |number| u8::try_from(number).ok().and_then(&known);
    numbers.into_iter().map(|number| outcome(number).ok_or(Malformed("outcome"))).collect()
}

/// Two parts with their lengths; two zeros for no samples.
fn put_samples(out: &mut Vec<u8>, samples: &[Sample]) {
    if samples.is_empty() {
        out.extend([0, 0]);
        return;
    }
    let packed = segment::pack(samples);
    for part in [packed.cols, packed.ids] {
        put_unsigned(out, part.len() as u64);
        out.extend(part);
    }
}

fn take_samples(reader: &mut Reader<'_>) -> Result<Vec<Sample>, Malformed> {
    let (cols, ids) = (reader.part()?, reader.part()?);
    if cols.is_empty() && ids.is_empty() {
        return Ok(Vec::new());
    }
    segment::unpack(cols, ids)
}

fn put_tombstones(out: &mut Vec<u8>, tombstones: &[Tombstone]) {
    put_unsigned(out, tombstones.len() as u64);
    segment::put_dictionary(out, tombstones.iter().map(|t| Some(t.source_id.clone())));
    segment::put_runs(out, tombstones.iter().map(|t| u64::from(t.start_ms.is_some())));
    let mut last = 0i64;
    for start in tombstones.iter().filter_map(|t| t.start_ms) {
        put_signed(out, start.wrapping_sub(last));
        last = start;
    }
    let ids = segment::pack_ids(tombstones.iter().map(|t| &*t.record_id));
    put_unsigned(out, ids.len() as u64);
    out.extend(ids);
}

fn take_tombstones(reader: &mut Reader<'_>) -> Result<Vec<Tombstone>, Malformed> {
    let n = usize::try_from(reader.unsigned()?).ok().filter(|n| *n <= MAX_ITEMS);
    let n = n.ok_or(Malformed("number of tombstones"))?;
    let sources = segment::take_dictionary(reader, n)?;
    let mut last = 0i64;
    let starts = reader
        .runs(n)?
        .into_iter()
        .map(|present| match present {
            0 => Ok(None),
            1 => {
                last = last.wrapping_add(reader.signed()?);
                Ok(Some(last))
            }
            _ => Err(Malformed("presence")),
        })
        .collect::<Result<Vec<Option<i64>>, Malformed>>()?;
    let ids: Vec<Arc<str>> = segment::unpack_ids(reader.part()?, n)?;
    sources
        .into_iter()
        .zip(ids)
        .zip(starts)
        .map(|((source_id, record_id), start_ms)| {
            let source_id = source_id.ok_or(Malformed("source"))?;
            Ok(Tombstone { source_id, record_id, start_ms })
        })
        .collect()
}
