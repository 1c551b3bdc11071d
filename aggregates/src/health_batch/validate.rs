//! One sample against the catalogue: from what was sent to what would be stored.

use super::context::Context;
use super::outcome::SampleOutcome;
use super::wire::{SampleContent, SampleItem};
use crate::metric::{Metric, Micro, UnitError, ValueKind, decimal, normalise, normalise_whole};
use crate::segment::{OffsetSource, Sample};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Longest sample.
const MAX_LENGTH_MS: i64 = 31 * DAY_MS;
/// How far a client's clock may run ahead.
const MAX_AHEAD_MS: i64 = DAY_MS;

/// The sample as it would be stored if its key were new.
///
/// # Errors
/// The first fault, in this order: privacy, metric, shape, kind, times, value, offset.
pub(super) fn validate(item: &SampleItem, context: &Context) -> Result<Sample, SampleOutcome> {
    let code = item.metric_code.as_deref();
    let sent = code.and_then(Metric::parse);
    let metric = code.and_then(|code| Metric::of_source(code, &item.key.source_id));
    let blocked = |metric: Option<Metric>| metric.is_some_and(|m| context.blocked.contains(&m));
    if !context.uploads_allowed || blocked(sent) || blocked(metric) {
        return Err(SampleOutcome::PrivacyBlocked);
    }
    let metric = match (code, metric) {
        (_, Some(metric)) => metric,
        (Some(_), None) => return Err(SampleOutcome::UnknownMetric),
        (None, None) => return Err(SampleOutcome::BadShape),
    };
    let content = item.content.as_ref().map_err(|fault| *fault)?;
    if &*content.value_kind != metric.kind().as_str() {
        return Err(SampleOutcome::KindMismatch);
    }
    times(item.key.start_ms, content.end_ms, context.now_ms)?;
    if metric.kind() == ValueKind::Interval && content.duration_s.is_none() {
        return Err(SampleOutcome::BadDuration);
    }
    let (value, category) = reading(metric, content)?;
    let (offset_min, offset_source) = match (content.offset_min, context.request_offset_min) {
        (Some(own), _) => (Some(own), OffsetSource::Sample),
        (None, Some(request)) => (Some(request), OffsetSource::Request),
        (None, None) if metric.is_sleep() => return Err(SampleOutcome::OffsetRequired),
        (None, None) => (None, OffsetSource::None),
    };
    Ok(Sample {
        key: item.key.clone(),
        metric,
        end_ms: content.end_ms,
        value,
        category,
        duration_s: content.duration_s,
        offset_min,
        offset_source,
        device_id: content.device_id.clone(),
        external_uuid: content.external_uuid.clone(),
        metadata: content.metadata.clone(),
        revision: content.revision,
        batch_seq: context.received_seq,
        created_ms: context.now_ms,
        deleted_ms: None,
    })
}

fn times(start_ms: i64, end_ms: i64, now_ms: i64) -> Result<(), SampleOutcome> {
    let ordered = 0 <= start_ms && start_ms <= end_ms;
    if ordered && end_ms - start_ms <= MAX_LENGTH_MS && end_ms <= now_ms + MAX_AHEAD_MS {
        Ok(())
    } else {
        Err(SampleOutcome::BadTimes)
    }
}

fn reading(
    metric: Metric,
    content: &SampleContent,
) -> Result<(Option<Micro>, Option<u8>), SampleOutcome> {
    if metric.kind() == ValueKind::Category {
        if content.value.is_some() || content.unit.is_some() {
            return Err(SampleOutcome::OutOfRange);
        }
        let code = content.category_code.as_deref().ok_or(SampleOutcome::BadShape)?;
        let number = metric.category_number(code).ok_or(SampleOutcome::UnknownCategory)?;
        return Ok((None, Some(number)));
    }
    if content.category_code.is_some() {
        return Err(SampleOutcome::UnknownCategory);
    }
    let number = content.value.as_ref().ok_or(SampleOutcome::BadValue)?;
    if number.as_f64().is_none_or(|value| value < 0.0) {
        return Err(SampleOutcome::BadValue);
    }
    let unit = content.unit.as_deref().ok_or(SampleOutcome::BadShape)?;
    let converted = match whole(number).and_then(|value| normalise_whole(metric, value, unit)) {
        Some(converted) => converted,
        None => {
            let value = decimal(number).ok_or(SampleOutcome::OutOfRange)?;
            normalise(metric, value, unit)
        }
    };
    let micro = converted.map_err(|error| match error {
        UnitError::Unknown => SampleOutcome::UnknownUnit,
        UnitError::Conversion => SampleOutcome::Unconvertible,
        UnitError::OutOfRange => SampleOutcome::OutOfRange,
    })?;
    Ok((Some(micro), None))
}

/// The number, if it is a whole one.
fn whole(number: &serde_json::Number) -> Option<i64> {
    let double = || number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 1.0e12);
    number.as_i64().or_else(|| double().map(|whole| whole as i64))
}
