//! The packed form of samples: one column after the other, integers as zigzag LEB128.
//!
//! A column of facts that rarely change holds runs; times are differences, of many samples in blocks
//! of bits; a value is an integer
//! at the smallest decimal scale of its metric here, as the difference to the metric's previous
//! one. Texts that repeat are numbered. Equal samples in equal order give equal bytes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::bytes::{
    Malformed, Reader, put_runs, put_signed, put_text, put_unsigned, unzigzag, zigzag,
};
use super::sample::{Key, Metadata, OffsetSource, Revision, Sample};
use super::{ids, starts};
use crate::metric::{Metric, Micro};

/// Numbers of the layouts; the first byte of [`Packed::cols`]. They differ in the column of start
/// times alone: differences one by one, or in blocks of bits, which pay from some samples on.
const ONE_BY_ONE: u8 = 1;
const IN_BLOCKS: u8 = 2;
/// The newest layout: what a reader of a row written now must know.
pub const FORMAT: u8 = IN_BLOCKS;
/// How many samples are packed in blocks. A block may take next to no bytes, so that the bytes do
/// not bound the number of samples; this does.
const BLOCKS_FOR: RangeInclusive<usize> = 64..=65_536;

/// Samples as bytes, before compression and sealing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Everything but the record ids. A correction or a deletion rewrites these alone.
    pub cols: Vec<u8>,
    /// The record ids.
    pub ids: Vec<u8>,
}

/// Four bytes a sample: the keyed fold of its record id, little-endian, in sample order. They say
/// which segments a deletion without a start must open.
pub fn pack_folds(samples: &[Sample], fold: &dyn Fn(&str) -> u32) -> Vec<u8> {
    samples.iter().flat_map(|sample| fold(&sample.key.record_id).to_le_bytes()).collect()
}

/// Packs samples in their order.
pub fn pack(samples: &[Sample]) -> Packed {
    pack_as(if BLOCKS_FOR.contains(&samples.len()) { IN_BLOCKS } else { ONE_BY_ONE }, samples)
}

fn pack_as(format: u8, samples: &[Sample]) -> Packed {
    let mut out = vec![format];
    put_unsigned(&mut out, samples.len() as u64);
    put_runs(&mut out, samples.iter().map(|s| u64::from(s.metric.ordinal())));
    let in_order: Vec<i64> = samples.iter().map(|s| s.key.start_ms).collect();
    if format == IN_BLOCKS {
        starts::put(&mut out, &in_order);
    } else {
        let mut last = 0i64;
        for start in in_order {
            put_signed(&mut out, start.wrapping_sub(last));
            last = start;
        }
    }
    let lengths = samples.iter().map(|s| zigzag(s.end_ms.wrapping_sub(s.key.start_ms)));
    put_runs(&mut out, lengths);
    put_values(&mut out, samples);
    put_runs(&mut out, samples.iter().map(duration_code));
    put_runs(&mut out, samples.iter().map(offset_code));
    put_dictionary(&mut out, samples.iter().map(|s| Some(s.key.source_id.clone())));
    put_dictionary(&mut out, samples.iter().map(|s| s.device_id.clone()));
    put_external(&mut out, samples);
    let metadata = Interned::of(samples.iter().map(|s| s.metadata.clone()), |entry| {
        serde_json::to_string(&**entry).unwrap_or_default()
    });
    metadata.put(&mut out);
    put_runs(&mut out, samples.iter().map(|s| zigzag(s.batch_seq)));
    put_runs(&mut out, samples.iter().map(|s| zigzag(s.created_ms)));
    put_optional(&mut out, samples, |s| s.deleted_ms, |s| s.created_ms);
    put_optional(&mut out, samples, |s| s.revision.record_version, |_| 0);
    put_optional(&mut out, samples, |s| s.revision.modified_ms, |s| s.end_ms);
    Packed { cols: out, ids: ids::pack(samples.iter().map(|s| &*s.key.record_id)) }
}

/// The samples back.
///
/// # Errors
/// [`Malformed`] for anything [`pack`] would not have written as far as it can be told; no input
/// makes it panic or claim memory out of proportion.
pub fn unpack(cols: &[u8], ids: &[u8]) -> Result<Vec<Sample>, Malformed> {
    let mut reader = Reader::new(cols);
    let format = reader.byte()?;
    let n = match format {
        // Every sample's start takes at least a byte.
        ONE_BY_ONE => reader.count()?,
        IN_BLOCKS => usize::try_from(reader.unsigned()?)
            .ok()
            .filter(|n| BLOCKS_FOR.contains(n))
            .ok_or(Malformed("number of samples"))?,
        _ => return Err(Malformed("unknown format")),
    };
    let metrics = reader
        .runs(n)?
        .into_iter()
        .map(|number| u8::try_from(number).ok().and_then(Metric::from_ordinal))
        .collect::<Option<Vec<Metric>>>()
        .ok_or(Malformed("metric"))?;
    let starts = match format {
        IN_BLOCKS => starts::take(&mut reader, n)?,
        _ => take_starts(&mut reader, n)?,
    };
    let lengths = reader.runs(n)?;
    let values = take_values(&mut reader, &metrics)?;
    let durations = reader.runs(n)?;
    let offsets = reader.runs(n)?;
    let sources = take_dictionary(&mut reader, n)?;
    let devices = take_dictionary(&mut reader, n)?;
    let record_ids = ids::unpack(ids, n)?;
    let external = take_external(&mut reader, &record_ids)?;
    let metadata = take_metadata(&mut reader, n)?;
    let batches = reader.runs(n)?;
    let created = reader.runs(n)?;
    let deleted = reader.optional(n)?;
    let versions = reader.optional(n)?;
    let modified = reader.optional(n)?;
    reader.finish()?;

    let mut samples = Vec::with_capacity(n);
    for (at, (((record_id, external_uuid), metadata), (value, category))) in
        record_ids.into_iter().zip(external).zip(metadata).zip(values).enumerate()
    {
        let start_ms = starts[at];
        let end_ms = start_ms.wrapping_add(unzigzag(lengths[at]));
        let created_ms = unzigzag(created[at]);
        let (offset_min, offset_source) = offset(offsets[at])?;
        let source_id = sources[at].clone().ok_or(Malformed("source"))?;
        samples.push(Sample {
            key: Key { start_ms, source_id, record_id },
            metric: metrics[at],
            end_ms,
            value,
            category,
            duration_s: duration(durations[at], start_ms, end_ms)?,
            offset_min,
            offset_source,
            device_id: devices[at].clone(),
            external_uuid,
            metadata,
            revision: Revision {
                record_version: versions[at],
                modified_ms: modified[at].map(|shift| end_ms.wrapping_add(shift)),
            },
            batch_seq: unzigzag(batches[at]),
            created_ms,
            deleted_ms: deleted[at].map(|shift| created_ms.wrapping_add(shift)),
        });
    }
    Ok(samples)
}

fn take_starts(reader: &mut Reader<'_>, n: usize) -> Result<Vec<i64>, Malformed> {
    let mut last = 0i64;
    let next = |_| {
        last = last.wrapping_add(reader.signed()?);
        Ok(last)
    };
    (0..n).map(next).collect()
}

/// 0 none, 1 whole seconds of the interval, otherwise the difference to those.
fn duration_code(sample: &Sample) -> u64 {
    let Some(seconds) = sample.duration_s else { return 0 };
    let expected = interval_seconds(sample.key.start_ms, sample.end_ms);
    1 + zigzag(i64::from(seconds).wrapping_sub(expected))
}

fn duration(code: u64, start_ms: i64, end_ms: i64) -> Result<Option<u32>, Malformed> {
    let Some(shift) = code.checked_sub(1) else { return Ok(None) };
    let seconds = interval_seconds(start_ms, end_ms).wrapping_add(unzigzag(shift));
    u32::try_from(seconds).map(Some).map_err(|_| Malformed("duration"))
}

fn interval_seconds(start_ms: i64, end_ms: i64) -> i64 {
    end_ms.wrapping_sub(start_ms).wrapping_add(500).div_euclid(1000)
}

/// 0 none; else the minutes from −720 and the source in the lowest bits.
fn offset_code(sample: &Sample) -> u64 {
    let source = match sample.offset_source {
        OffsetSource::None => 0,
        OffsetSource::Request => 1,
        OffsetSource::Sample => 2,
    };
    let minutes = sample.offset_min.map_or(0, |minutes| 1 + zigzag(i64::from(minutes)));
    minutes * 3 + source
}

fn offset(code: u64) -> Result<(Option<i16>, OffsetSource), Malformed> {
    let source = match code % 3 {
        0 => OffsetSource::None,
        1 => OffsetSource::Request,
        _ => OffsetSource::Sample,
    };
    let Some(minutes) = (code / 3).checked_sub(1) else { return Ok((None, source)) };
    let minutes = i16::try_from(unzigzag(minutes)).map_err(|_| Malformed("offset"))?;
    Ok((Some(minutes), source))
}

/// What each sample has (1 value, 2 category), the scale of every metric's values, then values
/// and categories as one stream.
fn put_values(out: &mut Vec<u8>, samples: &[Sample]) {
    let presence =
        |s: &Sample| u64::from(s.value.is_some()) | (u64::from(s.category.is_some()) << 1);
    put_runs(out, samples.iter().map(presence));
    let mut zeros: BTreeMap<Metric, u32> = BTreeMap::new();
    for sample in samples {
        if let Some(Micro(value)) = sample.value {
            let least = zeros.entry(sample.metric).or_insert(6);
            *least = trailing_zeros(value).min(*least);
        }
    }
    put_unsigned(out, zeros.len() as u64);
    for (metric, power) in &zeros {
        out.push(metric.ordinal());
        put_unsigned(out, u64::from(*power));
    }
    let mut previous: BTreeMap<Metric, i64> = BTreeMap::new();
    for sample in samples {
        if let Some(Micro(value)) = sample.value {
            let power = zeros.get(&sample.metric).copied().unwrap_or(0);
            let scaled = value / 10i64.pow(power);
            let before = previous.insert(sample.metric, scaled).unwrap_or(0);
            put_signed(out, scaled.wrapping_sub(before));
        }
        if let Some(category) = sample.category {
            out.push(category);
        }
    }
}

/// Decimal zeros at the end, at most six.
fn trailing_zeros(value: i64) -> u32 {
    (1..=6u32).take_while(|power| value % 10i64.pow(*power) == 0).count() as u32
}

type Reading = (Option<Micro>, Option<u8>);

fn take_values(reader: &mut Reader<'_>, metrics: &[Metric]) -> Result<Vec<Reading>, Malformed> {
    let presence = reader.runs(metrics.len())?;
    let mut scales: HashMap<Metric, i64> = HashMap::new();
    for _ in 0..reader.count()? {
        let metric = Metric::from_ordinal(reader.byte()?).ok_or(Malformed("metric"))?;
        let power = reader.unsigned()?;
        if power > 6 {
            return Err(Malformed("scale"));
        }
        scales.insert(metric, 10i64.pow(power as u32));
    }
    let mut previous: HashMap<Metric, i64> = HashMap::new();
    let mut readings = Vec::with_capacity(metrics.len());
    for (metric, presence) in metrics.iter().zip(presence) {
        if presence > 3 {
            return Err(Malformed("presence"));
        }
        let mut reading = (None, None);
        if presence & 1 != 0 {
            let scale = scales.get(metric).ok_or(Malformed("scale"))?;
            let last = previous.entry(*metric).or_insert(0);
            *last = last.wrapping_add(reader.signed()?);
            reading.0 = Some(Micro(last.checked_mul(*scale).ok_or(Malformed("value"))?));
        }
        if presence & 2 != 0 {
            let category = reader.byte()?;
            metric.category_code(category).ok_or(Malformed("category"))?;
            reading.1 = Some(category);
        }
        readings.push(reading);
    }
    Ok(readings)
}

/// Distinct entries in order of appearance, and each sample's number (0 none).
struct Interned {
    texts: Vec<String>,
    numbers: Vec<u64>,
}

impl Interned {
    fn of<T: Eq + Hash>(
        entries: impl Iterator<Item = Option<T>>,
        text: impl Fn(&T) -> String,
    ) -> Self {
        let mut known: HashMap<T, u64> = HashMap::new();
        let (mut texts, mut numbers) = (Vec::new(), Vec::new());
        for entry in entries {
            numbers.push(entry.map_or(0, |entry| {
                let next = known.len() as u64 + 1;
                if let Some(number) = known.get(&entry) {
                    return *number;
                }
                texts.push(text(&entry));
                known.insert(entry, next);
                next
            }));
        }
        Self { texts, numbers }
    }

    fn put(self, out: &mut Vec<u8>) {
        put_unsigned(out, self.texts.len() as u64);
        for text in &self.texts {
            put_text(out, text);
        }
        put_runs(out, self.numbers);
    }
}

pub(crate) fn put_dictionary(out: &mut Vec<u8>, column: impl Iterator<Item = Option<Arc<str>>>) {
    Interned::of(column, |text| text.to_string()).put(out);
}

/// The column of a dictionary, its entries made by `entry`.
fn take_interned<T: Clone>(
    reader: &mut Reader<'_>,
    n: usize,
    entry: impl Fn(&str) -> Result<T, Malformed>,
) -> Result<Vec<Option<T>>, Malformed> {
    let entries = (0..reader.count()?)
        .map(|_| reader.text().and_then(&entry))
        .collect::<Result<Vec<T>, Malformed>>()?;
    let column = reader.runs(n)?.into_iter().map(|number| match number {
        0 => Ok(None),
        number => usize::try_from(number - 1)
            .ok()
            .and_then(|place| entries.get(place).cloned())
            .map(Some)
            .ok_or(Malformed("dictionary reference")),
    });
    column.collect()
}

pub(crate) fn take_dictionary(
    reader: &mut Reader<'_>,
    n: usize,
) -> Result<Vec<Option<Arc<str>>>, Malformed> {
    take_interned(reader, n, |text| Ok(Arc::from(text)))
}

fn take_metadata(
    reader: &mut Reader<'_>,
    n: usize,
) -> Result<Vec<Option<Arc<Metadata>>>, Malformed> {
    take_interned(reader, n, |text| {
        serde_json::from_str(text).map(Arc::new).map_err(|_| Malformed("metadata"))
    })
}

/// External ids usually repeat the record id, in one case or the other: 0 none, 1 the same,
/// 2 the same in upper case, 3 other text.
fn put_external(out: &mut Vec<u8>, samples: &[Sample]) {
    let mut texts = Vec::new();
    let codes: Vec<u64> = samples
        .iter()
        .map(|sample| match &sample.external_uuid {
            None => 0,
            Some(external) if *external == sample.key.record_id => 1,
            Some(external) if **external == *sample.key.record_id.to_uppercase() => 2,
            Some(external) => {
                put_text(&mut texts, external);
                3
            }
        })
        .collect();
    put_runs(out, codes);
    out.extend(texts);
}

fn take_external(
    reader: &mut Reader<'_>,
    record_ids: &[Arc<str>],
) -> Result<Vec<Option<Arc<str>>>, Malformed> {
    let codes = reader.runs(record_ids.len())?;
    let column = codes.into_iter().zip(record_ids).map(|(code, record_id)| match code {
        0 => Ok(None),
        1 => Ok(Some(record_id.clone())),
        2 => Ok(Some(Arc::from(record_id.to_uppercase()))),
        3 => reader.text().map(|text| Some(Arc::from(text))),
        _ => Err(Malformed("external id")),
    });
    column.collect()
}

/// A mostly empty column: 0 none, otherwise the difference to a neighbouring column.
fn put_optional(
    out: &mut Vec<u8>,
    samples: &[Sample],
    value: impl Fn(&Sample) -> Option<i64>,
    base: impl Fn(&Sample) -> i64,
) {
    put_runs(out, samples.iter().map(|s| u64::from(value(s).is_some())));
    for sample in samples {
        if let Some(value) = value(sample) {
            put_signed(out, value.wrapping_sub(base(sample)));
        }
    }
}

impl Reader<'_> {
    fn optional(&mut self, n: usize) -> Result<Vec<Option<i64>>, Malformed> {
        let column = self.runs(n)?.into_iter().map(|present| match present {
            0 => Ok(None),
            1 => self.signed().map(Some),
            _ => Err(Malformed("presence")),
        });
        column.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::segment::tests::{heart_rate, sample};

    /// What was packed before samples were packed in blocks stays readable.
    #[test]
    fn both_layouts_hold_the_same_samples() {
        let samples: Vec<Sample> = (0..500i64)
            .map(|n| heart_rate(1_700_000_000_000 + n * 60_000 + n * n % 97 * 100, n as u128 + 1))
            .collect();
        let (old, new) = (pack_as(ONE_BY_ONE, &samples), pack(&samples));
        assert_eq!((old.cols[0], new.cols[0]), (1, 2));
        assert_eq!(old.ids, new.ids);
        assert_eq!(unpack(&old.cols, &old.ids), Ok(samples.clone()));
        assert_eq!(unpack(&new.cols, &new.ids), Ok(samples));
        // From three bytes a start to less than one and a half.
        assert!(new.cols.len() + 750 < old.cols.len(), "{} {}", new.cols.len(), old.cols.len());
    }

    /// A change here needs a new layout with a number of its own and a reader for this one.
    #[test]
    fn the_layout_in_blocks_is_the_one_on_disk() {
        let samples: Vec<Sample> =
            (0..64i64).map(|n| heart_rate(1000 + n * (60 + n % 2) * 1000, 1)).collect();
        let packed = pack(&samples);
        assert_eq!(
            hex::encode(&packed.cols),
            concat!(
                "02400140d00fe8073a06a02772a46662a8a552ace442b02333b46223b8a113bce00301075e0e5823c690",
                "2d660a5aa286b01d6e065c2147d00d76025ea007f001004001400101067a000000000000000000000000",
                "000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
                "0000000000000000000140ec0240010f6170706c655f6865616c74686b69740140000040004000004002",
                "4080a0abfef96240004000400040",
            )
        );
        assert_eq!(unpack(&packed.cols, &packed.ids), Ok(samples));
    }

    #[test]
    fn a_number_of_samples_beyond_the_layout_s_is_refused() {
        for n in [0u64, 63, 65_537, u64::MAX] {
            let mut cols = vec![IN_BLOCKS];
            put_unsigned(&mut cols, n);
            cols.resize(4000, 0);
            assert!(unpack(&cols, &[]).is_err(), "{n}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn unpack_gives_back_what_was_packed_in_blocks(
            samples in prop::collection::vec(sample(), 64..90),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut packed = pack(&samples);
            prop_assert_eq!(packed.cols[0], IN_BLOCKS);
            match damage {
                None => prop_assert_eq!(unpack(&packed.cols, &packed.ids), Ok(samples)),
                Some((at, to)) => {
                    let place = at.index(packed.cols.len());
                    packed.cols[place] = to;
                    let _ = unpack(&packed.cols, &packed.ids);
                }
            }
        }
    }
}
