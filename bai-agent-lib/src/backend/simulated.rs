//! Kernels that exist only in memory: for tests, demonstrations and the simulation of large clusters.
//!
//! No process is started and nothing is written to disk until files are uploaded. Delays and failures are configurable
//! and, with a seed, the same in every run. The handle outlives the agents that use it, so the loss of an agent can be
//! simulated too. What the kernels understand is described at [`language`].

pub mod language;
mod runner;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bai_core::error::{Error, Result, code};
use bai_core::execution::KernelStats;
use bai_core::image::Image;
use bai_core::port::KernelBackend;
use bai_core::port::agent::KernelRef;
use bai_core::port::backend::{BackendCapability, ExitNotice, RunnerEndpoint, StartSpec, Started};
use bai_core::session::KernelExit;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use self::runner::SimRunner;
use crate::runner::{Connection, Connector};
use crate::state::{MemoryState, StateStore};
use crate::stats::Sample;

/// Exit notices kept for a watcher that is slow; a slower one compares lists.
const NOTICES: usize = 4096;

/// How simulated kernels behave.
#[derive(Debug, Clone)]
pub struct SimulatedOptions {
    /// Images that can be started.
    pub images: Vec<Image>,
    /// Shortest and longest time of a start.
    pub start_delay: (Duration, Duration),
    /// Shortest and longest time until a kernel has ended.
    pub stop_delay: (Duration, Duration),
    /// Share of starts that fail, from 0 to 1.
    pub start_failures: f64,
    /// Seed of the delays and failures.
    pub seed: u64,
}

impl Default for SimulatedOptions {
    /// One image, `python:3.11`, no delays, no failures.
    fn default() -> Self {
        let labels = [
            ("ai.backend.kernelspec", "1"),
            ("ai.backend.role", "COMPUTE"),
            ("ai.backend.envs.corecount", "OMP_NUM_THREADS"),
            ("ai.backend.features", "batch query uid-match user-input"),
            ("ai.backend.runtime-type", "python"),
            ("ai.backend.runtime-path", "/usr/bin/python3"),
            ("ai.backend.resource.min.cpu", "1"),
            ("ai.backend.resource.min.mem", "64m"),
            ("ai.backend.service-ports", "jupyter:http:8081"),
        ];
        let image = Image {
            name: "python:3.11".into(),
            architecture: std::env::consts::ARCH.into(),
            digest: String::new(),
            size: 0,
            labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            aliases: vec!["python".into()],
        };
        let none = (Duration::ZERO, Duration::ZERO);
        Self { images: vec![image], start_delay: none, stop_delay: none, start_failures: 0.0, seed: 0 }
    }
}

/// The simulated back end; give it to [`crate::AgentBuilder::simulated`].
#[derive(Debug)]
pub struct SimulatedBackend {
    options: SimulatedOptions,
    kernels: Mutex<HashMap<KernelRef, SimKernel>>,
    exits: broadcast::Sender<ExitNotice>,
    random: Mutex<StdRng>,
    state: Mutex<Option<Arc<MemoryState>>>,
}

#[derive(Debug)]
struct SimKernel {
    started: Started,
    runner: Arc<SimRunner>,
}

impl SimulatedBackend {
    /// A back end without kernels.
    pub fn new(options: SimulatedOptions) -> Arc<Self> {
        Arc::new(Self {
            random: Mutex::new(StdRng::seed_from_u64(options.seed)),
            options,
            kernels: Mutex::default(),
            exits: broadcast::Sender::new(NOTICES),
            state: Mutex::default(),
        })
    }

    /// The state store of the agents that use this back end one after another; the first decides the directory.
    pub fn state(&self, root: &Path) -> Arc<dyn StateStore> {
        let mut state = self.state.lock();
        Arc::clone(state.get_or_insert_with(|| Arc::new(MemoryState::new(root)))) as _
    }

    /// Lets a kernel end by itself. Nothing happens when it does not run.
    pub fn exit(&self, kernel: KernelRef, exit: KernelExit) {
        {
            let mut kernels = self.kernels.lock();
            let Some(found) = kernels.get_mut(&kernel).filter(|found| found.started.exit.is_none()) else {
                return;
            };
            found.started.exit = Some(exit.clone());
            found.runner.end();
        }
        // Fails when nobody watches, which is fine.
        let _ = self.exits.send(ExitNotice { kernel, exit });
    }

    /// Number of kernels that run.
    pub fn running(&self) -> usize {
        self.kernels.lock().values().filter(|kernel| kernel.started.exit.is_none()).count()
    }

    async fn delay(&self, (shortest, longest): (Duration, Duration)) {
        if !longest.is_zero() {
            let share = self.random.lock().random::<f64>();
            tokio::time::sleep(shortest + longest.saturating_sub(shortest).mul_f64(share)).await;
        }
    }
}

#[async_trait]
impl KernelBackend for SimulatedBackend {
    fn capability(&self) -> BackendCapability {
        let mut capability = BackendCapability::default();
        capability.kind = "simulated";
        capability.isolates = true;
        capability
    }

    async fn images(&self) -> Result<Vec<Image>> {
        Ok(self.options.images.clone())
    }

    async fn prepare(&self, image: &str) -> Result<()> {
        if self.options.images.iter().any(|known| known.name == image) {
            return Ok(());
        }
        Err(Error::of(code::IMAGE_NOT_FOUND, "no such image").with("image", image))
    }

    async fn start(&self, spec: &StartSpec) -> Result<Started> {
        if let Some(known) = self.kernels.lock().get(&spec.kernel) {
            return Ok(known.started.clone());
        }
        self.prepare(&spec.image).await?;
        self.delay(self.options.start_delay).await;
        let failures = self.options.start_failures;
        if failures > 0.0 && self.random.lock().random_bool(failures.clamp(0.0, 1.0)) {
            return Err(Error::of(code::BACKEND_FAILED, "the simulated start failed"));
        }
        let started = Started {
            kernel: spec.kernel,
            session: spec.session,
            container_id: format!("sim-{}-{}", spec.kernel.id, spec.kernel.generation),
            endpoint: RunnerEndpoint::Simulated,
            exit: None,
            gaps: Vec::new(),
        };
        let mut kernels = self.kernels.lock();
        let kernel =
            kernels.entry(spec.kernel).or_insert_with(|| SimKernel { started, runner: SimRunner::new() });
        Ok(kernel.started.clone())
    }

    async fn stop(&self, kernel: KernelRef, _grace: Duration) -> Result<()> {
        let runs = self.kernels.lock().get(&kernel).is_some_and(|found| found.started.exit.is_none());
        if runs {
            self.delay(self.options.stop_delay).await;
            self.exit(kernel, KernelExit { code: Some(143), reason: "self-terminated".into(), oom: false });
        }
        Ok(())
    }

    async fn remove(&self, kernel: KernelRef) -> Result<()> {
        let mut kernels = self.kernels.lock();
        if kernels.get(&kernel).is_some_and(|found| found.started.exit.is_none()) {
            return Err(Error::of(code::CONFLICT, "the kernel still runs").with("kernel", kernel.id));
        }
        kernels.remove(&kernel);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Started>> {
        Ok(self.kernels.lock().values().map(|kernel| kernel.started.clone()).collect())
    }

    async fn exits(&self) -> Result<BoxStream<'static, ExitNotice>> {
        let notices = BroadcastStream::new(self.exits.subscribe());
        Ok(notices.filter_map(|notice| std::future::ready(notice.ok())).boxed())
    }

    async fn stats(&self, kernel: KernelRef) -> Result<KernelStats> {
        let kernels = self.kernels.lock();
        let Some(found) = kernels.get(&kernel).filter(|found| found.started.exit.is_none()) else {
            return Err(
                Error::of(code::KERNEL_NOT_FOUND, "the kernel does not run").with("kernel", kernel.id)
            );
        };
        Ok(Sample { cpu_ms: found.runner.cpu_ms(), memory: 16 << 20, ..Sample::default() }.into_stats())
    }
}

impl Connector for SimulatedBackend {
    fn connect(&self, kernel: KernelRef) -> Result<Connection> {
        let kernels = self.kernels.lock();
        let found = kernels.get(&kernel).ok_or_else(crate::runner::gone)?;
        Ok(SimRunner::connect(&found.runner))
    }
}
