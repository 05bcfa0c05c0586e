//! Sessions that nobody uses.

use std::time::Duration;

use bai_core::port::IdentityStore;
use bai_core::status::SessionStatus;
use bai_manager_lib::ManagerOptions;
use serde_json::json;

use crate::world::{World, quick, small};

fn watchful() -> ManagerOptions {
    let mut options = quick();
    options.idle_interval = Duration::from_millis(50);
    options
}

/// A cluster whose policy leaves the idle timeout to the configuration.
async fn world(settings: &[(&str, &str)]) -> World {
    let world = World::with_options(&[4], watchful()).await;
    let mut policy = world.manager().identities().directory().await.unwrap().policies["default"].clone();
    policy.idle_timeout = -1;
    world.store.put_policy(&policy).await.unwrap();
    for (key, value) in settings {
        world.backends.config.put(&format!("config/idle/{key}"), value).await.unwrap();
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unused_session_ends_and_a_used_one_stays() {
    let world = world(&[("enabled", "network_timeout"), ("checkers/network_timeout/threshold", "100")]).await;
    let session = world.create(small("idle")).await.unwrap();
    *world.agents[0].unused_ms.lock() = Some(40_000);
    let sessions = world.manager().sessions().clone();
    let remaining = |session: &bai_core::Session| sessions.idle_checks(session)["network_timeout"].remaining;
    world
        .until("what remains is told", |_| {
            sessions
                .idle_checks(&session)
                .get("network_timeout")
                .is_some_and(|check| check.remaining == Some(60.0))
        })
        .await;
    assert_eq!(world.stored(session.id).await.status, SessionStatus::Running);

    // Nothing is known: nothing is judged, however long it lasts.
    *world.agents[0].unused_ms.lock() = None;
    world.until("nothing is known", |_| remaining(&session).is_none()).await;
    assert_eq!(world.stored(session.id).await.status, SessionStatus::Running);

    *world.agents[0].unused_ms.lock() = Some(101_000);
    let ended = world.reaches(session.id, SessionStatus::Terminated).await;
    assert_eq!(ended.status_info.as_deref(), Some("idle-timeout"));
    assert!(sessions.idle_checks(&ended).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lifetime_of_the_policy_ends_a_busy_session() {
    let world = world(&[]).await;
    let mut policy = world.manager().identities().directory().await.unwrap().policies["default"].clone();
    policy.max_session_lifetime = 1;
    world.store.put_policy(&policy).await.unwrap();
    let session = world.create(small("aged")).await.unwrap();
    let ended = world.reaches(session.id, SessionStatus::Terminated).await;
    assert_eq!(ended.status_info.as_deref(), Some("idle-session-lifetime"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_uses_nothing_ends_once_its_window_is_full() {
    let world = world(&[
        ("enabled", "utilization"),
        ("checkers/utilization/time-window", "1s"),
        ("checkers/utilization/initial-grace-period", "0"),
        ("checkers/utilization/resource-thresholds/cpu_util/average", "20"),
    ])
    .await;
    let stats =
        |pct: &str| [("cpu_util".to_owned(), json!({ "current": "0", "pct": pct }))].into_iter().collect();
    *world.agents[0].stats.lock() = stats("50");
    let session = world.create(small("lazy")).await.unwrap();
    let sessions = world.manager().sessions().clone();
    world
        .until("a whole window has passed", |_| {
            let checks = sessions.idle_checks(&session);
            checks
                .get("utilization")
                .is_some_and(|check| check.remaining == Some(-1.0) && check.extra.is_some())
        })
        .await;
    assert_eq!(world.stored(session.id).await.status, SessionStatus::Running);
    *world.agents[0].stats.lock() = stats("3");
    let ended = world.reaches(session.id, SessionStatus::Terminated).await;
    assert_eq!(ended.status_info.as_deref(), Some("idle-utilization"));
}
