use std::sync::Arc;
use std::time::Duration;

use bai_core::error::ErrorKind;
use bai_core::execution::{BatchOptions, ExecuteMode, RunStatus};
use serde_json::{Map, json};

use super::{AgentUnderTest, LONG, request, text_of};

pub async fn a_query_runs_to_its_end(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    let reply = agent.query(kernel, "print('hello')\nprint('world')").await;
    assert_eq!((reply.status, reply.exit_code), (RunStatus::Finished, Some(0)));
    assert_eq!(text_of(&reply, "stdout"), "hello\nworld\n");
    assert!(
        reply.run_id.len() == 32 && reply.run_id.chars().all(|c| c.is_ascii_hexdigit()),
        "{}",
        reply.run_id
    );
    let reply = agent.query(kernel, "raise ValueError('broken')").await;
    assert_eq!((reply.status, reply.exit_code), (RunStatus::Finished, Some(0)));
    assert!(text_of(&reply, "stderr").contains("broken"), "{:?}", reply.console);
}

pub async fn the_interpreter_keeps_its_state(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    agent.query(kernel, "x = 'kept'").await;
    assert_eq!(text_of(&agent.query(kernel, "print(x)").await, "stdout"), "kept\n");
}

pub async fn input_is_asked_for_and_given(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    let asked = agent.query(kernel, "name = input('name? ')\nprint(name)").await;
    assert_eq!(asked.status, RunStatus::WaitingInput);
    assert_eq!(asked.options.unwrap()["is_password"], json!(false));
    let again = agent.call(kernel, request(ExecuteMode::Continue, Some(&asked.run_id), "")).await;
    assert_eq!(again.status, RunStatus::WaitingInput);
    let given = agent.call(kernel, request(ExecuteMode::Input, Some(&asked.run_id), "Ada")).await;
    let end = agent.collect(kernel, given).await;
    assert_eq!((end.status, text_of(&end, "stdout").as_str()), (RunStatus::Finished, "Ada\n"));
    let late = agent.api.execute(kernel, request(ExecuteMode::Input, Some(&asked.run_id), "Bob")).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Invalid);
}

pub async fn runs_are_served_in_their_order(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    let mut runs = Vec::new();
    for i in 0..5 {
        let code = format!("import time\ntime.sleep(0.05)\nprint('run {i}')");
        let mut first = request(ExecuteMode::Query, Some(&format!("run-{i}")), &code);
        first.flush_timeout_ms = 0;
        runs.push((i, agent.call(kernel, first).await));
    }
    // Asked for in the opposite order; the log shows in which they ran.
    for (i, first) in runs.into_iter().rev() {
        assert_eq!(text_of(&agent.collect(kernel, first).await, "stdout"), format!("run {i}\n"));
    }
    let log = String::from_utf8(agent.api.logs(kernel).await.unwrap()).unwrap();
    let order: Vec<_> = log.lines().filter(|line| line.starts_with("run ")).collect();
    assert_eq!(order, ["run 0", "run 1", "run 2", "run 3", "run 4"]);
}

pub async fn an_interrupt_ends_a_run(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    let mut first =
        request(ExecuteMode::Query, None, "import time\nprint('go')\ntime.sleep(600)\nprint('never')");
    first.flush_timeout_ms = 0;
    let mut reply = agent.call(kernel, first).await;
    while text_of(&reply, "stdout") != "go\n" {
        assert_eq!(reply.status, RunStatus::Continued);
        reply = agent.call(kernel, request(ExecuteMode::Continue, Some(&reply.run_id), "")).await;
    }
    // The sleep may begin a moment after the output.
    tokio::time::sleep(Duration::from_millis(100)).await;
    agent.api.interrupt(kernel).await.unwrap();
    let end = tokio::time::timeout(LONG, agent.collect(kernel, reply)).await.unwrap();
    assert_eq!(end.status, RunStatus::Finished);
    assert!(text_of(&end, "stderr").contains("KeyboardInterrupt"), "{:?}", end.console);
    assert!(!text_of(&end, "stdout").contains("never"));
    assert_eq!(text_of(&agent.query(kernel, "print('alive')").await, "stdout"), "alive\n");
}

pub async fn a_run_is_continued_and_a_dropped_call_loses_nothing(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    let code = "import time\nprint('one')\ntime.sleep(0.4)\nprint('two')";
    let mut first = request(ExecuteMode::Query, Some("dropped"), code);
    first.flush_timeout_ms = 10_000;
    let dropped = tokio::time::timeout(Duration::from_millis(100), agent.api.execute(kernel, first)).await;
    assert!(dropped.is_err(), "{dropped:?}");
    let mut next = request(ExecuteMode::Continue, Some("dropped"), "");
    next.flush_timeout_ms = 50;
    let reply = agent.call(kernel, next).await;
    let reply = agent.collect(kernel, reply).await;
    assert_eq!(text_of(&reply, "stdout"), "one\ntwo\n");
}

pub async fn runs_that_do_not_exist_are_refused(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    for (mode, run_id) in [
        (ExecuteMode::Continue, Some("nobody")),
        (ExecuteMode::Continue, None),
        (ExecuteMode::Input, Some("nobody")),
        (ExecuteMode::Query, Some("batch-job")),
        (ExecuteMode::Query, Some("")),
    ] {
        let refused = agent.api.execute(kernel, request(mode, run_id, "")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{mode} {run_id:?}");
    }
}

pub async fn the_final_reply_can_be_had_again(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    let end = agent.query(kernel, "print('once')").await;
    let again = agent.call(kernel, request(ExecuteMode::Continue, Some(&end.run_id), "")).await;
    assert_eq!((again.status, again.exit_code), (RunStatus::Finished, Some(0)));
    // The same first call does not run it again.
    let repeated = agent.call(kernel, request(ExecuteMode::Query, Some(&end.run_id), "print('once')")).await;
    assert_eq!(repeated, again);
    let log = String::from_utf8(agent.api.logs(kernel).await.unwrap()).unwrap();
    assert_eq!(log.matches("once").count(), 1);
}

fn batch(
    clean: Option<&str>,
    build: Option<&str>,
    exec: Option<&str>,
) -> bai_core::execution::ExecuteRequest {
    let text = |step: Option<&str>| step.map(str::to_owned);
    let steps = BatchOptions { clean: text(clean), build: text(build), build_log: false, exec: text(exec) };
    bai_core::execution::ExecuteRequest { batch: steps, ..request(ExecuteMode::Batch, None, "") }
}

pub async fn the_steps_of_a_batch_run_are_replied(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    let mut reply = agent.call(kernel, batch(None, Some("echo built"), Some("echo ran; exit 7"))).await;
    let mut seen = Vec::new();
    while reply.status != RunStatus::Finished {
        assert!(seen.len() < 50, "{seen:?}");
        seen.push((reply.status, reply.exit_code, text_of(&reply, "stdout")));
        reply = agent.call(kernel, request(ExecuteMode::Continue, Some(&reply.run_id), "")).await;
    }
    let steps: Vec<_> = seen.iter().filter(|(status, ..)| *status != RunStatus::Continued).collect();
    assert_eq!(
        steps.iter().map(|step| step.0).collect::<Vec<_>>(),
        [RunStatus::CleanFinished, RunStatus::BuildFinished]
    );
    assert!(steps.iter().all(|step| step.1 == Some(0)));
    let built: String = seen.iter().map(|(.., text)| text.as_str()).collect();
    assert!(built.contains("built"), "{seen:?}");
    assert_eq!((reply.exit_code, text_of(&reply, "stdout").contains("ran")), (Some(7), true));
}

pub async fn a_failed_build_skips_the_program(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    let mut reply = agent.call(kernel, batch(None, Some("exit 4"), Some("echo ran"))).await;
    let mut codes = Vec::new();
    while reply.status != RunStatus::Finished {
        if reply.status != RunStatus::Continued {
            codes.push(reply.exit_code);
        }
        reply = agent.call(kernel, request(ExecuteMode::Continue, Some(&reply.run_id), "")).await;
    }
    assert_eq!(codes, [Some(0), Some(4)]);
    assert_eq!((reply.exit_code, text_of(&reply, "stdout").contains("ran")), (Some(127), false));
}

pub async fn names_are_completed(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    agent.query(kernel, "long_name_of_mine = 1").await;
    let mut options = Map::new();
    options.insert("row".into(), json!(0));
    options.insert("col".into(), json!(9));
    options.insert("line".into(), json!("long_name"));
    let found = agent.api.complete(kernel, "long_name", &options).await.unwrap();
    assert!(found.iter().any(|name| name.contains("long_name_of_mine")), "{found:?}");
}
