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

use super::api::{Header, KeyRange, KeyValue, Member, number};
use super::{Etcd, failed};

/// Pause before a lost watch is taken up.
const PAUSE: Duration = Duration::from_millis(500);

/// Silence after which the member is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(10);

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
        // Now and then the server tells its revision even if nothing happens, so that ours is not compacted away.
        create["progress_notify"] = true.into();
        let request = json!({ "create_request": create });
        let api = &self.etcd.api;
        let started = async {
            let (member, response) = api.stream("/v3/watch", &request).await?;
            let mut lines = Lines { member, response, buffer: BytesMut::new() };
            let first = lines.next().await?;
            Ok((lines, first))
        };
        let (lines, first) = api.in_time(started).await?;
        if !first.created || first.canceled {
            return self.ended(&first);
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
                if let Some(lines) = self.lines.take() {
                    self.etcd.api.pass_over(lines.member);
                }
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
        let Ok(reply) = tokio::time::timeout(SILENCE, lines.next()).await else {
            return self.etcd.api.probe(lines.member).await;
        };
        self.take(reply?)
    }

    fn take(&mut self, reply: WatchReply) -> Result<()> {
        if reply.canceled {
            return self.ended(&reply);
        }
        if reply.events.is_empty() && !reply.created {
            self.next_revision = reply.header.revision + 1; // all before has been told
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

    /// A watch that came too late goes on with what the server still has.
    fn ended(&mut self, reply: &WatchReply) -> Result<()> {
        if reply.compact_revision > 0 {
            self.next_revision = reply.compact_revision;
            return Err(Error::of(code::EVENTS_LAGGED, "changes were lost"));
        }
        Err(failed("etcd ended the watch"))
    }
}

struct Lines {
    member: Member,
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
