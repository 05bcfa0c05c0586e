//! Images: what sessions can be started from.

use std::sync::Arc;

use bai_core::image::Image;
use bai_core::{Error, Result, error::code};

/// Images known from the agents.
#[derive(Debug, Clone)]
pub struct ImageService {}

impl ImageService {
    /// All images, one per name and architecture, ordered by name.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    pub async fn list(&self) -> Result<Arc<Vec<Image>>> {
        Ok(Arc::default())
    }

    /// The image with this canonical name or alias.
    ///
    /// # Errors
    /// `NotFound` ([`code::IMAGE_NOT_FOUND`]).
    pub async fn resolve(&self, name_or_alias: &str, architecture: &str) -> Result<Image> {
        let _ = (name_or_alias, architecture);
        Err(Error::of(code::IMAGE_NOT_FOUND, "unknown alias or disallowed registry"))
    }
}
