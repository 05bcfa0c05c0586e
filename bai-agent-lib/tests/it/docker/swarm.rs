//! Sessions across engines: two of them, each in a network namespace of its own, as on two hosts.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bai_core::port::agent::{KernelReport, KernelStage};
use bai_core::status::ClusterMode;
use bai_testkit::agent_api::AgentUnderTest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

use super::cluster::{address, agent, hears_nothing, networks, until_no_networks};
use super::kernel::{Host, PYTHON};
use crate::cluster::{Cluster, connect, listen};

/// Addresses of the engines in the network between them, which nobody else sees.
const ADDRESSES: [&str; 2] = ["10.99.7.1", "10.99.7.2"];

/// An engine of this test.
struct Engine {
    daemon: Child,
    host: String,
    dir: TempDir,
}

impl Engine {
    /// Starts one in a network namespace with nothing but a loopback device. It ends with this thread.
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("bai-engine-").tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let host = format!("unix://{}", path("docker.sock"));
        let mark = dir.path().file_name().unwrap().to_string_lossy().into_owned();
        let log = std::fs::File::create(path("log")).unwrap();
        let daemon = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "sh",
                "-c",
                "ip link set lo up && exec \"$@\"",
                "sh",
            ])
            .args(["dockerd", "--host", &host, "--data-root", &path("data"), "--exec-root", &path("exec")])
            .args(["--pidfile", &path("pid"), "--cgroup-parent", &format!("/{mark}")])
            .args([
                "--containerd-namespace",
                &mark,
                "--containerd-plugins-namespace",
                &format!("{mark}-plugins"),
            ])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--shutdown-timeout", "5"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { daemon, host, dir }
    }

    fn ready(&self) {
        let give_up = Instant::now() + Duration::from_secs(30);
        while self.docker(&["version"]).is_err() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < give_up, "{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs `docker`.
    fn docker(&self, args: &[&str]) -> Result<String, String> {
        run(Command::new("docker").args(["-H", &self.host]).args(args))
    }

    fn ip(&self, args: &[&str]) {
        let net = format!("--net=/proc/{}/ns/net", self.daemon.id());
        run(Command::new("nsenter").args([net.as_str(), "ip"]).args(args)).unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.docker(&["swarm", "leave", "--force"]);
        let pid = i32::try_from(self.daemon.id()).unwrap();
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let _ = self.daemon.wait();
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in ours.filter(|path| Path::new(path).starts_with(self.dir.path())) {
            let _ = run(Command::new("umount").args(["-l", mount]));
        }
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

/// Two engines that see each other; the first one is the manager of a swarm, the second one a worker.
fn swarm(image_from: &str) -> [Engine; 2] {
    let engines = [Engine::start(), Engine::start()];
    engines.iter().for_each(Engine::ready);
    let ends = [engines[0].daemon.id(), engines[1].daemon.id()].map(|pid| pid.to_string());
    run(Command::new("ip").args([
        "link", "add", "eth0", "netns", &ends[0], "type", "veth", "peer", "name", "eth0", "netns", &ends[1],
    ]))
    .unwrap();
    for (engine, address) in engines.iter().zip(ADDRESSES) {
        engine.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        engine.ip(&["link", "set", "eth0", "up"]);
    }
    let image = Command::new("docker").args(["-H", image_from, "save", PYTHON]).output().unwrap().stdout;
    for engine in &engines {
        let mut load = Command::new("docker")
            .args(["-H", &engine.host, "load", "-q"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        load.stdin.take().unwrap().write_all(&image).unwrap();
        assert!(load.wait().unwrap().success());
    }
    engines[0].docker(&["swarm", "init", "--advertise-addr", ADDRESSES[0]]).unwrap();
    let token = engines[0].docker(&["swarm", "join-token", "-q", "worker"]).unwrap();
    let manager = format!("{}:2377", ADDRESSES[0]);
    let join = ["swarm", "join", "--advertise-addr", ADDRESSES[1], "--token", &token, &manager];
    engines[1].docker(&join).unwrap();
    engines
}

/// Whether engines of its own can be started; one must be able to where `BAI_TEST_REQUIRE` is set.
fn can_start_engines() -> bool {
    let can = Uid::effective().is_root()
        && Command::new("dockerd").arg("--version").output().is_ok_and(|done| done.status.success());
    assert!(can || std::env::var_os("BAI_TEST_REQUIRE").is_none(), "root and dockerd are needed");
    if !can {
        println!("skipped: needs root and dockerd");
    }
    can
}

async fn start(manager: &AgentUnderTest, worker: &AgentUnderTest, cluster: &Cluster) {
    let (main, others) = cluster.specs.split_at(1);
    // The worker cannot make the network, and has to wait for it.
    worker.api.create_kernels(others.to_vec()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    manager.api.create_kernels(main.to_vec()).await.unwrap();
    manager.running(cluster.kernel(0)).await;
    for spec in others {
        worker.running(spec.kernel).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kernels_on_two_engines_share_an_overlay() {
    let Some(image_from) = bai_testkit::service_url("BAI_TEST_DOCKER_HOST") else { return };
    if !can_start_engines() {
        return;
    }
    let engines = swarm(&image_from);
    let hosts = engines.each_ref().map(|engine| Host::on(engine.host.clone()));
    let (manager, worker) = (agent(&hosts[0]).await, agent(&hosts[1]).await);

    // Without a manager among its engines a session is refused in the end, in words.
    let lost = Cluster::new(&worker, ClusterMode::MultiNode).specs.remove(1);
    worker.api.create_kernels(vec![lost.clone()]).await.unwrap();

    let cluster = Cluster::new(&manager, ClusterMode::MultiNode);
    start(&manager, &worker, &cluster).await;
    assert_eq!(networks(&hosts[0]).await, [cluster.network()]);
    let port = listen(&worker, cluster.kernel(2)).await;
    assert_eq!(connect(&manager, cluster.kernel(0), "sub2", &port).await, "hello");
    assert_eq!(connect(&worker, cluster.kernel(1), "sub2", &port).await, "hello");
    let port = listen(&manager, cluster.kernel(0)).await;
    assert_eq!(connect(&worker, cluster.kernel(1), "main1", &port).await, "hello");
    let stranger = manager.kernel().await;
    let main = address(&worker, cluster.kernel(1), "main1").await;
    assert_eq!(connect(&worker, cluster.kernel(1), &main, &port).await, "hello");
    hears_nothing(&manager, stranger, &main, &port).await;
    manager.end(stranger).await;

    let again = cluster.restarted();
    start(&manager, &worker, &again).await;
    let port = listen(&worker, again.kernel(1)).await;
    assert_eq!(connect(&manager, again.kernel(0), "sub1", &port).await, "hello");

    // The manager's kernel ends first: the network stays for the others, and goes with them.
    manager.end(again.kernel(0)).await;
    assert_eq!(networks(&hosts[0]).await, [again.network()]);
    assert_eq!(connect(&worker, again.kernel(2), "sub1", &port).await, "hello");
    worker.end(again.kernel(1)).await;
    worker.end(again.kernel(2)).await;
    until_no_networks(&hosts[0]).await;

    let wanted = |report: &KernelReport| matches!(report.stage, KernelStage::Failed { .. });
    let report =
        tokio::time::timeout(Duration::from_mins(1), worker.manager.kernel(lost.kernel, wanted)).await;
    let KernelStage::Failed { message, .. } = report.unwrap().stage else { unreachable!() };
    assert!(message.contains("no manager of the swarm"), "{message}");
    drop((manager, worker));
    drop(hosts);
    drop(engines);
}
