//! The connection that the calls of all clones share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};
use bai_core::error::{Error, Result, code};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{TIMEOUT, failed};

/// A connection that is made when it is needed. One that failed, or did not answer in time, is replaced.
pub(super) struct Shared {
    client: Client,
    slot: Mutex<Slot>,
    /// Number of the last connection known to be lost, so that a late failure of an earlier one does not end its successor.
    lost: AtomicU64,
}

#[derive(Default)]
struct Slot {
    connection: Option<MultiplexedConnection>,
    /// Counts the connections from 1.
    number: u64,
}

impl Shared {
    pub(super) fn new(client: Client) -> Self {
        Self { client, slot: Mutex::default(), lost: AtomicU64::new(0) }
    }

    /// Runs a command with one deadline for all of it, connecting included.
    pub(super) async fn call<T>(
        &self,
        command: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T> {
        let mut used = None;
        let answer = timeout(TIMEOUT, async {
            let (connection, number) = self.connection().await?;
            used = Some(number);
            command(connection).await
        });
        let (error, lost) = match answer.await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                let lost = is_lost(&error);
                (failed(error), lost)
            }
            Err(_) => (Error::of(code::COORD_FAILED, "Redis did not answer in time"), true),
        };
        if let Some(number) = used.filter(|_| lost) {
            self.lost.fetch_max(number, Ordering::Relaxed);
        }
        Err(error)
    }

    /// A connection of its own, whose answers may take that long. Only connecting has the usual deadline.
    pub(super) async fn connect(&self, response: Duration) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(response));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    async fn connection(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        let mut slot = self.slot.lock().await;
        if slot.number > self.lost.load(Ordering::Relaxed)
            && let Some(connection) = &slot.connection
        {
            return Ok((connection.clone(), slot.number));
        }
        slot.connection = None;
        let connection = self.connect(TIMEOUT).await?;
        slot.connection = Some(connection.clone());
        slot.number += 1;
        Ok((connection, slot.number))
    }
}

/// Whether another connection may do better: this one is broken, or leads to a server that is no longer the primary.
fn is_lost(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error() || error.code() == Some("READONLY")
}
