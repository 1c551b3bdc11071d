//! Reading of request bodies against a slow and simple reading of the same bodies.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::canonical::{self, envelope};
use super::*;

const METADATA: [&str; 2] = ["osName", "isManualEntry"];
const FIELDS: [&str; 16] = [
    "metricCode",
    "valueKind",
    "value",
    "unit",
    "categoryCode",
    "endAt",
    "durationSeconds",
    "timezoneOffsetMinutes",
    "deviceId",
    "externalUuid",
    "metadata",
    "recordVersion",
    "modifiedAt",
    "deletedAt",
    "somethingElse",
    "Ünbekannt",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1000i64..1000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0i32..99999).prop_map(|n| Value::from(f64::from(n) / 100.0)),
        "[a-zA-Z \"\\\\\n\u{1}\u{7f}é𐀀\u{ffff}]{0,6}".prop_map(Value::from),
        (0i64..99).prop_map(|n| Value::from(iso(MARCH + n * HOUR))),
        Just(json!("heart_rate")),
        Just(json!("SCALAR_NUM")),
    ];
    leaf.prop_recursive(2, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(
                prop_oneof![prop::sample::select(&METADATA[..]).prop_map(str::to_owned), "[a-c]"],
                inner,
                0..3
            )
            .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn element()(
        source in prop::sample::select(&["s", " s ", "t", "é", "𐀀", "\u{ffff}"][..]),
        record in prop::sample::select(&["A", "a", "b", "ÄÖ", "B|x"][..]),
        start in prop::option::of(0i64..3),
        fields in prop::collection::btree_map(prop::sample::select(&FIELDS[..]), value(), 0..6),
    ) -> Map<String, Value> {
        let mut element: Map<String, Value> =
            fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        element.insert("sourceId".to_owned(), source.into());
        element.insert("sourceRecordId".to_owned(), record.into());
        if let Some(start) = start {
            element.insert("startAt".to_owned(), iso(MARCH + start).into());
        }
        element
    }
}

/// The canonical text of one array, as its definition reads.
fn reference(elements: &[Map<String, Value>], members: &[&str]) -> String {
    let mut texts: Vec<(Vec<Vec<u16>>, Vec<u16>, String)> = elements
        .iter()
        .map(|element| {
            let mut element = element.clone();
            if let Some(Value::String(record)) = element.get_mut("sourceRecordId") {
                *record = record.to_lowercase();
            }
            if let Some(Value::Object(metadata)) = element.get_mut("metadata") {
                metadata.retain(|name, value| METADATA.contains(&&**name) && !value.is_null());
            }
            let member = |name: &&str| element.get(*name).and_then(Value::as_str).unwrap_or("");
            let order = members.iter().map(|name| member(name).encode_utf16().collect()).collect();
            let text = canonical::object(&element);
            (order, text.encode_utf16().collect(), text)
        })
        .collect();
    texts.sort();
    let texts: Vec<String> = texts.into_iter().map(|(_, _, text)| text).collect();
    texts.join(",")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The text is hashed into receipts, so it must never change.
    #[test]
    fn content_is_the_canonical_text_of_the_request(
        mut samples in prop::collection::vec(element(), 0..6),
        deleted in prop::collection::vec(element(), 1..4),
    ) {
        for sample in &mut samples {
            sample.entry("startAt").or_insert_with(|| iso(MARCH).into());
        }
        let sent = |elements: &[Map<String, Value>]| -> Vec<Value> {
            elements.iter().cloned().map(Value::Object).collect()
        };
        let batch = batch(&sent(&samples), &sent(&deleted));
        let mut bare = deleted.clone();
        for deletion in &mut bare {
            deletion.retain(|name, _| ["sourceId", "sourceRecordId", "startAt"].contains(&&**name));
        }
        let order =
            ["sourceId", "sourceRecordId", "metricCode", "startAt", "endAt", "valueKind"];
        let expected = envelope(&reference(&samples, &order), &reference(&bare, &order[..4]));
        prop_assert_eq!(&batch.content, &expected);
        prop_assert_eq!((batch.samples.len(), batch.deletions.len()), (samples.len(), deleted.len()));
        for (item, sent) in batch.samples.iter().zip(&samples) {
            let strange = sent.iter().any(|(name, value)| {
                ["deletedAt", "somethingElse", "Ünbekannt"].contains(&&**name) && !value.is_null()
            });
            prop_assert!(!strange || item.content.is_err());
            let sent_end = sent.get("endAt").and_then(Value::as_str);
            let end = sent_end.and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
            prop_assert_eq!(item.end_ms, end.map(|at| at.timestamp_millis()));
        }
    }

    #[test]
    fn bodies_of_any_shape_are_read_or_refused_with_a_reason(body in value(), name in "[a-z]{3}") {
        let _ = Batch::parse(body.to_string().as_bytes());
        for body in [
            json!({"requestId": body, "samples": []}),
            json!({"samples": body, "deleted": [{}]}),
            json!({"samples": [body]}),
            json!({name: body, "samples": [{}]}),
        ] {
            prop_assert!(Batch::parse(body.to_string().as_bytes()).is_err());
        }
    }
}

#[test]
fn a_fault_of_the_envelope_is_named() {
    let with = |name: &str, value: Value| {
        let mut body: Value = serde_json::from_slice(&body(1, &[], &[])).unwrap();
        body[name] = value;
        Batch::parse(body.to_string().as_bytes()).unwrap_err().to_string()
    };
    let many: Vec<Value> = vec![json!({}); MAX_ITEMS + 1];
    assert_eq!(with("samples", json!({})), "samples must be an array");
    assert_eq!(with("samples", Value::Null), "samples must be an array");
    assert_eq!(with("samples", json!([{}, 7])), "samples[1] must be an object");
    assert_eq!(with("deleted", json!([null])), "deleted[0] must be an object");
    assert_eq!(with("deleted", json!(many)), "deleted holds more than 500 items");
    assert_eq!(with("colour", json!(1)), "colour is not a field of this request");
    assert_eq!(with("colour", Value::Null), "samples and deleted are both empty");
    assert_eq!(with("requestId", json!("x")), "requestId must be a UUID");
    for body in ["", "7", "[]", "{", r#"{"samples": "#] {
        let fault = Batch::parse(body.as_bytes()).unwrap_err().to_string();
        assert_eq!(fault, "the body must be a JSON object");
    }
}
