//! Record ids: sixteen bytes for a UUID, nothing for one that repeats, a heap for other text.
//!
//! Nearly all record ids are random UUIDs; sleep rows append `|` and a metric's code to the UUID
//! of the record they derive from; one Health Connect record yields a series of samples.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::bytes::{Malformed, Reader, put_runs, put_text, put_unsigned};
use crate::metric::Metric;

/// Forms of an id. Larger numbers are `DERIVED` plus a metric's ordinal.
const UUID: u64 = 0;
const TEXT: u64 = 1;
const DERIVED: u64 = 2;

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
    let (mut uuids, mut texts) = (Vec::new(), Vec::new());
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
                    uuids.extend_from_slice(uuid.as_bytes());
                }
            }
        }
    }
    let mut out = Vec::with_capacity(uuids.len() + texts.len() + 16);
    put_unsigned(&mut out, forms.len() as u64);
    put_runs(&mut out, forms);
    put_runs(&mut out, references);
    out.extend(uuids);
    out.extend(texts);
    out
}

/// The `n` ids back.
pub(crate) fn unpack(bytes: &[u8], n: usize) -> Result<Vec<Arc<str>>, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.unsigned()? != n as u64 {
        return Err(Malformed("number of ids"));
    }
    let forms = reader.runs(n)?;
    let named = forms.iter().filter(|form| **form != TEXT).count();
    let references = reader.runs(named)?;
    let fresh = references.iter().filter(|reference| **reference == 0).count();
    let uuids = reader.take(fresh.checked_mul(16).ok_or(Malformed("number of ids"))?)?;
    let (uuids, _) = uuids.as_chunks::<16>();
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
        let uuid = Uuid::from_bytes(*uuids.get(place).ok_or(Malformed("id reference"))?);
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
