//! Images from a registry: a small one of the test's own, with one image.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bai_core::error::{ErrorKind, code};
use bai_core::port::KernelBackend;
use bollard::query_parameters::RemoveImageOptions;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::kernel::{Host, raw};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Path to media type and content.
type Content = HashMap<String, (&'static str, Vec<u8>)>;

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_fetched_from_its_registry() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let address = serve(content()).await;
    let image = format!("{address}/cloud/tiny:1.0-test");
    assert!(backend.images().await.unwrap().iter().all(|found| found.name != image));
    backend.prepare(&image).await.unwrap();
    backend.prepare(&image).await.unwrap();
    let found = backend.images().await.unwrap().into_iter().find(|found| found.name == image).unwrap();
    assert_eq!((found.label("runtime-type"), &*found.architecture), (Some("app"), "aarch64"));
    assert!(found.aliases.contains(&"tiny:1.0".to_owned()), "{found:?}");
    raw(&host.engine).remove_image(&image, None::<RemoveImageOptions>, None).await.unwrap();
    assert!(backend.images().await.unwrap().iter().all(|found| found.name != image), "removed images go");

    let error = backend.prepare(&format!("{address}/cloud/other:1")).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, code::IMAGE_NOT_FOUND), "{error}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = backend.prepare(&format!("{closed}/cloud/tiny:1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// One image of one empty layer, for another architecture.
fn content() -> Content {
    // Differs from run to run, so that it is not in the engine already.
    let nonce = bai_core::id::KernelId::random().to_string();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(nonce.len() as u64);
    tar.append_data(&mut header, "nonce", nonce.as_bytes()).unwrap();
    let layer = tar.into_inner().unwrap();
    let labels = json!({ "ai.backend.kernelspec": "1", "ai.backend.runtime-type": "app" });
    let config = json!({
        "architecture": "arm64",
        "os": "linux",
        "config": { "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    let config = serde_json::to_vec(&config).unwrap();
    let describe =
        |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "size": bytes.len(), "digest": digest(bytes) });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": describe("application/vnd.docker.container.image.v1+json", &config),
        "layers": [describe("application/vnd.docker.image.rootfs.diff.tar", &layer)],
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let blob = |bytes: &[u8]| format!("/v2/cloud/tiny/blobs/{}", digest(bytes));
    HashMap::from([
        ("/v2/".to_owned(), ("application/json", b"{}".to_vec())),
        (blob(&config), ("application/octet-stream", config)),
        (blob(&layer), ("application/octet-stream", layer)),
        (format!("/v2/cloud/tiny/manifests/{}", digest(&manifest)), (MANIFEST, manifest.clone())),
        ("/v2/cloud/tiny/manifests/1.0-test".to_owned(), (MANIFEST, manifest)),
    ])
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

async fn serve(content: Content) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let content = Arc::new(content);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream, Arc::clone(&content)));
        }
    });
    address
}

/// Answers one request.
async fn answer(stream: TcpStream, content: Arc<Content>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if stream.read_line(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let unknown = (
        "application/json",
        br#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}"#.to_vec(),
    );
    let (status, (kind, body)) =
        content.get(path).map_or(("404 Not Found", &unknown), |found| ("200 OK", found));
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {}\r\n\
         Docker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\n\r\n",
        body.len(),
        digest(body)
    );
    stream.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        stream.write_all(body).await?;
    }
    stream.flush().await
}
