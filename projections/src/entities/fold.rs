//! The definition of the entity rows: one person's events, folded from the first.

use std::collections::BTreeMap;

use aggregates::entity::{AnyEntity, find_contract_of_stream};
use aggregates::subject::SubjectEvent;
use aggregates::{AnyEvent, Recorded, StreamId};

use super::{Entity, EntityRow};

/// All entities of one person, as of the last event taken in.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    entities: BTreeMap<StreamId, Entity>,
}

impl Fold {
    /// Takes in the next event of the person. Events whose key was destroyed say nothing.
    pub fn apply(&mut self, event: &Recorded) {
        match event.event() {
            Some(AnyEvent::Subject(SubjectEvent::KeyDestroyed(destroyed))) => {
                let gone = Some(destroyed.purpose);
                self.entities.retain(|_, entity| entity.state.contract().purpose != gone);
            }
            Some(happened) => {
                let Some(contract) = find_contract_of_stream(&event.stream.aggregate_type) else {
                    return;
                };
                let new = || Entity {
                    user: event.user,
                    stream: event.stream.clone(),
                    position: 0,
                    state: AnyEntity::new(contract),
                };
                let entity = self.entities.entry(event.stream.clone()).or_insert_with(new);
                entity.state.apply(happened);
                entity.position = event.position;
            }
            None => {}
        }
    }

    /// The entity of a stream.
    pub fn entity(&self, stream: &StreamId) -> Option<&Entity> {
        self.entities.get(stream)
    }

    /// The rows, by stream.
    pub fn rows(&self) -> Vec<EntityRow> {
        self.entities.values().filter_map(Entity::row).collect()
    }
}
