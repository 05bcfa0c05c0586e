//! What all threads of a runner share.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher, Hasher},
    io,
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use nix::{
    sys::eventfd::{EfdFlags, EventFd},
    time::{ClockId, clock_gettime},
};

use super::{
    account,
    environment::Environment,
    input::Input,
    interpreter::Shared,
    memory::Memory,
    outbox::Outbox,
    process::{Identity, Launcher, Processes},
    runs::Runs,
    supervise::note,
    tasklog::TaskLog,
};
use crate::{config::RunnerConfig, drivers};

#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) config: RunnerConfig,
    pub(super) environment: Environment,
    pub(super) launcher: Launcher,
    pub(super) dirs: RuntimeDirs,
    pub(super) processes: Processes,
    pub(super) outbox: Outbox,
    pub(super) log: Arc<TaskLog>,
    pub(super) runs: Runs,
    pub(super) input: Arc<Input>,
    pub(super) interpreter: Shared,
    pub(super) memory: Memory,
    /// Random name of this start.
    pub(super) boot: String,
    /// Monotonic seconds.
    pub(super) started_at: f64,
    pub(super) ending: Ending,
}

/// The request to end the kernel.
#[derive(Debug)]
pub(super) struct Ending {
    /// Grace period in milliseconds.
    pub(super) grace_ms: Mutex<u64>,
    /// Readable once the end was asked for.
    pub(super) event: EventFd,
}

/// Files of the runner inside the kernel.
#[derive(Debug)]
pub(super) struct RuntimeDirs {
    /// Written by the runner only.
    pub(super) root: PathBuf,
    /// Written by the user: results of compilers, state of the shell.
    pub(super) user: PathBuf,
    /// Socket for scripts that ask for input.
    pub(super) input_socket: PathBuf,
}

impl Kernel {
    pub(super) fn new(config: RunnerConfig) -> io::Result<Self> {
        let boot = random_name();
        let identity = identity(&config);
        let mut environment = Environment::new(&config);
        let dirs = RuntimeDirs::create(&config, &boot, identity.as_ref())?;
        dirs.export(&mut environment)?;
        if let Some(identity) = &identity {
            let shell = environment.shell.as_ref().map_or("/bin/sh".into(), |argv| argv[0].to_string_lossy());
            if let Err(e) = account::ensure(Path::new("/etc"), identity, &config.work_dir, &shell) {
                note(&format!("the account database is left as it is: {e}"));
            }
        }
        let log = config
            .log_file
            .as_deref()
            .map_or_else(|| Ok(TaskLog::default()), |path| TaskLog::open(path, config.log_limit));
        let launcher = Launcher {
            identity,
            no_new_privs: config.no_new_privs,
            environ: environment.variables.clone().into_iter().collect(),
            work_dir: config.work_dir.clone(),
        };
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self {
            environment,
            launcher,
            dirs,
            processes: Processes::default(),
            outbox: Outbox::new(config.replay_bytes),
            log: Arc::new(log.inspect_err(|e| note(&format!("no task log: {e}"))).unwrap_or_default()),
            runs: Runs::new(config.max_queued_runs)?,
            input: Arc::new(Input::new()?),
            interpreter: Shared::default(),
            memory: Memory::new(),
            boot,
            started_at: monotonic_seconds(),
            ending: Ending { grace_ms: Mutex::new(config.grace_ms), event },
            config,
        })
    }
}

impl RuntimeDirs {
    fn create(config: &RunnerConfig, boot: &str, identity: Option<&Identity>) -> io::Result<Self> {
        let root = match &config.runtime_dir {
            Some(dir) => fs::create_dir_all(dir).map(|()| dir.clone())?,
            None => Self::create_default(boot)?,
        };
        let user = root.join("user");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&user)?;
        if let Some(identity) = identity {
            chown(&user, Some(identity.uid), Some(identity.gid))?;
        }
        let input_socket = root.join("input.sock");
        let _ = fs::remove_file(&input_socket);
        Ok(Self { root, user, input_socket })
    }

    /// A new directory with a name that nobody can have prepared.
    fn create_default(boot: &str) -> io::Result<PathBuf> {
        let create = |base: &str| {
            let dir = Path::new(base).join(format!("bai-{boot}"));
            fs::create_dir_all(base).and_then(|()| fs::create_dir(&dir)).map(|()| dir)
        };
        create("/run").or_else(|_| create("/tmp"))
    }

    /// Writes the hooks of the languages and tells user code where they are.
    fn export(&self, environment: &mut Environment) -> io::Result<()> {
        let python = self.root.join("python");
        fs::create_dir_all(&python)?;
        for (name, text) in drivers::PYTHON_FILES {
            fs::write(python.join(name), text)?;
        }
        let variables = &mut environment.variables;
        let mut path = python.into_os_string();
        if let Some(old) = variables.get(std::ffi::OsStr::new("PYTHONPATH")).filter(|old| !old.is_empty()) {
            path.push(":");
            path.push(old);
        }
        variables.insert("PYTHONPATH".into(), path);
        variables.insert("_BACKEND_INPUT_SOCKET".into(), self.input_socket.clone().into());
        Ok(())
    }
}

/// Who user code runs as; `None` keeps the runner's own identity (it is not root, or root was asked for).
fn identity(config: &RunnerConfig) -> Option<Identity> {
    let uid = config.uid.filter(|uid| *uid != 0 && nix::unistd::geteuid().is_root())?;
    Some(Identity { uid, gid: config.gid.unwrap_or(uid), groups: config.supplementary_gids.clone() })
}

fn monotonic_seconds() -> f64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    std::time::Duration::from(now).as_secs_f64()
}

/// A name that differs at every start; not a secret. The standard library seeds hash maps from the system's
/// random numbers, which is all the randomness needed here.
fn random_name() -> String {
    let part = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", part(), part() ^ u64::from(std::process::id()).rotate_left(32))
}
