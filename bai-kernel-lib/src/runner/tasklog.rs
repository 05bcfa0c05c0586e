//! Bounded logs of everything user code writes (K-9).

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
    sync::Mutex,
};

use nix::{
    fcntl::{OFlag, open, openat, renameat},
    sys::stat::Mode,
    unistd::{Gid, Uid, setfsgid, setfsuid},
};

use super::{process::Identity, supervise::lock};

/// Most bytes appended to the user's own log file by one runner.
const USER_LOG_LIMIT: u64 = 64 << 20;

/// The log kept for the agent: two files of half the limit, the newest output in the first.
#[derive(Debug, Default)]
pub(super) struct TaskLog(Mutex<Option<Rotating>>);

#[derive(Debug)]
struct Rotating {
    /// Held open, so that rotation works after the directory was detached from the namespace.
    dir: OwnedFd,
    name: OsString,
    file: File,
    size: u64,
    half: u64,
}

impl TaskLog {
    /// Opens the log, going on with an existing one.
    pub(super) fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let dir = open(parent, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let name = path.file_name().unwrap_or(OsStr::new("task.log")).to_owned();
        let file = open_log(&dir, &name)?;
        let size = file.metadata()?.len();
        Ok(Self(Mutex::new(Some(Rotating { dir, name, file, size, half: (limit / 2).max(1) }))))
    }

    /// Appends output. A log that cannot be written (a full disk) is given up, never the program.
    pub(super) fn write(&self, data: &[u8]) {
        let mut log = lock(&self.0);
        if log.as_mut().is_some_and(|log| log.write(data).is_err()) {
            *log = None;
        }
    }
}

impl Rotating {
    fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            if self.size >= self.half {
                self.rotate()?;
            }
            let room = usize::try_from(self.half - self.size).unwrap_or(usize::MAX);
            let (now, later) = data.split_at(room.min(data.len()));
            self.file.write_all(now)?;
            self.size += now.len() as u64;
            data = later;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.name.clone();
        old.push(".old");
        renameat(&self.dir, self.name.as_os_str(), &self.dir, old.as_os_str())?;
        self.file = open_log(&self.dir, &self.name)?;
        self.size = 0;
        Ok(())
    }
}

fn open_log(dir: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_CREAT | OFlag::O_APPEND | OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    Ok(openat(dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into())
}

/// The log in the user's folder `.logs`, when there is one (`krunner.md` section 4).
#[derive(Debug)]
pub(super) struct UserLog {
    file: File,
    left: u64,
}

impl UserLog {
    /// Opens `.logs/task/<2 hex>/<2 hex>/<rest>.log` below the work directory with the rights of the user, so
    /// that a link planted there leads nowhere the user could not write anyway.
    pub(super) fn open(work_dir: &Path, kernel_id: &str, identity: Option<&Identity>) -> Option<Self> {
        let id: String = kernel_id.chars().filter(char::is_ascii_hexdigit).collect();
        let logs = work_dir.join(".logs");
        if id.len() < 5 || !logs.is_dir() {
            return None;
        }
        let dir = logs.join("task").join(&id[..2]).join(&id[2..4]);
        let path = dir.join(format!("{}.log", &id[4..]));
        let file = as_user(identity, || {
            fs::create_dir_all(&dir)?;
            // Without waiting for the reader of a planted pipe.
            fs::OpenOptions::new().create(true).append(true).custom_flags(libc::O_NONBLOCK).open(&path)
        });
        let file = file.ok().filter(|file| file.metadata().is_ok_and(|meta| meta.is_file()))?;
        let left = USER_LOG_LIMIT.saturating_sub(file.metadata().ok()?.len());
        Some(Self { file, left })
    }

    pub(super) fn write(&mut self, data: &[u8]) {
        let part = &data[..data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))];
        self.left = if self.file.write_all(part).is_ok() { self.left - part.len() as u64 } else { 0 };
    }
}

/// Runs `action` with the file system rights of the user; they belong to this thread alone.
fn as_user<T>(identity: Option<&Identity>, action: impl FnOnce() -> T) -> T {
    let Some(identity) = identity else { return action() };
    let (uid, gid) = (setfsuid(Uid::effective()), setfsgid(Gid::effective()));
    setfsgid(Gid::from_raw(identity.gid));
    setfsuid(Uid::from_raw(identity.uid));
    let result = action();
    setfsuid(uid);
    setfsgid(gid);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_output_survives_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("task.log");
        let log = TaskLog::open(&path, 20).unwrap();
        log.write(b"0123456789abcdefghijklmno");
        assert_eq!(fs::read(&path).unwrap(), b"klmno");
        assert_eq!(fs::read(dir.path().join("task.log.old")).unwrap(), b"abcdefghij");
        let log = TaskLog::open(&path, 20).unwrap();
        log.write(b"+");
        assert_eq!(fs::read(&path).unwrap(), b"klmno+");
    }

    #[test]
    fn the_users_log_needs_its_folder_and_is_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let id = "0011aabb-ccdd";
        assert!(UserLog::open(dir.path(), id, None).is_none());
        fs::create_dir(dir.path().join(".logs")).unwrap();
        UserLog::open(dir.path(), id, None).unwrap().write(b"out");
        let path = dir.path().join(".logs/task/00/11/aabbccdd.log");
        assert_eq!(fs::read(&path).unwrap(), b"out");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert!(UserLog::open(dir.path(), id, None).is_none());
    }
}
