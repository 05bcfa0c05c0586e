//! The outbox: events that are stored are published, at least once.

use std::sync::Arc;
use std::time::Duration;

use bai_core::Result;
use bai_core::port::store::SessionEvent;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::manager::core::Core;

/// Topic of session events.
pub(crate) const TOPIC: &str = "session";
/// Key that names the manager an event comes from.
pub(crate) const ORIGIN: &str = "manager";
/// Events of one call.
const BATCH: usize = 256;

/// Publishes what commits have produced, until the manager drains.
pub(crate) async fn run(core: Arc<Core>, mut outbox: mpsc::Receiver<Arc<SessionEvent>>) {
    let mut events = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            count = outbox.recv_many(&mut events, BATCH) => {
                if count == 0 {
                    return;
                }
            }
            () = core.tasks.draining(), if !outbox.is_closed() => outbox.close(),
        }
        if !events.is_empty() {
            if let Err(error) = publish(&core, &events).await {
                tracing::warn!(%error, count = events.len(), "events are not published yet");
            }
            events.clear();
        }
    }
}

/// Publishes what a crash, a full outbox or a failed call has left behind: at start and every few seconds.
pub(crate) async fn sweep(core: Arc<Core>) {
    loop {
        if core.is_leader()
            && let Err(error) = left_behind(&core).await
        {
            tracing::warn!(%error, "left-over events are not published yet");
        }
        tokio::select! {
            () = core.tasks.stopped() => return,
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}

/// Publishes events that are old enough that nobody else is about to.
async fn left_behind(core: &Core) -> Result<()> {
    let young = core.now() - Duration::from_secs(3);
    loop {
        let events = core.backends.sessions.unpublished(1000).await?;
        let old: Vec<_> = events.into_iter().take_while(|event| event.at < young).map(Arc::new).collect();
        if old.is_empty() {
            return Ok(());
        }
        publish(core, &old).await?;
    }
}

async fn publish(core: &Core, events: &[Arc<SessionEvent>]) -> Result<()> {
    let payloads: Vec<_> = events.iter().filter_map(|event| payload(event, &core.options.id)).collect();
    core.backends.events.publish(TOPIC, &payloads).await?;
    let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
    core.backends.sessions.mark_published(&seqs).await
}

fn payload(event: &SessionEvent, origin: &str) -> Option<Value> {
    let mut payload = serde_json::to_value(event).ok()?;
    payload.as_object_mut()?.insert(ORIGIN.to_owned(), origin.into());
    Some(payload)
}
