//! The JSON gateway: bytes are base64, 64-bit numbers are texts, and zero values are left out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bai_core::error::{Error, Result, code};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Response, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::failed;

/// The members of an etcd cluster.
pub(super) struct Api {
    client: Client,
    endpoints: Vec<Url>,
    /// The endpoint that answered last.
    current: AtomicUsize,
    timeout: Duration,
}

/// Keys from `start` to before `end`, or only `start`.
#[derive(Debug, Clone)]
pub(super) struct KeyRange {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

/// A key with its value.
#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "text")]
    pub(super) key: String,
    #[serde(default, deserialize_with = "text")]
    pub(super) value: String,
    #[serde(default, deserialize_with = "number")]
    pub(super) mod_revision: i64,
}

/// Where the cluster stands.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: i64,
}

/// What the gateway answers in place of a result.
#[derive(Debug, Deserialize)]
struct Failure {
    #[serde(default)]
    error: String,
    /// Code of gRPC.
    #[serde(default)]
    code: i64,
}

impl KeyRange {
    pub(super) fn only(key: &str) -> Self {
        Self { start: key.as_bytes().to_vec(), end: None }
    }

    /// All keys that start with `prefix`.
    pub(super) fn below(prefix: &str) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        // A byte of UTF-8 is never 255: the last one can always be counted up. No end at all is a zero byte.
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end.push(0),
        }
        let start = if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() };
        Self { start, end: Some(end) }
    }

    /// The members `key` and `range_end` of a request.
    pub(super) fn request(&self) -> Value {
        let mut request = json!({ "key": STANDARD.encode(&self.start) });
        if let Some(end) = &self.end {
            request["range_end"] = STANDARD.encode(end).into();
        }
        request
    }
}

impl Api {
    pub(super) fn new(endpoints: &[String], timeout: Duration) -> Result<Self> {
        let invalid = |message: &str| Error::of(code::CONFIG_INVALID, message);
        let parsed = endpoints.iter().map(|endpoint| {
            let url = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            url.ok_or_else(|| invalid("not a valid etcd endpoint").with("endpoint", endpoint))
        });
        let endpoints: Vec<_> = parsed.collect::<Result<_>>()?;
        if endpoints.is_empty() {
            return Err(invalid("no etcd endpoint is given"));
        }
        let _ = rustls::crypto::ring::default_provider().install_default(); // fails when there is one already
        let client = Client::builder()
            .connect_timeout(timeout)
            .tcp_keepalive(Duration::from_secs(15))
            .build()
            .map_err(|error| failed("the HTTP client cannot be built").source(error))?;
        Ok(Self { client, endpoints, current: AtomicUsize::new(0), timeout })
    }

    /// One call with one answer.
    pub(super) async fn call<T: DeserializeOwned>(&self, path: &str, request: &Value) -> Result<T> {
        let response = self.send(path, request, Some(self.timeout)).await?;
        response.json().await.map_err(|error| failed("etcd's answer cannot be read").source(error))
    }

    /// A call whose answer has no end.
    pub(super) async fn stream(&self, path: &str, request: &Value) -> Result<Response> {
        self.send(path, request, None).await
    }

    /// Tries the members in turn, as long as they cannot be reached: a request that was sent is not sent again.
    async fn send(&self, path: &str, request: &Value, timeout: Option<Duration>) -> Result<Response> {
        let first = self.current.load(Ordering::Relaxed);
        let mut last_error = None;
        for offset in 0..self.endpoints.len() {
            let index = (first + offset) % self.endpoints.len();
            let url =
                self.endpoints[index].join(path).map_err(|error| failed("not a valid path").source(error))?;
            let mut call = self.client.post(url).json(request);
            if let Some(timeout) = timeout {
                call = call.timeout(timeout);
            }
            match call.send().await {
                Ok(response) => {
                    self.current.store(index, Ordering::Relaxed);
                    return accepted(response).await;
                }
                Err(error) if error.is_connect() => last_error = Some(error),
                Err(error) => return Err(unreachable(error)),
            }
        }
        Err(last_error.map_or_else(|| failed("no etcd endpoint is given"), unreachable))
    }
}

fn unreachable(error: reqwest::Error) -> Error {
    if error.is_timeout() {
        return Error::of(code::COORD_FAILED, "etcd did not answer in time").source(error);
    }
    failed("etcd cannot be reached").source(error)
}

async fn accepted(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let failure = response.json::<Failure>().await.unwrap_or(Failure { error: String::new(), code: 0 });
    let error = match failure.code {
        5 => Error::of(code::OBJECT_NOT_FOUND, "etcd does not know this"), // gRPC: not found
        _ => failed("etcd refused the call"),
    };
    Err(error.with("status", status.as_u16()).with("error", failure.error))
}

/// A text in base64.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let encoded = String::deserialize(deserializer)?;
    let bytes = STANDARD.decode(encoded).map_err(serde::de::Error::custom)?;
    String::from_utf8(bytes).map_err(serde::de::Error::custom)
}

/// A 64-bit number as text.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// Base64 of a text.
pub(super) fn encode(text: &str) -> String {
    STANDARD.encode(text)
}
