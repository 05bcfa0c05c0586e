//! Taking over what an earlier agent left behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use bai_core::port::agent::{KernelRef, KernelSpec};
use bai_core::port::backend::Started;
use bai_core::slots::ResourceSlots;
use bai_scheduler::device::Allocation;
use serde_json::Map;

use super::core::Core;
use super::drive::Origin;
use crate::state::{KernelRecord, Phase};

impl Core {
    /// Fills the table of kernels: one for each record, and one for each living thing of ours without a record.
    pub(super) fn take_over(
        &self,
        records: impl Iterator<Item = (KernelRecord, Option<Allocation>)>,
        found: &[Started],
    ) {
        let mut kernels = self.kernels.lock();
        for (record, devices) in records {
            kernels.insert(record.kernel().id, self.new_kernel(record, devices, false));
        }
        for started in found.iter().filter(|started| started.exit.is_none()) {
            let kernel = kernels.entry(started.kernel.id).or_insert_with(|| {
                // Perhaps the scratch directory was lost, perhaps the manager never heard of it: it decides.
                tracing::warn!(kernel = %started.kernel.id, "found a kernel without a record");
                let mut record = KernelRecord::new(unknown_spec(started), String::new());
                record.phase = Phase::Running;
                self.new_kernel(record, None, true)
            });
            if kernel.kernel == started.kernel {
                // The first report already says what runs.
                let attached = kernel.with_record(|record| self.plugins.attached(&record.allocation));
                kernel.live(|live| {
                    live.attached = attached;
                    live.started = Some(started.clone());
                });
            }
        }
    }

    /// Starts a task for each kernel that is not over, and removes what belongs to none.
    pub(super) fn resume(self: &Arc<Self>, found: Vec<Started>) {
        let kernels: Vec<_> = self.kernels.lock().values().cloned().collect();
        let mut current: BTreeMap<KernelRef, Started> = BTreeMap::new();
        for started in found {
            let wanted =
                kernels.iter().any(|kernel| kernel.kernel == started.kernel && !kernel.phase().is_over());
            if wanted {
                current.insert(started.kernel, started);
            } else {
                self.discard(started.kernel);
            }
        }
        for kernel in kernels.into_iter().filter(|kernel| !kernel.phase().is_over()) {
            let origin = Origin::Found(current.remove(&kernel.kernel).map(Box::new));
            self.spawn(Arc::clone(self).drive(kernel, origin, None));
        }
    }

    /// Ends and removes an earlier generation, or the remains of something that is over.
    fn discard(self: &Arc<Self>, kernel: KernelRef) {
        let core = Arc::clone(self);
        self.spawn(async move { core.clear(kernel).await });
    }
}

fn unknown_spec(started: &Started) -> KernelSpec {
    KernelSpec {
        kernel: started.kernel,
        session: started.session,
        session_name: String::new(),
        session_type: String::new(),
        image: String::new(),
        image_labels: BTreeMap::new(),
        role: String::new(),
        hostname: String::new(),
        slots: ResourceSlots::new(),
        resource_opts: Map::new(),
        environ: BTreeMap::new(),
        bootstrap_script: None,
        preopen_ports: Vec::new(),
        startup_command: None,
        batch_timeout: None,
        cluster: None,
    }
}
