//! One thing at a time for each kernel.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bai_core::id::KernelId;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Starts, stops and removals of one kernel wait for each other; those of different kernels do not.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<KernelId, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits until nothing else is done to the kernel. Dropping the guard ends the turn.
    pub(super) async fn take(&self, kernel: KernelId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(kernel).or_default())
        };
        turn.lock_owned().await
    }

    /// The kernels that something is done to now.
    pub(super) fn taken(&self) -> HashSet<KernelId> {
        self.0.lock().iter().filter(|(_, turn)| turn.try_lock().is_err()).map(|(kernel, _)| *kernel).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_of_one_kernel_do_not_overlap() {
        let turns = Turns::default();
        let (one, two) = (KernelId::random(), KernelId::random());
        let first = turns.take(one).await;
        let _other = turns.take(two).await;
        assert_eq!(turns.taken(), [one, two].into());
        assert!(tokio::time::timeout(Duration::from_secs(1), turns.take(one)).await.is_err());
        drop(first);
        assert_eq!(turns.taken(), [two].into());
        turns.take(one).await;
    }
}
