use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bai_core::error::{Result, code};
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use tar::{Builder, EntryType, Header};

use super::SIZE_LIMIT;
use super::home::{Home, fd_path, inner_path, not_found, refused, reopen};

/// Deepest directory in an archive, so that a chain of directories cannot exhaust the stack.
const MAX_DEPTH: usize = 128;

impl Home {
    /// A tar archive of what is at `path`, under its last name. Symbolic links inside are kept as links; sockets, pipes
    /// and devices are left out.
    pub(crate) fn archive(&self, path: &str) -> Result<Vec<u8>> {
        let root = self.find(path)?;
        let inner = inner_path(path)?;
        let name = inner.file_name().unwrap_or(OsStr::new("work"));
        let mut archive = Builder::new(Vec::new());
        let bytes = append(&mut archive, &root, Path::new(name), 0).and_then(|()| archive.into_inner());
        bytes.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => refused(code::FILE_TOO_LARGE, "the archive is too large", path),
            _ => not_found(path).source(error),
        })
    }
}

fn append(archive: &mut Builder<Vec<u8>>, fd: &OwnedFd, name: &Path, depth: usize) -> io::Result<()> {
    // For a link, `fd_path` itself would be followed to the link, not through it.
    let metadata = std::fs::metadata(fd_path(fd)).or_else(|_| std::fs::symlink_metadata(fd_path(fd)))?;
    if depth > MAX_DEPTH || archive.get_ref().len() as u64 + 1024 > SIZE_LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    if metadata.is_file() {
        append_file(archive, fd, name, &metadata)
    } else if metadata.is_dir() {
        let mut header = header(&metadata, EntryType::Directory, 0);
        archive.append_data(&mut header, directory_name(name), io::empty())?;
        append_children(archive, fd, name, depth)
    } else {
        Ok(())
    }
}

fn append_file(
    archive: &mut Builder<Vec<u8>>,
    fd: &OwnedFd,
    name: &Path,
    metadata: &Metadata,
) -> io::Result<()> {
    let size = metadata.len();
    if archive.get_ref().len() as u64 + size + 1024 > SIZE_LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    // A file that shrinks meanwhile is filled up with zeros: the header has its size.
    let content = io::Read::chain(reopen(fd)?, io::repeat(0));
    archive.append_data(&mut header(metadata, EntryType::Regular, size), name, io::Read::take(content, size))
}

fn append_children(
    archive: &mut Builder<Vec<u8>>,
    dir: &OwnedFd,
    name: &Path,
    depth: usize,
) -> io::Result<()> {
    let mut entries = std::fs::read_dir(fd_path(dir))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let child = name.join(entry.file_name());
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        if entry.file_type()?.is_symlink() {
            if let Ok(target) = readlinkat(dir, entry.file_name().as_os_str()) {
                let mut header = Header::new_gnu();
                header.set_entry_type(EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                archive.append_link(&mut header, child, target)?;
            }
        } else if let Ok(fd) = openat(dir, entry.file_name().as_os_str(), flags, Mode::empty()) {
            append(archive, &fd, &child, depth + 1)?;
        }
    }
    Ok(())
}

fn header(metadata: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_entry_type(kind);
    header.set_size(size);
    header
}

fn directory_name(name: &Path) -> PathBuf {
    name.join("")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_comes_with_all_that_belongs_to_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("work/data/sub")).unwrap();
        fs::write(dir.path().join("work/data/sub/f"), "content").unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink("../../secret", dir.path().join("work/data/link")).unwrap();
        let home = Home::open(&dir.path().join("work"), (0, 0)).unwrap();
        let archive = home.archive("data").unwrap();
        let out = dir.path().join("out");
        tar::Archive::new(archive.as_slice()).unpack(&out).unwrap();
        assert_eq!(fs::read_to_string(out.join("data/sub/f")).unwrap(), "content");
        assert_eq!(fs::read_link(out.join("data/link")).unwrap(), Path::new("../../secret"));
        assert!(home.archive("data/link").unwrap_err().code() == code::PATH_ESCAPES);
        let whole = home.archive("").unwrap();
        let mut names = tar::Archive::new(whole.as_slice());
        let first = names.entries().unwrap().next().unwrap().unwrap().path().unwrap().into_owned();
        assert_eq!(first, Path::new("work/"));
    }

    #[test]
    fn an_archive_is_at_most_as_large_as_allowed() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..9 {
            fs::write(dir.path().join(format!("{i}")), vec![1; 128 << 10]).unwrap();
        }
        let home = Home::open(dir.path(), (0, 0)).unwrap();
        assert_eq!(home.archive(".").unwrap_err().code(), code::FILE_TOO_LARGE);
        assert!(home.archive("3").unwrap().len() < 200 << 10);
    }
}
