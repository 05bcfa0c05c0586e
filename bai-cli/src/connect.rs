//! Which cluster a command works on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bai::{Client, Cluster, Credentials, Runtime};
use bai_core::{Error, ErrorKind, Result, error::code};

use crate::args::Server;

/// How long to wait for another command that uses the same data directory.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open connection, to a server or to a cluster in this process.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    cluster: Option<Cluster>,
}

impl Connection {
    /// Shuts an embedded cluster down.
    pub(crate) async fn close(self) {
        if let Some(cluster) = self.cluster {
            cluster.shutdown().await;
        }
    }
}

/// Connects to the server that is named, else to one that serves the data directory, else starts a cluster in this process; an
/// ephemeral one leaves nothing behind.
pub(crate) async fn open(server: Server, ephemeral: bool) -> Result<Connection> {
    if let Some(endpoint) = server.endpoint.filter(|endpoint| !endpoint.is_empty()) {
        let credentials = Credentials::new(
            needed(server.access_key, "BACKEND_ACCESS_KEY")?,
            needed(server.secret_key, "BACKEND_SECRET_KEY")?,
        );
        return Ok(Connection { client: Client::connect(&endpoint, credentials)?, cluster: None });
    }
    if ephemeral && server.data.is_none() {
        return Ok(embedded(Cluster::embedded().runtime(process_runtime()).build().await?));
    }
    on_directory(&data_dir(server.data)?).await
}

async fn on_directory(dir: &Path) -> Result<Connection> {
    let give_up = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Cluster::embedded().data_dir(dir).runtime(process_runtime()).build().await {
            Ok(cluster) => return Ok(embedded(cluster)),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                if let Some(client) = served(dir).await {
                    return Ok(Connection { client, cluster: None });
                }
                if tokio::time::Instant::now() > give_up {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn embedded(cluster: Cluster) -> Connection {
    Connection { client: cluster.client(), cluster: Some(cluster) }
}

/// A client of the server that wrote `env.sh` into the directory, if it answers.
async fn served(dir: &Path) -> Option<Client> {
    let text = std::fs::read_to_string(dir.join("env.sh")).ok()?;
    let value = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("export ")?.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('\'').to_owned())
    };
    let credentials = Credentials::new(value("BACKEND_ACCESS_KEY")?, value("BACKEND_SECRET_KEY")?);
    let client = Client::connect(&value("BACKEND_ENDPOINT")?, credentials).ok()?;
    client.server_info().await.ok().map(|_| client)
}

/// The directory that is named, else `$XDG_DATA_HOME/bai`, else `~/.local/share/bai`.
pub(crate) fn data_dir(named: Option<PathBuf>) -> Result<PathBuf> {
    named
        .or_else(|| variable("XDG_DATA_HOME").map(|dir| Path::new(&dir).join("bai")))
        .or_else(|| variable("HOME").map(|dir| Path::new(&dir).join(".local/share/bai")))
        .ok_or_else(|| Error::of(code::CLIENT_USAGE, "no data directory: set --data, XDG_DATA_HOME or HOME"))
}

/// The process sandbox with the interpreters that the person's own shell finds.
pub(crate) fn process_runtime() -> Runtime {
    Runtime::Process { path: variable("PATH") }
}

/// An environment variable that is set to something.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn needed(value: Option<String>, variable: &'static str) -> Result<String> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| {
        Error::of(code::CLIENT_USAGE, "an endpoint is set, but not its keypair").with("missing", variable)
    })
}
