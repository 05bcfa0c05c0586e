//! A watch that comes back too late. The server is one of canned answers, as compaction would affect all users of a real one.

use std::sync::{Arc, Mutex};

use bai_core::port::config::{ConfigChange, ConfigEntry};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Answers each request with the next lines and the end of the connection; keeps the requests' bodies.
async fn serve(answers: Vec<Vec<Value>>) -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = requests.clone();
    tokio::spawn(async move {
        for lines in answers {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let request = receive(&mut stream).await;
            kept.lock().unwrap().push(request);
            answer(stream.into_inner(), &lines).await;
        }
    });
    (url, requests)
}

async fn receive(stream: &mut BufReader<TcpStream>) -> Value {
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

async fn answer(mut stream: TcpStream, lines: &[Value]) {
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await.unwrap();
    for line in lines {
        // In pieces, as the network may deliver them.
        for piece in format!("{line}\n").as_bytes().chunks(50) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    }
}

fn line(revision: i64, more: &Value) -> Value {
    let mut result = json!({ "header": { "revision": revision.to_string() } });
    result.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "result": result })
}

fn put(key: &str, revision: i64) -> Value {
    let kv = json!({ "key": STANDARD.encode(key), "value": STANDARD.encode("x"), "mod_revision": revision.to_string() });
    line(revision, &json!({ "events": [{ "kv": kv }] }))
}

#[tokio::test]
async fn a_watch_that_is_late_is_told_once_and_goes_on_with_what_is_there() {
    let created = |revision| line(revision, &json!({ "created": true }));
    let compacted = json!({ "canceled": true, "compact_revision": "40" });
    let (url, requests) = serve(vec![
        vec![json!({})],                                                // of connecting
        vec![created(10), put("p/config/1", 12), line(20, &json!({}))], // with a note of progress
        vec![created(50), line(50, &compacted)],
        vec![created(50), put("p/config/2", 45)],
    ])
    .await;
    let mut options = EtcdOptions::default();
    options.prefix = "p/".to_owned();
    let mut watch = Etcd::connect(&[url], options).await.unwrap().watch("").await.unwrap();
    let entry = |key: &str, revision| {
        ConfigChange::Put(ConfigEntry { key: key.to_owned(), value: "x".to_owned(), revision })
    };
    assert_eq!(watch.next().await.unwrap().unwrap(), entry("1", 12));
    assert_eq!(watch.next().await.unwrap().unwrap_err().code(), code::COORD_FAILED); // the connection has ended
    assert_eq!(watch.next().await.unwrap().unwrap_err().code(), code::EVENTS_LAGGED);
    assert_eq!(watch.next().await.unwrap().unwrap(), entry("2", 45));
    let starts: Vec<_> = requests.lock().unwrap()[1..].iter().map(start_revision).collect();
    assert_eq!(starts, ["0", "21", "40"]);
}

fn start_revision(request: &Value) -> String {
    request["create_request"]["start_revision"].as_str().unwrap().to_owned()
}
