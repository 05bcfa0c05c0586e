//! The managers that there are, as their agents find them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bai_core::error::code;
use bai_core::port::ManagerApi;
use bai_core::port::agent::{AgentReport, ReportReply};
use bai_core::{Error, Result};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Of one manager, from its start to its death. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Life(CancellationToken);

impl Life {
    /// Ends it: everything that goes on in the manager stops where it stands.
    pub fn end(&self) {
        self.0.cancel();
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Does something inside the manager, as far as it gets before the manager dies.
    pub async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.0.run_until_cancelled(work).await
    }
}

/// A manager that lives.
type Seat = (Arc<dyn ManagerApi>, Life);

/// The managers by name; without a seat where one has died.
#[derive(Debug, Default)]
pub struct Managers(Mutex<BTreeMap<String, Option<Seat>>>);

impl Managers {
    /// A manager has started under this name.
    pub fn seat(&self, name: &str, manager: Arc<dyn ManagerApi>, life: Life) {
        self.0.lock().insert(name.to_owned(), Some((manager, life)));
    }

    /// The manager of this name is no more; its address stays known.
    pub fn unseat(&self, name: &str) {
        self.0.lock().insert(name.to_owned(), None);
    }

    /// All names that were ever taken.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().keys().cloned().collect()
    }

    /// A report arrives at the manager.
    ///
    /// # Errors
    /// `Unavailable` when nobody is there, or not for long enough.
    pub async fn report(&self, name: &str, report: AgentReport) -> Result<ReportReply> {
        let gone = || Error::of(code::UNAVAILABLE, "no manager is there");
        let (manager, life) = self.0.lock().get(name).cloned().flatten().ok_or_else(gone)?;
        life.within(manager.report(report)).await.unwrap_or_else(|| Err(gone()))
    }
}
