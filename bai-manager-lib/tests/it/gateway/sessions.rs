//! The life of sessions over REST.

use axum::http::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::scripted_agent::IMAGE;
use super::world::World;

fn create(body: &Value) -> Call {
    Call::post("/session").json(body)
}

#[tokio::test]
async fn created_found_reused_and_destroyed() {
    let world = World::start().await;
    let body = json!({ "name": "gold1", "image": "python", "config": {} });
    let created = world.admin(create(&body)).await.ok(201);
    assert_eq!(created["created"], true);
    assert_eq!(created["servicePorts"][0], json!({ "name": "sshd", "protocol": "tcp", "ports": [2200] }));
    let reused = world.admin(create(&body)).await.ok(201);
    assert_eq!(reused["created"], false);
    assert_eq!(reused["sessionId"], created["sessionId"]);
    assert_eq!(reused["service_ports"][0]["container_ports"], json!([2200]));
    assert!(reused.get("servicePorts").is_none());
    let fresh = json!({ "name": "gold1", "image": "python", "reuseIfExists": "no" });
    let problem = world.admin(create(&fresh)).await.problem(400, "session-already-exists");
    assert_eq!(problem["data"]["existingSessionId"], created["sessionId"]);

    let by_id = format!("/session/{}", created["sessionId"].as_str().unwrap());
    for target in ["/session/gold1", "/kernel/gold1", "/v4/kernel/gold1", &by_id] {
        let info = world.admin(Call::get(target)).await.ok(200);
        assert_eq!(
            (info["status"].as_str(), info["image"].as_str()),
            (Some("RUNNING"), Some(IMAGE)),
            "{target}"
        );
    }
    let stats = world.admin(Call::delete("/session/gold1")).await.ok(200);
    assert_eq!(stats["stats"]["status"], "terminated");
    world.admin(Call::get("/session/gold1")).await.problem(404, "object-not-found");
}

#[tokio::test]
async fn bad_parameters_change_nothing() {
    let world = World::start().await;
    let invalid = |body: Value| (400, "invalid-api-params", body);
    let with = |key: &str, value: Value| invalid(json!({ "name": "gold1", "image": "python", key: value }));
    let config = |config: Value| with("config", config);
    for (status, slug, body) in [
        invalid(json!({})),
        invalid(json!({ "name": "abc", "image": "python" })),
        invalid(json!({ "name": "bad name!", "image": "python" })),
        invalid(json!({ "name": "-dash", "image": "python" })),
        invalid(json!({ "name": "x".repeat(65), "image": "python" })),
        invalid(json!({ "name": "../../etc", "image": "python" })),
        invalid(json!({ "name": "from-template", "image": "python" })),
        (404, "object-not-found", json!({ "name": "gold1", "image": "no/such:image" })),
        with("unknown", json!(1)),
        with("cluster_size", json!(0)),
        with("cluster_size", json!(-1)),
        with("cluster_mode", json!("moon")),
        with("maxWaitSeconds", json!(-1)),
        with("callback_url", json!("javascript:alert(1)")),
        with("type", json!("batch")),
        with("starts_at", json!("5m")),
        with("dependencies", json!(["nobody"])),
        with("group", json!("nosuch")),
        with("domain", json!("nosuch")),
        config(json!({ "resources": { "mem": "1m" } })),
        config(json!({ "resources": { "cpu": -1 } })),
        config(json!({ "resources": { "cpu": "NaN" } })),
        config(json!({ "resources": { "cpu": "abc" } })),
        config(json!({ "resources": { "cpu": "9".repeat(500) } })),
        config(json!({ "resources": { "mem": "1e999999999" } })),
        config(json!({ "resources": { "cpu": [] } })),
        config(json!({ "resources": { "cuda.device": "1" } })),
        config(json!({ "resources": { "mem": "512m" }, "resource_opts": { "shmem": "1g" } })),
        config(json!({ "preopen_ports": [80] })),
        config(json!({ "environ": { "A": 1 } })),
        config(json!({ "nonsense": true })),
        config(json!(7)),
    ] {
        let mut hasty = body.clone();
        hasty["enqueueOnly"] = true.into();
        let answer = world.admin(create(&hasty)).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {answer:?}");
        answer.problem(status, slug);
    }
    let found = world
        .query(&world.admin, "{ compute_session_list(limit: 1, offset: 0) { total_count } }", json!({}))
        .await;
    assert_eq!(found["data"]["compute_session_list"]["total_count"], 0);
}

#[tokio::test]
async fn more_than_there_is_stays_pending_with_a_reason() {
    let world = World::start().await;
    let body = json!({ "name": "huge", "image": "python", "enqueueOnly": true, "config": { "resources": { "cpu": "1000" } } });
    assert_eq!(world.admin(create(&body)).await.ok(201)["status"], "PENDING");
    let patient = json!({ "name": "huge2", "image": "python", "maxWaitSeconds": 1, "config": { "resources": { "cpu": "1000" } } });
    assert_eq!(world.admin(create(&patient)).await.ok(201)["status"], "TIMEOUT");
    let info = world.admin(Call::get("/session/huge")).await.ok(200);
    assert_eq!(info["status"], "PENDING");
    assert_ne!(info["statusInfo"], "", "{info}");
    assert_eq!(world.admin(Call::delete("/session/huge")).await.ok(200)["stats"]["status"], "cancelled");
}

#[tokio::test]
async fn admins_act_for_others_and_users_do_not() {
    let world = World::start().await;
    let key = world.user.keypair.access_key.as_str();
    world.session_of(&world.user, "mine").await;
    world.admin(Call::get("/session/mine")).await.problem(404, "object-not-found");
    let delegated = format!("owner_access_key={key}");
    for call in [
        Call::get(format!("/session/mine?{delegated}")),
        Call::get("/session/mine").json(&json!({ "owner_access_key": key })),
        Call::get(format!("/session/mine/logs?{delegated}")),
        Call::get(format!("/session/mine/status-history?{delegated}")),
        Call::get(format!("/session/mine/abusing-report?{delegated}")),
        Call::get(format!("/session/_/match?id=mine&{delegated}")),
        Call::get(format!("/session/mine/files?{delegated}")).json(&json!({ "path": "." })),
        Call::get(format!("/stream/session/mine/apps?{delegated}")),
    ] {
        let target = call.target.clone();
        let answer = world.admin(call).await;
        assert_eq!(answer.status.as_u16(), 200, "{target}: {answer:?}");
    }
    let foreign = Call::get("/session/mine?owner_access_key=AKIAIOSFODNN7EXAMPLE").by(&world.user);
    world.send(&foreign).await.problem(403, "generic-forbidden");
    let unknown = world.admin(Call::get("/session/mine?owner_access_key=AKIANOBODY")).await;
    assert_eq!(
        unknown.problem(400, "invalid-api-params")["msg"]
            .as_str()
            .map(|m| m.contains("Unknown owner access key")),
        Some(true)
    );
    let null = Call::delete("/session/mine")
        .json(&json!({ "owner_access_key": null, "forced": false }))
        .by(&world.user);
    world.send(&null).await.ok(200);
}

#[tokio::test]
async fn renamed_restarted_and_looked_at() {
    let world = World::start().await;
    let id = world.session("first-one").await;
    let rename = world.admin(Call::post("/session/first-one/rename?name=second-one")).await;
    rename.ok(204);
    assert!(rename.body.is_empty());
    world.admin(Call::post("/session/second-one/rename?name=no")).await.problem(400, "invalid-api-params");
    let patch = Call::new(Method::PATCH, "/session/second-one");
    world.admin(patch).await.ok(204);

    let history = world.admin(Call::get("/session/second-one/status-history")).await.ok(200);
    let result = history["result"].as_object().unwrap();
    assert_eq!(result["RUNNING"], result["running"]);
    assert!(result["PENDING"].as_str().unwrap().contains('T'));

    let graph = world.admin(Call::get("/session/second-one/dependency-graph")).await.ok(200);
    assert_eq!(graph["session_id"], id);
    assert!(graph["status"].as_str().unwrap().starts_with("KernelStatus."));
    let (time, fraction) = graph["status_changed"].as_str().unwrap().split_once('.').unwrap();
    assert_eq!((time.len(), fraction.len()), ("2024-02-29 12:34:56".len(), "789012+00:00".len()));

    let matches = world.admin(Call::get(format!("/session/_/match?id={id}"))).await.ok(200);
    assert_eq!(matches["matches"][0]["name"], "second-one");
    let apps = world.admin(Call::get("/stream/session/second-one/apps")).await.ok(200);
    assert_eq!(apps[1], json!({ "name": "ttyd", "protocol": "http", "ports": [7681] }));
    assert_eq!(world.admin(Call::get("/session/second-one/direct-access-info")).await.ok(200), json!({}));
}

#[tokio::test]
async fn dependents_end_with_what_they_depend_on() {
    let world = World::start().await;
    let id = world.session("root-one").await;
    let body = json!({ "name": "leaf-one", "image": "python", "enqueueOnly": true, "dependencies": [id] });
    world.admin(create(&body)).await.ok(201);
    let graph = world.admin(Call::get("/session/leaf-one/dependency-graph")).await.ok(200);
    assert_eq!(graph["depends_on"][0]["session_name"], "root-one");
    let ended = world.admin(Call::delete("/session/root-one?recursive=true")).await.ok(200);
    let statuses: Vec<_> =
        ended.as_array().unwrap().iter().map(|stats| stats["status"].as_str().unwrap()).collect();
    assert_eq!(statuses.len(), 2);
    assert!(statuses.contains(&"terminated") && statuses.contains(&"cancelled"), "{statuses:?}");
}

#[tokio::test]
async fn what_does_not_exist_yet_says_so() {
    let world = World::start().await;
    world.session("gold1").await;
    let template = json!({ "template_id": "12c45b55-ce3c-418d-9c58-223bbba307f1", "name": "from-it" });
    let problem = world.admin(Call::post("/session/_/create-from-template").json(&template)).await;
    assert_eq!(problem.problem(404, "object-not-found")["title"], "No such task template.");
    let bad = Call::post("/session/_/create-from-template").json(&json!({ "template_id": "x" }));
    world.admin(bad).await.problem(400, "invalid-api-params");
    let cluster = json!({ "clientSessionToken": "clus", "template_id": null });
    world
        .admin(Call::post("/session/_/create-cluster").json(&cluster))
        .await
        .problem(404, "object-not-found");

    let start = world.admin(Call::post("/session/gold1/start-service").json(&json!({ "app": "ttyd" }))).await;
    let problem = start.problem(503, "service-unavailable");
    assert_eq!(problem["msg"], "No coordinator configured for this resource group");
    let stop = Call::post("/session/gold1/shutdown-service").json(&json!({ "service_name": "ttyd" }));
    world.admin(stop).await.problem(404, "object-not-found");
    world.admin(Call::post("/session/gold1/commit")).await.problem(503, "not-implemented");
    assert_eq!(world.admin(Call::get("/session/gold1/commit")).await.ok(200)["status"], "ready");
    assert_eq!(world.admin(Call::get("/session/gold1/abusing-report")).await.ok(200), json!({}));
    let task = "/session/_/logs?taskId=12c45b55-ce3c-418d-9c58-223bbba307f1";
    world.admin(Call::get(task)).await.problem(404, "object-not-found");
    let task = "/events/background-task?taskId=12c45b55-ce3c-418d-9c58-223bbba307f1";
    world.admin(Call::get(task)).await.problem(404, "object-not-found");
    world.admin(Call::post("/session/_/sync-agent-registry?agent=i-scripted")).await.ok(200);
    world
        .admin(Call::post("/session/_/sync-agent-registry?agent=i-nobody"))
        .await
        .problem(404, "object-not-found");
}
