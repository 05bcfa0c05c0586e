//! A cluster of two processes: what a session can do there, and that an orderly end loses and leaves nothing.

use bai_client::{Client, Session, Upload};
use bai_core::execution::{BatchOptions, ConsoleItem};

use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::sessions::{Kept, are_all_that_lives, new_session, occupied};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_sessions_work_across_processes() {
    works_and_is_found_again(Backend::Process).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn container_sessions_work_across_processes() {
    works_and_is_found_again(Backend::Docker).await;
}

async fn works_and_is_found_again(backend: Backend) {
    let Some(mut cluster) = Cluster::start(backend).await else { return };
    let client = cluster.client();
    let kept = Kept::start(&client, 2).await;
    let session = client.create(new_session("worker")).await.unwrap();
    state_is_kept(&session).await;
    files_and_batches_work(&session).await;
    the_log_outlives_the_session(&client, &session).await;

    are_all_that_lives(&kept, &client, &mut cluster.node).await;
    cluster.stop().await;
    assert_eq!(cluster.node.kernels().len(), kept.count(), "kernels go on without their cluster");
    cluster.start_manager().await;
    cluster.start_agent().await;
    cluster.takes_sessions().await;
    let client = cluster.client();
    kept.remember(&client).await;
    are_all_that_lives(&kept, &client, &mut cluster.node).await;
    let log = client.session(session.reference()).logs().await.unwrap();
    assert!(log.contains("from the batch"), "{log}");

    kept.end(&client).await;
    assert!(occupied(&client).await.is_empty());
    cluster.node.is_clean().await;
    cluster.stop().await;
    cluster.node.is_clean().await;
}

async fn state_is_kept(session: &Session) {
    session.run("import math\nradius = 2").await.unwrap();
    let area = session.run("print(round(math.pi * radius ** 2, 3))").await.unwrap();
    assert_eq!((area.stdout().as_str(), area.exit_code), ("12.566\n", 0));
    let failed = session.run("1 / 0").await.unwrap();
    assert!(failed.stderr().contains("ZeroDivisionError"), "{failed:?}");
    assert_eq!(session.run("print(radius)").await.unwrap().stdout(), "2\n");
}

async fn files_and_batches_work(session: &Session) {
    let program =
        "import sys\nprint('from the batch', sys.argv[1:])\nopen('made', 'w').write('whole')\nsys.exit(3)\n";
    session.upload(&[Upload::new("program.py", program)]).await.unwrap();
    let steps = BatchOptions { exec: Some("python3 program.py a b".into()), ..BatchOptions::default() };
    let mut console = String::new();
    let show = |item| {
        if let ConsoleItem::Stdout(text) = item {
            console.push_str(&text);
        }
    };
    let nobody = |_| panic!("nothing asks for input");
    let exit_code = session.run_batch(&steps, show, nobody).await.unwrap();
    assert_eq!((console.as_str(), exit_code), ("from the batch ['a', 'b']\n", 3));
    assert_eq!(&session.read("made").await.unwrap()[..], b"whole");
    let names: Vec<_> =
        session.list_files(".").await.unwrap().into_iter().map(|entry| entry.filename).collect();
    assert!(names.iter().any(|name| name == "made"), "{names:?}");
}

async fn the_log_outlives_the_session(client: &Client, session: &Session) {
    assert!(session.logs().await.unwrap().contains("from the batch"));
    session.destroy().await.unwrap();
    let log = client.session(session.reference()).logs().await.unwrap();
    assert!(log.contains("from the batch"), "{log}");
}
