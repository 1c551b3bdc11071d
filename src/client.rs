//! A client of Tidemark's own public API: what a phone would be, without the phone.

pub mod hash;
pub mod wire;
