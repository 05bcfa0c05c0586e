use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bai_core::id::AgentId;
use bai_core::secret::Secret;

/// Settings of a [`DockerBackend`](super::DockerBackend).
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// The engine's socket, `unix:///path`. Engines across a network are refused: a kernel's files and its runner's
    /// socket are on this host.
    pub host: String,
    /// Name of the agent among all that use the engine: containers of others are left alone.
    pub agent: AgentId,
    /// Network of the kernels. Default: that of the engine, a bridge.
    pub network: Option<String>,
    /// Address of this host that ports are published on. Default: loopback.
    pub publish_on: IpAddr,
    /// Processes and threads of a kernel whose limits name no number. Default 512.
    pub pids: u32,
    /// Open files of each process. Default 1048576, or the hard limit of this process where that is lower.
    pub open_files: u64,
    /// How much earlier than other processes of the host a kernel is killed when the host runs out of memory, from 0 to
    /// 1000. Default 300.
    pub oom_score_adj: u16,
    /// Longest time of a call to the engine. Starting a container and waiting for its end have this on top of the
    /// time that they take by their nature. Default 60 s.
    pub call_timeout: Duration,
    /// Longest time an image may take to be fetched. Default two hours.
    pub pull_timeout: Duration,
    /// Accounts at registries, by the registry's name in image names (`registry.example.com:5000`).
    pub logins: BTreeMap<String, RegistryLogin>,
}

/// An account at a registry.
#[derive(Debug, Clone)]
pub struct RegistryLogin {
    /// Name of the user.
    pub username: String,
    /// Password or access token.
    pub password: Secret<String>,
}

impl DockerOptions {
    /// The defaults.
    pub fn new(host: impl Into<String>, agent: impl Into<AgentId>) -> Self {
        Self {
            host: host.into(),
            agent: agent.into(),
            network: None,
            publish_on: IpAddr::V4(Ipv4Addr::LOCALHOST),
            pids: 512,
            open_files: open_files(),
            oom_score_adj: 300,
            call_timeout: Duration::from_mins(1),
            pull_timeout: Duration::from_hours(2),
            logins: BTreeMap::new(),
        }
    }
}

/// An engine without `CAP_SYS_RESOURCE` cannot go above the hard limit it was started with, for which ours stands.
fn open_files() -> u64 {
    const WANTED: u64 = 1 << 20;
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    limit.map_or(1024, |(_, hard)| hard.min(WANTED))
}
