use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bai_core::clock::Clock;
use bai_core::error::{Error, Result, code};
use bai_core::id::KernelId;
use bai_core::image::Image;
use bai_core::port::agent::{KernelRef, KernelSpec};
use bai_core::port::backend::{BackendCapability, ExitNotice, Started};
use bai_core::port::{KernelBackend, ManagerApi};
use bai_core::session::ServicePort;
use bai_scheduler::device::{Allocation, Excess};
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::kernel::Kernel;
use crate::options::AgentOptions;
use crate::plugin::{PluginSetup, Plugins};
use crate::ports::{self, PortPool};
use crate::run::{Runs, RunsLimits};
use crate::runner::Connector;
use crate::state::{KernelRecord, StateStore};

/// What an agent is made of.
pub(super) struct Parts {
    pub(super) options: AgentOptions,
    pub(super) backend: Arc<dyn KernelBackend>,
    pub(super) connector: Option<Arc<dyn Connector>>,
    pub(super) state: Arc<dyn StateStore>,
    pub(super) manager: Arc<dyn ManagerApi>,
    pub(super) plugins: PluginSetup,
    pub(super) clock: Arc<dyn Clock>,
}

/// What the tasks of an agent share.
pub(super) struct Core {
    pub(super) options: AgentOptions,
    pub(super) backend: Arc<dyn KernelBackend>,
    pub(super) capability: BackendCapability,
    pub(super) connector: Option<Arc<dyn Connector>>,
    pub(super) state: Arc<dyn StateStore>,
    pub(super) manager: Arc<dyn ManagerApi>,
    pub(super) plugins: Plugins,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ports: PortPool,
    pub(super) kernels: Mutex<HashMap<KernelId, Arc<Kernel>>>,
    pub(super) creations: Semaphore,
    /// Something changed that the manager should know.
    pub(super) dirty: Notify,
    pub(super) images: Mutex<Images>,
    pub(super) node_stat: Mutex<Value>,
    pub(super) incarnation: u64,
    pub(super) seq: Mutex<u64>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// Service ports as clients see them, and the pairs of ports to publish: in the kernel, on the host.
pub(super) type Ports = (Vec<ServicePort>, Vec<(u16, u16)>);

/// What an earlier agent left in the back end, and the ends from then on.
pub(super) struct Found {
    pub(super) started: Vec<Started>,
    pub(super) exits: BoxStream<'static, ExitNotice>,
}

/// Images as last seen, a number that changes with them, and whether the manager has yet to hear of them.
#[derive(Debug, Default)]
pub(super) struct Images {
    pub(super) list: Vec<Image>,
    pub(super) version: u64,
    pub(super) unsent: bool,
}

impl Core {
    /// Builds the shared part. Nothing runs yet; the devices of earlier kernels are already taken again.
    pub(super) async fn open(parts: Parts) -> Result<(Arc<Self>, Found)> {
        let mut records = parts.state.load()?;
        // Watched before listed: no end falls in between.
        let exits = parts.backend.exits().await?;
        let found = parts.backend.list().await?;
        let living = records.iter().filter(|record| !record.phase.is_over());
        let taken: HashSet<u16> = living.flat_map(|record| &record.ports).map(|(_, host)| *host).collect();
        let pool = PortPool::new(parts.options.bind_host, parts.options.port_range.clone(), &taken);
        let creations = Semaphore::new(parts.options.creation_concurrency.max(1));
        let devices = restore(&parts.plugins, &mut records);
        let this = Self {
            capability: parts.backend.capability(),
            options: parts.options,
            backend: parts.backend,
            connector: parts.connector,
            state: parts.state,
            manager: parts.manager,
            plugins: parts.plugins.open(),
            incarnation: u64::try_from(parts.clock.now().timestamp_micros()).unwrap_or_default(),
            clock: parts.clock,
            ports: pool,
            kernels: Mutex::default(),
            creations,
            dirty: Notify::new(),
            images: Mutex::default(),
            node_stat: Mutex::new(Value::Null),
            seq: Mutex::new(0),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        this.take_over(records.into_iter().zip(devices), &found);
        Ok((Arc::new(this), Found { started: found, exits }))
    }

    /// A kernel of this agent.
    pub(super) fn new_kernel(
        &self,
        record: KernelRecord,
        devices: Option<Allocation>,
        orphan: bool,
    ) -> Arc<Kernel> {
        let limits = RunsLimits { unread_timeout: self.options.unread_timeout, ..RunsLimits::default() };
        Arc::new(Kernel::new(record, devices, orphan, Runs::new(limits), Arc::clone(&self.state)))
    }

    /// The kernel that a call is about.
    ///
    /// # Errors
    /// `NotFound` when it is not known, `Conflict` when a newer generation is.
    pub(super) fn kernel(&self, wanted: KernelRef) -> Result<Arc<Kernel>> {
        let kernels = self.kernels.lock();
        let unknown =
            || Error::of(code::KERNEL_NOT_FOUND, "no such kernel on this agent").with("kernel", wanted.id);
        let kernel = kernels.get(&wanted.id).ok_or_else(unknown)?;
        match kernel.kernel.generation.cmp(&wanted.generation) {
            std::cmp::Ordering::Equal => Ok(Arc::clone(kernel)),
            std::cmp::Ordering::Less => Err(unknown().with("generation", wanted.generation)),
            std::cmp::Ordering::Greater => Err(stale(wanted)),
        }
    }

    /// Runs a task until it ends or the agent does.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Ports of a new kernel: service ports as clients see them, and the pairs to publish. With a back end that shares the
    /// host's network both are the same and nothing is published.
    pub(super) fn assign_ports(&self, spec: &KernelSpec) -> Result<Ports> {
        let mut services = ports::service_ports(spec);
        if self.capability.kind != "docker" {
            return Ok((services, Vec::new()));
        }
        let wanted: Vec<u16> = services.iter().flat_map(|service| service.container_ports.clone()).collect();
        let mut hosts = self.ports.take(wanted.len())?.into_iter();
        for service in &mut services {
            service.host_ports = hosts.by_ref().take(service.container_ports.len()).collect();
        }
        let pairs = services
            .iter()
            .flat_map(|service| {
                service.container_ports.iter().copied().zip(service.host_ports.iter().copied())
            })
            .collect();
        Ok((services, pairs))
    }
}

/// Takes the devices of all living kernels again; there is one entry for each record.
fn restore(plugins: &PluginSetup, records: &mut [KernelRecord]) -> Vec<Option<Allocation>> {
    let living = records.iter_mut().filter(|record| !record.phase.is_over());
    plugins.adopt(&mut living.map(|record| &mut record.allocation).collect::<Vec<_>>());
    let take =
        |record: &KernelRecord| (!record.phase.is_over()).then(|| plugins.restore(record.allocation.clone()));
    let devices = records.iter().map(take).collect();
    for excess in plugins.excess() {
        let Excess { slot, device, held, offered } = excess;
        tracing::warn!(%slot, %device, %held, %offered, "more of a device is in use than it offers");
    }
    devices
}

/// The error for a call about a start that a later one has replaced.
pub(super) fn stale(kernel: KernelRef) -> Error {
    Error::of(code::STALE_GENERATION, "the kernel has been replaced by a newer generation")
        .with("kernel", kernel.id)
        .with("generation", kernel.generation)
}
