use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use bai_core::error::{Code, Error, Result, code};
use bai_core::execution::UploadFile;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, unlinkat};

use super::SIZE_LIMIT;

/// Where the directory is inside the kernel.
const HOME: &str = "/home/work";

/// The home directory of a kernel.
#[derive(Debug)]
pub(crate) struct Home {
    root: OwnedFd,
    owner: (u32, u32),
}

impl Home {
    /// Opens the directory at `path`; new files get `owner`.
    pub(crate) fn open(path: &Path, owner: (u32, u32)) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let root = nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| {
            Error::of(code::BACKEND_FAILED, "the home directory cannot be opened").source(errno)
        })?;
        Ok(Self { root, owner })
    }

    /// Writes all files, or none when a path or size is not acceptable.
    pub(crate) fn write_all(&self, files: &[UploadFile]) -> Result<()> {
        let mut checked = Vec::with_capacity(files.len());
        for file in files {
            let path = inner_path(&file.path)?;
            if file.content.len() as u64 > SIZE_LIMIT {
                return Err(refused(code::FILE_TOO_LARGE, "the file is too large", &file.path));
            }
            self.check_parents(&path, &file.path)?;
            checked.push((path, file));
        }
        for (path, file) in checked {
            self.write(&path, &file.content, 0o644).map_err(|errno| failed(errno, &file.path))?;
        }
        Ok(())
    }

    /// The bytes of a regular file.
    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>> {
        let fd = self.find(path)?;
        let file = reopen(&fd).map_err(|error| not_found(path).source(error))?;
        let size = file.metadata().map_err(|error| not_found(path).source(error))?.len();
        let mut bytes = Vec::new();
        if size <= SIZE_LIMIT {
            file.take(SIZE_LIMIT + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| not_found(path).source(error))?;
        }
        if size.max(bytes.len() as u64) > SIZE_LIMIT {
            return Err(refused(code::FILE_TOO_LARGE, "the file is too large", path));
        }
        Ok(bytes)
    }

    /// What is at `path`, without opening it for reading or writing.
    pub(super) fn find(&self, path: &str) -> Result<OwnedFd> {
        self.beneath(&inner_path(path)?, OFlag::O_PATH).map_err(|errno| failed(errno, path))
    }

    /// Refuses a path whose existing part leads out of the directory.
    fn check_parents(&self, path: &Path, shown: &str) -> Result<()> {
        for parent in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            match self.beneath(parent, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Ok(_) => {}
                Err(Errno::ENOENT) => return Ok(()),
                Err(errno) => return Err(failed(errno, shown)),
            }
        }
        if path.as_os_str().is_empty() {
            return Err(refused(code::FILE_NOT_FOUND, "not the path of a file", shown));
        }
        Ok(())
    }

    /// Makes a directory with the exact mode, unless there is one. Its parents are made, too.
    pub(crate) fn make_dir(&self, path: &Path, mode: u32) -> Result<()> {
        let shown = path.to_string_lossy();
        let make = || {
            let parent = self.make_parents(path.parent().unwrap_or(Path::new("")))?;
            self.make_one(&parent, path.file_name().ok_or(Errno::EISDIR)?, mode)?;
            self.beneath(path, OFlag::O_PATH | OFlag::O_DIRECTORY)
        };
        make().map(drop).map_err(|errno| failed(errno, &shown))
    }

    /// Writes one file by renaming a finished one into place, if its directory is not outside.
    pub(crate) fn replace(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        self.write(&inner_path(path)?, content, mode).map_err(|errno| failed(errno, path))
    }

    /// Writes one file by renaming a finished one into place. Directories on the way are made.
    pub(crate) fn write(&self, path: &Path, content: &[u8], mode: u32) -> nix::Result<()> {
        let parent = self.make_parents(path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().ok_or(Errno::EISDIR)?;
        let temporary = format!(".upload-{:016x}", rand::random::<u64>());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&parent, &*temporary, flags, Mode::from_bits_truncate(mode))?);
        let result = file
            .write_all(content)
            .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
            .and_then(|()| fchown(file.as_fd(), Some(self.uid()), Some(self.gid())))
            .and_then(|()| renameat(&parent, &*temporary, &parent, name));
        if result.is_err() {
            let _ = unlinkat(&parent, &*temporary, UnlinkatFlags::NoRemoveDir);
        }
        result
    }

    fn make_parents(&self, path: &Path) -> nix::Result<OwnedFd> {
        let mut parent = self.beneath(Path::new(""), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let mut done = PathBuf::new();
        for name in path {
            self.make_one(&parent, name, 0o755)?;
            done.push(name);
            parent = self.beneath(&done, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        }
        Ok(parent)
    }

    /// Makes a directory in an open one, unless something is there.
    fn make_one(&self, parent: &OwnedFd, name: &OsStr, mode: u32) -> nix::Result<()> {
        match mkdirat(parent, name, Mode::from_bits_truncate(mode)) {
            Ok(()) => {
                let (uid, gid) = (Some(self.uid()), Some(self.gid()));
                fchownat(parent, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
            }
            Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn beneath(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, path, how)
    }

    fn uid(&self) -> Uid {
        Uid::from_raw(self.owner.0)
    }

    fn gid(&self) -> Gid {
        Gid::from_raw(self.owner.1)
    }
}

/// Opens for reading what an `O_PATH` descriptor stands for, if it is a regular file.
pub(super) fn reopen(fd: &OwnedFd) -> io::Result<File> {
    let path = fd_path(fd);
    if !std::fs::metadata(&path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)
}

/// A path that leads to what the descriptor stands for and nowhere else.
pub(super) fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A path as given by a user, relative to the home directory and without `..`.
pub(super) fn inner_path(path: &str) -> Result<PathBuf> {
    let escapes = || refused(code::PATH_ESCAPES, "the path leaves the home directory", path);
    if path.contains('\0') {
        return Err(escapes());
    }
    let given = Path::new(path);
    let relative = if given.is_absolute() { given.strip_prefix(HOME).map_err(|_| escapes())? } else { given };
    let mut inner = PathBuf::new();
    for component in relative.components() {
        match component {
            Component::Normal(name) => inner.push(name),
            Component::CurDir => {}
            Component::ParentDir if inner.pop() => {}
            _ => return Err(escapes()),
        }
    }
    Ok(inner)
}

pub(super) fn refused(code: Code, message: &str, path: &str) -> Error {
    Error::of(code, message).with("path", path)
}

pub(super) fn not_found(path: &str) -> Error {
    refused(code::FILE_NOT_FOUND, "no such file", path)
}

fn failed(errno: Errno, path: &str) -> Error {
    match errno {
        Errno::EXDEV | Errno::ELOOP => {
            refused(code::PATH_ESCAPES, "the path leaves the home directory", path)
        }
        Errno::ENOENT | Errno::ENOTDIR | Errno::EISDIR | Errno::ENAMETOOLONG | Errno::EACCES => {
            not_found(path).source(errno)
        }
        Errno::ENOSPC | Errno::EDQUOT => Error::of(code::QUOTA_EXCEEDED, "no space left").with("path", path),
        _ => Error::of(code::BACKEND_FAILED, "the file cannot be accessed").with("path", path).source(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let home = Home::open(&dir.path().join("work"), owner).unwrap();
        (dir, home)
    }

    fn file(path: &str) -> UploadFile {
        UploadFile { path: path.into(), content: b"x".to_vec() }
    }

    #[test]
    fn paths_are_relative_to_the_home_directory() {
        for (given, inner) in [("a/b", "a/b"), ("/home/work/a", "a"), ("./a/../b", "b"), ("", ""), (".", "")]
        {
            assert_eq!(inner_path(given).unwrap(), Path::new(inner), "{given}");
        }
        for given in ["../a", "/etc/passwd", "a/../../b", "/home/work/../x", "a\0b", "/home/workx"] {
            assert_eq!(inner_path(given).unwrap_err().code(), code::PATH_ESCAPES, "{given:?}");
        }
    }

    #[test]
    fn files_are_written_and_read_back() {
        let (dir, home) = home();
        home.write_all(&[file("a/b/c.txt"), file("/home/work/d")]).unwrap();
        home.write_all(&[UploadFile { path: "d".into(), content: b"new".to_vec() }]).unwrap();
        assert_eq!(home.read("a/b/c.txt").unwrap(), b"x");
        assert_eq!(home.read("d").unwrap(), b"new");
        assert_eq!(home.read("a").unwrap_err().code(), code::FILE_NOT_FOUND);
        assert_eq!(home.read("none").unwrap_err().code(), code::FILE_NOT_FOUND);
        assert_eq!(std::fs::read_dir(dir.path().join("work/a/b")).unwrap().count(), 1);
    }

    #[test]
    fn links_that_lead_out_are_refused_and_nothing_is_written() {
        let (dir, home) = home();
        let work = dir.path().join("work");
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), work.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../outside", work.join("relative")).unwrap();
        std::os::unix::fs::symlink("../secret", work.join("file")).unwrap();
        for path in ["absolute/x", "relative/x"] {
            let error = home.write_all(&[file("good"), file(path)]).unwrap_err();
            assert_eq!(error.code(), code::PATH_ESCAPES, "{path}");
        }
        assert!(!work.join("good").exists());
        assert_eq!(home.read("file").unwrap_err().code(), code::PATH_ESCAPES);
        // Writing to the name of a link replaces the link.
        home.write_all(&[file("file")]).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("secret")).unwrap(), "s");
        assert_eq!(std::fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
    }

    #[test]
    fn links_inside_are_followed_and_special_files_are_not_opened() {
        let (dir, home) = home();
        let work = dir.path().join("work");
        std::fs::create_dir(work.join("real")).unwrap();
        std::os::unix::fs::symlink("real", work.join("link")).unwrap();
        home.write_all(&[file("link/x")]).unwrap();
        assert_eq!(home.read("real/x").unwrap(), b"x");
        nix::unistd::mkfifo(&work.join("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(home.read("pipe").unwrap_err().code(), code::FILE_NOT_FOUND);
    }

    #[test]
    fn sizes_are_limited() {
        let (dir, home) = home();
        let large = UploadFile { path: "l".into(), content: vec![0; (1 << 20) + 1] };
        assert_eq!(home.write_all(&[large]).unwrap_err().code(), code::FILE_TOO_LARGE);
        std::fs::write(dir.path().join("work/big"), vec![0; (1 << 20) + 1]).unwrap();
        assert_eq!(home.read("big").unwrap_err().code(), code::FILE_TOO_LARGE);
    }
}
