use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bai_core::port::backend::Limits;

use super::{CPU_PERIOD_US, Cgroups, Usage, check_name, cpu_list, file, quota_us};

/// Controllers that are used where they are mounted.
pub(super) const CONTROLLERS: [&str; 7] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "freezer", "blkio"];

/// Memory limits above this are the kernel's way to say "none".
const NO_LIMIT: u64 = 1 << 62;

/// Version 1: one directory per group in each mounted controller.
#[derive(Debug)]
pub struct CgroupV1 {
    /// Controller to the directory of the parent in its hierarchy.
    parents: BTreeMap<String, PathBuf>,
}

impl CgroupV1 {
    /// Makes `parent` in each of `mounts` (controller and mount point). Controllers where that is not allowed are
    /// left out.
    ///
    /// # Errors
    /// `Unsupported` when neither cpu nor memory can be used.
    pub fn open(mounts: &[(String, PathBuf)], parent: &str) -> io::Result<Self> {
        let mut parents = BTreeMap::new();
        for (controller, mount) in mounts {
            if make_below(mount, parent, controller).is_ok() {
                parents.insert(controller.clone(), mount.join(parent));
            }
        }
        if !parents.contains_key("cpu") && !parents.contains_key("memory") {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no usable control group controllers"));
        }
        Ok(Self { parents })
    }

    /// Directories that someone else made: controller to the parent of the group in its hierarchy.
    pub(super) fn existing(parents: BTreeMap<String, PathBuf>) -> Self {
        Self { parents }
    }

    fn dir(&self, controller: &str, group: &str) -> Option<PathBuf> {
        self.parents.get(controller).map(|parent| parent.join(group))
    }

    fn dirs(&self, group: &str) -> impl Iterator<Item = PathBuf> {
        self.parents.values().map(move |parent| parent.join(group))
    }

    /// The directory whose process list stands for the whole group.
    fn first_dir(&self, group: &str) -> io::Result<PathBuf> {
        self.dirs(group).find(|dir| dir.is_dir()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn set(
        &self,
        gaps: &mut Vec<String>,
        group: &str,
        controller: &str,
        files: &[(&str, String)],
    ) -> io::Result<()> {
        let Some(dir) = self.dir(controller, group) else {
            gaps.push(format!("no {controller} control group"));
            return Ok(());
        };
        files.iter().try_for_each(|(name, value)| file::write(&dir.join(name), value))
    }

    fn limit_memory(&self, gaps: &mut Vec<String>, group: &str, bytes: u64) -> io::Result<()> {
        self.set(gaps, group, "memory", &[("memory.limit_in_bytes", bytes.to_string())])?;
        if let Some(dir) = self.dir("memory", group) {
            // Absent without swap accounting, where there mostly is no swap either.
            let swap = dir.join("memory.memsw.limit_in_bytes");
            if swap.exists() {
                file::write(&swap, &bytes.to_string())?;
            }
        }
        Ok(())
    }

    fn freeze(&self, group: &str, state: &str) -> bool {
        self.dir("freezer", group).is_some_and(|dir| file::write(&dir.join("freezer.state"), state).is_ok())
    }
}

impl Cgroups for CgroupV1 {
    fn version(&self) -> u8 {
        1
    }

    fn create(&self, group: &str) -> io::Result<()> {
        check_name(group)?;
        self.parents.iter().try_for_each(|(controller, parent)| make(parent, group, controller))
    }

    fn limit(&self, group: &str, limits: &Limits) -> io::Result<Vec<String>> {
        let mut gaps = Vec::new();
        if let Some(cores) = limits.cpu {
            #[allow(clippy::cast_possible_truncation)]
            let period = (CPU_PERIOD_US as i64).to_string();
            let quota = quota_us(cores).to_string();
            self.set(&mut gaps, group, "cpu", &[("cpu.cfs_period_us", period), ("cpu.cfs_quota_us", quota)])?;
        }
        if !limits.cpuset.is_empty() {
            self.set(&mut gaps, group, "cpuset", &[("cpuset.cpus", cpu_list(&limits.cpuset))])?;
        }
        if let Some(bytes) = limits.memory {
            self.limit_memory(&mut gaps, group, bytes)?;
        }
        if let Some(pids) = limits.pids {
            self.set(&mut gaps, group, "pids", &[("pids.max", pids.to_string())])?;
        }
        Ok(gaps)
    }

    fn attach(&self, group: &str, pid: u32) -> io::Result<()> {
        self.dirs(group).try_for_each(|dir| file::write(&dir.join("cgroup.procs"), &pid.to_string()))
    }

    fn usage(&self, group: &str) -> io::Result<Usage> {
        self.first_dir(group)?;
        let at = |controller: &str, name: &str| self.dir(controller, group).map(|dir| dir.join(name));
        let number = |controller, name| at(controller, name).and_then(|path| file::number(&path));
        let cache = at("memory", "memory.stat").and_then(|path| file::keyed(&path, "total_inactive_file"));
        let (io_read, io_write) =
            at("blkio", "blkio.throttle.io_service_bytes").map(|path| block_io(&path)).unwrap_or_default();
        Ok(Usage {
            cpu_ns: number("cpuacct", "cpuacct.usage").unwrap_or(0),
            memory: number("memory", "memory.usage_in_bytes").unwrap_or(0).saturating_sub(cache.unwrap_or(0)),
            memory_limit: number("memory", "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT),
            memory_peak: number("memory", "memory.max_usage_in_bytes"),
            io_read,
            io_write,
            tasks: number("pids", "pids.current").unwrap_or(0),
            oom_kills: at("memory", "memory.oom_control")
                .and_then(|path| file::keyed(&path, "oom_kill"))
                .unwrap_or(0),
        })
    }

    fn pids(&self, group: &str) -> io::Result<Vec<u32>> {
        file::numbers(&self.first_dir(group)?.join("cgroup.procs"))
    }

    fn lift_cpu_limit(&self, group: &str) -> io::Result<()> {
        check_name(group)?;
        let quota = self.dir("cpu", group).map(|dir| dir.join("cpu.cfs_quota_us"));
        quota.filter(|file| file.exists()).map_or(Ok(()), |file| file::write(&file, "-1"))
    }

    fn kill(&self, group: &str) -> io::Result<()> {
        // Frozen, nothing can fork away between reading the list and the signal.
        self.freeze(group, "FROZEN");
        let pids = self.pids(group);
        file::kill_all(pids.as_deref().unwrap_or_default());
        self.freeze(group, "THAWED");
        pids.map(drop)
    }

    fn remove(&self, group: &str) -> io::Result<()> {
        check_name(group)?;
        self.dirs(group).try_for_each(|dir| file::remove_dir(&dir))
    }

    fn groups(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for parent in self.parents.values() {
            names.extend(file::directories(parent)?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn places(&self, group: &str) -> Vec<(String, PathBuf)> {
        self.parents.iter().map(|(controller, parent)| (controller.clone(), parent.join(group))).collect()
    }

    fn exists(&self, group: &str) -> bool {
        self.dirs(group).any(|dir| dir.is_dir())
    }
}

/// Makes each directory of `path` below `mount`.
fn make_below(mount: &Path, path: &str, controller: &str) -> io::Result<()> {
    let mut parent = mount.to_owned();
    for part in path.split('/') {
        make(&parent, part, controller)?;
        parent.push(part);
    }
    Ok(())
}

/// Makes one directory; a cpuset is unusable until it has cores and memory nodes, so it gets those of its parent.
fn make(parent: &Path, name: &str, controller: &str) -> io::Result<()> {
    let dir = parent.join(name);
    match fs::create_dir(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if controller == "cpuset" {
        for name in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(dir.join(name)).is_ok_and(|value| value.trim().is_empty()) {
                file::write(&dir.join(name), fs::read_to_string(parent.join(name))?.trim())?;
            }
        }
    }
    Ok(())
}

/// Sums of the `major:minor Read n` and `major:minor Write n` lines.
fn block_io(path: &Path) -> (u64, u64) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let sum = |kind: &str| {
        text.lines()
            .filter_map(|line| {
                let mut fields = line.split(' ').skip(1);
                (fields.next()? == kind).then(|| fields.next()?.parse::<u64>().ok())?
            })
            .sum()
    };
    (sum("Read"), sum("Write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, CgroupV1) {
        let root = tempfile::tempdir().unwrap();
        let mounts: Vec<_> =
            ["cpu", "cpuacct", "memory"].map(|name| (name.to_owned(), root.path().join(name))).into();
        for (_, mount) in &mounts {
            fs::create_dir(mount).unwrap();
        }
        let cgroups = CgroupV1::open(&mounts, "bai/a").unwrap();
        (root, cgroups)
    }

    #[test]
    fn limits_go_to_the_right_controllers_and_gaps_are_told() {
        let (root, cgroups) = tree();
        cgroups.create("k").unwrap();
        for (dir, name) in
            [("cpu", "cpu.cfs_period_us"), ("cpu", "cpu.cfs_quota_us"), ("memory", "memory.limit_in_bytes")]
        {
            fs::write(root.path().join(dir).join("bai/a/k").join(name), "").unwrap();
        }
        let limits = Limits { cpu: Some(0.5), memory: Some(4096), pids: Some(9), ..Limits::default() };
        assert_eq!(cgroups.limit("k", &limits).unwrap(), ["no pids control group"]);
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(read("cpu/bai/a/k/cpu.cfs_quota_us"), "50000");
        assert_eq!(read("memory/bai/a/k/memory.limit_in_bytes"), "4096");
    }

    #[test]
    fn the_limit_of_cpu_time_is_lifted_where_there_is_one() {
        let (root, cgroups) = tree();
        cgroups.create("k").unwrap();
        let quota = root.path().join("cpu/bai/a/k/cpu.cfs_quota_us");
        cgroups.lift_cpu_limit("k").unwrap();
        assert!(!quota.exists());
        fs::write(&quota, "").unwrap();
        cgroups.lift_cpu_limit("k").unwrap();
        assert_eq!(fs::read_to_string(&quota).unwrap(), "-1");
    }

    #[test]
    fn counters_are_read() {
        let (root, cgroups) = tree();
        cgroups.create("k").unwrap();
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        write("cpuacct/bai/a/k/cpuacct.usage", "1234\n");
        write("memory/bai/a/k/memory.usage_in_bytes", "1000\n");
        write("memory/bai/a/k/memory.stat", "cache 1\ntotal_inactive_file 400\n");
        write("memory/bai/a/k/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/bai/a/k/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
        let usage = cgroups.usage("k").unwrap();
        assert_eq!(usage, Usage { cpu_ns: 1234, memory: 600, oom_kills: 3, ..Usage::default() });
        assert_eq!(cgroups.groups().unwrap(), ["k"]);
        assert!(cgroups.usage("other").is_err());
    }
}
