//! From what the agent wants to the definition of a container (spec agent.md, section 6), and back from its labels.

use std::collections::HashMap;
use std::path::Path;

use bai_core::id::{KernelId, SessionId};
use bai_core::port::agent::KernelRef;
use bai_core::port::backend::{Limits, StartSpec};
use bai_kernel_lib::sandbox::{CONTROL_DIR, RUNNER_PATH};
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding,
    PortMap, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use super::{DockerOptions, network};
use crate::backend::process::RUNNER_CONFIG;

pub(super) const KERNEL: &str = "ai.backend.kernel-id";
pub(super) const SESSION: &str = "ai.backend.session-id";
pub(super) const GENERATION: &str = "ai.backend.generation";
/// The agent, under the name that is searched for.
pub(super) const OWNER: &str = "ai.backend.owner";
const AGENT: &str = "ai.backend.agent-id";
/// Marks the network of a session, and the containers in it.
pub(super) const CLUSTER: &str = "ai.backend.cluster-network";
pub(super) const SERVICE_PORTS: &str = "ai.backend.service-ports";

/// What the runner needs as root, to prepare the kernel and to end the user's processes. The user's own processes have
/// none of it and can gain none.
const CAPABILITIES: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"];

/// The console holds only what the runner says about itself; the output of user code is in the kernel's log.
const CONSOLE_BYTES: &str = "256k";

/// The engine accepts no fewer cores.
const MIN_CORES: f64 = 0.01;

/// Identity of a container of ours, from its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) kernel: KernelRef,
    pub(super) session: SessionId,
}

impl Identity {
    /// Reads the labels of a container. An image made from a kernel's container passes the labels on to any container made
    /// from it, so the name must agree.
    pub(super) fn read(name: &str, labels: &HashMap<String, String>) -> Option<Self> {
        let label = |key: &str| labels.get(key).map(String::as_str);
        let id: KernelId = label(KERNEL)?.parse().ok()?;
        let kernel = KernelRef { id, generation: label(GENERATION)?.parse().ok()? };
        let session = label(SESSION)?.parse().ok()?;
        (name.trim_start_matches('/') == self::name(kernel)).then_some(Self { kernel, session })
    }
}

/// Name of the container: one per start, so that the engine itself refuses a second one and a call needs no search.
pub(super) fn name(kernel: KernelRef) -> String {
    format!("kernel.{}.{}", kernel.id, kernel.generation)
}

/// The whole definition, so that one call makes the container. `cores` are those of the engine.
pub(super) fn definition(options: &DockerOptions, spec: &StartSpec, cores: f64) -> ContainerCreateBody {
    ContainerCreateBody {
        hostname: Some(spec.hostname.clone()),
        user: Some("0:0".into()),
        working_dir: Some("/home/work".into()),
        entrypoint: Some(vec![RUNNER_PATH.into()]),
        cmd: Some(vec!["--config".into(), format!("{CONTROL_DIR}/{RUNNER_CONFIG}")]),
        image: Some(spec.image.clone()),
        labels: Some(labels(options, spec)),
        stop_signal: Some("SIGTERM".into()),
        exposed_ports: Some(spec.ports.iter().map(|(inside, _)| port_key(*inside)).collect()),
        // That of the image would run as root.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        host_config: Some(host_config(options, spec, cores)),
        networking_config: spec.cluster.as_ref().map(|cluster| network::place(cluster, &spec.hostname)),
        ..ContainerCreateBody::default()
    }
}

fn labels(options: &DockerOptions, spec: &StartSpec) -> HashMap<String, String> {
    let in_network = spec.cluster.iter().map(|_| (CLUSTER, "1".to_owned()));
    [
        (KERNEL, spec.kernel.id.to_string()),
        (SESSION, spec.session.to_string()),
        (GENERATION, spec.kernel.generation.to_string()),
        (AGENT, spec.agent.clone()),
        (OWNER, options.agent.to_string()),
        (SERVICE_PORTS, service_ports(spec)),
    ]
    .into_iter()
    .chain(in_network)
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The label of the image, and a `preopen` entry for each published port that it does not name.
fn service_ports(spec: &StartSpec) -> String {
    let declared = spec.image_labels.get(SERVICE_PORTS).map_or("", String::as_str);
    let known: Vec<&str> = declared.split(|c: char| !c.is_ascii_digit()).collect();
    let ports = spec.ports.iter().map(|(inside, _)| inside.to_string());
    let preopen =
        ports.filter(|port| !known.contains(&port.as_str())).map(|port| format!("{port}:preopen:{port}"));
    Some(declared.to_owned())
        .into_iter()
        .filter(|text| !text.is_empty())
        .chain(preopen)
        .collect::<Vec<_>>()
        .join(",")
}

fn host_config(options: &DockerOptions, spec: &StartSpec, cores: f64) -> HostConfig {
    let limits = &spec.limits;
    let memory = limits.memory.map(signed);
    HostConfig {
        mounts: Some(vec![
            bind(&spec.runner, RUNNER_PATH, true),
            bind(&spec.control_dir, CONTROL_DIR, false),
            bind(&spec.config_dir, "/home/config", true),
            bind(&spec.work_dir, "/home/work", false),
        ]),
        nano_cpus: nano_cpus(limits, cores),
        cpuset_cpus: cpuset(limits),
        memory,
        memory_swap: memory,
        pids_limit: Some(limits.pids.unwrap_or(options.pids).into()),
        shm_size: limits.shm.map(signed),
        ulimits: Some(vec![ulimit("nofile", options.open_files)]),
        oom_score_adj: Some(options.oom_score_adj.min(1000).into()),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(CAPABILITIES.map(str::to_owned).into()),
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        privileged: Some(false),
        ipc_mode: Some("private".into()),
        init: Some(false),
        network_mode: spec
            .cluster
            .as_ref()
            .map(|cluster| cluster.name.clone())
            .or_else(|| options.network.clone()),
        port_bindings: Some(port_bindings(options, spec)),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            ..RestartPolicy::default()
        }),
        log_config: Some(console()),
        ..HostConfig::default()
    }
}

/// A source that is missing is an error, not a new directory.
fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

/// The share of processor time. Whole cores of the kernel's own need none.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
pub(super) fn nano_cpus(limits: &Limits, cores: f64) -> Option<i64> {
    let pinned = if limits.cpuset.is_empty() { f64::INFINITY } else { limits.cpuset.len() as f64 };
    let share = limits.cpu.filter(|share| limits.cpuset.is_empty() || *share < pinned)?;
    Some((share.clamp(MIN_CORES, cores.max(MIN_CORES)) * 1e9).round() as i64)
}

fn cpuset(limits: &Limits) -> Option<String> {
    let list = limits.cpuset.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    (!list.is_empty()).then_some(list)
}

fn ulimit(name: &str, value: u64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(signed(value)), hard: Some(signed(value)) }
}

fn port_key(port: u16) -> String {
    format!("{port}/tcp")
}

fn port_bindings(options: &DockerOptions, spec: &StartSpec) -> PortMap {
    let host_ip = options.publish_on.to_string();
    let binding =
        |port: u16| PortBinding { host_ip: Some(host_ip.clone()), host_port: Some(port.to_string()) };
    spec.ports.iter().map(|(inside, outside)| (port_key(*inside), Some(vec![binding(*outside)]))).collect()
}

fn console() -> HostConfigLogConfig {
    let config = [("max-size", CONSOLE_BYTES), ("max-file", "2"), ("compress", "false")];
    let config = config.map(|(key, value)| (key.to_owned(), value.to_owned()));
    HostConfigLogConfig { typ: Some("local".into()), config: Some(config.into()) }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> StartSpec {
        StartSpec {
            kernel: KernelRef { id: KernelId::random(), generation: 3 },
            session: SessionId::random(),
            agent: "a1".into(),
            image: "local/python:3.11".into(),
            hostname: "main1".into(),
            runner: "/r".into(),
            work_dir: "/s/work".into(),
            config_dir: "/s/config".into(),
            control_dir: "/s/control".into(),
            limits: Limits::default(),
            image_labels: [(SERVICE_PORTS.to_owned(), "web:http:8080,x:tcp:[9000,9001]".to_owned())].into(),
            ports: vec![(8080, 30000), (9001, 30001), (900, 30002)],
            uid_gid: (1000, 1000),
            cluster: None,
        }
    }

    #[test]
    fn labels_read_back_only_under_the_right_name() {
        let spec = spec();
        let labels = labels(&DockerOptions::new("unix:///d", "a1:/data"), &spec);
        let name = name(spec.kernel);
        let expected = Some(Identity { kernel: spec.kernel, session: spec.session });
        assert_eq!(Identity::read(&format!("/{name}"), &labels), expected);
        assert_eq!(Identity::read(&name, &labels), expected);
        assert_eq!(Identity::read("/happy_curie", &labels), None);
        assert_eq!(Identity::read(&name, &HashMap::new()), None);
        assert_eq!((labels[AGENT].as_str(), labels[OWNER].as_str()), ("a1", "a1:/data"));
        assert_eq!(labels[SERVICE_PORTS], "web:http:8080,x:tcp:[9000,9001],900:preopen:900");
    }

    #[test]
    fn user_code_gets_no_more_than_asked_for() {
        let body = definition(&DockerOptions::new("unix:///d", "a1"), &spec(), 2.0);
        let host = body.host_config.unwrap();
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges:true"]);
        assert_eq!(host.privileged, Some(false));
        assert_eq!(host.pids_limit, Some(512));
        let ports = host.port_bindings.unwrap();
        assert_eq!(ports.len(), 3);
        for binding in ports.values().flatten().flatten() {
            assert_eq!(binding.host_ip.as_deref(), Some("127.0.0.1"));
        }
        let writable: Vec<_> =
            host.mounts.unwrap().into_iter().filter(|m| m.read_only == Some(false)).collect();
        let targets: Vec<_> = writable.iter().filter_map(|mount| mount.target.as_deref()).collect();
        assert_eq!(targets, [CONTROL_DIR, "/home/work"]);
    }

    #[test]
    fn cores_are_pinned_or_shared() {
        let limits =
            |cpu, cpuset: &[u32]| Limits { cpu: Some(cpu), cpuset: cpuset.into(), ..Limits::default() };
        assert_eq!(nano_cpus(&limits(1.5, &[]), 4.0), Some(1_500_000_000));
        assert_eq!(nano_cpus(&limits(2.0, &[0, 1]), 4.0), None);
        assert_eq!(nano_cpus(&limits(0.5, &[1]), 4.0), Some(500_000_000));
        assert_eq!(nano_cpus(&limits(8.0, &[]), 4.0), Some(4_000_000_000));
        assert_eq!(nano_cpus(&limits(0.0, &[]), 4.0), Some(10_000_000));
        assert_eq!(nano_cpus(&Limits::default(), 4.0), None);
        assert_eq!(cpuset(&limits(2.0, &[0, 3])).as_deref(), Some("0,3"));
    }

    #[test]
    fn swap_is_not_a_way_around_the_memory_limit() {
        let mut spec = spec();
        spec.limits.memory = Some(64 << 20);
        let host = host_config(&DockerOptions::new("unix:///d", "a1"), &spec, 2.0);
        assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
    }
}
