//! What was put aside.

use serde_json::Value;

use super::Step;

/// Version 2 names the versions that the change was made on and lost to, and whether it was to
/// create or to edit. Version 1 had the versions only where there was a merge, inside its record,
/// and never said what the change was: that stays unknown.
pub(super) const SUPERSEDED_1: Step =
    Step { event_type: "sync_recovery.superseded", from: 1, lift: name_the_versions };

fn name_the_versions(mut payload: Value) -> Value {
    let Some(merge) = payload.get("resolution").filter(|merge| merge.is_object()) else {
        return payload;
    };
    let stored = merge["stored_version"].clone();
    let base = match merge["basis"]["kind"].as_str() {
        // The record leaves out a base that is the stored version itself.
        Some("current") => stored.clone(),
        _ => merge["base_version"].clone(),
    };
    if let Value::Object(payload) = &mut payload {
        for (name, version) in [("base_version", base), ("stored_version", stored)] {
            if !version.is_null() {
                payload.insert(name.to_owned(), version);
            }
        }
    }
    payload
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lifted(payload: Value) -> Value {
        (SUPERSEDED_1.lift)(payload)
    }

    #[test]
    fn the_versions_of_a_merge_are_taken_from_its_record() {
        let mut old = json!({ "reason": "lost_merge", "payload": {}, "resolution": {
            "basis": { "kind": "three_way" }, "base_version": 3, "stored_version": 5 } });
        let new = lifted(old.clone());
        assert_eq!((&new["base_version"], &new["stored_version"]), (&json!(3), &json!(5)));
        assert_eq!(new["resolution"], old["resolution"], "the record stays whole");
        assert_eq!(new.get("change"), None, "nobody knows any more");

        old["resolution"]["base_version"] = Value::Null;
        assert_eq!(lifted(old.clone()).get("base_version"), None);
        old["resolution"]["basis"]["kind"] = "current".into();
        assert_eq!(lifted(old)["base_version"], json!(5));
    }

    #[test]
    fn what_says_nothing_of_versions_stays_as_it_was() {
        for old in [
            json!({ "reason": "deleted", "payload": { "notes": "late" } }),
            json!({ "reason": "deleted", "resolution": null }),
            json!({ "resolution": "odd" }),
            json!({ "resolution": {} }),
            json!(null),
            json!([1]),
        ] {
            assert_eq!(lifted(old.clone()), old);
        }
    }
}
