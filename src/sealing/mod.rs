//! Personal content as ciphertext, and the hashes and tags that prove what was stored.
//!
//! | Module | Holds |
//! |---|---|
//! | [`envelope`] | one sealed blob: AES-256-GCM over compressed and padded bytes |
//! | [`aad`] | what a sealed blob is bound to, so that it cannot be moved |
//! | [`content`] | the plaintext of an event: payload, metadata and packed part in one |
//! | [`leaf`] | the hash of one stored event in the transparency log |
//! | [`cursor`] | sync cursor ids that sort by position and cannot be forged |
//! | [`padme`] | how far a plaintext is padded |
//!
//! Nothing here does IO or knows where keys come from.

pub mod aad;
pub mod content;
pub mod cursor;
pub mod envelope;
pub mod leaf;
pub mod padme;

mod fields;

pub use aad::{Aad, EventContext};
pub use content::{EventContent, EventParts};
pub use cursor::{CursorId, CursorKey};
pub use envelope::{OpenError, SealError, SealingKey};
pub use leaf::{LeafHash, LeafInput};

pub(crate) use fields::Fields;
