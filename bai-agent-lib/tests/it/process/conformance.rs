//! The suite that every back end passes.

use std::sync::Arc;

use bai_core::port::KernelBackend;
use bai_testkit::Subject;
use bai_testkit::kernel_backend::BackendUnderTest;

use super::kernel::Host;

async fn fresh() -> Option<Subject<BackendUnderTest>> {
    let host = Arc::new(Host::new());
    let backend = Arc::new(host.backend().await);
    let images = backend.images().await.unwrap();
    let image = images.into_iter().find(|image| image.label("runtime-type") == Some("app")).unwrap().name;
    let shared = Arc::clone(&host);
    let under_test =
        BackendUnderTest { backend: Arc::clone(&backend) as _, spec: Box::new(move || shared.spec(&image)) };
    Some(Subject::new(Arc::new(under_test)).cleanup(async move {
        assert_eq!(backend.list().await.unwrap(), []);
        drop(host);
    }))
}

bai_testkit::kernel_backend_conformance!(fresh);
