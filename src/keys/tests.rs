//! The keyring over a store in memory that tests can damage, and the Postgres store itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aggregates::{Purpose, UserId};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use uuid::Uuid;

use super::*;
use crate::ids;

const MASTER: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER_MASTER: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

#[derive(Default)]
struct MemoryKeyStore {
    subjects: Mutex<BTreeMap<Uuid, StoredSubjectKey>>,
    server: Mutex<Vec<StoredServerKey>>,
    masters: Mutex<Vec<StoredMaster>>,
    /// How often the server's keys were read.
    reads: AtomicUsize,
}

impl MemoryKeyStore {
    fn subjects<T>(&self, act: impl FnOnce(&mut BTreeMap<Uuid, StoredSubjectKey>) -> T) -> T {
        act(&mut self.subjects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn server<T>(&self, act: impl FnOnce(&mut Vec<StoredServerKey>) -> T) -> T {
        act(&mut self.server.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn masters_locked<T>(&self, act: impl FnOnce(&mut Vec<StoredMaster>) -> T) -> T {
        act(&mut self.masters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_current(&self, kek_id: &str) -> bool {
        let current = |it: &StoredMaster| it.kek_id == kek_id && it.state == MasterState::Current;
        self.masters_locked(|masters| masters.iter().any(current))
    }
}

impl KeyStore for MemoryKeyStore {
    fn insert(&self, key: StoredSubjectKey) -> BoxFuture<'_, Result<bool, KeyError>> {
        let current = self.is_current(&key.kek_id);
        if current {
            self.subjects(|keys| keys.insert(key.key_id, key));
        }
        ready(Ok(current)).boxed()
    }

    fn find(&self, key_id: Uuid) -> BoxFuture<'_, Result<Option<StoredSubjectKey>, KeyError>> {
        ready(Ok(self.subjects(|keys| keys.get(&key_id).cloned()))).boxed()
    }

    fn of_user(&self, user: UserId) -> BoxFuture<'_, Result<Vec<StoredSubjectKey>, KeyError>> {
        let mine = |keys: &mut BTreeMap<_, StoredSubjectKey>| {
            keys.values().filter(|key| key.user == user).cloned().collect()
        };
        ready(Ok(self.subjects(mine))).boxed()
    }

    fn destroy(&self, key_id: Uuid) -> BoxFuture<'_, Result<bool, KeyError>> {
        ready(Ok(self.subjects(|keys| keys.remove(&key_id).is_some()))).boxed()
    }

    fn insert_server(&self, key: StoredServerKey) -> BoxFuture<'_, Result<bool, KeyError>> {
        let current = self.is_current(&key.kek_id);
        self.server(|keys| {
            let taken = keys.iter().any(|k| (k.name, k.generation) == (key.name, key.generation));
            if !taken && current {
                keys.push(key);
            }
        });
        ready(Ok(current)).boxed()
    }

    fn server_keys(
        &self,
        name: ServerKeyName,
    ) -> BoxFuture<'_, Result<Vec<StoredServerKey>, KeyError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let named = |keys: &mut Vec<StoredServerKey>| {
            let mut named: Vec<_> = keys.iter().filter(|key| key.name == name).cloned().collect();
            named.sort_by_key(|key| -key.generation);
            named
        };
        ready(Ok(self.server(named))).boxed()
    }

    fn masters(&self) -> BoxFuture<'_, Result<Vec<StoredMaster>, KeyError>> {
        ready(Ok(self.masters_locked(|masters| masters.clone()))).boxed()
    }

    fn make_current(&self, kek_id: &str, only_first: bool) -> BoxFuture<'_, Result<(), KeyError>> {
        self.masters_locked(|masters| {
            if only_first && !masters.is_empty() {
                return;
            }
            masters.iter_mut().for_each(|it| it.state = MasterState::Accepted);
            masters.retain(|it| it.kek_id != kek_id);
            masters.push(StoredMaster { kek_id: kek_id.to_owned(), state: MasterState::Current });
        });
        ready(Ok(())).boxed()
    }

    fn subjects_not_under(
        &self,
        kek_id: &str,
        after: Uuid,
        limit: i64,
    ) -> BoxFuture<'_, Result<Vec<StoredSubjectKey>, KeyError>> {
        let page = self.subjects(|keys| {
            let others = keys.values().filter(|key| key.kek_id != kek_id && key.key_id > after);
            others.take(usize::try_from(limit).unwrap()).cloned().collect()
        });
        ready(Ok(page)).boxed()
    }

    fn rewrap(&self, anew: Vec<Rewrapped>, to: &str) -> BoxFuture<'_, Result<u64, KeyError>> {
        let mut replaced = 0;
        self.subjects(|keys| {
            for Rewrapped { key_id, from, wrapped } in anew {
                if let Some(key) = keys.get_mut(&key_id).filter(|key| key.kek_id == from) {
                    (key.wrapped, key.kek_id) = (wrapped, to.to_owned());
                    replaced += 1;
                }
            }
        });
        ready(Ok(replaced)).boxed()
    }

    fn retire_unused(&self) -> BoxFuture<'_, Result<Vec<String>, KeyError>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn wrapped(&self) -> BoxFuture<'_, Result<Vec<Wrapped>, KeyError>> {
        ready(Ok(Vec::new())).boxed()
    }
}

fn keyring_over(store: Arc<dyn KeyStore>, master: &str) -> Keyring {
    Keyring::new(store, MasterKey::parse(master).unwrap(), CacheLimits::default())
}

fn reference(key: &SubjectKey) -> SubjectKeyRef {
    SubjectKeyRef {
        key_id: key.key_id(),
        user: key.user(),
        purpose: key.purpose(),
        commitment: key.commitment(),
        status: KeyStatus::Active,
    }
}

/// A store with one health key, the key, and a second process' keyring with a cold cache.
async fn setting() -> (Arc<MemoryKeyStore>, Keyring, Arc<SubjectKey>, Keyring) {
    let store = Arc::new(MemoryKeyStore::default());
    let warm = keyring_over(Arc::clone(&store) as _, MASTER);
    let key = warm.create(UserId(ids::new_id()), Purpose::Health).await.unwrap();
    let cold = keyring_over(Arc::clone(&store) as _, MASTER);
    (store, warm, key, cold)
}

#[tokio::test]
async fn a_key_is_the_same_in_every_process() {
    let (_, warm, key, cold) = setting().await;
    for keyring in [warm, cold] {
        let fetched = keyring.fetch(&reference(&key)).await.unwrap();
        assert_eq!(fetched.secret().expose(), key.secret().expose());
    }
}

#[tokio::test]
async fn the_store_sees_no_key_bytes() {
    let (store, _, key, _) = setting().await;
    let stored = store.subjects(|keys| keys[&key.key_id()].clone());
    let bytes = key.secret().expose();
    assert!(!stored.wrapped.windows(8).any(|window| bytes.windows(8).any(|part| part == window)));
}

#[tokio::test]
async fn a_key_that_vanished_is_an_alarm_and_no_erasure() {
    let (store, _, key, cold) = setting().await;
    store.subjects(BTreeMap::clear);
    let error = cold.fetch(&reference(&key)).await.unwrap_err();
    assert!(matches!(error, KeyError::Missing { .. }));
    assert!(error.is_alarm());
}

#[tokio::test]
async fn a_destroyed_key_is_shredded_everywhere() {
    let (store, warm, key, cold) = setting().await;
    let destroyed = SubjectKeyRef { status: KeyStatus::Destroyed, ..reference(&key) };

    // From the event on, although the bytes are still there and cached.
    let error = warm.fetch(&destroyed).await.unwrap_err();
    assert!(matches!(error, KeyError::Shredded { .. }));
    assert!(!error.is_alarm());

    assert!(warm.destroy(key.key_id()).await.unwrap());
    assert!(!warm.destroy(key.key_id()).await.unwrap());
    assert!(store.subjects(|keys| keys.is_empty()));
    for keyring in [warm, cold] {
        assert!(matches!(keyring.fetch(&destroyed).await, Err(KeyError::Shredded { .. })));
    }
}

#[tokio::test]
async fn destroying_forgets_the_cached_bytes() {
    let (_, warm, key, _) = setting().await;
    warm.destroy(key.key_id()).await.unwrap();
    assert!(matches!(warm.fetch(&reference(&key)).await, Err(KeyError::Missing { .. })));
}

#[tokio::test]
async fn hearing_of_a_destruction_forgets_the_cached_bytes() {
    let (store, warm, key, _) = setting().await;
    store.subjects(BTreeMap::clear);
    let destroyed = SubjectKeyRef { status: KeyStatus::Destroyed, ..reference(&key) };
    assert!(warm.fetch(&destroyed).await.is_err());
    assert!(matches!(warm.fetch(&reference(&key)).await, Err(KeyError::Missing { .. })));
}

#[tokio::test]
async fn damaged_or_moved_bytes_are_an_alarm() {
    let (store, warm, key, _) = setting().await;
    let other = warm.create(UserId(ids::new_id()), Purpose::Health).await.unwrap();
    let stored = store.subjects(|keys| keys[&key.key_id()].clone());
    let foreign = store.subjects(|keys| keys[&other.key_id()].wrapped.clone());
    let mut flipped = stored.wrapped.clone();
    flipped[20] ^= 1;

    let damaged = [
        StoredSubjectKey { wrapped: foreign, ..stored.clone() },
        StoredSubjectKey { wrapped: flipped, ..stored.clone() },
        StoredSubjectKey { wrapped: Vec::new(), ..stored.clone() },
        StoredSubjectKey { user: other.user(), ..stored.clone() },
        StoredSubjectKey { purpose: Purpose::Activity, ..stored },
    ];
    for row in damaged {
        store.subjects(|keys| keys.insert(row.key_id, row));
        let cold = keyring_over(Arc::clone(&store) as _, MASTER);
        let error = cold.fetch(&reference(&key)).await.unwrap_err();
        assert!(matches!(error, KeyError::Corrupt { .. }));
        assert!(error.is_alarm());
    }
}

#[tokio::test]
async fn a_key_other_than_the_committed_one_is_an_alarm() {
    let (_, warm, key, cold) = setting().await;
    let expected = SubjectKeyRef { commitment: Commitment::from([0; 32]), ..reference(&key) };
    for keyring in [warm, cold] {
        assert!(matches!(keyring.fetch(&expected).await, Err(KeyError::Corrupt { .. })));
    }
}

#[tokio::test]
async fn another_persons_reference_gets_no_key() {
    let (_, warm, key, _) = setting().await;
    let stolen = SubjectKeyRef { user: UserId(ids::new_id()), ..reference(&key) };
    assert!(matches!(warm.fetch(&stolen).await, Err(KeyError::Corrupt { .. })));
}

#[tokio::test]
async fn another_master_key_is_noticed_at_start() {
    let (store, warm, key, _) = setting().await;
    warm.check_master().await.unwrap();
    let other = keyring_over(store, OTHER_MASTER);
    assert!(matches!(other.check_master().await, Err(KeyError::OtherMaster { .. })));
    assert!(matches!(other.fetch(&reference(&key)).await, Err(KeyError::OtherMaster { .. })));
}

#[tokio::test]
async fn server_keys_are_made_once_and_never_silently() {
    let store = Arc::new(MemoryKeyStore::default());
    let keyring = || keyring_over(Arc::clone(&store) as _, MASTER);
    let absent = keyring().server_keys(ServerKeyName::Lookup).await;
    assert!(matches!(absent, Err(KeyError::NoServerKey { name: ServerKeyName::Lookup })));

    let lookup = keyring().get_or_create_server_key(ServerKeyName::Lookup).await.unwrap();
    let again = keyring().get_or_create_server_key(ServerKeyName::Lookup).await.unwrap();
    let cursor = keyring().get_or_create_server_key(ServerKeyName::Cursor).await.unwrap();
    assert_eq!(lookup.secret().expose(), again.secret().expose());
    assert_ne!(lookup.secret().expose(), cursor.secret().expose());
}

/// A generation of the lookup key that this process read so long ago.
async fn read_before(keyring: &Keyring, ago: std::time::Duration) -> Lookup {
    let lookup = Lookup::open(keyring.clone()).await.unwrap();
    lookup.backdate(ago);
    lookup
}

#[tokio::test]
async fn nobody_claims_by_generations_read_long_ago() {
    let store = Arc::new(MemoryKeyStore::default());
    let keyring = keyring_over(Arc::clone(&store) as _, MASTER);
    keyring.get_or_create_server_key(ServerKeyName::Lookup).await.unwrap();
    let recent = read_before(&keyring, lookup::VIEW / 2).await;
    let old = read_before(&keyring, lookup::VIEW).await;
    assert_eq!(keyring.rotate_lookup().await.unwrap(), 2);
    assert!(matches!(keyring.rotate_lookup().await, Err(KeyError::TooSoon { .. })));
    assert!(recent.known().is_fresh() && !old.known().is_fresh());
    assert_eq!(recent.fresh().await.unwrap().names("identity", &["ann"]).len(), 1);
    let view = old.fresh().await.unwrap();
    let names = view.names("identity", &["ann"]);
    assert_eq!((names.len(), view.is_settled()), (2, false));
    assert_eq!(view.claimed(&names), names, "while the new generation rests, both");

    // Without the key store one can still find people, but not make accounts.
    let old = read_before(&keyring, lookup::VIEW).await;
    store.server(Vec::clear);
    assert!(old.fresh().await.is_err());
    assert_eq!(old.view().await.names("identity", &["ann"]).len(), 2);

    let rested = read_before(&keyring_with_generations(&store).await, lookup::REST).await;
    let view = rested.known();
    let names = view.names("identity", &["ann"]);
    assert_eq!(view.claimed(&names), &names[..1], "from then on, the newest");
}

#[tokio::test]
async fn a_key_store_that_is_away_is_asked_by_one_caller_at_a_time_and_not_at_every_request() {
    let store = Arc::new(MemoryKeyStore::default());
    let keyring = keyring_over(Arc::clone(&store) as _, MASTER);
    keyring.get_or_create_server_key(ServerKeyName::Lookup).await.unwrap();
    let lookup = read_before(&keyring, lookup::VIEW).await;
    store.server(Vec::clear);
    let reads = || store.reads.load(Ordering::SeqCst);
    let before = reads();
    futures_util::future::join_all((0..10).map(|_| lookup.view())).await;
    for _ in 0..10 {
        assert_eq!(lookup.view().await.names("identity", &["ann"]).len(), 1);
    }
    assert_eq!(reads(), before + 1);
    assert!(lookup.fresh().await.is_err(), "to claim, one must know");
    assert_eq!(reads(), before + 2);
    lookup.backdate(lookup::VIEW);
    lookup.view().await;
    assert_eq!(reads(), before + 3, "in a while, it is asked again");
}

async fn keyring_with_generations(store: &Arc<MemoryKeyStore>) -> Keyring {
    let keyring = keyring_over(Arc::clone(store) as _, MASTER);
    keyring.get_or_create_server_key(ServerKeyName::Lookup).await.unwrap();
    keyring.rotate_lookup().await.unwrap();
    keyring
}

#[tokio::test]
async fn a_destroyed_key_leaves_the_memory_of_its_process_at_once() {
    let (_, warm, key, _) = setting().await;
    let bytes = Arc::downgrade(&key);
    drop(key);
    let key_id = bytes.upgrade().unwrap().key_id();
    warm.destroy(key_id).await.unwrap();
    assert!(bytes.upgrade().is_none(), "nobody holds the bytes any more");
}

#[tokio::test]
async fn keys_leave_memory_when_their_time_is_up_or_there_are_too_many() {
    let store = Arc::new(MemoryKeyStore::default());
    let keyring = |capacity, time_to_live| {
        let limits = CacheLimits { capacity, time_to_live };
        Keyring::new(Arc::clone(&store) as _, MasterKey::parse(MASTER).unwrap(), limits)
    };
    let brief = keyring(100, std::time::Duration::from_millis(1));
    let key = Arc::downgrade(&brief.create(UserId(ids::new_id()), Purpose::Health).await.unwrap());
    while key.strong_count() > 0 {
        tokio::task::yield_now().await;
        brief.sweep().await;
    }
    let small = keyring(3, std::time::Duration::from_secs(300));
    let mut keys = Vec::new();
    for _ in 0..10 {
        let key = small.create(UserId(ids::new_id()), Purpose::Health).await.unwrap();
        keys.push(Arc::downgrade(&key));
    }
    while keys.iter().filter(|key| key.strong_count() > 0).count() > 3 {
        tokio::task::yield_now().await;
        small.sweep().await;
    }
}
