//! What needs a socket or does not end: WebSockets, server-sent events, shutdown.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::http::Request;
use bai_manager_lib::gateway;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async};
use tower::ServiceExt;

use super::call::{Call, HOST};
use super::world::World;

const PATIENCE: Duration = Duration::from_secs(10);

/// A world behind a socket.
struct Served {
    world: World,
    address: std::net::SocketAddr,
    server: tokio::task::JoinHandle<bai_core::Result<()>>,
}

impl Served {
    async fn start() -> Self {
        let world = World::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (manager, options) = (world.manager.clone(), world.options());
        let server = tokio::spawn(gateway::serve(manager, listener, options, world.shutdown.clone()));
        Self { world, address, server }
    }

    async fn open(&self, target: &str) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, u16> {
        let mut call = Call::get(target).by(&self.world.admin);
        call.content_type = None;
        let mut request = call.request().map(|_| ());
        *request.uri_mut() = format!("ws://{HOST}{target}").parse().unwrap();
        let extra = Request::builder()
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap();
        request.headers_mut().extend(extra.into_parts().0.headers);
        let stream = TcpStream::connect(self.address).await.unwrap();
        match client_async(request, MaybeTlsStream::Plain(stream)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn stop(self) {
        self.world.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.server).await.unwrap().unwrap().unwrap();
        self.world.manager.shutdown().await;
    }
}

/// Frames until the server closes, with its close code.
async fn frames(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> (Vec<Value>, Option<u16>) {
    let mut frames = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Message::Text(text))) => frames.push(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(frame))) => return (frames, frame.map(|frame| frame.code.into())),
            Some(Ok(_)) => {}
            Some(Err(error)) => panic!("{error}"),
            None => return (frames, None),
        }
    }
}

async fn next(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> Value {
    let frame = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    serde_json::from_str(frame.to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn a_query_and_a_batch_stream() {
    let served = Served::start().await;
    served.world.session("gold1").await;
    let mut socket = served.open("/stream/session/gold1/execute").await.unwrap();
    let query = json!({ "mode": "query", "code": "hello", "options": {} });
    socket.send(Message::text(query.to_string())).await.unwrap();
    let (got, _) = frames(&mut socket).await;
    let finished = json!({ "status": "finished", "console": [["stdout", "hello"]], "exitCode": 0, "options": null, "files": [] });
    assert_eq!(got, [finished]);

    let mut socket = served.open("/stream/session/gold1/execute").await.unwrap();
    let batch =
        json!({ "mode": "batch", "code": "", "options": { "clean": "*", "build": "*", "exec": "app" } });
    socket.send(Message::text(batch.to_string())).await.unwrap();
    let (got, _) = frames(&mut socket).await;
    let statuses: Vec<_> = got.iter().map(|frame| frame["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["clean-finished", "build-finished", "finished"]);
    served.stop().await;
}

#[tokio::test]
async fn input_is_a_plain_line() {
    let served = Served::start().await;
    served.world.session("gold1").await;
    let mut socket = served.open("/stream/session/gold1/execute").await.unwrap();
    let query = json!({ "mode": "query", "code": "ask who? ", "options": {} });
    socket.send(Message::text(query.to_string())).await.unwrap();
    let asked = next(&mut socket).await;
    assert_eq!(
        (&asked["status"], &asked["options"]),
        (&json!("waiting-input"), &json!({ "is_password": false }))
    );
    socket.send(Message::text("42")).await.unwrap();
    let (got, _) = frames(&mut socket).await;
    assert_eq!(got[0]["console"], json!([["stdout", "got 42\n"]]));
    served.stop().await;
}

#[tokio::test]
async fn bad_first_frames_are_told() {
    let served = Served::start().await;
    served.world.session("gold1").await;
    for first in [
        "nonsense",
        "[]",
        r#"{"code": "x"}"#,
        r#"{"mode": "input", "code": "x"}"#,
        r#"{"mode": "query", "code": 5}"#,
    ] {
        let mut socket = served.open("/stream/session/gold1/execute").await.unwrap();
        socket.send(Message::text(first)).await.unwrap();
        let (got, _) = frames(&mut socket).await;
        assert_eq!(got[0]["status"], "error", "{first}");
        assert!(got[0]["msg"].as_str().unwrap().starts_with("Invalid API parameters: "), "{first}: {got:?}");
    }
    assert_eq!(served.open("/stream/session/nosuch/execute").await.unwrap_err(), 404);
    served.stop().await;
}

#[tokio::test]
async fn a_run_whose_session_ends_is_finished() {
    let served = Served::start().await;
    served.world.session("gold1").await;
    let mut socket = served.open("/stream/session/gold1/execute").await.unwrap();
    socket.send(Message::text(r#"{"mode": "query", "code": "spin"}"#)).await.unwrap();
    assert_eq!(next(&mut socket).await["status"], "continued");
    served.world.admin(Call::delete("/session/gold1")).await.ok(200);
    let (got, _) = frames(&mut socket).await;
    let last = got.last().unwrap();
    assert_eq!((&last["status"], &last["exitCode"]), (&json!("finished"), &json!(130)), "{got:?}");
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_interrupts_its_run() {
    let served = Served::start().await;
    served.world.session("gold1").await;
    let mut socket = served.open("/stream/session/gold1/execute").await.unwrap();
    socket.send(Message::text(r#"{"mode": "query", "code": "spin"}"#)).await.unwrap();
    assert_eq!(next(&mut socket).await["status"], "continued");
    assert_eq!(next(&mut socket).await["status"], "continued");
    drop(socket);
    let interrupted = async {
        while served.world.agent.interrupts() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, interrupted).await.unwrap();
    served.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_every_stream() {
    let served = Served::start().await;
    served.world.session("gold1").await;
    let mut socket = served.open("/stream/session/gold1/execute").await.unwrap();
    socket.send(Message::text(r#"{"mode": "query", "code": "spin"}"#)).await.unwrap();
    next(&mut socket).await;
    let events = Call::get("/events/session").by(&served.world.admin);
    let response = served.world.router.clone().oneshot(events.request()).await.unwrap();
    let started = tokio::time::Instant::now();
    served.world.shutdown.cancel();
    let (got, _) = frames(&mut socket).await;
    assert_eq!(got.last().unwrap()["status"], "server-restarting");
    assert_eq!(served.world.agent.interrupts(), 0);
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert!(String::from_utf8_lossy(&body).ends_with("event: server_close\ndata: {}\n\n"), "{body:?}");
    served.stop().await;
    assert!(started.elapsed() < PATIENCE / 2);
}

/// Reads events until one of the given name has come.
async fn until(stream: &mut BodyDataStream, name: &str) -> String {
    let mut text = String::new();
    while !text.contains(&format!("event: {name}\n")) {
        let chunk = tokio::time::timeout(PATIENCE, stream.next()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("no {name} in {text}")).unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    text
}

async fn subscribe(world: &World, call: Call) -> BodyDataStream {
    let response = world.router.clone().oneshot(call.request()).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    response.into_body().into_data_stream()
}

#[tokio::test]
async fn events_follow_a_session() {
    let world = World::start().await;
    let mut all = subscribe(&world, Call::get("/events/session?sessionName=gold1").by(&world.admin)).await;
    let mut kernels = subscribe(&world, Call::get("/events/session?scope=kernel").by(&world.admin)).await;
    let mut others = subscribe(&world, Call::get("/events/session").by(&world.user)).await;
    world.session("other").await;
    let id = world.session("gold1").await;
    let text = until(&mut all, "session_started").await;
    assert!(!text.contains("\"other\""), "{text}");
    let data = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&data["sessionName"], &data["sessionId"]), (&json!("gold1"), &json!(id)));
    assert_eq!(data["ownerAccessKey"], "AKIAIOSFODNN7EXAMPLE");
    assert!(data.get("exitCode").is_some_and(Value::is_null) && data["reason"].is_string());
    let text = until(&mut kernels, "kernel_started").await;
    assert!(!text.contains("event: session_"), "{text}");
    world.admin(Call::delete("/session/gold1")).await.ok(200);
    until(&mut all, "session_terminated").await;
    world.session_of(&world.user, "mine").await;
    let text = until(&mut others, "session_started").await;
    assert!(!text.contains("gold1") && text.contains("mine"), "{text}");
}

#[tokio::test]
async fn idle_event_streams_breathe_and_bad_filters_are_refused() {
    let world = World::start().await;
    let mut stream = subscribe(&world, Call::get("/events/session").by(&world.admin)).await;
    let comment = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(&comment[..], b": ping\n\n");
    for (target, status, slug) in [
        ("/events/session?scope=moon", 400, "invalid-api-params"),
        ("/events/session?sessionId=x", 400, "invalid-api-params"),
        ("/events/session?more=x", 400, "invalid-api-params"),
        ("/events/session?group=nosuch", 404, "object-not-found"),
        ("/events/session?ownerAccessKey=AKIAIOSFODNN7EXAMPLE", 403, "generic-forbidden"),
    ] {
        world.send(&Call::get(target).by(&world.user)).await.problem(status, slug);
    }
}

#[tokio::test]
async fn plain_connections_are_served_and_ended() {
    let served = Served::start().await;
    served.world.session("gold1").await;
    let call = Call::get("/session/gold1").by(&served.world.admin);
    let mut text = format!("GET /session/gold1 HTTP/1.1\r\nhost: {HOST}\r\n");
    for (name, value) in call.request().headers().iter().filter(|(name, _)| *name != "host") {
        text.extend([name.as_str(), ": ", value.to_str().unwrap(), "\r\n"]);
    }
    text.push_str("\r\n");
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes()).await.unwrap();
    let mut reply = vec![0; 64];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut reply).await.unwrap();
    assert!(reply[..read].starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&reply));
    served.stop().await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest))
        .await
        .unwrap();
}
