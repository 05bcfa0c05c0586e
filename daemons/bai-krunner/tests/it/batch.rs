//! Batch mode.

use bai_kernel_lib::{
    config::RuntimeType,
    protocol::{Command, Event, ReplyBody},
};

use crate::harness::{Frame, Outcome, Runner, batch, until};

#[test]
fn steps_run_in_order_and_report_their_codes() {
    let runner = Runner::start(RuntimeType::App);
    let mut agent = runner.connect();
    let outcome = agent.batch(Some("echo clean"), Some("echo build >&2"), Some("echo exec; exit 3"));
    assert_eq!(outcome.steps, [("clean", 0), ("build", 0)]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("clean\nexec\n", "build\n"));
    assert_eq!(outcome.exit_code, 3);
}

#[test]
fn skipped_steps_report_0() {
    let runner = Runner::start(RuntimeType::App);
    let mut agent = runner.connect();
    let outcome = agent.batch(None, Some(""), None);
    assert_eq!((outcome.steps, outcome.exit_code), (vec![("clean", 0), ("build", 0)], 0));
}

#[test]
fn a_failed_build_skips_exec_with_127() {
    let runner = Runner::start(RuntimeType::App);
    let mut agent = runner.connect();
    let outcome = agent.batch(Some("exit 9"), Some("exit 2"), Some("echo never"));
    assert_eq!(outcome.steps, [("clean", 9), ("build", 2)]);
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code), ("", 127));
    let next = agent.batch(None, None, Some("echo again"));
    assert_eq!((next.stdout.as_str(), next.exit_code), ("again\n", 0));
}

#[test]
fn python_defaults() {
    let runner = Runner::start(RuntimeType::Python);
    let mut agent = runner.connect();
    let missing = agent.batch(Some("*"), Some("*"), Some("*"));
    assert_eq!(missing.steps, [("clean", 0), ("build", 0)]);
    assert_eq!(missing.exit_code, 127);
    assert!(
        missing
            .stderr
            .starts_with("python-kernel: skipping the build phase due to missing \"setup.py\" file\n")
    );
    assert!(missing.stderr.contains("main.py"), "{missing:?}");
    runner.write("main.py", "import sys\nprint('batch', sys.argv)");
    assert_eq!(agent.batch(None, Some("*"), Some("*")).stdout, "batch ['main.py']\n");
    runner.write("Makefile", "all:\n\t@echo made\n");
    assert_eq!(agent.batch(None, Some("*"), Some("*")).stdout, "made\nbatch ['main.py']\n");
}

#[test]
fn scripts_can_ask_for_input_and_passwords() {
    let runner = Runner::start(RuntimeType::Python);
    let mut agent = runner.connect();
    runner.write("ask.py", "import getpass\nprint('got', input('name? '), getpass.getpass())");
    agent.submit("r", batch(None, None, Some("python3 ask.py")));
    let mut outcome = Outcome::default();
    assert!(!agent.wait_for_prompt("r", &mut outcome));
    assert_eq!(outcome.stdout, "name? ");
    agent.input("Ada");
    assert!(agent.wait_for_prompt("r", &mut outcome));
    assert_eq!(outcome.stdout, "name? Password: ");
    agent.input("pw");
    let end = agent.finish("r");
    assert_eq!((end.stdout.as_str(), end.exit_code), ("got Ada pw\n", 0));
}

#[test]
fn outside_of_batch_mode_scripts_have_no_input() {
    let runner = Runner::start(RuntimeType::Python);
    let mut agent = runner.connect();
    let outcome = agent.batch(None, Some("python3 -c 'input()'"), None);
    assert!(outcome.stderr.contains("EOFError"), "{outcome:?}");
}

#[test]
fn an_interrupt_ends_the_program_and_the_remaining_steps() {
    let runner = Runner::start(RuntimeType::App);
    let mut agent = runner.connect();
    agent.submit("r", batch(Some("echo go; sleep 1000"), None, Some("echo never")));
    agent.wait_for_output("r", "go");
    agent.interrupt();
    let outcome = agent.finish("r");
    assert_eq!(outcome.steps, [("clean", 130), ("build", 0)]);
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code), ("", 130));
}

#[test]
fn background_processes_do_not_hold_a_run_up() {
    let runner = Runner::start(RuntimeType::App);
    let mut agent = runner.connect();
    let outcome = agent.batch(None, None, Some("(sleep 0.3; echo later; sleep 1000) & echo now"));
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code), ("now\n", 0));
    until(|| runner.log().contains("later").then_some(()));
}

#[test]
fn a_killed_program_is_reported_with_its_signal() {
    let runner = Runner::start(RuntimeType::App);
    let mut agent = runner.connect();
    let outcome = agent.batch(None, None, Some("kill -9 $$"));
    assert_eq!((outcome.exit_code, outcome.signal), (137, Some(9)));
    assert_eq!(agent.batch(None, None, Some("/no/such/thing")).exit_code, 127);
}

#[test]
fn the_environment_is_the_documented_one() {
    let runner = Runner::start_with(RuntimeType::App, |config| {
        config.environ.insert("GIVEN".into(), "config".into());
        std::fs::write(config.config_dir.join("environ.txt"), "FROM_FILE=a=b\nGIVEN=file\n").unwrap();
    });
    let mut agent = runner.connect();
    let script = "echo $LANG $TERM $USER $GIVEN $FROM_FILE; echo $HOME; pwd; echo $PATH; echo $_BACKEND_BATCH_MODE; readlink /proc/self/fd/0; umask";
    let outcome = agent.batch(Some("echo $_BACKEND_BATCH_MODE"), None, Some(script));
    let lines: Vec<_> = outcome.stdout.lines().collect();
    let work = runner.config.work_dir.to_str().unwrap();
    assert_eq!(lines[..4], ["", "C.UTF-8 xterm work file a=b", work, work]);
    assert!(lines[4].starts_with(&format!("{work}/.local/bin:")), "{outcome:?}");
    assert_eq!(lines[5..], ["1", "/dev/null", "0022"]);
    let fds = agent.batch(None, None, Some("ls /proc/self/fd | wc -l"));
    assert_eq!(fds.stdout.trim(), "4", "nothing of the runner is inherited");
}

#[test]
fn bootstrap_delays_nobody_and_is_logged() {
    let runner = Runner::start_with(RuntimeType::App, |config| {
        std::fs::write(config.work_dir.join("bootstrap.sh"), "echo booting; sleep 0.5; exit 4").unwrap();
    });
    let mut agent = runner.connect();
    assert_eq!(agent.batch(None, None, Some("echo quick")).stdout, "quick\n");
    until(|| runner.log().contains("bootstrap.sh exited with code 4\n").then_some(()));
    until(|| runner.log().contains("booting\n").then_some(()));
}

#[test]
fn output_is_also_kept_in_the_logs() {
    let runner = Runner::start(RuntimeType::App);
    std::fs::create_dir(runner.config.work_dir.join(".logs")).unwrap();
    let mut agent = runner.connect();
    agent.batch(None, None, Some("echo kept; echo too >&2"));
    assert!(runner.log().contains("kept\n") && runner.log().contains("too\n"));
    let user_log = runner.config.work_dir.join(".logs/task/01/23/456789abcdef.log");
    assert!(std::fs::read_to_string(user_log).unwrap().contains("kept\n"));
}

#[test]
fn the_queue_is_bounded() {
    let runner = Runner::start_with(RuntimeType::App, |config| config.max_queued_runs = 2);
    let mut agent = runner.connect();
    agent.submit("a", batch(None, None, Some("echo go; sleep 1000")));
    agent.wait_for_output("a", "go");
    agent.submit("b", batch(None, None, None));
    agent.submit("c", batch(None, None, None));
    let refused = agent.ask(Command::Execute { run_id: "d".into(), work: batch(None, None, None) });
    assert!(matches!(refused, ReplyBody::Error { .. }), "{refused:?}");
    agent.interrupt();
    agent.finish("c");
}

#[test]
fn ending_gives_grace_and_then_kills() {
    let mut runner = Runner::start_with(RuntimeType::App, |config| config.grace_ms = 300);
    let mut agent = runner.connect();
    agent.submit("r", batch(None, None, Some("trap 'echo no' TERM; echo $$; while :; do sleep 0.05; done")));
    let outcome = agent.wait_for_output("r", "\n");
    let pid = outcome.stdout.trim().to_owned();
    assert!(runner.terminate().success());
    assert!(!std::path::Path::new("/proc").join(pid).exists());
}

#[test]
fn what_programs_have_left_behind_gets_its_grace_and_is_killed_then() {
    let mut runner = Runner::start_with(RuntimeType::App, |config| config.grace_ms = 1000);
    runner.write(
        "polite.sh",
        "trap 'sleep 0.1; touch ended; exit' TERM; touch polite; while :; do sleep 0.01; done",
    );
    runner.write("stubborn.sh", "trap '' TERM; echo $$ > stubborn; while :; do sleep 0.01; done");
    let mut agent = runner.connect();
    // In sessions of their own, and orphans once this shell has ended.
    let leave = "for name in polite stubborn; do setsid sh $name.sh > /dev/null 2>&1 & done";
    assert_eq!(agent.batch(None, None, Some(leave)).exit_code, 0);
    let work = runner.config.work_dir.clone();
    let pid = until(|| {
        let text = std::fs::read_to_string(work.join("stubborn")).ok().filter(|text| text.ends_with('\n'))?;
        work.join("polite").exists().then(|| text.trim().to_owned())
    });
    assert!(runner.terminate().success());
    assert!(work.join("ended").exists());
    assert!(!std::path::Path::new("/proc").join(pid).exists());
}

#[test]
fn the_shutdown_command_ends_the_runner() {
    let mut runner = Runner::start(RuntimeType::App);
    let mut agent = runner.connect();
    agent.submit("r", batch(None, None, Some("echo go; sleep 1000")));
    agent.wait_for_output("r", "go");
    agent.send(Command::Shutdown { grace_ms: Some(2000) });
    let mut finished = false;
    while let Some(frame) = agent.next() {
        finished |= matches!(frame, Frame::Event { event: Event::Finished { signal: Some(15), .. }, .. });
    }
    assert!(finished, "the end of the run was still reported");
    assert!(runner.wait().success());
}
