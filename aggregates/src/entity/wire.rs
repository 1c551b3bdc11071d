//! How an entity is shown to clients: canonical and older spelling side by side.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::contract::EntityContract;
use super::state::{EntityState, Fields};
use super::time::format_instant;
use crate::UserId;

/// The whole entity with every declared field, null where it is empty. `visible` are the field
/// values to show; for types with derived fields they differ from the stored ones.
pub fn entity(
    contract: &EntityContract,
    id: Uuid,
    user: UserId,
    state: &EntityState,
    visible: &Fields,
) -> Map<String, Value> {
    let mut wire = Map::new();
    wire.insert("id".to_owned(), Value::from(id.to_string()));
    wire.insert("userId".to_owned(), Value::from(user.to_string()));
    for field in contract.fields {
        let value = visible.get(field.name).cloned().unwrap_or(Value::Null);
        if let Some(alias) = field.alias {
            wire.insert(alias.to_owned(), value.clone());
        }
        wire.insert(field.name.to_owned(), value);
    }
    wire.insert("version".to_owned(), Value::from(state.version));
    wire.insert("createdAt".to_owned(), Value::from(format_instant(state.created_at_ms)));
    wire.insert("updatedAt".to_owned(), Value::from(format_instant(state.updated_at_ms)));
    wire
}
