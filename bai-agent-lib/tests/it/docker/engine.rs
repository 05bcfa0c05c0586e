//! An engine that breaks off, hangs or is away: a proxy in front of the real one plays it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bai_agent_lib::backend::docker::{DockerBackend, DockerOptions};
use bai_core::error::{ErrorKind, code};
use bai_core::port::KernelBackend;
use futures_util::StreamExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::kernel::{BUSYBOX, Host, Kernel};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Passes everything on.
    Open,
    /// Cuts all connections and refuses new ones.
    Closed,
    /// Accepts connections and says nothing.
    Hung,
}

#[derive(Debug)]
struct Proxy {
    mode: Arc<watch::Sender<Mode>>,
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Proxy {
    fn new(host: &Host) -> Self {
        let path = host.dir.join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mode = Arc::new(watch::Sender::new(Mode::Open));
        let (shared, engine) = (Arc::clone(&mode), host.engine.trim_start_matches("unix://").to_owned());
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(pass(client, engine.clone(), shared.subscribe()));
            }
        });
        Self { mode, path, task }
    }

    fn options(&self, host: &Host) -> DockerOptions {
        DockerOptions::new(format!("unix://{}", self.path.display()), &*host.agent)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: UnixStream, engine: String, mut mode: watch::Receiver<Mode>) {
    let now = *mode.borrow();
    match now {
        Mode::Closed => return,
        Mode::Hung => return std::future::pending().await,
        Mode::Open => {}
    }
    let mut server = UnixStream::connect(engine).await.unwrap();
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = mode.wait_for(|mode| *mode != Mode::Open) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_during_an_outage_is_told_afterwards() {
    let Some(host) = Host::new() else { return };
    let proxy = Proxy::new(&host);
    let backend = DockerBackend::connect(proxy.options(&host)).await.unwrap();
    let direct = host.backend().await;
    let kernel = Kernel::start(&host, &direct, BUSYBOX).await;
    let last = Kernel::start(&host, &direct, BUSYBOX).await;
    let mut exits = backend.exits().await.unwrap();
    // Polled once, so that the subscription is open when it is cut.
    assert!(tokio::time::timeout(Duration::from_millis(200), exits.next()).await.is_err());

    proxy.mode.send_replace(Mode::Closed);
    direct.stop(kernel.reference(), Duration::from_secs(5)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(500), exits.next()).await.is_err());
    let error = backend.list().await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, code::BACKEND_FAILED));

    proxy.mode.send_replace(Mode::Open);
    let notice = tokio::time::timeout(Duration::from_secs(20), exits.next()).await.unwrap().unwrap();
    assert_eq!((notice.kernel, notice.exit.code), (kernel.reference(), Some(0)));
    direct.stop(last.reference(), Duration::from_secs(5)).await.unwrap();
    let notice = tokio::time::timeout(Duration::from_secs(20), exits.next()).await.unwrap().unwrap();
    assert_eq!(notice.kernel, last.reference(), "the new subscription works, and nothing is told twice");
    for kernel in [kernel, last] {
        direct.remove(kernel.reference()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_engine_delays_nobody_for_long() {
    let Some(host) = Host::new() else { return };
    let proxy = Proxy::new(&host);
    let mut options = proxy.options(&host);
    options.call_timeout = Duration::from_secs(2);
    let backend = DockerBackend::connect(options).await.unwrap();
    proxy.mode.send_replace(Mode::Hung);
    assert_eq!(backend.list().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(backend.images().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(backend.start(&host.spec(BUSYBOX)).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(backend.exits().await.is_err());
    proxy.mode.send_replace(Mode::Open);
    assert_eq!(backend.list().await.unwrap(), []);
}
