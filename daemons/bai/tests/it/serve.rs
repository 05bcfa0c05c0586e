//! `bai serve` as a process, over its crashes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use bai_client::{Client, Credentials};
use tempfile::TempDir;

use crate::backend::Backend;
use crate::host::{Node, SHARED};
use crate::program::Program;

/// A server with its data directory. The process comes and goes, the directory stays.
pub(crate) struct Serve {
    backend: Backend,
    program: Option<Program>,
    pub(crate) node: Node,
    root: TempDir,
}

impl Serve {
    pub(crate) async fn start(backend: Backend) -> Option<Self> {
        if !backend.is_available() {
            return None;
        }
        let root = directory();
        let node = Node::new(backend, SHARED, root.path(), root.path().join("data/agent"));
        let mut serve = Self { backend, program: None, node, root };
        serve.restart().await;
        Some(serve)
    }

    /// Starts the process on the same data.
    pub(crate) async fn restart(&mut self) {
        let (data, listen) = (self.data(), "127.0.0.1:0");
        let flags = ["serve", "--listen", listen, "--backend", self.backend.name(), "--data"];
        let args: Vec<&OsStr> = flags.into_iter().map(OsStr::new).chain([data.as_os_str()]).collect();
        let mut program = Program::start("bai", self.root.path(), &args);
        let line = program.line().await;
        assert!(line.starts_with("ready http://127.0.0.1:"), "{line}");
        self.program = Some(program);
    }

    /// A client with the credentials that the server wrote.
    pub(crate) fn client(&self) -> Client {
        client(&self.data())
    }

    pub(crate) async fn kill(&mut self) {
        self.program.take().unwrap().kill().await;
    }

    /// SIGTERM; kernels go on.
    pub(crate) async fn stop(&mut self) {
        self.program.take().unwrap().stop().await;
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }
}

/// A directory that kernels of any user can pass through, as below any home of a server.
pub(crate) fn directory() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new().prefix("bai-it-").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A client by the `env.sh` of a data directory.
pub(crate) fn client(data: &Path) -> Client {
    let text = std::fs::read_to_string(data.join("env.sh")).unwrap();
    let exports = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    let variables: HashMap<_, _> = exports.map(|(key, value)| (key, value.trim_matches('\''))).collect();
    let credentials = Credentials::new(variables["BACKEND_ACCESS_KEY"], variables["BACKEND_SECRET_KEY"]);
    Client::connect(variables["BACKEND_ENDPOINT"], credentials).unwrap()
}
