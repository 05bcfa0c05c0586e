//! What decides about the order outlives the manager: whose turn it is, and who has used how much.

use std::sync::Arc;
use std::time::Duration;

use bai_core::identity::{Project, ResourceGroup};
use bai_core::{AgentId, ProjectId, Session, SessionStatus};
use bai_manager_lib::session::CreateSession;
use serde_json::{Value, json};

use crate::world::{World, cores, quick};

async fn configure(world: &World, change: impl FnOnce(&mut ResourceGroup)) {
    let directory = world.backends.identities.directory().await.unwrap();
    let mut group = directory.resource_groups["default"].clone();
    change(&mut group);
    world.backends.identities.put_resource_group(&group).await.unwrap();
}

fn options(value: &Value) -> serde_json::Map<String, Value> {
    value.as_object().unwrap().clone()
}

async fn agent_of(world: &World, name: &str) -> AgentId {
    let session = world.create(cores(name, 1)).await.unwrap();
    world.reaches(session.id, SessionStatus::Running).await.main().agent.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn round_robin_goes_on_where_it_was_after_a_restart() {
    let world = World::new(&[8, 8, 8]).await;
    configure(&world, |group| {
        group.scheduler_opts = options(&json!({ "agent_selection_strategy": "roundrobin" }));
    })
    .await;
    let mut used = Vec::new();
    for number in 0..4 {
        used.push(agent_of(&world, &format!("turn-{number}")).await);
    }
    let expected = |number: usize| AgentId::new(format!("i-{}", number % 3));
    assert_eq!(used, [0, 1, 2, 3].map(expected));

    let key = "config/scheduler/default/last-used/x86_64";
    let mut stored = None;
    for _ in 0..500 {
        stored = world.backends.config.get(key).await.unwrap().map(|entry| entry.value);
        if stored.as_deref() == Some("i-0") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(stored.as_deref(), Some("i-0"));
    world.kill_manager();
    world.revive_manager().await;
    assert_eq!(agent_of(&world, "turn-after").await, expected(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_takes_as_many_kernels_as_the_settings_say() {
    let world = World::new(&[8]).await;
    world.backends.config.put("config/agent/max-container-count", "2").await.unwrap();
    agent_of(&world, "kernel-1").await;
    agent_of(&world, "kernel-2").await;
    let third = world.create(cores("kernel-3", 1)).await.unwrap();
    world.until_stored(third.id, |session| session.status_info.is_some()).await;
    assert_eq!(world.stored(third.id).await.status, SessionStatus::Pending);
    world.backends.config.delete("config/agent/max-container-count").await.unwrap();
    world.reaches(third.id, SessionStatus::Running).await;
}

/// A fair share between two projects on one core.
async fn fair_world(config: &Value) -> World {
    let mut quick = quick();
    quick.usage_interval = Duration::ZERO;
    let world = World::with_options(&[1], quick).await;
    configure(&world, |group| {
        group.scheduler = "fair-share".into();
        group.scheduler_opts = options(&json!({ "config": config }));
    })
    .await;
    let directory = world.backends.identities.directory().await.unwrap();
    let (default, members) = directory.projects[0].clone();
    let second = Project { id: ProjectId::random(), name: "second".into(), ..default };
    world.backends.identities.put_project(&second, &members).await.unwrap();
    world
}

fn of_project(name: &str, project: &str) -> CreateSession {
    let mut request = cores(name, 1);
    request.project = project.into();
    request
}

/// Has a session of the project hold the core.
async fn use_core(world: &World, name: &str, project: &str, time: Duration) {
    let session = world.create(of_project(name, project)).await.unwrap();
    world.reaches(session.id, SessionStatus::Running).await;
    tokio::time::sleep(time).await;
    end(world, &session).await;
}

async fn end(world: &World, session: &Arc<Session>) {
    world.manager().sessions().destroy(&world.scope, &session.id.to_string(), false, false).await.unwrap();
    world.until_stored(session.id, |session| session.status.is_dead()).await;
}

/// Which project gets the core when one of its sessions waits of each, that of `default` for longer.
async fn first_served(world: &World) -> String {
    world.manager().agents().set_schedulable(&["i-0".into()], false).await.unwrap();
    let older = world.create(of_project("waits-older", "default")).await.unwrap();
    let newer = world.create(of_project("waits-newer", "second")).await.unwrap();
    world.until_stored(newer.id, |session| session.status_info.is_some()).await;
    world.manager().agents().set_schedulable(&["i-0".into()], true).await.unwrap();
    let mut winner = None;
    for _ in 0..1000 {
        for id in [older.id, newer.id] {
            let session = world.stored(id).await;
            if session.status == SessionStatus::Running {
                winner = Some(session.owner.project);
            }
        }
        if winner.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let winner = winner.expect("somebody is served");
    // Who still waits goes first, or it would be served now.
    let (served, waiting) = if winner == "default" { (older, newer) } else { (newer, older) };
    end(world, &waiting).await;
    end(world, &served).await;
    winner
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_used_less_is_served_first() {
    let world = fair_world(&json!({})).await;
    assert_eq!(first_served(&world).await, "default", "nobody has used anything: the older one");
    use_core(&world, "user-of-core", "default", Duration::from_secs(4)).await;
    assert_eq!(first_served(&world).await, "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_read_from_the_records_after_a_restart() {
    let world = fair_world(&json!({})).await;
    use_core(&world, "user-of-core", "default", Duration::from_secs(4)).await;
    world.kill_manager();
    world.revive_manager().await;
    assert_eq!(first_served(&world).await, "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_counts_less_for_those_with_more_weight() {
    let world = fair_world(&json!({ "weights": { "project/default": 1000 } })).await;
    use_core(&world, "default-uses", "default", Duration::from_secs(5)).await;
    use_core(&world, "second-uses", "second", Duration::from_secs(2)).await;
    assert_eq!(first_served(&world).await, "default");
}
