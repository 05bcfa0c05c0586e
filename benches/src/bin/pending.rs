//! 200 sessions wait on a simulated node that is full; then it has room, and all of them run. SQLite in a file.
#![allow(missing_docs)]

use std::time::{Duration, Instant};

use bai::{Client, Cluster, NewSession, Result, Runtime, Session};
use bai_benches::{header, median, print};
use futures_util::future::{join_all, try_join, try_join_all};

#[global_allocator]
static ALLOCATOR: bai_benches::Allocator = bai_benches::Allocator;

const SESSIONS: u32 = 200;
const ROUNDS: usize = 7;

#[tokio::main]
async fn main() -> Result<()> {
    header();
    let (mut scheduled, mut created) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let cluster = Cluster::embedded().runtime(Runtime::Simulated).build().await?;
        scheduled.push(f64::from(SESSIONS) / release(&cluster.client()).await?.as_secs_f64());
        created.push(f64::from(SESSIONS) / burst(&cluster.client()).await?.as_secs_f64());
        cluster.shutdown().await;
    }
    print("200 pending sessions to all RUNNING", median(scheduled), "sessions/s", None, Some(1000.0), true);
    print("200 sessions created at once to all RUNNING", median(created), "sessions/s", None, None, true);
    Ok(())
}

/// Time from the moment that the node has room for 200 pending sessions to the answer for the last of them, which is that it runs.
async fn release(client: &Client) -> Result<Duration> {
    let blocker = client.create(NewSession::new("python").cpu(whole_node(client).await?)).await?;
    let waiting = try_join_all((0..SESSIONS).map(|_| client.create(NewSession::new("python"))));
    let begin = async {
        while client.sessions("PENDING", SESSIONS + 1).await?.len() < SESSIONS as usize {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await; // the reasons why they wait have been written
        let begin = Instant::now();
        blocker.destroy().await.map(|_| begin)
    };
    let (begin, sessions) = try_join(begin, waiting).await?;
    let time = begin.elapsed();
    end(sessions).await;
    Ok(time)
}

/// Time from 200 requests for a session at once to the last answer.
async fn burst(client: &Client) -> Result<Duration> {
    let begin = Instant::now();
    let sessions = try_join_all((0..SESSIONS).map(|_| client.create(NewSession::new("python")))).await?;
    let time = begin.elapsed();
    end(sessions).await;
    Ok(time)
}

async fn whole_node(client: &Client) -> Result<u32> {
    let agents = client.agents().await?;
    let capacity = agents.first().map(|agent| agent.available_slots.clone()).unwrap_or_default();
    let slots: serde_json::Value = serde_json::from_str(&capacity).unwrap_or_default();
    Ok(slots["cpu"].as_str().and_then(|cores| cores.parse().ok()).unwrap_or_default())
}

async fn end(sessions: Vec<Session>) {
    join_all(sessions.iter().map(Session::destroy)).await;
}
