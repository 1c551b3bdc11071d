use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::metric::{Metric, Micro};

/// A plain heart-rate sample with a pseudo-random UUID.
pub(crate) fn heart_rate(start_ms: i64, seed: u128) -> Sample {
    let id = Uuid::from_u128(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    Sample {
        key: Key {
            start_ms,
            source_id: "apple_healthkit".into(),
            record_id: id.to_string().into(),
        },
        metric: Metric::HEART_RATE,
        end_ms: start_ms,
        value: Some(Micro::whole(60 + (seed % 40) as i64)),
        category: None,
        duration_s: Some(0),
        offset_min: Some(60),
        offset_source: OffsetSource::Request,
        device_id: None,
        external_uuid: None,
        metadata: None,
        revision: Revision::default(),
        batch_seq: 1,
        created_ms: 1_700_000_000_000,
        deleted_ms: None,
    }
}

fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![
        any::<u128>().prop_map(|n| Uuid::from_u128(n).to_string()),
        (0u128..3).prop_map(|n| format!("{}|sleep_deep", Uuid::from_u128(n))),
        (0u128..3).prop_map(|n| Uuid::from_u128(n).to_string()),
        (0u128..3).prop_map(|n| Uuid::from_u128(n).simple().to_string()),
        "[a-z|é]{1,9}",
    ]
    .prop_map(Arc::from)
}

prop_compose! {
    pub(crate) fn sample()(
        (start_ms, end_ms) in (any::<i64>(), prop_oneof![any::<i64>(), 0i64..9]),
        near in any::<bool>(),
        (source_id, record_id) in ("[ab]", text()),
        metric in prop::sample::select(Metric::all().collect::<Vec<_>>()),
        value in prop::option::of(any::<i32>().prop_map(|n| Micro(i64::from(n) * 1000))),
        category in any::<Option<u8>>(),
        duration_s in any::<Option<u32>>(),
        (offset_min, source) in (prop::option::of(-720i16..=840), 0usize..3),
        device_id in prop::option::of("[xy]"),
        external in 0..4,
        metadata in prop::option::of("[a-c]"),
        (record_version, modified_ms) in (any::<Option<i64>>(), any::<Option<i64>>()),
        (batch_seq, created_ms, deleted_ms) in (any::<i64>(), any::<i64>(), any::<Option<i64>>()),
    ) -> Sample {
        let external_uuid: Option<Arc<str>> = match external {
            0 => None,
            1 => Some(record_id.clone()),
            2 => Some(record_id.to_uppercase().into()),
            _ => Some("Other".into()),
        };
        Sample {
            key: Key { start_ms, source_id: source_id.into(), record_id },
            metric,
            end_ms: if near { start_ms.wrapping_add(end_ms & 0xff) } else { end_ms },
            value,
            category: category.filter(|n| metric.category_code(*n).is_some()),
            duration_s,
            offset_min,
            offset_source: [OffsetSource::None, OffsetSource::Request, OffsetSource::Sample][source],
            device_id: device_id.map(Arc::from),
            external_uuid,
            metadata: metadata.map(|text| {
                Arc::new(BTreeMap::from([("sourceAppId".to_owned(), text.into())]))
            }),
            revision: Revision { record_version, modified_ms },
            batch_seq,
            created_ms,
            deleted_ms,
        }
    }
}

#[test]
fn a_sample_with_a_random_id_takes_at_most_thirty_bytes() {
    let samples: Vec<Sample> = (0..512i64)
        .map(|n| heart_rate(1_700_000_000_000 + n * 60_000 + (n * n) % 997, n as u128 + 1))
        .collect();
    let packed = pack(&samples);
    let bytes = (packed.cols.len() + packed.ids.len()) as f64 / samples.len() as f64;
    println!("packed: {bytes:.1} B/sample, 16 of them the id, before compression and folds");
    assert!(bytes < 24.0);
    assert_eq!(pack_folds(&samples, &|_| 7).len(), 4 * samples.len());
}

#[test]
fn a_series_under_one_id_stores_the_id_once() {
    let mut samples: Vec<Sample> = (0..100).map(|n| heart_rate(n, 5)).collect();
    samples[50].key.record_id = format!("{}|sleep_rem", samples[0].key.record_id).into();
    let packed = pack(&samples);
    assert!(packed.ids.len() < 32, "{}", packed.ids.len());
    assert_eq!(unpack(&packed.cols, &packed.ids), Ok(samples));
}

#[test]
fn the_layout_is_the_one_on_disk() {
    let mut samples = run(1, 2);
    samples[1].metric = Metric::parse("weight").unwrap();
    samples[1].value = Some(Micro(72_150_000));
    samples[1].deleted_ms = Some(1_700_000_000_009);
    samples[1].external_uuid = Some("X".into());
    samples[1].device_id = Some("d".into());
    samples[1].revision = Revision { record_version: Some(3), modified_ms: Some(2001) };
    samples[1].metadata = Some(Arc::new(BTreeMap::from([("osName".to_owned(), "iOS".into())])));
    samples[1].key.record_id = format!("{}|steps", samples[0].key.record_id).into();
    let packed = pack(&samples);
    // A change here needs a new format number and a reader for the old one.
    assert_eq!(
        hex::encode(&packed.cols),
        concat!(
            "010201010e01d00fd00f000201020201060e047cde700102ec0202010f6170706c655f6865616c74",
            "686b697401020101640001010100010301015801107b226f734e616d65223a22694f53227d000101",
            "01020280a0abfef96202000101011200010101060001010102",
        )
    );
    assert_eq!(hex::encode(&packed.ids), "0200010901000101013c6ef372fe94f82be73980c0b9db906a");
}

#[test]
fn a_segment_out_of_order_is_refused() {
    let mut samples = run(1, 3);
    let open = |samples: &[Sample], lo_ms| {
        let packed = pack(samples);
        LoadedSegment::unpack(Uuid::nil(), 1, lo_ms, &packed.cols, &packed.ids)
    };
    assert!(open(&samples, 1000).is_ok());
    assert!(open(&samples, 1001).is_err());
    samples[2] = samples[1].clone();
    assert!(open(&samples, 0).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn unpack_gives_back_what_was_packed(samples in prop::collection::vec(sample(), 0..40)) {
        let packed = pack(&samples);
        prop_assert_eq!(unpack(&packed.cols, &packed.ids), Ok(samples));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        cols in prop::collection::vec(any::<u8>(), 0..200),
        ids in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let _ = unpack(&cols, &ids);
        for format in [1, 2] {
            let mut tagged = vec![format];
            tagged.extend(&cols);
            let _ = unpack(&tagged, &ids);
        }
    }

    #[test]
    fn damaged_bytes_never_panic(
        samples in prop::collection::vec(sample(), 1..12),
        (at, to, cut) in (any::<prop::sample::Index>(), any::<u8>(), any::<bool>()),
    ) {
        let mut packed = pack(&samples);
        let place = at.index(packed.cols.len());
        packed.cols[place] = to;
        let place = at.index(packed.ids.len());
        packed.ids[place] = to;
        if cut {
            packed.cols.truncate(at.index(packed.cols.len()));
        }
        let _ = unpack(&packed.cols, &packed.ids);
    }
}

/// A person's segments in memory: applies writes exactly as a database would.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) segments: Vec<LoadedSegment>,
    next_id: u128,
}

impl Store {
    pub(crate) fn apply(&mut self, writes: Vec<SegmentWrite>) {
        for write in writes {
            match write.segment {
                None => {
                    self.next_id += 1;
                    self.segments.push(LoadedSegment {
                        segment_id: Uuid::from_u128(self.next_id),
                        version: 1,
                        lo_ms: write.lo_ms,
                        samples: write.samples,
                        closed_ms: None,
                    });
                }
                Some((id, version)) => {
                    let old = self.segments.iter_mut().find(|s| s.segment_id == id).unwrap();
                    assert_eq!((old.version, Some(old.lo_ms)), (version, write.old_lo_ms));
                    let ids = |samples: &[Sample]| {
                        samples.iter().map(|s| s.key.clone()).collect::<Vec<_>>()
                    };
                    match write.change {
                        Change::Move => assert_eq!(old.samples, write.samples),
                        Change::Cols => assert_eq!(ids(&old.samples), ids(&write.samples)),
                        Change::Both => {}
                        Change::Insert => panic!("insert names a segment"),
                    }
                    old.version += 1;
                    old.lo_ms = write.lo_ms;
                    old.samples = write.samples;
                }
            }
            let mut bounds: Vec<i64> = self.segments.iter().map(|s| s.lo_ms).collect();
            bounds.sort_unstable();
            assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "lo_ms is unique throughout");
        }
        self.segments.sort_by_key(|segment| segment.lo_ms);
        self.check();
    }

    fn check(&self) {
        for (place, segment) in self.segments.iter().enumerate() {
            assert!(!segment.samples.is_empty());
            assert!(segment.samples.windows(2).all(|pair| pair[0].key < pair[1].key));
            let end = self.segments.get(place + 1).map_or(i64::MAX, |next| next.lo_ms);
            assert!(segment.samples[0].key.start_ms >= segment.lo_ms);
            assert!(segment.samples.last().unwrap().key.start_ms < end);
            let one_start =
                segment.samples.iter().all(|s| s.key.start_ms == segment.samples[0].key.start_ms);
            assert!(segment.samples.len() <= MAX || one_start);
        }
        assert!(self.segments.first().is_none_or(|first| first.lo_ms == 0));
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.segments.iter().flat_map(|segment| segment.samples.clone()).collect()
    }
}

fn upload(store: &mut Store, rows: &[Sample]) -> Vec<Change> {
    let rows = rows.iter().map(|sample| (&sample.key, sample)).collect();
    let writes = plan(&store.segments, &rows);
    let changes = writes.iter().map(|write| write.change).collect();
    store.apply(writes);
    changes
}

/// As [`upload`], reading of sealed segments that end before the rows only their bounds.
fn upload_on(store: &mut Store, rows: &[Sample]) -> Vec<Change> {
    let mut segments = store.segments.clone();
    for place in 0..segments.len() {
        let end = segments.get(place + 1).map_or(i64::MAX, |next| next.lo_ms);
        let segment = &mut segments[place];
        let hi_ms = segment.samples.last().unwrap().key.start_ms;
        let reaches = |row: &Sample| (segment.lo_ms..=hi_ms).contains(&row.key.start_ms);
        if segment.samples.len() >= SEAL && !rows.iter().any(reaches) && hi_ms < end {
            *segment =
                LoadedSegment::closed(segment.segment_id, segment.version, segment.lo_ms, hi_ms);
        }
    }
    let by_key = rows.iter().map(|sample| (&sample.key, sample)).collect();
    let writes = plan(&segments, &by_key);
    assert_eq!(writes, plan(&store.segments, &by_key), "unread samples change no plan");
    for row in rows {
        assert_eq!(find(&segments, &row.key), find(&store.segments, &row.key));
    }
    let changes = writes.iter().map(|write| write.change).collect();
    store.apply(writes);
    changes
}

fn run(from: i64, n: i64) -> Vec<Sample> {
    (from..from + n).map(|at| heart_rate(at * 1000, at as u128 + 1)).collect()
}

#[test]
fn an_upload_in_time_order_writes_every_sample_once() {
    let mut store = Store::default();
    assert_eq!(upload(&mut store, &run(0, 20)), [Change::Insert]);
    assert_eq!(upload(&mut store, &run(20, 108)), [Change::Both]);
    assert_eq!(upload(&mut store, &run(128, 500)), [Change::Insert]);
    assert_eq!(upload(&mut store, &run(628, 2000)), [Change::Insert, Change::Insert]);
    assert_eq!(upload(&mut store, &run(628, 2000)), []);
}

#[test]
fn a_backfill_newest_first_moves_bounds_and_rewrites_nothing() {
    let mut store = Store::default();
    upload(&mut store, &run(10_000, 200));
    assert_eq!(upload(&mut store, &run(9_800, 200)), [Change::Move, Change::Insert]);
    assert_eq!(upload(&mut store, &run(9_600, 200)), [Change::Move, Change::Insert]);
    assert_eq!(store.segments.len(), 3);
}

#[test]
fn a_correction_rewrites_columns_alone() {
    let mut store = Store::default();
    upload(&mut store, &run(0, 200));
    let mut row = run(100, 1);
    row[0].value = Some(Micro::whole(77));
    assert_eq!(upload(&mut store, &row), [Change::Cols]);
    row.extend(run(300, 1));
    row[0].deleted_ms = Some(1);
    assert_eq!(upload(&mut store, &row), [Change::Cols, Change::Insert]);
}

#[test]
fn one_start_is_never_split() {
    let mut store = Store::default();
    let mut rows: Vec<Sample> = (1..1500).map(|seed| heart_rate(5000, seed)).collect();
    rows.extend(run(6, 700));
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    upload(&mut store, &rows);
    upload(&mut store, &run(0, 3));
    assert_eq!(store.samples().len(), rows.len() + 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn segments_stay_disjoint_and_lose_nothing(
        uploads in prop::collection::vec((0i64..3000, 1i64..700, 1usize..4, 1i64..3), 1..14),
    ) {
        let (mut store, mut model) = (Store::default(), BTreeMap::new());
        for (place, (from, n, stride, value)) in uploads.into_iter().enumerate() {
            let mut rows: Vec<Sample> = run(from, n).into_iter().step_by(stride).collect();
            for row in &mut rows {
                // Several samples share a start.
                row.key.start_ms /= 3000;
                row.value = Some(Micro::whole(60 + value));
                row.batch_seq = place as i64;
            }
            rows.sort_by(|a, b| a.key.cmp(&b.key));
            upload_on(&mut store, &rows);
            model.extend(rows.into_iter().map(|row| (row.key.clone(), row)));
            prop_assert_eq!(store.samples(), model.values().cloned().collect::<Vec<_>>());
        }
        for sample in model.values() {
            prop_assert_eq!(find(&store.segments, &sample.key), Some(sample));
        }
    }
}
