//! Moving the output of processes into the outbox and the logs, in big pieces and in order.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::pipe2,
};

use super::{
    kernel::Kernel,
    tasklog::{TaskLog, UserLog},
};
use crate::protocol::Stream;

/// Wanted capacity of a pipe in bytes, so that one wake-up moves much.
const PIPE_BYTES: i32 = 1 << 20;

/// Most bytes in one output frame.
const CHUNK: usize = 256 << 10;

/// Most pipes of left-over background processes that are read for the log.
const MAX_LEFT_OVER: usize = 32;

static LEFT_OVER: AtomicUsize = AtomicUsize::new(0);

/// Where the output of a run goes.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    kernel: &'a Kernel,
    run_id: &'a str,
    user_log: Option<UserLog>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(kernel: &'a Kernel, run_id: &'a str) -> Self {
        let identity = kernel.launcher.identity.as_ref();
        let user_log = UserLog::open(&kernel.config.work_dir, &kernel.config.kernel_id, identity);
        Self { kernel, run_id, user_log }
    }

    /// Output between two runs: logged, and sent without a run id.
    pub(super) fn between_runs(kernel: &'a Kernel) -> Self {
        Self { kernel, run_id: "", user_log: None }
    }

    pub(super) fn run_id(&self) -> &'a str {
        self.run_id
    }

    pub(super) fn write(&mut self, stream: Stream, data: &[u8]) -> io::Result<()> {
        if matches!(stream, Stream::Stdout | Stream::Stderr) {
            self.kernel.log.write(data);
            if let Some(log) = &mut self.user_log {
                log.write(data);
            }
        }
        self.kernel.outbox.output(self.run_id, stream, data)
    }

    /// A line of the runner itself for the user.
    pub(super) fn say(&mut self, text: &str) {
        let _ = self.write(Stream::Stderr, format!("{text}\n").as_bytes());
    }
}

/// The reading ends of a process's standard output and error.
#[derive(Debug)]
pub(super) struct Outputs {
    pipes: [(Stream, Option<File>); 2],
    buffer: Vec<u8>,
    capacity: usize,
}

/// The writing ends, for the process.
pub(super) struct OutputEnds {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Outputs {
    pub(super) fn pair() -> io::Result<(Self, OutputEnds)> {
        let (out, stdout) = pipe()?;
        let (err, stderr) = pipe()?;
        let capacity = fcntl(&out, FcntlArg::F_GETPIPE_SZ).unwrap_or(PIPE_BYTES);
        let pipes = [(Stream::Stdout, Some(out)), (Stream::Stderr, Some(err))];
        let capacity = usize::try_from(capacity).unwrap_or(CHUNK);
        Ok((Self { pipes, buffer: vec![0; CHUNK], capacity }, OutputEnds { stdout, stderr }))
    }

    /// Waits until output or one of `others` is there, and passes output on. Says which of `others` are ready.
    pub(super) fn wait<const N: usize>(
        &mut self,
        others: [BorrowedFd<'_>; N],
        sink: &mut Sink<'_>,
    ) -> io::Result<[bool; N]> {
        let (ready, readable) = {
            let pipes = self.pipes.iter().filter_map(|(_, pipe)| pipe.as_ref().map(AsFd::as_fd));
            let fds = others.into_iter().chain(pipes);
            let mut polled: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            let mut ready = [false; N];
            for (ready, polled) in ready.iter_mut().zip(&polled) {
                *ready = polled.any().unwrap_or(false);
            }
            (ready, polled[N..].iter().map(|polled| polled.any().unwrap_or(false)).collect::<Vec<_>>())
        };
        let open: Vec<usize> = (0..2).filter(|i| self.pipes[*i].1.is_some()).collect();
        for (index, readable) in open.into_iter().zip(readable) {
            if readable {
                self.read(index, sink)?;
            }
        }
        Ok(ready)
    }

    /// Passes on everything that is in the pipes now. Bounded by their capacity: a process that keeps writing
    /// does not keep us here.
    pub(super) fn drain(&mut self, sink: &mut Sink<'_>) -> io::Result<()> {
        for index in 0..2 {
            let mut left = self.capacity;
            while left > 0 {
                match self.read(index, sink)? {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
        }
        Ok(())
    }

    /// Reads once; 0 means that nothing is there now, or never will be.
    fn read(&mut self, index: usize, sink: &mut Sink<'_>) -> io::Result<usize> {
        let (stream, pipe) = &mut self.pipes[index];
        let Some(file) = pipe else { return Ok(0) };
        match file.read(&mut self.buffer) {
            Ok(0) => {
                *pipe = None;
                Ok(0)
            }
            Ok(count) => {
                sink.write(*stream, &self.buffer[..count])?;
                Ok(count)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// The process is gone but something it started may still write: goes on reading for the log, so that it is
    /// neither stopped nor killed by a full or closed pipe.
    pub(super) fn leave_to_log(self, log: &Arc<TaskLog>) {
        for (_, pipe) in self.pipes {
            let Some(mut file) = pipe else { continue };
            if LEFT_OVER.fetch_add(1, Ordering::Relaxed) >= MAX_LEFT_OVER {
                LEFT_OVER.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let log = Arc::clone(log);
            let body = move || {
                let _ = copy_to_log(&mut file, &log);
                LEFT_OVER.fetch_sub(1, Ordering::Relaxed);
            };
            if thread::Builder::new().name("left-over".into()).stack_size(128 << 10).spawn(body).is_err() {
                LEFT_OVER.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Copies a pipe into the log until every writer is gone.
fn copy_to_log(file: &mut File, log: &TaskLog) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(&*file, FcntlArg::F_GETFL)?);
    fcntl(&*file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    let mut buffer = vec![0; 16 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => log.write(&buffer[..count]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A pipe whose reading end does not block.
fn pipe() -> io::Result<(File, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // The kernel may refuse when the user has many pipes; the default size works too.
    let _ = fcntl(&read, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    Ok((read.into(), write))
}
