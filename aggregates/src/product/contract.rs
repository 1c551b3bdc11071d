//! What a product looks like.

use super::event;
use crate::conflict::{Nulls, Policy};
use crate::entity::{EntityContract, Field, FieldDefault, Kind};

const LOCAL: Policy = Policy::LocalWins(Nulls::Count);
const PERCENT: Kind = Kind::Number { min: 0.0, max: 100.0 };

const TYPES: &[&str] = &[
    "NATURAL",
    "INGESTIBLE",
    "EXTRACT",
    "TINCTURE",
    "TOPICAL",
    "INHALER",
    "CARTRIDGE",
    "PREPARED",
    "OTHER",
];

const WORDS: Kind = Kind::TextList { max_items: 100, max_len: 100 };

/// The product contract, as far as the catalogue needs it.
pub static CONTRACT: EntityContract = EntityContract {
    entity_type: "products",
    aliases: &["product"],
    aggregate_type: event::TYPE,
    purpose: None,
    client_id_field: None,
    sync_order: 1,
    plain: false,
    fields: &[
        Field::new("name", Kind::Text { min: 1, max: 200 }, LOCAL).required(),
        Field::new("type", Kind::Enum(TYPES), LOCAL)
            .not_null()
            .default(FieldDefault::Text("OTHER")),
        Field::new("category", Kind::Text { min: 0, max: 100 }, LOCAL),
        Field::new("primaryCompound", PERCENT, LOCAL).alias("compoundAContent"),
        Field::new("secondaryCompound", PERCENT, LOCAL).alias("compoundBContent"),
        Field::new("compounds", Kind::Object, Policy::DeepMerge).alias("attributes"),
        Field::new("description", Kind::Text { min: 0, max: 2000 }, LOCAL),
        Field::new("effects", WORDS, Policy::MergeArrays),
        Field::new("medicalUses", WORDS, Policy::MergeArrays),
        Field::new(
            "variantCategory",
            Kind::Enum(&["TYPE_A", "TYPE_B", "BLENDED", "UNKNOWN"]),
            LOCAL,
        )
        .alias("variantGenetics"),
        Field::new("typeAPercentage", PERCENT, LOCAL),
        Field::new("typeBPercentage", PERCENT, LOCAL),
        Field::new("genetics", Kind::Text { min: 0, max: 200 }, LOCAL),
        Field::new("isPublic", Kind::Bool, Policy::ServerWins)
            .not_null()
            .default(FieldDefault::Bool(true)),
    ],
    events: &event::TYPES,
};
