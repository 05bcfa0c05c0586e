//! One process per database file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use bai_core::error::{Error, Result, code};

/// Holds the lock of a database file until it is dropped, or its process ends in whatever way.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Locks the database at `path`, by a file beside it that names the process.
    ///
    /// # Errors
    /// `Unavailable` when another process, or another store of this one, has it; `pid` tells which.
    pub(crate) fn acquire(path: &Path) -> Result<Self> {
        let lock = lock_path(path);
        let failed = |message: &str, error: std::io::Error| {
            Error::of(code::STORE_FAILED, message).with("path", lock.display()).source(error)
        };
        let mut file = (OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock))
            .map_err(|error| failed("the lock file of the database cannot be opened", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed("the database cannot be locked", error)),
        }
        write_pid(&mut file)
            .map_err(|error| failed("the lock file of the database cannot be written", error))?;
        Ok(Self { _file: file })
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn in_use(path: &Path, file: &mut File) -> Error {
    let mut pid = String::new();
    let known = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
    Error::of(code::STORE_FAILED, "the database is in use by another process")
        .with("path", path.display())
        .with("pid", if known { pid.trim() } else { "unknown" })
}
