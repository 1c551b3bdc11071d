//! The sync cursor's id on the wire.
//!
//! Clients treat it as an entity's id and compare it as text. It is a UUID of version 8 whose text
//! order is the order of epoch and position, and it carries a tag, so that the server can tell an
//! id of its own making from any other without storing it.
//!
//! ```text
//! 48 bits  epoch (8) ‖ position, bits 51 to 12
//!  4 bits  version, 8
//! 12 bits  position, bits 11 to 0
//!  2 bits  variant, binary 10
//! 62 bits  type code (6) ‖ tag (56)
//!
//! tag = first 56 bits of HMAC-SHA-256(cursor key, user ‖ epoch ‖ position ‖ type code)
//! ```
//!
//! 56 bits are enough: a forged id gives no access, it only moves the forger's own cursor.

use std::fmt;

use aggregates::UserId;
use aws_lc_rs::{constant_time, hmac};
use uuid::Uuid;

use super::fields::Fields;

/// Positions are below this: 52 bits.
pub const POSITION_LIMIT: i64 = 1 << 52;
/// Type codes are below this: 6 bits.
pub const TYPE_CODE_LIMIT: u8 = 1 << 6;

const TAG_LEN: usize = 7;

/// The server's key for cursor tags.
#[derive(Clone)]
pub struct CursorKey(hmac::Key);

impl fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorKey(..)")
    }
}

impl CursorKey {
    /// The key with these bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    fn tag(&self, user: UserId, id: CursorId) -> [u8; TAG_LEN] {
        let fields = Fields::labelled("cursor")
            .uuid(user.0)
            .integer(i64::from(id.epoch))
            .integer(id.position)
            .integer(i64::from(id.type_code));
        let full = hmac::sign(&self.0, fields.as_ref());
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&full.as_ref()[..TAG_LEN]);
        tag
    }
}

/// A place in the sync feed. Ordered as its text is: by epoch, then position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorId {
    epoch: u8,
    position: i64,
    type_code: u8,
}

impl CursorId {
    /// The place, if `position` is in 0..2⁵² and `type_code` below 64.
    pub fn new(epoch: u8, position: i64, type_code: u8) -> Option<Self> {
        let fits = (0..POSITION_LIMIT).contains(&position) && type_code < TYPE_CODE_LIMIT;
        fits.then_some(Self { epoch, position, type_code })
    }

    /// Which history of the log the position is of; it rises at a failover.
    pub fn epoch(self) -> u8 {
        self.epoch
    }

    /// The place in the whole log; 0 is before the first event.
    pub fn position(self) -> i64 {
        self.position
    }

    /// The code of the entity type at that position.
    pub fn type_code(self) -> u8 {
        self.type_code
    }

    /// The id for one user. Its lower-case text form is what goes on the wire.
    pub fn pack(self, key: &CursorKey, user: UserId) -> Uuid {
        let position = self.position.unsigned_abs();
        let high = u64::from(self.epoch) << 56 | (position >> 12) << 16 | 0x8000 | position & 0xfff;
        let mut tag = [0; 8];
        tag[1..].copy_from_slice(&key.tag(user, self));
        let low = 1 << 63 | u64::from(self.type_code) << 56 | u64::from_be_bytes(tag);
        Uuid::from_u64_pair(high, low)
    }

    /// The place that `id` names, or `None` where it was not made with this key for this user:
    /// then the caller falls back to the cursor's time.
    pub fn unpack(key: &CursorKey, user: UserId, id: Uuid) -> Option<Self> {
        let (high, low) = id.as_u64_pair();
        if high & 0xf000 != 0x8000 || low >> 62 != 0b10 {
            return None;
        }
        let epoch = u8::try_from(high >> 56).ok()?;
        let position = i64::try_from((high >> 16 & 0xff_ffff_ffff) << 12 | high & 0xfff).ok()?;
        let type_code = u8::try_from(low >> 56 & 0x3f).ok()?;
        let place = Self::new(epoch, position, type_code)?;

        let tag = &low.to_be_bytes()[1..];
        constant_time::verify_slices_are_equal(&key.tag(user, place), tag).ok()?;
        Some(place)
    }
}
