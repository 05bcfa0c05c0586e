//! A session in a container, against the bare engine: the same container made and started through the engine's API. Needs
//! `DOCKER_HOST` and the image of `scripts/test-images.sh`.
#![allow(missing_docs)]

use std::time::Instant;

use bai::{Client, Cluster, Error, ErrorKind, NewSession, Result, Runtime};
use bai_benches::{failed, header, median, print};
use bollard::models::{ContainerCreateBody, PortBinding};
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptions};
use bollard::{API_DEFAULT_VERSION, Docker};

const ROUNDS: usize = 15;
const IMAGE: &str = "local/python:3.11-debian12";

#[tokio::main]
async fn main() -> Result<()> {
    header();
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    let docker = Docker::connect_with_unix(&host, 120, API_DEFAULT_VERSION).map_err(refused)?;
    let docker = docker.negotiate_version().await.map_err(refused)?;
    let cluster = Cluster::embedded().runtime(Runtime::Docker { host: Some(host) }).build().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let server = cluster.serve(listener)?;
    let client = Client::connect(&server.endpoint(), cluster.credentials().clone())?;
    let figures = compare(&docker, &client).await;
    server.stop().await;
    cluster.shutdown().await;
    let (floors, values) = figures?;
    let more = median(values.iter().zip(&floors).map(|(value, floor)| value - floor));
    print("start on Docker, over HTTP", median(values), "ms", Some(median(floors)), None, false);
    print("start on Docker, over HTTP, minus the bare engine", more, "ms", None, Some(40.0), false);
    Ok(())
}

/// Bare starts and sessions in turns; each in milliseconds.
async fn compare(docker: &Docker, client: &Client) -> Result<(Vec<f64>, Vec<f64>)> {
    let model = client.create(NewSession::new(IMAGE)).await?;
    let container = model.info().await?["containerId"].as_str().unwrap_or_default().to_owned();
    let definition = definition(docker, &container).await?;
    let (mut floors, mut values) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floors.push(bare(docker, definition.clone()).await?);
        let begin = Instant::now();
        let session = client.create(NewSession::new(IMAGE)).await?;
        values.push(begin.elapsed().as_secs_f64() * 1e3);
        session.destroy().await?;
    }
    model.destroy().await?;
    Ok((floors, values))
}

/// The definition of a session's own container, for one that sleeps, is nobody's kernel and has ports of its own.
async fn definition(docker: &Docker, container: &str) -> Result<ContainerCreateBody> {
    let model = docker.inspect_container(container, None).await.map_err(refused)?;
    let config = model.config.unwrap_or_default();
    let mut host_config = model.host_config.unwrap_or_default();
    let bindings = host_config.port_bindings.iter_mut().flat_map(|ports| ports.values_mut());
    for binding in bindings.flatten().flatten() {
        *binding = PortBinding { host_port: None, ..binding.clone() };
    }
    Ok(ContainerCreateBody {
        image: config.image,
        hostname: config.hostname,
        user: config.user,
        working_dir: config.working_dir,
        exposed_ports: config.exposed_ports,
        healthcheck: config.healthcheck,
        entrypoint: Some(vec!["sleep".into()]),
        cmd: Some(vec!["3600".into()]),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    })
}

/// Makes, starts and removes a container; making and starting counts.
async fn bare(docker: &Docker, definition: ContainerCreateBody) -> Result<f64> {
    let begin = Instant::now();
    let container =
        docker.create_container(None::<CreateContainerOptions>, definition).await.map_err(refused)?;
    let started = docker.start_container(&container.id, None).await;
    let time = begin.elapsed().as_secs_f64() * 1e3;
    let force = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
    docker.remove_container(&container.id, Some(force)).await.map_err(refused)?;
    started.map(|()| time).map_err(refused)
}

fn refused(cause: bollard::errors::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the container engine refuses").source(cause)
}
