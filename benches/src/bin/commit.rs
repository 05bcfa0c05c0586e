//! Guarded commits of sessions in SQLite, each with an event: one at a time, and many in one call.
#![allow(missing_docs)]

use std::time::Instant;

use bai_benches::{failed, header, median, median_ms, print, time};
use bai_core::port::SessionStore;
use bai_core::port::store::{Committed, SessionChange};
use bai_core::{Error, ErrorKind, Result};
use bai_store::{Options, Store};
use bai_testkit::fixture;

#[global_allocator]
static ALLOCATOR: bai_benches::Allocator = bai_benches::Allocator;

const SINGLES: usize = 1000;
const TOGETHER: u32 = 200;
const ROUNDS: usize = 20;

#[tokio::main]
async fn main() -> Result<()> {
    header();
    let dir = tempfile::TempDir::new().map_err(failed)?;
    let store = Store::open_sqlite(dir.path().join("bai.db"), Options::new([1; 32])).await?;
    let new = (0..TOGETHER).map(|n| fixture::change_with(fixture::session(&format!("s{n}")), "enqueued"));
    let results = store.insert(new.collect()).await?;
    let mut sessions = results.into_iter().collect::<Result<Vec<_>>>()?;

    let mut one = sessions.remove(0);
    let singles = time(SINGLES, async |_| {
        let mut results = store.commit(vec![next(&one)]).await?;
        one = results.pop().unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "no answer")))?;
        Ok::<_, Error>(())
    });
    let single = median_ms(&singles.await?);
    print("SQLite, one guarded commit", single, "ms", None, Some(0.3), false);

    sessions.push(one);
    let mut many = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let changes = sessions.iter().map(next).collect();
        let begin = Instant::now();
        let results = store.commit(changes).await?;
        many.push(begin.elapsed().as_secs_f64() * 1e3 / f64::from(TOGETHER));
        sessions = results.into_iter().collect::<Result<_>>()?;
    }
    print("SQLite, a guarded commit among 200", median(many), "ms", None, None, false);
    store.close().await;
    Ok(())
}

fn next(committed: &Committed) -> SessionChange {
    fixture::change_with(committed.session.clone(), "changed")
}
