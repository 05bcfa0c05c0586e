//! Watches: a call whose answer is one line of JSON after the other. A lost one is taken up where it ended.

use std::collections::VecDeque;
use std::time::Duration;

use bai_core::error::{Error, Result, code};
use bai_core::port::config::ConfigChange;
use bytes::BytesMut;
use futures_util::stream::{self, BoxStream, StreamExt};
use reqwest::Response;
use serde::Deserialize;
use serde_json::json;

use super::api::{Header, KeyRange, KeyValue, number};
use super::{Etcd, failed};

/// Pause before a lost watch is taken up.
const PAUSE: Duration = Duration::from_millis(500);

/// Longest line that is taken: far more than etcd allows for a transaction.
const MAX_LINE: usize = 64 << 20;

#[derive(Debug, Deserialize)]
struct Line {
    result: WatchReply,
}

#[derive(Debug, Deserialize)]
struct WatchReply {
    header: Header,
    #[serde(default)]
    created: bool,
    #[serde(default)]
    canceled: bool,
    /// Set when what was asked for has been compacted away.
    #[serde(default, deserialize_with = "number")]
    compact_revision: i64,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(default)]
    r#type: String,
    kv: KeyValue,
}

struct Watcher {
    etcd: Etcd,
    range: KeyRange,
    lines: Option<Lines>,
    /// First revision not seen yet; 0 for what comes next.
    next_revision: i64,
    ready: VecDeque<Result<ConfigChange>>,
}

/// Starts a watch, and returns once the server has.
pub(super) async fn watch(etcd: Etcd, range: KeyRange) -> Result<BoxStream<'static, Result<ConfigChange>>> {
    let mut watcher = Watcher { etcd, range, lines: None, next_revision: 0, ready: VecDeque::new() };
    watcher.start().await?;
    Ok(stream::unfold(watcher, |mut watcher| async move {
        let item = watcher.next().await;
        Some((item, watcher))
    })
    .boxed())
}

impl Watcher {
    async fn start(&mut self) -> Result<()> {
        let mut create = self.range.request();
        create["start_revision"] = self.next_revision.to_string().into();
        let response = self.etcd.api.stream("/v3/watch", &json!({ "create_request": create })).await?;
        let mut lines = Lines { response, buffer: BytesMut::new() };
        let first = lines.next().await?;
        if !first.created {
            return Err(failed("etcd did not start the watch"));
        }
        if self.next_revision == 0 {
            self.next_revision = first.header.revision + 1;
        }
        self.lines = Some(lines);
        Ok(())
    }

    async fn next(&mut self) -> Result<ConfigChange> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return change;
            }
            if let Err(error) = self.read().await {
                self.lines = None;
                return Err(error);
            }
        }
    }

    async fn read(&mut self) -> Result<()> {
        if self.lines.is_none() {
            tokio::time::sleep(PAUSE).await;
            self.start().await?;
        }
        let Some(lines) = &mut self.lines else { return Ok(()) };
        let reply = lines.next().await?;
        if reply.compact_revision > 0 {
            self.next_revision = 0;
            return Err(Error::of(code::EVENTS_LAGGED, "changes were lost"));
        }
        if reply.canceled {
            return Err(failed("etcd ended the watch"));
        }
        for event in reply.events {
            self.next_revision = event.kv.mod_revision + 1;
            self.ready.push_back(Ok(match event.r#type.as_str() {
                "DELETE" => ConfigChange::Delete(self.etcd.own_key(&event.kv.key)),
                _ => ConfigChange::Put(self.etcd.entry(event.kv)),
            }));
        }
        Ok(())
    }
}

struct Lines {
    response: Response,
    buffer: BytesMut,
}

impl Lines {
    async fn next(&mut self) -> Result<WatchReply> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let line: Line = serde_json::from_slice(&line)
                    .map_err(|error| failed("etcd's answer cannot be read").source(error))?;
                return Ok(line.result);
            }
            let chunk =
                self.response.chunk().await.map_err(|error| failed("the watch was cut off").source(error))?;
            self.buffer.extend_from_slice(&chunk.ok_or_else(|| failed("etcd ended the watch"))?);
            if self.buffer.len() > MAX_LINE {
                return Err(failed("etcd's answer is too long"));
            }
        }
    }
}
