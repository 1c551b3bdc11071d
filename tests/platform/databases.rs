//! The databases that the other tests stand on.

use sqlx::{Connection, postgres::PgConnectOptions};
use tidemark::{
    config::DatabaseConfig,
    postgres::{Databases, connect::sibling, create_database_if_missing},
};

use crate::support::{connect, database, empty_database};

#[tokio::test]
async fn each_test_has_its_own_databases() {
    let (first, second) = tokio::join!(database(), database());
    for database in [&first, &second] {
        for pool in [database.pool(), database.keys_pool()] {
            sqlx::raw_sql("CREATE TABLE mine (id int)").execute(&pool).await.expect("created");
            pool.close().await;
        }
    }
}

#[tokio::test]
async fn sessions_carry_their_limits() {
    let database = empty_database().await;
    let limit: String = sqlx::query_scalar("SHOW idle_in_transaction_session_timeout")
        .fetch_one(&database.pool())
        .await
        .expect("a value");
    assert_eq!(limit, "1s");
}

#[tokio::test]
async fn a_named_database_gets_a_key_store_beside_it() {
    let database = empty_database().await;
    let log = Box::new(database.log.clone());
    let config = DatabaseConfig::External { log, keys: None };
    let databases = Databases::open(&config).await.expect("open");
    assert!(!databases.is_embedded());
    assert_eq!(databases.keys.get_database(), database.keys.get_database());
    connect(&databases.keys).await.ping().await.expect("the key store answers");
    databases.close().await;
}

#[tokio::test]
async fn creating_a_database_twice_at_once_is_harmless() {
    let database = empty_database().await;
    let missing = sibling(&database.keys, "_extra");
    let (first, second) =
        tokio::join!(create_database_if_missing(&missing), create_database_if_missing(&missing));
    first.expect("created");
    second.expect("created");
    connect(&missing).await.ping().await.expect("it answers");
}

#[tokio::test]
async fn an_unreachable_server_is_named_without_its_password() {
    let url = "postgres://app:hunter2@127.0.0.1:1/health";
    let options: PgConnectOptions = url.parse().expect("a URL");
    let config = DatabaseConfig::External { log: Box::new(options), keys: None };
    let error = Databases::open(&config).await.expect_err("nobody is there");
    let chain = format!("{:#}", anyhow::Error::from(error));
    assert!(chain.contains("health") && !chain.contains("hunter2"), "{chain}");
}
