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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::uuid;

    use super::*;

    const USER: UserId = UserId(uuid!("11111111-2222-4333-8444-555555555555"));

    fn key(byte: u8) -> CursorKey {
        CursorKey::new(&[byte; 32])
    }

    fn place() -> impl Strategy<Value = CursorId> {
        (any::<u8>(), 0..POSITION_LIMIT, 0..TYPE_CODE_LIMIT)
            .prop_map(|(epoch, position, code)| CursorId::new(epoch, position, code).unwrap())
    }

    /// Computed outside this program from the layout above. Phones keep these ids for months.
    #[test]
    fn layout_never_changes() {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
        let id = CursorId::new(3, 0x1_2345_6789_abcd, 9).unwrap();
        assert_eq!(
            id.pack(&CursorKey::new(&bytes), USER),
            uuid!("03123456-789a-8bcd-896d-cc0ea89bfa76")
        );
    }

    #[test]
    fn limits_hold() {
        assert!(CursorId::new(255, POSITION_LIMIT - 1, 63).is_some());
        assert!(CursorId::new(0, POSITION_LIMIT, 0).is_none());
        assert!(CursorId::new(0, -1, 0).is_none());
        assert!(CursorId::new(0, 0, 64).is_none());
    }

    proptest! {
        #[test]
        fn comes_back_for_its_user_and_key(place in place()) {
            let id = place.pack(&key(1), USER);
            prop_assert_eq!(id.get_version_num(), 8);
            prop_assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
            prop_assert_eq!(CursorId::unpack(&key(1), USER, id), Some(place));
            prop_assert_eq!(CursorId::unpack(&key(2), USER, id), None);
            prop_assert_eq!(CursorId::unpack(&key(1), UserId(Uuid::nil()), id), None);
        }

        #[test]
        fn text_order_is_position_order(one in place(), two in place(), near in 0_i64..5) {
            let beside = (one.position + near).min(POSITION_LIMIT - 1);
            let three = CursorId::new(one.epoch, beside, two.type_code).unwrap();
            for other in [two, three] {
                let texts = [one, other].map(|place| place.pack(&key(1), USER).to_string());
                let places = [one, other].map(|place| (place.epoch, place.position));
                if places[0] != places[1] {
                    prop_assert_eq!(texts[0].cmp(&texts[1]), places[0].cmp(&places[1]));
                }
            }
        }

        #[test]
        fn any_flipped_bit_is_noticed(place in place(), bit in 0_u32..128) {
            let id = place.pack(&key(1), USER).as_u128() ^ 1 << bit;
            prop_assert_eq!(CursorId::unpack(&key(1), USER, Uuid::from_u128(id)), None);
        }

        #[test]
        fn foreign_ids_are_noticed(id: u128) {
            prop_assert_eq!(CursorId::unpack(&key(1), USER, Uuid::from_u128(id)), None);
        }
    }
}
