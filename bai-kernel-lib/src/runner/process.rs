//! Processes: starting them as the user, reaping them as PID 1, signalling them without hitting a stranger.

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        memfd::{MFdFlags, memfd_create},
        signal::{SigSet, Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::{Gid, Pid, Uid},
};

use super::supervise::lock;

/// Pause before everything is killed once more.
const KILL_AGAIN: Duration = Duration::from_millis(20);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    /// Exit code; 128 + n after signal n.
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
}

impl Exit {
    pub(super) fn code(code: i32) -> Self {
        Self { code, signal: None }
    }

    fn from_status(status: WaitStatus) -> Option<Self> {
        match status {
            WaitStatus::Exited(_, code) => Some(Self::code(code)),
            WaitStatus::Signaled(_, signal, _) => {
                let number = signal as i32;
                Some(Self { code: 128 + number, signal: Some(number) })
            }
            _ => None,
        }
    }

    /// "exited with code 3" or "was killed by SIGSEGV".
    pub(super) fn describe(self) -> String {
        match self.signal.and_then(|n| Signal::try_from(n).ok()) {
            Some(signal) => format!("was killed by {signal}"),
            None => format!("exited with code {}", self.code),
        }
    }
}

/// A process started by the runner.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pid: Pid,
    ended: Arc<Ended>,
}

#[derive(Debug)]
struct Ended {
    exit: OnceLock<Exit>,
    event: EventFd,
}

impl Process {
    /// How it ended, if it has.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.ended.exit.get().copied()
    }

    /// Waits for its end.
    pub(super) fn wait(&self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = self.exit() {
                return Ok(exit);
            }
            match poll(&mut [PollFd::new(self.event(), PollFlags::POLLIN)], PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Becomes readable when the process has ended, and stays so.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.ended.event)
    }
}

/// All processes of the kernel: the table of those we started, and the reaping of all others.
///
/// Starting and reaping exclude each other, so an exit is never seen before its process is in the table; and a
/// signal is only sent while its process is in the table, that is not yet reaped, so its id is not reused.
#[derive(Debug, Default)]
pub(super) struct Processes {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    running: HashMap<i32, Arc<Ended>>,
    starts: u64,
}

impl Processes {
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Process> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let ended = Arc::new(Ended { exit: OnceLock::new(), event });
        let mut table = lock(&self.table);
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        table.running.insert(pid, Arc::clone(&ended));
        table.starts += 1;
        self.changed.notify_all();
        Ok(Process { pid: Pid::from_raw(pid), ended })
    }

    /// Sends a signal to the process alone. A process that has ended is left in peace.
    pub(super) fn signal(&self, process: &Process, signal: Signal) {
        let table = lock(&self.table);
        if table.running.contains_key(&process.pid.as_raw()) {
            let _ = kill(process.pid, signal);
        }
    }

    /// Sends a signal to the process and everything in its group.
    pub(super) fn signal_group(&self, process: &Process, signal: Signal) {
        let table = lock(&self.table);
        if table.running.contains_key(&process.pid.as_raw()) {
            let _ = killpg(process.pid, signal);
        }
    }

    /// Sends a signal to everything: as PID 1 to every process of the namespace, otherwise to the groups that
    /// were started here and to what was adopted from them.
    pub(super) fn signal_all(&self, signal: Signal) {
        let table = lock(&self.table);
        if std::process::id() == 1 {
            let _ = kill(Pid::from_raw(-1), signal);
            return;
        }
        for pid in table.running.keys() {
            let _ = killpg(Pid::from_raw(*pid), signal);
        }
        // While the table is locked none of them is reaped, so that their ids are not reused.
        for pid in children().filter(|pid| !table.running.contains_key(pid)) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Kills everything, also what turns up only when its parent is dead. `false` when the time is over first.
    pub(super) fn kill_all(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            self.signal_all(Signal::SIGKILL);
            if self.wait_all(KILL_AGAIN.min(timeout)) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
        }
    }

    /// Reaps children as they end, ours and adopted ones, for ever.
    pub(super) fn reap(&self) {
        let mut seen_starts = 0;
        loop {
            match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Ok(status) => self.reap_one(status.pid()),
                Err(Errno::ECHILD) => seen_starts = self.wait_for_start(seen_starts),
                Err(_) => {}
            }
        }
    }

    fn reap_one(&self, pid: Option<Pid>) {
        let Some(pid) = pid else { return };
        let mut table = lock(&self.table);
        // A failed start was already reaped by the starter.
        let Ok(status) = waitpid(pid, Some(WaitPidFlag::WNOHANG)) else { return };
        let Some(exit) = Exit::from_status(status) else { return };
        if let Some(ended) = table.running.remove(&pid.as_raw()) {
            let _ = ended.exit.set(exit);
            let _ = ended.event.write(1);
        }
        self.changed.notify_all();
    }

    fn wait_for_start(&self, seen: u64) -> u64 {
        let mut table = lock(&self.table);
        while table.starts == seen {
            table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
        table.starts
    }

    /// Waits until no process is left, neither started here nor adopted. `false` when the time is over first.
    pub(super) fn wait_all(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut table = lock(&self.table);
        while !table.running.is_empty() || has_children() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(table, left);
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Whether there are children, dead ones that were not reaped included.
fn has_children() -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, flags) != Err(Errno::ECHILD)
}

/// The ids of all children.
fn children() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid) == Some(std::process::id()))
}

fn parent(pid: i32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name comes before, in parentheses, and may contain anything.
    stat[stat.rfind(')')? + 1..].split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Who user code runs as.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// Everything that is the same for all processes of user code.
pub(super) struct Launcher {
    /// `None` keeps the identity of the runner.
    pub(super) identity: Option<Identity>,
    pub(super) no_new_privs: bool,
    pub(super) environ: Vec<(OsString, OsString)>,
    pub(super) work_dir: PathBuf,
}

impl fmt::Debug for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launcher").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Launcher {
    /// A command that will run as the user: own session, no standard input, nothing inherited but `inherit`.
    pub(super) fn command(&self, argv: &[OsString], inherit: &[&OwnedFd]) -> Command {
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).stdin(nothing()).env_clear();
        command.envs(self.environ.iter().map(|(name, value)| (name, value)));
        let work_dir = &self.work_dir;
        command.current_dir(if work_dir.is_dir() { work_dir.as_path() } else { "/".as_ref() });
        let fds: Vec<i32> = inherit.iter().map(|fd| fd.as_raw_fd()).collect();
        let identity = self.identity.clone();
        let no_new_privs = self.no_new_privs;
        let prepare = move || enter(identity.as_ref(), no_new_privs, &fds);
        // SAFETY: `enter` runs between fork and exec and makes system calls only; it does not allocate or lock.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(prepare)
        };
        command
    }
}

/// Lets no program inherit what the runner itself inherited, beside the standard streams. Best effort.
pub(super) fn keep_descriptors() {
    // SAFETY: sets a flag on whatever descriptors are open; none is closed.
    #[allow(unsafe_code)]
    unsafe {
        let done = libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if done < 0 {
            for fd in 3..1024 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}

/// Standard input of user code: the null device, or in an image without one an empty file.
fn nothing() -> Stdio {
    let null = File::open("/dev/null").map(Stdio::from);
    null.or_else(|_| Ok(memfd_create(c"empty", MFdFlags::MFD_CLOEXEC)?.into()))
        .unwrap_or_else(|_: Errno| Stdio::null())
}

/// Turns the forked child into a process of the user.
fn enter(identity: Option<&Identity>, no_new_privs: bool, fds: &[i32]) -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    nix::unistd::setsid()?;
    prefer_as_oom_victim();
    if let Some(identity) = identity {
        // SAFETY: the pointer and length describe a live slice of gid_t.
        #[allow(unsafe_code)]
        let done = unsafe { libc::setgroups(identity.groups.len(), identity.groups.as_ptr()) };
        Errno::result(done)?;
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
    }
    if no_new_privs {
        nix::sys::prctl::set_no_new_privs()?;
    }
    for fd in fds {
        // SAFETY: clears the close-on-exec flag of a descriptor that the parent keeps open across the fork.
        #[allow(unsafe_code)]
        let done = unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) };
        Errno::result(done)?;
    }
    Ok(())
}

/// When memory runs out the kernel should take a user's process, not the runner. Best effort.
fn prefer_as_oom_victim() {
    // SAFETY: plain system calls on a constant path and buffer; the descriptor is closed again.
    #[allow(unsafe_code)]
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, c"300".as_ptr().cast(), 3);
            libc::close(fd);
        }
    }
}
