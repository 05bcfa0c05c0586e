//! The agent of a cluster: kernels on this node, commands and reports over HTTP/2.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bai_agent_lib::AgentOptions;
use bai_agent_lib::plugin::mock::MockPlugin;
use bai_core::{Result, Secret};
use bai_rpc::RemoteManager;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::ResourceConfig;
use crate::runtime::{Node, Prepared, Runtime};
use crate::secrets::{private_dir, unusable};

/// Configuration of an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// Identity, unique in the cluster. Default `i-node`.
    pub id: String,
    /// Directory for the kernels' files and state. Default `agent`.
    pub data: PathBuf,
    /// Address of the agent's API for managers. Default `127.0.0.1:6001`.
    pub listen: SocketAddr,
    /// Address of a manager for reports. Default `127.0.0.1:8082`.
    pub manager: String,
    /// Secret shared with the managers.
    pub secret: Secret,
    /// Resource group served. Default `default`.
    pub resource_group: String,
    /// What runs the kernels.
    pub runtime: Runtime,
    /// What the node offers, and how it is handed out.
    pub resource: ResourceConfig,
    /// A `mock-accelerator.toml` with accelerators to pretend. Absent by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mock_accelerator: Option<PathBuf>,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            id: "i-node".into(),
            data: "agent".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 6001)),
            manager: "127.0.0.1:8082".into(),
            secret: String::new().into(),
            resource_group: "default".into(),
            runtime: Runtime::default(),
            resource: ResourceConfig::default(),
            mock_accelerator: None,
        }
    }
}

/// A running agent.
#[derive(Debug)]
pub struct AgentRole {
    node: Node,
    listener: TcpListener,
    secret: Secret,
}

impl AgentRole {
    /// Takes over what runs already, and starts to report.
    ///
    /// # Errors
    /// `Invalid` when the configuration is wrong, `Unavailable` when the engine cannot be reached.
    pub async fn start(config: AgentConfig) -> Result<Self> {
        let data = private_dir(&config.data)?;
        let listener = super::bind(config.listen).await?;
        let mut options = AgentOptions::new(config.id, &data);
        options.addr = super::address(&listener)?.to_string();
        options.resource_group = config.resource_group;
        config.resource.apply(&mut options)?;
        let bin = data.join("bin");
        options.runner = bai_krunner_bin::install(&bin).map_err(|cause| unusable(&bin, cause))?;
        let manager = Arc::new(RemoteManager::connect(&config.manager, &config.secret)?);
        let mut prepared = Prepared::new(&config.runtime, options).await?;
        if let Some(file) = &config.mock_accelerator {
            prepared = prepared.plugins(vec![Box::new(MockPlugin::open(file)?)]);
        }
        let node = prepared.start(manager).await?;
        Ok(Self { node, listener, secret: config.secret })
    }

    /// Serves managers until `shutdown`. Kernels go on running.
    ///
    /// # Errors
    /// `Unavailable` when the listener fails.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<()> {
        let outcome =
            bai_rpc::serve_agent(self.node.agent.clone(), self.listener, self.secret, shutdown).await;
        self.node.agent.shutdown().await;
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accelerators_are_pretended_as_the_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mock-accelerator.toml");
        let config = AgentConfig {
            data: dir.path().join("agent"),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            manager: "127.0.0.1:1".into(), // nobody: reports are tried again and again
            secret: "secret".to_owned().into(),
            runtime: Runtime::Simulated,
            mock_accelerator: Some(file.clone()),
            ..AgentConfig::default()
        };
        let error = AgentRole::start(config.clone()).await.unwrap_err();
        assert_eq!(error.code(), bai_core::error::code::CONFIG_INVALID);
        let text = "slot_name = 'cuda'\ndevice_plugin_name = 'MockDevice'\ndevices = []\n";
        std::fs::write(&file, text).unwrap();
        AgentRole::start(config).await.unwrap().node.agent.shutdown().await;
    }
}
