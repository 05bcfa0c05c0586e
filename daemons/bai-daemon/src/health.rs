//! `/healthz` (the process answers) and `/readyz` (it serves).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use bai_core::{Error, Result, error::code};
use tokio_util::sync::CancellationToken;

/// Serves both until `shutdown`.
pub(crate) async fn serve(
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    shutdown: CancellationToken,
) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|cause| {
        Error::of(code::CONFIG_INVALID, "cannot listen for health checks")
            .with("address", address)
            .source(cause)
    })?;
    let readyz = async move || {
        if ready.load(Ordering::Acquire) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    };
    let router = Router::new().route("/healthz", get(async || StatusCode::OK)).route("/readyz", get(readyz));
    tokio::spawn(
        axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).into_future(),
    );
    Ok(())
}
