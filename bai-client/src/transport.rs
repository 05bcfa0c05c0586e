//! How requests reach a manager.

mod http;
mod in_process;

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bai_core::{Error, Result, error::code};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};

pub use self::http::Http;
pub use in_process::InProcess;

/// The body of a reply, as it arrives.
pub struct Body(Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>);

impl Body {
    /// A body that yields the chunks of `stream`.
    pub fn new(stream: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }

    /// A body of one chunk.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::new(stream::iter([Ok(bytes.into())]))
    }

    /// The next chunk.
    pub async fn chunk(&mut self) -> Option<Result<Bytes>> {
        self.0.next().await
    }

    /// All of it.
    ///
    /// # Errors
    /// `Unavailable` when the connection breaks.
    pub async fn collect(mut self) -> Result<Bytes> {
        let Some(first) = self.chunk().await.transpose()? else { return Ok(Bytes::new()) };
        let Some(second) = self.chunk().await.transpose()? else { return Ok(first) };
        let mut all = BytesMut::from(&first[..]);
        all.extend_from_slice(&second);
        while let Some(next) = self.chunk().await.transpose()? {
            all.extend_from_slice(&next);
        }
        Ok(all.freeze())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

/// Carries one request to a manager and its reply back.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// The authority that goes into the `Host` header and the signature.
    fn host(&self) -> &str;

    /// Prefix of every request target: the path of the endpoint, empty or without a trailing slash.
    fn base_path(&self) -> &str;

    /// Sends a request whose URI is path and query.
    ///
    /// # Errors
    /// `Unavailable` ([`code::CONNECT_FAILED`]) when the manager cannot be reached.
    async fn call(&self, request: ::http::Request<Bytes>) -> Result<::http::Response<Body>>;
}

/// The error of a transport that could not deliver.
fn unreachable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let cause = cause.into();
    let reason = deepest(cause.as_ref());
    Error::of(code::CONNECT_FAILED, "the server cannot be reached").with("reason", reason).source(cause)
}

/// The innermost cause: what the operating system said.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}
