//! Notices when sandboxes end.

use std::collections::HashMap;
use std::io;

use bai_core::port::agent::KernelRef;
use bai_core::port::backend::ExitNotice;
use bai_core::session::KernelExit;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;

use super::found::Found;
use super::pidfd::ProcessFd;

/// Notices a slow reader may fall behind by; what it misses it finds by listing.
const BACKLOG: usize = 1024;

/// One waiting task for each running sandbox; dropping this ends them, not the sandboxes.
#[derive(Debug)]
pub(super) struct Watches {
    notices: broadcast::Sender<ExitNotice>,
    tasks: Mutex<HashMap<KernelRef, AbortOnDropHandle<()>>>,
}

impl Watches {
    pub(super) fn new() -> Self {
        Self { notices: broadcast::channel(BACKLOG).0, tasks: Mutex::default() }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<ExitNotice> {
        self.notices.subscribe()
    }

    /// Begins to wait for the end of a sandbox that runs, unless that is done already.
    pub(super) fn add(&self, found: &Found) {
        let mut tasks = self.tasks.lock();
        tasks.retain(|_, task| !task.is_finished());
        if tasks.contains_key(&found.kernel) || found.exit().is_some() {
            return;
        }
        let (found, notices) = (found.clone(), self.notices.clone());
        let kernel = found.kernel;
        let wait = async move {
            match ended(&found).await {
                // Nobody listening is fine: the end is found by listing.
                Ok(exit) => drop(notices.send(ExitNotice { kernel: found.kernel, exit })),
                Err(error) => tracing::warn!(kernel = %found.kernel.id, %error, "cannot watch a sandbox"),
            }
        };
        tasks.insert(kernel, AbortOnDropHandle::new(tokio::spawn(wait)));
    }
}

/// Waits until a sandbox and its monitor have ended, and says how.
///
/// # Errors
/// Those of opening the processes.
pub(super) async fn ended(found: &Found) -> io::Result<KernelExit> {
    let record = &found.record;
    for (pid, started) in [(record.pid, record.start_time), (record.monitor_pid, record.monitor_start_time)] {
        if let Some(process) = ProcessFd::open(pid, started)? {
            process.ended().await?;
        }
    }
    found.exit().ok_or_else(|| io::Error::other("the sandbox still runs"))
}
