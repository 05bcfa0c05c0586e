//! Server-sent events (WHATWG HTML, section 9.2).

use bai_core::Result;
use http::Method;
use serde_json::Value;

use crate::client::{Client, Content};
use crate::session::{Session, encode};
use crate::transport::Body;

/// An event of a session's life.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerEvent {
    /// Name, such as `session_started`.
    pub name: String,
    /// Content.
    pub data: Value,
}

/// Events as they happen.
#[derive(Debug)]
pub struct EventStream {
    body: Body,
    buffer: Vec<u8>,
}

impl EventStream {
    /// The next event; `None` when the server ended the stream.
    ///
    /// # Errors
    /// `Unavailable` when the connection breaks.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>> {
        loop {
            while let Some(frame) = self.take_frame() {
                match parse(&frame) {
                    Some(event) if event.name == "server_close" => return Ok(None),
                    Some(event) => return Ok(Some(event)),
                    None => {} // a comment or a retry hint
                }
            }
            match self.body.chunk().await {
                Some(chunk) => self.buffer.extend(chunk?.iter().filter(|byte| **byte != b'\r')),
                None => return Ok(None),
            }
        }
    }

    fn take_frame(&mut self) -> Option<String> {
        let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
        let frame: Vec<u8> = self.buffer.drain(..end + 2).collect();
        Some(String::from_utf8_lossy(&frame).into_owned())
    }
}

fn parse(frame: &str) -> Option<ServerEvent> {
    let field = |name: &str| {
        frame
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(|value| value.trim_start().to_owned())
    };
    let name = field("event")?;
    let data = field("data").and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    Some(ServerEvent { name, data })
}

impl Client {
    /// Events of all of the caller's sessions from now on.
    ///
    /// # Errors
    /// `Unavailable` when the server cannot be reached.
    pub async fn events(&self) -> Result<EventStream> {
        self.subscribe("/events/session").await
    }

    async fn subscribe(&self, target: &str) -> Result<EventStream> {
        let body = self.send(Method::GET, target, Content::empty()).await?.into_body();
        Ok(EventStream { body, buffer: Vec::new() })
    }
}

impl Session {
    /// Events of this session, addressed by name or id, from now on.
    ///
    /// # Errors
    /// As [`Client::events`].
    pub async fn events(&self) -> Result<EventStream> {
        let by_id = self.reference.parse::<bai_core::SessionId>().is_ok();
        let key = if by_id { "sessionId" } else { "name" };
        self.client.subscribe(&format!("/events/session?{key}={}", encode(&self.reference))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::stream;

    #[tokio::test]
    async fn frames_are_cut_at_blank_lines_wherever_the_chunks_are() {
        let chunks = [
            "event: a\r\nda",
            "ta: {\"x\": 1}\r\n\r\n: ping\n\nevent: b\ndata: 2\n\n",
            "event: server_close\ndata: {}\n\n",
        ];
        let body = Body::new(stream::iter(chunks.map(|chunk| Ok(Bytes::from(chunk)))));
        let mut events = EventStream { body, buffer: Vec::new() };
        let first = events.next().await.unwrap().unwrap();
        assert_eq!((first.name.as_str(), &first.data["x"]), ("a", &Value::from(1)));
        assert_eq!(events.next().await.unwrap().unwrap().data, Value::from(2));
        assert!(events.next().await.unwrap().is_none());
    }
}
