//! What a sealed blob is bound to.
//!
//! Associated data is authenticated with the ciphertext but not stored with it: opening needs the
//! same values again, taken from the row where the blob lies. A blob copied to another row, event,
//! person or column therefore does not open.

use aggregates::{Purpose, StreamId, UserId};
use uuid::Uuid;

use super::fields::Fields;

/// Associated data of one sealed blob. Each constructor starts with a label of its own, so that no
/// two kinds of blob ever share associated data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aad(Fields);

/// Everything in the clear that a sealed event is bound to.
#[derive(Clone, Copy, Debug)]
pub struct EventContext<'a> {
    /// The log the event is written to; a copy of a database has the same one.
    pub log_id: Uuid,
    pub event_id: Uuid,
    pub stream: &'a StreamId,
    /// Place in its stream, from 1.
    pub sequence: i64,
    pub event_type: &'a str,
    /// As stored: an integer in decimal digits.
    pub event_version: &'a str,
    pub user: UserId,
    pub purpose: Purpose,
    pub key_id: Uuid,
}

impl Aad {
    /// Binds an event to its place in the log.
    pub fn event(context: &EventContext<'_>) -> Self {
        Self(
            Fields::labelled("event")
                .uuid(context.log_id)
                .uuid(context.event_id)
                .text(&context.stream.aggregate_type)
                .text(&context.stream.aggregate_id)
                .integer(context.sequence)
                .text(context.event_type)
                .text(context.event_version)
                .uuid(context.user.0)
                .text(context.purpose.as_str())
                .uuid(context.key_id),
        )
    }

    /// Binds the folded state of a stream to the stream and the sequence it was folded up to.
    pub fn state(stream: &StreamId, sequence: i64) -> Self {
        Self(
            Fields::labelled("state")
                .text(&stream.aggregate_type)
                .text(&stream.aggregate_id)
                .integer(sequence),
        )
    }

    /// Binds one column of a sample segment to the segment and the version of its content.
    pub fn segment(user: UserId, segment_id: Uuid, version: i64, column: &str) -> Self {
        Self(
            Fields::labelled("segment").uuid(user.0).uuid(segment_id).integer(version).text(column),
        )
    }

    /// Binds a wrapped key of a person to its id, owner and purpose.
    pub fn subject_key(key_id: Uuid, user: UserId, purpose: Purpose) -> Self {
        Self(Fields::labelled("subject key").uuid(key_id).uuid(user.0).text(purpose.as_str()))
    }

    /// Binds a wrapped key of the server to its id and name.
    pub fn server_key(key_id: Uuid, name: &str) -> Self {
        Self(Fields::labelled("server key").uuid(key_id).text(name))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}
