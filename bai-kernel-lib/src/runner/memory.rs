//! Whether the memory limit has killed something in this kernel.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

/// Where a kernel finds the counter of its own control group, with version 1 and 2. Without that view the files belong to
/// others or are missing: only their changes count.
const COUNTERS: [&str; 2] = ["/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events"];

/// The processes killed so far, as far as users have been told.
#[derive(Debug)]
pub(super) struct Memory {
    told: AtomicU64,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { told: AtomicU64::new(kills()) }
    }

    /// Whether a process has been killed since this was asked last.
    pub(super) fn has_killed(&self) -> bool {
        let now = kills();
        now > self.told.swap(now, Ordering::Relaxed)
    }
}

fn kills() -> u64 {
    COUNTERS.iter().filter_map(|path| count(&fs::read_to_string(path).ok()?)).sum()
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(count("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(count("oom_kill_disable 0\n"), None);
    }

    #[test]
    fn a_kill_is_told_once() {
        let memory = Memory::new();
        memory.told.store(kills(), Ordering::Relaxed);
        assert!(!memory.has_killed());
    }
}
