//! Requests over HTTP.

use async_trait::async_trait;
use bai_core::{Error, Result, error::code};
use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{Request, Response};
use reqwest::Url;

use super::{Body, Transport, unreachable};

/// A transport to a server, with pooled connections.
#[derive(Debug)]
pub struct Http {
    client: reqwest::Client,
    endpoint: Url,
    host: String,
    base_path: String,
}

impl Http {
    /// A transport to `endpoint`, such as `http://127.0.0.1:8081`.
    ///
    /// # Errors
    /// `Invalid` when the endpoint is not an absolute `http` or `https` URL.
    pub fn new(endpoint: &str) -> Result<Self> {
        let invalid = |reason: String| {
            Error::of(code::CLIENT_USAGE, "the endpoint is not an http or https URL")
                .with("endpoint", endpoint)
                .with("reason", reason)
        };
        let url = Url::parse(endpoint).map_err(|e| invalid(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(invalid("only http and https are supported".into()));
        }
        let name = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        // Another part of the program may have installed a provider already; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(std::time::Duration::from_secs(10))
            .tcp_nodelay(true)
            .build()
            .map_err(|e| Error::of(code::INTERNAL, "cannot set up an HTTP client").source(e))?;
        let base_path = url.path().trim_end_matches('/').to_owned();
        Ok(Self { client, endpoint: url, host, base_path })
    }
}

#[async_trait]
impl Transport for Http {
    fn host(&self) -> &str {
        &self.host
    }

    fn base_path(&self) -> &str {
        &self.base_path
    }

    async fn call(&self, request: Request<Bytes>) -> Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let mut url = self.endpoint.clone();
        url.set_path(parts.uri.path());
        url.set_query(parts.uri.query());
        let reply = self
            .client
            .request(parts.method, url)
            .headers(parts.headers)
            .body(body)
            .send()
            .await
            .map_err(|cause| unreachable(cause).with("endpoint", &self.endpoint))?;
        let mut response = Response::builder().status(reply.status());
        if let Some(headers) = response.headers_mut() {
            headers.clone_from(reply.headers());
        }
        response
            .body(Body::new(reply.bytes_stream().map_err(unreachable)))
            .map_err(|e| Error::of(code::BAD_REPLY, "the server's reply is malformed").source(e))
    }
}
