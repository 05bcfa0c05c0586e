//! Images.

use async_graphql::{Context, Object, Result, SimpleObject};
use bai_core::image::Image as ImageRow;
use bai_core::image_ref::ImageRef;
use std::collections::BTreeMap;

use super::scalar::{BigInt, Uuid};
use super::viewer::{Viewer, manager, text, viewer};
use crate::manager::Manager;

/// An image that some agent can start kernels from.
#[derive(Debug)]
pub(super) struct Image(ImageRow);

/// A label.
#[derive(Debug, SimpleObject)]
#[graphql(name = "KVPair", rename_fields = "snake_case")]
pub(super) struct KeyValue {
    key: Option<String>,
    value: Option<String>,
}

/// How much of a slot a kernel of the image may have.
#[derive(Debug, Default, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct ResourceLimit {
    key: Option<String>,
    min: Option<String>,
    max: Option<String>,
}

/// The roots.
#[derive(Debug, Default)]
pub(super) struct ImageRoots;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ImageRoots {
    async fn image(
        &self,
        context: &Context<'_>,
        reference: String,
        #[graphql(default_with = "Some(String::from(\"x86_64\"))")] architecture: Option<String>,
    ) -> Result<Option<Image>> {
        let architecture = architecture.as_deref().unwrap_or("x86_64");
        let manager = manager(context)?;
        let row = manager.images().resolve(&reference, architecture).await.map_err(|error| text(&error))?;
        let allowed = allowed_registries(manager, viewer(context)?).await?;
        Ok(Some(row).filter(|row| allows(allowed.as_deref(), row)).map(Image))
    }

    async fn images(
        &self,
        context: &Context<'_>,
        is_installed: Option<bool>,
        is_operation: Option<bool>,
    ) -> Result<Option<Vec<Option<Image>>>> {
        let (manager, viewer) = (manager(context)?, viewer(context)?);
        let rows = manager.images().list().await.map_err(|error| text(&error))?;
        let allowed = allowed_registries(manager, viewer).await?;
        // Only images that agents have are known: all of them are installed.
        let rows = rows.iter().filter(|_| is_installed != Some(false));
        let rows = rows.filter(|row| is_operation.is_none_or(|wanted| wanted == is_operational(row)));
        let rows = rows.filter(|row| allows(allowed.as_deref(), row));
        Ok(Some(rows.map(|row| Some(Image(row.clone()))).collect()))
    }
}

/// Registries that the viewer may use images of; `None` for all.
async fn allowed_registries(manager: &Manager, viewer: &Viewer) -> Result<Option<Vec<String>>> {
    if viewer.is_superadmin() {
        return Ok(None);
    }
    let directory = manager.identities().directory().await.map_err(|error| text(&error))?;
    let domain = directory.domains.get(&viewer.0.user.domain);
    Ok(domain.map(|row| row.allowed_docker_registries.clone()).filter(|allowed| !allowed.is_empty()))
}

fn allows(allowed: Option<&[String]>, row: &ImageRow) -> bool {
    let registry = registry_of(row);
    registry.is_empty() || allowed.is_none_or(|allowed| allowed.contains(&registry))
}

fn is_operational(row: &ImageRow) -> bool {
    row.label("features")
        .is_some_and(|features| features.split_whitespace().any(|feature| feature == "operation"))
}

fn parsed(row: &ImageRow) -> Option<ImageRef> {
    row.name.parse().ok()
}

fn registry_of(row: &ImageRow) -> String {
    parsed(row).and_then(|name| name.registry().map(str::to_owned)).unwrap_or_default()
}

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl Image {
    async fn id(&self) -> Option<Uuid> {
        None
    }

    /// Project and name.
    async fn name(&self) -> Option<String> {
        Some(parsed(&self.0).map_or_else(|| self.0.name.clone(), |name| name.path()))
    }

    async fn humanized_name(&self) -> Option<String> {
        Some(parsed(&self.0).map_or_else(|| self.0.name.clone(), |name| name.path()))
    }

    async fn tag(&self) -> Option<String> {
        parsed(&self.0).map(|name| name.tag().to_owned())
    }

    async fn registry(&self) -> Option<String> {
        Some(registry_of(&self.0))
    }

    async fn architecture(&self) -> Option<&str> {
        Some(&self.0.architecture)
    }

    async fn is_local(&self) -> Option<bool> {
        Some(registry_of(&self.0).is_empty())
    }

    async fn digest(&self) -> Option<&str> {
        Some(&self.0.digest)
    }

    async fn labels(&self) -> Option<Vec<Option<KeyValue>>> {
        let pair = |(key, value): (&String, &String)| KeyValue {
            key: Some(key.clone()),
            value: Some(value.clone()),
        };
        Some(self.0.labels.iter().map(|label| Some(pair(label))).collect())
    }

    async fn aliases(&self) -> Option<Vec<Option<&str>>> {
        Some(self.0.aliases.iter().map(|alias| Some(alias.as_str())).collect())
    }

    async fn size_bytes(&self) -> Option<BigInt> {
        Some(BigInt::of(self.0.size))
    }

    async fn resource_limits(&self) -> Option<Vec<Option<ResourceLimit>>> {
        let mut limits = BTreeMap::<&str, ResourceLimit>::new();
        for (slot, least) in self.0.bounds("min") {
            limits.entry(slot).or_default().min = Some(least.to_owned());
        }
        for (slot, most) in self.0.bounds("max") {
            limits.entry(slot).or_default().max = Some(most.to_owned());
        }
        let named =
            |(slot, limit): (&str, ResourceLimit)| ResourceLimit { key: Some(slot.to_owned()), ..limit };
        Some(limits.into_iter().map(|limit| Some(named(limit))).collect())
    }

    async fn supported_accelerators(&self) -> Option<Vec<Option<&str>>> {
        let names = self.0.label("accelerators").unwrap_or_default().split(',').map(str::trim);
        Some(names.filter(|name| !name.is_empty()).map(Some).collect())
    }

    async fn installed(&self) -> Option<bool> {
        Some(true)
    }

    async fn installed_agents(&self, context: &Context<'_>) -> Result<Option<Vec<Option<String>>>> {
        let images = &manager(context)?.backends().images;
        let agents = images.agents_with(&self.0.name).await.map_err(|error| text(&error))?;
        Ok(Some(agents.into_iter().map(|agent| Some(agent.to_string())).collect()))
    }

    async fn hash(&self) -> Option<&str> {
        Some(&self.0.digest)
    }
}
