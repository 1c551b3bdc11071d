//! Every metric by name, and the recorder that keeps them.
//!
//! Labels come from closed sets such as route tables and enums; never ids, never values.

use std::sync::OnceLock;

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

pub const HTTP_REQUESTS: &str = "http_requests_total";
pub const HTTP_REQUEST_SECONDS: &str = "http_request_seconds";
pub const HTTP_PANICS: &str = "http_panics_total";
pub const HTTP_SHED: &str = "http_requests_shed_total";
pub const TOKENS_REFUSED: &str = "tokens_refused_total";
pub const JWKS_FETCHES: &str = "jwks_fetches_total";
pub const JWKS_AGE_SECONDS: &str = "jwks_age_seconds";
pub const COMMANDS: &str = "commands_total";
pub const APPEND_SECONDS: &str = "append_seconds";
pub const APPEND_QUEUE_SECONDS: &str = "append_queue_seconds";
pub const APPEND_GROUP_SIZE: &str = "append_group_size";
pub const APPEND_FAILURES: &str = "append_failures_total";
pub const KEY_ALARMS: &str = "key_alarms_total";
pub const CHECK_OK: &str = "check_ok";
pub const LOG_POSITION: &str = "log_position";
pub const IDEMPOTENT_REPLAYS: &str = "idempotent_replays_total";
pub const PROJECTOR_LAG_POSITIONS: &str = "projector_lag_positions";
pub const PROJECTOR_LAG_SECONDS: &str = "projector_lag_seconds";
pub const PROJECTOR_BATCH_SECONDS: &str = "projector_batch_seconds";
pub const PROJECTOR_FAILURES: &str = "projector_failures_total";
pub const PROJECTOR_PARKED: &str = "projector_parked";
pub const PROJECTOR_POISON: &str = "projector_poison_total";
pub const SYNC_PULL_ROWS: &str = "sync_pull_rows";
pub const SYNC_UNKNOWN_FIELDS: &str = "sync_unknown_fields_total";
pub const SYNC_PUSH_ITEMS: &str = "sync_push_items_total";
pub const HEALTH_SAMPLES: &str = "health_samples_total";

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    /// What it tells, and its labels.
    pub help: &'static str,
}

const fn metric(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind, unit, help }
}

/// All metrics of the server.
pub const ALL: &[Metric] = &[
    metric(HTTP_REQUESTS, Kind::Counter, Unit::Count, "Requests by route, method and status"),
    metric(HTTP_REQUEST_SECONDS, Kind::Histogram, Unit::Seconds, "Time to answer by route, method"),
    metric(HTTP_PANICS, Kind::Counter, Unit::Count, "Handlers that panicked"),
    metric(HTTP_SHED, Kind::Counter, Unit::Count, "Requests refused because of load"),
    metric(TOKENS_REFUSED, Kind::Counter, Unit::Count, "Refused bearer tokens by reason"),
    metric(JWKS_FETCHES, Kind::Counter, Unit::Count, "Fetches of key sets by issuer and outcome"),
    metric(JWKS_AGE_SECONDS, Kind::Gauge, Unit::Seconds, "Age of a published key set by issuer"),
    metric(COMMANDS, Kind::Counter, Unit::Count, "Commands by aggregate, command and outcome"),
    metric(
        APPEND_SECONDS,
        Kind::Histogram,
        Unit::Seconds,
        "Duration of an append by lane, its wait for the head included",
    ),
    metric(
        APPEND_QUEUE_SECONDS,
        Kind::Histogram,
        Unit::Seconds,
        "Wait of a command for its append",
    ),
    metric(APPEND_GROUP_SIZE, Kind::Histogram, Unit::Count, "Members committed together"),
    metric(APPEND_FAILURES, Kind::Counter, Unit::Count, "Appends that the database did not take"),
    metric(KEY_ALARMS, Kind::Counter, Unit::Count, "Keys that were missing or altered, by kind"),
    metric(CHECK_OK, Kind::Gauge, Unit::Count, "1 for a condition of readiness that holds, else 0"),
    metric(LOG_POSITION, Kind::Gauge, Unit::Count, "Last position of the log"),
    metric(
        IDEMPOTENT_REPLAYS,
        Kind::Counter,
        Unit::Count,
        "Requests or items answered from a receipt by scope",
    ),
    metric(PROJECTOR_LAG_POSITIONS, Kind::Gauge, Unit::Count, "Positions a projector is behind"),
    metric(
        PROJECTOR_LAG_SECONDS,
        Kind::Gauge,
        Unit::Seconds,
        "Age of the first event a projector has not seen to",
    ),
    metric(
        PROJECTOR_BATCH_SECONDS,
        Kind::Histogram,
        Unit::Seconds,
        "Time to project a page by name",
    ),
    metric(PROJECTOR_FAILURES, Kind::Counter, Unit::Count, "Pages a projector failed on by name"),
    metric(PROJECTOR_PARKED, Kind::Gauge, Unit::Count, "Users a projector has parked"),
    metric(
        PROJECTOR_POISON,
        Kind::Counter,
        Unit::Count,
        "Events that could not be projected by name and cause",
    ),
    metric(SYNC_PULL_ROWS, Kind::Histogram, Unit::Count, "Rows in a page of changes"),
    metric(
        SYNC_UNKNOWN_FIELDS,
        Kind::Counter,
        Unit::Count,
        "Fields in pushed items that no contract knows",
    ),
    metric(SYNC_PUSH_ITEMS, Kind::Counter, Unit::Count, "Pushed items by type and outcome"),
    metric(HEALTH_SAMPLES, Kind::Counter, Unit::Count, "Uploaded samples by outcome"),
];

/// Upper bounds of the buckets of durations, in seconds.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of the buckets of sizes.
const SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

/// Why there are no metrics.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot install the metrics recorder: {0}")]
pub struct InstallError(String);

/// Installs the recorder for the whole process. Later calls return the same handle.
///
/// # Errors
/// When another recorder is installed already.
pub fn install() -> Result<PrometheusHandle, InstallError> {
    static HANDLE: OnceLock<Result<PrometheusHandle, InstallError>> = OnceLock::new();
    HANDLE.get_or_init(build).clone()
}

fn build() -> Result<PrometheusHandle, InstallError> {
    let recorder = builder().map_err(|error| InstallError(error.to_string()))?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| InstallError(error.to_string()))?;
    for Metric { name, kind, unit, help } in ALL.iter().copied() {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, help),
            Kind::Gauge => metrics::describe_gauge!(name, unit, help),
            Kind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
    }
    Ok(handle)
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL.iter().filter(|metric| metric.kind == Kind::Histogram) {
        let buckets = if metric.unit == Unit::Seconds { SECONDS } else { SIZES };
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_say_their_unit() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{metric:?}");
            assert_eq!(metric.name.ends_with("_seconds"), metric.unit == Unit::Seconds);
        }
    }
}
