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

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use uuid::uuid;

    use super::*;

    const USER: UserId = UserId(uuid!("11111111-2222-4333-8444-555555555555"));

    fn stream() -> StreamId {
        StreamId::new("session", "99999999-8888-4777-8666-555555555555")
    }

    fn context(stream: &StreamId) -> EventContext<'_> {
        EventContext {
            log_id: USER.0,
            event_id: uuid!("01890a5d-ac96-774b-bcce-b302099a8057"),
            stream,
            sequence: 7,
            event_type: "session.started",
            event_version: "1",
            user: USER,
            purpose: Purpose::Activity,
            key_id: uuid!("00000000-0000-4000-8000-0000000000aa"),
        }
    }

    /// Changing these bytes makes every stored event unreadable.
    #[test]
    fn layout_of_events_never_changes() {
        let stream = stream();
        let hash = digest(&SHA256, Aad::event(&context(&stream)).as_bytes());
        assert_eq!(
            hex::encode(hash.as_ref()),
            "30b7b9f668a3027e5b30dc7a21a1a4aefaf443aa115bc37805b42d9d43a3fa2a"
        );
    }

    #[test]
    fn every_part_of_an_event_counts() {
        let (stream, other_type, other_id) =
            (stream(), StreamId::new("goal", stream().aggregate_id), StreamId::new("session", "x"));
        let base = context(&stream);
        let other = Uuid::nil();
        let changed = [
            EventContext { log_id: other, ..base },
            EventContext { event_id: other, ..base },
            EventContext { stream: &other_type, ..base },
            EventContext { stream: &other_id, ..base },
            EventContext { sequence: 8, ..base },
            EventContext { event_type: "session.ended", ..base },
            EventContext { event_version: "2", ..base },
            EventContext { user: UserId(other), ..base },
            EventContext { purpose: Purpose::Health, ..base },
            EventContext { key_id: other, ..base },
        ];
        for context in changed {
            assert_ne!(Aad::event(&context), Aad::event(&base), "{context:?}");
        }
    }

    #[test]
    fn neighbouring_texts_do_not_run_together() {
        let (one, two) = (StreamId::new("ab", "c"), StreamId::new("a", "bc"));
        assert_ne!(Aad::state(&one, 1), Aad::state(&two, 1));
    }

    #[test]
    fn kinds_of_blob_differ() {
        let key = Uuid::nil();
        assert_ne!(
            Aad::subject_key(key, USER, Purpose::Health),
            Aad::segment(USER, key, 1, Purpose::Health.as_str())
        );
        assert_ne!(Aad::server_key(key, "lookup"), Aad::server_key(key, "cursor"));
        assert_ne!(Aad::segment(USER, key, 1, "ids"), Aad::segment(USER, key, 2, "ids"));
        assert_ne!(Aad::segment(USER, key, 1, "ids"), Aad::segment(USER, key, 1, "cols"));
    }
}
