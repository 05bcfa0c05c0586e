//! What a suite is run on.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

type Cleanup = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An implementation under test, and how to remove what it leaves in a shared service.
pub struct Subject<T: ?Sized> {
    pub port: Arc<T>,
    cleanup: Option<Cleanup>,
}

impl<T: ?Sized> Subject<T> {
    pub fn new(port: Arc<T>) -> Self {
        Self { port, cleanup: None }
    }

    /// `cleanup` runs after a case that passed; what a failed one leaves can be looked at.
    #[must_use]
    pub fn cleanup(mut self, cleanup: impl Future<Output = ()> + Send + 'static) -> Self {
        self.cleanup = Some(Box::pin(cleanup));
        self
    }

    pub async fn finish(self) {
        let Self { port, cleanup } = self;
        drop(port);
        if let Some(cleanup) = cleanup {
            cleanup.await;
        }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Subject<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("port", &self.port).finish_non_exhaustive()
    }
}

/// Where the service named by the environment variable is. Unset means that the test is skipped, with a note; where
/// `BAI_TEST_REQUIRE=1` it is a failure.
///
/// # Panics
/// When the service is required and the variable is unset.
pub fn service_url(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        let required = std::env::var("BAI_TEST_REQUIRE").is_ok_and(|value| value == "1");
        assert!(!required, "{variable} is not set, and BAI_TEST_REQUIRE forbids to skip");
        eprintln!("skipped: {variable} is not set");
    }
    url
}

/// One test for each named case of a suite.
#[macro_export]
macro_rules! conformance_tests {
    ($suite:ident, $fresh:path, [$($case:ident),* $(,)?]) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(subject) = $fresh().await else { return };
                $crate::$suite::$case(subject.port.clone()).await;
                subject.finish().await;
            }
        )*
    };
}
