//! Agents that vanish without a word, and those that come after them.

use std::sync::Arc;
use std::time::Duration;

use bai_agent_lib::backend::simulated::SimulatedOptions;
use bai_core::execution::{ExecuteMode, RunStatus};
use bai_core::port::agent::{BatchOutcome, KernelStage};
use bai_core::port::{AgentApi, KernelBackend};
use bai_core::session::KernelExit;
use bai_testkit::agent_api::{request, text_of};

use crate::support::{Node, options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_kernels_are_taken_over_with_their_state_and_output() {
    let node = Node::new(SimulatedOptions::default());
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let kernel = subject.kernel().await;
    subject.query(kernel, "x = 'kept'").await;
    let code = "print('first')\ntime.sleep(0.2)\nprint('second')\ny = input('? ')\nprint(y)";
    let mut run = request(ExecuteMode::Query, Some("r"), code);
    run.flush_timeout_ms = 50;
    let first = subject.call(kernel, run).await;
    assert_eq!(text_of(&first, "stdout"), "first\n");
    let container = subject.running(kernel).await.container_id;
    drop((subject, agent));

    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let incarnation = node.manager.last().unwrap().incarnation;
    node.manager.report(|report| report.incarnation != incarnation || report.seq < 3).await;
    assert_eq!(subject.running(kernel).await.container_id, container);
    // The prompt waits for the new agent; what was not taken before is still there.
    let mut continued = request(ExecuteMode::Continue, Some("r"), "");
    continued.flush_timeout_ms = 5000;
    let asked = loop {
        match agent.execute(kernel, continued.clone()).await {
            Ok(reply) => break subject.collect(kernel, reply).await,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!((asked.status, text_of(&asked, "stdout").as_str()), (RunStatus::WaitingInput, "second\n? "));
    let given = subject.call(kernel, request(ExecuteMode::Input, Some("r"), "line")).await;
    let end = subject.collect(kernel, given).await;
    assert_eq!(text_of(&end, "stdout"), "line\n");
    assert_eq!(text_of(&subject.query(kernel, "print(x)").await, "stdout"), "kept\n");
    // The same run is not run again by the new agent.
    subject.end(kernel).await;
    assert_eq!(node.backend.running(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_given_out_by_an_earlier_agent_is_not_made_up() {
    let node = Node::new(SimulatedOptions::default());
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let kernel = subject.kernel().await;
    let run = request(ExecuteMode::Query, Some("r"), "print(1)");
    let reply = subject.call(kernel, run.clone()).await;
    assert_eq!(reply.status, RunStatus::Finished);
    // An acknowledgement is on its way when the reply is given.
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop((subject, agent));
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    subject.running(kernel).await;
    let error = loop {
        match agent.execute(kernel, run.clone()).await {
            Err(error) if error.kind().is_retryable() => tokio::time::sleep(Duration::from_millis(5)).await,
            other => break other.unwrap_err(),
        }
    };
    assert_eq!(error.kind(), bai_core::ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_meanwhile_is_reported_with_its_exit_code() {
    let node = Node::new(SimulatedOptions::default());
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let (ended, vanished, alive) = (subject.kernel().await, subject.kernel().await, subject.kernel().await);
    drop((subject, agent));
    node.backend.exit(ended, KernelExit { code: Some(137), reason: "self-terminated".into(), oom: true });
    node.backend.stop(vanished, Duration::ZERO).await.unwrap();
    node.backend.remove(vanished).await.unwrap();

    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let exited = |stage: &KernelStage| matches!(stage, KernelStage::Exited(_));
    let report = subject.report(ended, |kernel| exited(&kernel.stage)).await;
    let exit = KernelExit { code: Some(137), reason: "self-terminated".into(), oom: true };
    assert_eq!(report.stage, KernelStage::Exited(exit));
    let report = subject.report(vanished, |kernel| exited(&kernel.stage)).await;
    let exit = KernelExit { code: None, reason: "self-terminated".into(), oom: false };
    assert_eq!(report.stage, KernelStage::Exited(exit));
    subject.running(alive).await;
    assert!(node.backend.list().await.unwrap().iter().all(|started| started.kernel == alive));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_taken_over_kernels_are_not_given_twice() {
    let node = Node::new(SimulatedOptions::default());
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let mut spec = subject.spec();
    spec.slots.insert("cpu", 5_u64);
    let first = subject.run(spec).await;
    drop((subject, agent));
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let mut spec = subject.spec();
    spec.slots.insert("cpu", 4_u64);
    agent.create_kernels(vec![spec.clone()]).await.unwrap();
    let report =
        subject.report(spec.kernel, |kernel| matches!(kernel.stage, KernelStage::Failed { .. })).await;
    let KernelStage::Failed { code, .. } = report.stage else { unreachable!() };
    assert_eq!(code, bai_core::error::code::OVER_CAPACITY.id());
    subject.end(first).await;
    spec.kernel.generation += 1;
    subject.run(spec).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_cut_short_is_done_again() {
    let delay = (Duration::from_millis(200), Duration::from_millis(200));
    let node = Node::new(SimulatedOptions { start_delay: delay, ..SimulatedOptions::default() });
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let spec = subject.spec();
    agent.create_kernels(vec![spec.clone()]).await.unwrap();
    subject.report(spec.kernel, |kernel| kernel.stage == KernelStage::Preparing).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop((subject, agent));
    assert_eq!(node.backend.running(), 0);
    let agent = node.start().await;
    node.under_test(agent).running(spec.kernel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_asked_for_before_the_crash_happens_after_it() {
    let delay = (Duration::from_millis(300), Duration::from_millis(300));
    let node = Node::new(SimulatedOptions { stop_delay: delay, ..SimulatedOptions::default() });
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let kernel = subject.kernel().await;
    agent.destroy_kernel(kernel, "idle-timeout").await.unwrap();
    subject.report(kernel, |kernel| kernel.stage == KernelStage::Terminating).await;
    drop((subject, agent));
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let report = subject.report(kernel, |kernel| matches!(kernel.stage, KernelStage::Exited(_))).await;
    let KernelStage::Exited(exit) = report.stage else { unreachable!() };
    assert_eq!(exit.reason, "idle-timeout");
    assert_eq!(node.backend.running(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_startup_command_is_not_run_again_and_its_deadline_stays() {
    let node = Node::new(SimulatedOptions::default());
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let mut spec = subject.spec();
    spec.startup_command = Some("sleep 0.3; exit 5".into());
    let quick = subject.run(spec).await;
    let mut spec = subject.spec();
    spec.startup_command = Some("sleep 600".into());
    spec.batch_timeout = Some(1);
    let slow = subject.run(spec).await;
    agent.start_batch(quick).await.unwrap();
    agent.start_batch(slow).await.unwrap();
    drop((subject, agent));
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    agent.start_batch(quick).await.map_or_else(|error| assert!(error.kind().is_retryable()), |()| ());
    let report = subject.report(quick, |kernel| kernel.batch.is_some()).await;
    assert_eq!(report.batch, Some(BatchOutcome { exit_code: 5, reason: "task-failed".into() }));
    let report = subject.report(slow, |kernel| kernel.batch.is_some()).await;
    assert_eq!(report.batch, Some(BatchOutcome { exit_code: -2, reason: "task-timeout".into() }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_without_record_is_left_alone_until_the_manager_decides() {
    let node = Node::new(SimulatedOptions::default());
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let kernel = subject.kernel().await;
    let state = node.backend.state(node.dir.path());
    drop((subject, agent));
    state.remove(kernel.id).unwrap();

    let mut options = options(node.dir.path());
    options.unknown_grace = Duration::from_millis(300);
    let agent = node.agent(options).await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    subject.running(kernel).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(node.backend.running(), 1, "ended although the manager did not say that it is unknown");
    node.manager.set_unknown(vec![kernel]);
    tokio::time::timeout(Duration::from_secs(10), async {
        while node.backend.running() > 0 || node.manager.last_of(kernel).is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}
