//! Replies have the keys and types of recorded replies of the original service.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::world::World;

/// Objects whose recorded keys need not be there: no idle checker runs here.
const MAY_LACK_KEYS: [&str; 1] = ["idleChecks"];
/// Keys whose recorded value has a type because of a feature that does not exist here, or not in the test.
const MAY_BE_NULL: [&str; 2] = ["description", "status_info"];

struct Golden(HashMap<String, Value>);

impl Golden {
    fn load() -> Self {
        let rows: Vec<Value> =
            serde_json::from_str(include_str!("../../../testdata/golden-shapes.json")).unwrap();
        Self(rows.into_iter().map(|row| (row["name"].as_str().unwrap().to_owned(), row)).collect())
    }

    fn request(&self, name: &str) -> &Value {
        &self.0[name]["request"]
    }

    #[track_caller]
    fn compare(&self, name: &str, answer: &Answer) {
        let expected = &self.0[name];
        assert_eq!(Value::from(answer.status.as_u16()), expected["status"], "{name}: {:?}", answer.body);
        let media_type = |text: &str| text.split(';').next().map(str::to_owned);
        let content_type = expected["content_type"].as_str().and_then(media_type);
        assert_eq!(media_type(answer.header("content-type")), content_type, "{name}");
        same_shape(name, &expected["body"], &answer.json());
    }
}

/// Everything recorded must be there with the same type; a recorded null allows anything.
fn same_shape(path: &str, expected: &Value, actual: &Value) {
    match (expected, actual) {
        (Value::Null, _) => {}
        (Value::Object(expected), Value::Object(actual)) => {
            for (key, value) in expected {
                let path = format!("{path}.{key}");
                let found = actual.get(key).unwrap_or_else(|| panic!("{path} is missing in {actual:?}"));
                let may_differ = found.is_null() && MAY_BE_NULL.contains(&key.as_str())
                    || found.is_object() && MAY_LACK_KEYS.contains(&key.as_str());
                if !may_differ {
                    same_shape(&path, value, found);
                }
            }
        }
        (Value::Array(expected), Value::Array(actual)) => {
            if let (Some(expected), Some(actual)) = (expected.first(), actual.first()) {
                same_shape(&format!("{path}[]"), expected, actual);
            }
        }
        _ => assert_eq!(std::mem::discriminant(expected), std::mem::discriminant(actual), "{path}: {actual}"),
    }
}

#[tokio::test]
async fn rest_replies_have_the_recorded_shapes() {
    let (world, golden) = (World::start().await, Golden::load());
    let check = async |name: &str, call: Call| golden.compare(name, &world.admin(call).await);
    let gold = json!({ "name": "gold1", "image": "python" });
    check("create", Call::post("/session").json(&gold)).await;
    check("create reused", Call::post("/session").json(&gold)).await;
    let fresh = json!({ "name": "gold1", "image": "python", "reuseIfExists": false });
    check("create existing", Call::post("/session").json(&fresh)).await;
    check("create bad name", Call::post("/session").json(&json!({ "name": "bad name!", "image": "python" })))
        .await;
    check(
        "create unknown image",
        Call::post("/session").json(&json!({ "name": "gold2", "image": "no/such:image" })),
    )
    .await;
    check("info", Call::get("/session/gold1")).await;
    let code = json!({ "mode": "query", "code": "print('a')", "runId": "r1" });
    check("execute", Call::post("/session/gold1").json(&code)).await;
    check("files", Call::get("/session/gold1/files").json(&json!({ "path": "/home/work" }))).await;
    check("logs", Call::get("/session/gold1/logs")).await;
    check("abusing-report", Call::get("/session/gold1/abusing-report")).await;
    check("dependency-graph", Call::get("/session/gold1/dependency-graph")).await;
    check("apps", Call::get("/stream/session/gold1/apps")).await;
    check("start-service", Call::post("/session/gold1/start-service").json(&json!({ "app": "ttyd" }))).await;
    check("resource slots", Call::get("/config/resource-slots")).await;
    check("announcement", Call::get("/manager/announcement")).await;
    check("manager status", Call::get("/manager/status")).await;
    check("destroy unknown", Call::delete("/session/nosuch")).await;
    check("versions", Call::get("/")).await;
    check("wrong method", Call::post("/")).await;
    check("unknown path", Call::get("/no/such")).await;
    check("no date", Call { date: None, ..Call::get("/session/x") }).await;
}

#[tokio::test]
async fn graphql_replies_have_the_recorded_shapes_and_order() {
    let (world, golden) = (World::start().await, Golden::load());
    world.session("gold1").await;
    for name in golden.0.keys().filter(|name| name.starts_with("gql ")) {
        let answer = world.admin(Call::post("/admin/gql").json(golden.request(name))).await;
        golden.compare(name, &answer);
    }
    let answer = world.admin(Call::post("/admin/gql").json(golden.request("gql ps detail"))).await.json();
    let keys = |body: &Value| {
        let item = body["data"]["compute_session_list"]["items"][0].as_object().unwrap();
        item.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(keys(&answer), keys(&golden.0["gql ps detail"]["body"]));
    let unknown =
        world.admin(Call::post("/admin/gql").json(golden.request("gql unknown field"))).await.json();
    assert_eq!(
        unknown["errors"][0]["message"],
        golden.0["gql unknown field"]["body"]["errors"][0]["message"]
    );
}
