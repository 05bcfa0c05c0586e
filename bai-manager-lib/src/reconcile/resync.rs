//! Memory follows the store: at once by events when other managers write to it, and in any case after a doubt.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::code;
use bai_core::port::events::{Envelope, From as Start};
use bai_core::port::store::{SessionEvent, SessionQuery};
use bai_core::{Result, SessionStatus};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::publish::{ORIGIN, TOPIC};
use crate::manager::core::Core;

/// Pause before a broken subscription is made again.
const RETRY: Duration = Duration::from_secs(1);

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
    let known: Vec<_> = core.registry.all().into_iter().map(|session| session.id).collect();
    let statuses = SessionStatus::ALL.iter().copied().filter(|status| !status.is_dead()).collect();
    let living =
        core.backends.sessions.find(&SessionQuery { statuses, ..SessionQuery::default() }).await?.items;
    let found: HashSet<_> = living.iter().map(|session| session.id).collect();
    for session in living {
        core.take(&Arc::new(session));
    }
    for id in known.into_iter().filter(|id| !found.contains(id)) {
        core.reload(id).await?; // it has died
    }
    core.agents.load(core.backends.agents.agents().await?, core.now());
    core.doubt.settle(doubts);
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
            Ok(envelope) => heard(core, &envelope).await?,
            Err(error) if error.code() == code::EVENTS_LAGGED => all(core).await,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn heard(core: &Arc<Core>, envelope: &Envelope) -> Result<()> {
    let own = envelope.payload.get(ORIGIN).and_then(|origin| origin.as_str()) == Some(&core.options.id);
    if envelope.topic != TOPIC || own {
        return Ok(());
    }
    let Ok(event) = serde_json::from_value::<SessionEvent>(envelope.payload.clone()) else {
        tracing::debug!("an event that cannot be read is skipped");
        return Ok(());
    };
    core.reload(event.session).await?;
    _ = core.hub.send(Arc::new(event));
    Ok(())
}
