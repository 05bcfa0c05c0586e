//! One start of a kernel as the agent sees it.

use std::sync::Arc;
use std::time::Duration;

use bai_core::error::{Error, Result, code};
use bai_core::execution::KernelStats;
use bai_core::port::agent::{BatchOutcome, KernelRef, KernelReport, KernelStage, RunningKernel};
use bai_core::port::backend::Started;
use bai_core::session::KernelExit;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::log::ConsoleLog;
use crate::run::Runs;
use crate::runner::Runner;
use crate::state::{BatchRecord, KernelRecord, Phase, StateStore};
use crate::stats::KernelSeries;

/// What is asked of, or has happened to, a kernel. Fields are only ever set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    /// It is to be ended, for this reason.
    pub(crate) stop: Option<String>,
    /// Its sandbox has ended.
    pub(crate) exit: Option<KernelExit>,
    /// What its runner knew before this agent is known to this agent too.
    pub(crate) settled: bool,
    /// Its startup command was started.
    pub(crate) batch: bool,
    /// Everything of it has been cleaned up.
    pub(crate) over: bool,
}

/// One start of a kernel.
#[derive(Debug)]
#[allow(clippy::struct_field_names)]
pub(crate) struct Kernel {
    pub(crate) kernel: KernelRef,
    /// Known only through the back end: there is no record, so no runner can be reached.
    pub(crate) orphan: bool,
    pub(crate) runs: Runs,
    pub(crate) log: Mutex<Option<ConsoleLog>>,
    /// Held while a sample is taken, so that samples come in order.
    pub(crate) series: tokio::sync::Mutex<KernelSeries>,
    pub(crate) signals: watch::Sender<Signals>,
    /// Held while its files are removed: a later generation waits for it.
    pub(crate) removal: tokio::sync::Mutex<()>,
    state: Arc<dyn StateStore>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    record: KernelRecord,
    live: Live,
}

/// What is known of it while this agent runs.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) pulling: bool,
    pub(crate) started: Option<Started>,
    pub(crate) attached: Map<String, Value>,
    pub(crate) runner: Option<Arc<dyn Runner>>,
    pub(crate) stats: Option<KernelStats>,
    pub(crate) oom_kills: u64,
}

impl Kernel {
    pub(crate) fn new(record: KernelRecord, orphan: bool, runs: Runs, state: Arc<dyn StateStore>) -> Self {
        let stop = match &record.phase {
            Phase::Terminating { reason } => Some(reason.clone()),
            _ => None,
        };
        let signals = Signals { stop, over: record.phase.is_over(), ..Signals::default() };
        Self {
            kernel: record.kernel(),
            orphan,
            runs,
            log: Mutex::default(),
            series: tokio::sync::Mutex::default(),
            signals: watch::Sender::new(signals),
            removal: tokio::sync::Mutex::default(),
            state,
            inner: Mutex::new(Inner { record, live: Live::default() }),
        }
    }

    /// Changes the record and writes it, in one step for all who look. An orphan's is not written.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be written; it is changed in memory nevertheless.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut KernelRecord) -> T) -> Result<T> {
        let mut inner = self.inner.lock();
        let result = change(&mut inner.record);
        if !self.orphan {
            self.state.save(&inner.record)?;
        }
        Ok(result)
    }

    /// A copy of the record.
    pub(crate) fn record(&self) -> KernelRecord {
        self.inner.lock().record.clone()
    }

    /// Looks at the record.
    pub(crate) fn with_record<T>(&self, look: impl FnOnce(&KernelRecord) -> T) -> T {
        look(&self.inner.lock().record)
    }

    /// Changes what is known only in memory.
    pub(crate) fn live<T>(&self, change: impl FnOnce(&mut Live) -> T) -> T {
        change(&mut self.inner.lock().live)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.inner.lock().record.phase.clone()
    }

    /// Asks for its end. The first reason stays.
    pub(crate) fn stop(&self, reason: &str) {
        self.signals.send_if_modified(|signals| {
            let first = signals.stop.is_none() && !signals.over;
            if first {
                signals.stop = Some(reason.to_owned());
            }
            first
        });
    }

    /// Its sandbox has ended.
    pub(crate) fn exited(&self, exit: KernelExit) {
        self.signals.send_if_modified(|signals| {
            let first = signals.exit.is_none();
            if first {
                signals.exit = Some(exit);
            }
            first
        });
    }

    /// Waits until `wanted` holds of the signals.
    pub(crate) async fn wait(&self, wanted: impl FnMut(&Signals) -> bool) -> Signals {
        let mut signals = self.signals.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        signals.wait_for(wanted).await.map(|signals| signals.clone()).unwrap_or_default()
    }

    /// The runner of a running kernel.
    ///
    /// # Errors
    /// `Unavailable` when it is not running yet or any more.
    pub(crate) fn runner(&self) -> Result<Arc<dyn Runner>> {
        let inner = self.inner.lock();
        match &inner.record.phase {
            Phase::Starting => Err(Error::of(code::KERNEL_EXECUTION, "the kernel is still being started")),
            Phase::Running if self.orphan => {
                Err(Error::of(code::RUNNER_GONE, "the agent has lost the record of this kernel"))
            }
            Phase::Running => inner.live.runner.clone().ok_or_else(taken_over),
            _ => Err(crate::runner::gone()),
        }
    }

    /// Waits until everything that the runner knew before this agent is known here.
    ///
    /// # Errors
    /// `Unavailable` when that takes longer than `limit`.
    pub(crate) async fn settled(&self, limit: Duration) -> Result<()> {
        if self.phase() != Phase::Running || self.orphan {
            return Ok(());
        }
        let settled = self.wait(|signals| signals.settled || signals.exit.is_some() || signals.over);
        tokio::time::timeout(limit, settled).await.map(drop).map_err(|_| taken_over())
    }

    /// Acknowledges to the runner what has been taken.
    pub(crate) fn acknowledge(&self) {
        let runner = self.inner.lock().live.runner.clone();
        if let Some(runner) = runner {
            let (boot, seq) = self.runs.ack_point();
            runner.ack(&boot, seq);
        }
    }

    /// Notes that the startup command is about to be started; `false` when it was before.
    ///
    /// # Errors
    /// `Invalid` when the kernel has none.
    pub(crate) fn begin_batch(&self, now_micros: i64) -> Result<bool> {
        self.update(|record| {
            if record.batch.is_some() {
                return Ok(false);
            }
            if record.spec.startup_command.is_none() {
                return Err(Error::of(code::BAD_REQUEST, "the kernel has no startup command"));
            }
            let micros = |seconds: u64| i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
            let deadline =
                record.spec.batch_timeout.map(|seconds| now_micros.saturating_add(micros(seconds)));
            record.batch = Some(BatchRecord { deadline, outcome: None });
            Ok(true)
        })?
    }

    /// Notes how the startup command ended; the first outcome stays.
    pub(crate) fn end_batch(&self, exit_code: i32, reason: &str) -> Result<()> {
        self.update(|record| {
            if let Some(batch) = record.batch.as_mut().filter(|batch| batch.outcome.is_none()) {
                batch.outcome = Some(BatchOutcome { exit_code, reason: reason.to_owned() });
            }
        })
    }

    /// When the startup command has taken too long, in microseconds since the epoch.
    pub(crate) fn batch_deadline(&self) -> Option<i64> {
        self.with_record(|record| record.batch.as_ref().filter(|batch| batch.outcome.is_none())?.deadline)
    }

    /// Its line in the agent's report.
    pub(crate) fn report(&self, host: &str) -> KernelReport {
        let inner = self.inner.lock();
        let record = &inner.record;
        KernelReport {
            kernel: self.kernel,
            session: record.spec.session,
            stage: inner.stage(host),
            batch: record.batch.as_ref().and_then(|batch| batch.outcome.clone()),
            stats: inner.live.stats.clone(),
            unused_ms: Some(u64::try_from(self.runs.unused_for().as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

fn taken_over() -> Error {
    Error::of(code::KERNEL_EXECUTION, "the kernel is still being taken over by a new agent")
}

impl Inner {
    fn stage(&self, host: &str) -> KernelStage {
        match &self.record.phase {
            Phase::Starting if self.live.pulling => KernelStage::Pulling,
            Phase::Starting => KernelStage::Preparing,
            // Recorded as running by an earlier agent and not found: its end is about to be recorded.
            Phase::Running if self.live.started.is_none() => KernelStage::Terminating,
            Phase::Running => KernelStage::Running(Box::new(self.running(host))),
            Phase::Terminating { .. } => KernelStage::Terminating,
            Phase::Exited { exit } => KernelStage::Exited(exit.clone()),
            Phase::Failed { code, message } => {
                KernelStage::Failed { code: code.clone(), message: message.clone() }
            }
        }
    }

    fn running(&self, host: &str) -> RunningKernel {
        let started = self.live.started.as_ref();
        RunningKernel {
            container_id: started.map(|started| started.container_id.clone()).unwrap_or_default(),
            kernel_host: host.to_owned(),
            service_ports: self.record.service_ports.clone(),
            attached_devices: self.live.attached.clone(),
            isolation_gaps: started.map(|started| started.gaps.clone()).unwrap_or_default(),
            oom_kills: self.live.oom_kills,
        }
    }
}
