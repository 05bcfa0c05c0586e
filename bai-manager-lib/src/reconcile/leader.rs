//! One manager plans: the holder of a lease.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bai_core::Error;
use bai_core::error::code;
use bai_core::port::lease::Grant;
use tokio::time::Instant;

use super::sweep;
use crate::manager::core::Core;

/// Name of the lease.
const LEASE: &str = "manager/scheduler";
/// Pause between attempts to take the lease.
const RETRY: Duration = Duration::from_secs(1);

/// Takes the lease, keeps it, and gives it back at the end.
pub(crate) async fn run(core: Arc<Core>) {
    let mut held: Option<(Grant, Instant)> = None;
    while !core.tasks.is_stopping() {
        held = match held {
            None => acquire(&core).await,
            Some((grant, renewed)) => keep(&core, grant, renewed).await,
        };
        let pause = if held.is_some() { core.options.lease_ttl / 3 } else { RETRY };
        tokio::select! {
            () = core.tasks.stopped() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    core.leader.store(false, Ordering::Release);
    if let Some((grant, _)) = held {
        give_back(&core, &grant).await;
    }
}

async fn give_back(core: &Core, grant: &Grant) {
    if let Err(error) = core.backends.lease.release(grant).await {
        tracing::debug!(%error, "the lease is not given back: it ends by itself");
    }
}

async fn acquire(core: &Arc<Core>) -> Option<(Grant, Instant)> {
    let asked = Instant::now();
    match core.backends.lease.try_acquire(LEASE, &core.options.id, core.options.lease_ttl).await {
        Ok(Some(grant)) => {
            // What the previous holder did last may not have been seen yet.
            if !core.is_exclusive()
                && let Err(error) = super::resync::try_all(core).await
            {
                tracing::warn!(%error, "this manager does not plan: it does not know what the last one has done");
                give_back(core, &grant).await;
                return None;
            }
            tracing::info!(manager = core.options.id, token = grant.token, "this manager plans");
            core.sokovan.clear();
            core.histories.clear();
            core.inbox.clear();
            core.leader.store(true, Ordering::Release);
            sweep::mark_everything(core);
            Some((grant, asked))
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%error, "the lease of the planning manager cannot be asked for");
            None
        }
    }
}

/// Renews the grant. A back end that cannot be reached, or does not answer, is given the benefit of the doubt until the lease has run
/// out.
async fn keep(core: &Core, grant: Grant, renewed: Instant) -> Option<(Grant, Instant)> {
    let asked = Instant::now();
    let end = renewed + core.options.lease_ttl;
    let silent = |_| Err(Error::of(code::TIMEOUT, "the lease was not renewed in time"));
    match tokio::time::timeout_at(end, core.backends.lease.renew(&grant)).await.unwrap_or_else(silent) {
        Ok(()) => Some((grant, asked)),
        Err(error)
            if error.kind().is_retryable() && error.code() != code::LEASE_LOST && Instant::now() < end =>
        {
            tracing::warn!(%error, "the lease is not renewed yet");
            Some((grant, renewed))
        }
        Err(error) => {
            tracing::warn!(%error, "this manager no longer plans");
            core.leader.store(false, Ordering::Release);
            None
        }
    }
}
