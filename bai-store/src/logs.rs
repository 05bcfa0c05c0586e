//! Console logs of dead kernels.

use async_trait::async_trait;
use bai_core::error::Result;
use bai_core::port::LogStore;
use bai_core::{KernelId, SessionId};

use crate::db::args;
use crate::dialect::statements;
use crate::store::Store;

statements! {
    PUT = "INSERT INTO kernel_logs (kernel_id, session_id, log) VALUES ($1, $2, $3)
           ON CONFLICT (kernel_id) DO UPDATE SET session_id = excluded.session_id, log = excluded.log";
    GET = "SELECT log FROM kernel_logs WHERE kernel_id = $1";
}

#[async_trait]
impl LogStore for Store {
    async fn put_log(&self, kernel: KernelId, session: SessionId, log: &[u8]) -> Result<()> {
        self.db().execute(PUT, &args![kernel.to_string(), session.to_string(), log]).await?;
        Ok(())
    }

    async fn log(&self, kernel: KernelId) -> Result<Option<Vec<u8>>> {
        self.db().row(GET, &args![kernel.to_string()]).await?.map(|row| row.bytes(0)).transpose()
    }
}
