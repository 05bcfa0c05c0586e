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

/// How long the last frames of an ended runner are waited for.
const LAST_FRAMES: Duration = Duration::from_millis(500);
/// How long the exit code of a kernel that was ended is waited for.
const EXIT_NOTICE: Duration = Duration::from_millis(200);
/// Far enough to mean "never".
const NEVER: Duration = Duration::from_hours(365 * 24);

type Frames = mpsc::Receiver<Incoming>;

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
        let mut frames = match connection {
            Some((runner, frames)) => {
                kernel.live(|live| live.runner = Some(runner));
                Some(frames)
            }
            None => None,
        };
        let starting = matches!(kernel.phase(), Phase::Starting);
        let start_deadline = Instant::now() + if starting { self.options.start_timeout } else { NEVER };
        let mut signals = kernel.signals.subscribe();
        let mut connected = frames.is_none();
        let mut status: Option<oneshot::Receiver<ReplyBody>> = None;
        loop {
            let (stop, exit) = {
                let signals = signals.borrow_and_update();
                (signals.stop.clone(), signals.exit.clone())
            };
            if let Some(exit) = exit {
                self.last_frames(kernel, frames.as_mut(), false).await;
                return if connected || !starting { Ok(exit) } else { Err(died_early(&exit)) };
            }
            if let Some(reason) = stop {
                return Ok(self.terminate(kernel, frames.as_mut(), reason).await);
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
                incoming = next(&mut frames) => match incoming {
                    Some(Incoming::Connected { boot }) => {
                        connected = true;
                        status = self.connected(kernel, &boot)?;
                    }
                    Some(incoming) => self.incoming(kernel, incoming),
                    // Only a simulated runner goes for good; its exit notice follows.
                    None => frames = None,
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
                    core.batch_ended(&kernel, -1);
                }
                _ => {}
            }
        });
    }

    fn batch_ended(&self, kernel: &Kernel, exit_code: i32) {
        let reason = if exit_code == 0 { "task-finished" } else { "task-failed" };
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
    fn incoming(&self, kernel: &Kernel, incoming: Incoming) {
        match incoming {
            Incoming::Output { seq, run_id, stream, data } => {
                if matches!(stream, Stream::Stdout | Stream::Stderr) {
                    Self::write_log(kernel, seq, &data);
                }
                kernel.runs.output(seq, &run_id, stream, &data);
            }
            Incoming::Event { seq, event } => {
                match &event {
                    Event::Finished { run_id, exit_code, .. } if run_id == BATCH_RUN => {
                        self.batch_ended(kernel, *exit_code);
                    }
                    _ => {}
                }
                kernel.runs.event(seq, &event);
            }
            Incoming::Connected { .. } | Incoming::Disconnected => return,
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

    /// Takes what an ended runner sent before its end. With `killed`, runs that end are those that were ended with their
    /// kernel, which clients see as such.
    async fn last_frames(&self, kernel: &Kernel, frames: Option<&mut Frames>, killed: bool) {
        let Some(frames) = frames else { return };
        let drain = async {
            while let Some(incoming) = frames.recv().await {
                match incoming {
                    Incoming::Disconnected => return,
                    Incoming::Event { event: Event::Finished { .. }, .. } if killed => {}
                    incoming => self.incoming(kernel, incoming),
                }
            }
        };
        let _ = tokio::time::timeout(LAST_FRAMES, drain).await;
    }

    /// Ends the kernel and finds out its exit code.
    async fn terminate(&self, kernel: &Kernel, frames: Option<&mut Frames>, reason: String) -> KernelExit {
        let recorded = kernel.update(|record| record.phase = Phase::Terminating { reason: reason.clone() });
        if let Err(error) = recorded {
            tracing::warn!(kernel = %kernel.kernel.id, %error, "the end of the kernel cannot be recorded");
        }
        self.dirty.notify_one();
        let stop = self.backend.stop(kernel.kernel, self.options.stop_grace);
        if let Err(error) = stop.await {
            tracing::warn!(kernel = %kernel.kernel.id, %error, "the kernel cannot be ended yet");
        }
        self.last_frames(kernel, frames, true).await;
        let notice = tokio::time::timeout(EXIT_NOTICE, kernel.wait(|signals| signals.exit.is_some())).await;
        let exit = match notice {
            Ok(signals) => signals.exit,
            Err(_) => self.listed_exit(kernel).await,
        };
        let (code, oom) = exit.map_or((None, false), |exit| (exit.code, exit.oom));
        KernelExit { code, reason, oom }
    }

    async fn listed_exit(&self, kernel: &Kernel) -> Option<KernelExit> {
        let listed = self.backend.list().await.ok()?;
        listed.into_iter().find(|started| started.kernel == kernel.kernel)?.exit
    }
}

async fn next(frames: &mut Option<Frames>) -> Option<Incoming> {
    match frames {
        Some(frames) => frames.recv().await,
        None => std::future::pending().await,
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
