//! Sandboxes found again by what they left in their control directories.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bai_core::id::SessionId;
use bai_core::port::agent::KernelRef;
use bai_core::port::backend::{RunnerEndpoint, StartSpec, Started};
use bai_core::session::KernelExit;
use bai_kernel_lib::sandbox::{EXIT_FILE, ExitRecord, RECORD_FILE, SandboxRecord, start_time};

use super::{RUNNER_SOCKET, SPEC_FILE};

const KERNEL: &str = "ai.backend.kernel-id";
const GENERATION: &str = "ai.backend.generation";
const SESSION: &str = "ai.backend.session-id";
const AGENT: &str = "ai.backend.owner";

/// A sandbox with the identity that its labels give it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) kernel: KernelRef,
    pub(super) session: SessionId,
    pub(super) agent: String,
    pub(super) control: PathBuf,
    pub(super) record: SandboxRecord,
}

/// The labels that [`Found::load`] reads back.
pub(super) fn labels(spec: &StartSpec) -> BTreeMap<String, String> {
    [
        (KERNEL, spec.kernel.id.to_string()),
        (GENERATION, spec.kernel.generation.to_string()),
        (SESSION, spec.session.to_string()),
        (AGENT, spec.agent.clone()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

impl Found {
    /// The sandbox of a control directory; `None` when there is none, or nothing that can be read.
    pub(super) fn load(control: &Path) -> Option<Self> {
        let record = SandboxRecord::load(control).ok()?;
        let label = |key: &str| record.labels.get(key);
        let kernel =
            KernelRef { id: label(KERNEL)?.parse().ok()?, generation: label(GENERATION)?.parse().ok()? };
        let session = label(SESSION)?.parse().ok()?;
        let agent = label(AGENT)?.clone();
        Some(Self { kernel, session, agent, control: control.to_owned(), record })
    }

    /// All sandboxes of `agent` below `scratch/<kernel>/control`.
    pub(super) fn scan(scratch: &Path, agent: &str) -> Vec<Self> {
        let entries = fs::read_dir(scratch).into_iter().flatten().flatten();
        let found = entries.filter_map(|entry| Self::load(&entry.path().join("control")));
        found.filter(|found| found.agent == agent).collect()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.record.is_alive()
    }

    /// How it ended; `None` while it runs, or while its monitor is about to write that down.
    pub(super) fn exit(&self) -> Option<KernelExit> {
        if self.is_alive() {
            return None;
        }
        match ExitRecord::load(&self.control) {
            Ok(exit) => Some(kernel_exit(exit.code.or(exit.signal.map(|signal| 128 + signal)), exit.oom)),
            Err(_) if start_time(self.record.monitor_pid) == Some(self.record.monitor_start_time) => None,
            // Nobody is left who could know.
            Err(_) => Some(kernel_exit(None, false)),
        }
    }

    pub(super) fn started(&self) -> Started {
        Started {
            kernel: self.kernel,
            session: self.session,
            container_id: self.record.pid.to_string(),
            endpoint: RunnerEndpoint::Unix(self.control.join(RUNNER_SOCKET)),
            exit: self.exit(),
            gaps: self.record.gaps.clone(),
        }
    }

    /// Deletes the files it is found by.
    pub(super) fn erase(control: &Path) -> io::Result<()> {
        for name in [SPEC_FILE, EXIT_FILE, RECORD_FILE] {
            match fs::remove_file(control.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn kernel_exit(code: Option<i32>, oom: bool) -> KernelExit {
    KernelExit { code, reason: "self-terminated".into(), oom }
}
