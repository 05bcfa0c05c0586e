use std::time::Duration;

use bai_core::Secret;
use bai_core::error::{Code, Error, Result, code};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{WireError, decode, encode};

/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// A silent connection is asked for a sign of life this often, and given up after as long without one.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Largest answer in bytes: a console log and room.
const MAX_ANSWER: usize = 64 << 20;

/// The calling half: one HTTP/2 connection, made when needed and again when lost.
#[derive(Debug)]
pub(crate) struct Caller {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    authorization: HeaderValue,
    /// Code of errors that mean "cannot be reached".
    unreachable: Code,
}

impl Caller {
    /// `addr` is `host:port`, with or without `http://`. Nothing is sent yet.
    ///
    /// # Errors
    /// `Invalid` when the address or the secret cannot be used.
    pub(crate) fn new(addr: &str, secret: &Secret<String>, unreachable: Code) -> Result<Self> {
        let host = addr.trim_start_matches("http://").trim_end_matches('/');
        let bad_address =
            |error| Error::of(code::CONFIG_INVALID, "not an address").with("value", addr).source(error);
        let uri = format!("http://{host}/rpc").parse::<Uri>().map_err(bad_address)?;
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", secret.reveal())).map_err(|_| {
                Error::of(code::CONFIG_INVALID, "the shared secret has characters that cannot be sent")
            })?;
        authorization.set_sensitive(true);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .build(connector);
        Ok(Self { client, uri, authorization, unreachable })
    }

    /// Sends a call and waits for the answer, at most for `deadline`. Dropping the future cancels it at the other end.
    ///
    /// # Errors
    /// What the other end returned; `Unavailable` when it cannot be reached, `Timeout` after the deadline (the outcome is
    /// then unknown), `Unauthorized` when the secrets differ.
    pub(crate) async fn call<A: DeserializeOwned>(
        &self,
        call: &impl Serialize,
        deadline: Duration,
    ) -> Result<A> {
        let body = Bytes::from(encode(call)?);
        let late = |_| Error::of(code::TIMEOUT, "the other end does not answer").with("name", &self.uri);
        let bytes = tokio::time::timeout(deadline, self.post(body)).await.map_err(late)??;
        decode::<std::result::Result<A, WireError>>(&bytes)?.map_err(Error::from)
    }

    async fn post(&self, body: Bytes) -> Result<Bytes> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/msgpack"))
            .body(Full::new(body))
            .map_err(|error| Error::of(code::INTERNAL, "the request cannot be built").source(error))?;
        let response = self.client.request(request).await.map_err(|error| self.lost(error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                return Err(Error::of(code::UNAUTHORIZED, "the shared secrets differ"));
            }
            status => {
                return Err(
                    Error::of(code::BAD_REPLY, "the other end did not understand").with("value", status)
                );
            }
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Ok(body.map_err(|error| self.lost(error))?.to_bytes())
    }

    fn lost(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::of(self.unreachable, "the other end cannot be reached").with("name", &self.uri).source(error)
    }
}
