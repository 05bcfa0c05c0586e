//! The manager API of a cluster on a socket.

use std::net::SocketAddr;

use bai_core::Result;
use bai_manager_lib::{Manager, gateway};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{gateway_options, no_address};

/// A gateway that serves. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(manager: Manager, listener: TcpListener, stop: CancellationToken) -> Result<Self> {
        let address = listener.local_addr().map_err(no_address)?;
        let mut options = gateway_options(&stop);
        options.service_addr = address.to_string();
        let shutdown = stop.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = gateway::serve(manager, listener, options, shutdown).await {
                tracing::error!(?error, "the gateway has stopped");
            }
        });
        Ok(Self { address, stop, task: Some(task) })
    }

    /// Address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of the endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets requests in progress end, then stops.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await; // a panic of the server is reported where it happens
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
