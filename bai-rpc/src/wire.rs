//! What travels.

use bai_core::error::{Code, Error, Result, code};
use bai_core::execution::{ExecuteReply, ExecuteRequest, FileEntry, UploadFile};
use bai_core::port::agent::{AgentReport, KernelRef, KernelSpec, ReportReply};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A call of the manager.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum AgentCall {
    CreateKernels { specs: Vec<KernelSpec> },
    DestroyKernel { kernel: KernelRef, reason: String },
    Forget { kernel: KernelRef },
    StartBatch { kernel: KernelRef },
    Execute { kernel: KernelRef, request: ExecuteRequest },
    Interrupt { kernel: KernelRef },
    Complete { kernel: KernelRef, code: String, options: Map<String, Value> },
    Logs { kernel: KernelRef },
    Upload { kernel: KernelRef, files: Vec<UploadFile> },
    Download { kernel: KernelRef, path: String },
    DownloadSingle { kernel: KernelRef, path: String },
    ListFiles { kernel: KernelRef, path: String },
}

/// The agent's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum AgentAnswer {
    Done,
    Executed(ExecuteReply),
    Names(Vec<String>),
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    Files(Vec<FileEntry>),
}

/// A call of an agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ManagerCall {
    Report(Box<AgentReport>),
}

/// The manager's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ManagerAnswer {
    Reported(ReportReply),
}

/// An error on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireError {
    code: String,
    message: String,
    context: Vec<(String, String)>,
    data: Option<Value>,
}

/// Context keys that stay what they are; others arrive as `detail`, since keys are part of the program.
const KEYS: [&str; 17] = [
    "cause",
    "exit code",
    "generation",
    "image",
    "kernel",
    "left",
    "mode",
    "name",
    "out of memory",
    "path",
    "reason",
    "requested",
    "run",
    "session",
    "slot",
    "slots",
    "value",
];

impl From<Error> for WireError {
    fn from(error: Error) -> Self {
        Self {
            code: error.code().id().to_owned(),
            message: error.message().to_owned(),
            context: error.context().iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            data: error.problem_data().cloned(),
        }
    }
}

impl From<WireError> for Error {
    /// A code that this version does not know becomes a defect, with the code in the context.
    fn from(wire: WireError) -> Self {
        let mut error = match Code::from_id(&wire.code) {
            Some(code) => Self::of(code, wire.message),
            None => Self::of(code::INTERNAL, wire.message).with("unknown code", wire.code),
        };
        for (key, value) in wire.context {
            error = match KEYS.into_iter().find(|known| *known == key) {
                Some(known) => error.with(known, value),
                None => error.with("detail", format_args!("{key}: {value}")),
            };
        }
        match wire.data {
            Some(data) => error.data(data),
            None => error,
        }
    }
}

/// Bytes of a message. Names of fields are included, so that either side may know more fields than the other.
pub(crate) fn encode(message: &impl Serialize) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(message)
        .map_err(|error| Error::of(code::INTERNAL, "a message cannot be encoded").source(error))
}

/// Reads a message.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    rmp_serde::from_slice(bytes)
        .map_err(|error| Error::of(code::BAD_REPLY, "a message cannot be read").source(error))
}

#[cfg(test)]
mod tests {
    use bai_core::port::agent::{KernelReport, KernelStage, RunningKernel};
    use bai_core::session::{KernelExit, ServicePort};
    use bai_core::slots::SlotType;
    use bai_core::{KernelId, SessionId};
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_keep_code_message_and_context() {
        let error = Error::of(code::PATH_ESCAPES, "the path leaves")
            .with("path", "../x")
            .with("new key", 1)
            .data(json!({"a": 1}));
        let bytes = encode(&WireError::from(error)).unwrap();
        let error = Error::from(decode::<WireError>(&bytes).unwrap());
        assert_eq!(error.code(), code::PATH_ESCAPES);
        assert_eq!(error.to_string(), "the path leaves (path: ../x, detail: new key: 1)");
        assert_eq!(error.problem_data(), Some(&json!({"a": 1})));
    }

    #[test]
    fn codes_of_later_versions_are_shown() {
        let wire = WireError { code: "BAI-X999".into(), message: "m".into(), context: vec![], data: None };
        let error = Error::from(wire);
        assert_eq!((error.code(), error.to_string()), (code::INTERNAL, "m (unknown code: BAI-X999)".into()));
    }

    #[test]
    fn reports_survive() {
        let report = AgentReport {
            agent: "i-1".into(),
            incarnation: u64::MAX,
            seq: 7,
            addr: "a:1".into(),
            public_host: "h".into(),
            region: String::new(),
            resource_group: "default".into(),
            capacity: [("cpu", 4_u64), ("mem", 1 << 40)].into_iter().collect(),
            slot_types: [("cpu", SlotType::Count), ("mem", SlotType::Bytes)].into_iter().collect(),
            architecture: "x86_64".into(),
            version: "1".into(),
            compute_plugins: json!({"cpu": {"version": "1"}}),
            live_stat: json!({"node": {"mem": {"pct": "1.5", "capacity": null}}, "devices": {}}),
            isolation_gaps: vec!["none".into()],
            images: Some(vec![]),
            kernels: stages().into_iter().map(kernel_report).collect(),
            leaving: false,
        };
        let call = ManagerCall::Report(Box::new(report.clone()));
        let ManagerCall::Report(read) = decode(&encode(&call).unwrap()).unwrap();
        assert_eq!(*read, report);
    }

    fn stages() -> Vec<KernelStage> {
        let port = ServicePort {
            name: "p".into(),
            protocol: "http".into(),
            container_ports: vec![1],
            host_ports: vec![2],
        };
        let running =
            RunningKernel { container_id: "c".into(), service_ports: vec![port], ..RunningKernel::default() };
        vec![
            KernelStage::Preparing,
            KernelStage::Pulling,
            KernelStage::Running(Box::new(running)),
            KernelStage::Terminating,
            KernelStage::Exited(KernelExit { code: Some(-1), reason: "r".into(), oom: true }),
            KernelStage::Failed { code: "c".into(), message: "m".into() },
        ]
    }

    fn kernel_report(stage: KernelStage) -> KernelReport {
        KernelReport {
            kernel: KernelRef { id: KernelId::random(), generation: 3 },
            session: SessionId::random(),
            stage,
            batch: None,
            stats: Some([("mem".to_owned(), json!({"current": "1"}))].into_iter().collect()),
            unused_ms: Some(7),
        }
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(decode::<AgentCall>(b"\xc1garbage").is_err());
        assert!(decode::<AgentCall>(b"").is_err());
    }
}
