//! Background tasks and their end.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long tasks may take to finish what they are doing.
const GRACE: Duration = Duration::from_secs(5);

/// Owner of every task of a manager.
///
/// Workers are asked to end first; then sinks, which serve what the workers produce (commits, publications).
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    workers: TaskTracker,
    sinks: TaskTracker,
    stop: CancellationToken,
    drain: CancellationToken,
    abort: CancellationToken,
}

impl Tasks {
    /// Starts a worker. It ends soon after [`Tasks::stopped`], or is dropped at an await point.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&self.workers, work);
    }

    /// Starts a sink. It ends once it has served what is left after [`Tasks::draining`].
    pub(crate) fn spawn_sink(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&self.sinks, work);
    }

    fn spawn_on(&self, tracker: &TaskTracker, work: impl Future<Output = ()> + Send + 'static) {
        let abort = self.abort.clone();
        tracker.spawn(async move {
            abort.run_until_cancelled_owned(work).await;
        });
    }

    /// Ends when workers are asked to end.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Whether workers have been asked to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends when sinks are to finish.
    pub(crate) async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Asks all tasks to end, waits, and aborts what is left.
    pub(crate) async fn shutdown(&self) {
        let orderly = async {
            self.stop.cancel();
            self.workers.close();
            self.workers.wait().await;
            self.drain.cancel();
            self.sinks.close();
            self.sinks.wait().await;
        };
        if tokio::time::timeout(GRACE, orderly).await.is_err() {
            self.abort();
            self.workers.wait().await;
            self.sinks.wait().await;
        }
    }

    /// Drops all tasks at their next await point.
    pub(crate) fn abort(&self) {
        self.stop.cancel();
        self.drain.cancel();
        self.abort.cancel();
        self.workers.close();
        self.sinks.close();
    }
}
