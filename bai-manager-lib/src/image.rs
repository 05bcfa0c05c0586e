//! Images: what sessions can be started from.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bai_core::image::Image;
use bai_core::image_ref::canonical_architecture;
use bai_core::port::ImageStore;
use bai_core::{AgentId, Error, Result, error::code};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How old what is in memory may be. Reports that come to this manager show at once.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Images known from the agents.
#[derive(Debug, Clone)]
pub struct ImageService {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ImageStore>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// Counts the invalidations, so that a slow read does not bring old rows back.
    epoch: u64,
    images: Option<(Instant, Arc<Vec<Image>>)>,
    agents: HashMap<String, (Instant, Arc<Vec<AgentId>>)>,
}

impl ImageService {
    pub(crate) fn new(store: Arc<dyn ImageStore>) -> Self {
        Self { inner: Arc::new(Inner { store, cache: Mutex::default() }) }
    }

    /// All images, one per name and architecture, ordered by name.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    pub async fn list(&self) -> Result<Arc<Vec<Image>>> {
        let epoch = {
            let cache = self.inner.cache.lock();
            if let Some((_, images)) = cache.images.as_ref().filter(|(at, _)| at.elapsed() < MAX_AGE) {
                return Ok(images.clone());
            }
            cache.epoch
        };
        let images = Arc::new(self.inner.store.images().await?);
        let mut cache = self.inner.cache.lock();
        if cache.epoch == epoch {
            cache.images = Some((Instant::now(), images.clone()));
        }
        Ok(images)
    }

    /// The image with this canonical name or alias.
    ///
    /// # Errors
    /// `NotFound` ([`code::IMAGE_NOT_FOUND`]).
    pub async fn resolve(&self, name_or_alias: &str, architecture: &str) -> Result<Image> {
        let images = self.list().await?;
        let wanted = canonical_architecture(architecture);
        let fits = |image: &&Image| canonical_architecture(&image.architecture) == wanted;
        let named = images.iter().filter(fits).find(|image| image.name == name_or_alias);
        let has_alias = |image: &&Image| image.aliases.iter().any(|alias| alias == name_or_alias);
        let found = named.or_else(|| images.iter().filter(fits).find(has_alias));
        found.cloned().ok_or_else(|| unknown(name_or_alias, wanted))
    }

    /// The image with exactly this name, if it is still known.
    pub(crate) async fn find(&self, name: &str, architecture: &str) -> Option<Image> {
        let images = self.list().await.ok()?;
        images.iter().find(|image| image.name == name && image.architecture == architecture).cloned()
    }

    /// The names of the images that each agent has.
    pub(crate) async fn by_agent(&self) -> Result<HashMap<AgentId, BTreeSet<String>>> {
        let mut images = HashMap::<AgentId, BTreeSet<String>>::new();
        for image in self.list().await?.iter() {
            for agent in self.agents_with(&image.name).await?.iter() {
                images.entry(agent.clone()).or_default().insert(image.name.clone());
            }
        }
        Ok(images)
    }

    /// The agents that have the image.
    pub(crate) async fn agents_with(&self, name: &str) -> Result<Arc<Vec<AgentId>>> {
        let epoch = {
            let cache = self.inner.cache.lock();
            if let Some((_, agents)) = cache.agents.get(name).filter(|(at, _)| at.elapsed() < MAX_AGE) {
                return Ok(agents.clone());
            }
            cache.epoch
        };
        let agents = Arc::new(self.inner.store.agents_with(name).await?);
        let mut cache = self.inner.cache.lock();
        if cache.epoch == epoch {
            cache.agents.retain(|_, (at, _)| at.elapsed() < MAX_AGE);
            cache.agents.insert(name.to_owned(), (Instant::now(), agents.clone()));
        }
        Ok(agents)
    }

    /// An agent has reported other images.
    pub(crate) fn invalidate(&self) {
        let mut cache = self.inner.cache.lock();
        let epoch = cache.epoch + 1;
        *cache = Cache { epoch, ..Cache::default() };
    }
}

/// The refusal of an image that is not known or not allowed.
pub(crate) fn unknown(image: &str, architecture: &str) -> Error {
    Error::of(code::IMAGE_NOT_FOUND, "unknown alias or disallowed registry")
        .with("image", image)
        .with("architecture", architecture)
}
