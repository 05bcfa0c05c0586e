//! The process outside: makes the namespaces, waits for PID 1 and writes down how it ended.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use nix::{
    errno::Errno,
    sched::CloneFlags,
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Pid, Uid, alarm, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid},
};

use super::{
    EXIT_FILE, ExitRecord, NamespaceIds, Network, RECORD_FILE, SandboxRecord, SandboxSpec,
    inside::{self, Word},
    root::step,
    spec::{read_json, start_time, write_json},
    sys,
};

/// What PID 1 writes to standard error is kept here, in the state directory.
const CONSOLE_FILE: &str = "console.log";

/// Builds the sandbox described by the file and waits for its end. Prints `ready` on standard output once PID 1 has become
/// the command, or `error: …` and leaves no record when it cannot; standard output is closed either way.
///
/// To be called first thing in a process with one thread, which belongs to it from then on.
///
/// Returns the exit code of the process: 0 once the end is written down, 1 when nothing was started.
pub fn run(spec_file: &Path) -> i32 {
    let mut answer = io::stdout();
    match start(spec_file) {
        Ok(sandbox) => {
            let _ = answer.write_all(b"ready\n");
            let _ = silence();
            i32::from(sandbox.wait().is_err())
        }
        Err(error) => {
            let _ = answer.write_all(format!("error: {error}\n").as_bytes());
            1
        }
    }
}

/// A started sandbox.
struct Sandbox {
    spec: SandboxSpec,
    pid: Pid,
    in_user_namespace: bool,
    go: File,
    words: File,
}

fn start(spec_file: &Path) -> io::Result<Sandbox> {
    let spec: SandboxSpec = step("specification", read_json(spec_file))?;
    if spec.command.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "command is empty"));
    }
    // Fails when we lead a process group already, as under a shell, where it is not needed.
    let _ = setsid();
    std::env::set_current_dir("/")?;
    watched().thread_block()?;
    let mut sandbox = clone(spec)?;
    let started = sandbox.set_up();
    if started.is_err() {
        let _ = kill(sandbox.pid, Signal::SIGKILL);
        let _ = waitpid(sandbox.pid, None);
        let _ = fs::remove_file(sandbox.spec.state_dir.join(RECORD_FILE));
    }
    started.map(|()| sandbox)
}

/// Signals the monitor takes one by one.
fn watched() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGALRM].into_iter().collect()
}

/// Forks PID 1. A host that refuses the namespaces to us as we are may still give them with a user namespace.
fn clone(spec: SandboxSpec) -> io::Result<Sandbox> {
    let (go_in, go) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (words, words_out) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let mut namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    if spec.network == Network::None {
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    let as_root =
        if Uid::effective().is_root() { sys::fork_into(namespaces) } else { Err(Errno::EPERM.into()) };
    let (forked, in_user_namespace) = match as_root {
        Ok(forked) => (forked, false),
        Err(_) => (step("namespaces", sys::fork_into(namespaces | CloneFlags::CLONE_NEWUSER))?, true),
    };
    let Some(pid) = forked else {
        drop((go, words));
        let code =
            prepare_child(&spec).map_or(126, |()| inside::run(&spec, in_user_namespace, go_in, words_out));
        std::process::exit(code);
    };
    Ok(Sandbox { spec, pid, in_user_namespace, go: go.into(), words: words.into() })
}

fn prepare_child(spec: &SandboxSpec) -> io::Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    let console = spec.state_dir.join(CONSOLE_FILE);
    let console = OpenOptions::new().append(true).create(true).mode(0o600).open(console)?;
    silence()?;
    Ok(dup2_stderr(OwnedFd::from(console))?)
}

/// Points the standard descriptors to nowhere.
fn silence() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(dup2_stderr(&null)?)
}

impl Sandbox {
    /// From the fork to the moment when PID 1 has become the command. The record is there before PID 1 goes on, so that
    /// nothing ever runs unrecorded.
    fn set_up(&mut self) -> io::Result<()> {
        if self.in_user_namespace {
            step("user namespace", self.map_user())?;
        } else if self.spec.uid == 0 || self.spec.gid == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "user code may not run as root"));
        }
        for cgroup in &self.spec.cgroups {
            let file = cgroup.dir.join("cgroup.procs");
            step(&file.display().to_string(), fs::write(&file, self.pid.to_string()))?;
        }
        let mut record = self.record()?;
        let path = self.spec.state_dir.join(RECORD_FILE);
        step("record", write_json(&path, &record))?;
        self.go.write_all(b"g")?;
        record.gaps.extend(self.listen()?);
        record.ready = true;
        step("record", write_json(&path, &record))
    }

    /// Makes the outer user the user code's user inside, the only one there.
    fn map_user(&self) -> io::Result<()> {
        let proc = format!("/proc/{}", self.pid);
        fs::write(format!("{proc}/uid_map"), format!("{} {} 1", self.spec.uid, Uid::effective()))?;
        fs::write(format!("{proc}/setgroups"), "deny")?;
        fs::write(format!("{proc}/gid_map"), format!("{} {} 1", self.spec.gid, Gid::effective()))
    }

    fn record(&self) -> io::Result<SandboxRecord> {
        let own = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        let pid = self.pid.as_raw();
        let began = |pid| start_time(pid).ok_or_else(|| io::Error::other("PID 1 ended at once"));
        Ok(SandboxRecord {
            pid,
            start_time: began(pid)?,
            monitor_pid: own,
            monitor_start_time: began(own)?,
            namespaces: NamespaceIds::of(pid)?,
            ready: false,
            gaps: self.spec.gaps.clone(),
            labels: self.spec.labels.clone(),
            cgroups: self.spec.cgroups.clone(),
        })
    }

    /// Reads until exec or the end of PID 1 closes the pipe.
    fn listen(&mut self) -> io::Result<Vec<String>> {
        let mut text = String::new();
        self.words.read_to_string(&mut text)?;
        let mut gaps = None;
        for line in text.lines() {
            let word: Word = serde_json::from_str(line)?;
            if let Some(error) = word.error {
                return Err(io::Error::other(error));
            }
            gaps = Some(word.gaps);
        }
        gaps.ok_or_else(|| io::Error::other("PID 1 ended before it was set up"))
    }

    /// Waits for the end, passing SIGTERM on meanwhile.
    fn wait(&self) -> io::Result<()> {
        let signals = watched();
        let mut missing = 0;
        alarm::set(self.spec.look_seconds.max(1));
        loop {
            match signals.wait() {
                Ok(Signal::SIGALRM) => {
                    missing = if self.is_recorded() { 0 } else { missing + 1 };
                    if missing == 2 {
                        let _ = kill(self.pid, Signal::SIGKILL);
                    }
                    alarm::set(self.spec.look_seconds.max(1));
                }
                Ok(Signal::SIGTERM | Signal::SIGINT) => drop(kill(self.pid, Signal::SIGTERM)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let (code, signal) = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::Exited(_, code) => (Some(code), None),
                WaitStatus::Signaled(_, signal, _) => (None, Some(signal as i32)),
                _ => continue,
            };
            // A process of the user that was killed earlier is no reason for this end.
            let oom = signal == Some(Signal::SIGKILL as i32) && self.out_of_memory();
            let exit = ExitRecord { code, signal, oom };
            return write_json(&self.spec.state_dir.join(EXIT_FILE), &exit);
        }
    }

    /// Whether an agent could still find this sandbox. Only a plain "no" counts, not a disk that fails.
    fn is_recorded(&self) -> bool {
        let record = fs::metadata(self.spec.state_dir.join(RECORD_FILE));
        !record.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the memory limit ever killed something in the sandbox.
    fn out_of_memory(&self) -> bool {
        let files = ["memory.oom_control", "memory.events"];
        let counters = self.spec.cgroups.iter().flat_map(|cgroup| files.map(|file| cgroup.dir.join(file)));
        counters.filter_map(|file| fs::read_to_string(file).ok()).any(|text| {
            let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            kills.is_some_and(|count| count.trim() != "0")
        })
    }
}
