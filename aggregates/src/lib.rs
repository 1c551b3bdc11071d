//! What may happen in Tidemark: commands, events and the decisions between them.
//!
//! This crate is pure. It does no IO, reads no clock and draws no randomness: times, ids and
//! everything else a decision needs arrive as arguments, so that replaying a log or simulating a
//! hundred thousand histories needs nothing but this crate.
//!
//! | Word | Means here |
//! |---|---|
//! | command | an intent that may be refused |
//! | event | a fact that happened; named in the past tense, `aggregate.past_tense` on disk |
//! | aggregate, stream | a consistency boundary, and its events in order |
//! | sequence, version | a place in one stream, from 1; the wire's `version` |
//! | global position | a place in the whole log, dense: 1, 2, 3, … in commit order |
//! | purpose | which of a person's keys seals an event: [`Purpose`] |

pub mod access;
pub mod conflict;
pub mod consumption;
pub mod entity;
pub mod event;
pub mod health_batch;
pub mod ids;
pub mod metadata;
pub mod metric;
pub mod product;
pub mod projection;
pub mod recorded;
pub mod registry;
#[cfg(feature = "schema")]
pub mod schema;
pub mod segment;
pub mod session;
pub mod subject;
pub mod sync;
pub mod upcast;
pub mod user;

pub use event::{DecodeError, Encoded, EventType, Purpose, StoredEvent};
pub use ids::{StreamId, UserId};
pub use metadata::{Actor, Metadata};
pub use recorded::{Content, Recorded};
pub use registry::AnyEvent;
