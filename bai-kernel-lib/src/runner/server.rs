//! The private socket: authentication, one connection at a time, commands.

use std::{
    fs,
    io::{self, BufReader, IoSlice, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender},
    },
    thread,
    time::Duration,
};

use super::{
    commands::{CompletionJob, handle},
    interpreter,
    kernel::Kernel,
    outbox::Encoded,
    supervise::{lock, note},
};
use crate::protocol::{
    AgentFrame, Hello, MAX_FRAME, Reply, ReplyBody, RunnerFrame, VERSION, Welcome, read_frame,
};

const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
const HELLO_BYTES: usize = 4096;

/// Most connections that have not presented their token yet.
const MAX_STRANGERS: usize = 8;

/// Everything that connections share.
#[derive(Debug)]
pub(super) struct Server {
    kernel: Arc<Kernel>,
    completions: SyncSender<CompletionJob>,
    current: Mutex<Option<UnixStream>>,
    next_connection: AtomicU64,
    strangers: AtomicUsize,
    /// Ids of recent requests that must not have their effect twice.
    pub(super) recent: Mutex<Vec<u64>>,
}

/// Binds the socket, readable and writable by its owner only.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(old);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener
}

impl Server {
    pub(super) fn new(kernel: Arc<Kernel>, completions: SyncSender<CompletionJob>) -> Self {
        Self {
            kernel,
            completions,
            current: Mutex::new(None),
            next_connection: AtomicU64::new(1),
            strangers: AtomicUsize::new(0),
            recent: Mutex::new(Vec::new()),
        }
    }

    /// Accepts connections for ever.
    pub(super) fn accept(self: &Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            if self.strangers.fetch_add(1, Ordering::Relaxed) >= MAX_STRANGERS {
                self.strangers.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let server = Arc::clone(self);
            let body = move || {
                let hello = greet(&stream, &server.kernel.config.token);
                server.strangers.fetch_sub(1, Ordering::Relaxed);
                let _ = hello.and_then(|hello| server.serve(&stream, &hello));
            };
            if thread::Builder::new().name("connection".into()).stack_size(512 << 10).spawn(body).is_err() {
                self.strangers.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Serves an authenticated connection until it ends or another one replaces it.
    fn serve(self: &Arc<Self>, stream: &UnixStream, hello: &Hello) -> io::Result<()> {
        let kernel = &self.kernel;
        if let (Some(boot), Some(seq)) = (&hello.boot, hello.last_seq)
            && *boot == kernel.boot
        {
            kernel.outbox.acknowledge(seq);
        }
        let connection = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let first_seq = {
            let mut current = lock(&self.current);
            if let Some(old) = current.replace(stream.try_clone()?) {
                let _ = old.shutdown(std::net::Shutdown::Both);
            }
            kernel.outbox.attach(connection)
        };
        let welcome = Welcome {
            version: VERSION,
            runner: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_id: kernel.config.kernel_id.clone(),
            boot: kernel.boot.clone(),
            first_seq,
        };
        let mut frame = Vec::new();
        RunnerFrame::Welcome(welcome).encode(&mut frame)?;
        (&*stream).write_all(&frame)?;
        self.start_writer(stream.try_clone()?, connection)?;
        let result = self.read(stream, connection);
        kernel.outbox.detach(connection);
        let _ = stream.shutdown(std::net::Shutdown::Both);
        result
    }

    fn start_writer(&self, stream: UnixStream, connection: u64) -> io::Result<()> {
        let kernel = Arc::clone(&self.kernel);
        let body = move || {
            if write_frames(&stream, &kernel, connection).is_err() {
                kernel.outbox.detach(connection);
            }
            let _ = stream.shutdown(std::net::Shutdown::Both);
        };
        thread::Builder::new().name("writer".into()).stack_size(256 << 10).spawn(body).map(drop)
    }

    fn read(self: &Arc<Self>, stream: &UnixStream, connection: u64) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(16 << 10, stream);
        let mut body = Vec::new();
        while read_frame(&mut reader, MAX_FRAME, &mut body)? {
            match AgentFrame::decode(&body)? {
                AgentFrame::Ack(seq) => self.kernel.outbox.acknowledge(seq),
                AgentFrame::Request(request) => {
                    let id = request.id;
                    let answer = handle(self, &self.kernel, &self.completions, connection, request);
                    if let Some(body) = answer {
                        self.kernel.outbox.reply(connection, Reply { id, body });
                    }
                }
                AgentFrame::Hello(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
            body.shrink_to(1 << 20);
        }
        Ok(())
    }
}

/// Reads the greeting of a new connection and checks it.
fn greet(stream: &UnixStream, token: &str) -> io::Result<Hello> {
    stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
    let mut body = Vec::new();
    if !read_frame(&mut &*stream, HELLO_BYTES, &mut body)? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let AgentFrame::Hello(hello) = AgentFrame::decode(&body)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if hello.version != VERSION || !same(hello.token.as_bytes(), token.as_bytes()) {
        note("a connection with a wrong version or token was refused");
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.set_read_timeout(None)?;
    Ok(hello)
}

/// Compares in a time that depends on the length of `given` only.
fn same(given: &[u8], secret: &[u8]) -> bool {
    let differences = given.iter().enumerate().map(|(i, byte)| byte ^ secret.get(i).copied().unwrap_or(0));
    let difference = std::hint::black_box(differences.fold(0, |all, one| all | one));
    difference == 0 && given.len() == secret.len()
}

fn write_frames(mut stream: &UnixStream, kernel: &Kernel, connection: u64) -> io::Result<()> {
    let mut batch: Vec<Encoded> = Vec::new();
    while kernel.outbox.next_batch(connection, &mut batch) {
        let mut slices: Vec<_> = batch.iter().map(|frame| IoSlice::new(frame)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match stream.write_vectored(&rest[..rest.len().min(1024)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => IoSlice::advance_slices(&mut rest, count),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

/// Answers requests for completions, one after another, for ever.
pub(super) fn answer_completions(kernel: &Kernel, jobs: &Mutex<Receiver<CompletionJob>>) {
    let mut number = 0;
    while let Ok(job) = lock(jobs).recv() {
        number += 1;
        let suggestions = interpreter::complete(kernel, &job.completion, number);
        let body = ReplyBody::Completions(suggestions);
        kernel.outbox.reply(job.connection, Reply { id: job.id, body });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same(b"abc", b"abc"));
        for wrong in [&b"abd"[..], b"ab", b"abcd", b"", b"abc\0"] {
            assert!(!same(wrong, b"abc"));
        }
    }
}
