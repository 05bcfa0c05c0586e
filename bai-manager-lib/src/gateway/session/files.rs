//! Files of a session's home (spec session-lifecycle.md, sections 7 and 8).

use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError, MultipartRejection};
use axum::extract::{Multipart, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use bai_core::error::code;
use bai_core::execution::UploadFile;
use bai_core::{Error, ErrorKind};
use percent_encoding::percent_decode_str;
use serde_json::json;
use uuid::Uuid;

use super::Reference;
use crate::gateway::auth::Auth;
use crate::gateway::failure::{Failure, Reply};
use crate::gateway::params::{Params, kind, query_value};
use crate::gateway::{Gateway, reply};

/// Most files of one upload.
const UPLOAD_FILES: usize = 20;
/// Bytes that a file of an upload must stay below.
const UPLOAD_FILE_BYTES: usize = 1 << 20;
/// Most files of one download.
const DOWNLOAD_FILES: usize = 5;
/// Largest body of an upload: 20 full files with their part headers.
pub(in crate::gateway) const UPLOAD_BODY: usize = (UPLOAD_FILES + 4) * UPLOAD_FILE_BYTES;

/// `POST /session/{s}/upload`: all files, or on any mistake none.
pub(in crate::gateway) async fn upload(
    State(gateway): State<Gateway>,
    auth: Auth,
    Reference(reference): Reference,
    uri: Uri,
    multipart: Result<Multipart, MultipartRejection>,
) -> Reply {
    let scope = auth.scope(&gateway, query_value(&uri, "owner_access_key").as_deref()).await?;
    let multipart = multipart.map_err(|_| Failure::of(code::MALFORMED_BODY, "Malformed body"))?;
    let files = read_files(multipart).await?;
    gateway.manager().sessions().upload(&scope, &reference, files).await?;
    Ok(reply::no_content())
}

async fn read_files(mut multipart: Multipart) -> Result<Vec<UploadFile>, Failure> {
    let mut files = Vec::new();
    while let Some(field) = multipart.next_field().await.map_err(|error| unreadable(&error))? {
        if files.len() == UPLOAD_FILES {
            return Err(too_many(UPLOAD_FILES));
        }
        files.push(read_file(field).await?);
    }
    Ok(files)
}

async fn read_file(mut field: Field<'_>) -> Result<UploadFile, Failure> {
    let name =
        field.file_name().ok_or_else(|| Failure::of(code::MALFORMED_BODY, "a part has no file name"))?;
    // The official client escapes everything but letters and digits in the file name, slashes included.
    let path = percent_decode_str(name).decode_utf8();
    let path = path.map_err(|_| Failure::of(code::MALFORMED_BODY, "a file name is not UTF-8"))?.into_owned();
    let mut content = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| unreadable(&error))? {
        if content.len() + chunk.len() >= UPLOAD_FILE_BYTES {
            let error = Error::of(code::FILE_TOO_LARGE, "Too large file");
            return Err(Failure(error.with("path", path).with("limit", "less than 1 MiB")));
        }
        content.extend_from_slice(&chunk);
    }
    Ok(UploadFile { path, content })
}

fn too_many(limit: usize) -> Failure {
    Failure(Error::of(code::TOO_MANY_FILES, "Too many files").with("limit", limit))
}

fn unreadable(error: &MultipartError) -> Failure {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Failure::of(code::FILE_TOO_LARGE, "Too large file")
    } else {
        Failure::of(code::MALFORMED_BODY, "Malformed body")
    }
}

/// `GET` (and `POST`) `/session/{s}/download`: one tar archive per path, as parts.
pub(in crate::gateway) async fn download(
    State(gateway): State<Gateway>,
    auth: Auth,
    Reference(reference): Reference,
    params: Params,
) -> Reply {
    let scope = auth.scope(&gateway, params.owner()).await?;
    let mut check = params.check();
    let paths = check.required("files", kind::list(kind::text));
    check.finish()?;
    if paths.len() > DOWNLOAD_FILES {
        return Err(too_many(DOWNLOAD_FILES));
    }
    let mut archives = Vec::with_capacity(paths.len());
    for path in &paths {
        archives.push(gateway.manager().sessions().download(&scope, &reference, path).await?);
    }
    mixed(&archives)
}

/// A `multipart/mixed` reply whose parts are archives.
fn mixed(archives: &[Vec<u8>]) -> Reply {
    let boundary = Uuid::new_v4().simple().to_string();
    let mut body = Vec::with_capacity(archives.iter().map(|archive| archive.len() + 256).sum());
    for archive in archives {
        let head = format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Encoding: identity\r\n\
             Content-Length: {}\r\n\r\n",
            archive.len()
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(archive);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    bytes(&format!("multipart/mixed; boundary={boundary}"), body)
}

/// `GET /session/{s}/download_single`: the bytes of one file.
pub(in crate::gateway) async fn download_single(
    State(gateway): State<Gateway>,
    auth: Auth,
    Reference(reference): Reference,
    params: Params,
) -> Reply {
    let scope = auth.scope(&gateway, params.owner()).await?;
    let mut check = params.check();
    let path = check.required("file", kind::non_empty);
    check.finish()?;
    let content = gateway.manager().sessions().download_single(&scope, &reference, &path).await?;
    bytes("application/octet-stream", content)
}

fn bytes(content_type: &str, content: Vec<u8>) -> Reply {
    let content_type = HeaderValue::from_str(content_type)
        .map_err(|error| Failure(Error::new(ErrorKind::Internal, "not a content type").source(error)))?;
    let mut response = Response::new(Body::from(content));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// `GET /session/{s}/files`: a directory listing, as a JSON text in a JSON body. What is wrong with the path is told in
/// `errors`, where the official client looks for it.
pub(in crate::gateway) async fn list(
    State(gateway): State<Gateway>,
    auth: Auth,
    Reference(reference): Reference,
    params: Params,
) -> Reply {
    let scope = auth.scope(&gateway, params.owner()).await?;
    let mut check = params.check();
    let path = check.open().or("path", kind::text, ".".to_owned());
    check.finish()?;
    let (entries, errors) = match gateway.manager().sessions().list_files(&scope, &reference, &path).await {
        Ok(entries) => (entries, String::new()),
        Err(error) if [code::FILE_NOT_FOUND, code::PATH_ESCAPES].contains(&error.code()) => {
            (Vec::new(), error.to_string())
        }
        Err(error) => return Err(error.into()),
    };
    let files = serde_json::to_string(&entries).map_err(|error| {
        Failure(Error::new(ErrorKind::Internal, "the listing cannot be written").source(error))
    })?;
    reply::ok(&json!({ "files": files, "errors": errors, "abspath": path }))
}
