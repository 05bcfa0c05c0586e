//! `bai upload`, `download` and `ls`.

use std::path::{Path, PathBuf};

use bai_client::{Client, Session, Upload};
use bai_core::{Error, Result, error::code};

use crate::args;
use crate::output::Output;
use crate::progress;

/// Files of one request, and bytes of one file: limits of the API.
const FILES_PER_REQUEST: usize = 20;

pub(super) async fn upload(args: args::Upload, client: &Client, output: Output) -> Result<()> {
    send(&client.session(args.session), &args.files, output).await?;
    output.note(format_args!("uploaded {}", counted(args.files.len())));
    Ok(())
}

fn counted(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

pub(super) async fn download(args: args::Download, client: &Client, output: Output) -> Result<()> {
    let session = client.session(args.session);
    let bar = progress::counting(output, args.files.len() as u64);
    for path in &args.files {
        session.download_to(std::slice::from_ref(path), &args.dest).await?;
        bar.advance(1);
    }
    output.note(format_args!("downloaded {} to {}", counted(args.files.len()), args.dest.display()));
    Ok(())
}

pub(super) async fn list(args: &args::Ls, client: &Client, output: Output) -> Result<()> {
    let rows = client.session(&args.session).list_files(&args.path).await?;
    output.rows(&["MODE", "SIZE", "NAME"], &rows, |row| {
        vec![row.mode.clone(), row.size.to_string(), row.filename.clone()]
    });
    Ok(())
}

/// Uploads local files under the paths they were given by.
pub(super) async fn send(session: &Session, paths: &[PathBuf], output: Output) -> Result<()> {
    let files = paths.iter().map(|path| to_upload(path)).collect::<Result<Vec<_>>>()?;
    let bar = progress::transfer(output, files.iter().map(|file| file.content.len() as u64).sum());
    for batch in files.chunks(FILES_PER_REQUEST) {
        session.upload(batch).await?;
        bar.advance(batch.iter().map(|file| file.content.len() as u64).sum());
    }
    Ok(())
}

fn to_upload(path: &Path) -> Result<Upload> {
    let inside =
        !path.is_absolute() && !path.components().any(|part| part == std::path::Component::ParentDir);
    if !inside {
        return Err(Error::of(code::PATH_ESCAPES, "only files below the current directory can be uploaded")
            .with("path", path.display()));
    }
    Ok(Upload::new(path.to_string_lossy(), read_local(path)?))
}

/// The content of a local file.
pub(super) fn read_local(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|cause| {
        Error::of(code::CLIENT_USAGE, "cannot read the file")
            .with("path", path.display())
            .with("reason", &cause)
            .source(cause)
    })
}
