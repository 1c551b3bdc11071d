//! A connection that is kept from one statement to the next: giving one back to a pool, and taking
//! it again, costs a round trip each time.

use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};

/// Past this the other side is taken for gone. It is more than a statement may take: Postgres ends
/// those that take longer, if it still hears us.
const DEADLINE: Duration = Duration::from_secs(12);
/// After so long without use the pool decides anew which connections are good: on the way, somebody
/// may have forgotten an idle one.
const IDLE: Duration = Duration::from_secs(30);

/// See the module's text.
pub(super) struct Kept {
    pool: PgPool,
    held: Option<PoolConnection<Postgres>>,
    used: Instant,
}

impl Kept {
    /// Holds nothing before its first use.
    pub fn of(pool: PgPool) -> Self {
        Self { pool, held: None, used: Instant::now() }
    }

    /// Ends when the pool is being closed: whoever closes it waits for what is held.
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        self.pool.close_event()
    }

    /// Runs statements. After an error the connection goes back to the pool, which looks whether it
    /// is still good.
    pub async fn run<T>(
        &mut self,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let held = self.held.take().filter(|_| self.used.elapsed() < IDLE);
        let mut connection = match held {
            Some(connection) => connection,
            None => self.pool.acquire().await?,
        };
        match tokio::time::timeout(DEADLINE, statements(&mut connection)).await {
            Ok(Ok(result)) => {
                self.used = Instant::now();
                self.held = Some(connection);
                Ok(result)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                connection.close_on_drop();
                Err(sqlx::Error::PoolTimedOut)
            }
        }
    }
}
