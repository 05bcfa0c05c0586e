use std::sync::Arc;

use bai_core::error::code;
use bai_core::execution::UploadFile;

use super::AgentUnderTest;

fn file(path: &str, content: &[u8]) -> UploadFile {
    UploadFile { path: path.into(), content: content.to_vec() }
}

pub async fn files_go_in_and_out(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    let content: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let files = vec![file("a/b/data.bin", &content), file("/home/work/top.txt", b"top")];
    agent.api.upload(kernel, files).await.unwrap();
    agent.api.upload(kernel, vec![file("top.txt", b"replaced")]).await.unwrap();
    assert!(agent.api.download_single(kernel, "a/b/data.bin").await.unwrap() == content);
    assert_eq!(agent.api.download_single(kernel, "top.txt").await.unwrap(), b"replaced");
}

pub async fn directories_are_listed_and_archived(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    agent.api.upload(kernel, vec![file("d/x", b"123"), file("d/sub/y", b"45")]).await.unwrap();
    let entries = agent.api.list_files(kernel, "d").await.unwrap();
    let shown: Vec<_> = entries.iter().map(|entry| (entry.filename.as_str(), entry.mode.as_str())).collect();
    assert_eq!(shown, [("sub", "drwxr-xr-x"), ("x", "-rw-r--r--")]);
    assert_eq!(entries[1].size, 3);
    assert!(entries[1].mtime > 1e9 && entries[1].ctime > 1e9 && entries[1].atime > 1e9);
    let archive = agent.api.download(kernel, "d").await.unwrap();
    for name in ["d/x", "d/sub/y"] {
        assert!(archive.windows(name.len()).any(|bytes| bytes == name.as_bytes()), "{name}");
    }
    assert_eq!(archive.len() % 512, 0);
}

pub async fn paths_outside_are_refused_and_nothing_is_written(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    for path in ["../outside", "/etc/passwd", "a/../../outside", "/home/work/../outside"] {
        let refused = agent.api.upload(kernel, vec![file("good", b"x"), file(path, b"x")]).await.unwrap_err();
        assert_eq!(refused.code(), code::PATH_ESCAPES, "{path}");
        for error in [
            agent.api.download(kernel, path).await.unwrap_err(),
            agent.api.download_single(kernel, path).await.unwrap_err(),
            agent.api.list_files(kernel, path).await.unwrap_err(),
        ] {
            assert_eq!(error.code(), code::PATH_ESCAPES, "{path}");
        }
    }
    assert_eq!(agent.api.download_single(kernel, "good").await.unwrap_err().code(), code::FILE_NOT_FOUND);
}

pub async fn files_that_are_missing_or_too_large_are_refused(agent: Arc<AgentUnderTest>) {
    let kernel = agent.kernel().await;
    let half = vec![7; 600 << 10];
    agent.api.upload(kernel, vec![file("big/a", &half), file("big/b", &half)]).await.unwrap();
    assert_eq!(agent.api.download(kernel, "big").await.unwrap_err().code(), code::FILE_TOO_LARGE);
    let large = vec![file("large", &vec![0; (1 << 20) + 1])];
    assert_eq!(agent.api.upload(kernel, large).await.unwrap_err().code(), code::FILE_TOO_LARGE);
    for path in ["missing", "big/missing"] {
        assert_eq!(agent.api.download(kernel, path).await.unwrap_err().code(), code::FILE_NOT_FOUND);
        assert_eq!(agent.api.list_files(kernel, path).await.unwrap_err().code(), code::FILE_NOT_FOUND);
    }
    assert_eq!(agent.api.download_single(kernel, "big").await.unwrap_err().code(), code::FILE_NOT_FOUND);
}
