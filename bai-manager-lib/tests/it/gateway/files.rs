//! Uploads, downloads and listings.

use bai_core::identity::Credential;
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::world::World;

const BOUNDARY: &str = "bf95464337304b7eb50ef2a922f0ce70";

/// Names, escaped as the client does, with contents.
type Files<'a> = &'a [(&'a str, &'a [u8])];

fn multipart(files: Files<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in files {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\
             Content-Disposition: form-data; name=\"src\"; filename=\"{name}\"\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

async fn upload(world: &World, caller: &Credential, files: Files<'_>) -> Answer {
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    Call::post("/session/gold1/upload")
        .raw(&content_type, multipart(files))
        .by(caller)
        .send(&world.router)
        .await
}

#[tokio::test]
async fn files_go_up_and_come_down() {
    let world = World::start().await;
    world.session("gold1").await;
    let files: [(&str, &[u8]); 3] =
        [("main.py", b"print(1)"), ("sub%2Fa%20b.txt", b"x"), ("raw.bin", b"\r\n--\0\xff")];
    upload(&world, &world.admin, &files).await.ok(204);
    assert_eq!(world.agent.file("sub/a b.txt").unwrap(), b"x");
    assert_eq!(world.agent.file("raw.bin").unwrap(), b"\r\n--\0\xff");

    for call in [Call::get("/session/gold1/download"), Call::post("/session/gold1/download")] {
        let answer = world.admin(call.json(&json!({ "files": ["main.py", "raw.bin"] }))).await;
        assert_eq!(answer.status.as_u16(), 200);
        let boundary = answer.header("content-type").strip_prefix("multipart/mixed; boundary=").unwrap();
        let body = String::from_utf8_lossy(&answer.body);
        assert_eq!(body.matches(&format!("--{boundary}\r\n")).count(), 2);
        assert!(body.ends_with(&format!("\r\n--{boundary}--\r\n")));
        assert_eq!(body.matches("Content-Encoding: identity\r\n").count(), 2);
        assert!(body.contains("Content-Length: 12\r\n\r\ntar:print(1)\r\n"), "{body}");
    }
    let single = world.admin(Call::get("/session/gold1/download_single?file=main.py")).await;
    assert_eq!((single.status.as_u16(), &single.body[..]), (200, b"print(1)".as_slice()));
}

#[tokio::test]
async fn bad_uploads_write_nothing() {
    let world = World::start().await;
    world.session("gold1").await;
    let big = vec![b'x'; 1 << 20];
    let many: Vec<_> = (0..21).map(|i| format!("f{i}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), b"x".as_slice())).collect();
    let rows: [(Files<'_>, Option<&str>); 6] = [
        (&[("ok", b"x"), ("big", &big)], Some("Too large file (path: big, limit: less than 1 MiB)")),
        (&many, Some("Too many files (limit: 20)")),
        (&[("ok", b"x"), ("../evil", b"x")], None),
        (&[("ok", b"x"), ("..%2Fevil", b"x")], None),
        (&[("ok", b"x"), ("/etc/passwd", b"x")], None),
        (&[("ok", b"x"), ("%2Fetc%2Fpasswd", b"x")], None),
    ];
    for (files, message) in rows {
        let problem = upload(&world, &world.admin, files).await.problem(400, "invalid-api-params");
        if let Some(message) = message {
            assert_eq!(problem["msg"], message);
        }
        assert_eq!(world.agent.file_count(), 0, "{:?}", files.last().map(|file| file.0));
    }
    let all_full: Vec<_> = (0..20).map(|i| (format!("f{i}"), vec![b'x'; (1 << 20) - 1])).collect();
    let all_full: Vec<_> =
        all_full.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    upload(&world, &world.admin, &all_full).await.ok(204);
    assert_eq!(world.agent.file_count(), 20);
}

#[tokio::test]
async fn uploads_that_are_no_multipart_are_refused() {
    let world = World::start().await;
    world.session("gold1").await;
    for (content_type, body) in [
        ("application/json", b"{}".to_vec()),
        ("multipart/form-data", multipart(&[("a", b"x")])),
        ("multipart/form-data; boundary=other", multipart(&[("a", b"x")])),
        (
            "multipart/form-data; boundary=bf95464337304b7eb50ef2a922f0ce70",
            multipart(&[("a", b"x")])[..60].to_vec(),
        ),
    ] {
        let call = Call::post("/session/gold1/upload").raw(content_type, body);
        world.admin(call).await.problem(400, "invalid-api-params");
    }
    assert_eq!(world.agent.file_count(), 0);
}

#[tokio::test]
async fn missing_files_are_told() {
    let world = World::start().await;
    world.session("gold1").await;
    let call = Call::get("/session/gold1/download").json(&json!({ "files": ["nosuch"] }));
    assert_eq!(world.admin(call).await.problem(400, "invalid-api-params")["msg"], "The file is not found.");
    let call = Call::get("/session/gold1/download").json(&json!({ "files": ["a", "b", "c", "d", "e", "f"] }));
    world.admin(call).await.problem(400, "invalid-api-params");
    let call = Call::get("/session/gold1/download").json(&json!({ "files": ["../../etc/passwd"] }));
    world.admin(call).await.problem(400, "invalid-api-params");
    world
        .admin(Call::get("/session/gold1/download_single?file=nosuch"))
        .await
        .problem(400, "invalid-api-params");
}

#[tokio::test]
async fn listings_are_a_text_in_json() {
    let world = World::start().await;
    world.session("gold1").await;
    upload(&world, &world.admin, &[("main.py", b"print(1)")]).await.ok(204);
    let listing =
        world.admin(Call::get("/session/gold1/files").json(&json!({ "path": "/home/work" }))).await.ok(200);
    assert_eq!((&listing["errors"], &listing["abspath"]), (&json!(""), &json!("/home/work")));
    let entries: Value = serde_json::from_str(listing["files"].as_str().unwrap()).unwrap();
    assert_eq!(entries[0]["filename"], "main.py");
    let missing =
        world.admin(Call::get("/session/gold1/files").json(&json!({ "path": "no-such-dir" }))).await.ok(200);
    assert_eq!((missing["files"].as_str(), missing["abspath"].as_str()), (Some("[]"), Some("no-such-dir")));
    assert_ne!(missing["errors"], "");
}
