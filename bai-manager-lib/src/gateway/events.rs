//! Server-sent events (spec rest-manager.md, section 4; session-lifecycle.md, section 10).

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bai_core::error::code;
use bai_core::identity::{Credential, UserRole};
use bai_core::port::store::SessionEvent;
use bai_core::{Error, ErrorKind, KernelId, ProjectId, SessionId};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio_stream::wrappers::BroadcastStream;
use uuid::Uuid;

use super::Gateway;
use super::auth::Auth;
use super::failure::{Failure, Reply};
use super::params::{Params, kind};

const ANY: &str = "*";

/// Which events a subscriber asked for, and which it may see.
#[derive(Debug)]
struct Filter {
    viewer: Arc<Credential>,
    session: Option<SessionId>,
    name: Option<String>,
    access_key: Option<String>,
    project: Option<ProjectId>,
    /// Beginning of the event's name.
    prefix: &'static str,
}

impl Filter {
    fn passes(&self, event: &SessionEvent) -> bool {
        let wanted = match self.session {
            Some(id) => event.session == id,
            None => {
                self.name.as_ref().is_none_or(|name| *name == event.session_name)
                    && self.access_key.as_ref().is_none_or(|key| key == event.access_key.as_str())
            }
        };
        wanted
            && event.event.name.starts_with(self.prefix)
            && self.project.is_none_or(|project| project == event.project_id)
            && self.may_see(event)
    }

    fn may_see(&self, event: &SessionEvent) -> bool {
        let user = &self.viewer.user;
        match user.role {
            UserRole::Superadmin => true,
            UserRole::Admin => event.domain == user.domain,
            UserRole::User | UserRole::Monitor => event.user_id == user.id,
        }
    }
}

/// `data` of an event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    reason: &'a str,
    session_name: &'a str,
    owner_access_key: &'a str,
    session_id: SessionId,
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_id: Option<KernelId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_idx: Option<u32>,
}

/// `GET /events/session`.
pub(super) async fn sessions(State(gateway): State<Gateway>, auth: Auth, params: Params) -> Reply {
    let filter = filter(&gateway, auth, params).await?;
    let events = BroadcastStream::new(gateway.manager().subscribe_sessions());
    let events = events.filter_map(move |event| {
        // A subscriber that lags loses events; the ones after them still come.
        let frame = event.ok().filter(|event| filter.passes(event)).map(|event| frame(&event));
        std::future::ready(frame)
    });
    Ok(respond(&gateway, events))
}

/// Events until the shutdown, then the one that tells clients not to come back.
fn respond(gateway: &Gateway, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let options = gateway.options();
    let last = stream::once(std::future::ready(Event::default().event("server_close").data("{}")));
    let events =
        events.take_until(options.shutdown.clone().cancelled_owned()).chain(last).map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(options.event_keep_alive).text("ping");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

async fn filter(gateway: &Gateway, auth: Auth, params: Params) -> Result<Filter, Failure> {
    let delegated = params.owner().map(str::to_owned);
    let mut check = params.check();
    let name = check.or("name|sessionName", kind::text, ANY.to_owned());
    let owner = check.optional("ownerAccessKey", kind::text).or(delegated);
    let session: Option<Uuid> = check.optional("sessionId", kind::uuid);
    let group = check.or("group|groupName", kind::text, ANY.to_owned());
    let scope = check.or("scope", kind::text, ANY.to_owned());
    let prefix = match scope.as_str() {
        ANY => "",
        "session" => "session_",
        "kernel" => "kernel_",
        _ => {
            check.mistake("scope", "value doesn't match any variant");
            ""
        }
    };
    check.finish()?;
    let viewer = auth.0;
    let foreign = owner.as_ref().is_some_and(|key| key != ANY && key != viewer.keypair.access_key.as_str());
    if foreign && !matches!(viewer.user.role, UserRole::Superadmin | UserRole::Admin) {
        return Err(Failure(Error::new(
            ErrorKind::Forbidden,
            "only admins can watch the sessions of others",
        )));
    }
    let project = project(gateway, &viewer, &group).await?;
    let named = |text: String| Some(text).filter(|text| text != ANY);
    let access_key = owner.and_then(named);
    Ok(Filter { viewer, session: session.map(SessionId), name: named(name), access_key, project, prefix })
}

async fn project(gateway: &Gateway, viewer: &Credential, group: &str) -> Result<Option<ProjectId>, Failure> {
    if group == ANY {
        return Ok(None);
    }
    let directory = gateway.manager().identities().directory().await?;
    let found =
        directory.projects.iter().find(|(row, _)| row.name == group && row.domain == viewer.user.domain);
    let missing = || Failure::of(code::PROJECT_NOT_FOUND, format!("there is no project {group}"));
    found.map(|(row, _)| Some(row.id)).ok_or_else(missing)
}

fn frame(event: &SessionEvent) -> Event {
    let data = Data {
        reason: &event.event.reason,
        session_name: &event.session_name,
        owner_access_key: event.access_key.as_str(),
        session_id: event.session,
        exit_code: event.event.exit_code,
        kernel_id: event.event.kernel,
        cluster_role: event.cluster_role.as_deref(),
        cluster_idx: event.cluster_idx,
    };
    let text = serde_json::to_string(&data).unwrap_or_default();
    Event::default().event(&event.event.name).data(text)
}

/// `GET /events/background-task`: there are no background tasks.
pub(super) async fn background_task(_auth: Auth, params: Params) -> Reply {
    let mut check = params.check();
    let task = check.required("task_id|taskId", kind::uuid);
    check.finish()?;
    Err(Failure::of(code::BACKGROUND_TASK_NOT_FOUND, format!("there is no background task {task}")))
}
