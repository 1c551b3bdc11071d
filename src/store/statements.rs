//! Every statement of the store, by name: a test prepares each against a fresh schema, so that a
//! renamed column fails there and not at a customer's.

use super::{append, installations, lane, read, segments, streams, subjects};

/// Name and text.
pub const ALL: &[(&str, &str)] = &[
    ("append", append::APPEND),
    ("forget", super::FORGET),
    ("prune", super::PRUNE),
    ("writable", super::WRITABLE),
    ("head", read::HEAD),
    ("read all", read::READ_ALL),
    ("read user", read::READ_USER),
    ("read stream", read::READ_STREAM),
    ("read filtered", read::READ_FILTERED),
    ("heads", streams::HEADS),
    ("feed", streams::FEED),
    ("recent", streams::RECENT),
    ("receipts", streams::RECEIPTS),
    ("holders", streams::HOLDERS),
    ("user head", streams::USER_HEAD),
    ("people", streams::PEOPLE),
    ("committed at", streams::COMMITTED_AT),
    ("subjects", subjects::SUBJECTS),
    ("unfinished erasures", subjects::UNFINISHED),
    ("covering segments", segments::COVERING),
    ("all segments", segments::ALL),
    ("newest segments", segments::BEFORE),
    ("folds", segments::FOLDS),
    ("spans", segments::SPANS),
    ("standing", segments::STANDING),
    ("tombstones", segments::TOMBSTONES),
    ("all tombstones", segments::ALL_TOMBSTONES),
    ("lock", lane::LOCK),
    ("unlock", lane::UNLOCK),
    ("find installation", installations::FIND),
    ("register installation", installations::REGISTER),
    ("acknowledge", installations::ACKNOWLEDGE),
    ("acknowledged", installations::ACKNOWLEDGED),
    ("forget acknowledgements", installations::FORGET_OLD),
];
