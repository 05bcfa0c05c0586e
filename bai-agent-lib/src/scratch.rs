//! What a kernel finds in its directories when it starts (spec agent.md, sections 7 and 8).
//!
//! ```text
//! scratch/<kernel id>/work      → /home/work            owned by the user
//!                     config    → /home/config          environ.txt, resource.txt, bin/<runtime>, ssh/id_cluster
//!                     control   → /opt/kernel/control   runner.json, runner.sock: private to agent and runner
//!                     kernel.json, console.log          not visible inside
//! ```

mod ssh;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bai_core::port::agent::KernelSpec;
use bai_kernel_lib::config::{RunnerConfig, RuntimeType};
use bai_kernel_lib::sandbox::CONTROL_DIR;
use bai_scheduler::device::Holding;

use crate::backend::process::{RUNNER_CONFIG, RUNNER_SOCKET};
use crate::files::Home;
use crate::plugin::Grant;
use crate::state::KernelRecord;

/// The directories of a kernel on the host.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) work: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) control: PathBuf,
}

impl Layout {
    pub(crate) fn new(scratch: &Path) -> Self {
        Self { work: scratch.join("work"), config: scratch.join("config"), control: scratch.join("control") }
    }

    /// Makes the home directory, when the kernel never had one; whether it was made.
    pub(crate) fn make_home(&self, owner: (u32, u32)) -> io::Result<bool> {
        let made = make_dir(&self.work, 0o755)?;
        if made {
            let path = &self.work;
            std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1))?;
        }
        Ok(made)
    }

    /// Makes everything a kernel needs before it starts. A restarted kernel keeps its home directory. Blocks.
    pub(crate) fn prepare(
        &self,
        record: &KernelRecord,
        grant: &Grant,
        owner: (u32, u32),
        stop_grace: Duration,
    ) -> io::Result<()> {
        make_dir(&self.config, 0o755)?;
        make_dir(&self.control, 0o700)?;
        let fresh = self.make_home(owner)?;
        let environ = environ(&record.spec, grant, owner);
        write(&self.config.join("environ.txt"), environ_text(&environ).as_bytes(), 0o644)?;
        write(&self.config.join("resource.txt"), resource_text(&record.allocation, grant).as_bytes(), 0o644)?;
        name_runtime(&self.config.join("bin"), record)?;
        let mut config = runner_config(record, environ, owner);
        config.grace_ms = u64::try_from(stop_grace.as_millis()).unwrap_or(u64::MAX);
        write(&self.control.join(RUNNER_CONFIG), &serde_json::to_vec(&config)?, 0o600)?;
        // A socket of an earlier start would be connected to in vain.
        match fs::remove_file(self.control.join(RUNNER_SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.join_cluster(&record.spec, owner)?;
        match record.spec.bootstrap_script.as_deref().filter(|_| fresh) {
            Some(script) => Home::open(&self.work, owner)
                .map_err(io::Error::other)?
                .write(Path::new("bootstrap.sh"), script.as_bytes(), 0o755)
                .map_err(io::Error::from),
            None => Ok(()),
        }
    }
}

impl Layout {
    /// Gives the kernel the keys of its session.
    fn join_cluster(&self, spec: &KernelSpec, owner: (u32, u32)) -> io::Result<()> {
        let Some(cluster) = &spec.cluster else { return Ok(()) };
        ssh::write_keys(&self.config, &cluster.ssh, owner)?;
        let introduced = Home::open(&self.work, owner).and_then(|home| ssh::introduce(&home, &cluster.ssh));
        if let Err(error) = introduced {
            tracing::warn!(kernel = %spec.kernel.id, %error, "the SSH files of the user are left as they are");
        }
        Ok(())
    }
}

/// Gives the runtime the name that people type, for images whose program has only a versioned one: `bin/python` leads to the
/// image's `/usr/bin/python3`. The link is followed inside the kernel only, where the directory is last in `PATH`.
fn name_runtime(dir: &Path, record: &KernelRecord) -> io::Result<()> {
    let label = |key: &str| record.spec.image_labels.get(&format!("ai.backend.{key}")).map(String::as_str);
    let name = match RuntimeType::from(label("runtime-type").unwrap_or_default().to_owned()) {
        RuntimeType::Python => "python",
        RuntimeType::Nodejs => "node",
        _ => return Ok(()),
    };
    let Some(program) = label("runtime-path").filter(|path| path.starts_with('/')) else { return Ok(()) };
    make_dir(dir, 0o755)?;
    match std::os::unix::fs::symlink(program, dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()), // there already from an earlier start of the same image
    }
}

fn runner_config(
    record: &KernelRecord,
    environ: BTreeMap<String, String>,
    owner: (u32, u32),
) -> RunnerConfig {
    let label = |key: &str| record.spec.image_labels.get(&format!("ai.backend.{key}")).cloned();
    let socket = Path::new(CONTROL_DIR).join(RUNNER_SOCKET);
    let runtime = RuntimeType::from(label("runtime-type").unwrap_or_default());
    let mut config = RunnerConfig::new(socket, record.token.clone(), runtime);
    config.kernel_id = record.spec.kernel.id.to_string();
    config.runtime_path = label("runtime-path").map(PathBuf::from);
    (config.uid, config.gid) = (Some(owner.0), Some(owner.1));
    config.no_new_privs = environ.get("SUDO_SESSION_ENABLED").is_none_or(|value| value != "1");
    config.environ = environ;
    config.hide_control_dir = true;
    config
}

/// The variables of the user's processes. What the user chose wins over what plugins suggest.
fn environ(spec: &KernelSpec, grant: &Grant, owner: (u32, u32)) -> BTreeMap<String, String> {
    let mut environ = grant.environ.clone();
    if let Some(names) = spec.image_labels.get("ai.backend.envs.corecount") {
        let cores = grant.limits.cpu.unwrap_or(1.0).ceil().max(1.0).to_string();
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        environ.extend(names.map(|name| (name.to_owned(), cores.clone())));
    }
    environ.extend(spec.environ.clone());
    environ.insert("LOCAL_USER_ID".into(), owner.0.to_string());
    environ.insert("LOCAL_GROUP_ID".into(), owner.1.to_string());
    environ
}

/// `KEY=VALUE` lines. A value of several lines has no place there; the runner gets it from its configuration.
fn environ_text(environ: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (name, value) in environ.iter().filter(|(_, value)| !value.contains('\n')) {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

fn resource_text(held: &Holding, grant: &Grant) -> String {
    let totals: serde_json::Map<_, _> =
        held.totals().iter().map(|(slot, total)| (slot.to_string(), total.to_string().into())).collect();
    let totals = serde_json::Value::Object(totals);
    let mut text = format!("SCRATCH_SIZE=0m\nMOUNTS=\nSLOTS={totals}\nUNIFIED_DEVICES=[]\n");
    for line in held.resource_lines().iter().chain(&grant.resource_lines) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Makes a directory with the exact mode; whether it was made.
fn make_dir(path: &Path, mode: u32) -> io::Result<bool> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    io::Write::write_all(&mut file, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    #[test]
    fn everything_is_in_its_place_and_the_home_outlives_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let mut record = KernelRecord::new(spec(), "secret".into());
        record.spec.bootstrap_script = Some("echo hi".into());
        record.spec.environ.insert("LONG".into(), "a\nb".into());
        record.spec.image_labels.insert("ai.backend.envs.corecount".into(), "NPROC,A".into());
        record.spec.image_labels.insert("ai.backend.runtime-path".into(), "/usr/bin/python3".into());
        record.allocation.insert("mem", "root", (64_u64 << 20) + 1024);
        record.allocation.insert("cpu", "0", 1);
        record.allocation.insert("cpu", "3", "0.5".parse::<bai_core::slots::Amount>().unwrap());
        let mut grant = Grant::default();
        grant.limits.cpu = Some(1.5);
        layout.prepare(&record, &grant, owner, Duration::from_secs(3)).unwrap();

        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        let environ = read("config/environ.txt");
        assert!(
            environ.contains("A=b\n") && environ.contains("NPROC=2\n") && !environ.contains("LONG"),
            "{environ}"
        );
        let resources = read("config/resource.txt");
        assert!(resources.contains("SLOTS={\"cpu\":\"1.5\",\"mem\":\"67109888\"}\n"), "{resources}");
        assert!(resources.contains("CPU_SHARES=0:1,3:0.5\nMEM_SHARES=root:65537k\n"), "{resources}");
        let config = RunnerConfig::from_json(read("control/runner.json").as_bytes()).unwrap();
        assert_eq!((config.token.as_str(), config.runtime_type), ("secret", RuntimeType::Python));
        assert_eq!(config.grace_ms, 3000);
        assert_eq!(config.environ["LONG"], "a\nb");
        assert_eq!(read("work/bootstrap.sh"), "echo hi");
        assert_eq!(
            fs::read_link(dir.path().join("config/bin/python")).unwrap(),
            Path::new("/usr/bin/python3")
        );

        fs::write(dir.path().join("work/bootstrap.sh"), "mine").unwrap();
        layout.prepare(&record, &grant, owner, Duration::from_secs(3)).unwrap();
        assert_eq!(read("work/bootstrap.sh"), "mine");
    }
}
