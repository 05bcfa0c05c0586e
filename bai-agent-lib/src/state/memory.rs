use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bai_core::error::{Error, ErrorKind, Result};
use bai_core::id::KernelId;
use parking_lot::Mutex;

use super::{KernelRecord, StateStore, scratch_dir};

/// Records in memory, for simulated kernels. Files that are uploaded still go to disk.
#[derive(Debug)]
pub struct MemoryState {
    root: PathBuf,
    records: Mutex<HashMap<KernelId, KernelRecord>>,
}

impl MemoryState {
    /// An empty store whose kernels have their files below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), records: Mutex::default() }
    }
}

impl StateStore for MemoryState {
    fn load(&self) -> Result<Vec<KernelRecord>> {
        Ok(self.records.lock().values().cloned().collect())
    }

    fn save(&self, record: &KernelRecord) -> Result<()> {
        self.records.lock().insert(record.spec.kernel.id, record.clone());
        Ok(())
    }

    fn remove(&self, kernel: KernelId) -> Result<()> {
        self.records.lock().remove(&kernel);
        match std::fs::remove_dir_all(self.scratch(kernel)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::new(ErrorKind::Unavailable, "the files of the kernel cannot be removed")
                    .source(error))
            }
            _ => Ok(()),
        }
    }

    fn scratch(&self, kernel: KernelId) -> PathBuf {
        scratch_dir(&self.root, kernel)
    }

    fn on_disk(&self) -> bool {
        false
    }
}
