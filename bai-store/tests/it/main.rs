//! The suites of the stores on SQLite and PostgreSQL, and what only databases can get wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::assigning_clones, clippy::print_stdout)]

#[cfg(feature = "sqlite")]
mod crash;
mod filters;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

/// Every suite, on what `$fresh` of each module sets up.
macro_rules! all_suites {
    ($open:path) => {
        crate::all_suites! { $open;
            session_store: session_store_conformance, bai_testkit::session_store::Rows;
            identity_store: identity_store_conformance, bai_core::port::IdentityStore;
            agent_store: agent_store_conformance, bai_core::port::AgentStore;
            image_store: image_store_conformance, bai_core::port::ImageStore;
            log_store: log_store_conformance, bai_core::port::LogStore;
            config_store: config_store_conformance, bai_core::port::ConfigStore;
        }
    };
    ($open:path; $($suite:ident: $conformance:ident, $port:path;)*) => { $(
        mod $suite {
            async fn fresh() -> Option<bai_testkit::Subject<dyn $port>> {
                let (store, cleanup) = $open().await?;
                Some(bai_testkit::Subject::<dyn $port>::new(std::sync::Arc::new(store)).cleanup(cleanup))
            }
            bai_testkit::$conformance!(fresh);
        }
    )* };
}
use all_suites;
