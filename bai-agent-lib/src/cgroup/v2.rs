use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bai_core::port::backend::Limits;

use super::{CPU_PERIOD_US, Cgroups, Usage, check_name, cpu_list, file, quota_us};

/// Controllers that groups need enabled in their parent.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "io"];

/// Version 2: one directory per group.
#[derive(Debug)]
pub struct CgroupV2 {
    parent: PathBuf,
}

impl CgroupV2 {
    /// Makes `parent` below the version 2 directory `root` and enables the controllers down to it.
    ///
    /// # Errors
    /// `Unsupported` when the tree lacks the cpu or the memory controller; `PermissionDenied` when we may not write it.
    pub fn open(root: &Path, parent: &str) -> io::Result<Self> {
        let mut dir = root.to_owned();
        enable(&dir)?;
        for part in parent.split('/') {
            dir.push(part);
            match fs::create_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => enable(&dir)?,
            }
        }
        Ok(Self { parent: dir })
    }

    /// A directory that someone else made.
    pub(super) fn existing(parent: PathBuf) -> Self {
        Self { parent }
    }

    fn dir(&self, group: &str) -> PathBuf {
        self.parent.join(group)
    }

    fn set(&self, gaps: &mut Vec<String>, group: &str, name: &str, value: &str) -> io::Result<()> {
        let path = self.dir(group).join(name);
        if path.exists() {
            return file::write(&path, value);
        }
        gaps.push(format!("no control file {name}"));
        Ok(())
    }
}

impl Cgroups for CgroupV2 {
    fn version(&self) -> u8 {
        2
    }

    fn create(&self, group: &str) -> io::Result<()> {
        check_name(group)?;
        match fs::create_dir(self.dir(group)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    fn limit(&self, group: &str, limits: &Limits) -> io::Result<Vec<String>> {
        let mut gaps = Vec::new();
        if let Some(cores) = limits.cpu {
            self.set(&mut gaps, group, "cpu.max", &format!("{} {CPU_PERIOD_US}", quota_us(cores)))?;
        }
        if !limits.cpuset.is_empty() {
            self.set(&mut gaps, group, "cpuset.cpus", &cpu_list(&limits.cpuset))?;
        }
        if let Some(bytes) = limits.memory {
            self.set(&mut gaps, group, "memory.max", &bytes.to_string())?;
            let swap = self.dir(group).join("memory.swap.max");
            if swap.exists() {
                file::write(&swap, "0")?;
            }
        }
        if let Some(pids) = limits.pids {
            self.set(&mut gaps, group, "pids.max", &pids.to_string())?;
        }
        Ok(gaps)
    }

    fn attach(&self, group: &str, pid: u32) -> io::Result<()> {
        file::write(&self.dir(group).join("cgroup.procs"), &pid.to_string())
    }

    fn usage(&self, group: &str) -> io::Result<Usage> {
        let dir = self.dir(group);
        fs::metadata(&dir)?;
        let number = |name: &str| file::number(&dir.join(name));
        let keyed = |name: &str, key: &str| file::keyed(&dir.join(name), key).unwrap_or(0);
        let (io_read, io_write) = block_io(&dir.join("io.stat"));
        Ok(Usage {
            cpu_ns: keyed("cpu.stat", "usage_usec").saturating_mul(1000),
            memory: number("memory.current")
                .unwrap_or(0)
                .saturating_sub(keyed("memory.stat", "inactive_file")),
            memory_limit: number("memory.max"),
            memory_peak: number("memory.peak"),
            io_read,
            io_write,
            tasks: number("pids.current").unwrap_or(0),
            oom_kills: keyed("memory.events", "oom_kill"),
        })
    }

    fn pids(&self, group: &str) -> io::Result<Vec<u32>> {
        file::numbers(&self.dir(group).join("cgroup.procs"))
    }

    fn lift_cpu_limit(&self, group: &str) -> io::Result<()> {
        check_name(group)?;
        let limit = self.dir(group).join("cpu.max");
        if limit.exists() { file::write(&limit, "max") } else { Ok(()) }
    }

    fn kill(&self, group: &str) -> io::Result<()> {
        let kill = self.dir(group).join("cgroup.kill");
        if kill.exists() {
            return file::write(&kill, "1");
        }
        // Kernels before 5.14: freeze first, so that nothing can fork away.
        let freeze = self.dir(group).join("cgroup.freeze");
        let _ = file::write(&freeze, "1");
        let pids = self.pids(group);
        file::kill_all(pids.as_deref().unwrap_or_default());
        let _ = file::write(&freeze, "0");
        pids.map(drop)
    }

    fn remove(&self, group: &str) -> io::Result<()> {
        check_name(group)?;
        file::remove_dir(&self.dir(group))
    }

    fn groups(&self) -> io::Result<Vec<String>> {
        file::directories(&self.parent)
    }

    fn places(&self, group: &str) -> Vec<(String, PathBuf)> {
        vec![(String::new(), self.dir(group))]
    }

    fn exists(&self, group: &str) -> bool {
        self.dir(group).is_dir()
    }
}

/// Enables our controllers for the children of `dir`; cpu and memory are required.
fn enable(dir: &Path) -> io::Result<()> {
    let available = fs::read_to_string(dir.join("cgroup.controllers"))?;
    let has = |name: &str| available.split_whitespace().any(|controller| controller == name);
    if !has("cpu") || !has("memory") {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "no cpu and memory controllers"));
    }
    let control = dir.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&control)?;
    for name in CONTROLLERS.into_iter().filter(|name| has(name)) {
        if enabled.split_whitespace().any(|controller| controller == name) {
            continue;
        }
        let result = file::write(&control, &format!("+{name}"));
        if name == "cpu" || name == "memory" {
            result?;
        }
    }
    Ok(())
}

/// Sums of `rbytes` and `wbytes` over the devices.
fn block_io(path: &Path) -> (u64, u64) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let sum = |key: &str| {
        text.split_whitespace()
            .filter_map(|field| field.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok())
            .sum()
    };
    (sum("rbytes"), sum("wbytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain files in the format of the kernel.
    fn tree() -> (tempfile::TempDir, CgroupV2) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("bai");
        fs::create_dir(&dir).unwrap();
        for dir in [root.path(), &dir] {
            fs::write(dir.join("cgroup.controllers"), "cpuset cpu io memory hugetlb pids rdma\n").unwrap();
            fs::write(dir.join("cgroup.subtree_control"), "cpu memory\n").unwrap();
        }
        let cgroups = CgroupV2::open(root.path(), "bai").unwrap();
        cgroups.create("k").unwrap();
        (root, cgroups)
    }

    #[test]
    fn the_limit_of_cpu_time_is_lifted_where_there_is_one() {
        let (root, cgroups) = tree();
        let limit = root.path().join("bai/k/cpu.max");
        cgroups.lift_cpu_limit("k").unwrap();
        assert!(!limit.exists());
        fs::write(&limit, "").unwrap();
        cgroups.lift_cpu_limit("k").unwrap();
        assert_eq!(fs::read_to_string(&limit).unwrap(), "max");
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let (root, cgroups) = tree();
        let dir = root.path().join("bai/k");
        for name in ["cpu.max", "cpuset.cpus", "memory.max", "memory.swap.max"] {
            fs::write(dir.join(name), "").unwrap();
        }
        let limits =
            Limits { cpu: Some(1.5), cpuset: vec![0, 2], memory: Some(1 << 20), pids: Some(5), shm: None };
        assert_eq!(cgroups.limit("k", &limits).unwrap(), ["no control file pids.max"]);
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("cpuset.cpus"), "0,2");
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("memory.swap.max"), "0");
    }

    #[test]
    fn counters_are_read() {
        let (root, cgroups) = tree();
        let dir = root.path().join("bai/k");
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        write("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n");
        write("memory.current", "10485760\n");
        write("memory.max", "max\n");
        write("memory.peak", "20971520\n");
        write("memory.stat", "anon 4096\ninactive_file 485760\nactive_file 0\n");
        write("memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n");
        write("io.stat", "8:0 rbytes=100 wbytes=200 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n");
        write("pids.current", "4\n");
        let expected = Usage {
            cpu_ns: 1_500_000,
            memory: 10_000_000,
            memory_limit: None,
            memory_peak: Some(20_971_520),
            io_read: 101,
            io_write: 202,
            tasks: 4,
            oom_kills: 1,
        };
        assert_eq!(cgroups.usage("k").unwrap(), expected);
    }

    #[test]
    fn a_tree_without_the_needed_controllers_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "hugetlb\n").unwrap();
        assert_eq!(CgroupV2::open(root.path(), "bai").unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
