//! What is derived from code is up to date, and what is released has not changed.

use std::fs;
use std::path::Path;

use tidemark::cli::dev::{File, Mode, derived, generate};

use super::released;

#[test]
fn generated_files_are_up_to_date_and_the_lock_holds() {
    generate(released::root(), &derived().unwrap(), Mode::Check).unwrap();
}

#[test]
fn everything_released_is_locked() {
    let lock = fs::read_to_string(released::root().join("event-schemas/LOCK")).unwrap();
    let locked: Vec<&str> = lock.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(locked, released::files());
}

/// The released files in a directory of their own, and what would be generated there.
fn copy() -> (tempfile::TempDir, Vec<File>) {
    let root = tempfile::tempdir().unwrap();
    let lock = "event-schemas/LOCK".to_owned();
    for file in released::files().into_iter().chain([lock]) {
        let target = root.path().join(&file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(released::root().join(&file), target).unwrap();
    }
    (root, derived().unwrap())
}

/// Whoever changes a payload without a new version is told which one, and where to read on.
#[test]
fn no_released_payload_changes_unnoticed() {
    let (root, mut files) = copy();
    let mut tried = 0;
    for index in 0..files.len() {
        let before = files[index].content.clone();
        let path = files[index].path.clone();
        let Some((event, version)) = path
            .strip_prefix("event-schemas/")
            .and_then(|name| name.strip_suffix(".json")?.rsplit_once(".v"))
        else {
            continue;
        };
        // As if the payload had got a field.
        let mut schema: serde_json::Value = serde_json::from_str(&before).unwrap();
        schema["properties"]["mood"] = serde_json::json!({ "type": "string" });
        files[index].content = schema.to_string();
        let next = version.parse::<u32>().unwrap() + 1;
        for mode in [Mode::Check, Mode::Write] {
            let told = generate(root.path(), &files, mode).unwrap_err().to_string();
            let remedy = format!("Raise {} to version {next} ", event.replace('/', "."));
            assert!(told.contains(&remedy), "{path}: {told}");
            assert!(told.contains("docs/adding.md"), "{told}");
        }
        files[index].content = before;
        tried += 1;
    }
    assert_eq!(tried, aggregates::registry::types().count());
    let untouched = |file: &String| {
        let bytes = |root: &Path| fs::read(root.join(file)).unwrap();
        bytes(root.path()) == bytes(released::root())
    };
    assert!(released::files().iter().all(untouched), "and nothing was written over");
}

#[test]
fn no_released_file_goes_missing_or_changes_unnoticed() {
    for file in released::files() {
        let (root, files) = copy();
        fs::remove_file(root.path().join(&file)).unwrap();
        let told = generate(root.path(), &files, Mode::Write).unwrap_err().to_string();
        assert!(told.contains("bring them back") && told.contains(&file), "{told}");
    }
}
