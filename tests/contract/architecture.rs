//! Which part may know of which: read from the sources themselves.

use std::fs;
use std::path::{Path, PathBuf};

use super::released;

/// Words that must not appear in the code of a part, and why.
const BORDERS: &[(&str, &[&str], &str)] = &[
    (
        "aggregates/src",
        &[
            "sqlx",
            "axum",
            "tokio::",
            "std::fs",
            "std::net",
            "std::env",
            "SystemTime",
            "Utc::now",
            "Uuid::new_v4",
        ],
        "decisions are pure",
    ),
    (
        "projections/src",
        &[
            "sqlx",
            "axum",
            "tokio::",
            "std::fs",
            "std::net",
            "std::env",
            "SystemTime",
            "Utc::now",
            "Uuid::new_v4",
        ],
        "folds are pure",
    ),
    ("src/http", &["sqlx", "SELECT ", "INSERT INTO", "UPDATE "], "HTTP knows no SQL"),
    ("src/commands", &["StatusCode", "axum::", "crate::http"], "use cases know no HTTP"),
    (
        "src/store",
        &["crate::http", "crate::commands", "crate::projector"],
        "the store is below its users",
    ),
    ("src/sealing", &["sqlx", "tokio::"], "sealing does no IO"),
    ("src/demo", &["crate::store", "crate::commands", "sqlx"], "the demo uses the public API only"),
    (
        "src/client",
        &["crate::store", "crate::commands", "sqlx"],
        "the client uses the public API only",
    ),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Code alone: tests at the end of a file and comments may speak of anything.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn no_part_reaches_over_its_border() {
    let mut faults = Vec::new();
    for (folder, forbidden, reason) in BORDERS {
        let mut files = Vec::new();
        sources(&released::root().join(folder), &mut files);
        assert!(!files.is_empty(), "{folder} has moved");
        for file in files.iter().filter(|file| !file.iter().any(|part| part == "tests")) {
            if file.file_name().is_some_and(|name| name == "tests.rs") {
                continue;
            }
            let text = fs::read_to_string(file).unwrap();
            for line in code(&text) {
                for word in forbidden.iter().filter(|word| line.contains(**word)) {
                    faults.push(format!("{}: {word} ({reason}): {}", file.display(), line.trim()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
