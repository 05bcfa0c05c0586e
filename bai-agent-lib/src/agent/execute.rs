//! Running code in a kernel.

use std::sync::Arc;
use std::time::Duration;

use bai_core::error::{Error, Result, code};
use bai_core::execution::{BatchOptions, ExecuteMode, ExecuteReply, ExecuteRequest};
use bai_core::port::agent::KernelRef;
use bai_kernel_lib::protocol::{BatchSteps, Command, Completion, MAX_RUN_ID, ReplyBody, Work};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::core::Core;
use crate::kernel::Kernel;
use crate::run::{BATCH_RUN, vanished};
use crate::runner::{self, Runner};

impl Core {
    pub(super) async fn execute(
        self: &Arc<Self>,
        kernel: KernelRef,
        request: ExecuteRequest,
    ) -> Result<ExecuteReply> {
        let kernel = self.kernel(kernel)?;
        let run_id = run_id(&request)?;
        kernel.settled(self.options.command_timeout).await?;
        match request.mode {
            ExecuteMode::Query | ExecuteMode::Batch => {
                let runner = match kernel.runner() {
                    Err(error) if error.code() == code::RUNNER_GONE => return Ok(vanished(run_id)),
                    runner => runner?,
                };
                let work = work(request.mode, request.code, request.batch);
                let command = Command::Execute { run_id: run_id.clone(), work };
                if let Some(pending) = kernel.runs.begin(&run_id, || runner.send(command)) {
                    self.watch_acceptance(&kernel, runner, run_id.clone(), pending);
                }
            }
            ExecuteMode::Input => {
                let runner = kernel.runner()?;
                let command = Command::Input { run_id: Some(run_id.clone()), text: request.code };
                let pending = kernel.runs.answer(&run_id, || runner.send(command))?;
                runner::reply(pending, self.options.command_timeout).await?;
            }
            ExecuteMode::Continue => {}
        }
        let reply = kernel.runs.collect(&run_id, Duration::from_millis(request.flush_timeout_ms)).await;
        kernel.acknowledge();
        reply
    }

    /// Looks after the runner's answer to a new run, also when the caller has gone.
    fn watch_acceptance(
        &self,
        kernel: &Arc<Kernel>,
        runner: Arc<dyn Runner>,
        run_id: String,
        pending: oneshot::Receiver<ReplyBody>,
    ) {
        let (kernel, limit) = (Arc::clone(kernel), self.options.command_timeout);
        self.spawn(async move {
            match runner::reply(pending, limit).await {
                Ok(ReplyBody::Accepted { duplicate: true }) => {
                    // The run was given to the runner by an earlier agent.
                    let status = runner::reply(runner.send(Command::Status), limit).await;
                    if let Ok(ReplyBody::Status(status)) = status
                        && status.finished.contains(&run_id)
                    {
                        let error =
                            Error::of(code::BAD_REQUEST, "the run has ended and its result was given out");
                        kernel.runs.refuse(&run_id, error.with("run", &run_id));
                    }
                }
                Ok(_) => {}
                // Whatever was running has ended with the kernel, and says so.
                Err(error) if error.code() == code::RUNNER_GONE => {}
                Err(error) => kernel.runs.refuse(&run_id, error),
            }
        });
    }

    pub(super) async fn interrupt(&self, kernel: KernelRef) -> Result<()> {
        let kernel = self.kernel(kernel)?;
        kernel.settled(self.options.command_timeout).await?;
        let runner = kernel.runner()?;
        runner::reply(runner.send(Command::Interrupt { run_id: None }), self.options.command_timeout).await?;
        Ok(())
    }

    pub(super) async fn complete(
        &self,
        kernel: KernelRef,
        code: &str,
        options: &Map<String, Value>,
    ) -> Result<Vec<String>> {
        let kernel = self.kernel(kernel)?;
        kernel.settled(self.options.command_timeout).await?;
        let runner = kernel.runner()?;
        let number = |name: &str| options.get(name).and_then(Value::as_u64).unwrap_or(0);
        let text = |name: &str| options.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let completion = Completion {
            code: code.to_owned(),
            line: text("line"),
            post: text("post"),
            row: number("row"),
            col: number("col"),
        };
        let pending = runner.send(Command::Complete(completion));
        match runner::reply(pending, self.options.command_timeout).await? {
            ReplyBody::Completions(suggestions) => Ok(suggestions),
            _ => Ok(Vec::new()),
        }
    }
}

/// The run that a request is about; a new one for a first call without.
fn run_id(request: &ExecuteRequest) -> Result<String> {
    let first = matches!(request.mode, ExecuteMode::Query | ExecuteMode::Batch);
    match &request.run_id {
        Some(id) if id.is_empty() || id.len() > MAX_RUN_ID || id == BATCH_RUN => {
            Err(Error::of(code::BAD_REQUEST, "not a run id").with("run", id))
        }
        Some(id) => Ok(id.clone()),
        None if first => Ok(hex::encode(rand::random::<[u8; 16]>())),
        None => Err(Error::of(code::BAD_REQUEST, "a run id is needed").with("mode", request.mode)),
    }
}

fn work(mode: ExecuteMode, code: String, batch: BatchOptions) -> Work {
    if mode == ExecuteMode::Query {
        return Work::Query { code, strict_exit: false };
    }
    // The output of the build step is always shown, as clients expect, whatever `build_log` says.
    Work::Batch(BatchSteps { clean: batch.clean, build: batch.build, exec: batch.exec })
}
