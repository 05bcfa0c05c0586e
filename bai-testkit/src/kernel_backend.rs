//! The suite of [`KernelBackend`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bai_core::KernelId;
use bai_core::port::KernelBackend;
use bai_core::port::agent::KernelRef;
use bai_core::port::backend::{StartSpec, Started};
use futures_util::StreamExt;

/// One test for each case, on what `$fresh` sets up: `async fn() -> Option<Subject<BackendUnderTest>>`.
#[macro_export]
macro_rules! kernel_backend_conformance {
    ($fresh:path) => {
        $crate::conformance_tests!(
            kernel_backend,
            $fresh,
            [
                the_kind_is_named,
                images_have_labels_and_can_be_prepared,
                starting_again_returns_what_runs,
                generations_are_different_things,
                a_stopped_kernel_has_ended_and_stays_listed,
                ends_are_noticed,
                what_has_ended_is_removed_for_good,
                unknown_kernels_are_stopped_and_removed_without_complaint,
                a_running_kernel_has_statistics,
                a_dropped_start_leaves_nothing_hidden,
            ]
        );
    };
}

/// A back end and how to prepare a start with everything on the host in place.
pub struct BackendUnderTest {
    pub backend: Arc<dyn KernelBackend>,
    pub spec: Box<dyn Fn() -> StartSpec + Send + Sync>,
}

impl fmt::Debug for BackendUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendUnderTest").field("backend", &self.backend).finish_non_exhaustive()
    }
}

const LONG: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(2);

impl BackendUnderTest {
    async fn start(&self) -> (StartSpec, Started) {
        let spec = (self.spec)();
        self.backend.prepare(&spec.image).await.unwrap();
        let started = self.backend.start(&spec).await.unwrap();
        (spec, started)
    }

    async fn listed(&self, kernel: KernelRef) -> Option<Started> {
        self.backend.list().await.unwrap().into_iter().find(|started| started.kernel == kernel)
    }

    async fn end(&self, kernel: KernelRef) {
        self.backend.stop(kernel, GRACE).await.unwrap();
        self.backend.remove(kernel).await.unwrap();
    }
}

pub async fn the_kind_is_named(subject: Arc<BackendUnderTest>) {
    assert!(!subject.backend.capability().kind.is_empty());
}

pub async fn images_have_labels_and_can_be_prepared(subject: Arc<BackendUnderTest>) {
    let images = subject.backend.images().await.unwrap();
    let wanted = (subject.spec)().image;
    let image = images.iter().find(|image| image.name == wanted).unwrap();
    assert!(!image.architecture.is_empty() && image.label("runtime-type").is_some());
    subject.backend.prepare(&image.name).await.unwrap();
    assert!(subject.backend.prepare("no-such-image:0").await.is_err());
}

pub async fn starting_again_returns_what_runs(subject: Arc<BackendUnderTest>) {
    let (spec, started) = subject.start().await;
    assert_eq!((started.kernel, started.session, &started.exit), (spec.kernel, spec.session, &None));
    let again = subject.backend.start(&spec).await.unwrap();
    assert_eq!(
        (again.container_id, again.endpoint),
        (started.container_id.clone(), started.endpoint.clone())
    );
    let listed = subject.listed(spec.kernel).await.unwrap();
    assert_eq!((listed.container_id, listed.endpoint), (started.container_id, started.endpoint));
    assert_eq!((listed.session, listed.exit), (spec.session, None));
    subject.end(spec.kernel).await;
}

pub async fn generations_are_different_things(subject: Arc<BackendUnderTest>) {
    let (mut spec, first) = subject.start().await;
    let old = spec.kernel;
    subject.backend.stop(old, GRACE).await.unwrap();
    spec.kernel.generation += 1;
    let second = subject.backend.start(&spec).await.unwrap();
    assert_ne!(first.container_id, second.container_id);
    subject.end(old).await;
    assert!(subject.listed(spec.kernel).await.unwrap().exit.is_none());
    subject.end(spec.kernel).await;
}

pub async fn a_stopped_kernel_has_ended_and_stays_listed(subject: Arc<BackendUnderTest>) {
    let (spec, _) = subject.start().await;
    tokio::time::timeout(LONG, subject.backend.stop(spec.kernel, GRACE)).await.unwrap().unwrap();
    subject.backend.stop(spec.kernel, GRACE).await.unwrap();
    let exit = subject.listed(spec.kernel).await.unwrap().exit.unwrap();
    assert!(!exit.reason.is_empty() && !exit.oom);
    subject.end(spec.kernel).await;
}

pub async fn ends_are_noticed(subject: Arc<BackendUnderTest>) {
    let mut exits = subject.backend.exits().await.unwrap();
    let (spec, _) = subject.start().await;
    subject.backend.stop(spec.kernel, GRACE).await.unwrap();
    let notice = tokio::time::timeout(LONG, async {
        loop {
            let notice = exits.next().await.unwrap();
            if notice.kernel == spec.kernel {
                return notice;
            }
        }
    });
    let notice = notice.await.unwrap();
    assert_eq!(subject.listed(spec.kernel).await.unwrap().exit.unwrap().code, notice.exit.code);
    subject.end(spec.kernel).await;
}

pub async fn what_has_ended_is_removed_for_good(subject: Arc<BackendUnderTest>) {
    let (spec, _) = subject.start().await;
    subject.end(spec.kernel).await;
    subject.backend.remove(spec.kernel).await.unwrap();
    assert_eq!(subject.listed(spec.kernel).await, None);
    assert!(subject.backend.stats(spec.kernel).await.is_err());
}

pub async fn unknown_kernels_are_stopped_and_removed_without_complaint(subject: Arc<BackendUnderTest>) {
    let unknown = KernelRef { id: KernelId::random(), generation: 1 };
    subject.end(unknown).await;
    assert!(subject.backend.stats(unknown).await.is_err());
}

pub async fn a_running_kernel_has_statistics(subject: Arc<BackendUnderTest>) {
    let (spec, _) = subject.start().await;
    let stats = subject.backend.stats(spec.kernel).await.unwrap();
    for metric in ["cpu_used", "mem", "io_read", "io_write", "net_rx", "net_tx"] {
        let current = stats[metric]["current"].as_str().unwrap();
        assert!(current.parse::<f64>().unwrap() >= 0.0, "{metric}: {current}");
    }
    subject.end(spec.kernel).await;
}

pub async fn a_dropped_start_leaves_nothing_hidden(subject: Arc<BackendUnderTest>) {
    let spec = (subject.spec)();
    subject.backend.prepare(&spec.image).await.unwrap();
    // Dropped at the first point where it waits, if it does.
    let start = subject.backend.start(&spec);
    let _ = tokio::time::timeout(Duration::ZERO, start).await;
    subject.end(spec.kernel).await;
    assert_eq!(subject.listed(spec.kernel).await, None);
}
