//! Use of resources where there are no control groups: summed over the processes of the sandbox.

use std::fs;

use bai_kernel_lib::sandbox::NamespaceIds;
use nix::unistd::{SysconfVar, sysconf};

use crate::stats::Sample;

/// Sums the processes in the pid namespace `pid_namespace`, whose first process is `init`. The time of ended processes
/// counts once their parents, at last the runner, have taken note of them.
pub(super) fn of_namespace(init: i32, pid_namespace: u64) -> Sample {
    let mut sample = Sample::default();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids.filter(|pid| NamespaceIds::of(*pid).is_ok_and(|ids| ids.pid == pid_namespace)) {
        let Some(process) = process(pid, pid == init) else { continue };
        sample.cpu_ms += process.cpu_ms;
        sample.memory += process.memory;
    }
    sample
}

fn process(pid: i32, with_children: bool) -> Option<Sample> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // utime and stime, then those of ended children; the state is field 0.
    let ticks: u64 = (11..if with_children { 15 } else { 13 }).filter_map(number).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    let page = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
    #[allow(clippy::cast_precision_loss)]
    let cpu_ms = ticks as f64 * 1000.0 / per_second as f64;
    Some(Sample { cpu_ms, memory: number(21)? * page, ..Sample::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_uses_memory_and_time() {
        let ids = NamespaceIds::of(0).unwrap();
        let sample = of_namespace(0, ids.pid);
        assert!(sample.memory > 1 << 20, "{sample:?}");
        assert!(sample.cpu_ms > 0.0, "{sample:?}");
    }
}
