use std::time::{Duration, Instant};

use bai::{Cluster, ClusterMode, ErrorKind, NewSession, Runtime, Upload};
use serde_json::json;

fn python() -> NewSession {
    NewSession::new("python").mem("128m")
}

fn runtime() -> Runtime {
    Runtime::Process { path: std::env::var("PATH").ok() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_state_and_files_until_it_is_destroyed() {
    let cluster = Cluster::embedded().runtime(runtime()).build().await.unwrap();
    let session = cluster.client().create(python()).await.unwrap();
    session.run("x = 41").await.unwrap();
    assert_eq!(session.run("print(x + 1)").await.unwrap().stdout(), "42\n");
    session.upload(&[Upload::new("a/b.txt", "payload")]).await.unwrap();
    assert_eq!(&session.read("a/b.txt").await.unwrap()[..], b"payload");
    assert_eq!(session.list_files("a").await.unwrap()[0].filename, "b.txt");
    for path in ["../x", "/etc/passwd"] {
        assert_eq!(
            session.upload(&[Upload::new(path, "x")]).await.unwrap_err().kind(),
            ErrorKind::Invalid,
            "{path}"
        );
    }
    session.destroy().await.unwrap();
    assert_eq!(session.run("1").await.unwrap_err().kind(), ErrorKind::NotFound);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_live_in_one_process() {
    let (one, two) =
        (Cluster::embedded().runtime(Runtime::Simulated), Cluster::embedded().runtime(Runtime::Simulated));
    let (one, two) = (one.build().await.unwrap(), two.build().await.unwrap());
    let image = one.client().images().await.unwrap().remove(0).aliases.remove(0);
    one.client().create(NewSession::new(&image).name("only-here")).await.unwrap();
    assert_eq!(one.client().sessions("RUNNING", 10).await.unwrap().len(), 1);
    assert!(two.client().sessions("RUNNING", 10).await.unwrap().is_empty());
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_directory_is_taken_over_with_its_running_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let build = || Cluster::embedded().runtime(runtime()).data_dir(dir.path()).build();
    let first = build().await.unwrap();
    let session = first.client().create(python().name("survivor")).await.unwrap();
    session.run("kept = 'state'").await.unwrap();
    let busy = build().await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Unavailable, "{busy}");
    first.shutdown().await;

    let second = build().await.unwrap();
    let session = second.client().session("survivor");
    assert_eq!(session.run("print(kept)").await.unwrap().stdout(), "state\n");
    session.destroy().await.unwrap();
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_asks_of_the_scheduler_arrives() {
    let cluster = Cluster::embedded().runtime(Runtime::Simulated).build().await.unwrap();
    let client = cluster.client();
    let image = client.images().await.unwrap().remove(0).aliases.remove(0);
    let later = NewSession::new(&image).batch("true").priority(70).starts_at("1h").enqueue_only();
    client.request(later).await.unwrap();
    let waiting = client.queue(None).await.unwrap().remove(0);
    assert_eq!((waiting.priority, waiting.position), (70, None), "{waiting:?}");

    let apart = NewSession::new(&image).cluster_size(2).cluster_mode(ClusterMode::MultiNode).enqueue_only();
    let apart = client.request(apart).await.unwrap();
    let query = "query($id: UUID!) { compute_session(id: $id) { cluster_mode cluster_size } }";
    let reply = client.graphql(query, json!({ "id": apart.id })).await.unwrap();
    assert_eq!(reply["compute_session"], json!({ "cluster_mode": "multi-node", "cluster_size": 2 }));

    let wrong = client.request(NewSession::new(&image).starts_at("1h")).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Invalid, "only batch sessions: {wrong}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_session_ends_when_its_time_is_over() {
    let cluster = Cluster::embedded().runtime(runtime()).build().await.unwrap();
    let endless = python().name("endless").batch("sleep 600").batch_timeout(Duration::from_secs(1));
    cluster.client().create(endless).await.unwrap();
    let ended = async || cluster.client().sessions("TERMINATED", 10).await.unwrap();
    let give_up = Instant::now() + Duration::from_mins(1);
    while ended().await.is_empty() {
        assert!(Instant::now() < give_up);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(ended().await[0].result, "FAILURE");
    cluster.shutdown().await;
}
