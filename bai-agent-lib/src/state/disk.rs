use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bai_core::error::{Error, Result, code};
use bai_core::id::KernelId;

use super::{KernelRecord, RECORD_VERSION, StateStore, scratch_dir};

const FILE: &str = "kernel.json";

/// Records as `scratch/<kernel id>/kernel.json`.
#[derive(Debug)]
pub struct DiskState {
    root: PathBuf,
}

impl DiskState {
    /// Opens the directory, making it when absent. Only this user can enter it.
    ///
    /// # Errors
    /// `Unavailable` when that is not possible.
    pub fn open(root: &Path) -> Result<Self> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let scratch = root.join("scratch");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&scratch)
            .map_err(|e| failed(&scratch, e))?;
        // Kernels pass through on their way to their own directory, but cannot list the others.
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o711)).map_err(|e| failed(&scratch, e))?;
        let root = root.canonicalize().map_err(|e| failed(root, e))?;
        Ok(Self { root })
    }
}

impl StateStore for DiskState {
    fn load(&self) -> Result<Vec<KernelRecord>> {
        let scratch = self.root.join("scratch");
        let mut records = Vec::new();
        for entry in fs::read_dir(&scratch).map_err(|e| failed(&scratch, e))? {
            let entry = entry.map_err(|e| failed(&scratch, e))?;
            match read(&entry.path().join(FILE)) {
                Ok(record) => records.extend(record),
                // Never a reason not to start: what runs there is found through the back end.
                Err(error) => {
                    tracing::warn!(%error, path = %entry.path().display(), "unreadable kernel record");
                }
            }
        }
        Ok(records)
    }

    fn save(&self, record: &KernelRecord) -> Result<()> {
        let dir = self.scratch(record.spec.kernel.id);
        write(&dir, record).map_err(|e| failed(&dir, e))
    }

    fn remove(&self, kernel: KernelId) -> Result<()> {
        let dir = self.scratch(kernel);
        // The record goes last: a removal cut short is seen and done again.
        for attempt in ["work", "config", "control", ""] {
            let path = dir.join(attempt);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path, error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn scratch(&self, kernel: KernelId) -> PathBuf {
        scratch_dir(&self.root, kernel)
    }

    fn on_disk(&self) -> bool {
        true
    }
}

fn read(path: &Path) -> io::Result<Option<KernelRecord>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let record: KernelRecord = serde_json::from_slice(&text)?;
    if record.version > RECORD_VERSION {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("record version {}", record.version)));
    }
    Ok(Some(record))
}

fn write(dir: &Path, record: &KernelRecord) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let text = serde_json::to_vec(record)?;
    let (path, next) = (dir.join(FILE), dir.join("kernel.json.new"));
    let open = || fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next);
    let mut file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o711).create(dir)?;
            open()?
        }
        other => other?,
    };
    file.write_all(&text)?;
    fs::rename(next, path)
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::of(code::BACKEND_FAILED, "the state directory cannot be used")
        .with("path", path.display())
        .source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Phase;
    use crate::testing::spec;

    #[test]
    fn records_survive_and_bad_ones_do_not_stop_the_others() {
        let root = tempfile::tempdir().unwrap();
        let state = DiskState::open(root.path()).unwrap();
        let mut record = KernelRecord::new(spec(), "token".into());
        state.save(&record).unwrap();
        record.phase = Phase::Running;
        state.save(&record).unwrap();
        let (broken, newer) = (KernelId::random(), KernelId::random());
        for (kernel, text) in [(broken, "{"), (newer, &*serde_json::to_string(&record).unwrap())] {
            let text = text.replace("\"version\":1", "\"version\":99");
            fs::create_dir(state.scratch(kernel)).unwrap();
            fs::write(state.scratch(kernel).join(FILE), text).unwrap();
        }
        let again = DiskState::open(root.path()).unwrap();
        assert_eq!(again.load().unwrap(), [record.clone()]);
        let path = state.scratch(record.kernel().id).join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(",\"cluster\":null"));
        fs::write(&path, text.replace(",\"cluster\":null", "")).unwrap();
        assert_eq!(again.load().unwrap(), [record.clone()], "written before there were clusters");
        again.remove(record.kernel().id).unwrap();
        again.remove(record.kernel().id).unwrap();
        assert!(again.load().unwrap().is_empty());
    }
}
