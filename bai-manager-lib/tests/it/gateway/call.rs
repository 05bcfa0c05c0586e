//! Requests, signed as the official client signs them, and their answers.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bai_core::identity::Credential;
use bai_core::signing::{RequestToSign, VersionHeader, format_date, media_type};
use bai_core::{Clock, SystemClock};
use chrono::TimeDelta;
use serde_json::Value;
use tower::ServiceExt;

pub(crate) const HOST: &str = "127.0.0.1:8081";

/// A request in the making.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) body: Bytes,
    pub(crate) content_type: Option<String>,
    pub(crate) key: Option<(String, String)>,
    pub(crate) date: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Call {
    pub(crate) fn new(method: Method, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            body: Bytes::new(),
            content_type: Some("text/plain".into()),
            key: None,
            date: Some(format_date(SystemClock.now())),
            version: Some("v7.20230615".into()),
            headers: Vec::new(),
        }
    }

    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new(Method::GET, target)
    }

    pub(crate) fn post(target: impl Into<String>) -> Self {
        Self::new(Method::POST, target)
    }

    pub(crate) fn delete(target: impl Into<String>) -> Self {
        Self::new(Method::DELETE, target)
    }

    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into();
        self.content_type = Some("application/json".into());
        self
    }

    pub(crate) fn raw(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.content_type = Some(content_type.into());
        self
    }

    pub(crate) fn by(mut self, credential: &Credential) -> Self {
        let keypair = &credential.keypair;
        self.key = Some((keypair.access_key.to_string(), keypair.secret_key.reveal().clone()));
        self
    }

    pub(crate) fn signed_with(mut self, access_key: &str, secret_key: &str) -> Self {
        self.key = Some((access_key.into(), secret_key.into()));
        self
    }

    pub(crate) fn at_offset(mut self, offset: TimeDelta) -> Self {
        self.date = Some(format_date(SystemClock.now() + offset));
        self
    }

    pub(crate) fn version(mut self, version: &str) -> Self {
        self.version = Some(version.into());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The value of the authorization header.
    pub(crate) fn authorization(&self) -> Option<String> {
        let (access_key, secret_key) = self.key.as_ref()?;
        let content_type = media_type(self.content_type.as_deref());
        let request = RequestToSign {
            method: self.method.as_str(),
            target: &self.target,
            host: HOST,
            date: self.date.as_deref()?,
            content_type: &content_type,
            version: VersionHeader::BackendAi(self.version.as_deref().unwrap_or_default()),
        };
        request.authorization(access_key, secret_key).ok()
    }

    pub(crate) fn request(&self) -> Request<Body> {
        let mut request = Request::builder().method(&self.method).uri(&self.target).header("host", HOST);
        if let Some(authorization) = self.authorization() {
            request = request.header("authorization", authorization);
        }
        let optional = [
            ("date", &self.date),
            ("x-backendai-version", &self.version),
            ("content-type", &self.content_type),
        ];
        for (name, value) in optional {
            request = value.iter().fold(request, |request, value| request.header(name, value));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Body::from(self.body.clone())).unwrap()
    }

    /// Sends the request into the router.
    pub(crate) async fn send(&self, router: &Router) -> Answer {
        let response = router.clone().oneshot(self.request()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.body))
    }

    /// The JSON body of a success.
    #[track_caller]
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The problem body, whose type must be `slug`, and which must have what the official client needs.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        assert!(self.header("content-type").starts_with("application/problem+json"));
        assert_eq!(self.header("server"), "BackendAI");
        assert!(!self.header("x-ratelimit-limit").is_empty());
        let body = self.json();
        assert_eq!(body["type"], format!("https://api.backend.ai/probs/{slug}"));
        assert!(body["title"].is_string());
        body
    }
}
