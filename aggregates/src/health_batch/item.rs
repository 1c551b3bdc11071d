//! The elements of a request as they were sent: one array of fields each instead of a tree, texts
//! borrowed from the body. An upload holds up to a thousand of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::wire::MAX_ITEMS;

/// A field that an element may have; ordered as in canonical text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Field {
    CategoryCode,
    DeletedAt,
    DeviceId,
    DurationSeconds,
    EndAt,
    ExternalUuid,
    Metadata,
    MetricCode,
    ModifiedAt,
    RecordVersion,
    SourceId,
    SourceRecordId,
    StartAt,
    TimezoneOffsetMinutes,
    Unit,
    Value,
    ValueKind,
}

/// Names of the fields, by their number and thereby sorted.
pub(super) const NAMES: [&str; 17] = [
    "categoryCode",
    "deletedAt",
    "deviceId",
    "durationSeconds",
    "endAt",
    "externalUuid",
    "metadata",
    "metricCode",
    "modifiedAt",
    "recordVersion",
    "sourceId",
    "sourceRecordId",
    "startAt",
    "timezoneOffsetMinutes",
    "unit",
    "value",
    "valueKind",
];

/// What a field holds; never null, which is as good as absent.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content<'a> {
    Text(Cow<'a, str>),
    /// A text that the batch keeps as well.
    Shared(Arc<str>),
    Number(Number),
    Other(Box<Value>),
}

/// One element.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Item<'a> {
    pub(super) fields: [Option<Content<'a>>; NAMES.len()],
    /// Fields of other names.
    pub(super) others: BTreeMap<String, Value>,
}

impl<'a> Item<'a> {
    pub(super) fn get(&self, field: Field) -> Option<&Content<'a>> {
        self.fields[field as usize].as_ref()
    }

    pub(super) fn get_mut(&mut self, field: Field) -> Option<&mut Content<'a>> {
        self.fields[field as usize].as_mut()
    }

    pub(super) fn set(&mut self, field: Field, content: Option<Content<'a>>) {
        self.fields[field as usize] = content;
    }

    /// The text of a field, if it holds one.
    pub(super) fn text(&self, field: Field) -> Option<&str> {
        self.get(field).and_then(Content::text)
    }

    /// Forgets all other fields.
    pub(super) fn keep(&mut self, fields: &[Field]) {
        for (number, content) in self.fields.iter_mut().enumerate() {
            if !fields.iter().any(|kept| *kept as usize == number) {
                *content = None;
            }
        }
        self.others.clear();
    }
}

impl Content<'_> {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Shared(text) => Some(text),
            Self::Number(_) | Self::Other(_) => None,
        }
    }

    pub(super) fn number(&self) -> Option<&Number> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }
}

/// The body with its elements read and the rest as it came. Where a member is named twice, the
/// last one counts.
#[derive(Debug, Default)]
pub(super) struct Body<'a> {
    pub(super) members: Map<String, Value>,
    pub(super) samples: Option<Vec<Item<'a>>>,
    pub(super) deleted: Option<Vec<Item<'a>>>,
}

struct Items<'a>(Vec<Item<'a>>);

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct BodyVisitor;
struct ItemsVisitor;
struct ItemVisitor;
struct ContentVisitor;

impl<'de> Deserialize<'de> for Body<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BodyVisitor)
    }
}

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor)
    }
}

impl<'de> Deserialize<'de> for Item<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ItemVisitor)
    }
}

impl<'de> Deserialize<'de> for Content<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body<'de>, A::Error> {
        let mut body = Body::default();
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "samples" => body.samples = map.next_value::<Option<Items<'_>>>()?.map(|i| i.0),
                "deleted" => body.deleted = map.next_value::<Option<Items<'_>>>()?.map(|i| i.0),
                _ => match map.next_value()? {
                    Value::Null => drop(body.members.remove(&*name)),
                    value => drop(body.members.insert(name.into_owned(), value)),
                },
            }
        }
        Ok(body)
    }
}

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX_ITEMS} objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Items<'de>, A::Error> {
        let mut items = Vec::with_capacity(64);
        while let Some(item) = elements.next_element()? {
            if items.len() == MAX_ITEMS {
                return Err(A::Error::invalid_length(MAX_ITEMS + 1, &self));
            }
            items.push(item);
        }
        Ok(Items(items))
    }
}

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item<'de>, A::Error> {
        let mut item = Item::default();
        while let Some(Name(name)) = map.next_key()? {
            match NAMES.binary_search(&&*name) {
                Ok(number) => item.fields[number] = map.next_value()?,
                Err(_) => match map.next_value()? {
                    Value::Null => drop(item.others.remove(&*name)),
                    value => drop(item.others.insert(name.into_owned(), value)),
                },
            }
        }
        Ok(item)
    }
}

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Content<'de>, E> {
        Ok(Content::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Content<'de>, E> {
        Ok(Content::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Content<'de>, E> {
        Ok(Content::Number(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Content<'de>, E> {
        Ok(Content::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Content<'de>, E> {
        Number::from_f64(number)
            .map(Content::Number)
            .ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Content<'de>, E> {
        Ok(Content::Other(Box::new(Value::Bool(truth))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Content<'de>, A::Error> {
        let value = Value::deserialize(SeqAccessDeserializer::new(elements))?;
        Ok(Content::Other(Box::new(value)))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Content<'de>, A::Error> {
        let value = Value::deserialize(MapAccessDeserializer::new(members))?;
        Ok(Content::Other(Box::new(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_fields_numbered_by_them() {
        assert!(NAMES.is_sorted());
        assert_eq!(NAMES[Field::CategoryCode as usize], "categoryCode");
        assert_eq!(NAMES[Field::Metadata as usize], "metadata");
        assert_eq!(NAMES[Field::SourceRecordId as usize], "sourceRecordId");
        assert_eq!(NAMES[Field::ValueKind as usize], "valueKind");
    }

    #[test]
    fn the_last_of_two_members_counts_and_null_is_nothing() {
        let body: Body<'_> = serde_json::from_str(
            r#"{"x": 1, "x": null, "deleted": [{}], "deleted": null,
                "samples": [{"unit": "a", "unit": null, "value": 1, "value": -2.5, "y": 1, "y": null,
                             "sourceId": "\u0041", "metadata": {"a": [1]}}]}"#,
        )
        .unwrap();
        assert!(body.members.is_empty() && body.deleted.is_none());
        let items = body.samples.unwrap();
        assert_eq!(items[0].get(Field::Unit), None);
        assert_eq!(
            items[0].get(Field::Value).and_then(Content::number).unwrap().as_f64(),
            Some(-2.5)
        );
        assert_eq!(items[0].text(Field::SourceId), Some("A"));
        assert!(items[0].others.is_empty());
        let metadata = Content::Other(Box::new(serde_json::json!({"a": [1]})));
        assert_eq!(items[0].get(Field::Metadata), Some(&metadata));
    }
}
