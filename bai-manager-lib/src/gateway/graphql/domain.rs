//! Domains, groups (projects) and scaling groups (resource groups).

use async_graphql::{Context, Object, Result, SimpleObject};
use bai_core::error::code;
use bai_core::identity::{Domain as DomainRow, Project, ResourceGroup, UserRole};
use bai_core::port::store::Directory;
use bai_core::{Error, UserId};

use super::keypair::directory;
use super::scalar::{DateTime, JsonString, Uuid};
use super::viewer::{Viewer, refusal, text, viewer};

/// Kind of cluster resource management; there is only the one.
const DRIVER: &str = "static";

/// A domain.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct Domain {
    name: Option<String>,
    description: Option<String>,
    is_active: Option<bool>,
    created_at: Option<DateTime>,
    modified_at: Option<DateTime>,
    total_resource_slots: Option<JsonString>,
    allowed_vfolder_hosts: Option<JsonString>,
    allowed_docker_registries: Option<Vec<Option<String>>>,
    integration_id: Option<String>,
    scaling_groups: Option<Vec<Option<String>>>,
}

/// A project.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct Group {
    id: Option<Uuid>,
    name: Option<String>,
    description: Option<String>,
    is_active: Option<bool>,
    created_at: Option<DateTime>,
    modified_at: Option<DateTime>,
    domain_name: Option<String>,
    total_resource_slots: Option<JsonString>,
    allowed_vfolder_hosts: Option<JsonString>,
    integration_id: Option<String>,
    resource_policy: Option<String>,
    scaling_groups: Option<Vec<Option<String>>>,
}

/// A resource group.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct ScalingGroup {
    name: Option<String>,
    description: Option<String>,
    is_active: Option<bool>,
    is_public: Option<bool>,
    created_at: Option<DateTime>,
    wsproxy_addr: Option<String>,
    wsproxy_api_token: Option<String>,
    driver: Option<String>,
    driver_opts: Option<JsonString>,
    scheduler: Option<String>,
    scheduler_opts: Option<JsonString>,
    use_host_network: Option<bool>,
}

/// The roots.
#[derive(Debug, Default)]
pub(super) struct DomainRoots;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl DomainRoots {
    async fn domain(&self, context: &Context<'_>, name: Option<String>) -> Result<Option<Domain>> {
        let viewer = viewer(context)?;
        let own = &viewer.0.user.domain;
        let name = name.unwrap_or_else(|| own.clone());
        if !viewer.is_superadmin() && name != *own {
            return Err(refusal(code::DOMAIN_NOT_FOUND));
        }
        let directory = directory(context).await?;
        Ok(directory.domains.get(&name).map(|row| domain(&directory, row)))
    }

    async fn domains(
        &self,
        context: &Context<'_>,
        is_active: Option<bool>,
    ) -> Result<Option<Vec<Option<Domain>>>> {
        viewer(context)?.require_superadmin()?;
        let directory = directory(context).await?;
        let rows =
            directory.domains.values().filter(|row| is_active.is_none_or(|wanted| wanted == row.is_active));
        Ok(Some(rows.map(|row| Some(domain(&directory, row))).collect()))
    }

    async fn group(
        &self,
        context: &Context<'_>,
        id: Uuid,
        domain_name: Option<String>,
    ) -> Result<Option<Group>> {
        let viewer = viewer(context)?;
        let directory = directory(context).await?;
        let found = directory.projects.iter().find(|(row, _)| row.id.0 == id.0);
        let found = found.filter(|(row, _)| domain_name.as_ref().is_none_or(|name| *name == row.domain));
        let Some((row, members)) = found else { return Ok(None) };
        if !may_see(viewer, row, members) {
            return Err(refusal(code::INSUFFICIENT_PRIVILEGE));
        }
        Ok(Some(group(&directory, row)))
    }

    async fn groups_by_name(
        &self,
        context: &Context<'_>,
        name: String,
        domain_name: Option<String>,
    ) -> Result<Option<Vec<Option<Group>>>> {
        let directory = directory(context).await?;
        let rows = seen(viewer(context)?, &directory, domain_name.as_deref());
        Ok(Some(rows.filter(|row| row.name == name).map(|row| Some(group(&directory, row))).collect()))
    }

    async fn groups(
        &self,
        context: &Context<'_>,
        domain_name: Option<String>,
        is_active: Option<bool>,
    ) -> Result<Option<Vec<Option<Group>>>> {
        let viewer = viewer(context)?;
        let directory = directory(context).await?;
        // Ordinary users get all their projects whatever they ask for.
        let (domain, is_active) = match viewer.role() {
            UserRole::Superadmin | UserRole::Admin => (domain_name, is_active),
            UserRole::User | UserRole::Monitor => (None, None),
        };
        let rows = seen(viewer, &directory, domain.as_deref());
        let rows = rows.filter(|row| is_active.is_none_or(|wanted| wanted == row.is_active));
        Ok(Some(rows.map(|row| Some(group(&directory, row))).collect()))
    }

    async fn scaling_group(
        &self,
        context: &Context<'_>,
        name: Option<String>,
    ) -> Result<Option<ScalingGroup>> {
        viewer(context)?.require_superadmin()?;
        let Some(name) = name else { return Ok(None) };
        let missing = || text(&Error::of(code::RESOURCE_GROUP_NOT_FOUND, name.clone()));
        directory(context)
            .await?
            .resource_groups
            .get(&name)
            .map(|row| Some(scaling_group(row)))
            .ok_or_else(missing)
    }

    async fn scaling_groups(
        &self,
        context: &Context<'_>,
        name: Option<String>,
        is_active: Option<bool>,
    ) -> Result<Option<Vec<Option<ScalingGroup>>>> {
        viewer(context)?.require_superadmin()?;
        let directory = directory(context).await?;
        let rows = directory.resource_groups.values();
        let rows = rows.filter(|row| name.as_ref().is_none_or(|name| *name == row.name));
        let rows = rows.filter(|row| is_active.is_none_or(|wanted| wanted == row.is_active));
        Ok(Some(rows.map(|row| Some(scaling_group(row))).collect()))
    }
}

fn may_see(viewer: &Viewer, row: &Project, members: &[UserId]) -> bool {
    match viewer.role() {
        UserRole::Superadmin => true,
        UserRole::Admin => row.domain == viewer.0.user.domain,
        UserRole::User | UserRole::Monitor => members.contains(&viewer.0.user.id),
    }
}

fn seen<'a>(
    viewer: &'a Viewer,
    directory: &'a Directory,
    domain: Option<&'a str>,
) -> impl Iterator<Item = &'a Project> {
    let visible = directory.projects.iter().filter(|(row, members)| may_see(viewer, row, members));
    visible.map(|(row, _)| row).filter(move |row| domain.is_none_or(|domain| domain == row.domain))
}

/// The resource groups of a domain.
fn group_names(directory: &Directory, domain: &str) -> Vec<Option<String>> {
    let own = directory.resource_groups.values().filter(|row| row.domains.iter().any(|name| name == domain));
    own.map(|row| Some(row.name.clone())).collect()
}

fn domain(directory: &Directory, row: &DomainRow) -> Domain {
    Domain {
        name: Some(row.name.clone()),
        description: row.description.clone(),
        is_active: Some(row.is_active),
        created_at: Some(DateTime(row.created_at)),
        modified_at: None,
        total_resource_slots: JsonString::of(&row.total_resource_slots),
        allowed_vfolder_hosts: Some(JsonString::empty()),
        allowed_docker_registries: Some(row.allowed_docker_registries.iter().cloned().map(Some).collect()),
        integration_id: None,
        scaling_groups: Some(group_names(directory, &row.name)),
    }
}

fn group(directory: &Directory, row: &Project) -> Group {
    Group {
        id: Some(Uuid(row.id.0)),
        name: Some(row.name.clone()),
        description: row.description.clone(),
        is_active: Some(row.is_active),
        created_at: Some(DateTime(row.created_at)),
        modified_at: None,
        domain_name: Some(row.domain.clone()),
        total_resource_slots: JsonString::of(&row.total_resource_slots),
        allowed_vfolder_hosts: Some(JsonString::empty()),
        integration_id: None,
        resource_policy: None,
        scaling_groups: Some(group_names(directory, &row.domain)),
    }
}

fn scaling_group(row: &ResourceGroup) -> ScalingGroup {
    ScalingGroup {
        name: Some(row.name.clone()),
        description: row.description.clone(),
        is_active: Some(row.is_active),
        is_public: Some(row.is_public),
        created_at: Some(DateTime(row.created_at)),
        wsproxy_addr: row.wsproxy_addr.clone(),
        wsproxy_api_token: None,
        driver: Some(DRIVER.to_owned()),
        driver_opts: Some(JsonString::empty()),
        scheduler: Some(row.scheduler.clone()),
        scheduler_opts: JsonString::of(&row.scheduler_opts),
        use_host_network: Some(false),
    }
}
