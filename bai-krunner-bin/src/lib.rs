//! The static kernel runner as bytes, and how to put it on a disk.
//!
//! Every build of bai carries the runner it was built with, so the two never disagree about their protocol.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The runner binary.
pub const RUNNER: &[u8] = include_bytes!(env!("BAI_KRUNNER"));

/// Puts the runner into `dir` as `bai-krunner-<hash>`, mode 0755, unless this very one is there. The directory is made when absent;
/// the file is whole or absent. Runners of other builds are left alone: kernels may still use them.
///
/// # Errors
/// What the file system says.
pub fn install(dir: &Path) -> io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    RUNNER.hash(&mut hasher);
    let path = dir.join(format!("bai-krunner-{:016x}", hasher.finish()));
    if fs::metadata(&path).is_ok_and(|found| found.len() == RUNNER.len() as u64) {
        return Ok(path);
    }
    fs::create_dir_all(dir)?;
    let draft = dir.join(format!(".bai-krunner-{}", std::process::id()));
    let _ = fs::remove_file(&draft); // of a crashed process that had our id
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&draft)?;
    file.write_all(RUNNER)?;
    file.sync_all()?;
    drop(file); // a file open for writing cannot be executed
    fs::rename(&draft, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_installed_runner_runs_and_is_static() {
        let dir = tempfile::tempdir().unwrap();
        let path = install(dir.path()).unwrap();
        assert_eq!(install(dir.path()).unwrap(), path);
        let said = Command::new(&path).arg("--version").output().unwrap();
        assert!(String::from_utf8_lossy(&said.stdout).starts_with("bai-krunner "), "{said:?}");
        let interpreter = b"/ld-linux";
        assert!(!RUNNER.windows(interpreter.len()).any(|window| window == interpreter), "linked dynamically");
    }
}
