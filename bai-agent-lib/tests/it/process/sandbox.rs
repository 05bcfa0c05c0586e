//! `bai-krunner sandbox` by itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bai_kernel_lib::sandbox::{Bind, ExitRecord, Network, Rlimits, SandboxRecord, SandboxSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::kernel::runner;

fn spec(dir: &Path, script: &str) -> SandboxSpec {
    let state = dir.join("state");
    fs::create_dir_all(&state).unwrap();
    SandboxSpec {
        state_dir: state,
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        environ: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        hostname: "main1".into(),
        aliases: Vec::new(),
        uid: 1000,
        gid: 1000,
        binds: vec![bind(dir, "/home/work")],
        expose: Vec::new(),
        hide: Vec::new(),
        tmp_bytes: 1 << 20,
        shm_bytes: 1 << 20,
        network: Network::None,
        cgroups: Vec::new(),
        rlimits: Rlimits { nofile: Some(64), ..Rlimits::default() },
        labels: BTreeMap::new(),
        gaps: vec!["told before".into()],
        look_seconds: 60,
    }
}

fn bind(source: &Path, target: &str) -> Bind {
    Bind { source: source.to_owned(), target: target.into(), read_only: false }
}

/// Starts the monitor and returns it with its answer.
fn start(spec: &SandboxSpec) -> (Child, String) {
    let file = spec.state_dir.join("spec.json");
    fs::write(&file, serde_json::to_vec(spec).unwrap()).unwrap();
    let mut monitor = Command::new(runner())
        .arg("sandbox")
        .arg(file)
        .env("SECRET", "of the agent")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answer = String::new();
    monitor.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    (monitor, answer)
}

fn refused(spec: &SandboxSpec) -> String {
    let (mut monitor, answer) = start(spec);
    assert_eq!(monitor.wait().unwrap().code(), Some(1), "{answer}");
    assert!(SandboxRecord::load(&spec.state_dir).is_err(), "a refused sandbox leaves a record");
    answer
}

#[test]
fn the_command_has_its_own_surroundings_and_its_end_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let script = "{ env; ls /proc/self/fd | wc -l; ulimit -n; hostname; } > /home/work/out; exit 3";
    let spec = spec(dir.path(), script);
    let (mut monitor, answer) = start(&spec);
    assert_eq!(answer, "ready\n");
    assert!(monitor.wait().unwrap().success());
    let exit = ExitRecord::load(&spec.state_dir).unwrap();
    assert_eq!(exit, ExitRecord { code: Some(3), signal: None, oom: false });
    let record = SandboxRecord::load(&spec.state_dir).unwrap();
    assert_eq!((record.ready, record.gaps.as_slice()), (true, ["told before".to_owned()].as_slice()));
    assert!(!record.is_alive());
    let out = fs::read_to_string(dir.path().join("out")).unwrap();
    // Four descriptors: the standard ones and the directory that `ls` reads.
    let lines: Vec<&str> = out.lines().filter(|line| !line.starts_with("PWD=")).collect();
    assert_eq!(lines, ["PATH=/usr/bin:/bin", "4", "64", "main1"]);
}

#[test]
fn the_monitor_passes_termination_on() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path(), "trap 'exit 5' TERM; touch /home/work/ready; while :; do sleep 0.01; done");
    let (mut monitor, answer) = start(&spec);
    assert_eq!(answer, "ready\n");
    while !dir.path().join("ready").exists() {
        std::thread::yield_now();
    }
    kill(Pid::from_raw(i32::try_from(monitor.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(monitor.wait().unwrap().success());
    assert_eq!(ExitRecord::load(&spec.state_dir).unwrap().code, Some(5));
}

#[test]
fn what_cannot_be_built_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let good = spec(dir.path(), "exit 0");
    let missing = SandboxSpec { command: vec!["/no/such/program".into()], ..good.clone() };
    assert!(refused(&missing).contains("/no/such/program"));
    let nowhere = SandboxSpec { binds: vec![bind(Path::new("/no/such/dir"), "/home/work")], ..good.clone() };
    assert!(refused(&nowhere).contains("/home/work"));
    let root = SandboxSpec { uid: 0, ..good.clone() };
    assert!(refused(&root).contains("root"));
    let idle = SandboxSpec { command: Vec::new(), ..good };
    assert!(refused(&idle).contains("command is empty"));
}

#[test]
fn no_mount_follows_a_link_that_the_user_made() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), dir.path().join("data")).unwrap();
    let mut spec = spec(dir.path(), "exit 0");
    for target in ["/home/work/data", "/home/work/data/below"] {
        spec.binds.truncate(1);
        spec.binds.push(bind(elsewhere.path(), target));
        assert!(refused(&spec).contains(target));
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0, "nothing was made behind the link");
}

#[test]
fn a_sandbox_that_nobody_could_find_again_ends() {
    let dir = tempfile::tempdir().unwrap();
    let spec = SandboxSpec { look_seconds: 1, ..spec(dir.path(), "sleep 600") };
    let (mut monitor, answer) = start(&spec);
    assert_eq!(answer, "ready\n");
    let record = SandboxRecord::load(&spec.state_dir).unwrap();
    assert!(record.is_alive());
    fs::remove_dir_all(&spec.state_dir).unwrap();
    assert_eq!(monitor.wait().unwrap().code(), Some(1), "there is no place to write the end to");
    assert!(!record.is_alive());
}
