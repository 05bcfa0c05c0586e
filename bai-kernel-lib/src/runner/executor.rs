//! The thread that executes runs, one after another.

use std::{ffi::OsString, io};

use super::{
    batch,
    interpreter::Driver,
    kernel::Kernel,
    oneshot,
    process::{Exit, Process},
    pump::{Outputs, Sink},
    runs::Run,
    supervise::note,
};
use crate::{
    config::RuntimeType,
    drivers,
    protocol::{Event, Stream, Work},
};

/// Exit code of a run that failed through a fault of the runner itself.
const RUNNER_FAULT: i32 = -1;

/// Exit code of an interrupted step or a cancelled run: 128 + SIGINT.
pub(super) const INTERRUPTED: i32 = 130;

/// Executes runs for ever. Called again after a panic: the run that was active then is reported as failed; its
/// processes and the interpreter go on.
pub(super) fn run(kernel: &Kernel, driver: &mut Option<Driver>) {
    if let Some(run_id) = kernel.runs.active() {
        kernel.input.reset();
        Sink::new(kernel, &run_id).say("bai-krunner: internal error; the run was given up");
        finish(kernel, Exit::code(RUNNER_FAULT));
    }
    loop {
        match kernel.runs.next() {
            Some(run) => execute(kernel, driver, run),
            None => idle(kernel, driver),
        }
    }
}

fn execute(kernel: &Kernel, driver: &mut Option<Driver>, run: Run) {
    let Run { run_id, work } = run;
    kernel.outbox.event(Event::Started { run_id: run_id.clone() });
    let mut sink = Sink::new(kernel, &run_id);
    let result = match work {
        Work::Batch(steps) => batch::run(kernel, &steps, &mut sink),
        Work::Query { code, strict_exit } => query(kernel, driver, &code, strict_exit, &mut sink),
    };
    let exit = result.unwrap_or_else(|e| {
        sink.say(&format!("bai-krunner: {e}"));
        Exit::code(RUNNER_FAULT)
    });
    if kernel.memory.has_killed() {
        sink.say(
            "Out of memory: the session has used up its memory, and the system has killed a process in it.",
        );
    }
    kernel.input.reset();
    finish(kernel, exit);
}

fn finish(kernel: &Kernel, exit: Exit) {
    let Exit { code: exit_code, signal } = exit;
    kernel.runs.finish(|run_id| kernel.outbox.event(Event::Finished { run_id, exit_code, signal }));
}

fn query(
    kernel: &Kernel,
    driver: &mut Option<Driver>,
    code: &str,
    strict: bool,
    sink: &mut Sink<'_>,
) -> io::Result<Exit> {
    let runtime = &kernel.config.runtime_type;
    match runtime {
        RuntimeType::Python | RuntimeType::Nodejs => {
            Driver::reap(driver, kernel, sink)?;
            if driver.is_none() {
                *driver = Driver::start(kernel)?;
            }
            match driver {
                Some(running) => {
                    let exit = running.run(kernel, code, strict, sink)?;
                    Driver::reap(driver, kernel, sink)?;
                    Ok(exit)
                }
                None => Ok(no_runtime(runtime, sink)),
            }
        }
        RuntimeType::C | RuntimeType::Cpp if kernel.environment.runtime.is_none() => {
            Ok(no_runtime(runtime, sink))
        }
        RuntimeType::C => oneshot::compiled(kernel, "c", code, sink),
        RuntimeType::Cpp => oneshot::compiled(kernel, "cpp", code, sink),
        RuntimeType::App => oneshot::shell(kernel, code, sink),
        RuntimeType::Other(name) => {
            sink.say(&format!("{name}-kernel: query mode is not available for this language"));
            Ok(Exit::code(127))
        }
    }
}

fn no_runtime(runtime: &RuntimeType, sink: &mut Sink<'_>) -> Exit {
    sink.say(&format!("{0}-kernel: this image has no {0} runtime", runtime.as_str()));
    Exit::code(127)
}

/// Waits for a run, looking after the interpreter meanwhile.
fn idle(kernel: &Kernel, driver: &mut Option<Driver>) {
    kernel.input.reset();
    let mut sink = Sink::between_runs(kernel);
    if kernel.runs.take_interpreter_request()
        && driver.is_none()
        && drivers::of(&kernel.config.runtime_type).is_some()
    {
        match Driver::start(kernel) {
            Ok(started) => *driver = started,
            Err(e) => note(&format!("no interpreter: {e}")),
        }
    }
    let result = match driver {
        Some(driver) => driver.idle(kernel, &mut sink),
        None => wait_for_work(kernel),
    }
    .and_then(|()| Driver::reap(driver, kernel, &mut sink));
    if let Err(e) = result {
        note(&format!("the interpreter is given up: {e}"));
        if let Some(broken) = driver.take() {
            broken.kill(kernel);
        }
    }
}

fn wait_for_work(kernel: &Kernel) -> io::Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [kernel.runs.event(), kernel.input.event()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Runs one program of the active run to its end and passes its output on.
pub(super) fn run_program(
    kernel: &Kernel,
    argv: &[OsString],
    variables: &[(&str, &str)],
    sink: &mut Sink<'_>,
) -> io::Result<Exit> {
    if kernel.runs.interrupted() {
        return Ok(Exit::code(INTERRUPTED));
    }
    let (mut outputs, ends) = Outputs::pair()?;
    let mut command = kernel.launcher.command(argv, &[]);
    command.envs(variables.iter().copied()).stdout(ends.stdout).stderr(ends.stderr);
    let spawned = kernel.processes.spawn(&mut command);
    drop(command);
    let process = match spawned {
        Ok(process) => process,
        Err(e) => return Ok(cannot_run(&argv[0], &e, sink)),
    };
    kernel.runs.set_target(&kernel.processes, Some(&process));
    let exit = follow(kernel, &process, &mut outputs, sink);
    kernel.runs.set_target(&kernel.processes, None);
    outputs.leave_to_log(&kernel.log);
    exit
}

fn follow(
    kernel: &Kernel,
    process: &Process,
    outputs: &mut Outputs,
    sink: &mut Sink<'_>,
) -> io::Result<Exit> {
    loop {
        let [ended, asked] = outputs.wait([process.event(), kernel.input.event()], sink)?;
        if asked {
            ask(kernel, outputs, sink)?;
        }
        if ended && let Some(exit) = process.exit() {
            outputs.drain(sink)?;
            return Ok(exit);
        }
    }
}

/// Passes the question of a script on to the agent, after the prompt that it wrote.
pub(super) fn ask(kernel: &Kernel, outputs: &mut Outputs, sink: &mut Sink<'_>) -> io::Result<()> {
    let Some(question) = kernel.input.next_question() else { return Ok(()) };
    outputs.drain(sink)?;
    let is_password = question.is_password;
    kernel.input.expect_question(sink.run_id(), question);
    kernel.outbox.event(Event::WaitingInput { run_id: sink.run_id().to_owned(), is_password });
    Ok(())
}

fn cannot_run(program: &OsString, error: &io::Error, sink: &mut Sink<'_>) -> Exit {
    let text = format!("bai-krunner: {}: {error}\n", program.to_string_lossy());
    let _ = sink.write(Stream::Stderr, text.as_bytes());
    Exit::code(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        config::RunnerConfig,
        protocol::{LENGTH_BYTES, RunnerFrame},
        runner::supervise::supervised,
    };

    fn query(run_id: &str) -> Run {
        Run { run_id: run_id.into(), work: Work::Query { code: "1".into(), strict_exit: false } }
    }

    #[test]
    fn a_run_that_a_panic_cut_short_is_reported_and_the_next_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let language = RuntimeType::Other("none".into());
        let mut config = RunnerConfig::new(dir.path().join("s"), "t", language);
        config.runtime_dir = Some(dir.path().join("run"));
        let kernel = Arc::new(Kernel::new(config).unwrap());
        kernel.runs.submit(query("cut")).unwrap();
        kernel.runs.submit(query("next")).unwrap();
        let (shared, mut driver, mut healthy) = (Arc::clone(&kernel), None, false);
        let body = move || {
            if !healthy {
                healthy = true;
                shared.runs.next();
                panic!("injected");
            }
            run(&shared, &mut driver);
        };
        supervised("executor", body).unwrap();
        kernel.outbox.attach(1);
        let (mut batch, mut finished) = (Vec::new(), Vec::new());
        while finished.len() < 2 {
            assert!(kernel.outbox.next_batch(1, &mut batch));
            for frame in &batch {
                if let RunnerFrame::Event { event: Event::Finished { run_id, exit_code, .. }, .. } =
                    RunnerFrame::decode(&frame[LENGTH_BYTES..]).unwrap()
                {
                    finished.push((run_id, exit_code));
                }
            }
        }
        assert_eq!(finished, [("cut".to_owned(), RUNNER_FAULT), ("next".to_owned(), 127)]);
        kernel.runs.wait_finished(Duration::from_secs(10));
        assert_eq!(kernel.runs.active(), None);
    }
}
