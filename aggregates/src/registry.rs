//! The one list of event types. Tests, the CLI, the documentation and the store all read it.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::access::AccessEvent;
use crate::entity::{EntityEvent, SyncRecoveryEvent};
use crate::health_batch::HealthBatchEvent;
use crate::product::CatalogueProductEvent;
use crate::projection::ProjectionEvent;
use crate::session::SessionEvent;
use crate::user::UserEvent;
use crate::{DecodeError, Encoded, EventType, StoredEvent, subject::SubjectEvent};

/// Any event of the log in its current version.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyEvent {
    Subject(SubjectEvent),
    User(Box<UserEvent>),
    Session(Box<SessionEvent>),
    /// Any entity type with created, updated and deleted events.
    Entity(Box<EntityEvent>),
    SyncRecovery(Box<SyncRecoveryEvent>),
    HealthBatch(HealthBatchEvent),
    Access(Box<AccessEvent>),
    CatalogueProduct(Box<CatalogueProductEvent>),
    Projection(Box<ProjectionEvent>),
}

/// All event types there are, grouped by aggregate.
pub fn types() -> impl Iterator<Item = &'static EventType> {
    SubjectEvent::types()
        .iter()
        .chain(UserEvent::types())
        .chain(SessionEvent::types())
        .chain(EntityEvent::types())
        .chain(SyncRecoveryEvent::types())
        .chain(HealthBatchEvent::types())
        .chain(AccessEvent::types())
        .chain(CatalogueProductEvent::types())
        .chain(ProjectionEvent::types())
}

/// The registry entry with this name.
pub fn find(event_type: &str) -> Option<&'static EventType> {
    BY_NAME.get(event_type).copied()
}

/// Readers of the whole log look every event up.
static BY_NAME: LazyLock<HashMap<&'static str, &'static EventType>> =
    LazyLock::new(|| types().map(|entry| (entry.name, entry)).collect());

impl AnyEvent {
    /// Decodes an event of the current version.
    ///
    /// # Errors
    /// [`DecodeError`] for unknown types and payloads that do not fit.
    pub fn decode(event_type: &str, payload: &str, blob: &[u8]) -> Result<Self, DecodeError> {
        let aggregate = event_type.split('.').next().unwrap_or_default();
        match aggregate {
            "subject" => SubjectEvent::decode(event_type, payload, blob).map(Into::into),
            "user" => UserEvent::decode(event_type, payload, blob).map(Into::into),
            "session" => SessionEvent::decode(event_type, payload, blob).map(Into::into),
            "sync_recovery" => SyncRecoveryEvent::decode(event_type, payload, blob).map(Into::into),
            "health_batch" => HealthBatchEvent::decode(event_type, payload, blob).map(Into::into),
            "catalogue_product" => {
                CatalogueProductEvent::decode(event_type, payload, blob).map(Into::into)
            }
            "access" => AccessEvent::decode(event_type, payload, blob).map(Into::into),
            "projection" => ProjectionEvent::decode(event_type, payload, blob).map(Into::into),
            _ => EntityEvent::decode(event_type, payload, blob).map(Into::into),
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Encoded {
        match self {
            Self::Subject(event) => event.encode(),
            Self::User(event) => event.encode(),
            Self::Session(event) => event.encode(),
            Self::Entity(event) => event.encode(),
            Self::SyncRecovery(event) => event.encode(),
            Self::HealthBatch(event) => event.encode(),
            Self::Access(event) => event.encode(),
            Self::CatalogueProduct(event) => event.encode(),
            Self::Projection(event) => event.encode(),
        }
    }

    /// The registry entry of this value.
    pub fn descriptor(&self) -> &'static EventType {
        match self {
            Self::Subject(event) => event.descriptor(),
            Self::User(event) => event.descriptor(),
            Self::Session(event) => event.descriptor(),
            Self::Entity(event) => event.descriptor(),
            Self::SyncRecovery(event) => event.descriptor(),
            Self::HealthBatch(event) => event.descriptor(),
            Self::Access(event) => event.descriptor(),
            Self::CatalogueProduct(event) => event.descriptor(),
            Self::Projection(event) => event.descriptor(),
        }
    }
}

impl From<SubjectEvent> for AnyEvent {
    fn from(event: SubjectEvent) -> Self {
        Self::Subject(event)
    }
}

impl From<SessionEvent> for AnyEvent {
    fn from(event: SessionEvent) -> Self {
        Self::Session(Box::new(event))
    }
}

impl From<EntityEvent> for AnyEvent {
    fn from(event: EntityEvent) -> Self {
        Self::Entity(Box::new(event))
    }
}

impl From<SyncRecoveryEvent> for AnyEvent {
    fn from(event: SyncRecoveryEvent) -> Self {
        Self::SyncRecovery(Box::new(event))
    }
}

impl From<HealthBatchEvent> for AnyEvent {
    fn from(event: HealthBatchEvent) -> Self {
        Self::HealthBatch(event)
    }
}

impl From<UserEvent> for AnyEvent {
    fn from(event: UserEvent) -> Self {
        Self::User(Box::new(event))
    }
}

impl From<CatalogueProductEvent> for AnyEvent {
    fn from(event: CatalogueProductEvent) -> Self {
        Self::CatalogueProduct(Box::new(event))
    }
}

impl From<AccessEvent> for AnyEvent {
    fn from(event: AccessEvent) -> Self {
        Self::Access(Box::new(event))
    }
}

impl From<ProjectionEvent> for AnyEvent {
    fn from(event: ProjectionEvent) -> Self {
        Self::Projection(Box::new(event))
    }
}
