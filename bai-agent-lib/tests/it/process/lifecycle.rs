//! Starting, finding again and ending.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use bai_agent_lib::backend::process::{Network, ProcessBackend, ProcessOptions};
use bai_core::error::ErrorKind;
use bai_core::port::KernelBackend;
use bai_kernel_lib::sandbox::start_time;
use futures_util::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::kernel::{Host, Kernel, connect};

const GRACE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_starts_runs_and_ends() {
    let host = Host::new();
    let backend = host.backend().await;
    let names: Vec<_> = backend.images().await.unwrap().into_iter().map(|image| image.name).collect();
    assert!(names.iter().any(|name| name.starts_with("python:3.")), "{names:?}");
    backend.prepare("python").await.unwrap();
    let missing = backend.prepare("cobol:1").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("python:3."), "{missing}");

    let mut exits = backend.exits().await.unwrap();
    let mut kernel = Kernel::start(&host, &backend, "python").await;
    assert_eq!(kernel.client.output("x = 40\nprint(x + 2)"), "42");
    assert_eq!(
        kernel.client.output("import os; print(os.getcwd(), os.uname().nodename)"),
        "/home/work main1"
    );
    assert_eq!(backend.start(&kernel.spec).await.unwrap(), kernel.started, "a second start is the first");
    assert_eq!(backend.list().await.unwrap(), [kernel.started.clone()]);
    assert_eq!(backend.remove(kernel.spec.kernel).await.unwrap_err().kind(), ErrorKind::Conflict);
    let stats = backend.stats(kernel.spec.kernel).await.unwrap();
    let memory: u64 = stats["mem"]["current"].as_str().unwrap().parse().unwrap();
    assert!(memory > 1 << 20, "{stats:?}");
    assert_eq!(stats["oom_kills"]["current"], "0");

    let reference = kernel.spec.kernel;
    backend.stop(reference, GRACE).await.unwrap();
    let notice = tokio::time::timeout(GRACE, exits.next()).await.unwrap().unwrap();
    assert_eq!((notice.kernel, notice.exit.code, notice.exit.oom), (reference, Some(0), false));
    assert_eq!(backend.list().await.unwrap()[0].exit, Some(notice.exit));
    backend.stop(reference, GRACE).await.unwrap();
    backend.remove(reference).await.unwrap();
    backend.remove(reference).await.unwrap();
    assert_eq!(backend.list().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_back_end_finds_what_an_earlier_one_started() {
    let host = Host::new();
    let first = host.backend().await;
    let mut kernel = Kernel::start(&host, &first, "python").await;
    assert_eq!(kernel.client.output("x = 7\nprint(x)"), "7");
    drop(first);

    let second = host.backend().await;
    let mut exits = second.exits().await.unwrap();
    let found = second.list().await.unwrap();
    assert_eq!(found, [kernel.started.clone()]);
    assert_eq!(connect(&found[0]).output("print(x)"), "7", "the interpreter kept its state");
    second.stop(kernel.spec.kernel, GRACE).await.unwrap();
    let notice = tokio::time::timeout(GRACE, exits.next()).await.unwrap().unwrap();
    assert_eq!(notice.kernel, kernel.spec.kernel);
    second.remove(kernel.spec.kernel).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_interactive_program_of_the_host_runs() {
    let host = Host::new();
    let backend = host.backend().await;
    let images = backend.images().await.unwrap();
    let interactive = images.iter().filter(|image| image.label("features").unwrap().contains("query"));
    let mut ran = Vec::new();
    for image in interactive {
        let code = match image.label("runtime-type").unwrap() {
            "python" => "print(6 * 7)",
            "nodejs" => "console.log(6 * 7)",
            "c" => "#include <stdio.h>\nint main(void) { printf(\"%d\\n\", 6 * 7); return 0; }",
            "cpp" => "#include <iostream>\nint main() { std::cout << 6 * 7 << std::endl; }",
            "app" => "echo $((6 * 7))",
            other => panic!("no program for {other}"),
        };
        let mut kernel = Kernel::start(&host, &backend, &image.name).await;
        assert_eq!(kernel.client.output(code), "42", "{}", image.name);
        kernel.end(&backend).await;
        ran.push(image.label("runtime-type").unwrap());
    }
    for needed in ["python", "app"] {
        assert!(ran.contains(&needed), "{ran:?}");
    }
}

/// Names the directory of the process that this test starts as the agent.
const AGENT_DIRECTORY: &str = "BAI_TEST_AGENT_DIR";

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_survives_the_sudden_death_of_its_agent() {
    if let Some(dir) = std::env::var_os(AGENT_DIRECTORY) {
        return be_an_agent(&std::mem::ManuallyDrop::new(Host::at(dir.as_ref()))).await;
    }
    let host = Host::new();
    let name = concat!(module_path!(), "::a_kernel_survives_the_sudden_death_of_its_agent");
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args([name.split_once("::").unwrap().1, "--exact", "--nocapture"])
        .env(AGENT_DIRECTORY, &host.dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(agent.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("started")));
    agent.kill().unwrap();
    agent.wait().unwrap();

    let backend = host.backend().await;
    let found = backend.list().await.unwrap();
    assert_eq!((found.len(), &found[0].exit), (1, &None));
    assert_eq!(connect(&found[0]).output("print(x)"), "7");
    backend.stop(found[0].kernel, GRACE).await.unwrap();
    backend.remove(found[0].kernel).await.unwrap();
}

/// Starts a kernel and waits for the end.
async fn be_an_agent(host: &Host) {
    let backend = host.backend().await;
    let mut kernel = Kernel::start(host, &backend, "python").await;
    kernel.client.output("x = 7");
    std::io::stdout().write_all(b"started\n").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interpreter_in_a_private_directory_is_shown_alone() {
    let host = Host::new();
    let private = host.dir.join("private");
    let mut maker = Command::new("/usr/bin/python3");
    let status = maker.args(["-m", "venv", "--without-pip"]).arg(private.join("venv")).status().unwrap();
    assert!(status.success(), "this test needs python3 with venv");
    std::fs::write(private.join("letter"), "dear diary").unwrap();
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut options = host.options();
    options.path = format!("{}:/usr/bin:/bin", private.join("venv/bin").display());
    let backend = ProcessBackend::open(options).await.unwrap();
    let mut kernel = Kernel::start(&host, &backend, "python").await;
    let seen =
        kernel.client.output("import sys, os; print(sys.prefix, os.listdir(os.path.dirname(sys.prefix)))");
    assert_eq!(seen, format!("{} ['venv']", private.join("venv").display()));
    assert_ne!(kernel.client.run("open(sys.prefix + '/x', 'w')").exit_code, 0, "it is read-only");
    kernel.end(&backend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_nobody_saw_is_found() {
    let host = Host::new();
    let first = host.backend().await;
    let kernel = Kernel::start(&host, &first, "shell").await;
    let record = kernel.record();
    drop(first);
    kill(Pid::from_raw(record.pid), Signal::SIGKILL).unwrap();
    while start_time(record.monitor_pid).is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = host.backend().await;
    let found = second.list().await.unwrap();
    assert_eq!(found[0].exit.as_ref().unwrap().code, Some(128 + 9));
    assert_eq!(
        second.start(&kernel.spec).await.unwrap().exit,
        found[0].exit,
        "an ended start is not repeated"
    );
    second.remove(kernel.spec.kernel).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_outlives_its_monitor() {
    let host = Host::new();
    let backend = host.backend().await;
    let mut kernel = Kernel::start(&host, &backend, "python").await;
    let record = kernel.record();
    kill(Pid::from_raw(record.monitor_pid), Signal::SIGKILL).unwrap();
    while start_time(record.monitor_pid).is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(kernel.client.output("print('still here')"), "still here");
    assert_eq!(backend.list().await.unwrap()[0].exit, None);
    backend.stop(kernel.spec.kernel, GRACE).await.unwrap();
    let exit = backend.list().await.unwrap()[0].exit.clone().unwrap();
    assert_eq!(exit.code, None, "nobody is left who knows it");
    backend.remove(kernel.spec.kernel).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_generation_takes_the_place_of_an_older_one() {
    let host = Host::new();
    let backend = host.backend().await;
    let old = Kernel::start(&host, &backend, "shell").await;
    let mut spec = old.spec.clone();
    spec.kernel.generation = 2;
    let started = backend.start(&spec).await.unwrap();
    assert!(!old.record().namespaces.eq(&bai_kernel_lib::sandbox::NamespaceIds::of(0).unwrap()));
    assert_eq!(backend.list().await.unwrap(), [started]);
    assert_eq!(backend.start(&old.spec).await.unwrap_err().kind(), ErrorKind::Conflict);
    backend.stop(spec.kernel, GRACE).await.unwrap();
    backend.remove(spec.kernel).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_given_up_leaves_what_list_shows() {
    let host = Host::new();
    let backend = host.backend().await;
    let spec = host.spec("shell");
    {
        let start = backend.start(&spec);
        // Polled once and dropped: the start itself goes on.
        let _ = futures_util::poll!(std::pin::pin!(start));
    }
    let started = backend.start(&spec).await.unwrap();
    assert_eq!(backend.list().await.unwrap(), [started]);
    backend.stop(spec.kernel, Duration::ZERO).await.unwrap();
    backend.remove(spec.kernel).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_nothing() {
    let host = Host::new();
    let backend = host.backend().await;
    let mut spec = host.spec("shell");
    spec.work_dir = host.dir.join("nowhere");
    let error = backend.start(&spec).await.unwrap_err();
    assert!(error.to_string().contains("/home/work"), "{error}");
    assert_eq!(backend.list().await.unwrap(), []);
    assert!(!spec.control_dir.join("sandbox.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_without_network_has_its_own_loopback_only() {
    let host = Host::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let code = format!(
        "import socket\n\
         own = socket.create_server(('127.0.0.1', 0))\n\
         print(socket.create_connection(own.getsockname()) is not None)\n\
         print(socket.socket().connect_ex(('127.0.0.1', {port})) == 0)"
    );
    for (network, expected) in [(Network::None, "True\nFalse"), (Network::Host, "True\nTrue")] {
        let backend = ProcessBackend::open(ProcessOptions { network, ..host.options() }).await.unwrap();
        let mut kernel = Kernel::start(&host, &backend, "python").await;
        assert_eq!(kernel.client.output(&code), expected, "{network:?}");
        let told = kernel.started.gaps.iter().any(|gap| gap.contains("network is the host's"));
        assert_eq!(told, network == Network::Host);
        kernel.end(&backend).await;
    }
}
