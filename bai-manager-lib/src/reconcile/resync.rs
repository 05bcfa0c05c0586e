//! Memory follows the store: at once by events when other managers write to it, and in any case after a doubt.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::code;
use bai_core::port::events::{Envelope, From as Start};
use bai_core::port::store::{SessionEvent, SessionQuery};
use bai_core::{Result, SessionStatus};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryFutureExt, TryStreamExt};

use super::publish::{ORIGIN, TOPIC};
use crate::manager::core::Core;

/// Pause before a broken subscription is made again.
const RETRY: Duration = Duration::from_secs(1);
/// From so many sessions on, all are read at once.
const ONE_BY_ONE: usize = 256;
/// Sessions that are read at a time.
const READS: usize = 8;

/// Reloads all living sessions and agents when memory may lag: after a doubt, and every few seconds when others write to
/// the store.
pub(crate) async fn run(core: Arc<Core>) {
    let shared = !core.is_exclusive();
    loop {
        tokio::select! {
            () = core.tasks.stopped() => return,
            () = core.doubt.wake.notified() => {}
            () = tokio::time::sleep(core.options.resync_interval) => {}
        }
        if core.doubt.is_raised() || shared {
            all(&core).await;
        }
    }
}

/// Reloads everything that lives.
pub(crate) async fn all(core: &Arc<Core>) {
    if let Err(error) = try_all(core).await {
        tracing::warn!(%error, "memory may lag behind the store");
    }
}

pub(crate) async fn try_all(core: &Arc<Core>) -> Result<()> {
    let doubts = core.doubt.count();
    let known = core.registry.versions();
    let living: HashMap<_, _> = core.backends.sessions.versions().await?.into_iter().collect();
    let died = known.keys().filter(|id| !living.contains_key(id)).copied();
    let changed = living.iter().filter(|(id, version)| known.get(id).is_none_or(|known| known < version));
    let changed: Vec<_> = changed.map(|(id, _)| *id).collect();
    let one_by_one = if changed.len() < ONE_BY_ONE {
        died.chain(changed).collect()
    } else {
        everything(core).await?;
        died.collect::<Vec<_>>()
    };
    stream::iter(one_by_one)
        .map(Ok)
        .try_for_each_concurrent(READS, |id| core.reload(id).map_ok(drop))
        .await?;
    core.agents.load(core.backends.agents.agents().await?, core.now());
    if core.doubt.is_raised() {
        core.doubt.settle(doubts);
        core.mark_pending_groups();
    }
    Ok(())
}

async fn everything(core: &Arc<Core>) -> Result<()> {
    let statuses = SessionStatus::ALL.iter().copied().filter(|status| !status.is_dead()).collect();
    let query = SessionQuery { statuses, ..SessionQuery::default() };
    for session in core.backends.sessions.find(&query).await?.items {
        core.take(&Arc::new(session));
    }
    Ok(())
}

/// Events of all managers.
pub(crate) type Heard = BoxStream<'static, Result<Envelope>>;

/// Begins to listen; to be called before the first load, so that nothing falls between the two.
pub(crate) async fn listen(core: &Core) -> Result<Heard> {
    core.backends.events.subscribe(Start::Now).await
}

/// Follows the events of other managers.
pub(crate) async fn follow_others(core: Arc<Core>, events: Heard) {
    let mut events = Some(events);
    while !core.tasks.is_stopping() {
        let ended = async {
            let events = match events.take() {
                Some(events) => events,
                None => listen_again(&core).await?,
            };
            follow(&core, events).await
        };
        tokio::select! {
            () = core.tasks.stopped() => return,
            result = ended => {
                if let Err(error) = result {
                    tracing::warn!(%error, "the events of other managers are not heard");
                }
            }
        }
        tokio::select! {
            () = core.tasks.stopped() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Listens again, and sees what was missed meanwhile.
async fn listen_again(core: &Arc<Core>) -> Result<Heard> {
    let events = listen(core).await?;
    all(core).await;
    Ok(events)
}

async fn follow(core: &Arc<Core>, mut events: Heard) -> Result<()> {
    while let Some(event) = events.next().await {
        match event {
            Ok(envelope) => heard(core, &envelope).await,
            Err(error) if error.code() == code::EVENTS_LAGGED => all(core).await,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A session that cannot be read now is read by the next resync; whoever listens is told all the same.
async fn heard(core: &Arc<Core>, envelope: &Envelope) {
    let own = envelope.payload.get(ORIGIN).and_then(|origin| origin.as_str()) == Some(&core.options.id);
    if envelope.topic != TOPIC || own {
        return;
    }
    let Ok(event) = serde_json::from_value::<SessionEvent>(envelope.payload.clone()) else {
        tracing::debug!("an event that cannot be read is skipped");
        return;
    };
    if let Err(error) = core.reload(event.session).await {
        tracing::warn!(session = %event.session, %error, "memory may lag behind the store");
        core.doubt.raise();
    }
    _ = core.hub.send(Arc::new(event));
}
