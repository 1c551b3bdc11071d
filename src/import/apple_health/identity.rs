//! Ids for records that come without one.
//!
//! HealthKit gives every sample a UUID, but `export.xml` leaves it out. A record's id is therefore
//! a version 5 UUID of what it says: type, source name, device, start, end, value, and the number
//! of equal records before it. The same file gives the same ids whenever it is read, and a later
//! export gives them to the records both files hold, with two exceptions that an export cannot
//! tell apart from new data: a renamed source, and a changed unit preference (which rewrites
//! every value of that type).

use std::collections::HashMap;

use uuid::Uuid;

const NAMESPACE: Uuid = Uuid::from_u128(0x5b1f_06a4_92c8_4d6e_a1d0_7c3e_88f2_19b7);

/// How many recent ids each of two generations remembers. Equal records lie close together, so a
/// bounded memory finds them; equal records farther apart share an id, and count once.
const GENERATION: usize = 50_000;

/// What identifies a record.
pub(super) struct Fields<'a> {
    pub(super) hk_type: &'a str,
    pub(super) source: &'a str,
    pub(super) device: &'a str,
    /// Unix milliseconds: the export prints instants in whatever zone the phone is in that day.
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) value: &'a str,
}

/// Gives ids and counts repetitions.
#[derive(Debug, Default)]
pub(super) struct Identities {
    young: HashMap<Uuid, u32>,
    old: HashMap<Uuid, u32>,
}

impl Identities {
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// The record's id and how many equal ones came before it.
    pub(super) fn id(&mut self, fields: &Fields<'_>) -> (Uuid, u32) {
        let first = id(fields, 0);
        let seen = self.young.get(&first).or_else(|| self.old.get(&first));
        let occurrence = seen.map_or(0, |n| n.saturating_add(1));
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(first, occurrence);
        (if occurrence == 0 { first } else { id(fields, occurrence) }, occurrence)
    }
}

fn id(fields: &Fields<'_>, occurrence: u32) -> Uuid {
    let Fields { hk_type, source, device, start_ms, end_ms, value } = fields;
    // Lengths keep neighbouring texts apart.
    let mut name = Vec::with_capacity(160);
    for text in [hk_type, source, &stable_device(device), value] {
        name.extend((text.len() as u64).to_be_bytes());
        name.extend(text.as_bytes());
    }
    name.extend(start_ms.to_be_bytes());
    name.extend(end_ms.to_be_bytes());
    name.extend(occurrence.to_be_bytes());
    Uuid::new_v5(&NAMESPACE, &name)
}

/// The device's description without the memory address that changes with every export:
/// `<<HKDevice: 0x282a45810>, name:Apple Watch, …>` becomes `name:Apple Watch, …`.
pub(super) fn stable_device(device: &str) -> &str {
    let Some(rest) = device.strip_prefix("<<HKDevice: 0x") else { return device };
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    let Some(rest) = rest.strip_prefix('>') else { return device };
    rest.trim_start_matches([',', ' ']).trim_end_matches('>')
}
