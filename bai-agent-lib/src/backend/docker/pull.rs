//! Fetching an image from its registry.

use std::collections::HashMap;
use std::time::Duration;

use bai_core::error::{Error, ErrorKind, Result};
use bollard::auth::DockerCredentials;
use bollard::query_parameters::CreateImageOptions;
use futures_util::{Stream, StreamExt};

use super::DockerOptions;
use super::engine::{Engine, Failure};
use super::image;

/// Time between two lines about the progress.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Fetches `image`, which names its registry. The engine joins calls for the same image.
///
/// # Errors
/// `NotFound` when the registry does not have it or does not show it, `Unavailable` when the registry or the engine cannot
/// be reached, `Timeout` after the time that a pull may take.
pub(super) async fn pull(engine: &Engine, options: &DockerOptions, image: &str) -> Result<()> {
    let (name, tag) = match image.split_once('@') {
        // The engine takes a digest in the place of the tag.
        Some((name, digest)) => (name, digest),
        None => image::split_tag(image),
    };
    let login = image::registry(image).and_then(|registry| {
        options.logins.get(registry).map(|login| DockerCredentials {
            username: Some(login.username.clone()),
            password: Some(login.password.reveal().clone()),
            serveraddress: Some(registry.to_owned()),
            ..DockerCredentials::default()
        })
    });
    let request = CreateImageOptions {
        from_image: Some(name.to_owned()),
        tag: Some(tag.to_owned()),
        ..CreateImageOptions::default()
    };
    tracing::info!(image, "an image is being fetched");
    let progress = engine.docker.create_image(Some(request), None, login);
    match tokio::time::timeout(options.pull_timeout, follow(image, progress)).await {
        Ok(Ok(())) => {
            tracing::info!(image, "the image was fetched");
            Ok(())
        }
        Ok(Err(failure)) if image::is_unknown(&failure) => {
            Err(image::not_found(image, "the registry has no such image", &[])
                .with("reason", Error::from(failure)))
        }
        Ok(Err(failure)) => Err(Error::from(failure).with("image", image)),
        Err(_) => {
            Err(Error::new(ErrorKind::Timeout, "the image takes too long to be fetched").with("image", image))
        }
    }
}

/// Reads the progress to its end and logs it now and then.
async fn follow(
    image: &str,
    progress: impl Stream<Item = Result<bollard::models::CreateImageInfo, bollard::errors::Error>>,
) -> Result<(), Failure> {
    let mut progress = std::pin::pin!(progress);
    let mut layers: HashMap<String, (i64, i64)> = HashMap::new();
    let mut report = tokio::time::interval(REPORT_EVERY);
    report.tick().await;
    loop {
        tokio::select! {
            step = progress.next() => match step {
                None => return Ok(()),
                Some(step) => {
                    let step = step?;
                    if let (Some(layer), Some(detail)) = (step.id, step.progress_detail)
                        && let (Some(current), Some(total)) = (detail.current, detail.total)
                    {
                        layers.insert(layer, (current, total));
                    }
                }
            },
            _ = report.tick() => {
                let (fetched, total) = layers.values().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
                tracing::info!(image, fetched, total, "an image is being fetched");
            }
        }
    }
}
