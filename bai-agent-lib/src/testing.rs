//! Fixtures of the unit tests.

use bai_core::id::{KernelId, SessionId};
use bai_core::port::agent::{KernelRef, KernelSpec};

/// A main kernel with one core and 64 MiB.
pub(crate) fn spec() -> KernelSpec {
    KernelSpec {
        kernel: KernelRef { id: KernelId::random(), generation: 1 },
        session: SessionId::random(),
        session_name: "test".into(),
        session_type: "interactive".into(),
        image: "python:3.11".into(),
        image_labels: [("ai.backend.runtime-type".to_owned(), "python".to_owned())].into_iter().collect(),
        role: "main".into(),
        hostname: "main1".into(),
        slots: [("cpu", 1_u64), ("mem", 64 << 20)].into_iter().collect(),
        resource_opts: serde_json::Map::new(),
        environ: [("A".to_owned(), "b".to_owned())].into_iter().collect(),
        bootstrap_script: None,
        preopen_ports: Vec::new(),
        startup_command: None,
        batch_timeout: None,
        cluster: None,
    }
}
