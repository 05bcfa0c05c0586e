//! Files of a session's home directory.

use bai_core::execution::FileEntry;
use bai_core::{Error, Result, error::code};
use bytes::Bytes;
use http::Method;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::json;

use super::Session;
use crate::client::Content;

/// A file to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Path below the home directory.
    pub path: String,
    /// Content, less than 1 MiB.
    pub content: Bytes,
}

impl Upload {
    /// A file `path` with `content`.
    pub fn new(path: impl Into<String>, content: impl Into<Bytes>) -> Self {
        Self { path: path.into(), content: content.into() }
    }
}

impl Session {
    /// Writes files into the home directory; parents are created, existing files replaced. At most 20 files of less than 1 MiB.
    ///
    /// # Errors
    /// `Invalid` for too many or too large files and for paths that leave the home directory; nothing is written then.
    pub async fn upload(&self, files: &[Upload]) -> Result<()> {
        let boundary = format!("bai{}", bai_core::SessionId::random().0.simple());
        let body = multipart(&boundary, files);
        self.client
            .send(Method::POST, &self.path("/upload"), Content::multipart(&boundary, body))
            .await
            .map(drop)
    }

    /// The content of one file, at most 1 MiB.
    ///
    /// # Errors
    /// `Invalid` when it does not exist, is not a regular file, or is too large.
    pub async fn read(&self, path: &str) -> Result<Bytes> {
        let body = Content::json(&json!({ "file": path }));
        self.client.send(Method::GET, &self.path("/download_single"), body).await?.into_body().collect().await
    }

    /// Tar archives of files or directories, one for each path; at most 5 paths of 1 MiB.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub async fn download(&self, paths: &[String]) -> Result<Vec<Vec<u8>>> {
        let body = Content::json(&json!({ "files": paths }));
        let reply = self.client.send(Method::GET, &self.path("/download"), body).await?;
        let boundary = reply
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split("boundary=").nth(1))
            .map(|boundary| boundary.trim_matches('"').to_owned())
            .ok_or_else(|| Error::of(code::BAD_REPLY, "the download is not a multipart body"))?;
        Ok(parts(&reply.into_body().collect().await?, &boundary))
    }

    /// Unpacks what `paths` name into the local directory `into`.
    ///
    /// # Errors
    /// As [`Session::read`], and `Unavailable` when a local file cannot be written.
    pub async fn download_to(&self, paths: &[String], into: &std::path::Path) -> Result<()> {
        for archive in self.download(paths).await? {
            tar::Archive::new(archive.as_slice()).unpack(into).map_err(|cause| {
                Error::of(code::UNAVAILABLE, "cannot write the downloaded files")
                    .with("directory", into.display())
                    .source(cause)
            })?;
        }
        Ok(())
    }

    /// The entries of a directory of the home.
    ///
    /// # Errors
    /// `Invalid` when it does not exist or lies outside.
    pub async fn list_files(&self, path: &str) -> Result<Vec<FileEntry>> {
        #[derive(Deserialize)]
        struct Reply {
            files: String,
            #[serde(default)]
            errors: String,
        }
        let body = Content::json(&json!({ "path": path }));
        let reply: Reply = self.client.json(Method::GET, &self.path("/files"), body).await?;
        if !reply.errors.is_empty() {
            return Err(Error::of(code::FILE_NOT_FOUND, reply.errors)); // the text names the path
        }
        serde_json::from_str(&reply.files)
            .map_err(|cause| Error::of(code::BAD_REPLY, "the file list cannot be understood").source(cause))
    }
}

fn multipart(boundary: &str, files: &[Upload]) -> Bytes {
    let mut body = Vec::new();
    for file in files {
        let name = file.path.replace('"', "%22");
        body.extend_from_slice(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"src\"; filename=\"{name}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            )
            .as_bytes(),
        );
        body.extend_from_slice(&file.content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body.into()
}

/// The contents of the parts of a `multipart/mixed` body.
fn parts(body: &[u8], boundary: &str) -> Vec<Vec<u8>> {
    let delimiter = format!("--{boundary}");
    let mut found = Vec::new();
    let mut rest = body;
    while let Some(start) = find(rest, delimiter.as_bytes()) {
        rest = &rest[start + delimiter.len()..];
        if rest.starts_with(b"--") {
            break;
        }
        let Some(head) = find(rest, b"\r\n\r\n") else { break };
        let content = &rest[head + 4..];
        let Some(end) = find(content, format!("\r\n{delimiter}").as_bytes()) else { break };
        found.push(content[..end].to_vec());
        rest = &content[end + 2..];
    }
    found
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_between_boundaries() {
        let files = [Upload::new("a", "one\r\ntwo"), Upload::new("b", "")];
        let body = multipart("xx", &files);
        assert_eq!(parts(&body, "xx"), vec![b"one\r\ntwo".to_vec(), Vec::new()]);
        assert_eq!(parts(b"garbage", "xx"), Vec::<Vec<u8>>::new());
    }
}
