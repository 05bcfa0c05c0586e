//! The rules of creation, destruction and lookup.

use std::time::Duration;

use bai_core::status::{ClusterMode, SessionStatus, SessionType};
use bai_core::{Error, ErrorKind, Result, error::code};
use bai_manager_lib::session::CreateSession;
use serde_json::json;

use crate::world::{World, batch, cores, small};

fn with(change: impl FnOnce(&mut CreateSession)) -> CreateSession {
    let mut request = small("wrong");
    change(&mut request);
    request
}

async fn refusal(world: &World, change: impl FnOnce(&mut CreateSession)) -> Error {
    world.create(with(change)).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_precisely() {
    let world = World::new(&[4]).await;
    let cases: Vec<(&str, Error)> = vec![
        ("BAI-S008", refusal(&world, |r| r.name = "no good".into()).await),
        ("BAI-S008", refusal(&world, |r| r.name = "from-template".into()).await),
        ("BAI-I001", refusal(&world, |r| r.image = "nothing".into()).await),
        ("BAI-I001", refusal(&world, |r| r.architecture = "aarch64".into()).await),
        ("BAI-G001", refusal(&world, |r| r.session_type = SessionType::Batch).await),
        ("BAI-G001", refusal(&world, |r| r.starts_at = Some("5m".into())).await),
        ("BAI-G001", refusal(&world, |r| r.project = "nowhere".into()).await),
        ("BAI-G001", refusal(&world, |r| r.domain = "elsewhere".into()).await),
        ("BAI-I002", refusal(&world, |r| r.resource_group = Some("none".into())).await),
        ("BAI-S011", refusal(&world, |r| r.dependencies = vec!["ghost".into()]).await),
        ("BAI-S009", refusal(&world, |r| r.resources = json!({"tpu": 1}).as_object().cloned()).await),
        ("BAI-S009", refusal(&world, |r| r.resources = json!({"mem": "65m"}).as_object().cloned()).await),
        ("BAI-G001", refusal(&world, |r| r.mounts = vec!["data".into()]).await),
        ("BAI-G001", refusal(&world, |r| r.callback_url = Some("ftp://x/".into())).await),
        ("BAI-G001", refusal(&world, |r| r.callback_url = Some("/relative".into())).await),
        ("BAI-G001", refusal(&world, |r| r.preopen_ports = vec![7681]).await),
        ("BAI-G001", refusal(&world, |r| r.preopen_ports = vec![8080]).await),
        ("BAI-G001", refusal(&world, |r| r.preopen_ports = vec![9000, 9000]).await),
        ("BAI-G001", refusal(&world, |r| r.agent_list = vec!["i-9".into()]).await),
        ("BAI-G001", refusal(&world, |r| r.agent_list = vec!["i-0".into(), "i-0".into()]).await),
        ("BAI-G001", refusal(&world, |r| r.priority = Some(101)).await),
        ("BAI-G001", refusal(&world, |r| _ = r.environ.insert("A=B".into(), String::new())).await),
        ("BAI-S013", refusal(&world, |r| r.cluster_size = 1_000_000).await),
    ];
    for (id, error) in cases {
        assert_eq!(error.code().id(), id, "{error}");
    }
    let error = refusal(&world, |r| r.dependencies = vec!["ghost".into()]).await;
    assert_eq!(error.problem_data().unwrap()["session_ref"], "ghost");
    let error = refusal(&world, |r| r.image = "nothing".into()).await;
    assert_eq!(error.message(), "unknown alias or disallowed registry");
    let error = refusal(&world, |r| r.domain = "elsewhere".into()).await;
    assert_eq!(error.message(), "You can only set the domain to default");
    let error = refusal(&world, |r| r.project = "nowhere".into()).await;
    assert_eq!(error.message(), "Invalid group");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_limit_the_cluster_size_and_domains_the_registries() {
    let world = World::new(&[4]).await;
    let directory = world.backends.identities.directory().await.unwrap();
    let mut policy = directory.policies["default"].clone();
    policy.max_containers_per_session = 2;
    world.backends.identities.put_policy(&policy).await.unwrap();
    let credential = world.manager().identities().credential("AKIAIOSFODNN7EXAMPLE").await.unwrap().unwrap();
    let scope = bai_manager_lib::Scope::own(credential);
    let request = with(|r| r.cluster_size = 3);
    let error = world.manager().sessions().create(&scope, request).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), (code::CLUSTER_TOO_LARGE, ErrorKind::QuotaExceeded));

    let mut domain = directory.domains["default"].clone();
    domain.allowed_docker_registries = vec!["registry.example.com".into()];
    world.backends.identities.put_domain(&domain).await.unwrap();
    let error = world.create(small("local")).await.unwrap_err();
    assert_eq!(error.code(), code::IMAGE_NOT_FOUND);
    world.create(with(|r| r.image = "r".into())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_reused_or_refused() {
    let world = World::new(&[4]).await;
    let sessions = world.manager().sessions().clone();
    let first = sessions.create(&world.scope, small("named")).await.unwrap();
    assert!(first.created);
    let again = sessions.create(&world.scope, small("named")).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.session.id, first.session.id);
    for change in [|r: &mut CreateSession| r.reuse = false, |r: &mut CreateSession| r.image = "r".into()] {
        let mut request = small("named");
        change(&mut request);
        let error = sessions.create(&world.scope, request).await.unwrap_err();
        assert_eq!(error.code(), code::SESSION_EXISTS);
        assert_eq!(error.problem_data().unwrap()["existingSessionId"], json!(first.session.id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_a_name_one_gets_it() {
    let world = World::new(&[64]).await;
    let results = futures_util::future::join_all((0..32).map(|i| {
        let sessions = world.manager().sessions().clone();
        let scope = world.scope.clone();
        async move { sessions.create(&scope, small(&format!("race-{}", i % 4))).await }
    }))
    .await;
    let outcomes: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.created).count(), 4);
    let mut ids: Vec<_> = outcomes.iter().map(|outcome| outcome.session.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_when_told() {
    let world = World::new(&[2]).await;
    let mut request = cores("patient", 1000);
    request.enqueue_only = false;
    request.max_wait = Duration::from_millis(100);
    let outcome = world.manager().sessions().create(&world.scope, request).await.unwrap();
    assert!(outcome.timed_out && outcome.created);
    assert_eq!(outcome.session.status, SessionStatus::Pending);
    // Without a limit the wait ends with the session.
    let mut request = cores("cancelled", 1000);
    request.enqueue_only = false;
    request.max_wait = Duration::ZERO;
    let sessions = world.manager().sessions().clone();
    let scope = world.scope.clone();
    let waiting = tokio::spawn(async move { sessions.create(&scope, request).await });
    world
        .until("it is there", |w| {
            futures_util::FutureExt::now_or_never(w.store_has("cancelled")).unwrap_or(false)
        })
        .await;
    let outcomes = world.manager().sessions().destroy(&world.scope, "cancelled", false, false).await.unwrap();
    assert_eq!(outcomes[0].status, "cancelled");
    let outcome = waiting.await.unwrap().unwrap();
    assert_eq!((outcome.session.status, outcome.timed_out), (SessionStatus::Cancelled, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn destroying_recursively_takes_the_dependents_along() {
    let world = World::new(&[4]).await;
    let root = world.create(small("root")).await.unwrap();
    let mut child = cores("child", 1);
    child.dependencies = vec!["root".into()];
    let child = world.create(child).await.unwrap();
    let mut grandchild = cores("grandchild", 1);
    grandchild.dependencies = vec![child.id.to_string(), "root".into()];
    let grandchild = world.create(grandchild).await.unwrap();
    let graph = world.manager().sessions().dependency_graph(&world.scope, "grandchild").await.unwrap();
    assert_eq!(graph.depends_on.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["child", "root"]);
    assert_eq!(graph.depends_on[0].depends_on[0].id, root.id);
    let outcomes = world.manager().sessions().destroy(&world.scope, "root", false, true).await.unwrap();
    assert_eq!(outcomes.len(), 3);
    world.reaches(root.id, SessionStatus::Terminated).await;
    world.reaches(child.id, SessionStatus::Cancelled).await;
    world.reaches(grandchild.id, SessionStatus::Cancelled).await;
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_follow_names_ids_and_owners() {
    let world = World::new(&[4]).await;
    let sessions = world.manager().sessions().clone();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let session = world.create(small("repeated")).await.unwrap();
        ids.push(session.id);
        assert_eq!(
            sessions.resolve(&world.scope, &session.id.to_string(), false).await.unwrap().id,
            session.id
        );
        sessions.destroy(&world.scope, "repeated", false, false).await.unwrap();
        world.reaches(session.id, SessionStatus::Terminated).await;
    }
    let error = sessions.resolve(&world.scope, "repeated", false).await.unwrap_err();
    assert_eq!(error.code(), code::SESSION_NOT_FOUND);
    let error = sessions.resolve(&world.scope, "repeated", true).await.unwrap_err();
    assert_eq!(error.code(), code::TOO_MANY_SESSIONS);
    assert_eq!(error.problem_data().unwrap()["matches"].as_array().unwrap().len(), 2);
    assert!(sessions.resolve(&world.scope, &ids[0].to_string(), true).await.is_ok());
    assert!(sessions.resolve(&world.scope, &ids[0].to_string(), false).await.is_err());
    assert_eq!(sessions.matches(&world.scope, "repeated").await.unwrap().len(), 2);

    let mut stranger = (*world.scope.owner).clone();
    stranger.keypair.access_key = "AKIASTRANGER".into();
    let stranger = bai_manager_lib::Scope::own(std::sync::Arc::new(stranger));
    assert!(sessions.resolve(&stranger, &ids[0].to_string(), true).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn designated_agents_are_for_superadmins_and_are_obeyed() {
    let world = World::new(&[8, 4]).await;
    let mut request = small("here");
    request.agent_list = vec!["i-1".into()];
    let session = world.create(request.clone()).await.unwrap();
    assert_eq!(session.main().agent, Some("i-1".into()));
    request.name = "both".into();
    request.cluster_size = 2;
    request.cluster_mode = ClusterMode::MultiNode;
    request.agent_list = vec!["i-1".into(), "i-0".into()];
    let session = world.create(request.clone()).await.unwrap();
    let agents: Vec<_> = session.kernels.iter().map(|kernel| kernel.agent.clone().unwrap()).collect();
    assert_eq!(agents, ["i-1".into(), "i-0".into()]);

    let mut user = (*world.scope.owner).clone();
    user.user.role = bai_core::identity::UserRole::User;
    let scope = bai_manager_lib::Scope::own(std::sync::Arc::new(user));
    request.name = "denied".into();
    let error = world.manager().sessions().create(&scope, request).await.unwrap_err();
    assert_eq!(error.code(), code::INSUFFICIENT_PRIVILEGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_run_takes_no_code() {
    let world = World::new(&[2]).await;
    world.create(cores("waiting", 1000)).await.unwrap();
    let sessions = world.manager().sessions().clone();
    let error = sessions.list_files(&world.scope, "waiting", ".").await.unwrap_err();
    assert_eq!(error.code(), code::SESSION_NOT_RUNNING);
    assert_eq!(
        sessions.restart(&world.scope, "waiting").await.unwrap_err().code(),
        code::SESSION_NOT_RUNNING
    );
    assert_eq!(sessions.logs(&world.scope, "waiting").await.unwrap(), b"");
    let session = world.create(batch("runs", "true")).await.unwrap();
    world.reaches(session.id, SessionStatus::Terminated).await;
    let error = sessions.interrupt(&world.scope, "runs").await.unwrap_err();
    assert_eq!(error.code(), code::SESSION_NOT_FOUND);
}
