//! Whose turn it is where agents take turns: kept in the cluster's settings, so that a restart goes on where it was (spec
//! scheduler.md, sections 9 and 15, W-7).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bai_core::port::ConfigStore;
use bai_core::{AgentId, Result};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::manager::core::Core;

/// A turn is written this often at most: a busy group places something in every pass.
const PAUSE: Duration = Duration::from_secs(1);

/// The agents used last, on their way to the settings.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// By key.
    unsaved: Mutex<BTreeMap<String, AgentId>>,
    wake: Notify,
}

/// The keys of a group; an architecture follows.
fn prefix(group: &str) -> String {
    format!("config/scheduler/{group}/last-used/")
}

impl Turns {
    /// Has these be written some time: agents by architecture.
    pub(crate) fn note(&self, group: &str, turns: BTreeMap<String, AgentId>) {
        if turns.is_empty() {
            return;
        }
        let prefix = prefix(group);
        let keyed = turns.into_iter().map(|(architecture, agent)| (prefix.clone() + &architecture, agent));
        self.unsaved.lock().extend(keyed);
        self.wake.notify_one();
    }

    /// The agents used last in a group, by architecture.
    ///
    /// # Errors
    /// `Unavailable` when the settings cannot be reached.
    pub(crate) async fn read(
        &self,
        group: &str,
        config: &dyn ConfigStore,
    ) -> Result<BTreeMap<String, AgentId>> {
        let prefix = prefix(group);
        let stored = config.get_prefix(&prefix).await?;
        let stored = stored.into_iter().map(|entry| (entry.key, AgentId::new(entry.value.trim())));
        let unsaved = self.unsaved.lock();
        let unsaved = unsaved.iter().map(|(key, agent)| (key.clone(), agent.clone()));
        let keyed = stored.chain(unsaved);
        Ok(keyed.filter_map(|(key, agent)| Some((key.strip_prefix(&prefix)?.to_owned(), agent))).collect())
    }

    async fn save(&self, config: &dyn ConfigStore) {
        let due = std::mem::take(&mut *self.unsaved.lock());
        for (key, agent) in due {
            if let Err(error) = config.put(&key, agent.as_str()).await {
                tracing::debug!(key, %error, "whose turn it was is not stored yet");
                self.unsaved.lock().entry(key).or_insert(agent);
                self.wake.notify_one();
            }
        }
    }
}

/// Writes what is noted, and what is left at the end.
pub(crate) async fn run(core: Arc<Core>) {
    let Core { turns, tasks, backends, .. } = &*core;
    while !tasks.is_stopping() {
        tokio::select! {
            () = tasks.stopped() => break,
            () = turns.wake.notified() => turns.save(&*backends.config).await,
        }
        tokio::select! {
            () = tasks.stopped() => break,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    turns.save(&*backends.config).await;
}

#[cfg(test)]
mod tests {
    use bai_core::memory::MemoryConfig;

    use super::*;

    #[tokio::test]
    async fn what_is_on_its_way_rules_over_what_is_stored_and_groups_do_not_mix() {
        let (turns, config) = (Turns::default(), MemoryConfig::new());
        let one = |agent: &str| BTreeMap::from([("x86_64".to_owned(), AgentId::new(agent))]);
        turns.note("default", one("i-1"));
        turns.note("default-2", one("i-9"));
        turns.save(&config).await;
        assert_eq!(turns.read("default", &config).await.unwrap(), one("i-1"));
        let stored = config.get("config/scheduler/default/last-used/x86_64").await.unwrap().unwrap();
        assert_eq!(stored.value, "i-1");
        turns.note("default", one("i-2"));
        assert_eq!(turns.read("default", &config).await.unwrap(), one("i-2"));
        assert_eq!(turns.read("other", &config).await.unwrap(), BTreeMap::new());
    }
}
