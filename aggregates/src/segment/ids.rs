//! Record ids: sixteen bytes for a UUID, nothing for one that repeats, a heap for other text.
//!
//! Nearly all record ids are random UUIDs; sleep rows append `|` and a metric's code to the UUID
//! of the record they derive from; one Health Connect record yields a series of samples. Random
//! UUIDs (version 4) say so in six bits each, which many of them together can do without.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::bits::{bits, put_bits};
use super::bytes::{Malformed, Reader, put_runs, put_text, put_unsigned};
use crate::metric::Metric;

/// Forms of an id. Larger numbers are `DERIVED` plus a metric's ordinal.
const UUID: u64 = 0;
const TEXT: u64 = 1;
const DERIVED: u64 = 2;

/// In the place of the number of ids, which is not 0 then: the number of a layout comes first.
const MARK: u8 = 0;
/// The layout with UUIDs of 122 bits, for at least this many that are all random.
const RANDOM: u8 = 1;
const RANDOM_FROM: usize = 64;
const RANDOM_BITS: usize = 122;
/// Each goes in two halves.
const HALF: u8 = 61;

enum Form<'a> {
    Uuid(Uuid, u64),
    Text(&'a str),
}

fn form(id: &str) -> Form<'_> {
    let (head, metric) = match id.split_once('|') {
        Some((head, code)) => match Metric::parse(code) {
            Some(metric) => (head, Some(metric)),
            None => return Form::Text(id),
        },
        None => (id, None),
    };
    match canonical(head) {
        Some(uuid) => Form::Uuid(uuid, metric.map_or(UUID, |m| DERIVED + u64::from(m.ordinal()))),
        None => Form::Text(id),
    }
}

/// The UUID whose lower-case hyphenated text is exactly `text`.
fn canonical(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    (uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text).then_some(uuid)
}

/// Packs the ids in order: forms, references, sixteen bytes for each new UUID, then other texts.
pub(crate) fn pack<'a>(ids: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let (mut forms, mut references) = (Vec::new(), Vec::new());
    let (mut uuids, mut texts) = (Vec::<Uuid>::new(), Vec::new());
    let mut seen: HashMap<Uuid, u64> = HashMap::new();
    for id in ids {
        match form(id) {
            Form::Text(text) => {
                forms.push(TEXT);
                put_text(&mut texts, text);
            }
            Form::Uuid(uuid, number) => {
                forms.push(number);
                let next = seen.len() as u64;
                let place = *seen.entry(uuid).or_insert(next);
                // 0: the next new one; k: the k-th back from there.
                references.push(next - place);
                if place == next {
                    uuids.push(uuid);
                }
            }
        }
    }
    let mut out = Vec::with_capacity(uuids.len() * 16 + texts.len() + 16);
    let random: Option<Vec<u128>> = uuids.iter().map(without_version).collect();
    let random = random.filter(|random| random.len() >= RANDOM_FROM);
    if random.is_some() {
        out.extend([MARK, RANDOM]);
    }
    put_unsigned(&mut out, forms.len() as u64);
    put_runs(&mut out, forms);
    put_runs(&mut out, references);
    match random {
        Some(random) => {
            let halves = random.into_iter().flat_map(|bits| [low(bits >> HALF), low(bits)]);
            put_bits(&mut out, u32::from(HALF), halves);
        }
        None => uuids.iter().for_each(|uuid| out.extend_from_slice(uuid.as_bytes())),
    }
    out.extend(texts);
    out
}

/// The 122 random bits of a UUID of version 4; `None` for any other.
fn without_version(uuid: &Uuid) -> Option<u128> {
    let bits = uuid.as_u128();
    let random = bits >> 76 & 0xf == 4 && bits >> 62 & 0b11 == 0b10;
    random.then_some((bits >> 80) << 74 | (bits >> 64 & 0xfff) << 62 | bits & LOW_62)
}

/// The UUID of version 4 with these random bits.
fn with_version(random: u128) -> Uuid {
    let (high, middle) = (random >> 74, random >> 62 & 0xfff);
    Uuid::from_u128(high << 80 | 4 << 76 | middle << 64 | 0b10 << 62 | random & LOW_62)
}

const LOW_62: u128 = (1 << 62) - 1;

/// The lower half of 122 bits.
fn low(bits: u128) -> u64 {
    u64::try_from(bits & ((1 << HALF) - 1)).unwrap_or(0)
}

/// The `n` ids back.
pub(crate) fn unpack(bytes: &[u8], n: usize) -> Result<Vec<Arc<str>>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut number = reader.unsigned()?;
    let random = n > 0 && number == u64::from(MARK);
    if random {
        if reader.byte()? != RANDOM {
            return Err(Malformed("unknown layout of ids"));
        }
        number = reader.unsigned()?;
    }
    if number != n as u64 {
        return Err(Malformed("number of ids"));
    }
    let forms = reader.runs(n)?;
    let named = forms.iter().filter(|form| **form != TEXT).count();
    let references = reader.runs(named)?;
    let fresh = references.iter().filter(|reference| **reference == 0).count();
    let size = if random { RANDOM_BITS } else { 128 };
    let packed = fresh.checked_mul(size).ok_or(Malformed("number of ids"))?.div_ceil(8);
    let uuids = take_uuids(reader.take(packed)?, fresh, random);
    let mut references = references.into_iter();
    let mut next = 0usize;
    let mut ids = Vec::with_capacity(n);
    for form in forms {
        if form == TEXT {
            ids.push(Arc::from(reader.text()?));
            continue;
        }
        let back = usize::try_from(references.next().ok_or(Malformed("id reference"))?)
            .map_err(|_| Malformed("id reference"))?;
        let place = next.checked_sub(back).ok_or(Malformed("id reference"))?;
        let uuid = uuids.get(place).ok_or(Malformed("id reference"))?;
        next += usize::from(back == 0);
        let mut buffer = Uuid::encode_buffer();
        let text = &*uuid.hyphenated().encode_lower(&mut buffer);
        ids.push(if form == UUID {
            Arc::from(text)
        } else {
            let metric = u8::try_from(form - DERIVED)
                .ok()
                .and_then(Metric::from_ordinal)
                .ok_or(Malformed("id form"))?;
            Arc::from(format!("{text}|{}", metric.code()))
        });
    }
    reader.finish()?;
    Ok(ids)
}

fn take_uuids(bytes: &[u8], fresh: usize, random: bool) -> Vec<Uuid> {
    if !random {
        let (uuids, _) = bytes.as_chunks::<16>();
        return uuids.iter().map(|uuid| Uuid::from_bytes(*uuid)).collect();
    }
    let mut halves = bits(bytes, HALF).map(u128::from);
    let mut next = || halves.next().unwrap_or(0);
    (0..fresh).map(|_| with_version(next() << HALF | next())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(ids: &[String]) -> Vec<Arc<str>> {
        unpack(&pack(ids.iter().map(|id| &**id)), ids.len()).unwrap()
    }

    /// What the store keeps; a change here needs a number of its own.
    #[test]
    fn random_ids_go_without_their_version() {
        let uuid = |n: u128| Uuid::from_u128(n << 64 | 4 << 76 | 0b10 << 62 | n);
        let ids: Vec<String> = (0..64).map(|n| uuid(n * 3).to_string()).collect();
        let packed = pack(ids.iter().map(|id| &**id));
        assert_eq!(hex::encode(&packed[..7]), "00014000400040");
        assert_eq!(packed.len(), 7 + 64 * RANDOM_BITS / 8);
        assert_eq!(
            hex::encode(&packed[37..68]),
            "c0000000000000000c00000000000080040000000000004800000000000000"
        );
        assert!(back(&ids).iter().zip(&ids).all(|(back, id)| **back == **id));
        // One of another kind, or too few, and all stay whole.
        let mut mixed = ids.clone();
        mixed[5] = Uuid::from_u128(7).to_string();
        assert_eq!(hex::encode(&pack(mixed.iter().map(|id| &**id))[..2]), "4000");
        assert_eq!(hex::encode(&pack(ids[..63].iter().map(|id| &**id))[..2]), "3f00");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn random_ids_come_back(
            seeds in prop::collection::vec((any::<u128>(), 0u8..20), 64..200),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut last = String::new();
            let ids: Vec<String> = seeds
                .into_iter()
                .map(|(seed, kind)| {
                    let uuid = uuid::Builder::from_random_bytes(seed.to_be_bytes()).into_uuid();
                    let id = match kind {
                        0 => format!("{uuid}|sleep_deep"),
                        1 => last.clone(),
                        2 => format!("{uuid}|"),
                        _ => uuid.to_string(),
                    };
                    last.clone_from(&id);
                    id
                })
                .collect();
            prop_assert!(back(&ids).iter().zip(&ids).all(|(back, id)| **back == **id));
            if let Some((at, to)) = damage {
                let mut packed = pack(ids.iter().map(|id| &**id));
                let place = at.index(packed.len());
                packed[place] = to;
                let _ = unpack(&packed, ids.len());
            }
        }
    }
}
