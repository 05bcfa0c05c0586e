//! The type `ComputeSession`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result};
use bai_core::Session;
use serde_json::{Map, Value};

use super::compute_container::ComputeContainer;
use super::scalar::{BigInt, DateTime, JsonString, Uuid};
use super::session::visible;
use super::viewer::{manager, text};
use crate::gateway::python;
use crate::gateway::session::create::stored_port;

/// Role of every kernel here; inference and system kernels belong to features that do not exist yet.
const KERNEL_ROLE: &str = "COMPUTE";

/// A session.
#[derive(Debug)]
pub(super) struct ComputeSession(pub(super) Arc<Session>);

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ComputeSession {
    async fn id(&self) -> Option<ID> {
        Some(self.0.id.into())
    }

    async fn session_id(&self) -> Option<Uuid> {
        Some(Uuid(self.0.id.0))
    }

    async fn main_kernel_id(&self) -> Option<Uuid> {
        Some(Uuid(self.0.main().id.0))
    }

    async fn tag(&self) -> Option<&str> {
        self.0.spec.tag.as_deref()
    }

    async fn name(&self) -> Option<&str> {
        Some(&self.0.name)
    }

    #[graphql(name = "type")]
    async fn session_type(&self) -> Option<String> {
        Some(self.0.session_type.as_str().to_ascii_uppercase())
    }

    async fn main_kernel_role(&self) -> Option<&str> {
        Some(KERNEL_ROLE)
    }

    async fn image(&self) -> Option<&str> {
        Some(&self.0.main().image)
    }

    async fn architecture(&self) -> Option<&str> {
        Some(&self.0.main().architecture)
    }

    async fn registry(&self) -> Option<&str> {
        Some(&self.0.main().registry)
    }

    async fn cluster_template(&self) -> Option<&str> {
        None
    }

    async fn cluster_mode(&self) -> Option<&str> {
        Some(self.0.cluster_mode.as_str())
    }

    async fn cluster_size(&self) -> Option<i64> {
        self.0.kernels.len().try_into().ok()
    }

    async fn domain_name(&self) -> Option<&str> {
        Some(&self.0.owner.domain)
    }

    async fn group_name(&self) -> Option<&str> {
        Some(&self.0.owner.project)
    }

    async fn group_id(&self) -> Option<Uuid> {
        Some(Uuid(self.0.owner.project_id.0))
    }

    async fn user_email(&self) -> Option<&str> {
        Some(&self.0.owner.email)
    }

    async fn full_name(&self, context: &Context<'_>) -> Result<Option<String>> {
        let directory = manager(context)?.identities().directory().await.map_err(|error| text(&error))?;
        let user = directory.users.iter().find(|user| user.id == self.0.owner.user_id);
        Ok(user.map(|user| user.full_name.clone()))
    }

    async fn user_id(&self) -> Option<Uuid> {
        Some(Uuid(self.0.owner.user_id.0))
    }

    async fn access_key(&self) -> Option<&str> {
        Some(self.0.owner.access_key.as_str())
    }

    async fn created_user_email(&self) -> Option<&str> {
        None
    }

    async fn created_user_id(&self) -> Option<Uuid> {
        None
    }

    async fn status(&self) -> Option<&str> {
        Some(self.0.status.as_str())
    }

    async fn status_changed(&self) -> Option<DateTime> {
        Some(DateTime(self.0.status_changed()))
    }

    async fn status_info(&self) -> Option<&str> {
        Some(self.0.status_info.as_deref().unwrap_or_default())
    }

    async fn status_data(&self) -> Option<JsonString> {
        JsonString::of(&self.0.status_data)
    }

    async fn status_history(&self) -> Option<JsonString> {
        let entries =
            self.0.status_history.iter().map(|(status, at)| (status.clone(), python::iso(*at).into()));
        JsonString::of(&entries.collect::<Map<String, Value>>())
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(DateTime(self.0.created_at))
    }

    async fn terminated_at(&self) -> Option<DateTime> {
        self.0.terminated_at.map(DateTime)
    }

    async fn starts_at(&self) -> Option<DateTime> {
        self.0.starts_at.map(DateTime)
    }

    async fn scheduled_at(&self) -> Option<DateTime> {
        self.0.status_history.get("SCHEDULED").copied().map(DateTime)
    }

    async fn startup_command(&self) -> Option<&str> {
        self.0.spec.startup_command.as_deref()
    }

    async fn result(&self) -> Option<&str> {
        Some(self.0.result.as_str())
    }

    async fn commit_status(&self) -> Option<&str> {
        Some("ready")
    }

    async fn abusing_reports(&self) -> Option<Vec<Option<JsonString>>> {
        Some(Vec::new())
    }

    async fn idle_checks(&self, context: &Context<'_>) -> Result<Option<JsonString>> {
        Ok(JsonString::of(&manager(context)?.sessions().idle_checks(&self.0)))
    }

    async fn agent_ids(&self) -> Option<Vec<Option<String>>> {
        Some(self.agent_names())
    }

    async fn agents(&self) -> Option<Vec<Option<String>>> {
        Some(self.agent_names())
    }

    async fn resource_opts(&self) -> Option<JsonString> {
        let options = &self.0.spec.resource_opts;
        JsonString::of(
            &self.0.kernels.iter().map(|kernel| (&kernel.hostname, options)).collect::<BTreeMap<_, _>>(),
        )
    }

    async fn scaling_group(&self) -> Option<&str> {
        Some(&self.0.resource_group)
    }

    async fn service_ports(&self) -> Option<JsonString> {
        JsonString::of(&self.0.main().service_ports.iter().map(stored_port).collect::<Vec<_>>())
    }

    async fn mounts(&self) -> Option<Vec<Option<&str>>> {
        Some(self.0.spec.mounts.iter().map(|mount| Some(mount.as_str())).collect())
    }

    async fn vfolder_mounts(&self) -> Option<Vec<Option<&str>>> {
        Some(Vec::new())
    }

    async fn occupying_slots(&self) -> Option<JsonString> {
        JsonString::slots(&self.0.allocated())
    }

    async fn occupied_slots(&self) -> Option<JsonString> {
        JsonString::slots(&self.0.allocated())
    }

    async fn num_queries(&self, context: &Context<'_>) -> Result<Option<BigInt>> {
        Ok(Some(BigInt::of(manager(context)?.sessions().queries_executed(self.0.id))))
    }

    async fn containers(&self) -> Option<Vec<Option<ComputeContainer>>> {
        Some(ComputeContainer::all(&self.0).map(Some).collect())
    }

    async fn dependencies(&self, context: &Context<'_>) -> Result<Option<Vec<Option<ComputeSession>>>> {
        let mut sessions = Vec::new();
        for id in &self.0.spec.dependencies {
            sessions.extend(visible(context, *id).await?.map(|session| Some(ComputeSession(session))));
        }
        Ok(Some(sessions))
    }

    async fn inference_metrics(&self) -> Option<JsonString> {
        None
    }
}

impl ComputeSession {
    fn agent_names(&self) -> Vec<Option<String>> {
        let names: BTreeSet<_> = self.0.kernels.iter().filter_map(|kernel| kernel.agent.as_ref()).collect();
        names.into_iter().map(|name| Some(name.to_string())).collect()
    }
}
