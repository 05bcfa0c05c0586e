//! A host with a back end, and kernels on it.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bai_agent_lib::backend::process::{ProcessBackend, ProcessOptions, RUNNER_CONFIG, RUNNER_SOCKET};
use bai_core::id::{KernelId, SessionId};
use bai_core::port::KernelBackend;
use bai_core::port::agent::KernelRef;
use bai_core::port::backend::{Limits, RunnerEndpoint, StartSpec, Started};
use bai_kernel_lib::config::{RunnerConfig, RuntimeType};
use bai_kernel_lib::sandbox::{CONTROL_DIR, NamespaceIds, SandboxRecord};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, getgid, getuid};
use tempfile::TempDir;

use super::client::Client;

const TOKEN: &str = "a token only the agent knows";

/// Memory limit of test kernels in bytes.
pub(super) const MEMORY: u64 = 192 << 20;

/// Process limit of test kernels.
pub(super) const PIDS: u32 = 64;

/// The runner that this build carries. Building one here would wait for every other build on the machine.
pub(super) fn runner() -> &'static Path {
    static RUNNER: OnceLock<PathBuf> = OnceLock::new();
    RUNNER.get_or_init(|| bai_krunner_bin::install(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap())
}

/// A directory that stands for a host's data, with the runner in it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) dir: PathBuf,
    agent: String,
    guard: Option<TempDir>,
}

impl Host {
    /// A new one, for this user.
    pub(super) fn new() -> Self {
        let guard = tempfile::Builder::new().prefix("bai-").tempdir().unwrap();
        let mut host = Self::prepare(guard.path());
        host.guard = Some(guard);
        host
    }

    /// One in an existing directory that has the runner already.
    pub(super) fn at(dir: &Path) -> Self {
        let agent = format!("test{}", dir.file_name().unwrap().to_string_lossy());
        Self { dir: dir.to_owned(), agent, guard: None }
    }

    /// Puts the runner where every user can start it.
    pub(super) fn prepare(dir: &Path) -> Self {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        let own = dir.join("bai-krunner");
        // A link, where possible: a program that some other thread's new child still has open for writing cannot start.
        fs::hard_link(runner(), &own).or_else(|_| fs::copy(runner(), &own).map(drop)).unwrap();
        Self::at(dir)
    }

    pub(super) fn options(&self) -> ProcessOptions {
        let mut options =
            ProcessOptions::new(&self.agent, self.dir.join("scratch"), self.dir.join("bai-krunner"));
        options.cgroup_parent = format!("bai-test/{}", self.agent);
        options
    }

    pub(super) async fn backend(&self) -> ProcessBackend {
        let backend = ProcessBackend::open(self.options()).await.unwrap();
        assert!(backend.capability().isolates, "{:?}", backend.capability());
        backend
    }

    /// What an agent prepares for a kernel of the image.
    pub(super) fn spec(&self, image: &str) -> StartSpec {
        let kernel = KernelRef { id: KernelId::random(), generation: 1 };
        let scratch = self.dir.join("scratch").join(kernel.id.to_string());
        let [work, config, control] = ["work", "config", "control"].map(|name| scratch.join(name));
        for dir in [&work, &config, &control] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::set_permissions(&control, fs::Permissions::from_mode(0o700)).unwrap();
        let uid_gid =
            if Uid::current().is_root() { (1000, 1000) } else { (getuid().as_raw(), getgid().as_raw()) };
        chown(&work, Some(uid_gid.0), Some(uid_gid.1)).unwrap();
        let runtime = RuntimeType::from(runtime_type(image));
        let mut runner = RunnerConfig::new(Path::new(CONTROL_DIR).join(RUNNER_SOCKET), TOKEN, runtime);
        (runner.uid, runner.gid) = (Some(uid_gid.0), Some(uid_gid.1));
        runner.hide_control_dir = true;
        fs::write(control.join(RUNNER_CONFIG), serde_json::to_vec(&runner).unwrap()).unwrap();
        StartSpec {
            kernel,
            session: SessionId::random(),
            agent: self.agent.clone(),
            image: image.into(),
            hostname: "main1".into(),
            runner: self.dir.join("bai-krunner"),
            work_dir: work,
            config_dir: config,
            control_dir: control,
            limits: Limits { memory: Some(MEMORY), pids: Some(PIDS), ..Limits::default() },
            image_labels: [("ai.backend.runtime-type".to_owned(), runtime_type(image))].into(),
            ports: Vec::new(),
            uid_gid,
            cluster: None,
        }
    }
}

impl Drop for Host {
    /// Ends what a failed test left running, and removes the test's control groups.
    fn drop(&mut self) {
        let kernels = fs::read_dir(self.dir.join("scratch")).into_iter().flatten().flatten();
        for record in kernels.filter_map(|kernel| SandboxRecord::load(&kernel.path().join("control")).ok()) {
            while record.is_alive() {
                let _ = kill(Pid::from_raw(record.pid), Signal::SIGKILL);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        for (_, mount) in bai_agent_lib::cgroup::v1_mounts(&mounts) {
            let parent = mount.join("bai-test");
            let groups = fs::read_dir(parent.join(&self.agent)).into_iter().flatten().flatten();
            for dir in groups.map(|group| group.path()).chain([parent.join(&self.agent)]) {
                remove_group(&dir);
            }
            // Other tests may still use it.
            let _ = fs::remove_dir(parent);
        }
    }
}

/// A group is busy until its last process has been reaped.
fn remove_group(dir: &Path) {
    let give_up = Instant::now() + Duration::from_secs(2);
    while fs::remove_dir(dir).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy) {
        if Instant::now() > give_up {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn runtime_type(image: &str) -> String {
    image.split(':').next().unwrap_or_default().to_owned()
}

/// A running kernel and a connection to its runner.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) spec: StartSpec,
    pub(super) started: Started,
    pub(super) client: Client,
}

impl Kernel {
    pub(super) async fn start(host: &Host, backend: &ProcessBackend, image: &str) -> Self {
        let spec = host.spec(image);
        let started = backend.start(&spec).await.unwrap();
        let client = connect(&started);
        Self { spec, started, client }
    }

    pub(super) fn record(&self) -> SandboxRecord {
        SandboxRecord::load(&self.spec.control_dir).unwrap()
    }

    pub(super) async fn end(self, backend: &ProcessBackend) {
        backend.stop(self.spec.kernel, Duration::from_secs(5)).await.unwrap();
        backend.remove(self.spec.kernel).await.unwrap();
    }

    /// Makes sure, by looking from inside, that hostile code can harm this kernel only.
    pub(super) fn prove(&mut self) -> Proof {
        let seen = self.client.output(
            "import os, re, resource, json\n\
             def ns(kind): return int(re.search(r'\\d+', os.readlink('/proc/self/ns/' + kind)).group())\n\
             def limit(*paths):\n\
             \x20   for path in paths:\n\
             \x20       try: return int(open('/sys/fs/cgroup/' + path).read())\n\
             \x20       except (OSError, ValueError): pass\n\
             \x20   return 1 << 62\n\
             print(json.dumps({'pid': ns('pid'), 'mnt': ns('mnt'), 'uid': os.getuid(),\n\
             \x20   'group_pids': limit('pids/pids.max', 'pids.max'),\n\
             \x20   'group_memory': limit('memory/memory.limit_in_bytes', 'memory.max'),\n\
             \x20   'pids': resource.getrlimit(resource.RLIMIT_NPROC)[0],\n\
             \x20   'memory': resource.getrlimit(resource.RLIMIT_DATA)[0]}))",
        );
        let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
        let number = |key: &str| seen[key].as_i64().unwrap();
        let ours = NamespaceIds::of(0).unwrap();
        assert_ne!(number("pid"), i64::try_from(ours.pid).unwrap(), "same pid namespace");
        assert_ne!(number("mnt"), i64::try_from(ours.mnt).unwrap(), "same mount namespace");
        assert_ne!(number("uid"), 0);
        let within = |group: &str, own: &str, limit: i64| {
            let bounded = number(group) <= limit || (0..=limit).contains(&number(own));
            assert!(bounded, "{group} and {own} are not within {limit}: {seen}");
            number(group) <= limit
        };
        let limited = within("group_pids", "pids", PIDS.into());
        let by_group = within("group_memory", "memory", i64::try_from(MEMORY).unwrap());
        assert_eq!(limited, by_group);
        Proof { by_group }
    }
}

/// A kernel was seen from inside to be isolated and limited: only with this may hostile code be sent to it.
#[derive(Debug)]
pub(super) struct Proof {
    /// Limits are those of control groups, not of single processes.
    pub(super) by_group: bool,
}

pub(super) fn connect(started: &Started) -> Client {
    let RunnerEndpoint::Unix(socket) = &started.endpoint else { panic!("{started:?}") };
    Client::connect(socket, TOKEN)
}
