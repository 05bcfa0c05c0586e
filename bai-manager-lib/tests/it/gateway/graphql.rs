//! GraphQL: compatibility of the schema, visibility, filters.

use std::collections::BTreeMap;

use bai_core::identity::UserRole;
use bai_manager_lib::gateway::sdl;
use serde_json::{Value, json};

use super::call::Call;
use super::world::{World, add_user};

/// Type name → field name → arguments and type, without spaces and comments.
type Types = BTreeMap<String, BTreeMap<String, String>>;

/// The object types of a schema text, read line by line: both texts have one field a line.
fn types(sdl: &str) -> Types {
    let mut types = Types::new();
    let mut current = None;
    let mut in_comment = false;
    let mut joined = String::new();
    for line in sdl.lines().map(str::trim) {
        let marks = line.matches("\"\"\"").count();
        if marks > 0 || in_comment {
            in_comment ^= marks % 2 == 1;
            continue;
        }
        if let Some(rest) = line.strip_prefix("type ") {
            current = rest.split([' ', '{']).next().map(str::to_owned);
        } else if line == "}" {
            current = None;
        } else if let Some(name) = &current {
            joined.push_str(line);
            if joined.matches('(').count() > joined.matches(')').count() {
                joined.push(',');
                continue;
            }
            let field = std::mem::take(&mut joined);
            let field = field
                .split('@')
                .next()
                .unwrap_or_default()
                .replace(' ', "")
                .replace("(,", "(")
                .replace(",)", ")");
            if let Some((field, rest)) = field.split_once(['(', ':']) {
                types.entry(name.clone()).or_default().insert(field.to_owned(), rest.to_owned());
            }
        }
    }
    types
}

/// The arguments of a field, sorted, and its type.
fn parts(signature: &str) -> (Vec<&str>, &str) {
    match signature.rsplit_once("):") {
        Some((arguments, kind)) => {
            let mut arguments: Vec<_> = arguments.split(',').collect();
            arguments.sort_unstable();
            (arguments, kind)
        }
        None => (Vec::new(), signature),
    }
}

#[test]
fn the_schema_is_the_original_one_where_it_exists() {
    let original = types(include_str!("../../../testdata/schema-23.09.10.graphql"));
    let ours = types(&sdl());
    let complete = [
        "Agent",
        "AgentList",
        "AgentSummary",
        "AgentSummaryList",
        "ComputeContainer",
        "ComputeContainerList",
        "ComputeSession",
        "ComputeSessionList",
        "Domain",
        "Group",
        "Image",
        "KVPair",
        "KeyPair",
        "KeyPairList",
        "KeyPairResourcePolicy",
        "ResourceLimit",
        "ScalingGroup",
        "User",
        "UserGroup",
        "UserInfo",
        "UserList",
        "VirtualFolder",
    ];
    for name in complete {
        for (field, signature) in &original[name] {
            let found = ours.get(name).and_then(|fields| fields.get(field));
            let found = found.unwrap_or_else(|| panic!("{name}.{field} is missing"));
            assert_eq!(parts(found), parts(signature), "{name}.{field}");
        }
    }
    let roots = &ours["Queries"];
    assert!(roots.len() >= 25, "{roots:?}");
    for (field, signature) in roots {
        let expected =
            original["Queries"].get(field).unwrap_or_else(|| panic!("{field} is no original root"));
        assert_eq!(parts(signature), parts(expected), "Queries.{field}");
    }
}

#[tokio::test]
async fn documents_of_the_official_client_run() {
    let world = World::start().await;
    let id = world.session("gold1").await;
    let rows: Vec<Value> =
        serde_json::from_str(include_str!("../../../testdata/client-queries.json")).unwrap();
    assert!(rows.len() > 20);
    for row in rows {
        let mut variables = row["variables"].clone();
        for (name, value) in [
            ("agent_id", "i-scripted"),
            ("id", id.as_str()),
            ("name", "default"),
            ("email", "user@example.com"),
        ] {
            if variables.get(name).is_some() {
                variables[name] = value.into();
            }
        }
        let variables = if variables.is_null() { json!({}) } else { variables };
        let answer = world.query(&world.admin, row["query"].as_str().unwrap(), variables).await;
        assert!(answer.get("errors").is_none(), "{}: {answer}", row["call"]);
    }
}

#[tokio::test]
async fn sessions_are_listed_with_filter_order_and_pages() {
    let world = World::start().await;
    for name in ["alpha", "beta1", "gamma"] {
        world.session(name).await;
    }
    let list = async |arguments: &str| {
        let query = format!("{{ compute_session_list({arguments}) {{ items {{ name }} total_count }} }}");
        world.query(&world.admin, &query, json!({})).await
    };
    let names = |answer: &Value| {
        let items = answer["data"]["compute_session_list"]["items"].as_array().unwrap();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&list("limit: 10, offset: 0, order: \"-name\"").await), ["gamma", "beta1", "alpha"]);
    let filtered =
        list(r#"limit: 10, offset: 0, filter: "name ilike \"%A\" & status == \"running\"", order: "+name""#)
            .await;
    assert_eq!(names(&filtered), ["alpha", "gamma"]);
    let paged = list("limit: 1, offset: 1, order: \"name\"").await;
    assert_eq!(
        (names(&paged), &paged["data"]["compute_session_list"]["total_count"]),
        (vec!["beta1".to_owned()], &json!(3))
    );
    let none = list("limit: 10, offset: 0, status: \"TERMINATED,CANCELLED\"").await;
    assert_eq!(names(&none), [""; 0]);
    for (arguments, message) in [
        (r#"limit: 1, offset: 0, filter: "nonsense ==""#, "Query filter parsing error: "),
        (r#"limit: 1, offset: 0, filter: "nonsense == 1""#, "('Unknown/unsupported field name', 'nonsense')"),
        (r#"limit: 1, offset: 0, order: "nonsense""#, "Query ordering parsing error: "),
        (r#"limit: 1, offset: 0, status: "NONSENSE""#, ""),
    ] {
        let answer = list(arguments).await;
        let text = answer["errors"][0]["message"].as_str().unwrap_or_else(|| panic!("{arguments}: {answer}"));
        assert!(text.starts_with(message), "{arguments}: {text}");
        assert_eq!(answer["errors"][0]["path"], json!(["compute_session_list"]));
    }
}

#[tokio::test]
async fn users_see_themselves_admins_their_domain() {
    let world = World::start().await;
    let admin = add_user(&world.manager, "boss", UserRole::Admin, "AKIADOMAINADMIN").await;
    let foreign = world.session("gold1").await;
    let own = world.session_of(&world.user, "mine").await;
    let count = async |caller| {
        let query = "{ compute_session_list(limit: 9, offset: 0) { total_count } }";
        world.query(caller, query, json!({})).await["data"]["compute_session_list"]["total_count"].clone()
    };
    assert_eq!(
        (count(&world.admin).await, count(&admin).await, count(&world.user).await),
        (json!(2), json!(2), json!(1))
    );

    let one = "query($id: UUID!) { compute_session(id: $id) { id } }";
    assert_eq!(
        world.query(&world.user, one, json!({ "id": foreign })).await["data"]["compute_session"],
        Value::Null
    );
    assert_eq!(
        world.query(&world.user, one, json!({ "id": own })).await["data"]["compute_session"]["id"],
        own
    );

    for (query, message) in [
        ("{ agents { id } }", "Forbidden operation. (superadmin privilege required)"),
        ("{ agent(agent_id: \"x\") { id } }", "Forbidden operation. (superadmin privilege required)"),
        ("{ domains { name } }", "Forbidden operation. (superadmin privilege required)"),
        ("{ users { email } }", "Insufficient privilege."),
        ("{ keypair(access_key: \"AKIAIOSFODNN7EXAMPLE\") { secret_key } }", "Forbidden operation."),
        ("{ keypairs(email: \"admin@example.com\") { secret_key } }", "Forbidden operation."),
        ("{ user(email: \"admin@example.com\") { email } }", "Forbidden operation."),
        ("{ domain(name: \"other\") { name } }", "No such domain."),
        (
            "{ compute_session_list(limit: 9, offset: 0, access_key: \"AKIAIOSFODNN7EXAMPLE\") { total_count } }",
            "Forbidden operation.",
        ),
    ] {
        let answer = world.query(&world.user, query, json!({})).await;
        assert_eq!(answer["errors"][0]["message"], message, "{query}: {answer}");
        assert!(!answer.to_string().contains("wJalr"), "{query}");
    }
    let keypairs = world
        .query(&world.user, "{ keypairs { access_key } user { email } groups { name } }", json!({}))
        .await;
    assert_eq!(
        keypairs["data"],
        json!({
            "keypairs": [{ "access_key": world.user.keypair.access_key }],
            "user": { "email": "user@example.com" },
            "groups": [{ "name": "default" }],
        })
    );
}

#[tokio::test]
async fn lists_in_memory_are_filtered_too() {
    let world = World::start().await;
    let query = r#"{
        agent_list(limit: 5, offset: 0, filter: "status == \"ALIVE\" & region contains \"loc\"") { items { id cpu_cur_pct live_stat } total_count }
        keypair_list(limit: 5, offset: 0, order: "-email") { items { user_id user_info { full_name } } total_count }
        user_list(limit: 5, offset: 0, filter: "role == \"USER\"") { items { email role status groups { name } } total_count }
    }"#;
    let data = world.query(&world.admin, query, json!({})).await["data"].clone();
    let agent = &data["agent_list"]["items"][0];
    assert_eq!((&agent["id"], &agent["cpu_cur_pct"]), (&json!("i-scripted"), &json!(170.77)));
    let stat: Value = serde_json::from_str(agent["live_stat"].as_str().unwrap()).unwrap();
    assert_eq!(stat["devices"]["cpu_util"]["0"]["pct"], "85.19");
    assert_eq!(data["keypair_list"]["items"][0]["user_id"], "user@example.com");
    assert_eq!(
        data["user_list"],
        json!({
            "items": [{ "email": "user@example.com", "role": "user", "status": "active", "groups": [{ "name": "default" }] }],
            "total_count": 1,
        })
    );
}

#[tokio::test]
async fn the_legacy_path_answers_with_the_data_alone() {
    let world = World::start().await;
    let call = |query: &str| Call::post("/admin/graphql").json(&json!({ "query": query, "variables": {} }));
    let answer = world.admin(call("{ keypair { access_key } }")).await.ok(200);
    assert_eq!(answer, json!({ "keypair": { "access_key": "AKIAIOSFODNN7EXAMPLE" } }));
    let problem = world.admin(call("{ nosuch }")).await.problem(400, "graphql-error");
    assert_eq!(problem["data"][0]["message"], "Cannot query field 'nosuch' on type 'Queries'.");
}

#[tokio::test]
async fn introspection_and_deep_queries_are_refused() {
    let world = World::start().await;
    let answer = world.query(&world.admin, "{ __schema { types { name } } }", json!({})).await;
    assert!(answer.get("errors").is_some() || answer["data"]["__schema"].is_null(), "{answer}");
    let deep = |depth: usize| {
        let (open, close) = ("dependencies { ".repeat(depth), " }".repeat(depth));
        format!("{{ compute_session(id: \"12c45b55-ce3c-418d-9c58-223bbba307f1\") {{ {open} id {close} }} }}")
    };
    assert!(world.query(&world.admin, &deep(3), json!({})).await.get("errors").is_none());
    assert!(world.query(&world.admin, &deep(1000), json!({})).await.get("errors").is_some());
    let wrong = world
        .query(&world.admin, "query($id: UUID!) { compute_session(id: $id) { id } }", json!({ "id": 5 }))
        .await;
    assert!(wrong.get("errors").is_some());
    let extra = Call::post("/admin/gql").json(&json!({ "query": "{ keypair { access_key } }", "more": 1 }));
    world.admin(extra).await.problem(400, "invalid-api-params");
}
