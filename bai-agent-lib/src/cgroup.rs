//! Control groups of both versions behind one trait, for the back ends that limit and measure kernels themselves.
//!
//! A *group* is a name such as `kernel-<id>` below a *parent* such as `bai/<agent>`. With version 1 it is one
//! directory in each mounted controller, with version 2 a single one. All calls are plain reads and writes of small
//! kernel files; they take microseconds and may be made from async code.
//!
//! ```no_run
//! use bai_agent_lib::cgroup;
//! use bai_core::port::backend::Limits;
//!
//! if let Some(cgroups) = cgroup::detect("bai/agent1") {
//!     cgroups.create("kernel-1")?;
//!     let gaps = cgroups.limit("kernel-1", &Limits { memory: Some(64 << 20), ..Limits::default() })?;
//!     cgroups.attach("kernel-1", std::process::id())?;
//!     println!("{} bytes; not limited: {gaps:?}", cgroups.usage("kernel-1")?.memory);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

mod file;
mod v1;
mod v2;
mod view;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bai_core::port::backend::Limits;

pub use v1::CgroupV1;
pub use v2::CgroupV2;
pub use view::of_process;

/// Period of the CPU quota in microseconds.
const CPU_PERIOD_US: f64 = 100_000.0;
/// Smallest CPU quota the kernel accepts, in microseconds.
const MIN_QUOTA_US: f64 = 1_000.0;

/// Counters of a group. Those of controllers that are missing on the host stay zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in use in bytes, without the file cache that can be dropped at once.
    pub memory: u64,
    /// Memory limit in bytes, when there is one.
    pub memory_limit: Option<u64>,
    /// Highest memory use in bytes, when the kernel keeps it.
    pub memory_peak: Option<u64>,
    /// Bytes read from block devices.
    pub io_read: u64,
    /// Bytes written to block devices.
    pub io_write: u64,
    /// Processes and threads.
    pub tasks: u64,
    /// Processes killed because of the memory limit.
    pub oom_kills: u64,
}

/// The control groups below one parent. Obtained from [`detect`], [`CgroupV1::open`] or [`CgroupV2::open`].
///
/// # Errors
/// All methods return those of the file system.
#[allow(clippy::missing_errors_doc)]
pub trait Cgroups: fmt::Debug + Send + Sync + 'static {
    /// 1 or 2.
    fn version(&self) -> u8;

    /// Makes the group. Idempotent.
    /// A group half made is removed by [`Cgroups::remove`].
    fn create(&self, group: &str) -> io::Result<()>;

    /// Sets the limits that are given and returns in words the ones this host cannot set.
    fn limit(&self, group: &str, limits: &Limits) -> io::Result<Vec<String>>;

    /// Moves a process into the group; its later children follow.
    fn attach(&self, group: &str, pid: u32) -> io::Result<()>;

    /// Reads the counters.
    fn usage(&self, group: &str) -> io::Result<Usage>;

    /// The processes in the group.
    fn pids(&self, group: &str) -> io::Result<Vec<u32>>;

    /// Lets the group use as much CPU time as there is. Dying takes some: hundreds of killed processes whose group has used up its
    /// share would take minutes.
    fn lift_cpu_limit(&self, group: &str) -> io::Result<()>;

    /// Sends SIGKILL to everything in the group, in a way that forking processes cannot escape. Does not wait.
    fn kill(&self, group: &str) -> io::Result<()>;

    /// Removes the group, which must have no processes. Idempotent.
    fn remove(&self, group: &str) -> io::Result<()>;

    /// Names of the groups below the parent, for finding those of an earlier run.
    fn groups(&self) -> io::Result<Vec<String>>;

    /// The directories of the group, each with the name of its controller; that of version 2 has none.
    fn places(&self, group: &str) -> Vec<(String, PathBuf)>;

    /// Whether the group exists.
    fn exists(&self, group: &str) -> bool;

    /// Kills everything in the group, waits at most `limit` for the last process to be gone, and removes it.
    /// Blocks: call it from a blocking thread.
    ///
    /// # Errors
    /// `TimedOut` when a process does not die (one in an uninterruptible wait).
    fn destroy(&self, group: &str, limit: Duration) -> io::Result<()> {
        let give_up = Instant::now() + limit;
        let _ = self.lift_cpu_limit(group);
        while self.exists(group) {
            self.kill(group)?;
            if self.pids(group)?.is_empty() && self.remove(group).is_ok() {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "processes remain in the control group"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Opens the control groups of this host with `parent` as the directory for our groups, or `None` where groups cannot
/// be made (no controllers, or no permission). Version 2 is used where its tree has the controllers cpu and memory.
pub fn detect(parent: &str) -> Option<Arc<dyn Cgroups>> {
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if let Some(root) = v2_mount(&mounts) {
        for base in v2_bases(&root, &own) {
            if let Ok(v2) = CgroupV2::open(&base, parent) {
                return Some(Arc::new(v2));
            }
        }
    }
    CgroupV1::open(&v1_mounts(&mounts), parent).ok().map(|v1| Arc::new(v1) as Arc<dyn Cgroups>)
}

/// Where to look for a version 2 directory that we may write: the root, then the one this process was put in (a
/// delegated directory of a normal user).
fn v2_bases(root: &Path, own: &str) -> Vec<PathBuf> {
    let mut bases = vec![root.to_owned()];
    if let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")).filter(|path| !path.is_empty())
    {
        let own = root.join(path);
        bases.extend(own.parent().filter(|parent| *parent != root).map(Path::to_owned));
        bases.push(own);
    }
    bases
}

/// The mount point of the version 2 tree.
fn v2_mount(mounts: &str) -> Option<PathBuf> {
    mount_lines(mounts).find(|(_, kind, _)| *kind == "cgroup2").map(|(path, ..)| PathBuf::from(path))
}

/// Controller name and mount point of each version 1 hierarchy.
pub fn v1_mounts(mounts: &str) -> Vec<(String, PathBuf)> {
    mount_lines(mounts)
        .filter(|(_, kind, _)| *kind == "cgroup")
        .flat_map(|(path, _, options)| {
            options.split(',').map(move |controller| (controller.to_owned(), PathBuf::from(path)))
        })
        .filter(|(controller, _)| v1::CONTROLLERS.contains(&controller.as_str()))
        .collect()
}

fn mount_lines(mounts: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?, fields.next()?))
    })
}

/// CPU quota in microseconds per period for `cores`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn quota_us(cores: f64) -> u64 {
    (cores * CPU_PERIOD_US).max(MIN_QUOTA_US).round() as u64
}

/// Core numbers as the list format of the kernel.
fn cpu_list(cpus: &[u32]) -> String {
    cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// Refuses a group name that is not one plain path component.
fn check_name(group: &str) -> io::Result<()> {
    if group.is_empty() || group.starts_with('.') || group.contains('/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a control group name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
        cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
        cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

    #[test]
    fn mounts_are_found() {
        let found: Vec<_> =
            v1_mounts(MOUNTS).into_iter().map(|(name, path)| (name, path.display().to_string())).collect();
        let expected = [
            ("cpu", "/sys/fs/cgroup/cpu,cpuacct"),
            ("cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
            ("memory", "/sys/fs/cgroup/memory"),
        ];
        assert_eq!(found, expected.map(|(name, path)| (name.to_owned(), path.to_owned())));
        assert_eq!(v2_mount(MOUNTS), Some("/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn quotas_are_never_too_small_for_the_kernel() {
        assert_eq!(quota_us(1.5), 150_000);
        assert_eq!(quota_us(0.001), 1_000);
    }

    #[test]
    fn names_cannot_leave_the_parent() {
        for name in ["", "..", "a/b", ".x"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("kernel-1").is_ok());
    }
}
