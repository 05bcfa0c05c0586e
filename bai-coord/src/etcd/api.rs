//! The JSON gateway: bytes are base64, 64-bit numbers are texts, and zero values are left out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bai_core::error::{Error, Result, code};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::failed;

/// How often an idle connection is tried. One that fails three times is lost.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The members of an etcd cluster.
pub(super) struct Api {
    client: Client,
    endpoints: Vec<Url>,
    /// The endpoint that is asked first.
    current: AtomicUsize,
    timeout: Duration,
}

/// One of the endpoints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member(usize);

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
        let attempts = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
        // Members that do not even accept a connection leave time for the others within one deadline.
        let connect_timeout =
            timeout.checked_div(attempts).ok_or_else(|| invalid("no etcd endpoint is given"))?;
        let _ = rustls::crypto::ring::default_provider().install_default(); // fails when there is one already
        let client = Client::builder()
            .connect_timeout(connect_timeout)
            .tcp_keepalive(KEEPALIVE)
            .tcp_keepalive_interval(KEEPALIVE)
            .tcp_keepalive_retries(3)
            .build()
            .map_err(|error| failed("the HTTP client cannot be built").source(error))?;
        Ok(Self { client, endpoints, current: AtomicUsize::new(0), timeout })
    }

    /// One call with one answer.
    pub(super) async fn call<T: DeserializeOwned>(&self, path: &str, request: &Value) -> Result<T> {
        let answer = async { self.send(path, request).await?.1.json().await.map_err(unreachable) };
        self.in_time(answer).await
    }

    /// A call whose answer has no end, and the member that gives it. The caller awaits it within the deadline.
    pub(super) async fn stream(&self, path: &str, request: &Value) -> Result<(Member, Response)> {
        self.send(path, request).await
    }

    /// Whether that member answers, which it can only as long as it sees a majority of the others.
    pub(super) async fn probe(&self, member: Member) -> Result<()> {
        let request = KeyRange::only("\0").request();
        let call = self.post(member, "/v3/kv/range", &request)?.timeout(self.timeout);
        accepted(call.send().await.map_err(unreachable)?).await.map(drop)
    }

    /// Ends work at the deadline. The member that was late is not asked first the next time.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let member = self.member();
        tokio::time::timeout(self.timeout, work).await.unwrap_or_else(|_| {
            self.pass_over(member);
            Err(failed("etcd did not answer in time"))
        })
    }

    /// Lets the next call begin with another member.
    pub(super) fn pass_over(&self, member: Member) {
        let next = (member.0 + 1) % self.endpoints.len();
        // Fails when another call has done so.
        let _ = self.current.compare_exchange(member.0, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn member(&self) -> Member {
        Member(self.current.load(Ordering::Relaxed))
    }

    fn post(&self, member: Member, path: &str, request: &Value) -> Result<RequestBuilder> {
        let url = self.endpoints[member.0].join(path);
        Ok(self.client.post(url.map_err(|error| failed("not a valid path").source(error))?).json(request))
    }

    /// Tries the members in turn, as long as they cannot be reached: a request that was sent is not sent again.
    async fn send(&self, path: &str, request: &Value) -> Result<(Member, Response)> {
        let mut last_error = failed("no etcd endpoint is given");
        for _ in &self.endpoints {
            let member = self.member();
            let answer = match self.post(member, path, request)?.send().await {
                Ok(response) => accepted(response).await,
                Err(error) if error.is_connect() => {
                    self.pass_over(member);
                    last_error = unreachable(error);
                    continue;
                }
                Err(error) => Err(unreachable(error)),
            };
            if answer.as_ref().is_err_and(|error| error.code() == code::COORD_FAILED) {
                self.pass_over(member);
            }
            return Ok((member, answer?));
        }
        Err(last_error)
    }
}

fn unreachable(error: reqwest::Error) -> Error {
    let message = if error.is_timeout() {
        "etcd did not answer in time"
    } else if error.is_decode() {
        "etcd's answer cannot be read"
    } else {
        "etcd cannot be reached"
    };
    failed(message).source(error)
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
