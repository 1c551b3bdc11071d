//! Synced entities: one engine over declared contracts.
//!
//! A synced entity is a map of fields with a version. What its fields may hold, how the wire spells
//! them and which policy decides a conflict is data: an [`EntityContract`]. One decision function
//! serves every type, so that a new type is one contract, not new code.
//!
//! Invariants: a stream takes exactly one event per accepted change, so its sequence is the wire's
//! `version`; a change that alters nothing leaves no event; a delete is final; no value a person
//! entered disappears without being kept in an event that says why.

mod aggregate;
mod any;
mod contract;
mod decide;
mod event;
mod fields;
mod recovery;
mod state;
pub mod time;
mod value;
pub mod wire;

#[cfg(test)]
mod tests;

pub use aggregate::{Entity, EntityCommand, EntityKind};
pub use any::{AnyEntity, STATE_VERSION};
pub use contract::{
    CONTRACTS, EntityContract, Field, FieldDefault, Kind, Writable, find_contract,
    find_contract_of_stream, is_protocol_type,
};
pub use decide::{
    ChangeKind, ChangeOutcome, EntityChange, Refusal, Superseded, SupersededChange,
    SupersededReason, decide_change, missing_fields,
};
pub(crate) use decide::{Weighed, weigh};
pub use event::{Created, Deleted, EntityEvent, EntityFact, Updated, entity_event_types};
pub use fields::{FieldError, Normalised, normalise, normalise_strict};
pub use recovery::{
    RecoveryCommand, RecoveryError, SyncRecovery, SyncRecoveryEvent, SyncSuperseded,
};
pub use state::{Context, Edit, EntityState, Fields, Stamp};
