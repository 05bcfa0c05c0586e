//! The suite of [`AgentApi`].
//!
//! Kernels of the implementation under test must understand a little Python (`print`, `input`, assignment,
//! `time.sleep`) as queries and a little shell (`echo`, `exit`, `sleep`) as batch steps.

mod execute;
mod files;
mod lifecycle;
mod manager;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bai_core::execution::{BatchOptions, ConsoleItem, ExecuteMode, ExecuteReply, ExecuteRequest, RunStatus};
use bai_core::port::AgentApi;
use bai_core::port::agent::{KernelRef, KernelReport, KernelSpec, KernelStage, RunningKernel};
use bai_core::{KernelId, SessionId};

pub use execute::*;
pub use files::*;
pub use lifecycle::*;
pub use manager::FakeManager;

/// One test for each case, on what `$fresh` sets up: `async fn() -> Option<Subject<AgentUnderTest>>`.
#[macro_export]
macro_rules! agent_api_conformance {
    ($fresh:path) => {
        $crate::conformance_tests!(
            agent_api,
            $fresh,
            [
                the_agent_says_what_it_is,
                a_created_kernel_runs_and_is_reported,
                creating_again_changes_nothing,
                a_newer_generation_takes_over_the_directory,
                calls_for_an_older_generation_are_refused,
                unknown_kernels_are_not_found,
                a_kernel_is_ended_and_forgotten,
                a_living_kernel_is_not_forgotten,
                what_does_not_fit_fails_and_takes_nothing,
                an_unknown_image_fails,
                a_query_runs_to_its_end,
                the_interpreter_keeps_its_state,
                input_is_asked_for_and_given,
                runs_are_served_in_their_order,
                an_interrupt_ends_a_run,
                a_run_is_continued_and_a_dropped_call_loses_nothing,
                runs_that_do_not_exist_are_refused,
                the_final_reply_can_be_had_again,
                the_steps_of_a_batch_run_are_replied,
                a_failed_build_skips_the_program,
                names_are_completed,
                the_startup_command_runs_once,
                a_kernel_without_startup_command_refuses_to_start_it,
                a_slow_startup_command_is_ended,
                the_log_has_the_output_until_it_is_forgotten,
                runs_end_with_their_kernel,
                files_go_in_and_out,
                directories_are_listed_and_archived,
                paths_outside_are_refused_and_nothing_is_written,
                files_that_are_missing_or_too_large_are_refused,
            ]
        );
    };
}

/// An agent, the manager it reports to, and an image it can start.
#[derive(Debug)]
pub struct AgentUnderTest {
    pub api: Arc<dyn AgentApi>,
    pub manager: Arc<FakeManager>,
    pub image: String,
    pub image_labels: BTreeMap<String, String>,
}

/// Longer than any step should take on a busy machine.
const LONG: Duration = Duration::from_secs(20);

impl AgentUnderTest {
    /// A kernel with one core and a little memory.
    pub fn spec(&self) -> KernelSpec {
        KernelSpec {
            kernel: KernelRef { id: KernelId::random(), generation: 1 },
            session: SessionId::random(),
            session_name: "suite".into(),
            session_type: "interactive".into(),
            image: self.image.clone(),
            image_labels: self.image_labels.clone(),
            role: "main".into(),
            hostname: "main1".into(),
            slots: [("cpu", 1_u64), ("mem", 256 << 20)].into_iter().collect(),
            resource_opts: serde_json::Map::new(),
            environ: BTreeMap::new(),
            bootstrap_script: None,
            preopen_ports: vec![9123],
            startup_command: None,
            batch_timeout: None,
            cluster: None,
        }
    }

    /// Starts a kernel and waits until it runs.
    pub async fn run(&self, spec: KernelSpec) -> KernelRef {
        let kernel = spec.kernel;
        self.api.create_kernels(vec![spec]).await.unwrap();
        self.running(kernel).await;
        kernel
    }

    pub async fn kernel(&self) -> KernelRef {
        self.run(self.spec()).await
    }

    /// Waits for a report that has the kernel as wanted.
    pub async fn report(&self, kernel: KernelRef, wanted: impl Fn(&KernelReport) -> bool) -> KernelReport {
        let report = tokio::time::timeout(LONG, self.manager.kernel(kernel, wanted)).await;
        report.unwrap_or_else(|_| panic!("last report: {:?}", self.manager.last_of(kernel)))
    }

    pub async fn running(&self, kernel: KernelRef) -> RunningKernel {
        let report = self.report(kernel, |report| !is_early(&report.stage)).await;
        match report.stage {
            KernelStage::Running(running) => *running,
            other => panic!("not running: {other:?}"),
        }
    }

    pub async fn end(&self, kernel: KernelRef) {
        self.api.destroy_kernel(kernel, "user-requested").await.unwrap();
        self.report(kernel, |report| matches!(report.stage, KernelStage::Exited(_))).await;
    }

    pub async fn call(&self, kernel: KernelRef, request: ExecuteRequest) -> ExecuteReply {
        self.api.execute(kernel, request).await.unwrap()
    }

    /// Runs a query and collects until it does something else than going on.
    pub async fn query(&self, kernel: KernelRef, code: &str) -> ExecuteReply {
        let first = self.call(kernel, request(ExecuteMode::Query, None, code)).await;
        self.collect(kernel, first).await
    }

    /// Goes on collecting until the run does something else than going on.
    pub async fn collect(&self, kernel: KernelRef, mut reply: ExecuteReply) -> ExecuteReply {
        let mut console = Vec::new();
        let end = tokio::time::Instant::now() + LONG;
        loop {
            console.append(&mut reply.console);
            if reply.status != RunStatus::Continued {
                return ExecuteReply { console, ..reply };
            }
            assert!(tokio::time::Instant::now() < end, "the run goes on: {console:?}");
            reply = self.call(kernel, request(ExecuteMode::Continue, Some(&reply.run_id), "")).await;
        }
    }
}

fn is_early(stage: &KernelStage) -> bool {
    matches!(stage, KernelStage::Preparing | KernelStage::Pulling)
}

/// A request that waits two seconds.
pub fn request(mode: ExecuteMode, run_id: Option<&str>, code: &str) -> ExecuteRequest {
    ExecuteRequest {
        run_id: run_id.map(str::to_owned),
        mode,
        code: code.into(),
        batch: BatchOptions::default(),
        flush_timeout_ms: 2000,
    }
}

/// Text of one stream.
pub fn text_of(reply: &ExecuteReply, wanted: &str) -> String {
    let texts = reply.console.iter().map(|item| match item {
        ConsoleItem::Stdout(text) if wanted == "stdout" => text.as_str(),
        ConsoleItem::Stderr(text) if wanted == "stderr" => text.as_str(),
        _ => "",
    });
    texts.collect()
}
