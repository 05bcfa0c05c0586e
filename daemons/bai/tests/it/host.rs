//! What the kernels of one node have on the host, found without asking the node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::backend::Backend;
use crate::patience::until;

/// The agent of every `bai serve`: its directories of control groups are those of all servers of this host.
pub(crate) const SHARED: &str = "i-local";

/// A node, by the directory of its agent.
#[derive(Debug)]
pub(crate) struct Node {
    backend: Backend,
    agent: String,
    dir: PathBuf,
    /// The part of the directory's path that is nobody else's and shows up in lists of mounts.
    mark: String,
    /// Kernels seen so far.
    seen: BTreeSet<String>,
}

impl Node {
    /// The node whose agent `agent` has the directory `dir`, which lies below the directory `root` made for the test.
    pub(crate) fn new(backend: Backend, agent: &str, root: &Path, dir: PathBuf) -> Self {
        let unique = root.parent().unwrap();
        let mark = format!("{}/scratch/", dir.strip_prefix(unique).unwrap().display());
        Self { backend, agent: agent.to_owned(), dir, mark, seen: BTreeSet::new() }
    }

    /// The running kernels, each with the process namespaces that see its files: one, unless it was started twice.
    pub(crate) fn kernels(&mut self) -> BTreeMap<String, BTreeSet<PathBuf>> {
        let mut kernels: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
        for (process, mounts) in processes("mountinfo") {
            for kernel in self.named(&mounts) {
                if let Ok(namespace) = fs::read_link(process.join("ns/pid")) {
                    kernels.entry(kernel).or_default().insert(namespace);
                }
            }
        }
        self.seen.extend(kernels.keys().cloned());
        self.seen.extend(names(&self.dir.join("scratch")));
        kernels
    }

    /// Everything that is still there of any kernel, in words.
    pub(crate) fn traces(&mut self) -> Vec<String> {
        let mut traces: Vec<String> =
            self.kernels().keys().map(|kernel| format!("mounts of {kernel}")).collect();
        let monitors = processes("cmdline").into_iter().filter(|(_, line)| line.contains(&self.mark));
        traces.extend(
            monitors.map(|(process, line)| format!("{} {}", process.display(), line.replace('\0', " "))),
        );
        traces.extend(names(&self.dir.join("scratch")).into_iter().map(|kernel| format!("scratch {kernel}")));
        traces.extend(self.groups().into_iter().map(|group| format!("control group {}", group.display())));
        traces.extend(self.containers().into_iter().map(|container| format!("container {container}")));
        traces
    }

    /// Waits until nothing is left of any kernel.
    pub(crate) async fn is_clean(&mut self) {
        until("no kernel is to leave anything", async || match self.traces() {
            traces if traces.is_empty() => Ok(()),
            traces => Err(traces.join("; ")),
        })
        .await;
    }

    /// Ids of the kernels whose directories a text names.
    fn named(&self, text: &str) -> BTreeSet<String> {
        let rests = text.split(&self.mark).skip(1);
        rests.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect()
    }

    /// The directories of this agent's control groups, of all controllers of both versions.
    fn group_parents(&self) -> impl Iterator<Item = PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let controllers = names(root).into_iter().map(|name| root.join(name)).chain([root.to_owned()]);
        controllers.map(|controller| controller.join("bai").join(&self.agent))
    }

    /// Control groups of kernels that were seen.
    fn groups(&self) -> Vec<PathBuf> {
        let groups = self
            .group_parents()
            .flat_map(|parent| names(&parent).into_iter().map(move |name| parent.join(name)));
        let of_seen = |group: &PathBuf| {
            let name = group.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.strip_prefix("kernel-")
                .is_some_and(|rest| self.seen.iter().any(|kernel| rest.starts_with(kernel)))
        };
        groups.filter(of_seen).collect()
    }

    /// The label of what the node has on an engine.
    pub(crate) fn owner(&self) -> String {
        format!("ai.backend.owner={}:{}", self.agent, self.dir.display())
    }

    fn containers(&self) -> Vec<String> {
        if self.backend != Backend::Docker {
            return Vec::new();
        }
        let owner = format!("label={}", self.owner());
        let listed = Command::new("docker").args(["ps", "-aq", "--filter", &owner]).output().unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        String::from_utf8_lossy(&listed.stdout).split_whitespace().map(str::to_owned).collect()
    }

    fn end_all(&self) {
        for container in self.containers() {
            let _ = Command::new("docker").args(["rm", "-f", &container]).output();
        }
        let inside = processes("mountinfo").into_iter().chain(processes("cmdline"));
        for (process, _) in inside.filter(|(_, text)| text.contains(&self.mark)) {
            let pid = process.file_name().and_then(|name| name.to_str()?.parse().ok());
            if let Some(pid) = pid {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let give_up = Instant::now() + Duration::from_secs(2);
        while self.groups().into_iter().any(|group| fs::remove_dir(group).is_err())
            && Instant::now() < give_up
        {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    /// Removes the agent's own directories of control groups, and of a failed test the kernels too.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end_all();
        }
        if self.agent != SHARED {
            self.group_parents().for_each(|parent| drop(fs::remove_dir(parent)));
        }
    }
}

/// All processes with the text of one of their files.
fn processes(file: &str) -> Vec<(PathBuf, String)> {
    let numbers =
        names(Path::new("/proc")).into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    let paths = numbers.map(|name| Path::new("/proc").join(name));
    let text = |path: &PathBuf| Some(String::from_utf8_lossy(&fs::read(path.join(file)).ok()?).into_owned());
    paths.filter_map(|path| text(&path).map(|text| (path, text))).collect()
}

/// Names of the entries of a directory; none when it is not there.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
