//! The in-memory implementations pass every suite.

macro_rules! on_memory_store {
    ($($suite:ident: $conformance:ident, $port:path;)*) => { $(
        mod $suite {
            use std::sync::Arc;

            use bai_core::memory::MemoryStore;
            use bai_testkit::Subject;

            #[allow(clippy::unused_async, reason = "as the suites want it")]
            async fn fresh() -> Option<Subject<dyn $port>> {
                Some(Subject::new(Arc::new(MemoryStore::new())))
            }
            bai_testkit::$conformance!(fresh);
        }
    )* };
}

on_memory_store! {
    session_store: session_store_conformance, bai_testkit::session_store::Rows;
    identity_store: identity_store_conformance, bai_core::port::IdentityStore;
    agent_store: agent_store_conformance, bai_core::port::AgentStore;
    image_store: image_store_conformance, bai_core::port::ImageStore;
    log_store: log_store_conformance, bai_core::port::LogStore;
}
