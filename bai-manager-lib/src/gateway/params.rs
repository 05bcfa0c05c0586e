//! Parameters of requests: a JSON body on any method beats the query string (spec auth.md, section 7).
//!
//! ```text
//! let mut check = params.check();
//! let name  = check.required("name|session_name|clientSessionToken", kind::session_name);
//! let reuse = check.or("reuseIfExists", kind::boolean, true);
//! check.finish()?;          // every mistake at once: {"name": "is required", "foo": "foo is not allowed key"}
//! ```

mod check;
pub(super) mod kind;

use axum::body::Bytes;
use axum::extract::{FromRequest, Query, Request};
use axum::http::Uri;
use bai_core::error::code;
use serde_json::{Map, Value};

use super::Gateway;
use super::failure::Failure;

pub(super) use check::Check;

/// The parameters of a request, before they are checked.
#[derive(Debug)]
pub(super) struct Params {
    values: Map<String, Value>,
    owner: Option<String>,
}

impl Params {
    /// The access key that the request acts for, from body or query (`owner_access_key`, honoured everywhere).
    pub(super) fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// Starts checking.
    pub(super) fn check(self) -> Check {
        Check::new(self.values)
    }

    fn new(mut values: Map<String, Value>, query: &Uri) -> Self {
        let named = values.get("owner_access_key").and_then(|value| match value {
            Value::String(key) => Some(Some(key.clone())),
            Value::Null => Some(None),
            _ => None,
        });
        if named.is_some() {
            values.remove("owner_access_key");
        }
        let owner =
            named.flatten().or_else(|| query_value(query, "owner_access_key")).filter(|key| !key.is_empty());
        Self { values, owner }
    }
}

impl FromRequest<Gateway> for Params {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &Gateway) -> Result<Self, Failure> {
        let uri = request.uri().clone();
        let body = read_body(request, state).await?;
        let values = if body.is_empty() { query_values(&uri) } else { parse_object(&body)? };
        Ok(Self::new(values, &uri))
    }
}

/// Only the owner of a request whose other parameters are ignored.
#[derive(Debug)]
pub(super) struct OwnerOnly(Option<String>);

impl OwnerOnly {
    /// The access key that the request acts for.
    pub(super) fn owner(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl FromRequest<Gateway> for OwnerOnly {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &Gateway) -> Result<Self, Failure> {
        let uri = request.uri().clone();
        let body = read_body(request, state).await?;
        let values = serde_json::from_slice(&body).unwrap_or_default();
        Ok(Self(Params::new(values, &uri).owner))
    }
}

async fn read_body(request: Request, state: &Gateway) -> Result<Bytes, Failure> {
    let limit = state.options().max_body;
    axum::body::to_bytes(request.into_body(), limit)
        .await
        .map_err(|_| Failure::of(code::MALFORMED_BODY, "The request body is too large or was cut off"))
}

fn parse_object(body: &[u8]) -> Result<Map<String, Value>, Failure> {
    // The parser refuses more than 128 levels of nesting, so that no body can exhaust the stack.
    serde_json::from_slice(body).map_err(|_| Failure::of(code::MALFORMED_BODY, "Malformed body"))
}

/// Query parameters as texts; of a repeated key the first value.
fn query_values(uri: &Uri) -> Map<String, Value> {
    let mut values = Map::new();
    for (key, value) in query_pairs(uri) {
        values.entry(key).or_insert(Value::String(value));
    }
    values
}

/// One query parameter.
pub(super) fn query_value(uri: &Uri, name: &str) -> Option<String> {
    uri.query()?
        .contains(name)
        .then(|| query_pairs(uri))?
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|pair| pair.1)
}

fn query_pairs(uri: &Uri) -> Vec<(String, String)> {
    if uri.query().is_none_or(str::is_empty) {
        return Vec::new();
    }
    Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default()
}
