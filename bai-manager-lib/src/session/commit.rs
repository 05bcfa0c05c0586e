//! Group commit: changes that arrive while the store is busy go to it together with the next call.

use std::future::Future;
use std::sync::Arc;

use bai_core::port::store::{Committed, SessionChange};
use bai_core::{Error, ErrorKind, Result, Session};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::manager::core::Core;

/// Most changes of one call to the store.
const BATCH: usize = 256;
/// Changes that wait; beyond that callers wait.
const QUEUE: usize = 4096;

/// A change on its way to the store.
#[derive(Debug)]
pub(crate) struct Job {
    change: SessionChange,
    insert: bool,
    reply: oneshot::Sender<Result<Arc<Session>>>,
}

/// Takes changes and answers when they are stored.
#[derive(Debug, Clone)]
pub(crate) struct Committer {
    jobs: mpsc::Sender<Job>,
}

impl Committer {
    /// The committer and the end that [`run`] serves.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        (Self { jobs }, queue)
    }

    /// Stores a new session.
    pub(crate) async fn insert(&self, change: SessionChange) -> Result<Arc<Session>> {
        self.submit(change, true).await
    }

    /// Stores a change under the version it was read at.
    pub(crate) async fn commit(&self, change: SessionChange) -> Result<Arc<Session>> {
        self.submit(change, false).await
    }

    async fn submit(&self, change: SessionChange, insert: bool) -> Result<Arc<Session>> {
        let (reply, answer) = oneshot::channel();
        let stopped = || Error::new(ErrorKind::Unavailable, "the manager is shutting down");
        self.jobs.send(Job { change, insert, reply }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// Receives what has been committed, in order, before the callers do.
pub(crate) trait Absorb: Send + Sync {
    /// Takes a committed change, and returns the session as it is now.
    fn absorb(&self, committed: Committed) -> Arc<Session>;
    /// The outcome of a call to the store is unknown: memory may lag behind it.
    fn doubt(&self);
}

/// Serves the queue until the manager drains.
pub(crate) async fn serve(core: Arc<Core>, mut queue: mpsc::Receiver<Job>) {
    let most = core.backends.sessions.capability().parallel_commits.max(1);
    let mut calls = JoinSet::new();
    let mut jobs = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            Some(_) = calls.join_next() => {} // a call that has panicked has answered nobody, and all know that
            count = queue.recv_many(&mut jobs, BATCH), if calls.len() < most => {
                if count == 0 {
                    break;
                }
                let (inserts, commits): (Vec<_>, Vec<_>) = jobs.drain(..).partition(|job| job.insert);
                calls.spawn(store_all(core.clone(), inserts, commits));
            }
            () = core.tasks.draining(), if !queue.is_closed() => queue.close(),
        }
    }
    while calls.join_next().await.is_some() {}
}

async fn store_all(core: Arc<Core>, inserts: Vec<Job>, commits: Vec<Job>) {
    let store = &core.backends.sessions;
    answer_all(inserts, &core, |changes| store.insert(changes)).await;
    answer_all(commits, &core, |changes| store.commit(changes)).await;
}

/// Makes one call for all jobs, and answers each.
async fn answer_all<F>(jobs: Vec<Job>, sink: &dyn Absorb, call: impl FnOnce(Vec<SessionChange>) -> F)
where
    F: Future<Output = Result<Vec<Result<Committed>>>>,
{
    if jobs.is_empty() {
        return;
    }
    let (changes, replies): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.change, job.reply)).unzip();
    match call(changes).await {
        Ok(results) => {
            replies.into_iter().zip(results).for_each(|(reply, result)| answer(reply, result, sink));
        }
        Err(error) => {
            sink.doubt();
            for reply in replies {
                answer(reply, Err(again(&error)), sink);
            }
        }
    }
}

fn answer(reply: oneshot::Sender<Result<Arc<Session>>>, result: Result<Committed>, sink: &dyn Absorb) {
    // A caller that has gone away no longer wants to know.
    _ = reply.send(result.map(|committed| sink.absorb(committed)));
}

/// The same failure for everybody who shared the call.
fn again(error: &Error) -> Error {
    Error::of(error.code(), error.to_string())
}
