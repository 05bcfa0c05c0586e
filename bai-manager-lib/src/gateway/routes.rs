//! Which path leads to which handler (spec rest-manager.md).

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::IntoResponse;
use axum::routing::{delete, get, patch, post};
use bai_core::Error;
use bai_core::error::code;

use super::failure::Failure;
use super::pipeline::Wire;
use super::{Gateway, account, cluster, events, graphql, session, stream};

/// All routes; unknown paths and methods are problems like every other error.
pub(super) fn all(gateway: &Gateway) -> Router {
    Router::new()
        .merge(service_routes())
        .merge(session_collection_routes())
        .merge(session_routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(gateway.options().max_body))
        .with_state(gateway.clone())
}

fn service_routes() -> Router<Gateway> {
    Router::new()
        .route("/", get(cluster::versions))
        .route("/manager/status", get(cluster::status))
        .route("/manager/announcement", get(cluster::announcement))
        .route("/config/resource-slots", get(cluster::resource_slots))
        .route("/auth", get(account::test).post(account::test))
        .route("/auth/test", get(account::test).post(account::test))
        .route("/auth/authorize", post(account::authorize))
        .route("/auth/role", get(account::role))
        .route("/events/session", get(events::sessions))
        .route("/events/background-task", get(events::background_task))
        .route("/admin/gql", post(graphql::standard))
        .route("/admin/graphql", post(graphql::legacy))
        .route("/stream/session/{reference}/execute", get(stream::execute))
        .route("/stream/session/{reference}/apps", get(session::services::apps))
}

fn session_collection_routes() -> Router<Gateway> {
    Router::new()
        .route("/session", post(session::create::create))
        .route("/session/_/create", post(session::create::create))
        .route("/session/_/create-from-template", post(session::template::create_from_template))
        .route("/session/_/create-cluster", post(session::template::create_cluster))
        .route("/session/_/match", get(session::lookup::matches))
        .route("/session/_/sync-agent-registry", post(session::lookup::sync_agent_registry))
        .route("/session/_/logs", get(session::lookup::task_logs))
        .route("/session/_/queue", get(session::waiting::queue))
}

fn session_routes() -> Router<Gateway> {
    let whole = get(session::info::info)
        .merge(patch(session::lifecycle::restart))
        .merge(delete(session::lifecycle::destroy))
        .merge(post(session::run::execute));
    Router::new()
        .route("/session/{reference}", whole)
        .route("/session/{reference}/direct-access-info", get(session::services::direct_access))
        .route("/session/{reference}/explain", get(session::waiting::explain))
        .route("/session/{reference}/logs", get(session::lookup::logs))
        .route("/session/{reference}/rename", post(session::lifecycle::rename))
        .route("/session/{reference}/interrupt", post(session::run::interrupt))
        .route("/session/{reference}/complete", post(session::run::complete))
        .route("/session/{reference}/shutdown-service", post(session::services::shutdown))
        .route("/session/{reference}/start-service", post(session::services::start))
        .route(
            "/session/{reference}/upload",
            post(session::files::upload).layer(DefaultBodyLimit::max(session::files::UPLOAD_BODY)),
        )
        .route("/session/{reference}/download", get(session::files::download).post(session::files::download))
        .route("/session/{reference}/download_single", get(session::files::download_single))
        .route("/session/{reference}/files", get(session::files::list))
        .route(
            "/session/{reference}/commit",
            post(session::services::commit).get(session::services::commit_status),
        )
        .route("/session/{reference}/abusing-report", get(session::services::abusing_report))
        .route("/session/{reference}/dependency-graph", get(session::lookup::dependency_graph))
        .route("/session/{reference}/status-history", get(session::lookup::status_history))
}

async fn unknown_path(wire: axum::Extension<Wire>) -> impl IntoResponse {
    Failure(Error::of(code::URL_NOT_FOUND, "no such path").data(wire.path().into()))
}

async fn unknown_method() -> impl IntoResponse {
    Failure::of(code::METHOD_NOT_ALLOWED, "this path does not answer to the method")
}
