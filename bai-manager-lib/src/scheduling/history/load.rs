//! Reading the past of a group from the records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bai_core::port::store::SessionQuery;
use bai_core::query::{Comparison, Expr, Literal, Op, Order};
use bai_core::{Result, Session, SessionStatus, Timestamp};
use chrono::TimeDelta;
use tokio::sync::oneshot;

use super::Book;
use crate::manager::core::Core;

/// Sessions read at once.
const PAGE: u64 = 1_000;
/// A group plans without its history when reading takes longer than this, and with it once it is there.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause before the records are read again that could not be.
const RETRY: Duration = Duration::from_secs(1);

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Opens the book of a group if it is not open, and waits a little for it to be filled from the records.
pub(crate) async fn open(core: &Arc<Core>, group: &str, lookback: TimeDelta) {
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    {
        let mut books = core.histories.books.lock();
        if books.contains_key(group) {
            return;
        }
        books.insert(group.to_owned(), Book { number, ..Book::default() });
    }
    let (done, is_done) = oneshot::channel();
    core.tasks.spawn(read(core.clone(), group.to_owned(), number, lookback, done));
    if tokio::time::timeout(PATIENCE, is_done).await.is_err() {
        tracing::info!(group, "the group plans without the past until that has been read");
    }
}

async fn read(core: Arc<Core>, group: String, number: u64, lookback: TimeDelta, done: oneshot::Sender<()>) {
    let since = core.now() - lookback;
    let sessions = loop {
        match ended_since(&core, &group, since).await {
            Ok(sessions) => break sessions,
            Err(error) => tracing::warn!(group, %error, "the past of a group cannot be read yet"),
        }
        tokio::select! {
            () = core.tasks.stopped() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    };
    let count = sessions.len();
    if core.histories.fill(&group, number, sessions, since) {
        tracing::info!(group, sessions = count, "the past of a group has been read");
        core.groups.mark(&group);
    }
    // Nobody may be waiting any more.
    _ = done.send(());
}

impl super::Histories {
    /// Fills the book with what has been read; whether it is still wanted.
    pub(super) fn fill(&self, group: &str, number: u64, sessions: Vec<Session>, since: Timestamp) -> bool {
        let mut books = self.books.lock();
        let Some(book) = books.get_mut(group).filter(|book| book.number == number) else { return false };
        for session in sessions {
            book.add_since(&session, Some(since), session.terminated_at.unwrap_or(session.created_at));
            book.read.insert(session.id);
        }
        for session in std::mem::take(&mut book.ended) {
            book.close(&session);
        }
        book.is_read = true;
        true
    }
}

/// Sessions of the group that ended since a moment and held something, page by page.
async fn ended_since(core: &Core, group: &str, since: Timestamp) -> Result<Vec<Session>> {
    let statuses: Vec<_> = SessionStatus::ALL.iter().copied().filter(|status| status.is_dead()).collect();
    let compare = |field: &str, op, text: String| {
        Expr::Compare(Comparison { field: field.to_owned(), op, literal: Literal::Text(text) })
    };
    let order = vec![Order { field: "terminated_at".to_owned(), is_descending: false }];
    let (mut found, mut from, mut offset) = (Vec::new(), since, 0);
    loop {
        let filter = Expr::And(
            Box::new(compare("scaling_group", Op::Eq, group.to_owned())),
            Box::new(compare("terminated_at", Op::Ge, from.to_rfc3339())),
        );
        let query = SessionQuery {
            statuses: statuses.clone(),
            filter: Some(filter),
            order: order.clone(),
            offset,
            limit: Some(PAGE),
            ..SessionQuery::default()
        };
        let page = core.backends.sessions.find(&query).await?.items;
        let is_last = (page.len() as u64) < PAGE;
        // The next page begins behind those that ended at the last moment of this one.
        let last = page.last().and_then(|session| session.terminated_at).unwrap_or(from);
        let same = page.iter().rev().take_while(|session| session.terminated_at == Some(last)).count() as u64;
        offset = if last == from { offset + page.len() as u64 } else { same };
        from = last;
        found.extend(page.into_iter().filter(|session| session.main().agent.is_some()));
        if is_last {
            return Ok(found);
        }
    }
}
