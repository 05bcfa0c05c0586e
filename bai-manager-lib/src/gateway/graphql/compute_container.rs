//! The type `ComputeContainer`: a kernel.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result};
use bai_core::query::{Field, FieldKind, Row, Value};
use bai_core::status::KernelStatus;
use bai_core::{Kernel, KernelId, Session};

use super::list::ListRow;
use super::scalar::{DateTime, JsonString, Uuid};
use super::viewer::manager;

/// One kernel of a session, by its place among the session's kernels.
#[derive(Debug, Clone)]
pub(super) struct ComputeContainer {
    session: Arc<Session>,
    place: usize,
}

impl ComputeContainer {
    /// All kernels of a session.
    pub(super) fn all(session: &Arc<Session>) -> impl Iterator<Item = Self> {
        let session = session.clone();
        (0..session.kernels.len()).map(move |place| Self { session: session.clone(), place })
    }

    /// The kernel with this id.
    pub(super) fn of(session: Arc<Session>, id: KernelId) -> Option<Self> {
        let place = session.kernels.iter().position(|kernel| kernel.id == id)?;
        Some(Self { session, place })
    }

    /// The kernel.
    pub(super) fn kernel(&self) -> &Kernel {
        &self.session.kernels[self.place]
    }

    fn scheduled(&self) -> Option<DateTime> {
        self.kernel().status_history.get(KernelStatus::Scheduled.as_str()).copied().map(DateTime)
    }
}

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ComputeContainer {
    async fn id(&self) -> Option<ID> {
        Some(self.kernel().id.into())
    }

    async fn idx(&self) -> Option<i64> {
        Some(self.kernel().idx.into())
    }

    async fn role(&self) -> Option<&str> {
        Some(&self.kernel().role)
    }

    async fn hostname(&self) -> Option<&str> {
        Some(&self.kernel().hostname)
    }

    async fn cluster_idx(&self) -> Option<i64> {
        Some(self.kernel().idx.into())
    }

    async fn local_rank(&self) -> Option<i64> {
        Some(self.kernel().local_rank.into())
    }

    async fn cluster_role(&self) -> Option<&str> {
        Some(&self.kernel().role)
    }

    async fn cluster_hostname(&self) -> Option<&str> {
        Some(&self.kernel().hostname)
    }

    async fn session_id(&self) -> Option<Uuid> {
        Some(Uuid(self.session.id.0))
    }

    async fn image(&self) -> Option<&str> {
        Some(&self.kernel().image)
    }

    async fn architecture(&self) -> Option<&str> {
        Some(&self.kernel().architecture)
    }

    async fn registry(&self) -> Option<&str> {
        Some(&self.kernel().registry)
    }

    async fn status(&self) -> Option<&str> {
        Some(self.kernel().status.as_str())
    }

    async fn status_changed(&self) -> Option<DateTime> {
        self.kernel().status_changed().map(DateTime)
    }

    async fn status_info(&self) -> Option<&str> {
        Some(self.kernel().status_info.as_deref().unwrap_or_default())
    }

    async fn status_data(&self) -> Option<JsonString> {
        JsonString::of(&self.kernel().status_data)
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(DateTime(self.session.created_at))
    }

    async fn terminated_at(&self) -> Option<DateTime> {
        self.kernel().terminated_at.map(DateTime)
    }

    async fn starts_at(&self) -> Option<DateTime> {
        self.session.starts_at.map(DateTime)
    }

    async fn scheduled_at(&self) -> Option<DateTime> {
        self.scheduled()
    }

    async fn abusing_report(&self) -> Option<JsonString> {
        None
    }

    async fn agent(&self) -> Option<&str> {
        self.kernel().agent.as_ref().map(AsRef::as_ref)
    }

    async fn agent_addr(&self, context: &Context<'_>) -> Result<Option<String>> {
        let agents = manager(context)?.agents();
        Ok(self.kernel().agent.as_ref().and_then(|id| agents.get(id)).map(|agent| agent.addr))
    }

    async fn container_id(&self) -> Option<&str> {
        self.kernel().container_id.as_deref()
    }

    async fn resource_opts(&self) -> Option<JsonString> {
        JsonString::of(&self.session.spec.resource_opts)
    }

    async fn occupied_slots(&self) -> Option<JsonString> {
        JsonString::slots(&self.kernel().allocated)
    }

    async fn live_stat(&self, context: &Context<'_>) -> Result<Option<JsonString>> {
        let report = manager(context)?.sessions().last_report(self.kernel());
        Ok(report.and_then(|report| JsonString::of(report.stats.as_ref()?)))
    }

    async fn last_stat(&self) -> Option<JsonString> {
        self.kernel().last_stat.as_ref().and_then(JsonString::of)
    }

    async fn preopen_ports(&self) -> Option<Vec<Option<i64>>> {
        Some(self.session.spec.preopen_ports.iter().map(|port| Some(i64::from(*port))).collect())
    }
}

impl Row for ComputeContainer {
    fn value(&self, name: &str) -> Value<'_> {
        let kernel = self.kernel();
        match name {
            "image" => kernel.image.as_str().into(),
            "architecture" => kernel.architecture.as_str().into(),
            "agent" => kernel.agent.as_ref().map(AsRef::<str>::as_ref).into(),
            "cluster_idx" => i64::from(kernel.idx).into(),
            "local_rank" => i64::from(kernel.local_rank).into(),
            "cluster_role" => kernel.role.as_str().into(),
            "cluster_hostname" => kernel.hostname.as_str().into(),
            "status" => kernel.status.as_str().into(),
            "status_info" => kernel.status_info.as_deref().into(),
            "created_at" => self.session.created_at.into(),
            "status_changed" => kernel.status_changed().into(),
            "terminated_at" => kernel.terminated_at.into(),
            "scheduled_at" => self.scheduled().map(|at| at.0).into(),
            _ => Value::Null,
        }
    }
}

/// Names of the kernel statuses.
const STATUSES: &[&str] = &[
    "PENDING",
    "SCHEDULED",
    "PREPARING",
    "BUILDING",
    "PULLING",
    "RUNNING",
    "RESTARTING",
    "RESIZING",
    "SUSPENDED",
    "TERMINATING",
    "TERMINATED",
    "ERROR",
    "CANCELLED",
];

impl ListRow for ComputeContainer {
    fn field(name: &str) -> Option<Field> {
        let kind = match name {
            "image" | "architecture" | "agent" | "agent_addr" | "cluster_role" | "cluster_hostname"
            | "status_info" => FieldKind::Text,
            "cluster_idx" | "local_rank" => FieldKind::Number,
            "status" => FieldKind::Enum(STATUSES),
            "created_at" | "status_changed" | "terminated_at" | "scheduled_at" => FieldKind::Time,
            _ => return None,
        };
        Some(Field::one(kind))
    }
}
