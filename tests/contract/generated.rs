//! What is derived from code is up to date, and what is released has not changed.

use tidemark::cli::dev::{Mode, derived, generate};

use super::released;

#[test]
fn generated_files_are_up_to_date_and_the_lock_holds() {
    generate(released::root(), &derived().unwrap(), Mode::Check).unwrap();
}

#[test]
fn everything_released_is_locked() {
    let lock = std::fs::read_to_string(released::root().join("event-schemas/LOCK")).unwrap();
    let locked: Vec<&str> = lock.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(locked, released::files());
}
