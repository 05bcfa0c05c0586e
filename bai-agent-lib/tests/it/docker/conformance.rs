//! The suite that every back end passes.

use std::sync::Arc;

use bai_testkit::Subject;
use bai_testkit::kernel_backend::BackendUnderTest;

use super::kernel::{BUSYBOX, Host};

async fn fresh() -> Option<Subject<BackendUnderTest>> {
    let host = Arc::new(Host::new()?);
    let backend = Arc::new(host.backend().await);
    let shared = Arc::clone(&host);
    let under_test = BackendUnderTest { backend, spec: Box::new(move || shared.spec(BUSYBOX)) };
    Some(Subject::new(Arc::new(under_test)).cleanup(async move {
        assert_eq!(host.containers().await, Vec::<String>::new());
    }))
}

bai_testkit::kernel_backend_conformance!(fresh);
