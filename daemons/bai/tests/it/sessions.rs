//! Sessions that live through crashes, and what must hold of all of them at any time.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bai_client::{Client, Created, NewSession, Session, SessionRow};
use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::host::Node;
use crate::patience::until;

/// Memory of every session here, in bytes.
const MEMORY: u64 = 128 << 20;
/// Sessions whose creation a crash interrupts.
const CREATING: usize = 10;
/// Sessions whose end a crash interrupts.
const ENDING: usize = 2;
/// How often the test of a back end kills, unless `BAI_TEST_ROUNDS` says otherwise.
pub(crate) fn rounds(usual: usize) -> usize {
    std::env::var("BAI_TEST_ROUNDS").map_or(usual, |text| text.parse().expect("BAI_TEST_ROUNDS is a number"))
}

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
        let start = async |name: &String| {
            let session = client.create(new_session(name)).await.unwrap();
            assert_eq!(session.run("x = 41").await.unwrap().exit_code, 0);
        };
        join_all(names.iter().map(start)).await;
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
        let ended = join_all(self.0.iter().map(async |name| client.session(name).destroy().await)).await;
        for ended in ended {
            ended.unwrap();
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

/// What became of a request.
struct Reply {
    name: String,
    said: Said,
}

enum Said {
    Created(Created),
    Ended,
    Nothing,
}

/// Sessions that are being created, and some that are being ended.
pub(crate) struct Burst(JoinSet<Reply>);

impl Burst {
    /// Sends all requests at once. Every other new session asks for a place in the queue only.
    pub(crate) async fn start(client: &Client, round: usize) -> Self {
        let ending: Vec<_> = (0..ENDING).map(|number| format!("ending-{round}-{number}")).collect();
        let started = join_all(ending.iter().map(|name| client.create(new_session(name)))).await;
        let mut requests = JoinSet::new();
        for (name, session) in ending.into_iter().zip(started) {
            let session = session.unwrap();
            requests.spawn(async move {
                let said = session.destroy().await.map_or(Said::Nothing, |_| Said::Ended);
                Reply { name, said }
            });
        }
        for number in 0..CREATING {
            let (client, name) = (client.clone(), format!("new-{round}-{number}"));
            let new = new_session(&name);
            let new = if number % 2 == 0 { new } else { new.enqueue_only() };
            requests.spawn(async move {
                let said = client.request(new).await.map_or(Said::Nothing, Said::Created);
                Reply { name, said }
            });
        }
        Self(requests)
    }

    /// Waits until all requests have come to something.
    pub(crate) async fn ends(self) -> Replies {
        let all = tokio::time::timeout(Duration::from_mins(2), self.0.join_all()).await;
        Replies(all.expect("every request ends"))
    }
}

/// What the requests of a burst came to.
pub(crate) struct Replies(Vec<Reply>);

impl Replies {
    /// Waits until every session has run and been ended, or has ended with a reason, or never was. One that runs must
    /// answer, and none may be there twice.
    pub(crate) async fn settle(mut self, client: &Client) {
        until("the sessions of the burst are to settle", async || {
            let rows = client.sessions("", 1000).await.map_err(|error| error.to_string())?;
            let mut settled =
                join_all(self.0.iter().map(|reply| reply.is_settled(client, &rows))).await.into_iter();
            self.0.retain(|_| settled.next() == Some(false));
            if self.0.is_empty() { Ok(()) } else { Err(describe(&rows)) }
        })
        .await;
    }
}

impl Reply {
    async fn is_settled(&self, client: &Client, rows: &[SessionRow]) -> bool {
        let name = &self.name;
        let found: Vec<_> = rows.iter().filter(|row| row.name == *name).collect();
        assert!(found.len() <= 1, "{name} is there twice: {found:?}");
        let Some(row) = found.first() else {
            assert!(matches!(self.said, Said::Nothing), "{name} was acknowledged and is lost");
            return true;
        };
        if let Said::Created(created) = &self.said {
            assert_eq!(row.id, created.id, "{name} is another session");
        }
        if DEAD.contains(&row.status.as_str()) {
            assert!(row.status_info.as_ref().is_some_and(|reason| !reason.is_empty()), "no reason: {row:?}");
            eprintln!("{name}: {} {:?} {:?}", row.status, row.status_info, row.status_data);
            return true;
        }
        if row.status != "RUNNING" {
            return false;
        }
        assert!(!matches!(self.said, Said::Ended), "{name} was ended and runs");
        let session: Session = client.session(&row.id);
        let answer = session.run("print(6 * 7)").await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(answer.stdout(), "42\n", "{name}");
        session.destroy().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        true
    }
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
