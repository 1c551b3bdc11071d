//! The key that wraps all others, and those that did before.
//!
//! A process knows one or several master keys, the first being the one that a rotation goes to.
//! Which of them wraps new keys is for the key store to say, so that all processes agree; the rest
//! open what they wrapped until a rotation has wrapped it anew.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{KeyError, Secret};
use crate::ids;
use crate::sealing::{Aad, SealingKey};

/// The file in the data directory: lines of 64 hex digits, the newest key first.
pub const FILE_NAME: &str = "master.key";

/// How often the file is read again at most, when a key turns up that it did not hold.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

const ID_LABEL: &[u8] = b"tidemark master key v1";

/// Why there is no master key to work with. Never quotes the key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error(
        "a master key must be 32 bytes, as 64 hex digits or as base64; several are separated by \
         commas, the newest first"
    )]
    Malformed,
    #[error(
        "the master key comes from the configuration, so a new one must too: put it before the \
         old one in TIDEMARK_MASTER_KEY, separated by a comma, on every server, and rotate then"
    )]
    NotOurs,
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
    /// A key from its text: 64 hex digits, or base64 of 32 bytes.
    ///
    /// # Errors
    /// [`MasterKeyError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        let text = text.trim();
        let bytes = hex::decode(text).or_else(|_| STANDARD.decode(text));
        let bytes = bytes.map_err(|_| MasterKeyError::Malformed)?;
        let secret = Secret::take(bytes).ok_or(MasterKeyError::Malformed)?;
        Ok(Self::new(&secret)?)
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

    pub(super) fn wrap(&self, aad: &Aad, secret: &Secret) -> Result<Vec<u8>, KeyError> {
        self.sealing.seal(aad, secret.expose()).map_err(|_| KeyError::Cipher)
    }

    pub(super) fn unwrap(&self, aad: &Aad, wrapped: &[u8]) -> Option<Secret> {
        self.sealing.open(aad, wrapped).ok().and_then(Secret::take)
    }
}

/// The master keys at hand, the newest first; never none.
#[derive(Debug)]
pub struct Masters {
    /// Where a key that is not known yet may turn up; none where the keys are configured.
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    keys: Vec<Arc<MasterKey>>,
    looked: Option<Instant>,
}

impl From<MasterKey> for Masters {
    fn from(key: MasterKey) -> Self {
        Self::of(vec![Arc::new(key)], None)
    }
}

impl Masters {
    /// The configured keys if there are any, else those of the file in `data_dir`, which is created
    /// with one if it does not exist.
    ///
    /// # Errors
    /// [`MasterKeyError`]; a malformed key is never replaced by a new one.
    pub fn obtain(configured: Option<&str>, data_dir: &Path) -> Result<Self, MasterKeyError> {
        if let Some(text) = configured {
            return Ok(Self::of(parse_all(text)?, None));
        }
        let path = data_dir.join(FILE_NAME);
        if !path.try_exists().map_err(|source| MasterKeyError::Io { path: path.clone(), source })? {
            create(&path)?;
        }
        Ok(Self::of(parse_all(&read_private(&path)?)?, Some(path)))
    }

    fn of(keys: Vec<Arc<MasterKey>>, file: Option<PathBuf>) -> Self {
        Self { file, known: Mutex::new(Known { keys, looked: None }) }
    }

    /// The key with this id. If it is not known, the file is looked at again: another process may
    /// have put a new key there since.
    pub fn get(&self, id: &str) -> Option<Arc<MasterKey>> {
        let mut known = self.known();
        if let Some(key) = known.find(id) {
            return Some(key);
        }
        let path = self.file.as_ref()?;
        if known.looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return None;
        }
        known.looked = Some(Instant::now());
        match read_private(path).and_then(|text| parse_all(&text)) {
            Ok(keys) => known.keys = keys,
            Err(error) => tracing::warn!(%error, "the master key file cannot be read again"),
        }
        known.find(id)
    }

    /// The newest key.
    pub fn newest(&self) -> Option<Arc<MasterKey>> {
        self.known().keys.first().cloned()
    }

    /// The ids of all keys at hand, the newest first.
    pub fn ids(&self) -> Vec<String> {
        self.known().keys.iter().map(|key| key.id.clone()).collect()
    }

    /// Whether the keys lie in a file of ours.
    pub fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// Puts a new key before those of the file, durably; the id of the key.
    ///
    /// # Errors
    /// [`MasterKeyError::NotOurs`] where the keys are configured.
    pub fn add_new(&self) -> Result<String, MasterKeyError> {
        let text = hex::encode(Secret::random()?.expose());
        let id = MasterKey::parse(&text)?.id;
        self.rewrite(|lines| lines.insert(0, text))?;
        Ok(id)
    }

    /// Takes retired keys out of the file. Backups of the key store still need them, so each is kept
    /// in a file of its own; the paths of these.
    ///
    /// # Errors
    /// [`MasterKeyError::NotOurs`] where the keys are configured.
    pub fn set_aside(&self, retired: &[String]) -> Result<Vec<PathBuf>, MasterKeyError> {
        let path = self.file.as_ref().ok_or(MasterKeyError::NotOurs)?;
        let mut kept = Vec::new();
        let text = read_private(path)?;
        for line in lines(&text) {
            let id = MasterKey::parse(line)?.id;
            if retired.contains(&id) {
                let aside = path.with_file_name(format!("{FILE_NAME}.{id}.retired"));
                // A file of that name may be what a crash has left of one.
                let held = read_private(&aside).and_then(|text| MasterKey::parse(&text));
                if !held.is_ok_and(|key| key.id == id) {
                    replace(&aside, line)
                        .map_err(|source| MasterKeyError::Io { path: aside.clone(), source })?;
                }
                kept.push(aside);
            }
        }
        let stays =
            |line: &String| MasterKey::parse(line).map_or(true, |key| !retired.contains(&key.id));
        self.rewrite(|lines| lines.retain(stays))?;
        Ok(kept)
    }

    /// Changes the lines of the file, in one step as others see it and one at a time.
    fn rewrite(&self, change: impl FnOnce(&mut Vec<String>)) -> Result<(), MasterKeyError> {
        let path = self.file.as_ref().ok_or(MasterKeyError::NotOurs)?;
        let failed = |source| MasterKeyError::Io { path: path.clone(), source };
        let directory = File::open(directory_of(path)).map_err(failed)?;
        directory.lock().map_err(failed)?;
        let text = read_private(path)?;
        let mut lines: Vec<String> = lines(&text).map(str::to_owned).collect();
        change(&mut lines);
        let text = lines.join("\n");
        let keys = parse_all(&text)?;
        replace(path, &text).map_err(failed)?;
        self.known().keys = keys;
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn find(&self, id: &str) -> Option<Arc<MasterKey>> {
        self.keys.iter().find(|key| key.id == id).cloned()
    }
}

/// What stands between commas and line ends.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', '\n', '\r']).map(str::trim).filter(|part| !part.is_empty())
}

fn parse_all(text: &str) -> Result<Vec<Arc<MasterKey>>, MasterKeyError> {
    let keys: Vec<Arc<MasterKey>> =
        lines(text).map(|line| MasterKey::parse(line).map(Arc::new)).collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(MasterKeyError::Malformed) } else { Ok(keys) }
}

fn read_private(path: &Path) -> Result<String, MasterKeyError> {
    let failed = |source| MasterKeyError::Io { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(MasterKeyError::Exposed { path: path.to_owned(), mode });
    }
    fs::read_to_string(path).map_err(failed)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Writes a new key aside and links it into place: a crash leaves no half-written key, and of two
/// processes that start at once the second uses the first one's.
fn create(path: &Path) -> Result<(), MasterKeyError> {
    let failed = |source| MasterKeyError::Io { path: path.to_owned(), source };
    let text = hex::encode(Secret::random()?.expose());
    let aside = path.with_file_name(format!("{FILE_NAME}.{}", ids::new_id()));

    let linked = write_private(&aside, &text).and_then(|()| fs::hard_link(&aside, path));
    let removed = fs::remove_file(&aside);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => removed.map_err(failed)?,
    }
    File::open(directory_of(path)).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Puts a file in place, whole and durably, whether or not there is one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_file_name(format!("{FILE_NAME}.{}", ids::new_id()));
    let replaced = write_private(&draft, text).and_then(|()| fs::rename(&draft, path));
    if replaced.is_err() {
        // It is of no use to anybody; that it stays is no reason to fail otherwise.
        let _ = fs::remove_file(&draft);
    }
    replaced?;
    File::open(directory_of(path))?.sync_all()
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
        let first = Masters::obtain(None, dir.path()).unwrap();
        let second = Masters::obtain(None, dir.path()).unwrap();
        assert_eq!(first.ids(), second.ids());

        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files, [dir.path().join(FILE_NAME)]);
        assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn processes_that_start_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let obtain = || Masters::obtain(None, dir.path()).unwrap().ids();
        let ids: Vec<Vec<String>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(obtain)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Masters::obtain(None, dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let refused = Masters::obtain(None, dir.path());
        assert!(matches!(refused, Err(MasterKeyError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn a_damaged_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Masters::obtain(None, dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::write(&path, "").unwrap();
        assert!(matches!(Masters::obtain(None, dir.path()), Err(MasterKeyError::Malformed)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn the_configured_key_wins() {
        let dir = tempfile::tempdir().unwrap();
        let masters = Masters::obtain(Some(HEX), dir.path()).unwrap();
        assert_eq!(masters.ids(), ["fb73bf2f00ed01e3"]);
        assert!(!dir.path().join(FILE_NAME).exists());
    }

    #[test]
    fn several_keys_are_known_the_newest_first() {
        let other = "ff".repeat(32);
        let masters = Masters::obtain(Some(&format!("{other}, {HEX}")), Path::new("/")).unwrap();
        let newest = masters.newest().unwrap();
        assert_eq!(newest.id(), MasterKey::parse(&other).unwrap().id());
        assert_eq!(masters.ids(), [newest.id(), "fb73bf2f00ed01e3"]);
        assert!(masters.get("fb73bf2f00ed01e3").is_some() && masters.get("no").is_none());
        assert!(matches!(masters.add_new(), Err(MasterKeyError::NotOurs)));
        assert!(Masters::obtain(Some(&format!("{HEX},secret")), Path::new("/")).is_err());
    }

    #[test]
    fn a_new_key_in_the_file_is_found_by_who_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let running = Masters::obtain(None, dir.path()).unwrap();
        let old = running.ids();
        let operator = Masters::obtain(None, dir.path()).unwrap();
        let new = operator.add_new().unwrap();
        assert_eq!(operator.ids(), [new.clone(), old[0].clone()]);
        assert_eq!(running.ids(), old, "nobody has asked yet");
        assert_eq!(running.get(&new).unwrap().id(), new);
        assert!(running.get(&old[0]).is_some());
        let path = dir.path().join(FILE_NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left behind");

        let kept = operator.set_aside(&old).unwrap();
        assert_eq!(Masters::obtain(None, dir.path()).unwrap().ids(), [new]);
        let kept = fs::read_to_string(&kept[0]).unwrap();
        assert_eq!(MasterKey::parse(&kept).unwrap().id(), old[0], "backups still need it");
    }

    #[test]
    fn a_half_written_file_does_not_pass_for_the_key_that_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let masters = Masters::obtain(None, dir.path()).unwrap();
        let old = masters.ids();
        let path = dir.path().join(FILE_NAME);
        let half = fs::read_to_string(&path).unwrap()[..20].to_owned();
        masters.add_new().unwrap();
        let aside = dir.path().join(format!("{FILE_NAME}.{}.retired", old[0]));
        write_private(&aside, &half).unwrap();
        assert_eq!(masters.set_aside(&old).unwrap(), [aside.as_path()]);
        let kept = read_private(&aside).unwrap();
        assert_eq!(MasterKey::parse(&kept).unwrap().id(), old[0]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no draft is left behind");
    }

    #[test]
    fn two_who_add_a_key_at_once_lose_neither() {
        let dir = tempfile::tempdir().unwrap();
        Masters::obtain(None, dir.path()).unwrap();
        let add = || Masters::obtain(None, dir.path()).unwrap().add_new().unwrap();
        let added: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(add)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let all = Masters::obtain(None, dir.path()).unwrap().ids();
        assert_eq!(all.len(), 7);
        assert!(added.iter().all(|id| all.contains(id)));
    }
}
