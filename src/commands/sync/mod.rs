//! Changes of synced entities, and their way to other devices.
//!
//! | Module | Holds |
//! |---|---|
//! | [`mod@settle`] | decides asks on a desk and writes what comes of them: the way in for everything |
//! | [`mod@push`] | a phone's changes |
//! | [`mod@pull`] | what has changed since a cursor |
//! | [`active`] | the session that goes on right now |
//! | [`mod@explain`] | how an entity became what it is |
//! | `facts` | what a desk needs to know, from the log |
//! | `names` | keyed hashes that stand for client ids and devices |
//!
//! REST and push both go through [`settle::settle`], so a change has the same consequences whatever
//! its source.

pub mod active;
pub mod explain;
mod facts;
mod names;
pub mod pull;
pub mod push;
pub mod settle;

pub use settle::{Applied, Settled, Wish, settle, settle_one};
