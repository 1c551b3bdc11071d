//! What entities look like on the wire, described from their contracts.

use aggregates::entity::{EntityContract, Kind, Writable};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    ArrayBuilder, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};

/// An entity as it is answered: every field in both spellings, null where it is empty.
pub fn shown(contract: &EntityContract) -> RefOr<Schema> {
    let id = || text(Some(KnownFormat::Uuid));
    let instant = || text(Some(KnownFormat::DateTime));
    let mut object = ObjectBuilder::new().property("id", id()).property("userId", id());
    for field in contract.fields {
        object = object.property(field.name, value(&field.kind, true)).required(field.name);
        if let Some(alias) = field.alias {
            let spelled = value(&field.kind, true);
            object = object.property(alias, spelled).required(alias);
        }
    }
    let version = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .description(Some("1 for a new one, one more with each accepted change"))
        .build();
    object
        .property("version", version)
        .property("createdAt", instant())
        .property("updatedAt", instant())
        .required("id")
        .required("userId")
        .required("version")
        .required("createdAt")
        .required("updatedAt")
        .into()
}

/// What a client may say of an entity: in a creation, with the fields one needs, or in an update.
/// Unknown and derived fields are ignored.
pub fn given(contract: &EntityContract, creation: bool) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new();
    if creation {
        object = object.property("id", text(Some(KnownFormat::Uuid)));
    } else {
        let known = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("The `updatedAt` that was read; another one is refused with 409"));
        object = object.property("lastKnownUpdatedAt", known);
    }
    for field in contract.fields {
        let settable = match field.writable {
            Writable::Always => true,
            Writable::Once | Writable::OnCreate => creation,
            Writable::Never => false,
        };
        if !settable || (field.name == "status" && !creation) {
            continue;
        }
        object = object.property(field.name, value(&field.kind, field.nullable));
        if let Some(alias) = field.alias {
            object = object.property(alias, value(&field.kind, field.nullable));
        }
        if creation && field.required_on_create {
            object = object.required(field.name);
        }
    }
    object.into()
}

fn text(format: Option<KnownFormat>) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(format.map(SchemaFormat::KnownFormat))
        .build()
}

fn value(kind: &Kind, nullable: bool) -> Schema {
    let of = |kind: Type| {
        let types = if nullable { vec![kind, Type::Null] } else { vec![kind] };
        SchemaType::Array(types)
    };
    let object = |kind: Type| ObjectBuilder::new().schema_type(of(kind));
    let formatted = |format| {
        object(Type::String).format(Some(SchemaFormat::KnownFormat(format))).build().into()
    };
    match kind {
        Kind::Text { max, .. } => object(Type::String).max_length(Some(*max)).build().into(),
        Kind::Int { min, .. } => object(Type::Integer).minimum(Some(*min as f64)).build().into(),
        Kind::Number { .. } => object(Type::Number).build().into(),
        Kind::Decimal { scale, .. } => object(Type::String)
            .description(Some(format!("A decimal with {scale} places")))
            .build()
            .into(),
        Kind::Bool => object(Type::Boolean).build().into(),
        Kind::Instant => formatted(KnownFormat::DateTime),
        Kind::Date => formatted(KnownFormat::Date),
        Kind::Enum(words) | Kind::EnumAnyCase(words) => {
            object(Type::String).enum_values(Some(words.iter().copied())).build().into()
        }
        Kind::Uuid | Kind::Ref { strict: true, .. } => formatted(KnownFormat::Uuid),
        Kind::Ref { strict: false, .. } => object(Type::String).build().into(),
        Kind::Object => object(Type::Object).build().into(),
        Kind::TextList { .. } => {
            ArrayBuilder::new().schema_type(of(Type::Array)).items(text(None)).build().into()
        }
    }
}
