//! An agent without kernels: it says that what it is told to start runs, and executes a tiny language.
//!
//! | code | what happens |
//! |---|---|
//! | `spin` | runs until it is interrupted |
//! | `ask NAME` | waits for a line, then prints it |
//! | `panic` | the agent's code panics |
//! | anything else | is printed |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bai_core::error::code;
use bai_core::execution::{
    ConsoleItem, ExecuteMode, ExecuteReply, ExecuteRequest, FileEntry, RunStatus, UploadFile,
};
use bai_core::image::Image;
use bai_core::port::agent::{
    AgentApi, AgentReport, KernelRef, KernelReport, KernelSpec, KernelStage, ManagerApi, RunningKernel,
};
use bai_core::port::store::Agent;
use bai_core::session::{KernelExit, ServicePort};
use bai_core::slots::{Amount, SlotType, SlotTypes};
use bai_core::{AgentId, Error, Result, SessionId};
use bai_manager_lib::Manager;
use bai_manager_lib::agent::AgentDialer;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

pub(crate) const IMAGE: &str = "cr.example.com/stable/python:3.11-ubuntu22.04";

#[derive(Debug)]
pub(crate) struct ScriptedAgent {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seq: u64,
    manager: Option<Manager>,
    kernels: BTreeMap<KernelRef, (SessionId, KernelStage)>,
    files: BTreeMap<String, Vec<u8>>,
    runs: BTreeMap<String, Run>,
    interrupts: u32,
    vanished: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Run {
    Spin,
    Ask,
    Batch(RunStatus, String),
}

impl ScriptedAgent {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default() })
    }

    /// Makes itself known.
    pub(crate) async fn join(&self, manager: &Manager) {
        self.state.lock().manager = Some(manager.clone());
        self.report(true).await;
    }

    /// How often a run was interrupted.
    pub(crate) fn interrupts(&self) -> u32 {
        self.state.lock().interrupts
    }

    pub(crate) fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.state.lock().files.get(path).cloned()
    }

    pub(crate) fn file_count(&self) -> usize {
        self.state.lock().files.len()
    }

    /// From now on no kernel is known any more.
    pub(crate) fn vanish(&self) {
        self.state.lock().vanished = true;
    }

    async fn report(&self, with_images: bool) {
        let (manager, report) = {
            let mut state = self.state.lock();
            state.seq += 1;
            (state.manager.clone().unwrap(), report(&state, with_images))
        };
        let reply = manager.report(report).await.unwrap();
        if reply.send_images && !with_images {
            Box::pin(self.report(true)).await;
        }
    }

    fn known(&self, kernel: KernelRef) -> Result<()> {
        let state = self.state.lock();
        if state.kernels.contains_key(&kernel) && !state.vanished {
            return Ok(());
        }
        Err(Error::of(code::KERNEL_NOT_FOUND, "no such kernel"))
    }

    fn path(path: &str) -> Result<String> {
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(
                Error::of(code::PATH_ESCAPES, "the path leaves the home directory").with("path", path)
            );
        }
        Ok(path.to_owned())
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let missing = || Error::of(code::FILE_NOT_FOUND, "The file is not found.");
        self.file(&Self::path(path)?).ok_or_else(missing)
    }
}

fn report(state: &State, with_images: bool) -> AgentReport {
    let mut slot_types = SlotTypes::default();
    slot_types.insert("cpu", SlotType::Count);
    slot_types.insert("mem", SlotType::Bytes);
    let kernels = state.kernels.iter().map(|(kernel, (session, stage))| KernelReport {
        kernel: *kernel,
        session: *session,
        stage: stage.clone(),
        batch: None,
        stats: None,
        unused_ms: None,
    });
    AgentReport {
        agent: AgentId::new("i-scripted"),
        incarnation: 1,
        seq: state.seq,
        addr: String::new(),
        public_host: "127.0.0.1".into(),
        region: "local".into(),
        resource_group: "default".into(),
        capacity: [("cpu", Amount::from(64)), ("mem", Amount::from(1_i64 << 40))].into_iter().collect(),
        slot_types,
        architecture: "x86_64".into(),
        version: "0.1.0".into(),
        compute_plugins: json!({ "cpu": {}, "mem": {} }),
        live_stat: json!({
            "node": {
                "cpu_util": { "current": "8540", "capacity": "5000.75", "pct": "170.77", "unit_hint": "msec" },
                "mem": { "current": "4322537472", "capacity": "25276510208", "pct": "17.1", "unit_hint": "bytes" },
            },
            "devices": { "cpu_util": { "0": { "current": "4260", "capacity": "5000.75", "pct": "85.19", "unit_hint": "msec" } } },
        }),
        isolation_gaps: Vec::new(),
        images: with_images.then(|| vec![image()]),
        kernels: kernels.collect(),
        leaving: false,
    }
}

fn image() -> Image {
    let labels = [
        ("ai.backend.resource.min.cpu", "1"),
        ("ai.backend.resource.min.mem", "64m"),
        ("ai.backend.kernelspec", "1"),
        ("ai.backend.runtime-type", "python"),
        ("ai.backend.features", "query batch uid-match"),
    ];
    Image {
        name: IMAGE.into(),
        architecture: "x86_64".into(),
        digest: "sha256:00".into(),
        size: 68_402_617,
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        aliases: vec!["python".into()],
    }
}

fn running() -> KernelStage {
    let port = |name: &str, protocol: &str, port: u16| ServicePort {
        name: name.into(),
        protocol: protocol.into(),
        container_ports: vec![port],
        host_ports: vec![30_000 + port % 1000],
    };
    KernelStage::Running(Box::new(RunningKernel {
        container_id: "container-1".into(),
        kernel_host: "127.0.0.1".into(),
        service_ports: vec![port("sshd", "tcp", 2200), port("ttyd", "http", 7681)],
        ..RunningKernel::default()
    }))
}

fn reply(run_id: String, status: RunStatus, output: &str) -> ExecuteReply {
    let exit_code =
        matches!(status, RunStatus::Finished | RunStatus::CleanFinished | RunStatus::BuildFinished);
    ExecuteReply {
        run_id,
        status,
        exit_code: exit_code.then_some(0),
        options: None,
        console: if output.is_empty() { Vec::new() } else { vec![ConsoleItem::Stdout(output.to_owned())] },
    }
}

#[async_trait]
impl AgentApi for ScriptedAgent {
    async fn create_kernels(&self, specs: Vec<KernelSpec>) -> Result<()> {
        {
            let mut state = self.state.lock();
            for spec in specs {
                state.kernels.retain(|kernel, _| kernel.id != spec.kernel.id);
                state.kernels.insert(spec.kernel, (spec.session, running()));
            }
        }
        self.report(false).await;
        Ok(())
    }

    async fn destroy_kernel(&self, kernel: KernelRef, reason: &str) -> Result<()> {
        let exit = KernelExit { code: Some(0), reason: reason.to_owned(), oom: false };
        if let Some((_, stage)) = self.state.lock().kernels.get_mut(&kernel) {
            *stage = KernelStage::Exited(exit);
        }
        self.report(false).await;
        Ok(())
    }

    async fn forget(&self, kernel: KernelRef) -> Result<()> {
        self.state.lock().kernels.remove(&kernel);
        Ok(())
    }

    async fn start_batch(&self, kernel: KernelRef) -> Result<()> {
        self.known(kernel)
    }

    async fn execute(&self, kernel: KernelRef, request: ExecuteRequest) -> Result<ExecuteReply> {
        self.known(kernel)?;
        let run_id = request.run_id.clone().unwrap_or_else(|| format!("run-{}", SessionId::random()));
        match request.mode {
            ExecuteMode::Query if request.code == "spin" => {
                self.state.lock().runs.insert(run_id.clone(), Run::Spin);
                Ok(reply(run_id, RunStatus::Continued, "spinning\n"))
            }
            ExecuteMode::Query if request.code.starts_with("ask ") => {
                self.state.lock().runs.insert(run_id.clone(), Run::Ask);
                let options = Map::from_iter([("is_password".to_owned(), Value::Bool(false))]);
                Ok(ExecuteReply {
                    options: Some(options),
                    ..reply(run_id, RunStatus::WaitingInput, &request.code[4..])
                })
            }
            ExecuteMode::Query if request.code == "panic" => panic!("a secret of the inside"),
            ExecuteMode::Query => Ok(reply(run_id, RunStatus::Finished, &request.code)),
            ExecuteMode::Batch => {
                let exec = request.batch.exec.unwrap_or_default();
                self.state.lock().runs.insert(run_id.clone(), Run::Batch(RunStatus::CleanFinished, exec));
                Ok(reply(run_id, RunStatus::CleanFinished, ""))
            }
            ExecuteMode::Input => Ok(reply(run_id, RunStatus::Finished, &format!("got {}\n", request.code))),
            ExecuteMode::Continue => self.go_on(run_id, request.flush_timeout_ms).await,
        }
    }

    async fn interrupt(&self, kernel: KernelRef) -> Result<()> {
        self.known(kernel)?;
        let mut state = self.state.lock();
        state.interrupts += 1;
        state.runs.clear();
        Ok(())
    }

    async fn complete(
        &self,
        kernel: KernelRef,
        code: &str,
        _options: &Map<String, Value>,
    ) -> Result<Vec<String>> {
        self.known(kernel)?;
        Ok(vec![format!("{code}t")])
    }

    async fn logs(&self, kernel: KernelRef) -> Result<Vec<u8>> {
        self.known(kernel)?;
        Ok(b"Kernel started \xff\n".to_vec())
    }

    async fn upload(&self, kernel: KernelRef, files: Vec<UploadFile>) -> Result<()> {
        self.known(kernel)?;
        let files = files.into_iter().map(|file| Ok((Self::path(&file.path)?, file.content)));
        let files = files.collect::<Result<Vec<_>>>()?;
        self.state.lock().files.extend(files);
        Ok(())
    }

    async fn download(&self, kernel: KernelRef, path: &str) -> Result<Vec<u8>> {
        self.known(kernel)?;
        Ok([b"tar:".as_slice(), &self.read(path)?].concat())
    }

    async fn download_single(&self, kernel: KernelRef, path: &str) -> Result<Vec<u8>> {
        self.known(kernel)?;
        self.read(path)
    }

    async fn list_files(&self, kernel: KernelRef, path: &str) -> Result<Vec<FileEntry>> {
        self.known(kernel)?;
        if !matches!(path, "." | "/home/work") {
            return Err(Error::of(code::FILE_NOT_FOUND, "The file is not found."));
        }
        let state = self.state.lock();
        let entry = |(name, content): (&String, &Vec<u8>)| FileEntry {
            mode: "-rw-r--r--".into(),
            size: content.len() as u64,
            ctime: 1.5,
            mtime: 1.5,
            atime: 1.5,
            filename: name.clone(),
        };
        Ok(state.files.iter().map(entry).collect())
    }
}

impl ScriptedAgent {
    async fn go_on(&self, run_id: String, flush_ms: u64) -> Result<ExecuteReply> {
        let run = self.state.lock().runs.get(&run_id).cloned();
        match run {
            Some(Run::Spin) => {
                tokio::time::sleep(Duration::from_millis(flush_ms)).await;
                Ok(reply(run_id, RunStatus::Continued, ""))
            }
            Some(Run::Batch(RunStatus::CleanFinished, exec)) => {
                self.state.lock().runs.insert(run_id.clone(), Run::Batch(RunStatus::BuildFinished, exec));
                Ok(reply(run_id, RunStatus::BuildFinished, "built\n"))
            }
            Some(Run::Batch(_, exec)) => Ok(reply(run_id, RunStatus::Finished, &exec)),
            Some(Run::Ask) => Ok(reply(run_id, RunStatus::WaitingInput, "")),
            None => Ok(ExecuteReply { exit_code: Some(130), ..reply(run_id, RunStatus::Finished, "") }),
        }
    }
}

/// Dials the one agent there is.
#[derive(Debug)]
pub(crate) struct Dialer(pub(crate) Arc<ScriptedAgent>);

#[async_trait]
impl AgentDialer for Dialer {
    async fn dial(&self, _agent: &Agent) -> Result<Arc<dyn AgentApi>> {
        Ok(self.0.clone())
    }
}
