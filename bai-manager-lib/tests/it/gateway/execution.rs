//! Running code over REST.

use serde_json::{Value, json};

use super::call::Call;
use super::world::World;

fn execute(body: &Value) -> Call {
    Call::post("/session/gold1").json(body)
}

#[tokio::test]
async fn a_query_runs() {
    let world = World::start().await;
    world.session("gold1").await;
    let body = json!({ "mode": "query", "code": "hello", "runId": null, "options": {} });
    let result = world.admin(execute(&body)).await.ok(200)["result"].clone();
    assert_eq!(result["console"], json!([["stdout", "hello"]]));
    assert_eq!((result["status"].as_str(), result["exitCode"].as_i64()), (Some("finished"), Some(0)));
    assert_eq!((&result["files"], &result["options"]), (&json!([]), &Value::Null));
    assert!(result["runId"].is_string());
}

#[tokio::test]
async fn input_and_batch_go_on_with_the_run_id() {
    let world = World::start().await;
    world.session("gold1").await;
    let step = async |body: Value| world.admin(execute(&body)).await.ok(200)["result"].clone();
    let waiting = step(json!({ "mode": "query", "code": "ask name", "runId": null })).await;
    assert_eq!(
        (&waiting["status"], &waiting["options"]),
        (&json!("waiting-input"), &json!({ "is_password": false }))
    );
    let answered = step(json!({ "mode": "input", "code": "gold", "runId": waiting["runId"] })).await;
    assert_eq!(answered["console"], json!([["stdout", "got gold\n"]]));

    let options = json!({ "clean": "*", "build": "*", "buildLog": false, "exec": "app" });
    let mut result = step(json!({ "mode": "batch", "code": "", "runId": null, "options": options })).await;
    let mut statuses = Vec::new();
    while result["status"] != "finished" {
        statuses.push(result["status"].clone());
        result = step(json!({ "mode": "continue", "code": "", "runId": result["runId"] })).await;
    }
    assert_eq!(statuses, ["clean-finished", "build-finished"]);
    assert_eq!(result["console"], json!([["stdout", "app"]]));
}

#[tokio::test]
async fn bad_steps_are_refused() {
    let world = World::start().await;
    world.session("gold1").await;
    for (body, message) in [
        (json!({ "mode": "query", "code": "x" }), "runId is missing!"),
        (json!({ "code": "x", "runId": null }), "mode is missing or empty!"),
        (json!({ "mode": "", "code": "x", "runId": null }), "mode is missing or empty!"),
        (json!({ "mode": "dance", "code": "x", "runId": null }), "mode has an invalid value."),
        (json!({ "mode": "QUERY", "code": "x", "runId": null }), "mode has an invalid value."),
        (json!({ "mode": 5, "code": "x", "runId": null }), "mode has an invalid value."),
        (json!({ "mode": "continue", "code": "", "runId": null }), "continuation requires explicit run ID"),
        (json!({ "mode": "input", "code": "", "runId": null }), "continuation requires explicit run ID"),
        (json!({ "mode": "query", "code": 5, "runId": null }), "Input validation error"),
        (
            json!({ "mode": "batch", "code": "", "runId": null, "options": { "exec": 5 } }),
            "Input validation error",
        ),
    ] {
        let problem = world.admin(execute(&body)).await.problem(400, "invalid-api-params");
        assert_eq!(problem["msg"], message, "{body}");
    }
    let not_json = Call::post("/session/gold1").raw("application/json", "mode=query");
    world.admin(not_json).await.problem(400, "invalid-api-params");
}

#[tokio::test]
async fn five_megabytes_of_code_arrive_whole() {
    let world = World::start().await;
    world.session("gold1").await;
    let code = "x".repeat(5 << 20);
    let body = json!({ "mode": "query", "code": code, "runId": null });
    let result = world.admin(execute(&body)).await.ok(200)["result"].clone();
    assert_eq!(result["console"][0][1].as_str().map(str::len), Some(5 << 20));
}

#[tokio::test]
async fn a_run_whose_kernel_vanished_is_finished() {
    let world = World::start().await;
    world.session("gold1").await;
    let spin = json!({ "mode": "query", "code": "spin", "runId": null });
    let started = world.admin(execute(&spin)).await.ok(200)["result"].clone();
    assert_eq!(started["status"], "continued");
    world.agent.vanish();
    let go_on = json!({ "mode": "continue", "code": "", "runId": started["runId"] });
    let result = world.admin(execute(&go_on)).await.ok(200)["result"].clone();
    assert_eq!(
        result,
        json!({ "status": "finished", "runId": started["runId"], "exitCode": 130, "options": {}, "files": [], "console": [] })
    );
}

#[tokio::test]
async fn a_panic_is_a_problem_that_tells_nothing() {
    let world = World::start().await;
    world.session("gold1").await;
    let body = json!({ "mode": "query", "code": "panic", "runId": null });
    let problem = world.admin(execute(&body)).await.problem(500, "internal-server-error");
    assert!(!problem.to_string().contains("secret"), "{problem}");
    world.admin(Call::get("/session/gold1")).await.ok(200);
}

#[tokio::test]
async fn interrupted_and_completed() {
    let world = World::start().await;
    world.session("gold1").await;
    world.admin(Call::post("/session/gold1/interrupt")).await.ok(204);
    assert_eq!(world.agent.interrupts(), 1);
    let body = json!({ "code": "prin", "options": { "row": 0, "col": 4, "line": "prin", "post": "" } });
    let completed = world.admin(Call::post("/session/gold1/complete").json(&body)).await.ok(200);
    assert_eq!(completed, json!({ "result": { "status": "finished", "completions": ["print"] } }));
    world.admin(Call::post("/session/gold1/complete").json(&json!({}))).await.ok(200);
}

#[tokio::test]
async fn logs_are_text_whatever_was_printed() {
    let world = World::start().await;
    world.session("gold1").await;
    let logs = world.admin(Call::get("/session/gold1/logs")).await.ok(200);
    assert_eq!(logs, json!({ "result": { "logs": "Kernel started \u{fffd}\n" } }));
}
