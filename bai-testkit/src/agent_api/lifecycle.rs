use std::sync::Arc;
use std::time::Duration;

use bai_core::KernelId;
use bai_core::error::{ErrorKind, Result, code};
use bai_core::execution::{ExecuteMode, UploadFile};
use bai_core::port::agent::{BatchOutcome, KernelRef, KernelStage};
use bai_core::slots::Amount;
use serde_json::Map;

use super::{AgentUnderTest, LONG, request};

pub async fn the_agent_says_what_it_is(agent: Arc<AgentUnderTest>) {
    let images = agent.manager.images().await;
    let report = agent.manager.report(|_| true).await;
    assert!(report.capacity.get("cpu") >= Amount::ONE && report.capacity.get("mem") > Amount::ZERO);
    assert!(report.slot_types.get("cpu").is_some() && report.slot_types.get("mem").is_some());
    assert_eq!(report.architecture, std::env::consts::ARCH);
    assert!(images.iter().any(|image| image.name == agent.image));
    assert!(report.seq > 0 && !report.version.is_empty() && !report.leaving);
}

pub async fn a_created_kernel_runs_and_is_reported(agent: Arc<AgentUnderTest>) {
    let spec = agent.spec();
    agent.api.create_kernels(vec![spec.clone()]).await.unwrap();
    let running = agent.running(spec.kernel).await;
    assert!(!running.container_id.is_empty() && !running.kernel_host.is_empty());
    let preopen = running.service_ports.iter().find(|port| port.name == "9123").unwrap();
    assert_eq!((preopen.protocol.as_str(), preopen.container_ports.as_slice()), ("preopen", &[9123][..]));
    assert_eq!(preopen.host_ports.len(), 1);
    assert_eq!(agent.manager.last_of(spec.kernel).unwrap().session, spec.session);
}

pub async fn creating_again_changes_nothing(agent: Arc<AgentUnderTest>) {
    let spec = agent.spec();
    let kernel = agent.run(spec.clone()).await;
    let before = agent.running(kernel).await;
    agent.api.create_kernels(vec![spec.clone(), spec]).await.unwrap();
    agent.query(kernel, "print('still there')").await;
    assert_eq!(agent.running(kernel).await, before);
    assert_eq!(agent.manager.last().unwrap().kernels.iter().filter(|k| k.kernel.id == kernel.id).count(), 1);
}

pub async fn a_newer_generation_takes_over_the_directory(agent: Arc<AgentUnderTest>) {
    let mut spec = agent.spec();
    let first = agent.run(spec.clone()).await;
    agent.query(first, "x = 'old'").await;
    let file = UploadFile { path: "kept".into(), content: b"content".to_vec() };
    agent.api.upload(first, vec![file]).await.unwrap();
    spec.kernel.generation = 2;
    let second = agent.run(spec).await;
    assert_eq!(agent.api.download_single(second, "kept").await.unwrap(), b"content");
    assert!(agent.manager.last_of(first).is_none(), "the first generation is still reported");
    let reply = agent.query(second, "x = 'new'\nprint(x)").await;
    assert_eq!(super::text_of(&reply, "stdout"), "new\n");
}

pub async fn calls_for_an_older_generation_are_refused(agent: Arc<AgentUnderTest>) {
    let mut spec = agent.spec();
    spec.kernel.generation = 5;
    let kernel = agent.run(spec.clone()).await;
    spec.kernel.generation = 4;
    let stale = spec.kernel;
    let refused = agent.api.create_kernels(vec![spec]).await.unwrap_err();
    assert_eq!(refused.code(), code::STALE_GENERATION);
    for (name, result) in every_call(&agent, stale).await {
        assert_eq!(result.unwrap_err().code(), code::STALE_GENERATION, "{name}");
    }
    assert_eq!(agent.api.forget(stale).await.unwrap_err().code(), code::STALE_GENERATION);
    agent.query(kernel, "print(1)").await;
}

pub async fn unknown_kernels_are_not_found(agent: Arc<AgentUnderTest>) {
    let unknown = KernelRef { id: KernelId::random(), generation: 1 };
    for (name, result) in every_call(&agent, unknown).await {
        assert_eq!(result.unwrap_err().code(), code::KERNEL_NOT_FOUND, "{name}");
    }
    agent.api.forget(unknown).await.unwrap();
}

/// Every call about a kernel but `forget`, which is fine with unknown ones.
async fn every_call(agent: &AgentUnderTest, kernel: KernelRef) -> Vec<(&'static str, Result<()>)> {
    let api = &agent.api;
    vec![
        ("destroy_kernel", api.destroy_kernel(kernel, "user-requested").await),
        ("start_batch", api.start_batch(kernel).await),
        ("execute", api.execute(kernel, request(ExecuteMode::Query, None, "1")).await.map(drop)),
        ("interrupt", api.interrupt(kernel).await),
        ("complete", api.complete(kernel, "pri", &Map::new()).await.map(drop)),
        ("logs", api.logs(kernel).await.map(drop)),
        ("upload", api.upload(kernel, vec![]).await),
        ("download", api.download(kernel, "x").await.map(drop)),
        ("download_single", api.download_single(kernel, "x").await.map(drop)),
        ("list_files", api.list_files(kernel, ".").await.map(drop)),
    ]
}

pub async fn a_kernel_is_ended_and_forgotten(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    agent.api.destroy_kernel(kernel, "user-requested").await.unwrap();
    agent.api.destroy_kernel(kernel, "force-terminated").await.unwrap();
    let report = agent.report(kernel, |report| matches!(report.stage, KernelStage::Exited(_))).await;
    let KernelStage::Exited(exit) = report.stage else { panic!("{:?}", report.stage) };
    assert_eq!((exit.reason.as_str(), exit.oom), ("user-requested", false));
    agent.api.destroy_kernel(kernel, "user-requested").await.unwrap();
    agent.api.forget(kernel).await.unwrap();
    agent.api.forget(kernel).await.unwrap();
    let error = agent.api.destroy_kernel(kernel, "user-requested").await.unwrap_err();
    assert_eq!(error.code(), code::KERNEL_NOT_FOUND);
    assert_eq!(agent.api.list_files(kernel, ".").await.unwrap_err().kind(), ErrorKind::NotFound);
    // What it held can be had again.
    agent.kernel().await;
}

pub async fn a_living_kernel_is_not_forgotten(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    assert_eq!(agent.api.forget(kernel).await.unwrap_err().kind(), ErrorKind::Conflict);
    agent.query(kernel, "print(1)").await;
}

pub async fn what_does_not_fit_fails_and_takes_nothing(agent: Arc<AgentUnderTest>) {
    let capacity = agent.manager.report(|_| true).await.capacity;
    let mut spec = agent.spec();
    spec.slots.insert("mem", capacity.get("mem").saturating_add(Amount::ONE));
    let kernel = spec.kernel;
    agent.api.create_kernels(vec![spec]).await.unwrap();
    assert_eq!(failure(&agent, kernel).await, code::OVER_CAPACITY.id());
    let mut unknown = agent.spec();
    unknown.slots.insert("nothing.device", 1_u64);
    let refused = unknown.kernel;
    agent.api.create_kernels(vec![unknown]).await.unwrap();
    assert_eq!(failure(&agent, refused).await, code::INVALID_SLOTS.id());
    agent.api.forget(kernel).await.unwrap();
    let mut spec = agent.spec();
    spec.slots.insert("cpu", capacity.get("cpu"));
    agent.run(spec).await;
}

pub async fn an_unknown_image_fails(agent: Arc<AgentUnderTest>) {
    let mut spec = agent.spec();
    spec.image = "no-such-image:1".into();
    let kernel = spec.kernel;
    agent.api.create_kernels(vec![spec]).await.unwrap();
    failure(&agent, kernel).await;
    agent.api.forget(kernel).await.unwrap();
    agent.kernel().await;
}

async fn failure(agent: &AgentUnderTest, kernel: KernelRef) -> String {
    let report = agent.report(kernel, |report| !super::is_early(&report.stage)).await;
    let KernelStage::Failed { code, message } = report.stage else { panic!("{:?}", report.stage) };
    assert!(!message.is_empty());
    code
}

pub async fn the_startup_command_runs_once(agent: Arc<AgentUnderTest>) {
    let mut spec = agent.spec();
    spec.session_type = "batch".into();
    spec.startup_command = Some("echo working; exit 3".into());
    let kernel = agent.run(spec).await;
    for _ in 0..3 {
        agent.api.start_batch(kernel).await.unwrap();
    }
    let report = agent.report(kernel, |report| report.batch.is_some()).await;
    assert_eq!(report.batch, Some(BatchOutcome { exit_code: 3, reason: "task-failed".into() }));
    agent.api.start_batch(kernel).await.unwrap();
    agent.query(kernel, "print('later')").await;
    let log = String::from_utf8(agent.api.logs(kernel).await.unwrap()).unwrap();
    assert_eq!(log.matches("working").count(), 1, "{log}");

    let mut spec = agent.spec();
    spec.startup_command = Some("echo fine".into());
    let kernel = agent.run(spec).await;
    agent.api.start_batch(kernel).await.unwrap();
    let report = agent.report(kernel, |report| report.batch.is_some()).await;
    assert_eq!(report.batch, Some(BatchOutcome { exit_code: 0, reason: "task-finished".into() }));
}

pub async fn a_kernel_without_startup_command_refuses_to_start_it(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    assert_eq!(agent.api.start_batch(kernel).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(agent.manager.last_of(kernel).unwrap().batch, None);
}

pub async fn a_slow_startup_command_is_ended(agent: Arc<AgentUnderTest>) {
    let mut spec = agent.spec();
    spec.startup_command = Some("sleep 600".into());
    spec.batch_timeout = Some(1);
    let kernel = agent.run(spec).await;
    agent.api.start_batch(kernel).await.unwrap();
    let report = agent.report(kernel, |report| report.batch.is_some()).await;
    assert_eq!(report.batch, Some(BatchOutcome { exit_code: -2, reason: "task-timeout".into() }));
    // The command is gone: what is queued behind it runs.
    let reply = tokio::time::timeout(LONG, agent.query(kernel, "print('next')")).await.unwrap();
    assert_eq!(super::text_of(&reply, "stdout"), "next\n");
}

pub async fn the_log_has_the_output_until_it_is_forgotten(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    assert!(!agent.api.logs(kernel).await.unwrap().windows(6).any(|text| text == b"logged"));
    agent.query(kernel, "print('logged')").await;
    let log = agent.api.logs(kernel).await.unwrap();
    assert!(String::from_utf8_lossy(&log).contains("logged\n"));
    agent.end(kernel).await;
    assert!(String::from_utf8_lossy(&agent.api.logs(kernel).await.unwrap()).contains("logged\n"));
    agent.api.forget(kernel).await.unwrap();
    assert_eq!(agent.api.logs(kernel).await.unwrap_err().kind(), ErrorKind::NotFound);
}

pub async fn runs_end_with_their_kernel(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    let code = "print('before')\nimport time\ntime.sleep(600)";
    let first = agent.call(kernel, request(ExecuteMode::Query, None, code)).await;
    let waiting = tokio::spawn({
        let (agent, run_id) = (Arc::clone(&agent), first.run_id.clone());
        async move {
            let mut wait = request(ExecuteMode::Continue, Some(&run_id), "");
            wait.flush_timeout_ms = 20_000;
            agent.call(kernel, wait).await
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    agent.end(kernel).await;
    let reply = waiting.await.unwrap();
    assert_eq!((reply.status, reply.exit_code), (bai_core::execution::RunStatus::Finished, Some(130)));
    let late = agent.call(kernel, request(ExecuteMode::Query, None, "print(1)")).await;
    assert_eq!((late.exit_code, late.options), (Some(130), Some(Map::new())));
}
