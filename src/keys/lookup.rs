//! The key of pseudonyms, in generations.
//!
//! A pseudonym is looked for under every generation and claimed under the newest; who is found under
//! an older one moves at that occasion. An old generation therefore stays for as long as somebody
//! has not come back, and for the markers of erased accounts.
//!
//! The danger of a rotation is a process that has not heard of it: it would not find who has moved,
//! and register a second account. Two rules keep that from happening, without a lock:
//!
//! - a process that has not looked at the generations for [`VIEW`] looks again before it claims;
//! - for [`REST`] after it was made, a new generation is claimed together with the one before it, and
//!   nobody moves. By then every process has heard of it, and every request that was begun by one
//!   that had not is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{KeyError, Keyring, Pseudonym, ServerKey, ServerKeyName};

/// How long a process relies on what it knows of the generations.
pub const VIEW: Duration = Duration::from_secs(60);
/// Shortest time between two looks at generations that people are only found by.
const RETRY: Duration = Duration::from_secs(5);
/// How long a new generation rests. Far longer than [`VIEW`] and a request together.
pub const REST: Duration = Duration::from_secs(10 * 60);

/// Follows the generations. Cheap to clone.
#[derive(Clone)]
pub struct Lookup {
    keyring: Keyring,
    view: Arc<Mutex<Arc<LookupView>>>,
    /// When [`view`](Self::view) last looked.
    tried: Arc<Mutex<Option<Instant>>>,
}

/// The generations as one process knew them at one moment.
#[derive(Debug)]
pub struct LookupView {
    /// The newest first; never none.
    keys: Vec<ServerKey>,
    /// Age of the newest when `read` was.
    age: Duration,
    read: Instant,
}

/// A personal value under one generation of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupName {
    pub hmac: Pseudonym,
    pub key_id: Uuid,
}

impl Lookup {
    /// Reads the generations.
    ///
    /// # Errors
    /// [`KeyError::NoServerKey`] where there is none.
    pub async fn open(keyring: Keyring) -> Result<Self, KeyError> {
        let view = read(&keyring).await?;
        Ok(Self { keyring, view: Arc::new(Mutex::new(Arc::new(view))), tried: Arc::default() })
    }

    /// The generations for finding somebody: an old view while the key store is away.
    ///
    /// One caller in [`RETRY`] looks whether there are newer ones, and waits for the answer; the
    /// others go on with what is known, so that nobody waits for a store that is away.
    pub async fn view(&self) -> Arc<LookupView> {
        let known = self.known();
        if known.is_fresh() || !self.is_due() {
            return known;
        }
        // In a task of its own: a caller that hangs up would leave the others with the old view.
        let this = self.clone();
        match tokio::spawn(async move { this.fresh().await }).await {
            Ok(Ok(view)) => view,
            Ok(Err(error)) => {
                tracing::debug!(%error, "going on with the known generations of the lookup key");
                known
            }
            Err(_) => known,
        }
    }

    /// Whether it is time to look again; then the time starts anew.
    fn is_due(&self) -> bool {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let due = tried.is_none_or(|at| at.elapsed() >= RETRY);
        if due {
            *tried = Some(Instant::now());
        }
        due
    }

    /// The generations for claiming a name.
    ///
    /// # Errors
    /// Where the key store does not answer and what is known is too old to claim by.
    pub async fn fresh(&self) -> Result<Arc<LookupView>, KeyError> {
        let known = self.known();
        if known.read.elapsed() < VIEW {
            return Ok(known);
        }
        let view = Arc::new(read(&self.keyring).await?);
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&view);
        Ok(view)
    }

    /// The generations as they were last read, however long ago.
    pub fn known(&self) -> Arc<LookupView> {
        Arc::clone(&self.view.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
impl Lookup {
    /// Makes the known view one that was read so long ago, and nobody has looked since.
    pub(super) fn backdate(&self, ago: Duration) {
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::get_mut(&mut view).unwrap().read -= ago;
    }
}

impl LookupView {
    /// Whether it may still be claimed by.
    pub fn is_fresh(&self) -> bool {
        self.read.elapsed() < VIEW
    }

    /// Whether there is an older generation that names may still be held under.
    pub fn is_rotated(&self) -> bool {
        self.keys.len() > 1
    }

    /// Whether names move to the newest generation.
    pub fn is_settled(&self) -> bool {
        self.keys.len() < 2 || self.age + self.read.elapsed() >= REST
    }

    /// A value under every generation, the newest first.
    pub fn names(&self, scope: &str, value: &[&str]) -> Vec<LookupName> {
        let name = |key: &ServerKey| LookupName {
            hmac: key.lookup_hash(scope, value),
            key_id: key.key_id(),
        };
        self.keys.iter().map(name).collect()
    }

    /// Those of a value's names that who has the value must hold.
    pub fn claimed<'a>(&self, names: &'a [LookupName]) -> &'a [LookupName] {
        let wanted = if self.is_settled() { 1 } else { 2 };
        names.get(..wanted.min(names.len())).unwrap_or(names)
    }
}

async fn read(keyring: &Keyring) -> Result<LookupView, KeyError> {
    let read = Instant::now();
    let (keys, age) = keyring.generations(ServerKeyName::Lookup).await?;
    Ok(LookupView { keys, age, read })
}

impl Keyring {
    /// The server's keys of one name, the newest first, and how long the store has had that one.
    async fn generations(
        &self,
        name: ServerKeyName,
    ) -> Result<(Vec<ServerKey>, Duration), KeyError> {
        let stored = self.store.server_keys(name).await?;
        let age_ms = stored.first().ok_or(KeyError::NoServerKey { name })?.age_ms;
        let keys: Result<_, _> = stored.into_iter().map(|key| self.unwrap_server(key)).collect();
        Ok((keys?, Duration::from_millis(age_ms.max(0).unsigned_abs())))
    }

    /// Makes a new generation of the lookup key; its number. Servers take it up by themselves.
    ///
    /// # Errors
    /// [`KeyError::TooSoon`] while the newest one rests, [`KeyError::NoServerKey`],
    /// [`KeyError::Unavailable`].
    pub async fn rotate_lookup(&self) -> Result<i32, KeyError> {
        let name = ServerKeyName::Lookup;
        let stored = self.store.server_keys(name).await?;
        let newest = stored.first().ok_or(KeyError::NoServerKey { name })?;
        let rest_ms = i64::try_from(REST.as_millis()).unwrap_or(i64::MAX);
        if newest.generation > 1 && newest.age_ms < rest_ms {
            let (age_s, rest_s) = (newest.age_ms / 1000, rest_ms / 1000);
            return Err(KeyError::TooSoon { name, age_s, rest_s });
        }
        let generation = newest.generation + 1;
        self.create_server_key(name, generation).await?;
        Ok(generation)
    }
}
