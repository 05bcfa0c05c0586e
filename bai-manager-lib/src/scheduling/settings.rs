//! What the cluster's settings say about scheduling (spec scheduler.md, sections 9 and 11).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bai_core::Result;
use bai_core::port::ConfigStore;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::time::Instant;

/// Most kernels on one agent.
const MAX_KERNELS: &str = "config/agent/max-container-count";
/// Options of a scheduler for all groups that use it; its name and that of the option follow.
const PLUGINS: &str = "config/plugins/scheduler/";

/// The settings.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Settings {
    /// Most kernels on one agent.
    pub(super) max_kernels_per_agent: Option<u32>,
    /// Options by name of the scheduler.
    pub(super) schedulers: BTreeMap<String, Map<String, Value>>,
    /// Slots by importance; an option of the manager.
    pub(super) slot_order: Vec<String>,
    /// Keys whose values cannot be read.
    unreadable: Vec<String>,
}

impl Settings {
    async fn read(config: &dyn ConfigStore, slot_order: &[String]) -> Result<Self> {
        let mut settings = Self { slot_order: slot_order.to_vec(), ..Self::default() };
        if let Some(entry) = config.get(MAX_KERNELS).await? {
            settings.max_kernels_per_agent = entry.value.trim().parse().ok();
            if settings.max_kernels_per_agent.is_none() {
                settings.unreadable.push(entry.key);
            }
        }
        for entry in config.get_prefix(PLUGINS).await? {
            let name = entry.key.strip_prefix(PLUGINS).and_then(|rest| rest.split_once('/'));
            let Some((scheduler, option)) = name else { continue };
            put(settings.schedulers.entry(scheduler.to_owned()).or_default(), option, &entry.value);
        }
        Ok(settings)
    }
}

/// Sets an option; `weights/domain/research` is `domain/research` in the object `weights`.
fn put(options: &mut Map<String, Value>, option: &str, text: &str) {
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    match option.split_once('/') {
        None => _ = options.insert(option.to_owned(), value),
        Some((object, key)) => {
            let inner = options.entry(object).or_insert_with(|| Map::new().into());
            if let Some(inner) = inner.as_object_mut() {
                inner.insert(key.to_owned(), value);
            }
        }
    }
}

/// The settings as last read.
#[derive(Debug)]
pub(crate) struct SettingsCache {
    max_age: Duration,
    slot_order: Vec<String>,
    read: Mutex<Option<(Instant, Arc<Settings>)>>,
}

impl SettingsCache {
    /// Nothing read yet. `slot_order` is the manager's own.
    pub(crate) fn new(max_age: Duration, slot_order: Vec<String>) -> Self {
        Self { max_age, slot_order, read: Mutex::default() }
    }

    /// The settings, hardly older than the given age. Those of before hold on while the back end cannot be reached.
    pub(crate) async fn get(&self, config: &dyn ConfigStore) -> Arc<Settings> {
        let before = self.read.lock().clone();
        if let Some((at, settings)) = &before
            && at.elapsed() < self.max_age
        {
            return settings.clone();
        }
        let before = before.map(|(_, settings)| settings);
        let settings = match Settings::read(config, &self.slot_order).await {
            Ok(settings) if before.as_deref() == Some(&settings) => before.unwrap_or_default(),
            Ok(settings) => {
                for key in &settings.unreadable {
                    tracing::warn!(key, "the value of a setting cannot be read: ignored");
                }
                Arc::new(settings)
            }
            Err(error) => {
                tracing::warn!(%error, "the settings of the scheduler cannot be read");
                let own = || Settings { slot_order: self.slot_order.clone(), ..Settings::default() };
                before.unwrap_or_else(|| Arc::new(own()))
            }
        };
        *self.read.lock() = Some((Instant::now(), settings.clone()));
        settings
    }
}

#[cfg(test)]
mod tests {
    use bai_core::memory::MemoryConfig;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn settings_are_read_and_what_cannot_be_is_left_out() {
        let config = MemoryConfig::new();
        for (key, value) in [
            ("config/agent/max-container-count", "12"),
            ("config/plugins/scheduler/fair-share/half_life", "2d"),
            ("config/plugins/scheduler/fair-share/weights/domain/research", "3"),
            ("config/plugins/scheduler/fifo/backfill", "\"strict\""),
        ] {
            config.put(key, value).await.unwrap();
        }
        let cache = SettingsCache::new(Duration::ZERO, vec!["mem".into()]);
        let settings = cache.get(&config).await;
        assert_eq!(settings.max_kernels_per_agent, Some(12));
        assert_eq!(settings.slot_order, ["mem"]);
        let fair = json!({ "half_life": "2d", "weights": { "domain/research": 3 } });
        assert_eq!(Value::from(settings.schedulers["fair-share"].clone()), fair);
        assert_eq!(settings.schedulers["fifo"]["backfill"], "strict");
        assert!(Arc::ptr_eq(&settings, &cache.get(&config).await), "the same settings are the same");
        config.put(MAX_KERNELS, "many").await.unwrap();
        let settings = cache.get(&config).await;
        assert_eq!(
            (settings.max_kernels_per_agent, &settings.unreadable[..]),
            (None, &[MAX_KERNELS.into()][..])
        );
    }
}
