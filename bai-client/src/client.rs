//! The client: signing, sending, and what the server said.

use std::sync::Arc;

use bai_core::{Clock, Error, ErrorKind, Result, Secret, SystemClock, error::code, signing};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::reply::{self, ServerInfo};
use crate::transport::{Body, Http, Transport};

/// API version that this SDK speaks.
const API_VERSION: &str = "v7.20230615";

/// A keypair.
#[derive(Debug, Clone)]
pub struct Credentials {
    access_key: String,
    secret_key: Secret,
}

impl Credentials {
    /// From the two halves of a keypair.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self { access_key: access_key.into(), secret_key: Secret::new(secret_key.into()) }
    }

    /// The public half.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret half.
    pub fn secret_key(&self) -> &str {
        self.secret_key.reveal()
    }
}

/// A handle to a manager. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    transport: Box<dyn Transport>,
    credentials: Credentials,
    clock: Box<dyn Clock>,
}

/// What goes into a request.
#[derive(Debug, Default)]
pub(crate) struct Content {
    media_type: Option<String>,
    bytes: Bytes,
}

impl Content {
    pub(crate) fn empty() -> Self {
        Self::default()
    }

    pub(crate) fn json(value: &Value) -> Self {
        Self { media_type: Some("application/json".into()), bytes: Bytes::from(value.to_string()) }
    }

    pub(crate) fn multipart(boundary: &str, bytes: Bytes) -> Self {
        Self { media_type: Some(format!("multipart/form-data; boundary={boundary}")), bytes }
    }

    fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or("text/plain")
    }
}

impl Client {
    /// A client of the server at `endpoint`. Nothing is sent yet.
    ///
    /// # Errors
    /// `Invalid` when the endpoint is not an absolute `http` or `https` URL.
    pub fn connect(endpoint: &str, credentials: Credentials) -> Result<Self> {
        Ok(Self::over(Http::new(endpoint)?, credentials))
    }

    /// A client over any transport.
    pub fn over(transport: impl Transport, credentials: Credentials) -> Self {
        Self(Arc::new(Inner { transport: Box::new(transport), credentials, clock: Box::new(SystemClock) }))
    }

    /// Versions of the server.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached.
    pub async fn server_info(&self) -> Result<ServerInfo> {
        self.json(Method::GET, "/", Content::empty()).await
    }

    /// Sends a signed request to `target` (path and query) and returns the reply of a 2xx status.
    pub(crate) async fn send(
        &self,
        method: Method,
        target: &str,
        content: Content,
    ) -> Result<Response<Body>> {
        let request = self.signed(method, target, content)?;
        let response = self.0.transport.call(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        Err(reply::error_of(status, &response.into_body().collect().await?))
    }

    /// Sends a request and reads its JSON reply.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        content: Content,
    ) -> Result<T> {
        let body = self.send(method, target, content).await?.into_body().collect().await?;
        serde_json::from_slice(&body).map_err(|cause| {
            Error::of(code::BAD_REPLY, "the server's reply is not the JSON expected")
                .with("target", target)
                .source(cause)
        })
    }

    fn signed(&self, method: Method, target: &str, content: Content) -> Result<Request<Bytes>> {
        let inner = &*self.0;
        let target = format!("{}{target}", inner.transport.base_path());
        let date = inner.clock.now().format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
        let authorization = signing::RequestToSign {
            method: method.as_str(),
            target: &target,
            host: inner.transport.host(),
            date: &date,
            content_type: content.media_type().split(';').next().unwrap_or_default().trim(),
            version: signing::VersionHeader::BackendAi(API_VERSION),
        }
        .authorization(&inner.credentials.access_key, inner.credentials.secret_key.reveal())?;
        Request::builder()
            .method(method)
            .uri(&target)
            .header(header::HOST, inner.transport.host())
            .header(header::DATE, &date)
            .header(header::CONTENT_TYPE, content.media_type())
            .header(header::AUTHORIZATION, authorization)
            .header("x-backendai-version", API_VERSION)
            .body(content.bytes)
            .map_err(|cause| {
                Error::new(ErrorKind::Invalid, "cannot form the request").with("target", target).source(cause)
            })
    }
}
