//! While a kernel lives: its runner's frames, its signals and its deadlines.

use std::sync::Arc;
use std::time::Duration;

use bai_core::error::{Error, Result, code};
use bai_core::session::KernelExit;
use bai_kernel_lib::protocol::{BatchSteps, Command, Event, ReplyBody, Stream, Work};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::core::Core;
use crate::kernel::Kernel;
use crate::run::BATCH_RUN;
use crate::runner::{self, Connection, Incoming};
use crate::state::Phase;

/// What a runner may take beyond the grace time of its processes: to end them, and to tell the last of what they did.
const MARGIN: Duration = Duration::from_secs(2);
/// How long a last measurement may hold up the end of a kernel.
const LAST_SAMPLE: Duration = Duration::from_millis(500);
/// How long the last frames of an ended runner are waited for.
const LAST_FRAMES: Duration = Duration::from_millis(500);
/// How long the exit code of a kernel that was ended is waited for.
const EXIT_NOTICE: Duration = Duration::from_millis(200);
/// The reason of an end that was forced: nothing is given time.
const FORCED: &str = "force-terminated";
/// Exit code of what SIGKILL has ended.
const KILLED: i32 = 128 + 9;
/// Far enough to mean "never".
const NEVER: Duration = Duration::from_hours(365 * 24);

/// The frames of a runner.
struct Frames {
    /// `None` when no more will ever come.
    queue: Option<mpsc::Receiver<Incoming>>,
    /// Whether the runner is connected, so that there may be more than is queued.
    open: bool,
}

impl Frames {
    /// The next frame. Waits for ever when none will come; dropping the future loses nothing.
    async fn next(&mut self) -> Incoming {
        loop {
            let Some(queue) = &mut self.queue else { return std::future::pending().await };
            let Some(incoming) = queue.recv().await else {
                // Only a simulated runner goes for good; its exit notice follows.
                (self.queue, self.open) = (None, false);
                continue;
            };
            return self.note(incoming);
        }
    }

    /// The next frame of a runner that has ended; `None` after the last.
    async fn rest(&mut self) -> Option<Incoming> {
        match self.queue.as_mut()?.try_recv() {
            Ok(incoming) => Some(self.note(incoming)),
            Err(_) if !self.open => None,
            Err(_) => {
                let incoming = self.queue.as_mut()?.recv().await?;
                Some(self.note(incoming))
            }
        }
    }

    fn note(&mut self, incoming: Incoming) -> Incoming {
        match incoming {
            Incoming::Connected { .. } => self.open = true,
            Incoming::Disconnected => self.open = false,
            _ => {}
        }
        incoming
    }
}

impl Core {
    /// Serves a started kernel until it ends.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` when its runner never answers.
    pub(super) async fn pump(
        self: &Arc<Self>,
        kernel: &Arc<Kernel>,
        connection: Option<Connection>,
    ) -> Result<KernelExit> {
        let queue = connection.map(|(runner, frames)| {
            kernel.live(|live| live.runner = Some(runner));
            frames
        });
        let mut connected = queue.is_none();
        let mut frames = Frames { queue, open: false };
        let starting = matches!(kernel.phase(), Phase::Starting);
        let start_deadline = Instant::now() + if starting { self.options.start_timeout } else { NEVER };
        let mut signals = kernel.signals.subscribe();
        let mut status: Option<oneshot::Receiver<ReplyBody>> = None;
        loop {
            let (stop, exit) = {
                let signals = signals.borrow_and_update();
                (signals.stop.clone(), signals.exit.clone())
            };
            if let Some(exit) = exit {
                self.last_frames(kernel, &mut frames).await;
                self.last_sample(kernel, true).await;
                return if connected || !starting { Ok(exit) } else { Err(died_early(&exit)) };
            }
            if let Some(reason) = stop {
                return Ok(self.terminate(kernel, &mut frames, reason).await);
            }
            tokio::select! {
                // Deadlines first, so that a flood of frames cannot hold them up; the status after the frames that it
                // follows.
                biased;
                () = tokio::time::sleep_until(start_deadline), if !connected => {
                    return Err(Error::of(code::KERNEL_TIMEOUT, "the runner of the kernel does not answer"));
                }
                () = sleep_until(kernel.runs.patience_ends()) => {
                    kernel.runs.drop_unread();
                    kernel.acknowledge();
                }
                () = sleep_until(self.batch_deadline(kernel)) => self.batch_timeout(kernel)?,
                _ = signals.changed() => {}
                incoming = frames.next() => match incoming {
                    Incoming::Connected { boot } => {
                        connected = true;
                        status = self.connected(kernel, &boot)?;
                    }
                    incoming => self.incoming(kernel, incoming).await,
                },
                known = answer(&mut status) => {
                    status = None;
                    if let Some(ReplyBody::Status(known)) = known {
                        kernel.runs.settle(&known);
                        kernel.signals.send_modify(|signals| signals.settled = true);
                    }
                }
            }
        }
    }

    /// The runner answers: the kernel runs. One that ran before is asked what it is doing.
    fn connected(
        self: &Arc<Self>,
        kernel: &Arc<Kernel>,
        boot: &Arc<str>,
    ) -> Result<Option<oneshot::Receiver<ReplyBody>>> {
        kernel.runs.connected(boot);
        let resumed = kernel.update(|record| {
            let before = record.phase.clone();
            if before == Phase::Starting {
                record.phase = Phase::Running;
            }
            before != Phase::Starting
        })?;
        self.dirty.notify_one();
        let (core, first) = (Arc::clone(self), Arc::clone(kernel));
        self.spawn(async move { core.measure(&first, false).await });
        if !resumed {
            kernel.signals.send_modify(|signals| signals.settled = true);
            return Ok(None);
        }
        let pending =
            kernel.with_record(|record| record.batch.as_ref().is_some_and(|batch| batch.outcome.is_none()));
        if pending {
            // The runner knows the run by its id and does not run it again.
            self.send_batch(kernel);
        }
        Ok(kernel.runner().ok().map(|runner| runner.send(Command::Status)))
    }

    /// Tells the runner to run the startup command.
    pub(super) fn send_batch(self: &Arc<Self>, kernel: &Arc<Kernel>) {
        let Ok(runner) = kernel.runner() else { return };
        let exec = kernel.with_record(|record| record.spec.startup_command.clone());
        let work = Work::Batch(BatchSteps { exec, ..BatchSteps::default() });
        let pending = runner.send(Command::Execute { run_id: BATCH_RUN.into(), work });
        let (core, kernel, limit) = (Arc::clone(self), Arc::clone(kernel), self.options.command_timeout);
        self.spawn(async move {
            match runner::reply(pending, limit).await {
                Err(error) if error.code() != code::RUNNER_GONE && error.code() != code::KERNEL_TIMEOUT => {
                    tracing::warn!(kernel = %kernel.kernel.id, %error, "the startup command was refused");
                    core.batch_ended(&kernel, -1).await;
                }
                _ => {}
            }
        });
    }

    async fn batch_ended(&self, kernel: &Kernel, exit_code: i32) {
        // What a short task has used, and whether it was the memory limit that ended it.
        self.last_sample(kernel, false).await;
        let reason = match exit_code {
            0 => "task-finished",
            KILLED if kernel.live(|live| live.oom_kills > 0) => "out-of-memory",
            _ => "task-failed",
        };
        if let Err(error) = kernel.end_batch(exit_code, reason) {
            tracing::warn!(kernel = %kernel.kernel.id, %error, "the result of the startup command cannot be recorded");
        }
        self.dirty.notify_one();
    }

    fn batch_timeout(&self, kernel: &Kernel) -> Result<()> {
        kernel.end_batch(-2, "task-timeout")?;
        if let Ok(runner) = kernel.runner() {
            drop(runner.send(Command::Interrupt { run_id: Some(BATCH_RUN.into()) }));
        }
        self.dirty.notify_one();
        Ok(())
    }

    fn batch_deadline(&self, kernel: &Kernel) -> Option<Instant> {
        let left = kernel.batch_deadline()?.saturating_sub(self.clock.now().timestamp_micros());
        Some(Instant::now() + Duration::from_micros(u64::try_from(left).unwrap_or(0)))
    }

    /// Logs a frame and gives it to its run, in this order: what is acknowledged is logged.
    async fn incoming(&self, kernel: &Kernel, incoming: Incoming) {
        match incoming {
            Incoming::Output { seq, run_id, stream, data } => {
                if matches!(stream, Stream::Stdout | Stream::Stderr) {
                    Self::write_log(kernel, seq, &data);
                }
                kernel.runs.output(seq, &run_id, stream, &data);
            }
            Incoming::Event { seq, event } => {
                match &event {
                    Event::Finished { run_id, exit_code, .. }
                        if run_id == BATCH_RUN && !kernel.runs.is_closed() =>
                    {
                        self.batch_ended(kernel, *exit_code).await;
                    }
                    _ => {}
                }
                kernel.runs.event(seq, &event);
            }
            Incoming::Connected { boot } => kernel.runs.connected(&boot),
            Incoming::Disconnected => return,
        }
        kernel.acknowledge();
    }

    fn write_log(kernel: &Kernel, seq: u64, data: &[u8]) {
        let (boot, _) = kernel.runs.ack_point();
        if let Some(log) = kernel.log.lock().as_mut()
            && let Err(error) = log.append(&boot, seq, data)
        {
            tracing::warn!(kernel = %kernel.kernel.id, %error, "console output cannot be logged");
        }
    }

    /// Takes what an ended runner sent before its end.
    async fn last_frames(&self, kernel: &Kernel, frames: &mut Frames) {
        let drain = async {
            while let Some(incoming) = frames.rest().await {
                self.incoming(kernel, incoming).await;
            }
        };
        let _ = tokio::time::timeout(LAST_FRAMES, drain).await;
    }

    /// Measures a kernel that is about to end, or has `ended`.
    async fn last_sample(&self, kernel: &Kernel, ended: bool) {
        let _ = tokio::time::timeout(LAST_SAMPLE, self.measure(kernel, ended)).await;
    }

    /// Ends the kernel and finds out its exit code.
    async fn terminate(&self, kernel: &Kernel, frames: &mut Frames, reason: String) -> KernelExit {
        let recorded = kernel.update(|record| record.phase = Phase::Terminating { reason: reason.clone() });
        if let Err(error) = recorded {
            tracing::warn!(kernel = %kernel.kernel.id, %error, "the end of the kernel cannot be recorded");
        }
        self.dirty.notify_one();
        self.last_sample(kernel, false).await;
        self.stop(kernel, frames, &reason).await;
        self.last_frames(kernel, frames).await;
        self.last_sample(kernel, true).await;
        let notice = tokio::time::timeout(EXIT_NOTICE, kernel.wait(|signals| signals.exit.is_some())).await;
        let exit = match notice {
            Ok(signals) => signals.exit,
            Err(_) => self.listed_exit(kernel).await,
        };
        // Whatever the memory limit has killed before, the end was asked for.
        KernelExit { code: exit.and_then(|exit| exit.code), reason, oom: false }
    }

    /// Ends the kernel. Its frames are taken meanwhile: the runner waits for that before it goes.
    async fn stop(&self, kernel: &Kernel, frames: &mut Frames, reason: &str) {
        kernel.runs.close();
        kernel.acknowledge();
        let grace = if reason == FORCED { Duration::ZERO } else { self.options.stop_grace + MARGIN };
        let stop = self.backend.stop(kernel.kernel, grace);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                stopped = &mut stop => {
                    if let Err(error) = stopped {
                        tracing::warn!(kernel = %kernel.kernel.id, %error, "the kernel cannot be ended yet");
                    }
                    return;
                }
                incoming = frames.next() => self.incoming(kernel, incoming).await,
            }
        }
    }

    async fn listed_exit(&self, kernel: &Kernel) -> Option<KernelExit> {
        let listed = self.backend.list().await.ok()?;
        listed.into_iter().find(|started| started.kernel == kernel.kernel)?.exit
    }
}

async fn answer(pending: &mut Option<oneshot::Receiver<ReplyBody>>) -> Option<ReplyBody> {
    match pending {
        Some(pending) => pending.await.ok(),
        None => std::future::pending().await,
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn died_early(exit: &KernelExit) -> Error {
    let code = exit.code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
    Error::of(code::KERNEL_CREATION, "the kernel ended while it was being started")
        .with("exit code", code)
        .with("out of memory", exit.oom)
}
