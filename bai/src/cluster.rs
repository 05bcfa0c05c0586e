//! A manager and an agent in this process.

mod builder;
mod server;

use std::path::{Path, PathBuf};

use axum::Router;
use bai_client::{Client, Credentials, InProcess};
use bai_core::{Error, Result, error::code};
use bai_manager_lib::Manager;
use bai_manager_lib::gateway::{self, GatewayOptions};
use bai_store::Store;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::runtime::Node;
use crate::secrets;

pub use builder::Builder;
pub use server::Server;

/// A running cluster of one node.
///
/// Dropping it leaves kernels of a kept data directory running: the next cluster on the same directory adopts them.
#[derive(Debug)]
pub struct Cluster {
    manager: Manager,
    store: Store,
    node: Node,
    router: Router,
    credentials: Credentials,
    data: PathBuf,
    stop: CancellationToken,
    /// Removes a directory that nobody asked to keep.
    ephemeral: Option<TempDir>,
}

impl Cluster {
    /// A cluster in this process: SQLite, in-process events, the process sandbox.
    pub fn embedded() -> Builder {
        Builder::default()
    }

    /// A client of this cluster with the superadmin's keypair. Calls go through the whole gateway, without sockets.
    pub fn client(&self) -> Client {
        Client::over(InProcess::new(self.router.clone()), self.credentials.clone())
    }

    /// The superadmin's keypair.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The directory that holds the state.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Serves the manager API on `listener` until the cluster is shut down or the returned handle is stopped.
    ///
    /// # Errors
    /// `Unavailable` when the listener has no address.
    pub fn serve(&self, listener: tokio::net::TcpListener) -> Result<Server> {
        Server::start(self.manager.clone(), listener, self.stop.child_token())
    }

    /// Writes `env.sh` into the data directory, mode 0600: sourced by a shell, it lets the official clients, and `bai`, use
    /// the server at `endpoint`.
    ///
    /// # Errors
    /// `Invalid` when the directory cannot be written to.
    pub fn write_environment(&self, endpoint: &str) -> Result<()> {
        write_environment(&self.data, endpoint, self.credentials.access_key(), self.credentials.secret_key())
    }

    /// Ends every session of an ephemeral cluster, stops serving, ends all background work, and closes the store: calls of clients
    /// that are still around fail from then on. Kernels of a kept data directory
    /// go on running.
    pub async fn shutdown(self) {
        if self.ephemeral.is_some() {
            self.end_sessions().await;
        }
        self.stop.cancel();
        self.node.agent.shutdown().await;
        self.manager.shutdown().await;
        self.store.close().await; // clients may still hold the manager, and with it the database
    }

    /// Nothing of an ephemeral cluster may outlive it.
    async fn end_sessions(&self) {
        let client = self.client();
        let living =
            "PENDING,SCHEDULED,PULLING,PREPARING,RUNNING,RESTARTING,RUNNING_DEGRADED,TERMINATING,ERROR";
        for row in client.sessions(living, u32::MAX >> 1).await.unwrap_or_default() {
            if let Err(error) = client.session(row.id).destroy_forced().await {
                tracing::debug!(%error, session = row.name, "cannot end the session");
            }
        }
        self.node.end_all().await;
    }
}

/// Writes `env.sh` into `dir`.
pub(crate) fn write_environment(
    dir: &Path,
    endpoint: &str,
    access_key: &str,
    secret_key: &str,
) -> Result<()> {
    let text = format!(
        "export BACKEND_ENDPOINT='{endpoint}'\nexport BACKEND_ENDPOINT_TYPE='api'\n\
         export BACKEND_ACCESS_KEY='{access_key}'\nexport BACKEND_SECRET_KEY='{secret_key}'\n"
    );
    secrets::write_private(&dir.join("env.sh"), text.as_bytes())
}

/// The gateway of `manager` as a service.
fn router(manager: &Manager, stop: &CancellationToken) -> Router {
    gateway::router(manager.clone(), gateway_options(stop))
}

fn gateway_options(stop: &CancellationToken) -> GatewayOptions {
    let mut options = GatewayOptions::default();
    options.shutdown = stop.clone();
    options
}

/// The error of a listener without an address.
fn no_address(cause: std::io::Error) -> Error {
    Error::of(code::UNAVAILABLE, "the listener has no address").source(cause)
}
