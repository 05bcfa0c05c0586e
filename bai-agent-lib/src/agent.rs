//! The agent: keeps the kernels of one node in the state they should be in, and reports what it sees.
//!
//! ```text
//!  create_kernels ─▶ record written ─▶ back end started ─▶ runner connected ─▶ Running
//!                        (each step can be repeated after a crash)                │
//!  forget ◀─ Exited/Failed ◀─ cleaned up ◀─ back end stopped ◀─ destroy, exit ◀───┘
//! ```
//!
//! Each kernel is driven by one task; nothing else changes its phase. The API only leaves signals.

mod api;
mod core;
mod drive;
mod execute;
mod pump;
mod recover;
mod report;
mod watch;

use std::fmt;
use std::sync::Arc;

use bai_core::clock::{Clock, SystemClock};
use bai_core::error::{Error, ErrorKind, Result};
use bai_core::port::{KernelBackend, ManagerApi};

use crate::backend::simulated::SimulatedBackend;
use crate::options::AgentOptions;
use crate::plugin::{ComputePlugin, CpuPlugin, MemPlugin, PluginSetup};
use crate::runner::Connector;
use crate::state::{DiskState, StateStore};

use self::core::Core;

/// A running agent. Implements [`bai_core::port::AgentApi`].
///
/// Dropping it is like a crash: its tasks end at once, kernels keep running, and the next agent with the same directory
/// takes them over. [`Agent::shutdown`] also says good-bye to the manager.
pub struct Agent {
    core: Arc<Core>,
}

impl Agent {
    /// Starts to describe an agent.
    pub fn builder(options: AgentOptions) -> AgentBuilder {
        AgentBuilder {
            options,
            backend: None,
            connector: None,
            state: None,
            manager: None,
            plugins: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// Stops working for the manager; kernels keep running.
    pub async fn shutdown(&self) {
        self.core.leave().await;
        self.core.stop.cancel();
        self.core.tasks.close();
        self.core.tasks.wait().await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.core.stop.cancel();
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("id", &self.core.options.id).finish_non_exhaustive()
    }
}

/// Describes an agent; see [`Agent::builder`].
#[derive(Debug)]
pub struct AgentBuilder {
    options: AgentOptions,
    backend: Option<Arc<dyn KernelBackend>>,
    connector: Option<Arc<dyn Connector>>,
    state: Option<Arc<dyn StateStore>>,
    manager: Option<Arc<dyn ManagerApi>>,
    plugins: Option<Vec<Box<dyn ComputePlugin>>>,
    clock: Arc<dyn Clock>,
}

impl AgentBuilder {
    /// What runs the kernels. Required, unless [`AgentBuilder::simulated`] is given.
    #[must_use]
    pub fn backend(mut self, backend: Arc<dyn KernelBackend>) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Simulated kernels: the handle brings back end, runners and a state store that outlive this agent.
    #[must_use]
    pub fn simulated(mut self, simulated: &Arc<SimulatedBackend>) -> Self {
        self.backend = Some(Arc::clone(simulated) as _);
        self.connector = Some(Arc::clone(simulated) as _);
        self.state = Some(simulated.state(&self.options.data_dir));
        self
    }

    /// Who gets the reports. Required.
    #[must_use]
    pub fn manager(mut self, manager: Arc<dyn ManagerApi>) -> Self {
        self.manager = Some(manager);
        self
    }

    /// Another state store than `data_dir`.
    #[must_use]
    pub fn state(mut self, state: Arc<dyn StateStore>) -> Self {
        self.state = Some(state);
        self
    }

    /// Compute plugins beside `cpu` and `mem`.
    #[must_use]
    pub fn plugins(mut self, plugins: Vec<Box<dyn ComputePlugin>>) -> Self {
        self.plugins = Some(plugins);
        self
    }

    /// Another clock than that of the system.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Takes over what an earlier agent left behind and starts to work. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// `Invalid` when a required part is missing; `Unavailable` when the state directory or the back end cannot be used.
    pub async fn start(self) -> Result<Agent> {
        let missing =
            |part: &str| Error::new(ErrorKind::Invalid, "the agent lacks a part").with("part", part);
        let backend = self.backend.ok_or_else(|| missing("backend"))?;
        let manager = self.manager.ok_or_else(|| missing("manager"))?;
        let state = match self.state {
            Some(state) => state,
            None => Arc::new(DiskState::open(&self.options.data_dir)?),
        };
        let plugins = plugins(&self.options, self.plugins.unwrap_or_default());
        let parts = core::Parts {
            options: self.options,
            backend,
            connector: self.connector,
            state,
            manager,
            plugins,
            clock: self.clock,
        };
        let (core, found) = Core::open(parts).await?;
        core.start(found).await;
        Ok(Agent { core })
    }
}

fn plugins(options: &AgentOptions, more: Vec<Box<dyn ComputePlugin>>) -> PluginSetup {
    let mut cores = options.cpu.map_or_else(CpuPlugin::host_cores, |count| (0..count).collect());
    // The first cores are those that the host itself uses most.
    cores.drain(..cores.len().min(options.reserved_cpu as usize));
    let total = options.mem.unwrap_or_else(MemPlugin::host_total);
    let cpu = CpuPlugin::new(cores, options.cpu_overcommit, options.pin_cpus);
    let mem = MemPlugin::new(total, options.reserved_mem, options.mem_align, options.mem_overcommit);
    let mut all: Vec<Box<dyn ComputePlugin>> = vec![Box::new(cpu), Box::new(mem)];
    all.extend(more);
    PluginSetup::new(all, options)
}

#[cfg(test)]
mod tests;
