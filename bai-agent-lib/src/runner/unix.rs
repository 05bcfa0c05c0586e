use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bai_kernel_lib::protocol::{
    AgentFrame, Command, Hello, LENGTH_BYTES, MAX_FRAME, ReplyBody, Request, RunnerFrame, VERSION, Welcome,
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Connection, Incoming, Runner};

/// First pause between two attempts to connect; doubled up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_micros(500);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// Attempts at the first pause: a runner that is just being started is met without delay.
const EAGER_ATTEMPTS: u32 = 2000;
/// Size of a unix socket address's path with its final zero byte.
const SOCKET_PATH_LIMIT: usize = 108;

/// A runner behind a unix socket.
#[derive(Debug)]
struct UnixRunner {
    commands: mpsc::UnboundedSender<(Command, oneshot::Sender<ReplyBody>)>,
    /// Start of the runner, and the last frame of it that may be forgotten.
    acked: watch::Sender<(Arc<str>, u64)>,
}

impl Runner for UnixRunner {
    fn send(&self, command: Command) -> oneshot::Receiver<ReplyBody> {
        let (answer, pending) = oneshot::channel();
        // Fails only when the task has ended: the receiver then says so.
        let _ = self.commands.send((command, answer));
        pending
    }

    fn ack(&self, boot: &Arc<str>, seq: u64) {
        self.acked.send_if_modified(|acked| {
            let newer = acked.0 != *boot || acked.1 < seq;
            if newer {
                *acked = (Arc::clone(boot), seq);
            }
            newer
        });
    }
}

/// Starts a task that connects to the socket at `path` and keeps the connection until both halves of what is returned
/// are dropped.
pub(crate) fn connect(path: PathBuf, token: String) -> Connection {
    let (commands, queue) = mpsc::unbounded_channel();
    let (acked, acks) = watch::channel((Arc::from(""), 0));
    let (sender, receiver) = mpsc::channel(64);
    let link = Link {
        path,
        token,
        queue,
        acks,
        frames: sender,
        unanswered: BTreeMap::new(),
        next_id: rand::random::<u64>() >> 1,
        boot: None,
        last_seq: 0,
    };
    tokio::spawn(link.run());
    (Arc::new(UnixRunner { commands, acked }), receiver)
}

struct Link {
    path: PathBuf,
    token: String,
    queue: mpsc::UnboundedReceiver<(Command, oneshot::Sender<ReplyBody>)>,
    acks: watch::Receiver<(Arc<str>, u64)>,
    frames: mpsc::Sender<Incoming>,
    /// Commands without a reply: sent again on a new connection, where the runner recognises them.
    unanswered: BTreeMap<u64, (Command, oneshot::Sender<ReplyBody>)>,
    next_id: u64,
    boot: Option<Arc<str>>,
    /// Last frame passed on. Later connections repeat what was not acknowledged; that is left out here.
    last_seq: u64,
}

/// Why a connection ended.
enum End {
    /// Nobody wants it any more.
    Unwanted,
    /// The other side closed it, or it broke.
    Lost,
}

impl Link {
    async fn run(mut self) {
        let (mut attempt, mut pause) = (0, FIRST_PAUSE);
        loop {
            let frames = self.frames.clone();
            let connected = tokio::select! {
                connected = self.open() => connected,
                () = frames.closed() => return,
            };
            if let Ok((reader, writer)) = connected {
                (attempt, pause) = (EAGER_ATTEMPTS, FIRST_PAUSE);
                if matches!(self.serve(reader, writer).await, End::Unwanted) {
                    return;
                }
                if self.frames.send(Incoming::Disconnected).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.frames.closed() => return,
            }
            attempt += 1;
            if attempt > EAGER_ATTEMPTS {
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }

    /// Connects and shakes hands.
    async fn open(&mut self) -> io::Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
        let (reader, mut writer) = dial(&self.path).await?.into_split();
        let last_seq = self.acked();
        let boot = self.boot.as_deref().map(str::to_owned);
        let hello = Hello { version: VERSION, token: self.token.clone(), boot, last_seq };
        write_frame(&mut writer, &AgentFrame::Hello(hello)).await?;
        let mut reader = BufReader::with_capacity(64 << 10, reader);
        let body = read_frame(&mut reader).await?;
        let RunnerFrame::Welcome(Welcome { boot, .. }) = RunnerFrame::decode(&body)? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no welcome"));
        };
        if self.boot.as_deref() != Some(&*boot) {
            self.boot = Some(boot.into());
            self.last_seq = 0;
        }
        Ok((reader, writer))
    }

    /// What was acknowledged of the runner's current start.
    fn acked(&self) -> Option<u64> {
        let acked = self.acks.borrow();
        (self.boot.as_ref() == Some(&acked.0)).then_some(acked.1)
    }

    async fn serve(&mut self, mut reader: BufReader<OwnedReadHalf>, mut writer: OwnedWriteHalf) -> End {
        let boot = self.boot.clone().unwrap_or_else(|| Arc::from(""));
        if self.frames.send(Incoming::Connected { boot }).await.is_err() {
            return End::Unwanted;
        }
        for (id, (command, _)) in &self.unanswered {
            let request = AgentFrame::Request(Request { id: *id, command: command.clone() });
            if write_frame(&mut writer, &request).await.is_err() {
                return End::Lost;
            }
        }
        // Reading has a task of its own: a frame half read must not be dropped when a command is to be sent.
        let (bodies_in, mut bodies) = mpsc::channel(16);
        let reading = tokio::spawn(async move {
            while let Ok(body) = read_frame(&mut reader).await {
                if bodies_in.send(body).await.is_err() {
                    break;
                }
            }
        });
        let end = self.exchange(&mut bodies, &mut writer).await;
        reading.abort();
        end
    }

    async fn exchange(&mut self, bodies: &mut mpsc::Receiver<Vec<u8>>, writer: &mut OwnedWriteHalf) -> End {
        let mut commands_open = true;
        loop {
            let written = tokio::select! {
                body = bodies.recv() => match body {
                    None => return End::Lost,
                    Some(body) => match self.incoming(body).await {
                        Ok(true) => Ok(()),
                        Ok(false) => return End::Unwanted,
                        Err(error) => Err(error),
                    },
                },
                command = self.queue.recv(), if commands_open => match command {
                    None => { commands_open = false; Ok(()) }
                    Some((command, answer)) => self.request(command, answer, writer).await,
                },
                changed = self.acks.changed(), if commands_open => match self.acked() {
                    Some(seq) if changed.is_ok() => write_frame(writer, &AgentFrame::Ack(seq)).await,
                    _ => Ok(()),
                },
                () = self.frames.closed() => return End::Unwanted,
            };
            if written.is_err() {
                return End::Lost;
            }
        }
    }

    async fn request(
        &mut self,
        command: Command,
        answer: oneshot::Sender<ReplyBody>,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let request = AgentFrame::Request(Request { id, command: command.clone() });
        self.unanswered.insert(id, (command, answer));
        let written = write_frame(writer, &request).await;
        if matches!(&written, Err(error) if error.kind() == io::ErrorKind::InvalidInput) {
            // Too large for a frame, and so on every later connection: the receiver learns of it.
            self.unanswered.remove(&id);
            return Ok(());
        }
        written
    }

    /// Handles a frame; whether anybody still wants more.
    async fn incoming(&mut self, body: Vec<u8>) -> io::Result<bool> {
        let body = Bytes::from(body);
        let incoming = match RunnerFrame::decode(&body)? {
            RunnerFrame::Welcome(_) => return Ok(true),
            RunnerFrame::Reply(reply) => {
                if let Some((_, answer)) = self.unanswered.remove(&reply.id) {
                    let _ = answer.send(reply.body);
                }
                return Ok(true);
            }
            RunnerFrame::Event { seq, event } => Incoming::Event { seq, event },
            RunnerFrame::Output { seq, run_id, stream, data } => {
                let data = body.slice_ref(data);
                Incoming::Output { seq, run_id: run_id.to_owned(), stream, data }
            }
        };
        let (Incoming::Event { seq, .. } | Incoming::Output { seq, .. }) = &incoming else { return Ok(true) };
        if *seq <= self.last_seq {
            return Ok(true);
        }
        self.last_seq = *seq;
        Ok(self.frames.send(incoming).await.is_ok())
    }
}

async fn write_frame(writer: &mut OwnedWriteHalf, frame: &AgentFrame) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes)?;
    writer.write_all(&bytes).await
}

async fn read_frame(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let mut prefix = [0; LENGTH_BYTES];
    reader.read_exact(&mut prefix).await?;
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too large"));
    }
    let mut body = Vec::new();
    reader.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(body) }
}

/// Connects to the socket at `path`. An address holds at most 107 bytes of path, so a longer one is reached through an open
/// descriptor of its directory.
async fn dial(path: &Path) -> io::Result<UnixStream> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return UnixStream::connect(path).await;
    };
    if path.as_os_str().len() < SOCKET_PATH_LIMIT {
        return UnixStream::connect(path).await;
    }
    let dir = std::fs::File::open(dir)?;
    UnixStream::connect(Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name)).await
}

#[cfg(test)]
mod tests {
    use bai_kernel_lib::protocol::{Event, Reply, Stream};
    use tokio::net::UnixListener;

    use super::*;

    /// One accepted connection of a scripted runner.
    struct Peer(UnixStream);

    impl Peer {
        async fn accept(listener: &UnixListener, boot: &str) -> (Self, Hello) {
            let mut peer = Self(listener.accept().await.unwrap().0);
            let AgentFrame::Hello(hello) = peer.read().await else { panic!("no hello") };
            let welcome = Welcome {
                version: 1,
                runner: "t".into(),
                kernel_id: "k".into(),
                boot: boot.into(),
                first_seq: 1,
            };
            peer.write(&RunnerFrame::Welcome(welcome)).await;
            (peer, hello)
        }

        async fn read(&mut self) -> AgentFrame {
            let mut prefix = [0; 4];
            self.0.read_exact(&mut prefix).await.unwrap();
            let mut body = vec![0; u32::from_le_bytes(prefix) as usize];
            self.0.read_exact(&mut body).await.unwrap();
            AgentFrame::decode(&body).unwrap()
        }

        async fn write(&mut self, frame: &RunnerFrame<'_>) {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes).unwrap();
            self.0.write_all(&bytes).await.unwrap();
        }

        async fn output(&mut self, seq: u64, text: &str) {
            let frame =
                RunnerFrame::Output { seq, run_id: "r", stream: Stream::Stdout, data: text.as_bytes() };
            self.write(&frame).await;
        }
    }

    #[tokio::test]
    async fn a_lost_connection_loses_and_repeats_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        // The runner comes up later than the agent.
        let (runner, mut frames) = connect(path.clone(), "token".into());
        tokio::time::sleep(Duration::from_millis(5)).await;
        let listener = UnixListener::bind(&path).unwrap();
        let (mut peer, hello) = Peer::accept(&listener, "b1").await;
        assert_eq!((hello.token.as_str(), hello.boot, hello.last_seq), ("token", None, None));
        assert_eq!(frames.recv().await, Some(Incoming::Connected { boot: "b1".into() }));

        let pending = runner.send(Command::Status);
        let AgentFrame::Request(first) = peer.read().await else { panic!("no request") };
        peer.output(1, "one").await;
        peer.output(2, "two").await;
        assert!(matches!(frames.recv().await, Some(Incoming::Output { seq: 1, .. })));
        assert!(matches!(frames.recv().await, Some(Incoming::Output { seq: 2, .. })));
        runner.ack(&"b1".into(), 1);
        assert_eq!(peer.read().await, AgentFrame::Ack(1));
        drop(peer);
        assert_eq!(frames.recv().await, Some(Incoming::Disconnected));

        let (mut peer, hello) = Peer::accept(&listener, "b1").await;
        assert_eq!((hello.boot.as_deref(), hello.last_seq), (Some("b1"), Some(1)));
        let AgentFrame::Request(again) = peer.read().await else { panic!("no request") };
        assert_eq!(again, first);
        peer.output(2, "two").await;
        peer.output(3, "three").await;
        peer.write(&RunnerFrame::Reply(Reply { id: again.id, body: ReplyBody::Done })).await;
        assert!(matches!(frames.recv().await, Some(Incoming::Connected { .. })));
        let expected = Incoming::Output {
            seq: 3,
            run_id: "r".into(),
            stream: Stream::Stdout,
            data: Bytes::from_static(b"three"),
        };
        assert_eq!(frames.recv().await, Some(expected));
        assert_eq!(pending.await.unwrap(), ReplyBody::Done);
        drop(peer);

        // Another start of the runner numbers from the beginning.
        assert_eq!(frames.recv().await, Some(Incoming::Disconnected));
        let (mut peer, _) = Peer::accept(&listener, "b2").await;
        peer.write(&RunnerFrame::Event { seq: 1, event: Event::Ready { pid: 1, started_at: 0.0 } }).await;
        assert_eq!(frames.recv().await, Some(Incoming::Connected { boot: "b2".into() }));
        assert!(matches!(frames.recv().await, Some(Incoming::Event { seq: 1, .. })));
    }

    #[tokio::test]
    async fn the_task_ends_with_its_users() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (runner, mut frames) = connect(path, "t".into());
        let (mut peer, _) = Peer::accept(&listener, "b").await;
        assert!(matches!(frames.recv().await, Some(Incoming::Connected { .. })));
        drop((runner, frames));
        let mut rest = Vec::new();
        assert_eq!(peer.0.read_to_end(&mut rest).await.unwrap(), 0);
    }
}
