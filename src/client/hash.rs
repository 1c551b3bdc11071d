//! The payload hash of health batches.
//!
//! SHA-256 over canonical JSON (RFC 8785) of `{"deleted": […], "samples": […]}`, so that it
//! depends neither on key order nor on the order of the items.

use serde_json::Value;

use super::wire::{Deletion, Sample};

const SAMPLE_KEYS: [&str; 6] =
    ["sourceId", "sourceRecordId", "metricCode", "startAt", "endAt", "valueKind"];
const DELETION_KEYS: [&str; 3] = ["sourceId", "sourceRecordId", "startAt"];

/// The hash the server expects beside these items, 64 lower-case hex digits.
pub fn payload_hash(samples: &[Sample], deleted: &[Deletion]) -> String {
    let deleted = deleted.iter().map(|deletion| {
        // The device's clock may read differently when the same deletion is sent again.
        to_value(&Deletion { deleted_at: None, ..deletion.clone() })
    });
    let text = format!(
        r#"{{"deleted":{},"samples":{}}}"#,
        sorted(deleted, &DELETION_KEYS),
        sorted(samples.iter().map(to_value), &SAMPLE_KEYS)
    );
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()))
}

fn to_value(item: &impl serde::Serialize) -> Value {
    // Plain structs with text keys always convert.
    serde_json::to_value(item).unwrap_or(Value::Null)
}

fn sorted(items: impl Iterator<Item = Value>, keys: &[&str]) -> String {
    let mut items: Vec<(Vec<Vec<u16>>, String)> = items
        .map(|item| {
            let key = |name: &&str| utf16(item[*name].as_str().unwrap_or_default());
            (keys.iter().map(key).collect(), canonical(&item))
        })
        .collect();
    items.sort_by(|(a, a_text), (b, b_text)| {
        a.cmp(b).then_with(|| a_text.encode_utf16().cmp(b_text.encode_utf16()))
    });
    let texts: Vec<String> = items.into_iter().map(|(_, text)| text).collect();
    format!("[{}]", texts.join(","))
}

fn utf16(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

/// Canonical JSON of `value`: sorted keys, no nulls in objects, ECMAScript numbers.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().filter(|(_, v)| !v.is_null()).collect();
            members.sort_by_key(|(name, _)| utf16(name));
            let texts: Vec<String> = members
                .into_iter()
                .map(|(name, v)| format!("{}:{}", Value::from(name.as_str()), canonical(v)))
                .collect();
            format!("{{{}}}", texts.join(","))
        }
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", texts.join(","))
        }
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), ecmascript),
        scalar => scalar.to_string(),
    }
}

/// A number as `JSON.stringify` writes it: the shortest digits that read back to the same
/// number, in plain notation for exponents from −6 up to 20.
fn ecmascript(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if number < 0.0 { "-" } else { "" };
    let count = digits.len() as i32;
    let text = match exponent {
        0..=20 if count <= exponent + 1 => digits + &"0".repeat((exponent + 1 - count) as usize),
        0..=20 => {
            let (whole, fraction) = digits.split_at(exponent as usize + 1);
            format!("{whole}.{fraction}")
        }
        -6..=-1 => format!("0.{}{digits}", "0".repeat((-exponent - 1) as usize)),
        _ => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            let plus = if exponent > 0 { "+" } else { "" };
            format!("{first}{dot}{rest}e{plus}{exponent}")
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_read_as_ecmascript_writes_them() {
        for (number, text) in [
            (61.0, "61"),
            (-0.0, "0"),
            (0.1, "0.1"),
            (22.5312, "22.5312"),
            (1e-6, "0.000001"),
            (1.5e-7, "1.5e-7"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.25e22, "1.25e+22"),
            (-1234.5, "-1234.5"),
        ] {
            assert_eq!(ecmascript(number), text);
        }
    }

    #[test]
    fn canonical_json_sorts_keys_and_drops_nulls() {
        let value = json!({"b": [1.0, null], "a": null, "é": "x\n\"", "Z": {"y": true}});
        assert_eq!(canonical(&value), r#"{"Z":{"y":true},"b":[1,null],"é":"x\n\""}"#);
    }

    #[test]
    fn the_empty_batch_has_the_known_hash() {
        // printf '{"deleted":[],"samples":[]}' | sha256sum
        let text = br#"{"deleted":[],"samples":[]}"#;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text);
        assert_eq!(payload_hash(&[], &[]), hex::encode(digest));
    }

    /// Computed by another implementation: sorted keys, compact separators, UTF-8, SHA-256.
    #[test]
    fn a_batch_has_the_hash_that_others_compute() {
        let sample = |json: Value| serde_json::from_value::<Sample>(json).unwrap();
        let rate = sample(json!({"sourceId": "apple_healthkit", "sourceRecordId": "b1c0",
            "metricCode": "heart_rate", "valueKind": "SCALAR_NUM", "value": 61, "unit": "bpm",
            "startAt": "2026-03-01T06:15:00.000Z", "endAt": "2026-03-01T06:15:00.000Z",
            "durationSeconds": 0, "timezoneOffsetMinutes": 60,
            "metadata": {"sourceAppId": "Zoë’s Apple Watch", "isManualEntry": true}}));
        let weight = sample(json!({"sourceId": "apple_healthkit", "sourceRecordId": "77aa",
            "metricCode": "weight", "valueKind": "SCALAR_NUM", "value": 68.35, "unit": "kg",
            "startAt": "2026-03-01T06:15:00.000Z", "endAt": "2026-03-01T06:15:00.000Z",
            "durationSeconds": 0}));
        let deletion: Deletion = serde_json::from_value(json!({"sourceId": "apple_healthkit",
            "sourceRecordId": "0d9f", "startAt": "2026-02-27T11:00:00.000Z",
            "deletedAt": "2026-03-01T06:20:00.000Z"}))
        .unwrap();
        assert_eq!(
            payload_hash(&[rate, weight], &[deletion]),
            "6b2e9434750b581770270e7540056085ed6684763675075055c7580657e268d6"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn ecmascript_numbers_read_back(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            prop_assert_eq!(ecmascript(number).parse::<f64>().unwrap(), number);
        }

        #[test]
        fn the_hash_ignores_the_order_of_items(mut ids in prop::collection::vec("[a-c]{1,2}", 0..8), seed in any::<usize>()) {
            let deletion = |id: &String| Deletion {
                source_id: "s".into(), source_record_id: id.clone(), start_at: None,
                deleted_at: Some(id.clone()),
            };
            let before: Vec<_> = ids.iter().map(deletion).collect();
            if !ids.is_empty() { let n = ids.len(); ids.rotate_left(seed % n); }
            let mut after: Vec<_> = ids.iter().map(deletion).collect();
            for deletion in &mut after { deletion.deleted_at = None; }
            prop_assert_eq!(payload_hash(&[], &before), payload_hash(&[], &after));
        }
    }
}
