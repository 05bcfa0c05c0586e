//! Agents and their summaries.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result, SimpleObject};
use bai_core::port::store::{Agent as AgentRow, AgentStatus, SessionQuery};
use bai_core::query::{Field, FieldKind, Row, Value};
use bai_core::status::SessionStatus;
use bai_core::{AgentId, ResourceSlots};
use serde_json::json;

use super::compute_container::ComputeContainer;
use super::list::{ListRow, PageArgs, page};
use super::scalar::{DateTime, JsonString};
use super::viewer::{manager, text, viewer};
use crate::manager::Manager;

/// Bytes in the unit of the legacy memory fields.
const MIB: u64 = 1 << 20;

/// A node as of its last report.
#[derive(Debug)]
pub(super) struct Agent {
    row: AgentRow,
    occupied: ResourceSlots,
}

/// A page of agents.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct AgentList {
    items: Vec<Option<Agent>>,
    total_count: i64,
}

/// What ordinary users may see of a node.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct AgentSummary {
    id: Option<ID>,
    status: Option<String>,
    scaling_group: Option<String>,
    schedulable: Option<bool>,
    available_slots: Option<JsonString>,
    occupied_slots: Option<JsonString>,
    architecture: Option<String>,
}

/// A page of summaries.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct AgentSummaryList {
    items: Vec<Option<AgentSummary>>,
    total_count: i64,
}

/// The roots.
#[derive(Debug, Default)]
pub(super) struct AgentRoots;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl AgentRoots {
    async fn agent(&self, context: &Context<'_>, agent_id: String) -> Result<Option<Agent>> {
        viewer(context)?.require_superadmin()?;
        Ok(one(manager(context)?, agent_id))
    }

    async fn agents(
        &self,
        context: &Context<'_>,
        scaling_group: Option<String>,
        status: Option<String>,
    ) -> Result<Option<Vec<Option<Agent>>>> {
        viewer(context)?.require_superadmin()?;
        let agents = all(manager(context)?, scaling_group.as_deref(), status.as_deref())?;
        Ok(Some(agents.into_iter().map(Some).collect()))
    }

    #[allow(clippy::too_many_arguments, reason = "the arguments are given by the schema")]
    async fn agent_list(
        &self,
        context: &Context<'_>,
        limit: i64,
        offset: i64,
        filter: Option<String>,
        order: Option<String>,
        scaling_group: Option<String>,
        status: Option<String>,
    ) -> Result<Option<AgentList>> {
        viewer(context)?.require_superadmin()?;
        let agents = all(manager(context)?, scaling_group.as_deref(), status.as_deref())?;
        let (items, total_count) =
            page(agents, &PageArgs::new(limit, offset, filter, order))?.map(|agent| agent);
        Ok(Some(AgentList { items, total_count }))
    }

    async fn agent_summary(&self, context: &Context<'_>, agent_id: String) -> Result<Option<AgentSummary>> {
        viewer(context)?;
        Ok(one(manager(context)?, agent_id).map(Agent::into_summary))
    }

    #[allow(clippy::too_many_arguments, reason = "the arguments are given by the schema")]
    async fn agent_summary_list(
        &self,
        context: &Context<'_>,
        limit: i64,
        offset: i64,
        filter: Option<String>,
        order: Option<String>,
        scaling_group: Option<String>,
        status: Option<String>,
    ) -> Result<Option<AgentSummaryList>> {
        viewer(context)?;
        let agents = all(manager(context)?, scaling_group.as_deref(), status.as_deref())?;
        let page = page(agents, &PageArgs::new(limit, offset, filter, order))?;
        let (items, total_count) = page.map(Agent::into_summary);
        Ok(Some(AgentSummaryList { items, total_count }))
    }
}

fn one(manager: &Manager, id: String) -> Option<Agent> {
    let agents = manager.agents();
    agents.get(&AgentId::from(id)).map(|row| Agent { occupied: agents.occupied(&row.id), row })
}

fn all(manager: &Manager, group: Option<&str>, status: Option<&str>) -> Result<Vec<Agent>> {
    let status = status.map(str::parse::<AgentStatus>).transpose().map_err(|error| text(&error))?;
    let agents = manager.agents();
    let rows = agents.list().into_iter();
    let rows = rows.filter(|row| status.is_none_or(|status| row.status == status));
    let rows = rows.filter(|row| group.is_none_or(|group| row.resource_group == group));
    Ok(rows.map(|row| Agent { occupied: agents.occupied(&row.id), row }).collect())
}

impl Agent {
    fn into_summary(self) -> AgentSummary {
        AgentSummary {
            id: Some(ID::from(self.row.id.as_str())),
            status: Some(self.row.status.to_string()),
            schedulable: Some(self.row.schedulable),
            available_slots: JsonString::slots(&self.row.capacity),
            occupied_slots: JsonString::slots(&self.occupied),
            scaling_group: Some(self.row.resource_group),
            architecture: Some(self.row.architecture),
        }
    }

    /// A number of the node statistics, which are decimal texts.
    fn node_stat(&self, metric: &str, value: &str) -> Option<f64> {
        self.row.live_stat.get("node")?.get(metric)?.get(value)?.as_str()?.parse().ok()
    }

    async fn containers(&self, manager: &Manager, status: Option<&str>) -> Result<Vec<ComputeContainer>> {
        let statuses = SessionStatus::ALL.iter().copied().filter(|status| !status.is_dead()).collect();
        let query = SessionQuery { statuses, ..SessionQuery::default() };
        let sessions = manager.sessions().find(&query).await.map_err(|error| text(&error))?;
        let sessions: Vec<_> = sessions.items.into_iter().map(Arc::new).collect();
        let containers = sessions.iter().flat_map(ComputeContainer::all);
        let here = containers.filter(|container| container.kernel().agent.as_ref() == Some(&self.row.id));
        let named =
            here.filter(|container| status.is_none_or(|status| container.kernel().status.as_str() == status));
        Ok(named.filter(|container| container.kernel().status.holds_capacity()).collect())
    }
}

fn mebibytes(slots: &ResourceSlots) -> Option<i64> {
    slots.get("mem").to_u64().and_then(|bytes| (bytes / MIB).try_into().ok())
}

/// The sum of a family of accelerators, whatever unit they are counted in.
fn accelerators(slots: &ResourceSlots, family: &str) -> f64 {
    slots.iter().filter(|(name, _)| name.family() == family).map(|(_, amount)| amount.to_f64()).sum()
}

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl Agent {
    async fn id(&self) -> Option<ID> {
        Some(ID::from(self.row.id.as_str()))
    }

    async fn status(&self) -> Option<&str> {
        Some(self.row.status.as_str())
    }

    async fn status_changed(&self) -> Option<DateTime> {
        Some(DateTime(self.row.status_changed))
    }

    async fn region(&self) -> Option<&str> {
        Some(&self.row.region)
    }

    async fn scaling_group(&self) -> Option<&str> {
        Some(&self.row.resource_group)
    }

    async fn schedulable(&self) -> Option<bool> {
        Some(self.row.schedulable)
    }

    async fn available_slots(&self) -> Option<JsonString> {
        JsonString::slots(&self.row.capacity)
    }

    async fn occupied_slots(&self) -> Option<JsonString> {
        JsonString::slots(&self.occupied)
    }

    async fn addr(&self) -> Option<&str> {
        Some(&self.row.addr)
    }

    async fn architecture(&self) -> Option<&str> {
        Some(&self.row.architecture)
    }

    async fn first_contact(&self) -> Option<DateTime> {
        Some(DateTime(self.row.first_contact))
    }

    async fn lost_at(&self) -> Option<DateTime> {
        self.row.lost_at.map(DateTime)
    }

    /// Null until processor use has been measured: the official client takes that for granted.
    async fn live_stat(&self) -> Option<JsonString> {
        let stat = &self.row.live_stat;
        let measured = ["/node/cpu_util/pct", "/devices/cpu_util"];
        if measured.iter().all(|path| stat.pointer(path).is_some()) { JsonString::of(stat) } else { None }
    }

    async fn version(&self) -> Option<&str> {
        Some(&self.row.version)
    }

    async fn compute_plugins(&self) -> Option<JsonString> {
        JsonString::of(&self.row.compute_plugins)
    }

    /// What the isolation of kernels lacks on this node, when anything.
    async fn hardware_metadata(&self) -> Option<JsonString> {
        let gaps = &self.row.isolation_gaps;
        if gaps.is_empty() { None } else { JsonString::of(&json!({ "isolation_gaps": gaps })) }
    }

    async fn auto_terminate_abusing_kernel(&self) -> Option<bool> {
        Some(false)
    }

    async fn local_config(&self) -> Option<JsonString> {
        JsonString::of(&json!({ "agent": { "auto_terminate_abusing_kernel": false } }))
    }

    async fn container_count(&self, context: &Context<'_>) -> Result<Option<i64>> {
        Ok(self.containers(manager(context)?, None).await?.len().try_into().ok())
    }

    async fn mem_slots(&self) -> Option<i64> {
        mebibytes(&self.row.capacity)
    }

    async fn cpu_slots(&self) -> Option<f64> {
        Some(self.row.capacity.get("cpu").to_f64())
    }

    async fn gpu_slots(&self) -> Option<f64> {
        Some(accelerators(&self.row.capacity, "cuda"))
    }

    async fn tpu_slots(&self) -> Option<f64> {
        Some(accelerators(&self.row.capacity, "tpu"))
    }

    async fn used_mem_slots(&self) -> Option<i64> {
        mebibytes(&self.occupied)
    }

    async fn used_cpu_slots(&self) -> Option<f64> {
        Some(self.occupied.get("cpu").to_f64())
    }

    async fn used_gpu_slots(&self) -> Option<f64> {
        Some(accelerators(&self.occupied, "cuda"))
    }

    async fn used_tpu_slots(&self) -> Option<f64> {
        Some(accelerators(&self.occupied, "tpu"))
    }

    async fn cpu_cur_pct(&self) -> Option<f64> {
        self.node_stat("cpu_util", "pct")
    }

    async fn mem_cur_bytes(&self) -> Option<f64> {
        self.node_stat("mem", "current")
    }

    async fn compute_containers(
        &self,
        context: &Context<'_>,
        status: Option<String>,
    ) -> Result<Option<Vec<Option<ComputeContainer>>>> {
        let containers = self.containers(manager(context)?, status.as_deref()).await?;
        Ok(Some(containers.into_iter().map(Some).collect()))
    }
}

impl Row for Agent {
    fn value(&self, name: &str) -> Value<'_> {
        let row = &self.row;
        match name {
            "id" => row.id.as_str().into(),
            "status" => row.status.as_str().into(),
            "status_changed" => row.status_changed.into(),
            "region" => row.region.as_str().into(),
            "scaling_group" => row.resource_group.as_str().into(),
            "schedulable" => row.schedulable.into(),
            "addr" => row.addr.as_str().into(),
            "first_contact" => row.first_contact.into(),
            "lost_at" => row.lost_at.into(),
            "version" => row.version.as_str().into(),
            "available_slots" => serde_json::to_string(&row.capacity).ok().into(),
            "occupied_slots" => serde_json::to_string(&self.occupied).ok().into(),
            _ => Value::Null,
        }
    }
}

impl ListRow for Agent {
    fn field(name: &str) -> Option<Field> {
        let kind = match name {
            "id" | "region" | "scaling_group" | "addr" | "version" | "available_slots" | "occupied_slots" => {
                FieldKind::Text
            }
            "status" => FieldKind::Enum(&["ALIVE", "LOST", "RESTARTING", "TERMINATED"]),
            "schedulable" => FieldKind::Bool,
            "status_changed" | "first_contact" | "lost_at" => FieldKind::Time,
            _ => return None,
        };
        Some(Field::one(kind))
    }
}
