//! The HTTP gateway: REST, GraphQL, server-sent events and WebSocket streams on top of the services.
//!
//! ```text
//!  request ─► pipeline (headers, CORS, panics, version, aliases) ─► route ─► Auth ─► Params ─► handler
//!                                                                                               │
//!  response ◄─ problem+json for every error, rate-limit headers on everything ◄─────────────────┘
//! ```
//!
//! [`router`] makes a plain tower service, so that a client in the same process can call it without a socket;
//! [`serve`] puts it behind a listener. Paths, parameters and replies follow the specs `rest-manager.md`, `auth.md`,
//! `session-lifecycle.md` and `graphql-manager.md`.

mod account;
mod auth;
mod cluster;
mod events;
mod failure;
mod graphql;
mod params;
mod pipeline;
mod python;
mod reply;
mod routes;
mod serve;
mod session;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::manager::Manager;

pub use graphql::sdl;
pub use serve::{PeerAddr, serve};

/// What can be set about the gateway.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GatewayOptions {
    /// Largest request body in bytes; 20 MiB by default, enough for any source text and for 20 uploaded files.
    pub max_body: usize,
    /// How long one REST execute call collects output; 2 s by default.
    pub execute_flush: Duration,
    /// How long one frame of the execute stream collects output; 0.2 s by default.
    pub stream_flush: Duration,
    /// Time between two comments on an idle event stream; 10 s by default.
    pub event_keep_alive: Duration,
    /// How long requests in progress may go on after `shutdown`; 5 s by default.
    pub shutdown_grace: Duration,
    /// Whether GraphQL introspection is answered; off by default.
    pub allow_introspection: bool,
    /// Address shown by `GET /manager/status`, as `host:port`.
    pub service_addr: String,
    /// Ends event streams, WebSocket streams and waiting requests.
    pub shutdown: CancellationToken,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            max_body: 20 << 20,
            execute_flush: Duration::from_secs(2),
            stream_flush: Duration::from_millis(200),
            event_keep_alive: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(5),
            allow_introspection: false,
            service_addr: String::new(),
            shutdown: CancellationToken::new(),
        }
    }
}

/// What every handler can reach. Clones share it.
#[derive(Debug, Clone)]
struct Gateway(Arc<Shared>);

struct Shared {
    manager: Manager,
    options: GatewayOptions,
    schema: graphql::Schema,
    streams: TaskTracker,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Gateway {
    fn new(manager: Manager, options: GatewayOptions) -> Self {
        let schema = graphql::schema(&manager, options.allow_introspection);
        Self(Arc::new(Shared { manager, options, schema, streams: TaskTracker::new() }))
    }

    fn manager(&self) -> &Manager {
        &self.0.manager
    }

    fn options(&self) -> &GatewayOptions {
        &self.0.options
    }

    fn schema(&self) -> &graphql::Schema {
        &self.0.schema
    }

    /// The tasks of WebSocket streams, which outlive their requests.
    fn streams(&self) -> &TaskTracker {
        &self.0.streams
    }

    fn into_router(self) -> Router {
        pipeline::wrap(routes::all(&self), self)
    }
}

/// The whole API as a service: call it with requests, or hand it to [`serve`].
///
/// Requests need a `Host` header (or an authority in their URI) when they are signed.
pub fn router(manager: Manager, options: GatewayOptions) -> Router {
    Gateway::new(manager, options).into_router()
}
