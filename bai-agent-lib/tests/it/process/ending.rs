//! How kernels end on real sandboxes, and what is kept of them: grace time, exit codes, statistics, the memory limit.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bai_agent_lib::Agent;
use bai_core::execution::ExecuteMode;
use bai_core::port::agent::{KernelRef, KernelReport, KernelStage};
use bai_core::session::KernelExit;
use bai_kernel_lib::sandbox::NamespaceIds;
use bai_testkit::agent_api::{AgentUnderTest, request, text_of};

use super::agent::{start, under_test};
use super::kernel::Host;

struct Node {
    subject: AgentUnderTest,
    agent: Arc<Agent>,
    _host: Host,
}

async fn node() -> Node {
    let (host, manager) = (Host::new(), Arc::default());
    let agent = start(&host, &manager).await;
    Node { subject: under_test(&agent, &manager).await, agent, _host: host }
}

impl Node {
    /// Ends a kernel: the last report of it, how it ended, and after what time.
    async fn end(&self, kernel: KernelRef, reason: &str) -> (KernelReport, KernelExit, Duration) {
        let before = Instant::now();
        self.subject.api.destroy_kernel(kernel, reason).await.unwrap();
        let report = self.subject.report(kernel, |kernel| kernel.stage.is_over()).await;
        let KernelStage::Exited(exit) = &report.stage else { panic!("{report:?}") };
        let exit = exit.clone();
        (report, exit, before.elapsed())
    }

    /// Starts a query and waits until it has said `go`.
    async fn begin(&self, kernel: KernelRef, code: &str) {
        let mut said = String::new();
        let mut reply = self.subject.call(kernel, request(ExecuteMode::Query, Some("run"), code)).await;
        loop {
            said += &text_of(&reply, "stdout");
            if said.ends_with("go\n") {
                return;
            }
            reply = self.subject.call(kernel, request(ExecuteMode::Continue, Some("run"), "")).await;
        }
    }
}

trait Over {
    fn is_over(&self) -> bool;
}

impl Over for KernelStage {
    fn is_over(&self) -> bool {
        matches!(self, Self::Exited(_) | Self::Failed { .. })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_with_nothing_to_do_ends_at_once() {
    let node = node().await;
    let mut times = Vec::new();
    for _ in 0..7 {
        let kernel = node.subject.kernel().await;
        node.subject.query(kernel, "1 + 1").await;
        let (_, exit, time) = node.end(kernel, "user-requested").await;
        assert_eq!((exit.code, exit.reason.as_str()), (Some(0), "user-requested"));
        times.push(time);
    }
    times.sort();
    eprintln!("destroy to Exited: {times:?}");
    // The machine may be busy; waiting for anything that does not come takes longer than this each time.
    assert!(times[0] < Duration::from_millis(400), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_get_their_grace_time_the_left_over_ones_too() {
    let node = node().await;
    let kernel = node.subject.kernel().await;
    node.begin(
        kernel,
        r#"
import os, signal, subprocess, time
leave = 'trap "sleep 0.1; echo bye > left-over; exit" TERM; touch ready; while :; do sleep 0.01; done'
subprocess.run(['sh', '-c', 'setsid sh -c "$0" > /dev/null 2>&1 &', leave])
def end(signum, frame):
    time.sleep(0.1)
    open('program', 'w').write('bye\n')
    os._exit(0)
signal.signal(signal.SIGTERM, end)
while not os.path.exists('ready'): time.sleep(0.01)
print('go')
while True: time.sleep(1)"#,
    )
    .await;
    node.end(kernel, "user-requested").await;
    for file in ["program", "left-over"] {
        assert_eq!(node.subject.api.download_single(kernel, file).await.unwrap(), b"bye\n", "{file}");
    }
}

/// Ignores what asks it to end.
const STUBBORN: &str = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('go')\n\
    while True: time.sleep(1)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_ignores_the_request_is_killed_after_its_grace_time() {
    let node = node().await;
    let kernel = node.subject.kernel().await;
    node.begin(kernel, STUBBORN).await;
    let (_, exit, time) = node.end(kernel, "user-requested").await;
    assert!(time >= super::agent::GRACE, "{time:?}");
    // The runner itself was left the time to put everything in order.
    assert_eq!((exit.code, exit.oom), (Some(0), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_end_gives_no_time() {
    let node = node().await;
    let kernel = node.subject.kernel().await;
    node.begin(kernel, STUBBORN).await;
    let (_, exit, _) = node.end(kernel, "force-terminated").await;
    assert_eq!((exit.code, exit.oom, exit.reason.as_str()), (Some(137), false, "force-terminated"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_life_has_statistics() {
    let node = node().await;
    let kernel = node.subject.kernel().await;
    let (report, ..) = node.end(kernel, "user-requested").await;
    let stats = report.stats.expect("statistics of a kernel that was ended at once");
    let number = |metric: &str| stats[metric]["current"].as_str().unwrap().parse::<f64>().unwrap();
    assert!(number("cpu_used") > 0.0, "{stats:?}");
    assert!(number("mem") > 0.0, "{stats:?}");
    for metric in ["cpu_util", "io_read", "io_write", "io_scratch_size", "net_rx", "net_tx"] {
        assert!(stats.contains_key(metric), "{metric}: {stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_until_the_end_is_in_the_last_statistics() {
    let node = node().await;
    let mut spec = node.subject.spec();
    spec.session_type = "batch".into();
    spec.startup_command = Some("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done".into());
    let kernel = node.subject.run(spec).await;
    node.subject.api.start_batch(kernel).await.unwrap();
    let report = node.subject.report(kernel, |kernel| kernel.batch.is_some()).await;
    let used = |report: &KernelReport| {
        let stats = report.stats.as_ref().expect("statistics with the result");
        stats["cpu_used"]["current"].as_str().unwrap().parse::<f64>().unwrap()
    };
    let with_result = used(&report);
    assert!(with_result > 50.0, "the loop has taken {with_result} ms");
    let (last, ..) = node.end(kernel, "task-finished").await;
    assert!(used(&last) >= with_result);
}

/// Takes all memory, if it is shown to be in other namespaces than this test and under a limit. `{}` is our pid namespace.
const HOG: &str = r"
import os, re, sys
def limit(path):
    try: return int(open('/sys/fs/cgroup/' + path).read())
    except (OSError, ValueError): return 1 << 62
namespace = int(re.search(r'\d+', os.readlink('/proc/self/ns/pid')).group())
if namespace == {} or min(map(limit, ['memory/memory.limit_in_bytes', 'memory.max'])) > 1 << 30:
    print('not isolated'); sys.exit(99)
hog = []
while True: hog.append(bytearray(8 << 20))";

fn hog() -> String {
    HOG.replace("{}", &NamespaceIds::of(0).unwrap().pid.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_by_the_memory_limit_is_no_reason_for_a_later_end() {
    let node = node().await;
    let kernel = node.subject.kernel().await;
    let reply = node.subject.query(kernel, &hog()).await;
    assert_eq!(reply.exit_code, Some(137), "{reply:?}");
    assert_eq!(text_of(&node.subject.query(kernel, "print('alive')").await, "stdout"), "alive\n");
    let (_, exit, _) = node.end(kernel, "user-requested").await;
    assert_eq!((exit.oom, exit.reason.as_str()), (false, "user-requested"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_startup_command_that_the_memory_limit_has_killed_says_so() {
    let node = node().await;
    let mut spec = node.subject.spec();
    spec.session_type = "batch".into();
    spec.startup_command = Some("python3 hog.py".into());
    let kernel = node.subject.run(spec).await;
    let file = bai_core::execution::UploadFile { path: "hog.py".into(), content: hog().into_bytes() };
    node.subject.api.upload(kernel, vec![file]).await.unwrap();
    node.subject.api.start_batch(kernel).await.unwrap();
    let report = node.subject.report(kernel, |kernel| kernel.batch.is_some()).await;
    let outcome = report.batch.unwrap();
    let log = node.subject.api.logs(kernel).await.unwrap();
    assert_eq!(
        (outcome.exit_code, outcome.reason.as_str()),
        (137, "out-of-memory"),
        "{}",
        String::from_utf8_lossy(&log)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_twice_and_after_a_crash_of_the_agent_loses_no_time() {
    let node = node().await;
    let kernel = node.subject.kernel().await;
    node.begin(kernel, STUBBORN).await;
    node.subject.api.destroy_kernel(kernel, "user-requested").await.unwrap();
    node.subject.api.destroy_kernel(kernel, "user-requested").await.unwrap();
    let Node { subject, agent, _host: host } = node;
    subject.report(kernel, |kernel| matches!(kernel.stage, KernelStage::Terminating)).await;
    drop((subject, agent));

    let manager = Arc::default();
    let agent = start(&host, &manager).await;
    let subject = under_test(&agent, &manager).await;
    let report = subject.report(kernel, |kernel| kernel.stage.is_over()).await;
    let KernelStage::Exited(exit) = report.stage else { panic!("{report:?}") };
    assert_eq!((exit.reason.as_str(), exit.oom), ("user-requested", false));
    subject.api.forget(kernel).await.unwrap();
    assert!(fs::read_dir(host.dir.join("scratch")).unwrap().next().is_none());
}
