//! Signed requests over many connections, from one thread, as cheaply as possible: it shares the cores with what it measures.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bai_client::Credentials;
use bai_core::signing::{RequestToSign, VersionHeader, format_date};
use bai_core::{Clock, Error, ErrorKind, Result, SystemClock};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::failed;

const API_VERSION: &str = "v7.20230615";
/// Requests before this are not counted: connections open and caches fill.
const WARM_UP: Duration = Duration::from_secs(1);

/// What is asked for, again and again; each request is signed for itself.
#[derive(Debug)]
pub struct Load<'a> {
    /// Server.
    pub address: SocketAddr,
    /// Path of the GET requests.
    pub target: &'a str,
    /// Keypair to sign with.
    pub credentials: &'a Credentials,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// How long, after a warm-up of a second.
    pub time: Duration,
}

/// What came of a [`Load`].
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Replies per second.
    pub per_second: f64,
    /// Latency that 99 of 100 replies kept, in milliseconds.
    pub p99_ms: f64,
    /// Length of the last reply's body in bytes.
    pub body: usize,
}

impl Load<'_> {
    /// Applies the load.
    ///
    /// # Errors
    /// `Unavailable` when a connection breaks or a reply has another status than 200.
    pub async fn run(&self) -> Result<Outcome> {
        let begin = Instant::now() + WARM_UP;
        let end = begin + self.time;
        let all = try_join_all((0..self.connections).map(|_| self.connection(begin, end))).await?;
        let body = all.first().map_or(0, |(_, body)| *body);
        let mut latencies: Vec<_> = all.into_iter().flat_map(|(latencies, _)| latencies).collect();
        latencies.sort_unstable();
        let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let per_second = latencies.len() as f64 / self.time.as_secs_f64();
        Ok(Outcome { per_second, p99_ms: p99.as_secs_f64() * 1e3, body })
    }

    /// Latencies of the requests begun and answered between `begin` and `end`, and the length of the last body.
    async fn connection(&self, begin: Instant, end: Instant) -> Result<(Vec<Duration>, usize)> {
        let mut stream = TcpStream::connect(self.address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let host = self.address.to_string();
        let (mut request, mut reply) = (String::new(), Vec::with_capacity(8192));
        let mut latencies = Vec::new();
        loop {
            let sent = Instant::now();
            self.write(&mut request, &host)?;
            stream.write_all(request.as_bytes()).await.map_err(failed)?;
            let body = read_reply(&mut stream, &mut reply).await?;
            let now = Instant::now();
            if now >= end {
                return Ok((latencies, body));
            }
            if sent >= begin {
                latencies.push(now - sent);
            }
        }
    }

    fn write(&self, request: &mut String, host: &str) -> Result<()> {
        let date = format_date(SystemClock.now());
        let (target, content_type) = (self.target, "text/plain");
        let version = VersionHeader::BackendAi(API_VERSION);
        let authorization = RequestToSign { method: "GET", target, host, date: &date, content_type, version }
            .authorization(self.credentials.access_key(), self.credentials.secret_key())?;
        request.clear();
        // Writing to a text cannot fail.
        let _ = write!(
            request,
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nDate: {date}\r\nContent-Type: {content_type}\r\n\
             Authorization: {authorization}\r\nX-BackendAI-Version: {API_VERSION}\r\n\r\n"
        );
        Ok(())
    }
}

/// Reads one whole reply into `buffer` and returns the length of its body.
async fn read_reply(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<usize> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await.map_err(failed)? == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        let Some(head) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&buffer[..head]);
        if !text.starts_with("HTTP/1.1 200") {
            return Err(Error::new(ErrorKind::Unavailable, "not the reply expected").with("head", text));
        }
        let length = text.lines().find_map(content_length).unwrap_or_default();
        if buffer.len() >= head + 4 + length {
            return Ok(length);
        }
    }
}

fn content_length(line: &str) -> Option<usize> {
    let (name, value) = line.split_once(':')?;
    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
}
