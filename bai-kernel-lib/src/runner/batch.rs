//! Batch mode: clean, build, exec (`krunner.md` section 4).

use std::io;

use super::{
    defaults::{Plan, Step, default_plan},
    executor::run_program,
    kernel::Kernel,
    process::Exit,
    pump::Sink,
};
use crate::protocol::{BatchSteps, Event};

/// Tells the site hook of Python that `input()` shall ask the runner.
const BATCH_VARIABLE: (&str, &str) = ("_BACKEND_BATCH_MODE", "1");

/// Exit code of a step that could not be run, and of the exec step after a failed build.
const NOT_RUN: i32 = 127;

pub(super) fn run(kernel: &Kernel, steps: &BatchSteps, sink: &mut Sink<'_>) -> io::Result<Exit> {
    let id = sink.run_id().to_owned();
    let clean = step(kernel, Step::Clean, steps.clean.as_deref(), sink)?;
    kernel.outbox.event(Event::CleanFinished { run_id: id.clone(), exit_code: clean.code });
    let build = step(kernel, Step::Build, steps.build.as_deref(), sink)?;
    kernel.outbox.event(Event::BuildFinished { run_id: id, exit_code: build.code });
    if build.code != 0 {
        return Ok(Exit::code(NOT_RUN));
    }
    step(kernel, Step::Exec, steps.exec.as_deref(), sink)
}

fn step(kernel: &Kernel, step: Step, script: Option<&str>, sink: &mut Sink<'_>) -> io::Result<Exit> {
    let variables: &[_] = if step == Step::Exec { &[BATCH_VARIABLE] } else { &[] };
    match plan(kernel, step, script) {
        Plan::Nothing => Ok(Exit::code(0)),
        Plan::Say(text, code) => {
            sink.say(&text);
            Ok(Exit::code(code))
        }
        Plan::Run(argv) => run_program(kernel, &argv, variables, sink),
    }
}

fn plan(kernel: &Kernel, step: Step, script: Option<&str>) -> Plan {
    match script {
        None | Some("") => Plan::Nothing,
        Some("*") => {
            default_plan(step, &kernel.config.runtime_type, &kernel.environment, &kernel.config.work_dir)
        }
        Some(script) => match kernel.environment.command(script) {
            Ok(argv) => Plan::Run(argv),
            Err(text) => Plan::Say(text, NOT_RUN),
        },
    }
}
