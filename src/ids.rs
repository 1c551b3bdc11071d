//! The one place that makes new identifiers, and so decides their shape.

use uuid::Uuid;

/// A random id (version 4) for users, streams and keys: it tells nothing, not even when it was
/// made, because it stays readable after an erasure.
#[expect(clippy::disallowed_methods, reason = "this is the one place that makes ids")]
pub fn new_id() -> Uuid {
    Uuid::new_v4()
}

/// An id for an event (version 7). It leads with the time, which is in the clear beside it anyway,
/// and so keeps neighbours in the log together in any index.
#[expect(clippy::disallowed_methods, reason = "this is the one place that makes ids")]
pub fn new_event_id() -> Uuid {
    Uuid::now_v7()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_promised_versions() {
        assert_eq!(new_id().get_version_num(), 4);
        assert_eq!(new_event_id().get_version_num(), 7);
    }

    #[test]
    fn event_ids_rise() {
        let ids: Vec<Uuid> = (0..1_000).map(|_| new_event_id()).collect();
        assert!(ids.is_sorted());
    }
}
