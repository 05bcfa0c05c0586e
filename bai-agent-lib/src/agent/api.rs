use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bai_core::error::{Error, Result, code};
use bai_core::execution::{ExecuteReply, ExecuteRequest, FileEntry, UploadFile};
use bai_core::id::{KernelId, SessionId};
use bai_core::port::AgentApi;
use bai_core::port::agent::{KernelRef, KernelSpec};
use bai_core::slots::ResourceSlots;
use bai_scheduler::device::{AffinityHint, Allocation};
use serde_json::{Map, Value};

use super::Agent;
use super::core::{Core, stale};
use super::drive::{Origin, blocking};
use crate::files::Home;
use crate::kernel::Kernel;
use crate::log::ConsoleLog;
use crate::plugin::Plugins;
use crate::scratch::Layout;
use crate::state::KernelRecord;

#[async_trait]
impl AgentApi for Agent {
    async fn create_kernels(&self, specs: Vec<KernelSpec>) -> Result<()> {
        self.core.create_kernels(specs)
    }

    async fn destroy_kernel(&self, kernel: KernelRef, reason: &str) -> Result<()> {
        self.core.kernel(kernel)?.stop(reason);
        Ok(())
    }

    async fn forget(&self, kernel: KernelRef) -> Result<()> {
        self.core.forget(kernel).await
    }

    async fn start_batch(&self, kernel: KernelRef) -> Result<()> {
        let kernel = self.core.kernel(kernel)?;
        if kernel.with_record(|record| record.batch.is_some()) {
            return Ok(());
        }
        kernel.settled(self.core.options.command_timeout).await?;
        kernel.runner()?;
        if kernel.begin_batch(self.core.clock.now().timestamp_micros())? {
            self.core.send_batch(&kernel);
            kernel.signals.send_modify(|signals| signals.batch = true);
        }
        Ok(())
    }

    async fn execute(&self, kernel: KernelRef, request: ExecuteRequest) -> Result<ExecuteReply> {
        self.core.execute(kernel, request).await
    }

    async fn interrupt(&self, kernel: KernelRef) -> Result<()> {
        self.core.interrupt(kernel).await
    }

    async fn complete(
        &self,
        kernel: KernelRef,
        code: &str,
        options: &Map<String, Value>,
    ) -> Result<Vec<String>> {
        self.core.complete(kernel, code, options).await
    }

    async fn logs(&self, kernel: KernelRef) -> Result<Vec<u8>> {
        let kernel = self.core.kernel(kernel)?;
        self.core.read_log(kernel).await
    }

    async fn upload(&self, kernel: KernelRef, files: Vec<UploadFile>) -> Result<()> {
        self.core.in_home(kernel, move |home| home.write_all(&files)).await
    }

    async fn download(&self, kernel: KernelRef, path: &str) -> Result<Vec<u8>> {
        let path = path.to_owned();
        self.core.in_home(kernel, move |home| home.archive(&path)).await
    }

    async fn download_single(&self, kernel: KernelRef, path: &str) -> Result<Vec<u8>> {
        let path = path.to_owned();
        self.core.in_home(kernel, move |home| home.read(&path)).await
    }

    async fn list_files(&self, kernel: KernelRef, path: &str) -> Result<Vec<FileEntry>> {
        let path = path.to_owned();
        self.core.in_home(kernel, move |home| home.list(&path)).await
    }
}

impl Core {
    fn create_kernels(self: &Arc<Self>, specs: Vec<KernelSpec>) -> Result<()> {
        let mut kernels = self.kernels.lock();
        for spec in &specs {
            let known = kernels.get(&spec.kernel.id).map_or(0, |kernel| kernel.kernel.generation);
            if known > spec.kernel.generation {
                return Err(stale(spec.kernel));
            }
        }
        let mut hints = HashMap::new();
        for spec in specs {
            let id = spec.kernel.id;
            let earlier = kernels.get(&id).cloned();
            if earlier.as_ref().is_some_and(|earlier| earlier.kernel == spec.kernel) {
                continue;
            }
            let near = hints.entry(spec.session).or_insert_with(|| self.near(spec.session, &kernels));
            let (kernel, origin) = self.accept(spec, earlier.as_deref(), near);
            kernels.insert(id, Arc::clone(&kernel));
            self.spawn(Arc::clone(self).drive(kernel, origin, earlier));
        }
        drop(kernels);
        self.dirty.notify_one();
        Ok(())
    }

    /// Where the kernels of a session are that run here already: its others are better off near them.
    fn near(&self, session: SessionId, kernels: &HashMap<KernelId, Arc<Kernel>>) -> AffinityHint {
        if !self.plugins.has_nodes() {
            return AffinityHint::default();
        }
        let kin =
            kernels.values().filter(|kernel| kernel.with_record(|record| record.spec.session == session));
        let nodes = kin.filter_map(|kernel| kernel.live(|live| live.devices.as_ref().map(Allocation::nodes)));
        AffinityHint { nodes: nodes.flatten().collect() }
    }

    /// A record with everything the kernel is to hold.
    fn accept(
        &self,
        spec: KernelSpec,
        earlier: Option<&Kernel>,
        near: &mut AffinityHint,
    ) -> (Arc<Kernel>, Origin) {
        let mut record = KernelRecord::new(spec, hex::encode(rand::random::<[u8; 32]>()));
        let (devices, origin) = match self.reserve(&mut record, earlier, near) {
            Ok(devices) => {
                if self.plugins.has_nodes() && near.nodes.is_empty() {
                    near.nodes = devices.nodes();
                }
                (Some(devices), Origin::New)
            }
            Err(error) => (None, Origin::Refused(error)),
        };
        (self.new_kernel(record, devices, false), origin)
    }

    /// Takes ports and devices.
    fn reserve(
        &self,
        record: &mut KernelRecord,
        earlier: Option<&Kernel>,
        near: &AffinityHint,
    ) -> Result<Allocation> {
        let devices = self.devices(&record.spec.slots, earlier, near)?;
        (record.service_ports, record.ports) = self.assign_ports(&record.spec)?;
        record.allocation = devices.held().clone();
        Ok(devices)
    }

    /// Takes devices: those of the predecessor when they are what is wanted. Otherwise the predecessor keeps what its successor does
    /// not take until it has ended, because it still runs on it. Its record stays as it is meanwhile.
    fn devices(
        &self,
        wanted: &ResourceSlots,
        earlier: Option<&Kernel>,
        near: &AffinityHint,
    ) -> Result<Allocation> {
        let Some(earlier) = earlier else { return self.plugins.allocate(wanted, near) };
        earlier.live(|live| match live.devices.take() {
            None => self.plugins.allocate(wanted, near),
            Some(same) if same.held().totals() == *wanted && same.is_offered() => Ok(same),
            Some(mut other) => {
                let next = Plugins::succeed(&mut other, wanted, near);
                live.devices = Some(other);
                next
            }
        })
    }

    pub(super) async fn forget(&self, wanted: KernelRef) -> Result<()> {
        let kernel = match self.kernel(wanted) {
            Err(error) if error.code() == code::KERNEL_NOT_FOUND => return Ok(()),
            kernel => kernel?,
        };
        if !kernel.phase().is_over() {
            return Err(Error::of(code::CONFLICT, "the kernel has not ended").with("kernel", wanted.id));
        }
        kernel.wait(|signals| signals.over).await;
        let _removal = kernel.removal.lock().await;
        // A later generation may have come meanwhile; the directory is then its own.
        match self.kernel(wanted) {
            Err(error) if error.code() == code::KERNEL_NOT_FOUND => return Ok(()),
            current => drop(current?),
        }
        let state = Arc::clone(&self.state);
        blocking(move || state.remove(wanted.id)).await?;
        let mut kernels = self.kernels.lock();
        if kernels.get(&wanted.id).is_some_and(|kernel| kernel.kernel == wanted) {
            kernels.remove(&wanted.id);
        }
        Ok(())
    }

    async fn read_log(&self, kernel: Arc<Kernel>) -> Result<Vec<u8>> {
        let failed = |error| Error::of(code::BACKEND_FAILED, "the log cannot be read").source(error);
        if kernel.log.lock().is_some() {
            return blocking(move || {
                kernel.log.lock().as_ref().map_or(Ok(Vec::new()), ConsoleLog::read).map_err(failed)
            })
            .await;
        }
        // Ended under an earlier agent, or not started yet.
        let dir = self.state.scratch(kernel.kernel.id);
        blocking(move || crate::log::read(&dir).map_err(failed)).await
    }

    /// Works on the files of a kernel that has not been forgotten.
    async fn in_home<T, F>(&self, kernel: KernelRef, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Home) -> Result<T> + Send + 'static,
    {
        self.kernel(kernel)?;
        let (scratch, owner, on_disk) =
            (self.state.scratch(kernel.id), self.options.uid_gid, self.state.on_disk());
        blocking(move || {
            let layout = Layout::new(&scratch);
            if !on_disk {
                // Simulated kernels get a directory when somebody wants to use it.
                let made = std::fs::create_dir_all(&scratch).and_then(|()| layout.make_home(owner));
                made.map_err(|error| Error::of(code::BACKEND_FAILED, "no home directory").source(error))?;
            }
            work(&Home::open(&layout.work, owner)?)
        })
        .await
    }
}
