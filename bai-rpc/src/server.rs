use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bai_core::Secret;
use bai_core::error::{Error, Result, code};
use serde::Serialize;
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::wire::{WireError, decode, encode};

/// Largest message in bytes: twenty files of 1 MiB and room.
const MAX_MESSAGE: usize = 64 << 20;

/// A router with the one route `/rpc`, which gives calls to `handle`.
///
/// # Errors
/// `Invalid` when the secret is empty.
pub(crate) fn router<C, A, F, H>(secret: Secret<String>, handle: H) -> Result<Router>
where
    C: DeserializeOwned + Send + 'static,
    A: Serialize + Send + 'static,
    F: Future<Output = Result<A>> + Send + 'static,
    H: Fn(C) -> F + Clone + Send + Sync + 'static,
{
    if secret.reveal().is_empty() {
        return Err(Error::of(code::CONFIG_INVALID, "the shared secret must not be empty"));
    }
    let secret = Arc::new(secret);
    let serve = move |headers: HeaderMap, body: Bytes| {
        let (handle, secret) = (handle.clone(), Arc::clone(&secret));
        async move {
            if !authorized(&headers, &secret) {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            match decode::<C>(&body) {
                Ok(call) => respond(handle(call).await),
                Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
            }
        }
    };
    Ok(Router::new().route("/rpc", post(serve)).layer(DefaultBodyLimit::max(MAX_MESSAGE)))
}

/// Serves a router until `shutdown`, then lets calls in progress end.
///
/// # Errors
/// `Unavailable` when the listener fails.
pub async fn serve(router: Router, listener: TcpListener, shutdown: CancellationToken) -> Result<()> {
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(|error| Error::of(code::UNAVAILABLE, "the listener failed").source(error))
}

fn respond<A: Serialize>(result: Result<A>) -> Response {
    match encode(&result.map_err(WireError::from)) {
        Ok(body) => body.into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn authorized(headers: &HeaderMap, secret: &Secret<String>) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    given.is_some_and(|given| bool::from(given.ct_eq(secret.reveal().as_bytes())))
}
