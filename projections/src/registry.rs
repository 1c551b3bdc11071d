//! The projectors as data: what they are called, what they hear and what they own.

use aggregates::Purpose;

/// Groups of event types whose latest position is known per person. A projector is complete for a
/// person once it has passed the positions of the classes it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Health,
    Session,
    Other,
}

/// One projector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectorSpec {
    /// Stable name: the key of its checkpoints and the wire name of its freshness.
    pub name: &'static str,
    /// The formulas' version, from 1. Raised whenever the same events give other numbers; never
    /// lowered, because phones adopt rows of a higher version unconditionally.
    pub compute_version: i32,
    pub hears: &'static [Class],
    /// The key that seals its input. Destroying it empties the person's rows.
    pub purpose: Purpose,
    /// Tables of each generation, each also a view for ad-hoc queries. The first column of each
    /// primary key is `user_id`. Older generations may lack some.
    pub tables: &'static [&'static str],
}

/// Daily statistics per metric. Version 1 summed up everybody's samples and left it to readers to
/// hide them; version 2 has no rows for who does not allow aggregation.
pub const HEALTH_ROLLUP: ProjectorSpec = ProjectorSpec {
    name: "health-rollup",
    compute_version: 2,
    hears: &[Class::Health, Class::Other],
    purpose: Purpose::Health,
    tables: &["health_rollup_days", "health_rollup_hidden"],
};

/// Readable rows of synced entities, for lists and filters.
pub const ENTITIES: ProjectorSpec = ProjectorSpec {
    name: "entities",
    compute_version: 1,
    hears: &[Class::Session, Class::Other],
    purpose: Purpose::Activity,
    tables: &["entities"],
};

/// Every projector there is.
pub const ALL: [&ProjectorSpec; 2] = [&HEALTH_ROLLUP, &ENTITIES];

/// The projector with this name.
pub fn find(name: &str) -> Option<&'static ProjectorSpec> {
    ALL.into_iter().find(|spec| spec.name == name)
}
