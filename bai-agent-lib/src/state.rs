//! What an agent must not forget: one record per kernel, written before each effect it announces.

mod disk;
mod memory;

use std::fmt;
use std::path::{Path, PathBuf};

use bai_core::error::Result;
use bai_core::id::KernelId;
use bai_core::port::agent::{BatchOutcome, KernelRef, KernelSpec};
use bai_core::session::{KernelExit, ServicePort};
use bai_scheduler::device::Holding;
use serde::{Deserialize, Serialize};

pub use disk::DiskState;
pub use memory::MemoryState;

/// Version of the record format. A record of a later version is left alone.
pub const RECORD_VERSION: u32 = 1;

/// How far a kernel got. What is written is an intent: the effect may or may not have happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum Phase {
    /// To be started; perhaps started.
    Starting,
    /// Started; the runner has answered.
    Running,
    /// To be ended; perhaps ended.
    Terminating {
        /// Why.
        reason: String,
    },
    /// Ended.
    Exited {
        /// How.
        exit: KernelExit,
    },
    /// Could not be started.
    Failed {
        /// Code of the error.
        code: String,
        /// Why, in words.
        message: String,
    },
}

impl Phase {
    /// Whether nothing of the kernel runs any more.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Exited { .. } | Self::Failed { .. })
    }
}

/// State of the startup command of a batch session. Its presence means that the command was, or is about to be, started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// When it has taken too long: microseconds since the epoch.
    pub deadline: Option<i64>,
    /// How it ended.
    pub outcome: Option<BatchOutcome>,
}

/// Everything the agent remembers of a kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelRecord {
    /// [`RECORD_VERSION`] of the writer.
    pub version: u32,
    /// What was asked for.
    pub spec: KernelSpec,
    /// Secret that the runner expects.
    pub token: String,
    /// How far it got.
    pub phase: Phase,
    /// Devices and amounts it holds: slot to device to amount; empty once it is over.
    pub allocation: Holding,
    /// Published ports: in the kernel, on the host.
    pub ports: Vec<(u16, u16)>,
    /// Ports that clients may open.
    pub service_ports: Vec<ServicePort>,
    /// Startup command.
    pub batch: Option<BatchRecord>,
}

impl KernelRecord {
    /// A new record for `spec`.
    pub fn new(spec: KernelSpec, token: String) -> Self {
        Self {
            version: RECORD_VERSION,
            spec,
            token,
            phase: Phase::Starting,
            allocation: Holding::new(),
            ports: Vec::new(),
            service_ports: Vec::new(),
            batch: None,
        }
    }

    /// Identity and generation.
    pub fn kernel(&self) -> KernelRef {
        self.spec.kernel
    }
}

/// Keeps the records, and says where the files of a kernel are. Calls are short (a small file) and made from async code.
///
/// # Errors
/// All methods fail with `Unavailable` when the store cannot be read or written.
#[allow(clippy::missing_errors_doc)]
pub trait StateStore: fmt::Debug + Send + Sync + 'static {
    /// All records that can be read.
    fn load(&self) -> Result<Vec<KernelRecord>>;

    /// Writes a record: afterwards it is there as a whole, or the earlier one still is.
    fn save(&self, record: &KernelRecord) -> Result<()>;

    /// Removes the record and all files of a kernel. Idempotent.
    fn remove(&self, kernel: KernelId) -> Result<()>;

    /// The directory of the kernel's files.
    fn scratch(&self, kernel: KernelId) -> PathBuf;

    /// Whether kernels need directories, configuration files and a log file before they start. The simulated ones do not.
    fn on_disk(&self) -> bool;
}

/// The directory of a kernel below `root`.
fn scratch_dir(root: &Path, kernel: KernelId) -> PathBuf {
    root.join("scratch").join(kernel.to_string())
}
