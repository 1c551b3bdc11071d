//! Rotation of the master key: everything it wraps is wrapped anew under another one.
//!
//! From the first step on, the store takes new keys only under the new master key, so a single pass
//! over the others ends. The pass replaces each wrapping by compare-and-set and keeps no record of
//! how far it is: which master key wraps a key is the record. Killed at any moment, it is simply run
//! again; run twice at once, the two share the work; a key that is destroyed meanwhile stays
//! destroyed. Servers go on all the while, as long as they know both master keys.

use uuid::Uuid;

use super::store::{Rewrapped, StoredServerKey, StoredSubjectKey};
use super::{KeyError, Keyring, MasterKey, ServerKeyName};
use crate::sealing::Aad;

/// Keys that are wrapped anew in one transaction, unless somebody says otherwise.
pub const BATCH: i64 = 200;

/// What a rotation has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotated {
    /// Keys wrapped anew by this run.
    pub rewrapped: u64,
    /// Master keys that wrap nothing any more.
    pub retired: Vec<String>,
    /// Keys that no master key opens. They stay as they are, and so does their master key.
    pub damaged: Vec<Uuid>,
}

impl Keyring {
    /// Makes the newest master key at hand the current one and wraps everything anew under it, at
    /// most `batch` keys a transaction. `progress` hears how many keys have been seen to.
    ///
    /// # Errors
    /// [`KeyError::OtherMaster`] before anything is changed if a master key in use is not at hand;
    /// [`KeyError::RetiredMaster`]; [`KeyError::Unavailable`]: run it again.
    pub async fn rotate_master(
        &self,
        batch: i64,
        mut progress: impl FnMut(u64),
    ) -> Result<Rotated, KeyError> {
        self.check_master().await?;
        let to = self.masters.newest().ok_or(KeyError::NoMaster)?;
        self.store.make_current(to.id(), false).await?;
        let mut rotated = Rotated::default();
        self.rewrap_server_keys(&to, &mut rotated).await?;
        let (mut after, mut seen) = (Uuid::nil(), 0);
        loop {
            let page = self.store.subjects_not_under(to.id(), after, batch.max(1)).await?;
            let Some(last) = page.last() else { break };
            after = last.key_id;
            seen += page.len() as u64;
            let mut anew = Vec::with_capacity(page.len());
            for StoredSubjectKey { key_id, user, purpose, wrapped, kek_id, .. } in page {
                let aad = Aad::subject_key(key_id, user, purpose);
                match self.wrap_anew(&to, key_id, kek_id, &aad, &wrapped)? {
                    Some(key) => anew.push(key),
                    None => rotated.damaged.push(key_id),
                }
            }
            rotated.rewrapped += self.store.rewrap(anew, to.id()).await?;
            progress(seen);
        }
        rotated.retired = self.store.retire_unused().await?;
        Ok(rotated)
    }

    async fn rewrap_server_keys(
        &self,
        to: &MasterKey,
        rotated: &mut Rotated,
    ) -> Result<(), KeyError> {
        let mut anew = Vec::new();
        for name in ServerKeyName::ALL {
            for key in self.store.server_keys(name).await? {
                let StoredServerKey { key_id, name, wrapped, kek_id, .. } = key;
                if kek_id != to.id() {
                    let aad = Aad::server_key(key_id, name.as_str());
                    match self.wrap_anew(to, key_id, kek_id, &aad, &wrapped)? {
                        Some(key) => anew.push(key),
                        None => rotated.damaged.push(key_id),
                    }
                }
            }
        }
        rotated.rewrapped += self.store.rewrap(anew, to.id()).await?;
        Ok(())
    }

    /// The key under another master key; none where its own does not open it.
    fn wrap_anew(
        &self,
        to: &MasterKey,
        key_id: Uuid,
        from: String,
        aad: &Aad,
        wrapped: &[u8],
    ) -> Result<Option<Rewrapped>, KeyError> {
        let Some(secret) = self.master(&from)?.unwrap(aad, wrapped) else {
            tracing::error!(key = %key_id, "a stored key is damaged; restore the key store");
            return Ok(None);
        };
        Ok(Some(Rewrapped { key_id, from, wrapped: to.wrap(aad, &secret)? }))
    }
}
