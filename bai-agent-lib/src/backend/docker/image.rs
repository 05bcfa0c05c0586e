//! The images of the engine that kernels can be started from.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

use bai_core::error::{Error, Result, code};
use bai_core::image::Image;
use bollard::models::ImageSummary;
use bollard::query_parameters::ListImagesOptions;
use parking_lot::Mutex;

use super::engine::{Engine, Failure};
use super::label;

const KERNELSPEC: &str = "ai.backend.kernelspec=1";

/// What an untagged image is listed as.
const UNTAGGED: &str = "<none>:<none>";

/// What is known of images by their id, which is a digest of all there is to know: each is looked at once.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// Architecture, or `None` for an image that cannot be used.
    known: Mutex<HashMap<String, Option<String>>>,
}

impl Catalogue {
    /// The labelled images: one call to the engine, and one more for each image not seen before.
    pub(super) async fn images(&self, engine: &Engine) -> Result<Vec<Image>> {
        let filters = HashMap::from([("label".to_owned(), vec![KERNELSPEC.to_owned()])]);
        let options = ListImagesOptions { filters: Some(filters), ..ListImagesOptions::default() };
        let listed = engine.call(engine.docker.list_images(Some(options))).await?;
        self.forget_all_but(&listed);
        let mut images = Vec::new();
        for summary in listed {
            let labels = label::of_image(summary.labels);
            if let Some(architecture) =
                self.architecture(engine, &summary.id, &summary.repo_tags, &labels).await?
            {
                let size = u64::try_from(summary.size).unwrap_or(0);
                let make = |name: String| Image {
                    name,
                    architecture: architecture.clone(),
                    digest: summary.id.clone(),
                    size,
                    labels: labels.clone(),
                    aliases: Vec::new(),
                };
                let names = summary.repo_tags.into_iter().filter(|name| name != UNTAGGED);
                images.extend(names.map(|name| (make(name), summary.created)));
            }
        }
        Ok(with_aliases(images))
    }

    /// The architecture of an image that can be used.
    async fn architecture(
        &self,
        engine: &Engine,
        id: &str,
        names: &[String],
        labels: &BTreeMap<String, String>,
    ) -> Result<Option<String>> {
        if let Some(known) = self.known.lock().get(id) {
            return Ok(known.clone());
        }
        let architecture = match label::check(labels) {
            Err(reason) => {
                tracing::warn!(image = names.join(" "), reason, "an image is left out");
                None
            }
            Ok(()) => match engine.call(engine.docker.inspect_image(id)).await {
                Ok(image) => Some(canonical_architecture(&image.architecture.unwrap_or_default())),
                // Removed since it was listed.
                Err(failure) if failure.is_missing() => return Ok(None),
                Err(failure) => return Err(failure.into()),
            },
        };
        self.known.lock().insert(id.to_owned(), architecture.clone());
        Ok(architecture)
    }

    fn forget_all_but(&self, listed: &[ImageSummary]) {
        let ids: HashSet<&str> = listed.iter().map(|image| image.id.as_str()).collect();
        self.known.lock().retain(|id, _| ids.contains(id.as_str()));
    }
}

/// Whether the engine has the image.
pub(super) async fn is_present(engine: &Engine, image: &str) -> Result<bool> {
    match engine.call(engine.docker.inspect_image(image)).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_missing() => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}

/// Checks that `image` is a reference and not something else that could be smuggled into a request.
///
/// # Errors
/// `NotFound`: nothing can have such a name.
pub(super) fn check_reference(image: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let valid = !image.is_empty() && image.len() <= 1024 && image.chars().all(plain);
    let dots = image.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    if valid && !dots {
        return Ok(());
    }
    Err(Error::of(code::IMAGE_NOT_FOUND, "not an image name").with("image", image))
}

/// The registry in a name: a first component that looks like a host.
pub(super) fn registry(image: &str) -> Option<&str> {
    let (first, _) = image.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

/// Name and tag. The tag of a name without one is `latest`.
pub(super) fn split_tag(image: &str) -> (&str, &str) {
    let last = image.rfind('/').map_or(0, |slash| slash + 1);
    image[last..]
        .rfind(':')
        .map_or((image, "latest"), |colon| (&image[..last + colon], &image[last + colon + 1..]))
}

fn canonical_architecture(name: &str) -> String {
    match name {
        "amd64" | "x64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
    .to_owned()
}

/// Adds the short names: last part of the name, alone and with version or tag, each for the newest image that fits.
fn with_aliases(mut images: Vec<(Image, i64)>) -> Vec<Image> {
    images.sort_by(|(a, made_a), (b, made_b)| newer(&b.name, *made_b, &a.name, *made_a));
    let mut taken: HashSet<String> = images.iter().map(|(image, _)| image.name.clone()).collect();
    for (image, _) in &mut images {
        let (name, tag) = split_tag(&image.name);
        let short = name.rsplit('/').next().unwrap_or(name);
        let wanted = [short.to_owned(), format!("{short}:{}", version(tag)), format!("{short}:{tag}")];
        image.aliases = wanted.into_iter().filter(|alias| taken.insert(alias.clone())).collect();
    }
    let mut images: Vec<Image> = images.into_iter().map(|(image, _)| image).collect();
    images.sort_by(|a, b| a.name.cmp(&b.name));
    images
}

/// First piece of a tag; the others name platforms.
fn version(tag: &str) -> &str {
    tag.split('-').next().unwrap_or(tag)
}

/// Orders by version, then by age, then by name.
fn newer(a: &str, made_a: i64, b: &str, made_b: i64) -> Ordering {
    let numbers = |name: &str| {
        version(split_tag(name).1).split('.').map_while(|n| n.parse().ok()).collect::<Vec<u64>>()
    };
    numbers(a).cmp(&numbers(b)).then(made_a.cmp(&made_b)).then_with(|| b.cmp(a))
}

/// The error for an image that cannot be had.
pub(super) fn not_found(image: &str, why: &str, available: &[Image]) -> Error {
    let names: Vec<&str> = available.iter().map(|image| image.name.as_str()).collect();
    Error::of(code::IMAGE_NOT_FOUND, why).with("image", image).with("available", names.join(", "))
}

/// Whether a failed pull means that there is no such image. Registries that hide what they refuse say "denied".
pub(super) fn is_unknown(failure: &Failure) -> bool {
    let Failure::Refused(status, message) = failure else { return false };
    let words = ["manifest unknown", "not found", "does not exist", "access denied", "invalid reference"];
    *status == 404 || words.iter().any(|word| message.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(images: &[(&str, i64)]) -> Vec<(String, Vec<String>)> {
        let make = |name: &str| Image {
            name: name.to_owned(),
            architecture: "x86_64".into(),
            digest: String::new(),
            size: 0,
            labels: BTreeMap::new(),
            aliases: Vec::new(),
        };
        let images = images.iter().map(|(name, made)| (make(name), *made)).collect();
        with_aliases(images).into_iter().map(|image| (image.name, image.aliases)).collect()
    }

    #[test]
    fn short_names_mean_the_newest_image() {
        let found = aliases(&[
            ("local/python:3.9-debian12", 9),
            ("local/python:3.11-debian12", 1),
            ("r.example.com:5000/x/python:3.11-ubuntu22.04", 2),
            ("local/busybox:latest", 1),
        ]);
        let expected: [(&str, &[&str]); 4] = [
            ("local/busybox:latest", &["busybox", "busybox:latest"]),
            ("local/python:3.11-debian12", &["python:3.11-debian12"]),
            ("local/python:3.9-debian12", &["python:3.9", "python:3.9-debian12"]),
            (
                "r.example.com:5000/x/python:3.11-ubuntu22.04",
                &["python", "python:3.11", "python:3.11-ubuntu22.04"],
            ),
        ];
        let expected: Vec<(String, Vec<String>)> = expected
            .map(|(name, list)| (name.to_owned(), list.iter().map(|&alias| alias.to_owned()).collect()))
            .into();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_full_name_is_nobody_elses_short_name() {
        let found = aliases(&[("python:3.11", 1), ("local/python:3.11-debian12", 2)]);
        assert_eq!(found[0].1, ["python", "python:3.11-debian12"]);
        assert!(found[1].1.is_empty());
    }

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(split_tag("h:5000/a/b"), ("h:5000/a/b", "latest"));
        assert_eq!(split_tag("h:5000/a/b:1"), ("h:5000/a/b", "1"));
        assert_eq!(registry("h:5000/a/b:1"), Some("h:5000"));
        assert_eq!(registry("cr.backend.ai/stable/python:3"), Some("cr.backend.ai"));
        assert_eq!(registry("localhost/x"), Some("localhost"));
        assert_eq!(registry("local/python:3.11"), None);
        assert_eq!(registry("python:3.11"), None);
    }

    #[test]
    fn only_references_reach_the_engine() {
        for good in ["python", "h:5000/a/b:1.2-x_y", "a@sha256:00"] {
            assert!(check_reference(good).is_ok(), "{good}");
        }
        for bad in ["", "a?b", "../x", "a b", "a//b", "a/../b", "a#b", "a%2fb", "/a"] {
            assert_eq!(check_reference(bad).unwrap_err().code(), code::IMAGE_NOT_FOUND, "{bad}");
        }
    }
}
