//! What the agent tells the managers.

use std::sync::Arc;
use std::time::Duration;

use bai_core::image::Image;
use bai_core::port::agent::{AgentReport, KernelRef, KernelReport, ReportReply};
use bai_core::slots::SlotType;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::Node;

/// Changes that come closer together than this go into one report.
const COALESCE: Duration = Duration::from_millis(2);
/// Longest time a manager may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause after a report that nobody took.
const RETRY_MILLIS: (u64, u64) = (100, 5_000);
/// How long a kernel must be unknown before it is ended.
const UNKNOWN_GRACE: Duration = Duration::from_mins(1);

impl Node {
    /// Reports for ever, to any of the managers and mostly to the same.
    pub async fn run(self: Arc<Self>) {
        let mut favourite = None;
        loop {
            if !self.is_up() {
                self.changed.notified().await;
                continue;
            }
            let names = self.around.managers.names();
            if favourite.is_none() || self.chance.permille(50) {
                favourite = self.chance.pick(&names).cloned();
            }
            let Some(manager) = &favourite else {
                sleep(Duration::from_secs(1)).await;
                continue;
            };
            if self.report_to(manager).await {
                let heartbeat = self.state.lock().options.heartbeat;
                _ = timeout(heartbeat, self.changed.notified()).await;
                sleep(COALESCE).await;
            } else {
                favourite = None;
                sleep(self.chance.millis(RETRY_MILLIS.0, RETRY_MILLIS.1)).await;
            }
        }
    }

    /// Whether the manager took the report.
    async fn report_to(self: &Arc<Self>, manager: &str) -> bool {
        let report = self.next_report();
        let (incarnation, with_images) = (report.incarnation, report.images.is_some());
        let (managers, name) = (self.around.managers.clone(), Arc::<str>::from(manager));
        let deliver = move || {
            let (managers, name, report) = (managers.clone(), name.clone(), report.clone());
            async move { managers.report(&name, report).await }
        };
        let reply = timeout(DEADLINE, self.around.network.carry(self.id.as_str(), manager, deliver)).await;
        let Ok(Ok(reply)) = reply else { return false };
        if self.state.lock().incarnation == incarnation && self.is_up() {
            self.hear(reply, with_images);
        }
        true
    }

    fn next_report(&self) -> AgentReport {
        let mut state = self.state.lock();
        state.seq += 1;
        let kernels = state.kernels.values().map(|kernel| KernelReport {
            kernel: kernel.spec.kernel,
            session: kernel.spec.session,
            stage: kernel.stage.clone(),
            batch: kernel.batch.clone(),
            stats: None,
            unused_ms: None,
        });
        AgentReport {
            agent: self.id.clone(),
            incarnation: state.incarnation,
            seq: state.seq,
            addr: String::new(),
            public_host: self.id.to_string(),
            region: "simulated".into(),
            resource_group: self.group.clone(),
            capacity: self.capacity.clone(),
            slot_types: [("cpu", SlotType::Count), ("mem", SlotType::Bytes)].into_iter().collect(),
            architecture: "x86_64".into(),
            version: "1".into(),
            compute_plugins: json!({}),
            live_stat: json!({}),
            isolation_gaps: Vec::new(),
            images: state.images_unsent.then(|| vec![image()]),
            kernels: kernels.collect(),
            leaving: false,
        }
    }

    fn hear(self: &Arc<Self>, reply: ReportReply, with_images: bool) {
        let now = Instant::now();
        let overdue: Vec<KernelRef> = {
            let mut state = self.state.lock();
            if reply.send_images {
                state.images_unsent = true;
                self.changed.notify_one();
            } else if with_images {
                state.images_unsent = false;
            }
            state.unknown.retain(|kernel, _| reply.unknown.contains(kernel));
            let since =
                reply.unknown.into_iter().map(|kernel| (kernel, *state.unknown.entry(kernel).or_insert(now)));
            since.filter(|(_, first)| now - *first >= UNKNOWN_GRACE).map(|(kernel, _)| kernel).collect()
        };
        for kernel in overdue {
            self.put_away(kernel);
        }
    }
}

fn image() -> Image {
    Image {
        name: "python:3.11".into(),
        architecture: "x86_64".into(),
        digest: String::new(),
        size: 0,
        labels: [("ai.backend.resource.min.cpu", "1"), ("ai.backend.resource.min.mem", "64m")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        aliases: vec!["python".into()],
    }
}
