//! Who is let in.

use bai_core::identity::UserRole;
use chrono::TimeDelta;
use serde_json::json;

use super::call::Call;
use super::world::{PASSWORD, World, add_user};

#[tokio::test]
async fn signed_requests_pass() {
    let world = World::start().await;
    let echo = Call::post("/auth").json(&json!({ "echo": "hi" }));
    let answer = world.admin(echo.clone()).await;
    assert_eq!(answer.ok(200), json!({ "authorized": "yes", "echo": "hi" }));
    assert_eq!(answer.header("x-ratelimit-window"), "900");
    let limit: u64 = answer.header("x-ratelimit-limit").parse().unwrap();
    let remaining: u64 = answer.header("x-ratelimit-remaining").parse().unwrap();
    assert_eq!((limit, remaining), (world.admin.keypair.rate_limit, limit - 1));
    assert_eq!(world.admin(Call::get("/auth/test?echo=a%20b&echo=c")).await.ok(200)["echo"], "a b");
}

#[tokio::test]
async fn signatures_cover_the_target_as_sent() {
    let world = World::start().await;
    for target in [
        "/v4/auth?echo=x",
        "/auth?echo=%ED%95%9C%EA%B8%80&z=%2f",
        "/auth?z&echo=a+b",
        "http://127.0.0.1:8081/auth?echo=x",
    ] {
        let call = Call::get(target.trim_start_matches("http://127.0.0.1:8081"));
        let answer = world.admin(call).await;
        assert_ne!(answer.status.as_u16(), 401, "{target}: {answer:?}");
    }
}

/// A request for a session, signed by the superadmin.
fn good(world: &World) -> Call {
    Call::get("/session/some").by(&world.admin)
}

#[tokio::test]
async fn dates_are_checked_first() {
    let world = World::start().await;
    for (name, call) in [
        ("none", Call { date: None, ..good(&world) }),
        ("unreadable", Call { date: Some("yesterday".into()), ..good(&world) }),
        ("old", good(&world).at_offset(TimeDelta::minutes(-15))),
        ("future", good(&world).at_offset(TimeDelta::minutes(16))),
        ("old, anonymous", Call::get("/session/some").at_offset(TimeDelta::hours(-2))),
        (
            "old, garbage",
            Call { date: None, ..Call::get("/session/some") }.header("authorization", "garbage"),
        ),
    ] {
        let problem = world.send(&call).await.problem(400, "invalid-auth-params");
        assert_eq!(problem["msg"], "Date/time sync error", "{name}");
    }
    let just_in_time = good(&world).at_offset(TimeDelta::seconds(-14 * 60 - 50));
    world.send(&just_in_time).await.problem(404, "object-not-found");
}

#[tokio::test]
async fn wrong_credentials_are_refused() {
    let world = World::start().await;
    let inactive = add_user(&world.manager, "off", UserRole::User, "AKIAINACTIVE00000001").await;
    let keypair = bai_core::identity::Keypair { is_active: false, ..inactive.keypair.clone() };
    world.manager.backends().identities.put_keypair(&keypair).await.unwrap();
    world.manager.identities().invalidate();
    let call = || Call::get("/session/some");
    for (call, message) in [
        (call(), "Unauthorized access"),
        (call().header("authorization", ""), "Unauthorized access"),
        (call().signed_with("AKIAIOSFODNN7EXAMPLE", "wrong"), "Signature mismatch"),
        (call().signed_with("AKIAUNKNOWN", "wrong"), "Access key not found"),
        (call().by(&inactive), "Access key not found"),
        (call().header("authorization", "BackendAI signMethod=HMAC, credential=a:b"), "Invalid signature"),
    ] {
        let problem = world.send(&call).await.problem(401, "auth-failed");
        assert_eq!(problem["msg"], message, "{call:?}");
    }
}

#[tokio::test]
async fn malformed_headers_are_refused() {
    let world = World::start().await;
    for (header, message) in [
        ("garbage", "Malformed authorization header"),
        ("Bearer x=1", "Invalid authorization type name"),
        ("backendai signMethod=HMAC-SHA256, credential=a:b", "Invalid authorization type name"),
        ("BackendAI signMethod=HMAC-SHA256", "Missing or malformed authorization parameters"),
        ("BackendAI signMethod=CMAC-SHA256, credential=a:b", "Unsupported request signing method (MAC type)"),
        ("BackendAI signMethod=HMAC-CRC32, credential=a:b", "Unsupported request signing method (hash type)"),
    ] {
        let call = Call::get("/session/some").header("authorization", header);
        assert_eq!(world.send(&call).await.problem(400, "invalid-auth-params")["msg"], message, "{header}");
    }
    let no_version = Call { version: None, ..good(&world) };
    let problem = world.send(&no_version).await.problem(400, "invalid-auth-params");
    assert_eq!(problem["msg"], "API version missing in request headers");
    let problem = world.send(&good(&world).version("v7.20990101")).await.problem(400, "generic-bad-request");
    assert_eq!(problem["msg"], "Unsupported API version.");
}

#[tokio::test]
async fn changed_requests_do_not_pass() {
    let world = World::start().await;
    let signed = Call::get("/session/some?a=1").by(&world.admin);
    let signature = signed.authorization().unwrap();
    let replayed =
        |call: Call| Call { date: signed.date.clone(), ..call }.header("authorization", signature.clone());
    for call in [
        Call::get("/session/some?a=2"),
        Call::get("/session/other?a=1"),
        Call::delete("/session/some?a=1"),
        Call::get("/session/some?a=1").version("v6.20230315"),
        Call { content_type: Some("application/json".into()), ..Call::get("/session/some?a=1") },
    ] {
        let problem = world.send(&replayed(call)).await.problem(401, "auth-failed");
        assert_eq!(problem["msg"], "Signature mismatch");
    }
    world.send(&replayed(Call::get("/session/some?a=1"))).await.problem(404, "object-not-found");
}

#[tokio::test]
async fn too_many_requests_are_refused_with_the_headers() {
    let world = World::start().await;
    let slow = add_user(&world.manager, "slow", UserRole::User, "AKIASLOW").await;
    let keypair = bai_core::identity::Keypair { rate_limit: 2, ..slow.keypair.clone() };
    world.manager.backends().identities.put_keypair(&keypair).await.unwrap();
    world.manager.identities().invalidate();
    let call = Call::get("/auth?echo=x").by(&slow);
    for remaining in ["1", "0"] {
        let answer = world.send(&call).await;
        answer.ok(200);
        assert_eq!(answer.header("x-ratelimit-remaining"), remaining);
    }
    let answer = world.send(&call).await;
    answer.problem(429, "rate-limit-exceeded");
    assert_eq!((answer.header("x-ratelimit-limit"), answer.header("x-ratelimit-remaining")), ("2", "0"));
}

#[tokio::test]
async fn the_owner_of_the_server_is_not_throttled() {
    const BUSIEST: u64 = 30_000; // requests a second, more than a server of a few cores answers
    let world = World::start().await;
    let answer = world.admin(Call::get("/auth?echo=x")).await;
    let limit: u64 = answer.header("x-ratelimit-limit").parse().unwrap();
    let window: u64 = answer.header("x-ratelimit-window").parse().unwrap();
    assert!(limit >= BUSIEST * window, "{limit}");
    // Clients read it as an integer of 32 bits.
    let told = world.query(&world.admin, "{ keypair { rate_limit } }", json!({})).await;
    assert_eq!(told["data"]["keypair"]["rate_limit"], json!(i32::try_from(limit).unwrap()));
}

#[tokio::test]
async fn passwords_buy_keypairs() {
    let world = World::start().await;
    let login = |username: &str, password: &str| {
        let body = json!({ "type": "keypair", "domain": "default", "username": username, "password": password, "otp": "1" });
        Call { date: None, ..Call::post("/auth/authorize").json(&body) }
    };
    let data = world.send(&login("admin@example.com", PASSWORD)).await.ok(200);
    assert_eq!(
        data["data"],
        json!({
            "access_key": "AKIAIOSFODNN7EXAMPLE", "secret_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "role": "superadmin", "status": "active",
        })
    );
    for (username, password) in
        [("admin@example.com", "wrong"), ("nobody@example.com", PASSWORD), ("user@example.com", "")]
    {
        let problem = world.send(&login(username, password)).await.problem(401, "auth-failed");
        assert_eq!(problem["msg"], "User credential mismatch.", "{username}");
    }
    let jwt = Call::post("/auth/authorize")
        .json(&json!({"type": "jwt", "domain": "d", "username": "u", "password": "p"}));
    assert_eq!(
        world.send(&jwt).await.problem(400, "invalid-api-params")["msg"],
        "Unsupported authorization type"
    );
    let empty = Call::post("/auth/authorize").json(&json!({}));
    let data = world.send(&empty).await.problem(400, "invalid-api-params")["data"].clone();
    assert_eq!(data["password"], "is required");
}

#[tokio::test]
async fn roles_are_told() {
    let world = World::start().await;
    let role = world.admin(Call::get("/auth/role")).await.ok(200);
    assert_eq!(role, json!({ "global_role": "superadmin", "domain_role": "user", "group_role": null }));
    let foreign = Call::get("/auth/role?group=12c45b55-ce3c-418d-9c58-223bbba307f1").by(&world.user);
    world.send(&foreign).await.problem(404, "object-not-found");
}
