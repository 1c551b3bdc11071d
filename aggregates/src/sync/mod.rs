//! Offline-first synchronisation as pure functions: what a pushed change does, and what a pull
//! delivers.
//!
//! | Module | Holds |
//! |---|---|
//! | [`desk`] | decides changes of entities with all their consequences, in memory |
//! | [`push`] | the wire's push items: parsing, ordering, answers |
//! | [`cursor`] | the wire's cursors |
//! | [`pull`] | which rows a page of changes holds |
//!
//! The server and the simulation of many phones call the same functions; only where facts come
//! from and where events go differs.

mod base64;
pub mod cursor;
pub mod desk;
pub mod pull;
pub mod push;

#[cfg(test)]
mod tests;

use crate::AnyEvent;
use crate::conflict::Resolution;
use crate::entity::Edit;

/// When and where the change behind an event of an entity was made.
pub fn edit_of(event: &AnyEvent) -> Option<&Edit> {
    match event {
        AnyEvent::Session(event) => Some(event.edit()),
        AnyEvent::Entity(event) => Some(event.edit()),
        _ => None,
    }
}

/// How the change behind an event was merged, if it met another.
pub fn resolution_of(event: &AnyEvent) -> Option<&Resolution> {
    match event {
        AnyEvent::Session(event) => event.resolution(),
        AnyEvent::Entity(event) => event.resolution(),
        _ => None,
    }
}
