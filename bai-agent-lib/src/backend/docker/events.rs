//! The ends of containers, as the engine tells them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use bai_core::clock::{Clock, SystemClock};
use bai_core::error::Result;
use bai_core::port::backend::ExitNotice;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};

use super::container::{Identity, OWNER};
use super::engine::Engine;
use super::found::{self, Exits, Stage};

/// Pause before asking an engine again that broke off; doubled up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

type Events = BoxStream<'static, Result<EventMessage, bollard::errors::Error>>;

/// A subscription. When it breaks it is made again, and the containers that ended meanwhile are found by a comparison.
pub(super) struct Watch {
    engine: Engine,
    label: String,
    events: Option<Events>,
    /// Containers whose end is known or was told.
    told: HashSet<String>,
    /// Containers in which the memory limit killed something.
    oom: HashSet<String>,
    pending: VecDeque<ExitNotice>,
    pause: Duration,
}

impl Watch {
    /// Subscribes. Ends from this moment on are told; earlier ones are not.
    ///
    /// # Errors
    /// `Unavailable` and `Timeout` of the engine.
    pub(super) async fn open(engine: Engine, agent: &str) -> Result<Self> {
        let mut watch = Self {
            engine,
            label: format!("{OWNER}={agent}"),
            events: None,
            told: HashSet::new(),
            oom: HashSet::new(),
            pending: VecDeque::new(),
            pause: FIRST_PAUSE,
        };
        watch.subscribe().await?;
        watch.pending.clear();
        Ok(watch)
    }

    /// The notices, for ever.
    pub(super) fn notices(self) -> impl Stream<Item = ExitNotice> + Send + 'static {
        stream::unfold(self, |mut watch| async move {
            let notice = watch.next().await;
            Some((notice, watch))
        })
    }

    async fn next(&mut self) -> ExitNotice {
        loop {
            if let Some(notice) = self.pending.pop_front() {
                return notice;
            }
            let event = match &mut self.events {
                Some(events) => events.next().await,
                None => None,
            };
            match event {
                Some(Ok(event)) => self.take(event).await,
                Some(Err(_)) | None => self.recover().await,
            }
        }
    }

    async fn recover(&mut self) {
        self.events = None;
        tokio::time::sleep(self.pause).await;
        match self.subscribe().await {
            Ok(()) => self.pause = FIRST_PAUSE,
            Err(error) => {
                tracing::warn!(%error, "the events of the container engine cannot be had");
                self.pause = (self.pause * 2).min(LAST_PAUSE);
            }
        }
    }

    /// Asks for the events from now on, and queues the ends that nobody was told of.
    async fn subscribe(&mut self) -> Result<()> {
        // The request is sent when the stream is first polled; the engine then repeats what it has seen since.
        let now = SystemClock.now();
        let since = format!("{}.{:09}", now.timestamp(), now.timestamp_subsec_nanos());
        let found = found::find(&self.engine, self.label.clone()).await?;
        let exits = Exits::default().of(&self.engine, &found).await?;
        self.told.retain(|id| found.iter().any(|found| found.id == *id));
        for found in found.into_iter().filter(|found| found.stage == Stage::Ended) {
            if let Some(exit) = exits.get(&found.id)
                && self.told.insert(found.id)
            {
                self.pending.push_back(ExitNotice { kernel: found.kernel, exit: exit.clone() });
            }
        }
        let filters = [
            ("type", vec!["container"]),
            ("label", vec![self.label.as_str()]),
            ("event", vec!["die", "oom", "destroy"]),
        ];
        let filters = filters
            .map(|(key, values)| (key.to_owned(), values.into_iter().map(str::to_owned).collect::<Vec<_>>()));
        let options = EventsOptions { since: Some(since), until: None, filters: Some(filters.into()) };
        self.events = Some(self.engine.docker.events(Some(options)).boxed());
        Ok(())
    }

    async fn take(&mut self, event: EventMessage) {
        let actor = event.actor.unwrap_or_default();
        let (Some(id), attributes) = (actor.id, actor.attributes.unwrap_or_default()) else { return };
        match event.action.as_deref() {
            Some("oom") => drop(self.oom.insert(id)),
            Some("destroy") => {
                self.told.remove(&id);
                self.oom.remove(&id);
            }
            Some("die") => self.died(id, &attributes).await,
            _ => {}
        }
    }

    async fn died(&mut self, id: String, attributes: &HashMap<String, String>) {
        let name = attributes.get("name").map_or("", String::as_str);
        let Some(identity) = Identity::read(name, attributes) else { return };
        if !self.told.insert(id.clone()) {
            return;
        }
        let known = found::inspect_exit(&self.engine, &id).await.ok().flatten();
        let told = || attributes.get("exitCode").and_then(|code| code.parse().ok());
        let code = known.as_ref().map_or_else(told, |exit| exit.code);
        let oom_killed = self.oom.remove(&id) || known.is_some_and(|exit| exit.oom);
        let exit = found::ended(code, oom_killed);
        self.pending.push_back(ExitNotice { kernel: identity.kernel, exit });
    }
}
