use async_trait::async_trait;
use bai_core::error::{Error, ErrorKind, Result};
use bai_core::image::Image;
use bai_core::port::ManagerApi;
use bai_core::port::agent::{AgentReport, KernelRef, KernelReport, ReportReply};
use tokio::sync::watch;

/// A manager that keeps the last report and answers what it is told to.
#[derive(Debug)]
pub struct FakeManager {
    last: watch::Sender<Option<AgentReport>>,
    images: watch::Sender<Option<Vec<Image>>>,
    answer: watch::Sender<Answer>,
}

#[derive(Debug, Clone, Default)]
struct Answer {
    reply: ReportReply,
    down: bool,
}

impl Default for FakeManager {
    fn default() -> Self {
        Self {
            last: watch::Sender::new(None),
            images: watch::Sender::new(None),
            answer: watch::Sender::default(),
        }
    }
}

impl FakeManager {
    /// The last report taken.
    pub fn last(&self) -> Option<AgentReport> {
        self.last.borrow().clone()
    }

    /// The images last reported, which is seldom done.
    pub async fn images(&self) -> Vec<Image> {
        let mut images = self.images.subscribe();
        images.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    /// What the last report says of a kernel.
    pub fn last_of(&self, kernel: KernelRef) -> Option<KernelReport> {
        self.last()?.kernels.into_iter().find(|report| report.kernel == kernel)
    }

    /// Kernels it claims not to know.
    pub fn set_unknown(&self, unknown: Vec<KernelRef>) {
        self.answer.send_modify(|answer| answer.reply.unknown = unknown);
    }

    /// Whether it takes reports.
    pub fn set_down(&self, down: bool) {
        self.answer.send_modify(|answer| answer.down = down);
    }

    /// Asks for images with every report.
    pub fn ask_for_images(&self, send_images: bool) {
        self.answer.send_modify(|answer| answer.reply.send_images = send_images);
    }

    /// Waits for a report as wanted.
    pub async fn report(&self, wanted: impl Fn(&AgentReport) -> bool) -> AgentReport {
        let mut last = self.last.subscribe();
        let report = last.wait_for(|last| last.as_ref().is_some_and(&wanted)).await.unwrap();
        report.clone().unwrap()
    }

    /// Waits for a report that has the kernel as wanted.
    pub async fn kernel(&self, kernel: KernelRef, wanted: impl Fn(&KernelReport) -> bool) -> KernelReport {
        let of = |report: &AgentReport| {
            report.kernels.iter().find(|found| found.kernel == kernel && wanted(found)).cloned()
        };
        of(&self.report(|report| of(report).is_some()).await).unwrap()
    }
}

#[async_trait]
impl ManagerApi for FakeManager {
    async fn report(&self, report: AgentReport) -> Result<ReportReply> {
        let answer = self.answer.borrow().clone();
        if answer.down {
            return Err(Error::new(ErrorKind::Unavailable, "the manager is down"));
        }
        if let Some(images) = &report.images {
            self.images.send_replace(Some(images.clone()));
        }
        self.last.send_modify(|last| {
            let newer = last
                .as_ref()
                .is_none_or(|last| (last.incarnation, last.seq) < (report.incarnation, report.seq));
            if newer {
                *last = Some(report);
            }
        });
        Ok(answer.reply)
    }
}
