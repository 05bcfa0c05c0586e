//! A process that is killed while it commits loses nothing that it was told is committed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bai_core::port::SessionStore;
use bai_core::port::store::SessionQuery;
use bai_store::{Options, Store};
use bai_testkit::fixture::{change_with, session};
use tempfile::TempDir;

/// Names the directory of the database to the child process.
const DIRECTORY: &str = "BAI_STORE_TEST_CRASH_DIRECTORY";

/// Not a test of its own: what the child process runs. It commits one change after the other, and tells.
#[tokio::test]
async fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let store = open(Path::new(&directory)).await;
    let mut current = match store.find(&SessionQuery::default()).await.unwrap().items.pop() {
        Some(session) => session,
        None => {
            store
                .insert(vec![change_with(session("one"), "inserted")])
                .await
                .unwrap()
                .remove(0)
                .unwrap()
                .session
        }
    };
    loop {
        current =
            store.commit(vec![change_with(current, "changed")]).await.unwrap().remove(0).unwrap().session;
        println!("committed {}", current.version);
    }
}

async fn open(directory: &Path) -> Store {
    Store::open_sqlite(directory.join("bai.db"), Options::new([7; 32])).await.unwrap()
}

fn start(directory: PathBuf) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn committed_changes_survive_a_kill() {
    let directory = TempDir::new().unwrap();
    for round in 1..=5 {
        let mut child = start(directory.path().to_owned());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut told = 0;
        for _ in 0..round * 20 {
            let line = lines.find(|line| line.contains("committed ")).expect("the child goes on");
            told = line.rsplit(' ').next().unwrap().parse().unwrap();
        }
        child.kill().unwrap(); // SIGKILL
        let told =
            lines.filter_map(|line| line.strip_prefix("committed ")?.parse().ok()).max().unwrap_or(told);
        child.wait().unwrap();

        let store = open(directory.path()).await;
        let found = store.find(&SessionQuery::default()).await.unwrap().items.remove(0);
        assert!(found.version == told || found.version == told + 1, "told {told}, found {}", found.version);
        let history = store.history(found.id).await.unwrap();
        assert_eq!(i64::try_from(history.len()).unwrap(), found.version, "one event for each commit");
    }
}
