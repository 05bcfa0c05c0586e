//! From what the agent wants to a running sandbox.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bai_core::port::backend::{Limits, StartSpec};
use bai_kernel_lib::sandbox::{
    Bind, CONTROL_DIR, CgroupDir, RUNNER_PATH, Rlimits, SandboxRecord, SandboxSpec,
};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::discover::Environment;
use super::{ProcessOptions, RUNNER_CONFIG, SPEC_FILE, found};
use crate::cgroup::Cgroups;

/// A sandbox takes milliseconds to build; a machine short of everything may take longer.
const BUILD_TIMEOUT: Duration = Duration::from_secs(20);

/// Processes and threads of a kernel whose limits name no number.
const DEFAULT_PIDS: u32 = 512;

/// Open files of each process.
const OPEN_FILES: u64 = 65_536;

const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The control groups made for a kernel.
#[derive(Debug, Default)]
pub(super) struct Group {
    dirs: Vec<CgroupDir>,
    gaps: Vec<String>,
}

impl Group {
    /// Adds what is known to be missing anyway.
    pub(super) fn add_gaps(&mut self, more: Vec<String>) {
        self.gaps.extend(more);
    }
}

/// Makes the control group `name` with `limits`, where the host has any.
///
/// # Errors
/// Those of writing the limits.
pub(super) fn make_group(cgroups: Option<&dyn Cgroups>, name: &str, limits: &Limits) -> io::Result<Group> {
    let Some(cgroups) = cgroups else { return Ok(Group::default()) };
    cgroups.create(name)?;
    let limits = Limits { pids: Some(limits.pids.unwrap_or(DEFAULT_PIDS)), ..limits.clone() };
    let gaps = cgroups.limit(name, &limits)?;
    let dirs = cgroups.places(name).into_iter().map(|(controller, dir)| CgroupDir { controller, dir });
    Ok(Group { dirs: dirs.collect(), gaps })
}

/// Writes down what to build.
pub(super) fn sandbox_spec(
    options: &ProcessOptions,
    environment: &Environment,
    spec: &StartSpec,
    group: Group,
) -> SandboxSpec {
    let limited = !group.dirs.is_empty();
    let bind = |source: &Path, target: &str, read_only| Bind {
        source: source.to_owned(),
        target: target.into(),
        read_only,
    };
    let mut expose = environment.prefixes.clone();
    expose.extend(options.expose.iter().cloned());
    SandboxSpec {
        state_dir: spec.control_dir.clone(),
        command: [RUNNER_PATH, "--config"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("{CONTROL_DIR}/{RUNNER_CONFIG}")])
            .collect(),
        environ: environ(environment.executable.parent()),
        hostname: spec.hostname.clone(),
        aliases: spec.cluster.as_ref().map(|cluster| cluster.hosts.clone()).unwrap_or_default(),
        uid: spec.uid_gid.0,
        gid: spec.uid_gid.1,
        binds: vec![
            bind(&spec.runner, RUNNER_PATH, true),
            bind(&spec.control_dir, CONTROL_DIR, false),
            bind(&spec.config_dir, "/home/config", true),
            bind(&spec.work_dir, "/home/work", false),
        ],
        expose,
        hide: std::iter::once(options.scratch_root.clone()).chain(options.hide.iter().cloned()).collect(),
        tmp_bytes: options.tmp_bytes,
        shm_bytes: spec.limits.shm.unwrap_or(64 << 20),
        network: options.network,
        cgroups: group.dirs,
        rlimits: rlimits(options, &spec.limits, limited),
        labels: found::labels(spec),
        gaps: group.gaps,
        look_seconds: 60,
    }
}

/// Without control groups each process is limited on its own.
fn rlimits(options: &ProcessOptions, limits: &Limits, limited: bool) -> Rlimits {
    Rlimits {
        nofile: Some(OPEN_FILES),
        nproc: (!limited).then(|| limits.pids.unwrap_or(DEFAULT_PIDS).into()),
        data: limits.memory.filter(|_| !limited),
        fsize: Some(options.max_file_bytes),
    }
}

fn environ(bin: Option<&Path>) -> BTreeMap<String, String> {
    let bin = bin.filter(|dir| !SYSTEM_PATH.split(':').any(|known| Path::new(known) == *dir));
    let path = bin.map_or(SYSTEM_PATH.to_owned(), |dir| format!("{}:{SYSTEM_PATH}", dir.display()));
    [("PATH", path), ("HOME", "/home/work".to_owned())].map(|(key, value)| (key.to_owned(), value)).into()
}

/// Starts the monitor, which goes on by itself, and waits until the sandbox is built. The monitor that is returned may be
/// dropped.
///
/// # Errors
/// `TimedOut`, or what the monitor says.
pub(super) async fn launch(runner: &Path, spec: &SandboxSpec) -> io::Result<Child> {
    let file = spec.state_dir.join(SPEC_FILE);
    fs::write(&file, serde_json::to_vec(spec)?)?;
    let mut monitor = Command::new(runner)
        .arg("sandbox")
        .arg(&file)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut answer = String::new();
    let mut output = monitor.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
    let read = output.read_to_string(&mut answer);
    if tokio::time::timeout(BUILD_TIMEOUT, read).await.is_err() {
        let _ = monitor.start_kill();
        return Err(io::ErrorKind::TimedOut.into());
    }
    match answer.trim_end() {
        "ready" => Ok(monitor),
        "" => Err(io::Error::other("the monitor ended without a word")),
        other => Err(io::Error::other(other.trim_start_matches("error: ").to_owned())),
    }
}

/// Builds a sandbox with nothing in it, and returns what it lacks on this host.
///
/// # Errors
/// Why none can be built.
pub(super) async fn probe(
    options: &ProcessOptions,
    cgroups: Option<&dyn Cgroups>,
) -> io::Result<Vec<String>> {
    let name = format!("probe-{}", uuid::Uuid::new_v4());
    let dir = options.scratch_root.join(format!(".{name}"));
    fs::create_dir_all(&dir)?;
    let gaps = probe_in(&dir, options, make_group(cgroups, &name, &Limits::default())).await;
    let _ = fs::remove_dir_all(dir);
    if let Some(cgroups) = cgroups {
        let _ = cgroups.remove(&name);
    }
    gaps
}

async fn probe_in(dir: &Path, options: &ProcessOptions, group: io::Result<Group>) -> io::Result<Vec<String>> {
    let group = group?;
    let spec = SandboxSpec {
        state_dir: dir.to_owned(),
        command: vec!["/bin/sh".into(), "-c".into(), "exit 0".into()],
        environ: BTreeMap::new(),
        hostname: "probe".into(),
        aliases: Vec::new(),
        uid: 1000,
        gid: 1000,
        binds: Vec::new(),
        expose: Vec::new(),
        hide: Vec::new(),
        tmp_bytes: 1 << 20,
        shm_bytes: 1 << 20,
        network: options.network,
        cgroups: group.dirs,
        rlimits: Rlimits::default(),
        labels: BTreeMap::new(),
        gaps: group.gaps,
        look_seconds: 60,
    };
    let mut monitor = launch(&options.runner, &spec).await?;
    let _ = tokio::time::timeout(BUILD_TIMEOUT, monitor.wait()).await;
    SandboxRecord::load(dir).map(|record| record.gaps)
}
