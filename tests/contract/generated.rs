//! What is derived from code is up to date, and what is released has not changed.

use tidemark::cli::dev::{File, Mode, generate};

use super::released;

fn files() -> Vec<File> {
    aggregates::schema::files()
        .into_iter()
        .map(|file| File { path: file.path, content: file.content })
        .collect()
}

#[test]
fn generated_files_are_up_to_date_and_the_lock_holds() {
    generate(released::root(), &files(), Mode::Check).unwrap();
}

#[test]
fn everything_released_is_locked() {
    let lock = std::fs::read_to_string(released::root().join("event-schemas/LOCK")).unwrap();
    let locked: Vec<&str> = lock.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(locked, released::files());
}

/// Run with `cargo test --test contract -- --ignored write_generated_files` where the command line
/// is not at hand.
#[test]
#[ignore = "writes into the source tree"]
fn write_generated_files() {
    generate(released::root(), &files(), Mode::Write).unwrap();
}
