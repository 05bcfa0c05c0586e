use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bai_core::AgentId;
use bai_scheduler::device::{AffinityPolicy, PoolOptions};

/// Everything that can be set about an agent. Durations are wall-clock, sizes are bytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AgentOptions {
    /// Identity, unique in the cluster.
    pub id: AgentId,
    /// Directory for `scratch/<kernel id>`. Made when absent.
    pub data_dir: PathBuf,
    /// Resource group served.
    pub resource_group: String,
    /// Region, free text.
    pub region: String,
    /// Host name or address given to clients.
    pub public_host: String,
    /// Address of the agent's API as the manager reaches it; empty within one process.
    pub addr: String,
    /// The runner binary on this host.
    pub runner: PathBuf,
    /// Time between reports when nothing changes.
    pub report_interval: Duration,
    /// Time between measurements of kernels and node.
    pub stats_interval: Duration,
    /// Time between comparisons with the back end, which find ends whose notice was lost.
    pub sync_interval: Duration,
    /// Time between image scans.
    pub image_interval: Duration,
    /// Cores kept for the host.
    pub reserved_cpu: u32,
    /// Memory kept for the host.
    pub reserved_mem: u64,
    /// Cores offered; those of the host when absent.
    pub cpu: Option<u32>,
    /// Memory offered; that of the host when absent.
    pub mem: Option<u64>,
    /// Memory capacity is rounded down to a multiple of this.
    pub mem_align: u64,
    /// How often each core is given away (1 = never twice).
    pub cpu_overcommit: u32,
    /// How often each byte of memory is given away.
    pub mem_overcommit: u32,
    /// Bind kernels to cores, whole ones of their own while there are enough. Needs `cpu_overcommit` to be 1.
    pub pin_cpus: bool,
    /// Device families in the order in which a request is served (`resource.allocation-order`): later ones follow the
    /// earlier to their NUMA nodes, families not named come first.
    pub allocation_order: Vec<String>,
    /// How the first family of a request is spread over NUMA nodes (`resource.affinity-policy`).
    pub affinity_policy: AffinityPolicy,
    /// Ids of devices to keep out of use, by family. Kernels that hold them already keep them.
    pub device_mask: BTreeMap<String, Vec<String>>,
    /// Processes and threads a kernel may have.
    pub pids_limit: Option<u32>,
    /// Host ports for published service ports.
    pub port_range: RangeInclusive<u16>,
    /// Address that host ports are checked on.
    pub bind_host: IpAddr,
    /// User and group id of user code; see [`AgentOptions::new`] for the default.
    pub uid_gid: (u32, u32),
    /// Kernels started at the same time.
    pub creation_concurrency: usize,
    /// Longest time from the start of a kernel's sandbox to the runner's first answer.
    pub start_timeout: Duration,
    /// Longest time an image may take to be fetched.
    pub pull_timeout: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// How long a kernel must be unknown to the manager before it is ended.
    pub unknown_grace: Duration,
    /// Longest time a runner may take to answer a command.
    pub command_timeout: Duration,
    /// How long a program that nobody reads from is held back before its output is dropped.
    pub unread_timeout: Duration,
    /// Console log kept per kernel.
    pub log_limit: u64,
}

impl AgentOptions {
    /// The defaults: nothing is reserved, everything is bound to the loopback address, and user code runs as 1000:1000
    /// when this process is root and as its own user otherwise.
    pub fn new(id: impl Into<AgentId>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            data_dir: data_dir.into(),
            resource_group: "default".into(),
            region: String::new(),
            public_host: "127.0.0.1".into(),
            addr: String::new(),
            runner: PathBuf::new(),
            report_interval: Duration::from_secs(10),
            stats_interval: Duration::from_secs(5),
            sync_interval: Duration::from_secs(10),
            image_interval: Duration::from_mins(1),
            reserved_cpu: 0,
            reserved_mem: 0,
            cpu: None,
            mem: None,
            mem_align: 16 << 20,
            cpu_overcommit: 1,
            mem_overcommit: 1,
            pin_cpus: true,
            allocation_order: PoolOptions::default().order,
            affinity_policy: AffinityPolicy::default(),
            device_mask: BTreeMap::new(),
            pids_limit: Some(4096),
            port_range: 30000..=31000,
            bind_host: IpAddr::from([127, 0, 0, 1]),
            uid_gid: default_user(),
            creation_concurrency: 8,
            start_timeout: Duration::from_mins(1),
            pull_timeout: Duration::from_hours(2),
            stop_grace: Duration::from_secs(5),
            unknown_grace: Duration::from_mins(1),
            command_timeout: Duration::from_secs(10),
            unread_timeout: Duration::from_secs(5),
            log_limit: 10 << 20,
        }
    }
}

fn default_user() -> (u32, u32) {
    if nix::unistd::geteuid().is_root() {
        return (1000, 1000);
    }
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}
