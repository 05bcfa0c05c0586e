//! Versions, paths, methods, parameters, headers: what holds for every route.

use axum::http::Method;
use serde_json::json;

use super::call::Call;
use super::world::World;

#[tokio::test]
async fn the_version_probe_needs_nothing() {
    let world = World::start().await;
    let bare = |target: &str| Call { date: None, version: None, content_type: None, ..Call::get(target) };
    for target in ["/", "/v4", "/v6/", "/v7"] {
        let answer = world.send(&bare(target)).await;
        let body = answer.ok(200);
        assert_eq!(
            (body["version"].as_str(), body["manager"].as_str()),
            (Some("v7.20230615"), Some("23.09.10"))
        );
        assert!(answer.header("content-type").starts_with("application/json"));
        assert_eq!(answer.header("server"), "BackendAI");
        assert_eq!(answer.header("x-ratelimit-limit"), "1000");
    }
    for target in ["/v2", "/v3/session", "/func/", "/no/such"] {
        assert_eq!(world.send(&bare(target)).await.problem(404, "url-not-found")["data"], target);
    }
}

#[tokio::test]
async fn wrong_methods_say_which_are_right() {
    let world = World::start().await;
    let answer = world.send(&Call::post("/")).await;
    answer.problem(405, "method-not-allowed");
    assert!(answer.header("allow").contains("GET"), "{:?}", answer.headers);
    let report = Call::new(Method::from_bytes(b"REPORT").unwrap(), "/session/x");
    world.send(&report).await.problem(405, "method-not-allowed");
}

#[tokio::test]
async fn the_method_can_be_overridden_and_is_signed_as_such() {
    let world = World::start().await;
    let id = world.session("gold1").await;
    let mut call = Call::delete(format!("/session/{id}")).by(&world.admin);
    let authorization = call.authorization().unwrap();
    call = Call { method: Method::POST, key: None, ..call };
    let call = call.header("authorization", authorization).header("x-method-override", "DELETE");
    assert_eq!(world.send(&call).await.ok(200)["stats"]["status"], "terminated");
}

#[tokio::test]
async fn every_route_answers_cors() {
    let world = World::start().await;
    let preflight = Call::new(Method::OPTIONS, "/session/x/execute")
        .header("origin", "http://x.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "x-backendai-version,date");
    let answer = world.send(&preflight).await;
    answer.ok(200);
    assert_eq!(answer.header("access-control-allow-origin"), "http://x.example");
    assert_eq!(answer.header("access-control-allow-methods"), "POST");
    assert_eq!(answer.header("access-control-allow-headers"), "x-backendai-version,date");
    assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    let answer = world.send(&Call::get("/no/such").header("origin", "http://x.example")).await;
    answer.problem(404, "url-not-found");
    assert_eq!(answer.header("access-control-allow-origin"), "http://x.example");
}

#[tokio::test]
async fn a_body_beats_the_query_on_any_method() {
    let world = World::start().await;
    let body = Call::get("/auth?echo=query").json(&json!({ "echo": "body" }));
    assert_eq!(world.admin(body).await.ok(200)["echo"], "body");
    let yaml = Call::get("/auth").raw("text/plain", r#"{"echo": "typed"}"#);
    assert_eq!(world.admin(yaml).await.ok(200)["echo"], "typed");
    for malformed in ["{", "[1]", "1", "\"x\"", "\u{feff}{}"] {
        let call = Call::get("/auth").raw("application/json", malformed);
        assert_eq!(
            world.admin(call).await.problem(400, "invalid-api-params")["msg"],
            "Malformed body",
            "{malformed}"
        );
    }
    let extra = Call::get("/auth?echo=x&other=1");
    let problem = world.admin(extra).await.problem(400, "invalid-api-params");
    assert_eq!(problem["msg"], "Input validation error");
    assert_eq!(problem["data"], json!({ "other": "other is not allowed key" }));
}

#[tokio::test]
async fn ten_megabytes_of_nesting_are_refused() {
    let world = World::start().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = 10_000_000 / (open.len() + close.len());
        let body = [open.repeat(depth), "1".into(), close.repeat(depth)].concat();
        for target in ["/session", "/admin/gql", "/session/x", "/session/x/complete"] {
            let call = Call::post(target).raw("application/json", body.clone());
            assert_eq!(world.admin(call).await.problem(400, "invalid-api-params")["msg"], "Malformed body");
        }
    }
    let endless = Call::post("/session").raw("application/json", vec![b' '; 21 << 20]);
    world.admin(endless).await.problem(400, "invalid-api-params");
}

#[tokio::test]
async fn the_cluster_is_described_without_a_signature() {
    let world = World::start().await;
    let slots = world.send(&Call::get("/config/resource-slots")).await.ok(200);
    assert_eq!(slots, json!({ "cpu": "count", "mem": "bytes" }));
    let announcement = world.send(&Call::get("/manager/announcement")).await.ok(200);
    assert_eq!(announcement, json!({ "enabled": false, "message": "" }));
    let before = world.send(&Call::get("/manager/status")).await.ok(200);
    world.session("gold1").await;
    let after = world.send(&Call::get("/manager/status").json(&json!({ "status": "running" }))).await.ok(200);
    assert_eq!((before["active_sessions"].as_u64(), after["active_sessions"].as_u64()), (Some(0), Some(1)));
    assert_eq!(after["nodes"][0]["api_version"], json!([7, "20230615"]));
}
