//! What an entity type looks like, declared as data.

use crate::conflict::Policy;
use crate::{EventType, Purpose};

/// What a field may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Characters, counted as Unicode scalar values.
    Text {
        min: usize,
        max: usize,
    },
    Int {
        min: i64,
        max: i64,
    },
    Number {
        min: f64,
        max: f64,
    },
    /// A decimal string with exactly `scale` places. `precision` counts all digits.
    Decimal {
        precision: u32,
        scale: u32,
        signed: bool,
    },
    Bool,
    /// RFC 3339, stored in UTC with milliseconds.
    Instant,
    /// `YYYY-MM-DD`.
    Date,
    /// One of these words, exactly.
    Enum(&'static [&'static str]),
    /// One of these words in any case; stored in upper case.
    EnumAnyCase(&'static [&'static str]),
    Uuid,
    /// The id of another entity of this wire type. `strict` admits UUIDs only.
    Ref {
        target: &'static str,
        strict: bool,
    },
    Object,
    TextList {
        max_items: usize,
        max_len: usize,
    },
}

/// When a client's value for a field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    Always,
    /// Until it is set: identities.
    Once,
    /// In a CREATE; later values are derived or fixed.
    OnCreate,
    /// Never: the server derives it.
    Never,
}

/// What a field holds after a creation that does not mention it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldDefault {
    Empty,
    Bool(bool),
    Text(&'static str),
}

/// One field of an entity type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field {
    /// The canonical name, in events and on the wire.
    pub name: &'static str,
    /// The older spelling some clients use; accepted and emitted beside the name.
    pub alias: Option<&'static str>,
    pub kind: Kind,
    pub required_on_create: bool,
    /// Whether an explicit null clears it.
    pub nullable: bool,
    pub writable: Writable,
    pub default: FieldDefault,
    pub policy: Policy,
}

impl Field {
    /// An optional, nullable field that clients may always write.
    pub const fn new(name: &'static str, kind: Kind, policy: Policy) -> Self {
        Self {
            name,
            alias: None,
            kind,
            required_on_create: false,
            nullable: true,
            writable: Writable::Always,
            default: FieldDefault::Empty,
            policy,
        }
    }

    /// A field the server computes.
    pub const fn derived(name: &'static str, kind: Kind) -> Self {
        Self::new(name, kind, Policy::ServerDerived).writable(Writable::Never)
    }

    /// Required in a CREATE and never empty.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required_on_create = true;
        self.nullable = false;
        self
    }

    /// Never empty once it has a value.
    #[must_use]
    pub const fn not_null(mut self) -> Self {
        self.nullable = false;
        self
    }

    /// With a second spelling.
    #[must_use]
    pub const fn alias(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }

    /// With a rule for when it may be written.
    #[must_use]
    pub const fn writable(mut self, writable: Writable) -> Self {
        self.writable = writable;
        self
    }

    /// With a value for creations that do not mention it.
    #[must_use]
    pub const fn default(mut self, default: FieldDefault) -> Self {
        self.default = default;
        self
    }
}

/// An entity type: its names, its fields and its events.
#[derive(Debug, PartialEq)]
pub struct EntityContract {
    /// The wire's name: `consumptions`.
    pub entity_type: &'static str,
    /// Other names accepted on input, compared without regard to case.
    pub aliases: &'static [&'static str],
    /// The stream's type: `consumption`.
    pub aggregate_type: &'static str,
    /// The key that seals it.
    pub purpose: Option<Purpose>,
    /// The field with the client's own id, unique per user for ever.
    pub client_id_field: Option<&'static str>,
    /// Parents come before children in a pull: a lower number first.
    pub sync_order: u8,
    /// Whether its events are created, updated and deleted, in this order, and its state is the
    /// field map alone. Other types bring their own aggregate.
    pub plain: bool,
    pub fields: &'static [Field],
    /// Its event types.
    pub events: &'static [EventType],
}

impl EntityContract {
    /// The field with this canonical name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The field with this name or alias.
    pub fn field_spelled(&self, name: &str) -> Option<&'static Field> {
        self.field(name)
            .or_else(|| self.fields.iter().find(|field| field.alias.is_some_and(|a| a == name)))
    }

    /// The fields that point at other entities: field, wire type of the target.
    pub fn references(&self) -> impl Iterator<Item = (&'static Field, &'static str)> {
        self.fields.iter().filter_map(|field| match field.kind {
            Kind::Ref { target, .. } => Some((field, target)),
            _ => None,
        })
    }
}

/// All entity types, in the order in which a pull delivers them.
pub static CONTRACTS: [&EntityContract; 2] =
    [&crate::session::CONTRACT, &crate::consumption::CONTRACT];

/// The contract of a wire type, by its canonical name or an alias in any case.
pub fn find_contract(entity_type: &str) -> Option<&'static EntityContract> {
    let named = |name: &str| name.eq_ignore_ascii_case(entity_type);
    CONTRACTS
        .into_iter()
        .find(|contract| named(contract.entity_type) || contract.aliases.iter().any(|a| named(a)))
}

/// The types of the protocol, with the other names clients have for them.
static PROTOCOL_TYPES: [(&str, &[&str]); 9] = [
    ("products", &["product"]),
    ("devices", &["device"]),
    ("purchases", &["purchase"]),
    ("inventory_items", &["inventory_item", "inventoryItem"]),
    ("sessions", &["session"]),
    ("consumptions", &["consumption"]),
    ("journal_entries", &["journal_entry", "journalEntry", "journals", "journal"]),
    ("goals", &["goal"]),
    ("ai_usage_records", &["ai_usage_record", "aiUsageRecord"]),
];

/// Whether the protocol has a type of this name, in any case. Of some of them the server keeps
/// nothing yet: [`find_contract`] does not know those.
pub fn is_protocol_type(entity_type: &str) -> bool {
    let named = |name: &str| name.eq_ignore_ascii_case(entity_type);
    PROTOCOL_TYPES.iter().any(|(name, aliases)| named(name) || aliases.iter().any(|a| named(a)))
}

/// The contract of a stream's type.
pub fn find_contract_of_stream(aggregate_type: &str) -> Option<&'static EntityContract> {
    CONTRACTS.into_iter().find(|contract| contract.aggregate_type == aggregate_type)
}
