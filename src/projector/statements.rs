//! Statements of the projectors' bookkeeping, by name: a test prepares each against a fresh schema,
//! as it does those of the store. Those of read models, and of a replay's manifest, need tables that
//! are made as the program runs; the tests of each run them.

use super::{checkpoint, generation, progress, rebuild, replay, store_source};

/// Name and text.
pub const ALL: &[(&str, &str)] = &[
    ("checkpoint: claim", checkpoint::CLAIM),
    ("checkpoint: advance", checkpoint::ADVANCE),
    ("checkpoint: release", checkpoint::RELEASE),
    ("checkpoint: renew", checkpoint::RENEW),
    ("checkpoint: idle", checkpoint::IDLE),
    ("checkpoint: survived", checkpoint::SURVIVED),
    ("checkpoint: jump", checkpoint::JUMP),
    ("checkpoint: lock", checkpoint::LOCK),
    ("generation: list", generation::LIST),
    ("generation: live", generation::LIVE),
    ("generation: insert", generation::INSERT),
    ("generation: insert checkpoints", generation::INSERT_CHECKPOINTS),
    ("generation: retire", generation::RETIRE),
    ("generation: fence off", generation::FENCE_OFF),
    ("generation: activate", generation::ACTIVATE),
    ("generation: carry watermarks", generation::CARRY_WATERMARKS),
    ("generation: newest retired", generation::NEWEST_RETIRED),
    ("generation: reject", generation::REJECT),
    ("generation: history", generation::HISTORY),
    ("generation: unfinished", generation::UNFINISHED),
    ("generation: retired before", generation::RETIRED_BEFORE),
    ("progress: raise", progress::RAISE),
    ("progress: of user", progress::OF_USER),
    ("progress: parked", progress::PARKED),
    ("progress: park", progress::PARK),
    ("progress: unpark", progress::UNPARK),
    ("progress: standings", progress::STANDINGS),
    ("progress: unskip", progress::UNSKIP),
    ("progress: skip", progress::SKIP),
    ("rebuild: lock build", rebuild::LOCK_BUILD),
    ("replay: find", replay::FIND),
    ("replay: lock", replay::LOCK),
    ("store source: users", store_source::USERS),
    ("store source: sizes", store_source::SIZES),
    ("store source: sizes of user", store_source::SIZES_OF_USER),
];
