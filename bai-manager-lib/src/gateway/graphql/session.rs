//! Session and container roots.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result, SimpleObject};
use bai_core::memory::store::fields::is_order_field;
use bai_core::port::store::SessionQuery;
use bai_core::status::SessionStatus;
use bai_core::{KernelId, ProjectId, Session, SessionId};

use super::compute_container::ComputeContainer;
use super::compute_session::ComputeSession;
use super::list::{PageArgs, page};
use super::scalar::Uuid;
use super::viewer::{Seen, Viewer, manager, text, viewer};
use crate::manager::Manager;

/// Sessions read at once while a container is looked for.
const SCAN: u64 = 500;

/// A page of sessions.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct ComputeSessionList {
    items: Vec<Option<ComputeSession>>,
    total_count: i64,
}

/// A page of containers.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct ComputeContainerList {
    items: Vec<Option<ComputeContainer>>,
    total_count: i64,
}

/// The roots.
#[derive(Debug, Default)]
pub(super) struct SessionRoots;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl SessionRoots {
    async fn compute_session(&self, context: &Context<'_>, id: Uuid) -> Result<Option<ComputeSession>> {
        Ok(visible(context, SessionId(id.0)).await?.map(ComputeSession))
    }

    #[allow(clippy::too_many_arguments, reason = "the arguments are given by the schema")]
    async fn compute_session_list(
        &self,
        context: &Context<'_>,
        limit: i64,
        offset: i64,
        filter: Option<String>,
        order: Option<String>,
        domain_name: Option<String>,
        group_id: Option<String>,
        access_key: Option<String>,
        status: Option<String>,
    ) -> Result<Option<ComputeSessionList>> {
        let args = PageArgs::new(limit, offset, filter, order);
        let seen = scope(viewer(context)?, domain_name, access_key)?;
        let project = group_id.map(|id| id.parse().map(ProjectId)).transpose();
        let query = SessionQuery {
            access_key: seen.identity.map(Into::into),
            domain: seen.domain,
            project: project.map_err(|_| async_graphql::Error::new("group_id is not a UUID"))?,
            statuses: statuses(status.as_deref())?,
            name: None,
            filter: args.filter()?,
            order: args.order(is_order_field)?,
            offset: args.offset,
            limit: Some(args.limit),
        };
        let page = manager(context)?.sessions().find(&query).await.map_err(|error| text(&error))?;
        let items = page.items.into_iter().map(|session| Some(ComputeSession(Arc::new(session)))).collect();
        Ok(Some(ComputeSessionList { items, total_count: page.total.try_into().unwrap_or(i64::MAX) }))
    }

    async fn compute_container(&self, context: &Context<'_>, id: Uuid) -> Result<Option<ComputeContainer>> {
        let scope = scope(viewer(context)?, None, None)?;
        let session = session_of(manager(context)?, KernelId(id.0), scope).await?;
        Ok(session.and_then(|session| ComputeContainer::of(session, KernelId(id.0))))
    }

    #[allow(clippy::too_many_arguments, reason = "the arguments are given by the schema")]
    async fn compute_container_list(
        &self,
        context: &Context<'_>,
        limit: i64,
        offset: i64,
        filter: Option<String>,
        order: Option<String>,
        session_id: ID,
        role: Option<String>,
    ) -> Result<Option<ComputeContainerList>> {
        let args = PageArgs::new(limit, offset, filter, order);
        let id = session_id.parse::<SessionId>().map_err(|error| text(&error))?;
        let session = visible(context, id).await?;
        let rows = session.iter().flat_map(ComputeContainer::all);
        let rows = rows.filter(|row| role.as_ref().is_none_or(|role| *role == row.kernel().role)).collect();
        let (items, total_count) = page(rows, &args)?.map(|row| row);
        Ok(Some(ComputeContainerList { items, total_count }))
    }
}

/// The session with this id, if the viewer may see it.
pub(super) async fn visible(context: &Context<'_>, id: SessionId) -> Result<Option<Arc<Session>>> {
    let seen = scope(viewer(context)?, None, None)?;
    let session = manager(context)?.sessions().get(id).await.map_err(|error| text(&error))?;
    Ok(session.filter(|session| seen.contains(&session.owner.domain, session.owner.access_key.as_str())))
}

/// What the viewer may see of the sessions it asks for.
pub(super) fn scope(viewer: &Viewer, domain: Option<String>, access_key: Option<String>) -> Result<Seen> {
    viewer.scope(domain, access_key, viewer.0.keypair.access_key.as_str())
}

/// The statuses of a comma-separated list.
pub(super) fn statuses(list: Option<&str>) -> Result<Vec<SessionStatus>> {
    let names = list.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| name.parse().map_err(|error| text(&error))).collect()
}

async fn session_of(manager: &Manager, kernel: KernelId, seen: Seen) -> Result<Option<Arc<Session>>> {
    let mut query = SessionQuery {
        access_key: seen.identity.map(Into::into),
        domain: seen.domain,
        limit: Some(SCAN),
        ..SessionQuery::default()
    };
    loop {
        let page = manager.sessions().find(&query).await.map_err(|error| text(&error))?;
        let is_last = page.items.len() < usize::try_from(SCAN).unwrap_or(usize::MAX);
        let found = page.items.into_iter().find(|session| session.kernel(kernel).is_some());
        if found.is_some() || is_last {
            return Ok(found.map(Arc::new));
        }
        query.offset += SCAN;
    }
}
