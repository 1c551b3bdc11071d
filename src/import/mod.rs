//! Ways into Tidemark for data that already exists elsewhere.

pub mod apple_health;
