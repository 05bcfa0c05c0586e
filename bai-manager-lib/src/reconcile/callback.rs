//! Callbacks: the URL of a session is told about its life, once per event, best effort.

use std::sync::Arc;
use std::time::Duration;

use bai_core::port::store::SessionEvent;
use bai_core::{Error, ErrorKind, Result, Session};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::manager::core::Core;

/// Longest wait for the receiver.
const DEADLINE: Duration = Duration::from_secs(30);
/// Receivers called at the same time: slow ones must not hold up the others.
const CONCURRENCY: usize = 32;

/// A call to make.
#[derive(Debug)]
pub(crate) struct Notice {
    url: String,
    body: Value,
}

impl Notice {
    /// The call that `event` asks for, if the session has a URL and the event is one of its life.
    pub(crate) fn of(session: &Session, event: &SessionEvent) -> Option<Self> {
        let url = session.spec.callback_url.clone()?;
        let name = match event.event.name.as_str() {
            // Clients know the preparation of the session by the one of its main kernel.
            "kernel_preparing" if event.event.kernel == Some(session.main().id) => "preparing",
            name => name.strip_prefix("session_")?,
        };
        let body = json!({
            "type": "session_lifecycle",
            "event": name,
            "session_id": session.id,
            "when": event.at,
        });
        Some(Self { url, body })
    }
}

/// Makes the calls.
pub(crate) async fn run(core: Arc<Core>, notices: mpsc::Receiver<Notice>) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let notices = stream::unfold(notices, |mut notices| async { Some((notices.recv().await?, notices)) });
    let calls = notices.for_each_concurrent(CONCURRENCY, |notice| {
        let client = client.clone();
        async move {
            let result = tokio::time::timeout(DEADLINE, call(&client, &notice)).await;
            let failed = |error: &dyn std::fmt::Display| {
                tracing::warn!(url = notice.url, event = %notice.body["event"], %error, "a callback failed");
            };
            match result {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failed(&error),
                Err(late) => failed(&late),
            }
        }
    });
    tokio::select! {
        () = calls => {}
        () = core.tasks.stopped() => {}
    }
}

async fn call(client: &Client<HttpConnector, Full<Bytes>>, notice: &Notice) -> Result<()> {
    let invalid =
        |error: http::Error| Error::new(ErrorKind::Invalid, "the callback cannot be made").source(error);
    let request = http::Request::post(&notice.url)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::from(notice.body.to_string()))
        .map_err(invalid)?;
    let response = client.request(request).await.map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("the receiver cannot be reached: {error}"))
    })?;
    if response.status().is_success() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, "the receiver refused").with("status", response.status()))
}
