//! Images: what a kernel can be started from (spec image-recipes.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An image that some agent can start kernels from.
///
/// With Docker this is a labelled image; with the process back end an interpreter of the host, described by the
/// same labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Canonical name `[registry/][project/]name:tag`.
    pub name: String,
    /// Architecture such as `x86_64`.
    pub architecture: String,
    /// Content digest or image id; empty when there is none.
    pub digest: String,
    /// Size in bytes.
    pub size: u64,
    /// Labels with their `ai.backend.` prefix.
    pub labels: BTreeMap<String, String>,
    /// Short names that resolve to this image.
    pub aliases: Vec<String>,
}

impl Image {
    /// The label `ai.backend.<key>`.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(&format!("ai.backend.{key}")).map(String::as_str)
    }

    /// Amounts given by labels `ai.backend.resource.<bound>.<slot>`, as the labels spell them.
    pub fn bounds<'a>(&'a self, bound: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let prefix = format!("ai.backend.resource.{bound}.");
        self.labels.iter().filter_map(move |(key, value)| Some((key.strip_prefix(&prefix)?, value.as_str())))
    }
}
