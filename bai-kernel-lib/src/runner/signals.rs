//! Signals to the runner itself.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::EventFd,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

/// The signals that the main thread takes, blocked in every other thread.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    /// Blocks them for this thread and those it starts. (A started program gets an empty mask again.)
    pub(super) fn block() -> io::Result<Self> {
        let set: SigSet =
            [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Waits for SIGTERM, SIGINT, or the event.
    pub(super) fn wait_for_end(&self, event: &EventFd) -> io::Result<()> {
        loop {
            if wait([self.0.as_fd(), event.as_fd()])?[1] {
                return Ok(());
            }
            while let Some(info) = self.0.read_signal()? {
                let ends = [Signal::SIGTERM, Signal::SIGINT].iter().any(|s| *s as u32 == info.ssi_signo);
                if ends && is_from_outside(info.ssi_pid) {
                    return Ok(());
                }
            }
        }
    }
}

/// As PID 1, only a sender outside of the namespace (which has no process id in it) may end the kernel: user code
/// that runs under the same user, in a rootless sandbox, may not.
fn is_from_outside(sender: u32) -> bool {
    std::process::id() != 1 || sender == 0
}

fn wait<const N: usize>(fds: [BorrowedFd<'_>; N]) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(polled.map(|fd| fd.any().unwrap_or(false))),
        Err(e) => Err(e.into()),
    }
}
