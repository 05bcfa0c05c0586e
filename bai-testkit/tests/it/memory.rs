//! The in-memory implementations pass every suite.

use bai_core::memory::{MemoryConfig, MemoryCounter, MemoryEvents, MemoryLease, MemoryStore};

macro_rules! on_memory {
    ($($suite:ident: $conformance:ident, $port:path, $new:expr;)*) => { $(
        mod $suite {
            use std::sync::Arc;

            use bai_testkit::Subject;

            use super::*;

            #[allow(clippy::unused_async, reason = "as the suites want it")]
            async fn fresh() -> Option<Subject<dyn $port>> {
                Some(Subject::new(Arc::new($new)))
            }
            bai_testkit::$conformance!(fresh);
        }
    )* };
}

on_memory! {
    session_store: session_store_conformance, bai_testkit::session_store::Rows, MemoryStore::new();
    identity_store: identity_store_conformance, bai_core::port::IdentityStore, MemoryStore::new();
    agent_store: agent_store_conformance, bai_core::port::AgentStore, MemoryStore::new();
    image_store: image_store_conformance, bai_core::port::ImageStore, MemoryStore::new();
    log_store: log_store_conformance, bai_core::port::LogStore, MemoryStore::new();
    config_store: config_store_conformance, bai_core::port::ConfigStore, MemoryConfig::new();
    events: events_conformance, bai_core::port::Events, MemoryEvents::with_capacity(100);
    lease: lease_conformance, bai_core::port::Lease, MemoryLease::new();
    counter: counter_conformance, bai_core::port::Counter, MemoryCounter::new();
}
