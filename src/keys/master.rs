//! The key that wraps all others.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{KeyError, Secret};
use crate::ids;
use crate::sealing::{Aad, SealingKey};

/// The file in the data directory; one line of 64 hex digits.
pub const FILE_NAME: &str = "master.key";

const ID_LABEL: &[u8] = b"tidemark master key v1";

/// Why there is no master key to work with. Never quotes the key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error("the master key must be 32 bytes, as 64 hex digits or as base64")]
    Malformed,
    #[error("{path} can be read by others than its owner (mode {mode:o}); it must have mode 600")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("cannot read or create the master key in {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The key that wraps all others. Losing it loses everything personal, so it belongs in a vault;
/// the file in the data directory is for development.
#[derive(Debug)]
pub struct MasterKey {
    id: String,
    sealing: SealingKey,
}

impl MasterKey {
    /// The configured key if there is one, else that of the file in `data_dir`, which is created
    /// if it does not exist.
    ///
    /// # Errors
    /// [`MasterKeyError`]; a malformed key is never replaced by a new one.
    pub fn obtain(configured: Option<&str>, data_dir: &Path) -> Result<Self, MasterKeyError> {
        match configured {
            Some(text) => Self::parse(text),
            None => Self::load_or_create(data_dir),
        }
    }

    /// A key from its text: 64 hex digits, or base64 of 32 bytes.
    ///
    /// # Errors
    /// [`MasterKeyError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        let text = text.trim();
        let mut bytes = [0; 32];
        if hex::decode_to_slice(text, &mut bytes).is_err() {
            let decoded = STANDARD.decode(text).map_err(|_| MasterKeyError::Malformed)?;
            bytes = decoded.try_into().map_err(|_| MasterKeyError::Malformed)?;
        }
        Ok(Self::new(&Secret::from(bytes))?)
    }

    fn new(secret: &Secret) -> Result<Self, KeyError> {
        let hash = secret.sha256_after(&[ID_LABEL]);
        Ok(Self {
            id: hex::encode(&hash[..8]),
            sealing: SealingKey::new(secret.derive("wrap")?.expose())
                .map_err(|_| KeyError::Cipher)?,
        })
    }

    /// Tells master keys apart without telling the key: 16 hex digits of a hash.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn load_or_create(data_dir: &Path) -> Result<Self, MasterKeyError> {
        let path = data_dir.join(FILE_NAME);
        let failed = |source| MasterKeyError::Io { path: path.clone(), source };
        if !path.try_exists().map_err(failed)? {
            create(data_dir, &path)?;
        }
        let mode = fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(MasterKeyError::Exposed { path, mode });
        }
        Self::parse(&fs::read_to_string(&path).map_err(failed)?)
    }

    pub(super) fn wrap(&self, aad: &Aad, secret: &Secret) -> Result<Vec<u8>, KeyError> {
        self.sealing.seal(aad, secret.expose()).map_err(|_| KeyError::Cipher)
    }

    pub(super) fn unwrap(&self, aad: &Aad, wrapped: &[u8]) -> Option<Secret> {
        let bytes = self.sealing.open(aad, wrapped).ok()?;
        <[u8; 32]>::try_from(bytes).ok().map(Secret::from)
    }
}

/// Writes a new key aside and links it into place: a crash leaves no half-written key, and of two
/// processes that start at once the second uses the first one's.
fn create(data_dir: &Path, path: &Path) -> Result<(), MasterKeyError> {
    let failed = |source| MasterKeyError::Io { path: path.to_owned(), source };
    let text = hex::encode(Secret::random()?.expose());
    let aside = data_dir.join(format!("{FILE_NAME}.{}", ids::new_id()));

    let linked = write_private(&aside, &text).and_then(|()| fs::hard_link(&aside, path));
    let removed = fs::remove_file(&aside);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => removed.map_err(failed)?,
    }
    File::open(data_dir).and_then(|directory| directory.sync_all()).map_err(failed)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // The umask can only take bits away from the mode above; say it again for those it took.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn reads_hex_and_base64() {
        assert_eq!(MasterKey::parse(HEX).unwrap().id(), "fb73bf2f00ed01e3");
        let base64 = STANDARD.encode(hex::decode(HEX).unwrap());
        assert_eq!(MasterKey::parse(&format!("{base64}\n")).unwrap().id(), "fb73bf2f00ed01e3");
    }

    #[test]
    fn refuses_anything_else_without_quoting_it() {
        for text in ["", "secret", &HEX[2..], &format!("{HEX}00"), "c2hvcnQ="] {
            let error = MasterKey::parse(text).unwrap_err();
            assert!(matches!(error, MasterKeyError::Malformed));
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }

    #[test]
    fn is_created_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let first = MasterKey::obtain(None, dir.path()).unwrap();
        let second = MasterKey::obtain(None, dir.path()).unwrap();
        assert_eq!(first.id(), second.id());

        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files, [dir.path().join(FILE_NAME)]);
        assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn processes_that_start_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let obtain = || MasterKey::obtain(None, dir.path()).unwrap().id().to_owned();
        let ids: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(obtain)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        MasterKey::obtain(None, dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let refused = MasterKey::obtain(None, dir.path());
        assert!(matches!(refused, Err(MasterKeyError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn a_damaged_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        MasterKey::obtain(None, dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::write(&path, "").unwrap();
        assert!(matches!(MasterKey::obtain(None, dir.path()), Err(MasterKeyError::Malformed)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn the_configured_key_wins() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(MasterKey::obtain(Some(HEX), dir.path()).unwrap().id(), "fb73bf2f00ed01e3");
        assert!(!dir.path().join(FILE_NAME).exists());
    }
}
