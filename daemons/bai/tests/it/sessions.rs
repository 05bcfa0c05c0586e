//! Sessions that live through crashes, and what must hold of all of them at any time.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bai_client::{Client, Created, NewSession, Session, SessionRow};
use bai_core::Result;
use tokio::task::JoinSet;

use crate::host::Node;
use crate::patience::until;

/// Memory of every session here, in bytes.
const MEMORY: u64 = 128 << 20;
/// Sessions whose creation a crash interrupts.
const BURST: usize = 10;
/// Statuses with nothing left to come.
const DEAD: [&str; 3] = ["TERMINATED", "CANCELLED", "ERROR"];

pub(crate) fn new_session(name: &str) -> NewSession {
    NewSession::new("python").name(name).cpu(1).mem(MEMORY.to_string())
}

/// Running sessions whose interpreters remember something.
pub(crate) struct Kept(Vec<String>);

impl Kept {
    pub(crate) async fn start(client: &Client, count: usize) -> Self {
        let names: Vec<String> = (0..count).map(|number| format!("kept-{number}")).collect();
        let mut started: JoinSet<()> = names
            .iter()
            .map(|name| {
                let (client, name) = (client.clone(), name.clone());
                async move {
                    let session = client.create(new_session(&name)).await.unwrap();
                    assert_eq!(session.run("x = 41").await.unwrap().exit_code, 0);
                }
            })
            .collect();
        while let Some(done) = started.join_next().await {
            done.unwrap();
        }
        Self(names)
    }

    /// Every one still knows what it was told.
    pub(crate) async fn remember(&self, client: &Client) {
        for name in &self.0 {
            let answer = client.session(name).run("print(x + 1)").await;
            assert_eq!(answer.unwrap_or_else(|error| panic!("{name}: {error:?}")).stdout(), "42\n", "{name}");
        }
    }

    /// All of them are ended, and with them everything there was.
    pub(crate) async fn end(&self, client: &Client) {
        for name in &self.0 {
            client.session(name).destroy().await.unwrap();
        }
        until("all sessions are to end", async || match living(client).await {
            rows if rows.is_empty() => Ok(()),
            rows => Err(describe(&rows)),
        })
        .await;
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// Sessions that are being created.
pub(crate) struct Burst(JoinSet<(String, Result<Created>)>);

impl Burst {
    /// Sends all requests at once. Every other one asks for a place in the queue only.
    pub(crate) fn start(client: &Client, round: usize) -> Self {
        let requests = (0..BURST).map(|number| {
            let (client, name) = (client.clone(), format!("burst-{round}-{number}"));
            let new = new_session(&name);
            let new = if number % 2 == 0 { new } else { new.enqueue_only() };
            async move { (name, client.request(new).await) }
        });
        Self(requests.collect())
    }

    /// What became of the requests.
    pub(crate) async fn replies(self) -> Vec<(String, Result<Created>)> {
        tokio::time::timeout(Duration::from_mins(2), self.0.join_all()).await.expect("every request ends")
    }
}

/// Waits until every session of a burst has run and been ended, or has ended with a reason, or never was. One that runs
/// must answer, and none may be there twice.
pub(crate) async fn settle(client: &Client, replies: Vec<(String, Result<Created>)>) {
    let mut open = replies;
    until("the sessions of the burst are to settle", async || {
        let rows = client.sessions("", 1000).await.map_err(|error| error.to_string())?;
        let mut left = Vec::new();
        for (name, reply) in std::mem::take(&mut open) {
            if !is_settled(client, &name, &reply, &rows).await {
                left.push((name, reply));
            }
        }
        open = left;
        if open.is_empty() { Ok(()) } else { Err(describe(&rows)) }
    })
    .await;
}

async fn is_settled(client: &Client, name: &str, reply: &Result<Created>, rows: &[SessionRow]) -> bool {
    let found: Vec<_> = rows.iter().filter(|row| row.name == name).collect();
    assert!(found.len() <= 1, "{name} is there twice: {found:?}");
    if let Ok(created) = reply {
        assert!(
            found.iter().any(|row| row.id == created.id),
            "{name} was acknowledged and is lost: {created:?}"
        );
    }
    let Some(row) = found.first() else { return true };
    if DEAD.contains(&row.status.as_str()) {
        assert!(row.status_info.as_ref().is_some_and(|reason| !reason.is_empty()), "no reason: {row:?}");
        eprintln!("{name}: {} ({:?})", row.status, row.status_info);
        return true;
    }
    if row.status != "RUNNING" {
        return false;
    }
    let session: Session = client.session(&row.id);
    let answer = session.run("print(6 * 7)").await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    assert_eq!(answer.stdout(), "42\n", "{name}");
    session.destroy().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    true
}

/// Waits until exactly the kept sessions live, each with one kernel on the host, and the books say the same.
pub(crate) async fn are_all_that_lives(kept: &Kept, client: &Client, node: &mut Node) {
    until("only the kept sessions are to live", async || {
        let rows = living(client).await;
        let names: HashSet<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names.len(), rows.len(), "a name is taken twice: {}", describe(&rows));
        if rows.len() != kept.count() || rows.iter().any(|row| row.status != "RUNNING") {
            return Err(describe(&rows));
        }
        let kernels = node.kernels();
        if kernels.len() != kept.count() || kernels.values().any(|namespaces| namespaces.len() != 1) {
            return Err(format!("kernels {kernels:?}"));
        }
        let count = u64::try_from(kernels.len()).unwrap();
        let held = BTreeMap::from([("cpu".to_owned(), count), ("mem".to_owned(), count * MEMORY)]);
        let booked = occupied(client).await;
        if booked == held { Ok(()) } else { Err(format!("booked {booked:?}, held {held:?}")) }
    })
    .await;
}

/// What the agents' kernels hold, by the API.
pub(crate) async fn occupied(client: &Client) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for agent in client.agents().await.unwrap() {
        let slots: BTreeMap<String, String> = serde_json::from_str(&agent.occupied_slots).unwrap();
        for (slot, amount) in slots {
            *sum.entry(slot).or_default() += amount.parse::<u64>().unwrap();
        }
    }
    sum.retain(|_, amount| *amount > 0);
    sum
}

/// Sessions that are not dead.
pub(crate) async fn living(client: &Client) -> Vec<SessionRow> {
    let mut rows = client.sessions("", 1000).await.unwrap();
    rows.retain(|row| !DEAD.contains(&row.status.as_str()));
    rows
}

fn describe(rows: &[SessionRow]) -> String {
    let living = rows.iter().filter(|row| !DEAD.contains(&row.status.as_str()));
    let each =
        living.map(|row| format!("{} {} {:?} {:?}", row.name, row.status, row.status_info, row.status_data));
    format!("[{}]", each.collect::<Vec<_>>().join(", "))
}
