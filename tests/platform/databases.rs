//! The databases that the other tests stand on.

use crate::support::{database, empty_database};

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
