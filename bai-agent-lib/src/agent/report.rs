//! Telling the manager what there is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::{Error, Result, code};
use bai_core::port::agent::{AgentReport, KernelRef, ReportReply};
use tokio::time::Instant;

use super::core::Core;

/// Changes that come closer together than this go into one report.
const COALESCE: Duration = Duration::from_millis(1);
/// With many kernels a report takes longer; reporting then gets at most a third of the time, with pauses up to this.
const LONGEST_COALESCE: Duration = Duration::from_millis(250);
/// Longest time the manager may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest time a last report may take.
const FAREWELL: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

impl Core {
    /// Reports on every change and at intervals, for ever.
    pub(super) async fn report_loop(self: Arc<Self>) {
        let mut unknown = HashMap::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            match self.report(false, DEADLINE).await {
                Ok(reply) => {
                    pause = FIRST_PAUSE;
                    let rest = (begun.elapsed() * 2).clamp(COALESCE, LONGEST_COALESCE);
                    self.handle_unknown(&mut unknown, reply.unknown);
                    let _ = tokio::time::timeout(self.next_report(&unknown), self.dirty.notified()).await;
                    tokio::time::sleep(rest).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "the manager did not take the report");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE).min(self.options.report_interval);
                }
            }
        }
    }

    /// Says good-bye, if the manager can be reached.
    pub(super) async fn leave(&self) {
        if let Err(error) = self.report(true, FAREWELL).await {
            tracing::debug!(%error, "the manager was not told that the agent leaves");
        }
    }

    async fn report(&self, leaving: bool, deadline: Duration) -> Result<ReportReply> {
        let (report, images) = self.build_report(leaving);
        let late = |_| Error::of(code::TIMEOUT, "the manager does not answer");
        let reply = tokio::time::timeout(deadline, self.manager.report(report)).await.map_err(late)??;
        let mut seen = self.images.lock();
        if reply.send_images {
            seen.unsent = true;
            self.dirty.notify_one();
        } else if images == Some(seen.version) {
            seen.unsent = false;
        }
        drop(seen);
        Ok(reply)
    }

    /// The report, and the version of the images in it.
    fn build_report(&self, leaving: bool) -> (AgentReport, Option<u64>) {
        let kernels: Vec<_> = self.kernels.lock().values().cloned().collect();
        let (images, version) = {
            let seen = self.images.lock();
            if seen.unsent { (Some(seen.list.clone()), Some(seen.version)) } else { (None, None) }
        };
        let seq = {
            let mut seq = self.seq.lock();
            *seq += 1;
            *seq
        };
        let options = &self.options;
        let report = AgentReport {
            agent: options.id.clone(),
            incarnation: self.incarnation,
            seq,
            addr: options.addr.clone(),
            public_host: options.public_host.clone(),
            region: options.region.clone(),
            resource_group: options.resource_group.clone(),
            capacity: self.plugins.capacity(),
            slot_types: self.plugins.slot_types(),
            architecture: std::env::consts::ARCH.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            compute_plugins: self.plugins.describe(),
            live_stat: self.node_stat.lock().clone(),
            isolation_gaps: self.capability.gaps.clone(),
            images,
            kernels: kernels.iter().map(|kernel| kernel.report(&options.public_host)).collect(),
            leaving,
        };
        (report, version)
    }

    /// Ends kernels that the manager has not known for long enough, and forgets them once they have ended.
    fn handle_unknown(self: &Arc<Self>, since: &mut HashMap<KernelRef, Instant>, unknown: Vec<KernelRef>) {
        since.retain(|kernel, _| unknown.contains(kernel));
        for kernel in unknown {
            let first = *since.entry(kernel).or_insert_with(Instant::now);
            if first.elapsed() < self.options.unknown_grace {
                continue;
            }
            let Ok(found) = self.kernel(kernel) else { continue };
            if !found.signals.borrow().over {
                tracing::warn!(kernel = %kernel.id, "ending a kernel that the manager does not know");
                found.stop("not-found-in-manager");
                continue;
            }
            let core = Arc::clone(self);
            self.spawn(async move {
                if let Err(error) = core.forget(kernel).await {
                    tracing::warn!(kernel = %kernel.id, %error, "an unknown kernel cannot be removed");
                }
            });
        }
    }

    /// When to report again if nothing changes: sooner when the grace of an unknown kernel ends.
    fn next_report(&self, unknown: &HashMap<KernelRef, Instant>) -> Duration {
        let ends = unknown.values().map(|first| self.options.unknown_grace.saturating_sub(first.elapsed()));
        let soonest = ends.map(|left| left.max(Duration::from_millis(10))).min();
        soonest.map_or(self.options.report_interval, |left| left.min(self.options.report_interval))
    }
}
