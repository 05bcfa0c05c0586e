use bai_core::execution::ConsoleItem;

use super::*;

const FLUSH: Duration = Duration::from_millis(500);

fn runs(limits: RunsLimits) -> Runs {
    let runs = Runs::new(limits);
    runs.connected(&"boot".into());
    runs
}

fn finished(id: &str, exit_code: i32) -> Event {
    Event::Finished { run_id: id.into(), exit_code, signal: None }
}

fn text(reply: &ExecuteReply) -> String {
    let texts = reply.console.iter().map(|item| match item {
        ConsoleItem::Stdout(text) | ConsoleItem::Stderr(text) => text.as_str(),
        _ => "",
    });
    texts.collect()
}

#[tokio::test(start_paused = true)]
async fn only_what_a_reply_has_taken_is_acknowledged() {
    let runs = runs(RunsLimits::default());
    runs.begin("a", || ()).unwrap();
    assert!(runs.begin("a", || ()).is_none());
    runs.output(1, "a", Stream::Stdout, b"one");
    runs.output(2, "", Stream::Stdout, b"between");
    assert_eq!(runs.ack_point().1, 0);
    let reply = runs.collect("a", FLUSH).await.unwrap();
    assert_eq!((reply.status, text(&reply).as_str()), (RunStatus::Continued, "one"));
    assert_eq!(runs.ack_point().1, 2);
    runs.event(3, &finished("a", 4));
    assert_eq!(runs.ack_point().1, 2);
    let reply = runs.collect("a", FLUSH).await.unwrap();
    assert_eq!((reply.status, reply.exit_code), (RunStatus::Finished, Some(4)));
    assert_eq!(runs.ack_point().1, 3);
    // The final reply can be had again.
    assert_eq!(runs.collect("a", FLUSH).await.unwrap(), reply);
    assert!(runs.collect("b", FLUSH).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn steps_and_prompts_are_replied_in_their_order() {
    let runs = runs(RunsLimits::default());
    runs.begin("a", || ()).unwrap();
    runs.event(1, &Event::CleanFinished { run_id: "a".into(), exit_code: 0 });
    runs.output(2, "a", Stream::Stdout, b"building");
    runs.event(3, &Event::BuildFinished { run_id: "a".into(), exit_code: 1 });
    runs.output(4, "a", Stream::Stdout, b"name? ");
    runs.event(5, &Event::WaitingInput { run_id: "a".into(), is_password: true });
    let before = Instant::now();
    let mut replies = Vec::new();
    for _ in 0..4 {
        let reply = runs.collect("a", FLUSH).await.unwrap();
        replies.push((reply.status, reply.exit_code, text(&reply)));
    }
    let waiting = (RunStatus::WaitingInput, None, String::new());
    let expected = [
        (RunStatus::CleanFinished, Some(0), String::new()),
        (RunStatus::BuildFinished, Some(1), "building".to_owned()),
        (RunStatus::WaitingInput, None, "name? ".to_owned()),
        waiting,
    ];
    assert_eq!(replies, expected);
    assert_eq!(Instant::now(), before, "nothing was waited for");
    // The prompt is not forgotten by the runner before it is answered.
    assert!(runs.ack_point().1 < 5);
    runs.answer("a", || ()).unwrap();
    assert_eq!(runs.ack_point().1, 5);
    assert!(runs.answer("a", || ()).is_err());
    assert_eq!(runs.collect("a", FLUSH).await.unwrap().status, RunStatus::Continued);
}

#[tokio::test(start_paused = true)]
async fn much_output_is_replied_early_and_a_dropped_call_loses_nothing() {
    let runs = Arc::new(runs(RunsLimits { reply_bytes: 10, ..RunsLimits::default() }));
    runs.begin("a", || ()).unwrap();
    runs.output(1, "a", Stream::Stdout, b"12345");
    let dropped = tokio::time::timeout(Duration::from_millis(100), runs.collect("a", FLUSH)).await;
    assert!(dropped.is_err());
    let reader = tokio::spawn({
        let runs = Arc::clone(&runs);
        async move { runs.collect("a", Duration::from_hours(1)).await }
    });
    tokio::task::yield_now().await;
    let before = Instant::now();
    runs.output(2, "a", Stream::Stdout, b"67890");
    assert_eq!(text(&reader.await.unwrap().unwrap()), "1234567890");
    assert_eq!(Instant::now(), before);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_run_holds_the_runner_back_for_a_bounded_time() {
    let limits = RunsLimits { hold_bytes: 100, kept_bytes: 50, ..RunsLimits::default() };
    let runs = runs(limits);
    runs.begin("gone", || ()).unwrap();
    runs.begin("next", || ()).unwrap();
    runs.output(1, "gone", Stream::Stdout, &[b'x'; 99]);
    assert_eq!(runs.patience_ends(), None);
    runs.output(2, "gone", Stream::Stdout, &[b'y'; 10]);
    let end = runs.patience_ends().unwrap();
    runs.drop_unread();
    assert_eq!(runs.ack_point().1, 0, "too early");
    tokio::time::sleep_until(end).await;
    runs.drop_unread();
    assert_eq!((runs.ack_point().1, runs.patience_ends()), (2, None));
    runs.output(3, "gone", Stream::Stdout, &[b'z'; 1000]);
    runs.event(4, &finished("gone", 0));
    runs.event(5, &finished("next", 0));
    assert_eq!(runs.collect("next", FLUSH).await.unwrap().exit_code, Some(0));
    // The client that comes back is told what it lost.
    let reply = runs.collect("gone", FLUSH).await.unwrap();
    assert_eq!(text(&reply), format!("{}\n[output dropped: nobody read it]\n", "x".repeat(50)));
    assert_eq!(reply.status, RunStatus::Finished);
}

#[tokio::test(start_paused = true)]
async fn runs_end_with_their_kernel() {
    let runs = runs(RunsLimits::default());
    runs.begin("a", || ()).unwrap();
    runs.output(1, "a", Stream::Stderr, b"last words");
    runs.end();
    let reply = runs.collect("a", FLUSH).await.unwrap();
    assert_eq!(text(&reply), "last words");
    assert_eq!((reply.exit_code, reply.options), (Some(130), Some(Map::new())));
}

#[tokio::test(start_paused = true)]
async fn old_runs_are_forgotten_and_living_ones_are_not() {
    let runs = runs(RunsLimits { runs: 2, ..RunsLimits::default() });
    runs.begin("alive", || ()).unwrap();
    for (seq, id) in [(1, "b"), (2, "c"), (3, "d")] {
        runs.begin(id, || ()).unwrap();
        runs.event(seq, &finished(id, 0));
    }
    runs.refuse("alive", Error::of(code::QUOTA_EXCEEDED, "full"));
    assert_eq!(runs.collect("alive", FLUSH).await.unwrap_err().code(), code::QUOTA_EXCEEDED);
    assert!(runs.collect("b", FLUSH).await.is_err());
    assert!(runs.collect("d", FLUSH).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_new_agent_learns_from_replayed_frames_and_status() {
    let runs = runs(RunsLimits::default());
    runs.output(1, "a", Stream::Stdout, b"replayed");
    runs.event(2, &Event::WaitingInput { run_id: "a".into(), is_password: false });
    let mut status = Status {
        started_at: 0.0,
        interpreter: bai_kernel_lib::protocol::InterpreterState::Busy,
        active: Some("a".into()),
        waiting_input: true,
        queued: vec!["q".into()],
        finished: Vec::new(),
    };
    runs.settle(&status);
    assert_eq!(runs.collect("a", FLUSH).await.unwrap().status, RunStatus::WaitingInput);
    assert_eq!(runs.collect("q", FLUSH).await.unwrap().status, RunStatus::Continued);
    status.waiting_input = false;
    runs.settle(&status);
    assert_eq!(runs.collect("a", FLUSH).await.unwrap().status, RunStatus::Continued);
}

#[tokio::test(start_paused = true)]
async fn a_kernel_is_in_use_while_code_runs_and_does_not_wait_for_input() {
    let pause = Duration::from_mins(1);
    let runs = runs(RunsLimits::default());
    tokio::time::advance(pause).await;
    assert_eq!(runs.unused_for(), pause, "since it was taken on");
    runs.begin("a", || ()).unwrap();
    tokio::time::advance(pause).await;
    assert_eq!(runs.unused_for(), Duration::ZERO);
    runs.event(1, &Event::WaitingInput { run_id: "a".into(), is_password: false });
    tokio::time::advance(pause).await;
    assert_eq!(runs.unused_for(), pause);
    runs.answer("a", || ()).unwrap();
    assert_eq!(runs.unused_for(), Duration::ZERO);
    runs.event(2, &finished("a", 0));
    tokio::time::advance(pause).await;
    assert_eq!(runs.unused_for(), pause);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_for_later_when_the_kernel_is_being_ended() {
    let runs = runs(RunsLimits::default());
    runs.begin("a", || ()).unwrap();
    runs.output(1, "a", Stream::Stdout, b"unread");
    assert_eq!(runs.ack_point().1, 0);
    runs.close();
    assert_eq!(runs.ack_point().1, 1);
    runs.event(2, &finished("a", 0));
    assert_eq!(runs.ack_point().1, 2);
    runs.end();
    // It has ended with its kernel, not by itself.
    let reply = runs.collect("a", FLUSH).await.unwrap();
    assert_eq!((reply.exit_code, text(&reply).as_str()), (Some(VANISHED), "unread"));
}
