//! `tidemark dev generate`: the files that are derived from code, and the lock on what is released.
//!
//! A released schema or example is never rewritten, because the log is full of events that follow
//! it. The lock holds the SHA-256 of each, in the format of `sha256sum`. Wording may change: a
//! schema that differs from its released file in titles and descriptions alone is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

const SCHEMAS: &str = "event-schemas";
const LOCK: &str = "event-schemas/LOCK";

/// Tools for working on Tidemark itself.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Action {
    /// Write the files that are derived from code
    Generate {
        /// Write nothing, and fail if something is not up to date
        #[arg(long)]
        check: bool,
    },
}

/// Carries out `action` on the repository that the current directory is the root of.
///
/// # Errors
/// As [`generate`], and outside of a repository's root.
pub fn run(action: &Action, files: &[File]) -> Result<ExitCode> {
    let Action::Generate { check } = action;
    let root = std::env::current_dir().context("there is no current directory")?;
    if !root.join(SCHEMAS).is_dir() {
        bail!("there is no {SCHEMAS} here (change to the root of the repository)");
    }
    let mode = if *check { Mode::Check } else { Mode::Write };
    for path in generate(&root, files, mode)? {
        println!("{path}");
    }
    Ok(ExitCode::SUCCESS)
}

/// A file that is derived from code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Relative to the repository's root, with forward slashes.
    pub path: String,
    pub content: String,
}

/// All derived files: event schemas and examples, the event catalogue, the API's document.
///
/// # Errors
/// Where the API's document cannot be written as JSON.
pub fn derived() -> Result<Vec<File>> {
    let mut files: Vec<File> = aggregates::schema::files()
        .into_iter()
        .map(|file| File { path: file.path, content: file.content })
        .collect();
    let mut content = serde_json::to_string_pretty(&crate::http::document())?;
    content.push('\n');
    files.push(File { path: "docs/openapi.json".to_owned(), content });
    Ok(files)
}

/// What to do about files that are not as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Write them, and add new schemas and examples to the lock.
    Write,
    /// Fail and name them.
    Check,
}

/// Brings the derived files under `root` up to date and returns the paths that changed.
///
/// # Errors
/// Fails where a released file would change or was changed by hand, where a schema has no example,
/// on IO errors and, in [`Mode::Check`], where any file is not up to date.
pub fn generate(root: &Path, files: &[File], mode: Mode) -> Result<Vec<String>> {
    let mut lock = read_lock(root)?;
    let broken = broken_locks(root, &lock);
    if !broken.is_empty() {
        bail!("released files were changed or removed; bring them back: {}", broken.join(", "));
    }
    let mut changed = Vec::new();
    for file in files {
        let present = fs::read_to_string(root.join(&file.path)).ok();
        if present.as_ref() == Some(&file.content) {
            continue;
        }
        if lock.contains_key(&file.path) {
            refuse_new_shape(file, present.as_deref().unwrap_or_default())?;
            continue;
        }
        if mode == Mode::Write {
            write(root, &file.path, &file.content)?;
        }
        changed.push(file.path.clone());
    }
    changed.extend(extend_lock(root, files, &mut lock, mode)?);
    if mode == Mode::Check && !changed.is_empty() {
        bail!("not up to date; run `tidemark dev generate`: {}", changed.join(", "));
    }
    Ok(changed)
}

/// A released schema may differ from what its type says today in wording only.
fn refuse_new_shape(file: &File, released: &str) -> Result<()> {
    let shape = |text: &str| serde_json::from_str(text).map(shape_of).ok();
    if shape(&file.content).is_some_and(|new| Some(new) == shape(released)) {
        return Ok(());
    }
    let name = file.path.trim_start_matches(SCHEMAS).trim_matches('/').trim_end_matches(".json");
    let (event, version) = name.rsplit_once(".v").unwrap_or((name, "1"));
    let event = event.replace('/', ".");
    let next = version.parse::<u32>().map_or(2, |version| version + 1);
    bail!(
        "the payload of {event} no longer follows {}, which is released. Raise {event} to version \
         {next} in its registry entry and add the step from version {version} to the upcasters, as \
         docs/adding.md tells",
        file.path
    )
}

/// The schema without titles and descriptions. A property of such a name is an object and stays.
fn shape_of(schema: Value) -> Value {
    match schema {
        Value::Object(entries) => {
            let wording = |key: &str| key == "description" || key == "title";
            let kept = entries.into_iter().filter(|(key, v)| !(wording(key) && v.is_string()));
            let shape: Map<String, Value> = kept.map(|(k, v)| (k, shape_of(v))).collect();
            let words = words_of(&shape).map(|words| json!({ "enum": words }));
            words.unwrap_or(Value::Object(shape))
        }
        Value::Array(items) => items.into_iter().map(shape_of).collect(),
        other => other,
    }
}

/// The words of an enumeration. One that describes its words is a choice of constants, one that
/// does not is a list.
fn words_of(shape: &Map<String, Value>) -> Option<BTreeSet<&str>> {
    if let Some(word) = shape.get("const") {
        return word.as_str().map(|word| BTreeSet::from([word]));
    }
    if let Some(words) = shape.get("enum") {
        return words.as_array()?.iter().map(Value::as_str).collect();
    }
    let cases = shape.get("oneOf")?.as_array()?;
    let words: Option<Vec<_>> = cases.iter().map(|case| words_of(case.as_object()?)).collect();
    Some(words?.into_iter().flatten().collect())
}

/// Locks schemas and examples that are new. Examples are written by people, so a schema without
/// one stops here.
fn extend_lock(
    root: &Path,
    files: &[File],
    lock: &mut BTreeMap<String, String>,
    mode: Mode,
) -> Result<Vec<String>> {
    let before = lock.clone();
    for file in files.iter().filter(|file| file.path.starts_with(SCHEMAS)) {
        let example = file.path.trim_end_matches(".json").to_owned() + ".example.json";
        for path in [&file.path, &example] {
            if lock.contains_key(path) {
                continue;
            }
            match fs::read(root.join(path)) {
                Ok(bytes) => {
                    lock.insert(path.clone(), hash(&bytes));
                }
                Err(_) if *path == example => bail!("write an example of the event to {path}"),
                Err(_) => {}
            }
        }
    }
    if *lock == before {
        return Ok(Vec::new());
    }
    if mode == Mode::Write {
        let lines = lock.iter().map(|(path, hash)| format!("{hash}  {path}\n"));
        write(root, LOCK, &lines.collect::<String>())?;
    }
    Ok(vec![LOCK.to_owned()])
}

fn read_lock(root: &Path) -> Result<BTreeMap<String, String>> {
    let path = root.join(LOCK);
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {LOCK}"))?;
    text.lines()
        .map(|line| {
            let (hash, path) = line.split_once("  ").with_context(|| format!("{LOCK}: {line}"))?;
            Ok((path.to_owned(), hash.to_owned()))
        })
        .collect()
}

/// Locked files that are gone or have other bytes.
fn broken_locks<'a>(root: &Path, lock: &'a BTreeMap<String, String>) -> Vec<&'a str> {
    let holds = |path: &str, locked: &str| {
        fs::read(root.join(path)).is_ok_and(|bytes| hash(&bytes) == locked)
    };
    let broken = lock.iter().filter(|(path, locked)| !holds(path, locked));
    broken.map(|(path, _)| path.as_str()).collect()
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

fn write(root: &Path, path: &str, content: &str) -> Result<()> {
    let target = root.join(path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::write(&target, content).with_context(|| format!("cannot write {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "event-schemas/session/ended.v1.json";
    const EXAMPLE: &str = "event-schemas/session/ended.v1.example.json";

    fn schema(content: &str) -> Vec<File> {
        vec![File { path: SCHEMA.to_owned(), content: content.to_owned() }]
    }

    fn released() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), EXAMPLE, "{}").unwrap();
        let files = schema(r#"{"title":"a","type":"object"}"#);
        let changed = generate(root.path(), &files, Mode::Write).unwrap();
        assert_eq!(changed, [SCHEMA, LOCK]);
        root
    }

    #[test]
    fn writes_once_and_then_has_nothing_to_do() {
        let root = released();
        let files = schema(r#"{"title":"a","type":"object"}"#);
        assert!(generate(root.path(), &files, Mode::Write).unwrap().is_empty());
        assert!(generate(root.path(), &files, Mode::Check).unwrap().is_empty());
    }

    #[test]
    fn a_released_schema_is_never_rewritten() {
        let root = released();
        let error = generate(root.path(), &schema(r#"{"type":"array"}"#), Mode::Write).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("session.ended to version 2"), "{text}");
        assert!(text.contains("step from version 1"), "{text}");
        let kept = fs::read_to_string(root.path().join(SCHEMA)).unwrap();
        assert_eq!(kept, r#"{"title":"a","type":"object"}"#);
    }

    #[test]
    fn new_wording_is_no_new_version() {
        let root = released();
        let files = schema(r#"{"description":"b","title":"c","type":"object"}"#);
        assert!(generate(root.path(), &files, Mode::Check).unwrap().is_empty());
    }

    #[test]
    fn describing_a_word_is_wording_and_a_new_word_is_not() {
        let shape = |text: &str| shape_of(serde_json::from_str(text).unwrap());
        let list = shape(r#"{"type":"string","enum":["both","stored"]}"#);
        let choice = r#"{"oneOf":[{"enum":["stored"]},{"const":"both","description":"d"}]}"#;
        assert_eq!(list, shape(choice));
        assert_ne!(list, shape(r#"{"type":"string","enum":["both"]}"#));
    }

    #[test]
    fn a_released_file_changed_by_hand_is_found() {
        let root = released();
        write(root.path(), EXAMPLE, "{ }").unwrap();
        let error = generate(root.path(), &[], Mode::Write).unwrap_err();
        assert!(error.to_string().contains(EXAMPLE));
    }

    #[test]
    fn a_schema_needs_an_example() {
        let root = tempfile::tempdir().unwrap();
        let error = generate(root.path(), &schema("{}"), Mode::Write).unwrap_err();
        assert!(error.to_string().contains(EXAMPLE));
    }

    #[test]
    fn checking_writes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let files = vec![File { path: "docs/events.md".to_owned(), content: "x".to_owned() }];
        let error = generate(root.path(), &files, Mode::Check).unwrap_err();
        assert!(error.to_string().contains("docs/events.md"));
        assert!(!root.path().join("docs").exists());
    }
}
