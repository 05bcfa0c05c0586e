//! The runner: PID 1 of a kernel.
//!
//! ```text
//!  main        waits for SIGTERM, SIGINT or the shutdown command, then ends the kernel
//!  reaper      reaps every process of the kernel
//!  accept      authenticates connections; a reader and a writer thread serve the current one
//!  executor    runs clean/build/exec steps and cells one after another, moves their output
//!  completer   asks the interpreter for completions
//!  questions   scripts that call input() in batch mode
//!  bootstrap   runs the user's bootstrap.sh once
//! ```
//!
//! User code never runs in the runner's process or under its user, and can neither stop it nor make it exit. A
//! panic in one of the threads restarts that thread; the processes of the user go on (K-12).

mod account;
mod batch;
mod bootstrap;
mod commands;
mod defaults;
mod environment;
mod executor;
mod input;
mod interpreter;
mod kernel;
mod memory;
mod oneshot;
mod outbox;
mod process;
mod pump;
mod runs;
mod server;
mod signals;
mod supervise;
mod tasklog;

use std::{
    io,
    os::unix::net::UnixListener,
    sync::{Arc, Mutex, atomic::AtomicUsize, mpsc},
    time::Duration,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::{
        signal::Signal,
        stat::{Mode, umask},
    },
};

use self::{
    kernel::Kernel,
    server::Server,
    signals::Signals,
    supervise::{lock, note, supervised},
};
use crate::{config::RunnerConfig, protocol::Event};

/// Most requests for completions that wait.
const MAX_COMPLETIONS: usize = 16;

/// How long SIGKILL may take, and then the last frames.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Serves a kernel until it is told to end. Call it once, from `main`, before any thread is started: it
/// changes the umask, the signal mask and the reaping of the process.
///
/// # Errors
/// When the socket cannot be bound or a thread cannot be started; nothing of the user has been run then.
pub fn run(config: RunnerConfig) -> io::Result<()> {
    umask(Mode::from_bits_truncate(0o022));
    process::keep_descriptors();
    let signals = Signals::block()?;
    protect();
    let listener = server::bind(&config.socket)?;
    let hide = config.hide_control_dir.then(|| config.socket.parent().map(ToOwned::to_owned)).flatten();
    let kernel = Arc::new(Kernel::new(config)?);
    if let Some(dir) = hide
        && let Err(e) = umount2(&dir, MntFlags::MNT_DETACH)
    {
        note(&format!("the control directory stays visible: {e}"));
    }
    crate::sandbox::give_up_mounting()?;
    kernel.outbox.event(Event::Ready { pid: std::process::id(), started_at: kernel.started_at });
    start_threads(&kernel, listener)?;
    bootstrap::start(&kernel)?;
    signals.wait_for_end(&kernel.ending.event)?;
    end(&kernel);
    Ok(())
}

fn start_threads(kernel: &Arc<Kernel>, listener: UnixListener) -> io::Result<()> {
    let shared = Arc::clone(kernel);
    supervised("reaper", move || shared.processes.reap())?;
    let (sender, receiver) = mpsc::sync_channel(MAX_COMPLETIONS);
    let (shared, receiver) = (Arc::clone(kernel), Mutex::new(receiver));
    supervised("completer", move || server::answer_completions(&shared, &receiver))?;
    let server = Arc::new(Server::new(Arc::clone(kernel), sender));
    supervised("accept", move || server.accept(&listener))?;
    let questions = input::bind(&kernel.dirs.input_socket)?;
    let (shared, asking) = (Arc::clone(&kernel.input), Arc::new(AtomicUsize::new(0)));
    supervised("questions", move || input::serve(&questions, &shared, &asking))?;
    if kernel.config.prestart {
        kernel.runs.ask_for_interpreter();
    }
    let (shared, mut driver) = (Arc::clone(kernel), None);
    supervised("executor", move || executor::run(&shared, &mut driver))
}

/// Keeps user code away from the runner's memory, and makes it the parent of orphans when it is not PID 1.
/// Both are best effort.
fn protect() {
    let _ = nix::sys::prctl::set_dumpable(false);
    let _ = crate::sandbox::keep_from_children();
    let _ = nix::sys::prctl::set_child_subreaper(true);
}

fn end(kernel: &Kernel) {
    kernel.runs.close();
    kernel.outbox.close();
    kernel.processes.signal_all(Signal::SIGTERM);
    let grace = Duration::from_millis(*lock(&kernel.ending.grace_ms));
    if !kernel.processes.wait_all(grace) {
        kernel.processes.kill_all(KILL_TIMEOUT);
    }
    kernel.runs.wait_finished(DRAIN_TIMEOUT);
    kernel.outbox.drain(DRAIN_TIMEOUT);
}
