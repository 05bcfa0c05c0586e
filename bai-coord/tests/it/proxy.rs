//! A TCP proxy that fails on demand.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Bytes pass both ways.
    Forward,
    /// New connections are closed at once.
    Refuse,
    /// Bytes are taken but go nowhere, for good: the peer seems to have died without a word.
    Silent,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    /// Connections made before the last cut are closed.
    cuts: usize,
    /// Connections made before the last silence are silent.
    silences: usize,
}

/// Ends with all its connections when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// To the host and port of a URL such as `redis://host:port/0`.
    pub(crate) async fn to(url: &str) -> Self {
        let (_, rest) = url.split_once("://").unwrap();
        let target = rest.split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new(State { mode: Mode::Forward, cuts: 0, silences: 0 }));
        let accepting = tokio::spawn(accept(listener, target, state.clone()));
        Self { address, state, accepting }
    }

    /// The URL, leading through the proxy.
    pub(crate) fn url(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").unwrap();
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        format!("{scheme}://{}/{path}", self.address)
    }

    /// Closes all connections. New ones pass.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Closes all connections, and new ones at once.
    pub(crate) fn refuse(&self) {
        self.state.send_modify(|state| state.mode = Mode::Refuse);
        self.cut();
    }

    /// Lets all connections fall silent, new ones too.
    pub(crate) fn silence(&self) {
        self.state.send_modify(|state| {
            state.mode = Mode::Silent;
            state.silences += 1;
        });
    }

    /// New connections pass again. Silent ones stay silent.
    pub(crate) fn restore(&self) {
        self.state.send_modify(|state| state.mode = Mode::Forward);
    }

    /// Waits until nobody is connected.
    pub(crate) async fn abandoned(&self) {
        for _ in 0..500 {
            if self.state.receiver_count() == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("connections stayed open");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.refuse();
    }
}

async fn accept(listener: TcpListener, target: String, state: Arc<watch::Sender<State>>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let receiver = state.subscribe();
        if receiver.borrow().mode == Mode::Refuse {
            continue;
        }
        let server = TcpStream::connect(&target).await.unwrap();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::spawn(pump(from_client, to_server, receiver.clone()));
        tokio::spawn(pump(from_server, to_client, receiver));
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 16 << 10];
    let start = *state.borrow_and_update();
    let mut silent = start.mode == Mode::Silent;
    loop {
        tokio::select! {
            biased;
            _ = state.changed() => {
                let now = *state.borrow_and_update();
                if now.cuts != start.cuts {
                    return;
                }
                silent |= now.silences != start.silences;
            }
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) if silent => {}
                Ok(count) => if to.write_all(&buffer[..count]).await.is_err() { return },
            },
        }
    }
}
