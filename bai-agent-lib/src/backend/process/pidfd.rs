//! A process by descriptor: it can be awaited and signalled without ever meeting a stranger that got its number.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use bai_kernel_lib::sandbox::start_time;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A living process, or one that has just ended.
#[derive(Debug)]
pub(super) struct ProcessFd(AsyncFd<OwnedFd>);

impl ProcessFd {
    /// Opens the process with this number and start time; `None` when it has ended.
    ///
    /// # Errors
    /// Those of the system call, such as too many open files.
    pub(super) fn open(pid: i32, started: u64) -> io::Result<Option<Self>> {
        // SAFETY: plain numbers go in; the descriptor returned is new and owned by nobody else.
        #[allow(unsafe_code)]
        let fd = unsafe {
            match Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0)) {
                Err(Errno::ESRCH) => return Ok(None),
                other => OwnedFd::from_raw_fd(i32::try_from(other?).map_err(io::Error::other)?),
            }
        };
        // Checked after opening: from here on the number cannot pass to another process unnoticed.
        if start_time(pid) != Some(started) {
            return Ok(None);
        }
        // SAFETY: an owned descriptor always names the same open file, which is what the registration relies on.
        #[allow(unsafe_code)]
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        Ok(Some(Self(registered)))
    }

    /// Returns when the process has ended.
    pub(super) async fn ended(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }

    /// Sends a signal; one that has ended is fine.
    ///
    /// # Errors
    /// `PermissionDenied` when it is not ours.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open, and no extra information is passed.
        #[allow(unsafe_code)]
        let done =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal as i32, none, 0) };
        match Errno::result(done) {
            Err(Errno::ESRCH) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }
}
