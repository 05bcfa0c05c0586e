//! The files that an agent and a sandbox exchange.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Name of the [`SandboxRecord`] in the state directory.
pub const RECORD_FILE: &str = "sandbox.json";

/// Name of the [`ExitRecord`] in the state directory.
pub const EXIT_FILE: &str = "exit.json";

/// Where the control directory is inside a kernel.
pub const CONTROL_DIR: &str = "/opt/kernel/control";

/// Where the runner binary is inside a kernel.
pub const RUNNER_PATH: &str = "/opt/kernel/bai-krunner";

/// What to build, written by the agent. All paths are absolute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSpec {
    /// Directory on the host for the record and exit files.
    pub state_dir: PathBuf,
    /// Program and arguments of PID 1, with paths as seen inside.
    pub command: Vec<String>,
    /// Environment of PID 1. Nothing of the agent's own environment goes inside.
    #[serde(default)]
    pub environ: BTreeMap<String, String>,
    /// Host name inside.
    pub hostname: String,
    /// Further names of this host: those of sandboxes that share its network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// User id of user code inside. Without root it is the only one there is, whatever the id outside.
    pub uid: u32,
    /// Group id of user code inside.
    pub gid: u32,
    /// Directories and files of the host with their place inside.
    pub binds: Vec<Bind>,
    /// Directories of the host shown read-only at the same path, such as an interpreter's prefix.
    #[serde(default)]
    pub expose: Vec<PathBuf>,
    /// Paths that stay empty even below an exposed directory.
    #[serde(default)]
    pub hide: Vec<PathBuf>,
    /// Bytes of `/tmp`, and the same again of `/var/tmp`. Default 1 GiB.
    #[serde(default = "default_tmp_bytes")]
    pub tmp_bytes: u64,
    /// Bytes of `/dev/shm`. Default 64 MiB.
    #[serde(default = "default_shm_bytes")]
    pub shm_bytes: u64,
    /// Network. Default `host`.
    #[serde(default)]
    pub network: Network,
    /// Control groups that exist already; PID 1 is moved into them before it does anything.
    #[serde(default)]
    pub cgroups: Vec<CgroupDir>,
    /// Limits per process.
    #[serde(default)]
    pub rlimits: Rlimits,
    /// Copied into the record, for whoever finds it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Protections that the agent already knows to be missing; they come first in the record's list.
    #[serde(default)]
    pub gaps: Vec<String>,
    /// Seconds between looks at the record. A sandbox whose record is missing twice, because the data directory was
    /// deleted, could never be found again and is ended. Default 60.
    #[serde(default = "default_look_seconds")]
    pub look_seconds: u32,
}

/// A directory or file of the host at a place inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// Path on the host.
    pub source: PathBuf,
    /// Path inside; created when missing.
    pub target: PathBuf,
    /// Whether writing is refused.
    #[serde(default)]
    pub read_only: bool,
}

/// What the sandbox sees of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// All of the host's, so that package managers and downloads work; abstract unix sockets of the host are
    /// refused where the kernel can do so.
    #[default]
    Host,
    /// A loopback device of its own and nothing else.
    None,
}

/// A directory of a cgroup hierarchy, made by the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupDir {
    /// Name below `/sys/fs/cgroup` inside, such as `memory`; empty for the unified hierarchy.
    pub controller: String,
    /// The directory on the host.
    pub dir: PathBuf,
}

/// Limits per process; `None` leaves the inherited one. Values above the inherited hard limit are lowered to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rlimits {
    /// Open files.
    pub nofile: Option<u64>,
    /// Processes of the user; without root, those of the sandbox only.
    pub nproc: Option<u64>,
    /// Bytes of private writable memory. Address space as such is not limited: several runtimes reserve far more of it
    /// than they use.
    pub data: Option<u64>,
    /// Bytes of a single file.
    pub fsize: Option<u64>,
}

/// What is known of a sandbox from the moment its first process exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// PID 1 of the sandbox, as numbered outside.
    pub pid: i32,
    /// When it started, in clock ticks since boot: with the pid it names a process for ever.
    pub start_time: u64,
    /// The monitor outside.
    pub monitor_pid: i32,
    /// When the monitor started.
    pub monitor_start_time: u64,
    /// Its namespaces.
    pub namespaces: NamespaceIds,
    /// Whether the sandbox is built and PID 1 has become the command.
    pub ready: bool,
    /// Protections that this host refused, in words.
    pub gaps: Vec<String>,
    /// Labels of the specification.
    pub labels: BTreeMap<String, String>,
    /// Control groups of the specification.
    pub cgroups: Vec<CgroupDir>,
}

impl SandboxRecord {
    /// Reads the record in `state_dir`.
    ///
    /// # Errors
    /// `NotFound` when there is none, `InvalidData` when it is malformed.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        read_json(&state_dir.join(RECORD_FILE))
    }

    /// Whether PID 1 still is the process that was started: its number, start time and namespace all match, and it is
    /// no zombie.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
            && NamespaceIds::of(self.pid).is_ok_and(|ids| ids == self.namespaces)
    }
}

/// Inode numbers of the namespaces that isolate a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceIds {
    /// Process ids.
    pub pid: u64,
    /// Mounts.
    pub mnt: u64,
}

impl NamespaceIds {
    /// Those of a process; those of the caller for pid 0.
    ///
    /// # Errors
    /// `NotFound` when there is no such process, `PermissionDenied` when it is not ours.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid: namespace_id(pid, "pid")?, mnt: namespace_id(pid, "mnt")? })
    }
}

/// How PID 1 of a sandbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Whether PID 1 was killed because the memory of the sandbox was used up.
    pub oom: bool,
}

impl ExitRecord {
    /// Reads the record in `state_dir`.
    ///
    /// # Errors
    /// `NotFound` when there is none, `InvalidData` when it is malformed.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        read_json(&state_dir.join(EXIT_FILE))
    }
}

/// Start of a process in clock ticks since boot; `None` when there is no such process, or only its zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; the state and the numbers follow the last one.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

fn namespace_id(pid: i32, kind: &str) -> io::Result<u64> {
    let who = if pid == 0 { "self".to_owned() } else { pid.to_string() };
    let link = fs::read_link(format!("/proc/{who}/ns/{kind}"))?;
    let text = link.to_string_lossy();
    let number = text.strip_prefix(kind).and_then(|rest| rest.strip_prefix(":[")?.strip_suffix(']'));
    number
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text.into_owned()))
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Writes a file that is either whole or absent.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, serde_json::to_vec(value)?)?;
    fs::rename(&draft, path)
}

const fn default_tmp_bytes() -> u64 {
    1 << 30
}

const fn default_shm_bytes() -> u64 {
    64 << 20
}

const fn default_look_seconds() -> u32 {
    60
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_by_pid_start_time_and_namespaces() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let mut record = SandboxRecord {
            pid,
            start_time: start_time(pid).unwrap(),
            monitor_pid: pid,
            monitor_start_time: 0,
            namespaces: NamespaceIds::of(0).unwrap(),
            ready: true,
            gaps: Vec::new(),
            labels: BTreeMap::new(),
            cgroups: Vec::new(),
        };
        assert!(record.is_alive());
        record.start_time += 1;
        assert!(!record.is_alive());
        record.start_time -= 1;
        record.namespaces.mnt += 1;
        assert!(!record.is_alive());
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read x"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(start_time(pid).is_some());
        drop(child.stdin.take());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while start_time(pid).is_some() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    fn files_are_whole_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ExitRecord::load(dir.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        let record = ExitRecord { code: None, signal: Some(9), oom: true };
        write_json(&dir.path().join(EXIT_FILE), &record).unwrap();
        assert_eq!(ExitRecord::load(dir.path()).unwrap(), record);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_specification_has_defaults_and_refuses_mistakes() {
        let text = r#"{"state_dir": "/s", "command": ["/bin/true"], "hostname": "main1", "uid": 1000, "gid": 1000, "binds": []}"#;
        let spec: SandboxSpec = serde_json::from_str(text).unwrap();
        assert_eq!((spec.network, spec.shm_bytes, spec.tmp_bytes), (Network::Host, 64 << 20, 1 << 30));
        let wrong = text.replace("hostname", "hostnam");
        assert!(serde_json::from_str::<SandboxSpec>(&wrong).is_err());
    }
}
