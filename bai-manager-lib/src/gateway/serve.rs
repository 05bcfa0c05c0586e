//! The listener: accepts connections, ends them in order at shutdown.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use bai_core::{Error, ErrorKind, Result};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use super::{Gateway, GatewayOptions};
use crate::manager::Manager;

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept, such as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The address of the client, as an extension of requests that came through a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Serves the API over HTTP/1.1 and HTTP/2 (without TLS) until `shutdown`. Then no connection is accepted any more,
/// streams end, and requests in progress have [`GatewayOptions::shutdown_grace`] to finish. No task is left.
///
/// # Errors
/// `Unavailable` when the listener has no address.
pub async fn serve(
    manager: Manager,
    listener: TcpListener,
    mut options: GatewayOptions,
    shutdown: CancellationToken,
) -> Result<()> {
    let address = listener.local_addr();
    let address =
        address.map_err(|error| Error::new(ErrorKind::Unavailable, "not listening").source(error))?;
    if options.service_addr.is_empty() {
        options.service_addr = address.to_string();
    }
    options.shutdown = shutdown.clone();
    let grace = options.shutdown_grace;
    let gateway = Gateway::new(manager, options);
    let connections = gateway.streams().clone();
    let routes = gateway.into_router();
    let expired = CancellationToken::new();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                // Tokens of their own: looking at a shared one takes a lock at every step of every connection.
                let (shutdown, expired) = (shutdown.child_token(), expired.child_token());
                let connection = connection(stream, peer, routes.clone(), shutdown);
                connections.spawn(async move { expired.run_until_cancelled(connection).await });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(grace + Duration::from_secs(1), connections.wait()).await.is_err() {
        expired.cancel();
        connections.wait().await;
    }
    Ok(())
}

async fn connection(stream: TcpStream, peer: SocketAddr, routes: Router, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch off Nagle's algorithm");
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let service = TowerToHyperService::new(with_peer(routes, peer));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "connection ended");
    }
}

fn with_peer(
    routes: Router,
    peer: SocketAddr,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send {
    routes.map_request(move |request: Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(PeerAddr(peer));
        request
    })
}
