//! The images of the engine.

use bai_core::error::{ErrorKind, code};
use bai_core::port::KernelBackend;

use super::kernel::{BUSYBOX, Host, PYTHON, SCRATCH};

#[tokio::test]
async fn labelled_images_are_listed() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let images = backend.images().await.unwrap();
    for name in [PYTHON, BUSYBOX, SCRATCH] {
        let image = images.iter().find(|image| image.name == name).unwrap();
        assert_eq!(image.architecture, std::env::consts::ARCH);
        assert!(image.digest.starts_with("sha256:") && image.size > 100_000, "{image:?}");
        assert_eq!(image.label("kernelspec"), Some("1"));
        assert!(image.labels.keys().all(|key| key.starts_with("ai.backend.")), "{image:?}");
    }
    let python = images.iter().find(|image| image.name == PYTHON).unwrap();
    assert_eq!(python.aliases, ["python", "python:3.11", "python:3.11-debian12"]);
    assert_eq!(python.label("runtime-type"), Some("python"));
    assert!(backend.images().await.unwrap().contains(python), "the same when asked again");
    let capability = backend.capability();
    assert_eq!((capability.kind, capability.isolates), ("docker", true), "{capability:?}");
}

#[tokio::test]
async fn only_images_that_exist_are_prepared() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    backend.prepare(PYTHON).await.unwrap();
    for missing in ["local/nothing:1", "python", "a?b", "../containers/json"] {
        let error = backend.prepare(missing).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, code::IMAGE_NOT_FOUND), "{missing}");
    }
    let error = backend.prepare("local/nothing:1").await.unwrap_err().to_string();
    assert!([PYTHON, BUSYBOX, SCRATCH].iter().all(|name| error.contains(name)), "{error}");
}
