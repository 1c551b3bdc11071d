//! The files under `event-schemas/`, as they are on disk.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::value::RawValue;

/// One version of one event type, as released.
pub struct Released {
    pub event_type: String,
    pub version: u32,
    pub schema: Value,
    /// The example's payload, without white space.
    pub payload: String,
    /// The example's packed part; empty for most types.
    pub packed: Vec<u8>,
}

#[derive(serde::Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
    packed: String,
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Everything that is released, by name and version.
pub fn all() -> Vec<Released> {
    let mut schemas: Vec<PathBuf> = directories(&root().join("event-schemas"))
        .iter()
        .flat_map(|directory| entries(directory))
        .filter(|path| !path.to_string_lossy().ends_with(".example.json"))
        .collect();
    schemas.sort();
    schemas.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Released {
    let aggregate = path.parent().unwrap().file_name().unwrap().to_string_lossy();
    let file = path.file_name().unwrap().to_string_lossy();
    let (event, version) = file.trim_end_matches(".json").rsplit_once(".v").expect("a version");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let example = path.with_extension("example.json");
    let example = std::fs::read_to_string(&example).expect("an example beside each schema");
    let (payload, packed) = if schema.get("x-packed").is_some() {
        let wrapped: Wrapped<'_> = serde_json::from_str(&example).unwrap();
        (wrapped.payload.get().to_owned(), STANDARD.decode(wrapped.packed).unwrap())
    } else {
        (example, Vec::new())
    };
    Released {
        event_type: format!("{aggregate}.{event}"),
        version: version.parse().expect("a version number"),
        schema,
        payload: compact(&payload),
        packed,
    }
}

/// Every file below `event-schemas/`, as the lock names it.
pub fn files() -> Vec<String> {
    let directories = directories(&root().join("event-schemas"));
    let mut files: Vec<String> = directories
        .iter()
        .flat_map(|directory| entries(directory))
        .map(|path| path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/"))
        .collect();
    files.sort();
    files
}

fn directories(path: &Path) -> Vec<PathBuf> {
    entries(path).into_iter().filter(|path| path.is_dir()).collect()
}

fn entries(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// JSON without white space between its tokens, its keys in the order they came in.
fn compact(json: &str) -> String {
    let (mut text, mut quoted, mut escaped) = (String::new(), false, false);
    for c in json.chars() {
        if !quoted && c.is_whitespace() {
            continue;
        }
        text.push(c);
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
    }
    text
}

#[test]
fn compacting_leaves_strings_alone() {
    assert_eq!(
        compact("{ \"a b\" : [ 1,\n \"c \\\" d\\\\\" , 2 ] }"),
        r#"{"a b":[1,"c \" d\\",2]}"#
    );
}
