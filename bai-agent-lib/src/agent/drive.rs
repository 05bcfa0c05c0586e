//! The task of one kernel: from its record to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::{Error, Result, code};
use bai_core::port::agent::KernelRef;
use bai_core::port::backend::{RunnerEndpoint, StartSpec, Started};
use bai_core::session::KernelExit;
use bai_core::slots::SlotType;
use bai_scheduler::device::Holding;
use serde_json::Value;

use super::core::Core;
use crate::kernel::Kernel;
use crate::log::{ConsoleLog, DiskLog};
use crate::plugin::Grant;
use crate::runner::{self, Connection};
use crate::scratch::Layout;
use crate::state::{KernelRecord, Phase};

/// First pause between attempts to clean up with an unreachable back end; doubled up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// An image that is present is prepared faster than this, and is then not reported as being pulled.
const PULLING_AFTER: Duration = Duration::from_millis(100);

/// Where a kernel comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// Asked for just now.
    New,
    /// Asked for just now, and there is no room for it.
    Refused(Error),
    /// Found in the records of an earlier agent, with what the back end knows of it.
    Found(Option<Box<Started>>),
}

impl Core {
    /// Drives a kernel to its end. `earlier` is the generation that it replaces.
    pub(super) async fn drive(
        self: Arc<Self>,
        kernel: Arc<Kernel>,
        origin: Origin,
        earlier: Option<Arc<Kernel>>,
    ) {
        if let Some(earlier) = earlier {
            earlier.stop("restarting");
            earlier.wait(|signals| signals.over).await;
            let _removed = earlier.removal.lock().await;
        }
        let outcome = self.live(&kernel, origin).await;
        if let Err(error) = &outcome {
            tracing::warn!(kernel = %kernel.kernel.id, %error, "the kernel could not be started");
        }
        self.clear(kernel.kernel).await;
        self.finish(&kernel, outcome);
    }

    /// How the kernel ended, or why it could not be started.
    async fn live(self: &Arc<Self>, kernel: &Arc<Kernel>, origin: Origin) -> Result<KernelExit> {
        let started = match (origin, kernel.phase()) {
            (Origin::Refused(error), _) => return Err(error),
            (Origin::Found(Some(started)), _) => Some(*started),
            (Origin::New | Origin::Found(None), Phase::Starting) => {
                self.create_unless_stopped(kernel).await?
            }
            _ => None,
        };
        let reason = || kernel.signals.borrow().stop.clone();
        let Some(started) = started else {
            let reason = reason().unwrap_or_else(|| "self-terminated".into());
            return Ok(KernelExit { code: None, reason, oom: false });
        };
        if let Some(exit) = started.exit {
            return Ok(match reason() {
                Some(reason) => KernelExit { code: exit.code, reason, oom: false },
                None => exit,
            });
        }
        self.open_log(kernel)?;
        let connection = self.connect(kernel, &started)?;
        let attached = kernel.with_record(|record| self.plugins.attached(&record.allocation));
        kernel.live(|live| {
            live.attached = attached;
            live.started = Some(started);
        });
        self.pump(kernel, connection).await
    }

    /// Starts the kernel; `None` when it was asked to end before it had started.
    async fn create_unless_stopped(&self, kernel: &Kernel) -> Result<Option<Started>> {
        tokio::select! {
            biased;
            _ = kernel.wait(|signals| signals.stop.is_some()) => Ok(None),
            started = self.create(kernel) => started.map(Some),
        }
    }

    async fn create(&self, kernel: &Kernel) -> Result<Started> {
        let closed = |_| Error::of(code::KERNEL_CREATION, "the agent is stopping");
        let _permit = self.creations.acquire().await.map_err(closed)?;
        // The intent comes before every effect.
        kernel.update(|_| ())?;
        let record = kernel.record();
        self.prepare_image(kernel, &record.spec.image).await?;
        let grant = self.plugins.grant(&record.allocation);
        let spec = self.start_spec(&record, &grant);
        if self.state.on_disk() {
            let layout = Layout::new(&self.state.scratch(kernel.kernel.id));
            let (owner, stop_grace) = (self.options.uid_gid, self.options.stop_grace);
            let prepare = move || layout.prepare(&record, &grant, owner, stop_grace);
            blocking(move || prepare().map_err(|error| scratch_failed(&error))).await?;
        }
        within(self.options.start_timeout, "starting the sandbox", self.backend.start(&spec)).await
    }

    async fn prepare_image(&self, kernel: &Kernel, image: &str) -> Result<()> {
        let prepare = within(self.options.pull_timeout, "fetching the image", self.backend.prepare(image));
        tokio::pin!(prepare);
        if let Ok(done) = tokio::time::timeout(PULLING_AFTER, &mut prepare).await {
            return done;
        }
        kernel.live(|live| live.pulling = true);
        self.dirty.notify_one();
        let done = prepare.await;
        kernel.live(|live| live.pulling = false);
        self.dirty.notify_one();
        done
    }

    fn start_spec(&self, record: &KernelRecord, grant: &Grant) -> StartSpec {
        let layout = Layout::new(&self.state.scratch(record.spec.kernel.id));
        let mut limits = grant.limits.clone();
        limits.pids = self.options.pids_limit;
        limits.shm = record.spec.resource_opts.get("shmem").and_then(size);
        StartSpec {
            kernel: record.spec.kernel,
            session: record.spec.session,
            agent: self.options.id.to_string(),
            image: record.spec.image.clone(),
            hostname: record.spec.hostname.clone(),
            runner: self.options.runner.clone(),
            work_dir: layout.work,
            config_dir: layout.config,
            control_dir: layout.control,
            limits,
            image_labels: record.spec.image_labels.clone(),
            ports: record.ports.clone(),
            uid_gid: self.options.uid_gid,
            cluster: record.spec.cluster.as_ref().map(|cluster| cluster.network.clone()),
        }
    }

    fn open_log(&self, kernel: &Kernel) -> Result<()> {
        let limit = self.options.log_limit;
        let log = if self.state.on_disk() && !kernel.orphan {
            let dir = self.state.scratch(kernel.kernel.id);
            ConsoleLog::Disk(DiskLog::open(&dir, limit).map_err(|error| scratch_failed(&error))?)
        } else {
            ConsoleLog::Memory(VecDeque::new(), usize::try_from(limit).unwrap_or(usize::MAX))
        };
        *kernel.log.lock() = Some(log);
        Ok(())
    }

    /// Reaches the runner; an orphan has none that would let us in.
    fn connect(&self, kernel: &Kernel, started: &Started) -> Result<Option<Connection>> {
        if kernel.orphan {
            return Ok(None);
        }
        let token = kernel.with_record(|record| record.token.clone());
        match (&started.endpoint, &self.connector) {
            (RunnerEndpoint::Unix(path), _) => Ok(Some(runner::connect_unix(path.clone(), token))),
            (RunnerEndpoint::Simulated, Some(connector)) => connector.connect(kernel.kernel).map(Some),
            (RunnerEndpoint::Simulated, None) => {
                Err(Error::of(code::UNSUPPORTED, "simulated kernels need the handle of their back end"))
            }
        }
    }

    /// Ends and removes what the back end has of a kernel, however long that takes.
    pub(super) async fn clear(&self, kernel: KernelRef) {
        let mut pause = FIRST_PAUSE;
        loop {
            let cleared = match self.backend.stop(kernel, self.options.stop_grace).await {
                Ok(()) => self.backend.remove(kernel).await,
                Err(error) => Err(error),
            };
            let Err(error) = cleared else { return };
            tracing::warn!(kernel = %kernel.id, %error, "the kernel cannot be cleaned up yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Releases what the kernel held and records its end.
    fn finish(&self, kernel: &Kernel, outcome: Result<KernelExit>) {
        kernel.runs.end();
        let phase = match outcome {
            Ok(exit) => Phase::Exited { exit },
            Err(error) => Phase::Failed { code: error.code().id().to_owned(), message: error.to_string() },
        };
        let mut ports = Vec::new();
        let saved = kernel.update(|record| {
            record.allocation = Holding::new();
            ports = std::mem::take(&mut record.ports);
            record.phase = phase;
        });
        if let Err(error) = saved {
            // The next agent finds nothing in the back end and comes to the same end.
            tracing::warn!(kernel = %kernel.kernel.id, %error, "the end of the kernel cannot be recorded");
        }
        self.ports.give_back(ports.into_iter().map(|(_, host)| host));
        kernel.live(|live| {
            live.devices = None; // unless a later generation has taken them over
            live.runner = None;
        });
        kernel.signals.send_modify(|signals| signals.over = true);
        self.dirty.notify_one();
    }
}

/// Runs blocking work on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let cancelled = |error| Error::of(code::INTERNAL, "a blocking task did not finish").source(error);
    tokio::task::spawn_blocking(work).await.map_err(cancelled)?
}

async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::of(code::KERNEL_TIMEOUT, format!("{what} took too long"));
    tokio::time::timeout(limit, work).await.map_err(late)?
}

fn scratch_failed(error: &std::io::Error) -> Error {
    Error::of(code::KERNEL_CREATION, "the directories of the kernel cannot be prepared").with("cause", error)
}

/// A size in bytes given as a number or a text.
fn size(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => SlotType::Bytes.parse(text).ok()?.to_u64(),
        _ => None,
    }
}
