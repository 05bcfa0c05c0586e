//! Kernels come, answer, go, and are found again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bai_core::error::{ErrorKind, code};
use bai_core::port::KernelBackend;
use bai_core::port::agent::KernelRef;
use bai_core::port::backend::{ExitNotice, RunnerEndpoint};
use bai_core::session::KernelExit;
use bollard::query_parameters::CreateContainerOptions;
use futures_util::StreamExt;

use super::client::Client;
use super::kernel::{BUSYBOX, Host, Kernel, MEMORY, PYTHON, SCRATCH, TOKEN, connect, raw};

const GRACE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn the_runner_answers_in_every_image() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let mut python = Kernel::start(&host, &backend, PYTHON).await;
    python.client.output("x = 41");
    assert_eq!(python.client.output("print(x + 1)"), "42");
    assert_eq!(
        python.client.output("import os; print(os.uname().nodename, os.getcwd())"),
        "main1 /home/work"
    );
    python.client.output("open('kept', 'w').write('on the host')");
    assert_eq!(std::fs::read_to_string(python.spec.work_dir.join("kept")).unwrap(), "on the host");

    let mut busybox = Kernel::start(&host, &backend, BUSYBOX).await;
    assert_eq!(busybox.client.output("echo $((6 * 7)) | tr 4 5; id -u"), "52\n1000");

    let mut scratch = Kernel::start(&host, &backend, SCRATCH).await;
    assert_eq!(scratch.client.output("/echo no shell 'is needed'"), "no shell is needed");

    for kernel in [python, busybox, scratch] {
        kernel.end(&backend).await;
    }
    assert_eq!(host.containers().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_is_started_once_and_its_end_is_told() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let mut exits = backend.exits().await.unwrap();
    let kernel = Kernel::start(&host, &backend, BUSYBOX).await;
    let (spec, started) = (kernel.spec.clone(), kernel.started.clone());
    assert_eq!(backend.start(&spec).await.unwrap(), started);
    assert_eq!(backend.list().await.unwrap(), std::slice::from_ref(&started));
    assert_eq!((started.kernel, started.session), (spec.kernel, spec.session));
    assert_eq!(backend.remove(spec.kernel).await.unwrap_err().kind(), ErrorKind::Conflict);

    backend.stop(spec.kernel, GRACE).await.unwrap();
    backend.stop(spec.kernel, GRACE).await.unwrap();
    let exit = KernelExit { code: Some(0), reason: "self-terminated".into(), oom: false };
    let notice = tokio::time::timeout(GRACE, exits.next()).await.unwrap().unwrap();
    assert_eq!(notice, ExitNotice { kernel: spec.kernel, exit: exit.clone() });
    let ended = backend.list().await.unwrap();
    assert_eq!(ended.iter().map(|started| &started.exit).collect::<Vec<_>>(), [&Some(exit)]);
    assert_eq!(backend.start(&spec).await.unwrap(), ended[0], "an ended start is not started again");
    assert_eq!(backend.stats(spec.kernel).await.unwrap_err().code(), code::KERNEL_NOT_FOUND);

    backend.remove(spec.kernel).await.unwrap();
    backend.remove(spec.kernel).await.unwrap();
    backend.stop(spec.kernel, GRACE).await.unwrap();
    assert_eq!(backend.list().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_at_the_same_time_make_one_container() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let spec = host.spec(BUSYBOX);
    let starts = (0..4).map(|_| backend.start(&spec));
    let ids: Vec<_> =
        futures_util::future::join_all(starts).await.into_iter().map(|s| s.unwrap().container_id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(host.containers().await.len(), 1);
    backend.stop(spec.kernel, Duration::ZERO).await.unwrap();
    let exit = backend.list().await.unwrap()[0].exit.clone().unwrap();
    assert!(matches!(exit.code, Some(0 | 137)), "{exit:?}");
    backend.remove(spec.kernel).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_generation_replaces_an_older_one() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let first = Kernel::start(&host, &backend, BUSYBOX).await;
    let mut spec = first.spec.clone();
    spec.kernel.generation = 2;
    let mut second = Kernel::of(spec, &backend).await;
    assert_eq!(second.client.output("echo again"), "again");
    assert_eq!(backend.list().await.unwrap(), [second.started.clone()]);
    assert_eq!(backend.start(&first.spec).await.unwrap_err().code(), code::STALE_GENERATION);
    backend.stop(first.spec.kernel, Duration::ZERO).await.unwrap();
    backend.remove(first.spec.kernel).await.unwrap();
    assert_eq!(second.client.output("echo untouched"), "untouched");
    second.end(&backend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kernels_of_others_are_left_alone() {
    let (Some(host), Some(other)) = (Host::new(), Host::new()) else { return };
    let (backend, others) = (host.backend().await, other.backend().await);
    let kernel = Kernel::start(&other, &others, BUSYBOX).await;
    assert_eq!(backend.list().await.unwrap(), []);
    // A stranger's container with our labels, as one made from a committed kernel has them.
    let body = bollard::models::ContainerCreateBody {
        image: Some(BUSYBOX.into()),
        cmd: Some(vec!["true".into()]),
        labels: Some(
            [
                ("ai.backend.owner", host.agent.clone()),
                ("ai.backend.kernel-id", kernel.spec.kernel.id.to_string()),
                ("ai.backend.session-id", kernel.spec.session.to_string()),
                ("ai.backend.generation", "1".to_owned()),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
        ),
        ..Default::default()
    };
    raw(&host.engine).create_container(None::<CreateContainerOptions>, body).await.unwrap();
    assert_eq!(backend.list().await.unwrap(), []);
    assert_eq!(host.containers().await.len(), 1, "and it is still there");
    kernel.end(&others).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let mut spec = host.spec("local/nothing:1");
    let error = backend.start(&spec).await.unwrap_err();
    assert_eq!(error.code(), code::IMAGE_NOT_FOUND);
    assert!(error.to_string().contains(PYTHON), "{error}");

    spec.image = BUSYBOX.into();
    spec.limits.memory = Some(4096);
    let error = backend.start(&spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().to_lowercase().contains("memory"), "{error}");

    spec.limits.memory = Some(MEMORY);
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    spec.ports = vec![(8080, taken.local_addr().unwrap().port())];
    let error = backend.start(&spec).await.unwrap_err();
    assert_eq!(error.code(), code::BACKEND_FAILED, "{error}");
    assert_eq!(host.containers().await, Vec::<String>::new());

    spec.ports.clear();
    std::fs::remove_dir(&spec.work_dir).unwrap();
    assert!(backend.start(&spec).await.is_err());
    assert_eq!(host.containers().await, Vec::<String>::new());
    assert!(!spec.work_dir.exists(), "a missing directory is not made");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_are_those_asked_for() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let mut spec = host.spec(PYTHON);
    spec.limits.cpu = Some(0.5);
    spec.limits.cpuset = vec![0];
    spec.limits.shm = Some(8 << 20);
    let mut kernel = Kernel::of(spec, &backend).await;
    kernel.prove();
    let seen = kernel.client.output(
        "import os, json\n\
         shm = os.statvfs('/dev/shm')\n\
         print(json.dumps([sorted(os.sched_getaffinity(0)), shm.f_blocks * shm.f_frsize]))",
    );
    assert_eq!(seen, "[[0], 8388608]");
    // Half a core for a second of work.
    let share = kernel.client.output(
        "import time\n\
         wall, cpu = time.monotonic(), time.process_time()\n\
         while time.process_time() - cpu < 0.5: pass\n\
         print((time.process_time() - cpu) / (time.monotonic() - wall))",
    );
    assert!(share.parse::<f64>().unwrap() < 0.65, "{share}");
    kernel.end(&backend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn use_is_measured() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let mut kernel = Kernel::start(&host, &backend, PYTHON).await;
    let number = |stats: &bai_core::execution::KernelStats, key: &str, field: &str| {
        stats[key][field].as_str().unwrap().parse::<f64>().unwrap()
    };
    let before = backend.stats(kernel.reference()).await.unwrap();
    kernel.client.output(
        "import time\n\
         block = bytearray(32 << 20)\n\
         cpu = time.process_time()\n\
         while time.process_time() - cpu < 0.3: pass",
    );
    let after = backend.stats(kernel.reference()).await.unwrap();
    let grown = |key: &str| number(&after, key, "current") - number(&before, key, "current");
    assert!(grown("cpu_used") >= 250.0, "{before:?} {after:?}");
    assert!(grown("mem") >= f64::from(30 << 20), "{before:?} {after:?}");
    #[allow(clippy::cast_precision_loss)]
    let limit = MEMORY as f64;
    assert!((number(&after, "mem", "capacity") - limit).abs() < 1.0);
    assert!(after.contains_key("net_rx") && after.contains_key("io_write"));
    let unknown = KernelRef { generation: 9, ..kernel.reference() };
    assert_eq!(backend.stats(unknown).await.unwrap_err().kind(), ErrorKind::NotFound);
    kernel.end(&backend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_published_on_the_loopback_address() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let mut spec = host.spec(PYTHON);
    spec.ports = vec![(8080, port)];
    let mut kernel = Kernel::of(spec, &backend).await;
    kernel.client.output(
        "import socket, threading\n\
         server = socket.create_server(('', 8080))\n\
         def serve():\n\
         \x20   peer = server.accept()[0]\n\
         \x20   peer.sendall(b'hello from inside')\n\
         \x20   peer.close()\n\
         threading.Thread(target=serve, daemon=True).start()",
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello from inside");
    let listening = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let hex = format!(":{port:04X} 00000000:0000 0A");
    let addresses: Vec<_> = listening.lines().filter(|line| line.contains(&hex)).collect();
    assert!(
        !addresses.is_empty() && addresses.iter().all(|line| line.contains("0100007F:")),
        "{addresses:?}"
    );
    kernel.end(&backend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stubborn_programs_are_killed_after_the_grace_time() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let mut kernel = Kernel::start(&host, &backend, PYTHON).await;
    kernel.prove();
    kernel.client.output("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)");
    let begun = Instant::now();
    backend.stop(kernel.reference(), Duration::from_secs(3)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(900), "SIGTERM comes first: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(backend.list().await.unwrap()[0].exit.is_some());
    backend.remove(kernel.reference()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_with_a_long_path_is_reached_through_its_directory() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let mut spec = host.spec(BUSYBOX);
    let long = host.dir.join("long".repeat(30));
    std::fs::rename(&spec.control_dir, &long).unwrap();
    spec.control_dir = long;
    let started = backend.start(&spec).await.unwrap();
    let RunnerEndpoint::Unix(socket) = &started.endpoint else { panic!("{started:?}") };
    assert!(socket.as_os_str().len() > 107);
    let dir = std::fs::File::open(socket.parent().unwrap()).unwrap();
    let name = socket.file_name().unwrap();
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    let mut client = Client::connect(&short, TOKEN);
    assert_eq!(client.output("echo far"), "far");
    assert_eq!(backend.list().await.unwrap(), [started]);
    backend.stop(spec.kernel, GRACE).await.unwrap();
    backend.remove(spec.kernel).await.unwrap();
}

/// Names the directory and the agent in the child process that is killed.
const CHILD: &str = "BAI_TEST_DOCKER_CHILD";

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_finds_its_kernels_again() {
    if let Ok(child) = std::env::var(CHILD) {
        return be_killed(&child).await;
    }
    let Some(host) = Host::new() else { return };
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "docker::lifecycle::an_agent_that_is_killed_finds_its_kernels_again",
            "--nocapture",
        ])
        .env(CHILD, format!("{} {}", host.agent, host.dir.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let container = lines.find_map(|line| line.strip_prefix("container ").map(str::to_owned)).unwrap();
    drop(child);

    let backend = host.backend().await;
    let found = backend.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].container_id, &found[0].exit), (&container, &None));
    let mut client = connect(&found[0]);
    assert_eq!(client.output("print(x)"), "kept");
    backend.stop(found[0].kernel, GRACE).await.unwrap();
    backend.remove(found[0].kernel).await.unwrap();
    assert_eq!(host.containers().await, Vec::<String>::new());
}

/// Ends its process with SIGKILL.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

async fn be_killed(names: &str) {
    let (agent, dir) = names.split_once(' ').unwrap();
    let host = Host::again(dir.as_ref(), agent).unwrap();
    let backend = host.backend().await;
    let mut kernel = Kernel::start(&host, &backend, PYTHON).await;
    kernel.client.output("x = 'kept'");
    println!("container {}", kernel.started.container_id);
    std::io::stdout().flush().unwrap();
    std::future::pending::<()>().await;
}
