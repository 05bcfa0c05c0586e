//! PID 1 of a sandbox, from its first instruction until it becomes the command.

use std::{
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::Command,
};

use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::{Network, SandboxSpec, power, power::gap, root, root::step, sys};

/// What PID 1 says to the monitor: once before the command runs, and again if it cannot run.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Word {
    pub(super) gaps: Vec<String>,
    pub(super) error: Option<String>,
}

/// Waits for a byte on `go`, builds the sandbox and becomes the command; returns the exit code if it cannot. What it has
/// to say goes to `words`, one JSON text a line, which exec closes.
pub(super) fn run(spec: &SandboxSpec, in_user_namespace: bool, go: OwnedFd, words: OwnedFd) -> i32 {
    let mut words = std::fs::File::from(words);
    let error = match wait_for(go).and_then(|()| build(spec, in_user_namespace)) {
        Ok(gaps) => {
            let _ = say(&mut words, &Word { gaps, error: None });
            let error = execute(spec);
            format!("{}: {error}", spec.command[0])
        }
        Err(error) => error.to_string(),
    };
    let _ = say(&mut words, &Word { gaps: Vec::new(), error: Some(error) });
    127
}

fn say(words: &mut impl Write, word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    words.write_all(&line)
}

fn wait_for(go: OwnedFd) -> io::Result<()> {
    std::fs::File::from(go).read_exact(&mut [0])
}

fn build(spec: &SandboxSpec, in_user_namespace: bool) -> io::Result<Vec<String>> {
    let mut gaps = Vec::new();
    nix::unistd::setsid()?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    gap(
        &mut gaps,
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(io::Error::from),
        "control group names of the host are visible",
    );
    step("host name", nix::unistd::sethostname(&spec.hostname))?;
    if spec.network == Network::None {
        gap(&mut gaps, sys::loopback_up(), "there is no loopback device");
    }
    prefer_others_as_oom_victims();
    root::enter(spec, &mut gaps)?;
    sys::close_others_on_exec()?;
    step("capabilities", power::restrict(spec, in_user_namespace, &mut gaps))?;
    Ok(gaps)
}

/// When memory runs out the runner should be the last to go. Only some hosts let root do this; the runner also puts its
/// children first, which is always allowed.
fn prefer_others_as_oom_victims() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
}

fn execute(spec: &SandboxSpec) -> io::Error {
    Command::new(&spec.command[0]).args(&spec.command[1..]).env_clear().envs(&spec.environ).exec()
}
