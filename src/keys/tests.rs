//! The keyring over a store in memory that tests can damage, and the Postgres store itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aggregates::{Purpose, UserId};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use uuid::Uuid;

use super::*;
use crate::{clock, ids};

const MASTER: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER_MASTER: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

#[derive(Default)]
struct MemoryKeyStore {
    subjects: Mutex<BTreeMap<Uuid, StoredSubjectKey>>,
    server: Mutex<Vec<StoredServerKey>>,
}

impl MemoryKeyStore {
    fn subjects<T>(&self, act: impl FnOnce(&mut BTreeMap<Uuid, StoredSubjectKey>) -> T) -> T {
        act(&mut self.subjects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn server<T>(&self, act: impl FnOnce(&mut Vec<StoredServerKey>) -> T) -> T {
        act(&mut self.server.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl KeyStore for MemoryKeyStore {
    fn insert(&self, key: StoredSubjectKey) -> BoxFuture<'_, Result<(), KeyError>> {
        self.subjects(|keys| keys.insert(key.key_id, key));
        ready(Ok(())).boxed()
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

    fn insert_server(&self, key: StoredServerKey) -> BoxFuture<'_, Result<(), KeyError>> {
        self.server(|keys| {
            let taken = keys.iter().any(|k| (k.name, k.generation) == (key.name, key.generation));
            if !taken {
                keys.push(key);
            }
        });
        ready(Ok(())).boxed()
    }

    fn server_keys(
        &self,
        name: ServerKeyName,
    ) -> BoxFuture<'_, Result<Vec<StoredServerKey>, KeyError>> {
        let named = |keys: &mut Vec<StoredServerKey>| {
            let mut named: Vec<_> = keys.iter().filter(|key| key.name == name).cloned().collect();
            named.sort_by_key(|key| -key.generation);
            named
        };
        ready(Ok(self.server(named))).boxed()
    }

    fn kek_ids(&self) -> BoxFuture<'_, Result<Vec<String>, KeyError>> {
        let ids = self.subjects(|keys| keys.values().map(|key| key.kek_id.clone()).collect());
        ready(Ok(ids)).boxed()
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

/// The database to test against, if one is configured; its tables are shared by all runs.
async fn postgres() -> Option<PostgresKeyStore> {
    let url = std::env::var("TIDEMARK_TEST_DATABASE_URL").ok()?;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    Some(PostgresKeyStore::open(pool).await.unwrap())
}

#[tokio::test]
async fn postgres_keeps_what_it_is_given() {
    let Some(store) = postgres().await else { return };
    let user = UserId(ids::new_id());
    let now = clock::now_ms();
    let key = |purpose, created_at_ms| StoredSubjectKey {
        key_id: ids::new_id(),
        user,
        purpose,
        wrapped: vec![0, 1, 255],
        kek_id: "kek".to_owned(),
        created_at_ms,
    };
    let (later, earlier) = (key(Purpose::Health, now), key(Purpose::Identity, now - 1));
    store.insert(later.clone()).await.unwrap();
    store.insert(earlier.clone()).await.unwrap();

    assert_eq!(store.find(later.key_id).await.unwrap(), Some(later.clone()));
    assert_eq!(store.of_user(user).await.unwrap(), [earlier.clone(), later.clone()]);
    assert!(store.insert(later.clone()).await.is_err());
    assert!(store.kek_ids().await.unwrap().contains(&"kek".to_owned()));

    assert!(store.destroy(later.key_id).await.unwrap());
    assert!(!store.destroy(later.key_id).await.unwrap());
    assert_eq!(store.find(later.key_id).await.unwrap(), None);
    assert_eq!(store.of_user(user).await.unwrap(), std::slice::from_ref(&earlier));
    store.destroy(earlier.key_id).await.unwrap();
}

#[tokio::test]
async fn processes_that_start_at_once_share_postgres_and_its_server_keys() {
    let Some(store) = postgres().await else { return };
    let store: Arc<dyn KeyStore> = Arc::new(store);
    let start = || async {
        let _ = postgres().await;
        let keyring = keyring_over(Arc::clone(&store), MASTER);
        let key = keyring.get_or_create_server_key(ServerKeyName::Cursor).await.unwrap();
        key.key_id()
    };
    let ids = futures_util::future::join_all((0..4).map(|_| start())).await;
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[tokio::test]
async fn a_persons_key_survives_in_postgres_until_it_is_destroyed() {
    let Some(store) = postgres().await else { return };
    let store: Arc<dyn KeyStore> = Arc::new(store);
    let keyring = || keyring_over(Arc::clone(&store), MASTER);
    let key = keyring().create(UserId(ids::new_id()), Purpose::Identity).await.unwrap();
    let fetched = keyring().fetch(&reference(&key)).await.unwrap();
    assert_eq!(fetched.secret().expose(), key.secret().expose());
    assert!(keyring().destroy(key.key_id()).await.unwrap());
    assert!(matches!(keyring().fetch(&reference(&key)).await, Err(KeyError::Missing { .. })));
}
