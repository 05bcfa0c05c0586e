//! Requests to a manager in the same program: the gateway is called as a service, without sockets.

use std::fmt;

use async_trait::async_trait;
use bai_core::Result;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyStream, Full};
use tower::{Service, ServiceExt};

use super::{Body, Transport, unreachable};

/// A transport that calls a service, such as the manager's router, directly.
#[derive(Clone)]
pub struct InProcess<S>(S);

impl<S> InProcess<S> {
    /// A transport to `service`.
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S> fmt::Debug for InProcess<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

#[async_trait]
impl<S, B> Transport for InProcess<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: std::error::Error + Send + Sync + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    fn host(&self) -> &'static str {
        "localhost"
    }

    fn base_path(&self) -> &'static str {
        ""
    }

    async fn call(&self, request: Request<Bytes>) -> Result<Response<Body>> {
        let reply = self.0.clone().oneshot(request.map(Full::new)).await.map_err(unreachable)?;
        Ok(reply.map(|body| {
            Body::new(BodyStream::new(body).filter_map(async |frame| match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(cause) => Some(Err(unreachable(cause))),
            }))
        }))
    }
}
