//! The key store in Postgres, the rotation of the master key, and that of the lookup key.

use std::sync::Arc;

use aggregates::{Metadata, Purpose, UserId};
use serde_json::Map;
use tidemark::commands::users::{AccountError, Accounts};
use tidemark::commands::verify::bookkeeping::verify_bookkeeping;
use tidemark::keys::{
    CacheLimits, KeyError, KeyStatus, KeyStore, Keyring, Lookup, MasterKey, MasterState, Masters,
    PostgresKeyStore, Rewrapped, ServerKeyName, StoredSubjectKey, SubjectKey, SubjectKeyRef,
};
use tidemark::{clock, ids};

use crate::support::{self, TestDatabase};
use crate::world::{self, World};

const OLD: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const NEW: &str = "0202020202020202020202020202020202020202020202020202020202020202";

async fn store(database: &TestDatabase) -> Arc<PostgresKeyStore> {
    Arc::new(PostgresKeyStore::open(database.keys_pool()).await.unwrap())
}

/// A process that knows these master keys.
async fn process(database: &TestDatabase, masters: &str) -> Keyring {
    let masters = Masters::obtain(Some(masters), std::path::Path::new("/")).unwrap();
    Keyring::new(store(database).await, masters, CacheLimits::default())
}

fn both() -> String {
    format!("{NEW},{OLD}")
}

fn id(master: &str) -> String {
    MasterKey::parse(master).unwrap().id().to_owned()
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

async fn people(keyring: &Keyring, count: usize) -> Vec<SubjectKeyRef> {
    let mut keys = Vec::new();
    for _ in 0..count {
        let key = keyring.create(UserId(ids::new_id()), Purpose::Health).await.unwrap();
        keys.push(reference(&key));
    }
    keys
}

/// All keys open in a process that starts now. What opens is the committed key: `fetch` checks.
async fn all_open(database: &TestDatabase, masters: &str, keys: &[SubjectKeyRef]) {
    let cold = process(database, masters).await;
    cold.check_master().await.unwrap();
    for key in keys {
        cold.fetch(key).await.unwrap();
    }
}

#[tokio::test]
async fn the_store_keeps_what_it_is_given() {
    let database = support::empty_database().await;
    let store = store(&database).await;
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
    assert!(!store.insert(later.clone()).await.unwrap(), "under no current master key");
    store.make_current("kek", true).await.unwrap();
    store.make_current("another", true).await.unwrap();
    assert!(store.insert(later.clone()).await.unwrap());
    assert!(store.insert(earlier.clone()).await.unwrap());

    assert_eq!(store.find(later.key_id).await.unwrap(), Some(later.clone()));
    assert_eq!(store.of_user(user).await.unwrap(), [earlier.clone(), later.clone()]);
    assert!(store.insert(later.clone()).await.is_err());
    assert_eq!(store.masters().await.unwrap().len(), 1);

    assert!(store.destroy(later.key_id).await.unwrap());
    assert!(!store.destroy(later.key_id).await.unwrap());
    assert_eq!(store.find(later.key_id).await.unwrap(), None);
    assert_eq!(store.of_user(user).await.unwrap(), std::slice::from_ref(&earlier));
}

#[tokio::test]
async fn processes_that_start_at_once_share_master_and_server_keys() {
    let database = support::empty_database().await;
    let start = |masters: String| {
        let database = &database;
        async move {
            let keyring = process(database, &masters).await;
            keyring.get_or_create_server_key(ServerKeyName::Cursor).await.unwrap().key_id()
        }
    };
    let starts = (0..4).map(|n| start(if n % 2 == 0 { both() } else { format!("{OLD},{NEW}") }));
    let ids = futures_util::future::join_all(starts).await;
    assert!(ids.iter().all(|id| *id == ids[0]));
    let masters = store(&database).await.masters().await.unwrap();
    assert_eq!(masters.len(), 1, "the first one offered was taken");
}

#[tokio::test]
async fn a_store_from_before_rotation_knows_its_master_key() {
    let database = support::empty_database().await;
    let keys = people(&process(&database, OLD).await, 2).await;
    sqlx::raw_sql("DROP TABLE master_keys").execute(&database.keys_pool()).await.unwrap();
    all_open(&database, OLD, &keys).await;
    let masters = store(&database).await.masters().await.unwrap();
    assert_eq!((masters[0].kek_id.clone(), masters[0].state), (id(OLD), MasterState::Current));
    assert!(process(&database, NEW).await.check_master().await.is_err());
}

#[tokio::test]
async fn a_rotation_wraps_everything_anew_while_others_go_on() {
    let database = support::empty_database().await;
    let only_old = process(&database, OLD).await;
    only_old.get_or_create_server_key(ServerKeyName::Lookup).await.unwrap();
    let mut keys = people(&only_old, 25).await;
    // A server that was restarted with both keys goes on under the old one until it is told to.
    let server = process(&database, &both()).await;
    keys.extend(people(&server, 1).await);
    assert_eq!(store(&database).await.wrapped().await.unwrap()[0].subject_keys, 26);

    let rotating = process(&database, &both()).await;
    let creating = async {
        let mut made = Vec::new();
        for _ in 0..12 {
            made.extend(people(&server, 1).await);
        }
        made
    };
    let destroyed = keys.remove(3);
    let erased = async { server.destroy(destroyed.key_id).await.unwrap() };
    let (rotated, made, was_there) =
        tokio::join!(rotating.rotate_master(4, |_| {}), creating, erased);
    let rotated = rotated.unwrap();
    assert!(was_there && rotated.damaged.is_empty());
    assert_eq!(rotated.retired, [id(OLD)], "nothing is left under the old one");
    keys.extend(made);

    all_open(&database, NEW, &keys).await;
    assert!(store(&database).await.find(destroyed.key_id).await.unwrap().is_none());
    assert_eq!(rotating.rotate_master(4, |_| {}).await.unwrap().rewrapped, 0, "all is done");

    // Who has only the old one says so, clearly, and makes nothing under it.
    for refused in [
        only_old.check_master().await.unwrap_err(),
        process(&database, OLD).await.fetch(&keys[0]).await.unwrap_err(),
        only_old.create(UserId(ids::new_id()), Purpose::Health).await.unwrap_err(),
    ] {
        assert!(refused.is_alarm());
        let text = refused.to_string();
        assert!(text.contains(&id(NEW)) && text.contains("TIDEMARK_MASTER_KEY"), "{text}");
    }
    let back = process(&database, &format!("{OLD},{NEW}")).await;
    assert!(matches!(
        back.rotate_master(4, |_| {}).await,
        Err(KeyError::RetiredMaster { kek_id }) if kek_id == id(OLD)
    ));
}

#[tokio::test]
async fn a_rotation_that_was_broken_off_is_simply_run_again() {
    let database = support::empty_database().await;
    let keys = people(&process(&database, OLD).await, 20).await;
    let broken = process(&database, &both()).await;
    let until_third = async {
        let (tell, mut told) = tokio::sync::watch::channel(0);
        tokio::select! {
            _ = broken.rotate_master(2, |seen| { let _ = tell.send(seen); }) => unreachable!(),
            _ = async { while *told.borrow_and_update() < 6 { told.changed().await.unwrap(); } } => {}
        }
    };
    until_third.await;
    let under = |wrapped: &[tidemark::keys::Wrapped], master| {
        wrapped.iter().find(|it| it.kek_id == id(master)).map_or(0, |it| it.subject_keys)
    };
    let halfway = store(&database).await.wrapped().await.unwrap();
    assert!(under(&halfway, NEW) >= 6 && under(&halfway, OLD) > 0, "{halfway:?}");
    all_open(&database, &both(), &keys).await;
    assert!(process(&database, OLD).await.check_master().await.is_err());
    assert!(process(&database, NEW).await.check_master().await.is_err(), "the old one is needed");

    // Two at once share what is left.
    let (one, two) = (process(&database, &both()).await, process(&database, &both()).await);
    let (one, two) = tokio::join!(one.rotate_master(3, |_| {}), two.rotate_master(3, |_| {}));
    let left = one.unwrap().rewrapped + two.unwrap().rewrapped;
    assert_eq!(left, under(&halfway, OLD).unsigned_abs());
    all_open(&database, NEW, &keys).await;
}

#[tokio::test]
async fn a_damaged_key_keeps_its_master_key_from_being_retired() {
    let database = support::empty_database().await;
    let keys = people(&process(&database, OLD).await, 5).await;
    sqlx::query("UPDATE subject_keys SET wrapped = 'x' WHERE key_id = $1")
        .bind(keys[2].key_id)
        .execute(&database.keys_pool())
        .await
        .unwrap();
    let rotated = process(&database, &both()).await.rotate_master(2, |_| {}).await.unwrap();
    assert_eq!((rotated.rewrapped, rotated.damaged), (4, vec![keys[2].key_id]));
    assert!(rotated.retired.is_empty());
}

#[tokio::test]
async fn a_wrapping_is_replaced_only_if_it_is_still_the_one_that_was_read() {
    let database = support::empty_database().await;
    let keys = people(&process(&database, OLD).await, 1).await;
    let store = store(&database).await;
    let anew = |from: &str| {
        vec![Rewrapped { key_id: keys[0].key_id, from: from.to_owned(), wrapped: vec![1] }]
    };
    assert_eq!(store.rewrap(anew("another"), &id(OLD)).await.unwrap(), 0);
    assert_eq!(store.rewrap(anew(&id(OLD)), "not current").await.unwrap(), 0);
    all_open(&database, OLD, &keys).await;
}

/// A process of its own with accounts on this log.
async fn accounts(world: &World) -> Accounts {
    let store = world.another_process().await;
    let keyring = store.sealer().keyring().clone();
    keyring.get_or_create_server_key(ServerKeyName::Lookup).await.unwrap();
    Accounts::new(store, Lookup::open(keyring).await.unwrap())
}

async fn resolve(accounts: &Accounts, name: &str) -> Result<UserId, AccountError> {
    let metadata: Metadata = world::metadata();
    accounts.resolve("https://id.example", name, &Map::new(), &metadata).await
}

/// How many names each generation holds, the oldest first.
async fn names(world: &World) -> Vec<i64> {
    let keys = world.store.sealer().keyring().store();
    let mut counts = Vec::new();
    for key in keys.server_keys(ServerKeyName::Lookup).await.unwrap().iter().rev() {
        let count = sqlx::query_scalar("SELECT count(*) FROM reservations WHERE key_id = $1");
        counts.push(count.bind(key.key_id).fetch_one(world.store.pool()).await.unwrap());
    }
    counts
}

#[tokio::test]
async fn a_rotation_of_the_lookup_key_makes_nobody_a_stranger_nor_two_people() {
    let world = World::new().await;
    let before = accounts(&world).await;
    let ann = resolve(&before, "ann").await.unwrap();
    let zoe = resolve(&before, "zoe").await.unwrap();
    world.store.sealer().keyring().rotate_lookup().await.unwrap();

    // `before` has not heard of the new generation; `after` has. They agree on everybody.
    let after = accounts(&world).await;
    assert_eq!(resolve(&after, "ann").await.unwrap(), ann);
    let ben = resolve(&after, "ben").await.unwrap();
    assert_eq!(resolve(&before, "ben").await.unwrap(), ben);
    let cat = resolve(&before, "cat").await.unwrap();
    assert_eq!(resolve(&after, "cat").await.unwrap(), cat);
    for name in ["dan", "eve", "fay"] {
        let (one, two) = tokio::join!(resolve(&before, name), resolve(&after, name));
        assert_eq!(one.unwrap(), two.unwrap(), "{name}");
    }

    // An hour later the new generation is used alone, and who comes back moves to it.
    sqlx::query("UPDATE server_keys SET created_at = created_at - interval '1 hour'")
        .execute(&world.database.keys_pool())
        .await
        .unwrap();
    let later = accounts(&world).await;
    for (name, user) in [("ann", ann), ("ben", ben), ("cat", cat)] {
        assert_eq!(resolve(&later, name).await.unwrap(), user, "{name}");
        assert_eq!(resolve(&accounts(&world).await, name).await.unwrap(), user, "{name}");
    }
    resolve(&later, "gus").await.unwrap();
    let held = names(&world).await;
    for name in ["dan", "eve", "fay"] {
        resolve(&later, name).await.unwrap();
    }
    let moved = names(&world).await;
    assert_eq!(held[0] - moved[0], 3, "those three were still under the old one");
    assert_eq!(moved, [1, 7], "zoe has not come back");
    assert_eq!(resolve(&later, "zoe").await.unwrap(), zoe);
    assert_eq!(names(&world).await, [0, 8]);
    let verified = verify_bookkeeping(&world.store, 9).await.unwrap();
    assert_eq!(verified.faults.count, 0, "{:?}", verified.faults);
}
