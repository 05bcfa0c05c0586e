//! The runner as PID 1 of images without a C library, and of one without anything.
//!
//! Each has a process and a mount namespace of its own, so that nothing in it can reach the host's processes.
//! That needs root, which the project's test run has.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command as Process, Stdio},
};

use bai_kernel_lib::{
    config::{RunnerConfig, RuntimeType},
    protocol::{Command, Event},
};
use tempfile::TempDir;

use crate::harness::{Agent, Frame, TOKEN, batch, binary, until};

/// Mounts the control directory, then becomes the runner in the image: $1 control directory, $2 root.
const START: &str = "mount --bind \"$1\" \"$2/ctl\" && mount -t proc proc \"$2/proc\" && \
                     exec chroot \"$2\" /bai-krunner --config /ctl/config.json";

struct Image {
    dir: TempDir,
    child: Child,
}

impl Image {
    /// Starts a runner in a root that contains it and `programs` only. User code has uid and gid 12345.
    fn start(programs: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (root, ctl) = (dir.path().join("root"), dir.path().join("ctl"));
        for name in ["root/ctl", "root/proc", "root/home/work", "ctl"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::copy(binary(), root.join("bai-krunner")).unwrap();
        for (from, to) in programs {
            let to = root.join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
        std::os::unix::fs::chown(root.join("home/work"), Some(12345), Some(12345)).unwrap();
        let mut config = RunnerConfig::new("/ctl/s", TOKEN, RuntimeType::App);
        config.uid = Some(12345);
        config.supplementary_gids = vec![42, 777];
        config.hide_control_dir = true;
        config.grace_ms = 1000;
        let file = ctl.join("config.json");
        fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = Process::new("unshare");
        command.args(["--pid", "--mount", "--fork", "--kill-child", "sh", "-c", START, "sh"]);
        let child = command.args([&ctl, &root]).stdin(Stdio::null()).spawn().unwrap();
        Self { dir, child }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn connect(&self) -> Agent {
        Agent::connect(&self.dir.path().join("ctl/s"), TOKEN, None).unwrap()
    }

    /// Ends the kernel through its agent.
    fn end(mut self, mut agent: Agent) {
        agent.send(Command::Shutdown { grace_ms: None });
        while agent.next().is_some() {}
        assert!(until(|| self.child.try_wait().unwrap()).success());
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // The kernel is killed with its `unshare`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn busybox() -> (Image, Agent) {
    let image = Image::start(&[("/bin/busybox", "bin/busybox")]);
    let agent = image.connect();
    (image, agent)
}

#[test]
fn a_busybox_image_needs_nothing_more() {
    let (image, mut agent) = busybox();
    let Some(Frame::Event { event: Event::Ready { pid: 1, .. }, .. }) = agent.next() else {
        panic!("not PID 1")
    };
    let script =
        "busybox id -u; busybox id -g; busybox id -G; busybox id -un; echo $HOME $SHELL; pwd; busybox uname";
    let outcome = agent.batch(None, None, Some(script));
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines[..3], ["12345", "12345", "12345 42 777"], "{outcome:?}");
    assert_eq!(lines[3..], ["work", "/home/work /bin/busybox", "/home/work", "Linux"]);
    let passwd = fs::read_to_string(image.root().join("etc/passwd")).unwrap();
    assert_eq!(passwd, "work:x:12345:12345::/home/work:/bin/busybox\n");
    let query = agent.query("A=1; export A; cd /; echo shell");
    assert_eq!((query.stdout.as_str(), query.exit_code), ("shell\n", 0), "{query:?}");
    assert_eq!(agent.query("echo $A; pwd").stdout, "1\n/\n");
    image.end(agent);
}

#[test]
fn user_code_cannot_reach_or_stop_the_runner() {
    let (image, mut agent) = busybox();
    let script = "busybox ls /ctl; busybox cat /proc/1/environ; busybox ls /proc/1/fd /proc/1/root; \
                  for s in TERM INT KILL STOP; do busybox kill -$s 1; done; busybox kill -9 -1; echo not reached";
    let outcome = agent.batch(None, None, Some(script));
    assert!(!outcome.stdout.contains("config.json") && !outcome.stdout.contains('s'), "{outcome:?}");
    assert!(outcome.stderr.matches("ermission denied").count() >= 3, "{outcome:?}");
    assert!(outcome.stderr.matches("not permitted").count() >= 4, "{outcome:?}");
    // The last one took the script's own shell and everything else, but not the runner.
    assert_eq!(outcome.signal, Some(9), "{outcome:?}");
    assert_eq!(agent.batch(None, None, Some("echo alive")).stdout, "alive\n");
    let privileges =
        agent.batch(None, None, Some("busybox grep -E 'Cap(Eff|Prm|Amb)|NoNewPrivs' /proc/self/status"));
    assert_eq!(privileges.stdout.matches("0000000000000000").count(), 3, "{privileges:?}");
    assert!(privileges.stdout.contains("NoNewPrivs:\t1"));
    image.end(agent);
}

#[test]
fn orphans_are_reaped() {
    let (image, mut agent) = busybox();
    let orphan = "(busybox sh -c 'busybox sleep 0.1; exit 3' &) ; echo started";
    for _ in 0..20 {
        assert_eq!(agent.batch(None, None, Some(orphan)).stdout, "started\n");
    }
    until(|| {
        let outcome = agent.batch(None, None, Some("busybox ps -o pid,stat"));
        // The heading, the runner, the shell and `ps`: no zombie and no sleeper is left.
        (outcome.stdout.lines().count() <= 4).then_some(())
    });
    image.end(agent);
}

#[test]
fn a_program_that_ignores_the_end_is_killed() {
    let (image, mut agent) = busybox();
    agent.submit("r", batch(None, None, Some("trap '' TERM; echo go; while :; do busybox sleep 0.1; done")));
    agent.wait_for_output("r", "go");
    image.end(agent);
}

#[test]
fn an_empty_image_runs_static_programs() {
    let image = Image::start(&[(binary().to_str().unwrap(), "usr/bin/tool")]);
    let mut agent = image.connect();
    let outcome = agent.batch(None, None, Some("tool '--version'"));
    assert!(outcome.stdout.starts_with("bai-krunner ") && outcome.exit_code == 0, "{outcome:?}");
    let usage = agent.query("/usr/bin/tool");
    assert_eq!(usage.exit_code, 2, "{usage:?}");
    let missing = agent.batch(None, Some("echo hello"), Some("tool --version"));
    assert_eq!((missing.steps, missing.exit_code), (vec![("clean", 0), ("build", 127)], 127));
    assert!(missing.stderr.contains("echo: command not found"));
    image.end(agent);
}

#[test]
fn the_binary_is_small() {
    let size = fs::metadata(binary()).unwrap().len();
    println!("{size} bytes");
    // An empty program linked like this has 1.1 MB: the static C library and the Rust runtime.
    assert!(size < 1_800_000, "{size}");
    assert!(binary().starts_with(Path::new(env!("CARGO_TARGET_TMPDIR"))));
}
