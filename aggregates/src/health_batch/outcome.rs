//! What became of each item of a batch, and how the wire says it. A table, not a tree of code.

/// What became of one sample. The number is stored; never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SampleOutcome {
    Recorded = 0,
    Corrected = 1,
    Unchanged = 2,
    /// An older version than the stored one; nothing to do.
    Superseded = 3,
    PrivacyBlocked = 16,
    UnknownMetric = 17,
    BadShape = 18,
    KindMismatch = 19,
    BadDuration = 20,
    BadOffset = 21,
    BadTimes = 22,
    BadMetadata = 23,
    BadValue = 24,
    UnknownUnit = 25,
    Unconvertible = 26,
    OutOfRange = 27,
    UnknownCategory = 28,
    OffsetRequired = 29,
    Duplicate = 30,
    Tombstoned = 48,
    KeyReused = 49,
}

/// What became of one deletion. The number is stored; never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DeletionOutcome {
    Deleted = 0,
    AlreadyDeleted = 1,
    /// The record is unknown; a tombstone refuses it from here on.
    NotFound = 2,
}

/// The order of entries in `failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Privacy,
    Validation,
    Persistence,
}

/// How the wire reports a sample that was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    pub stage: Stage,
    pub code: &'static str,
    pub message: &'static str,
    pub retryable: bool,
}

use SampleOutcome as S;
use Stage::{Persistence, Privacy, Validation};

type Row = (SampleOutcome, Stage, &'static str, &'static str);

#[rustfmt::skip]
const FAILURES: &[Row] = &[
    (S::PrivacyBlocked, Privacy, "PRIVACY_BLOCKED", "your privacy settings keep this metric out"),
    (S::UnknownMetric, Validation, "INVALID_METRIC_CODE", "the metric is not in the catalogue"),
    (S::BadShape, Validation, "VALIDATION_ERROR", "a field is missing, unknown or of the wrong type"),
    (S::KindMismatch, Validation, "VALIDATION_ERROR", "valueKind is not the metric's kind"),
    (S::BadDuration, Validation, "VALIDATION_ERROR", "durationSeconds is missing or out of range"),
    (S::BadOffset, Validation, "VALIDATION_ERROR", "timezoneOffsetMinutes must be an integer from -720 to 840"),
    (S::BadTimes, Validation, "VALIDATION_ERROR", "startAt and endAt must be in order, not before 1970, at most 31 days apart and not in the future"),
    (S::BadMetadata, Validation, "VALIDATION_ERROR", "metadata must be an object of at most 20 keys, 3 levels and 4096 bytes"),
    (S::BadValue, Validation, "VALIDATION_ERROR", "value must be a number that is not negative"),
    (S::UnknownUnit, Validation, "INVALID_UNIT", "the metric does not accept this unit"),
    (S::Unconvertible, Validation, "UNIT_NORMALIZATION_FAILED", "the value cannot be converted to the metric's unit"),
    (S::OutOfRange, Validation, "VALUE_OUT_OF_BOUNDS", "the value is outside the metric's plausible range"),
    (S::UnknownCategory, Validation, "INVALID_CATEGORY_CODE", "the category code does not fit the metric"),
    (S::OffsetRequired, Validation, "TIMEZONE_REQUIRED", "sleep samples need a time zone offset"),
    (S::Duplicate, Validation, "DUPLICATE_IN_BATCH", "the batch holds this sample twice"),
    (S::Tombstoned, Persistence, "VALIDATION_ERROR", "the sample was deleted and does not come back"),
    (S::KeyReused, Persistence, "VALIDATION_ERROR", "the record is stored under another metric"),
];

impl SampleOutcome {
    /// The outcome with this stored number.
    pub fn from_number(number: u8) -> Option<Self> {
        let accepted = [Self::Recorded, Self::Corrected, Self::Unchanged, Self::Superseded];
        let refused = FAILURES.iter().map(|row| row.0);
        accepted.into_iter().chain(refused).find(|outcome| *outcome as u8 == number)
    }

    /// How the wire reports it, or `None` for samples it counts as successful.
    pub fn failure(self) -> Option<Failure> {
        let (_, stage, code, message) = *FAILURES.iter().find(|row| row.0 == self)?;
        Some(Failure { stage, code, message, retryable: code == "TIMEZONE_REQUIRED" })
    }
}

impl DeletionOutcome {
    /// The outcome with this stored number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Deleted, Self::AlreadyDeleted, Self::NotFound]
            .into_iter()
            .find(|outcome| *outcome as u8 == number)
    }
}
