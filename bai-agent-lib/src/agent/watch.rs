//! Watching back end, images and load.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bai_core::port::agent::KernelRef;
use bai_core::port::backend::{ExitNotice, Started};
use bai_core::session::KernelExit;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::core::{Core, Found};
use crate::kernel::Kernel;
use crate::state::Phase;
use crate::stats::{NodeSeries, Sample};

/// Pause before a broken stream of exits is opened again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

impl Core {
    /// Starts all tasks.
    pub(super) async fn start(self: &Arc<Self>, found: Found) {
        self.scan_images().await;
        self.spawn(Arc::clone(self).watch_exits(found.exits));
        self.resume(found.started);
        self.spawn(Arc::clone(self).sync_loop());
        self.spawn(Arc::clone(self).image_loop());
        self.spawn(Arc::clone(self).stats_loop());
        self.spawn(Arc::clone(self).report_loop());
    }

    async fn watch_exits(self: Arc<Self>, mut exits: BoxStream<'static, ExitNotice>) {
        loop {
            while let Some(notice) = exits.next().await {
                if let Ok(kernel) = self.kernel(notice.kernel) {
                    kernel.exited(notice.exit);
                }
            }
            loop {
                tokio::time::sleep(REOPEN_PAUSE).await;
                match self.backend.exits().await {
                    Ok(stream) => break exits = stream,
                    Err(error) => tracing::warn!(%error, "the back end's exits cannot be watched"),
                }
            }
            // What ended in between is found by comparing.
            self.sync().await;
        }
    }

    async fn sync_loop(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.options.sync_interval).await;
            self.sync().await;
        }
    }

    /// Finds ends whose notice was lost.
    async fn sync(&self) {
        // Only what had started before the list was made can be missing from it.
        let before = self.started_kernels();
        let listed = match self.backend.list().await {
            Ok(listed) => listed,
            Err(error) => return tracing::warn!(%error, "the back end cannot be compared with"),
        };
        let listed: HashMap<KernelRef, Started> =
            listed.into_iter().map(|started| (started.kernel, started)).collect();
        for kernel in before {
            let gone = || KernelExit { code: None, reason: "self-terminated".into(), oom: false };
            let exit =
                listed.get(&kernel.kernel).map_or_else(|| Some(gone()), |started| started.exit.clone());
            if let Some(exit) = exit {
                kernel.exited(exit);
            }
        }
    }

    fn started_kernels(&self) -> Vec<Arc<Kernel>> {
        let kernels = self.kernels.lock();
        let started =
            |kernel: &&Arc<Kernel>| kernel.live(|live| live.started.is_some()) && !kernel.phase().is_over();
        kernels.values().filter(started).cloned().collect()
    }

    async fn image_loop(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.options.image_interval).await;
            self.scan_images().await;
        }
    }

    async fn scan_images(&self) {
        let mut list = match self.backend.images().await {
            Ok(list) => list,
            Err(error) => return tracing::warn!(%error, "images cannot be listed"),
        };
        list.sort_by(|a, b| a.name.cmp(&b.name));
        let mut images = self.images.lock();
        if images.list != list || images.version == 0 {
            images.list = list;
            images.version += 1;
            images.unsent = true;
            self.dirty.notify_one();
        }
    }

    async fn stats_loop(self: Arc<Self>) {
        let mut node = NodeSeries::default();
        loop {
            *self.node_stat.lock() = node.measure(&self.options.data_dir, self.clock.now());
            for kernel in self.started_kernels() {
                if kernel.phase() == Phase::Running {
                    self.measure(&kernel, false).await;
                }
            }
            tokio::time::sleep(self.options.stats_interval).await;
        }
    }

    /// Measures a kernel; with `ended` it is known that nothing of it runs any more. One whose counters have gone keeps its last
    /// statistics.
    pub(super) async fn measure(&self, kernel: &Kernel, ended: bool) {
        let mut series = kernel.series.lock().await;
        let Ok(stats) = self.backend.stats(kernel.kernel).await else { return };
        let sample = Sample::from_stats(&stats);
        let now = self.clock.now();
        let shown = if ended { series.close(sample, now) } else { series.fold(&sample, now) };
        let killed = kernel.live(|live| {
            live.stats = Some(shown);
            std::mem::replace(&mut live.oom_kills, sample.oom_kills) != sample.oom_kills
        });
        if killed {
            self.dirty.notify_one();
        }
    }
}
