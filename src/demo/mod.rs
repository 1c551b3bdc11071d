//! The demonstration: generated people and simulated phones, which know the public API only.

pub mod people;
pub mod phone;
mod random;
pub mod story;
