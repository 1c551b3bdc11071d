//! A person's keys in the key store against what the log says of them.
//!
//! The two are backed up and restored apart, so either may be older than the other.

use aggregates::{Purpose, UserId};

use crate::keys::KeyStatus;
use crate::store::{ReadError, Store};

/// What differs; empty where everything is as the log says. A key that no event speaks of is no
/// fault: it is stored before the event that announces it.
///
/// # Errors
/// [`ReadError::Key`] where an active key is missing or is another one, or the store does not answer.
pub async fn verify_keys(store: &Store, user: UserId) -> Result<Vec<String>, ReadError> {
    let subject = store.subjects().fresh(user).await?;
    let keyring = store.sealer().keyring();
    let stored = keyring.of_user(user).await?;
    let mut findings = Vec::new();
    for key in Purpose::ALL.into_iter().filter_map(|purpose| subject.key(purpose)) {
        match key.status {
            KeyStatus::Active => drop(keyring.fetch(&key).await?),
            KeyStatus::Destroyed if stored.iter().any(|stored| stored.key_id == key.key_id) => {
                findings.push(format!(
                    "the destroyed {} key is in the key store (repeat the erasure)",
                    key.purpose
                ));
            }
            KeyStatus::Destroyed => {}
        }
    }
    Ok(findings)
}
