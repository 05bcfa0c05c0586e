//! `bai serve` as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bai_client::Credentials;
use bai_core::{Error, ErrorKind, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::failed;

/// A running `bai serve` of this build, with an empty data directory. Dropping it ends the server; its sessions must have ended before.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    data: TempDir,
    endpoint: String,
    start: Duration,
}

impl ServerProcess {
    /// Starts the server and waits until it says that it is ready.
    ///
    /// # Errors
    /// `Unavailable` when the program has not been built or ends at once.
    pub fn start(backend: &str) -> Result<Self> {
        let data = TempDir::new().map_err(failed)?;
        let begun = Instant::now();
        let mut child = Command::new(program()?)
            .args(["serve", "--listen", "127.0.0.1:0", "--backend", backend, "--data"])
            .arg(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line).map_err(failed)?;
        }
        let start = begun.elapsed();
        let endpoint = line.trim().strip_prefix("ready ").map(str::to_owned);
        let not_ready = || Error::new(ErrorKind::Unavailable, "the server has not become ready");
        Ok(Self { child, data, endpoint: endpoint.ok_or_else(not_ready)?, start })
    }

    /// Time from the start of the process to the line that says ready.
    pub fn time_to_ready(&self) -> Duration {
        self.start
    }

    /// URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The superadmin's keypair, from the file that the server has written.
    ///
    /// # Errors
    /// `Unavailable` when there is none.
    pub fn credentials(&self) -> Result<Credentials> {
        let text = std::fs::read_to_string(self.data.path().join("env.sh")).map_err(failed)?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.map(|value| value.trim_matches('\'').to_owned())
        };
        let keypair = value("BACKEND_ACCESS_KEY").zip(value("BACKEND_SECRET_KEY"));
        let missing = || Error::new(ErrorKind::Unavailable, "the server has written no keypair");
        keypair.map(|(access, secret)| Credentials::new(access, secret)).ok_or_else(missing)
    }

    /// Proportional share of memory (PSS) of the server, in megabytes.
    ///
    /// # Errors
    /// `Unavailable` when the system does not tell.
    pub fn memory_mb(&self) -> Result<f64> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0 / 1e6)
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the system does not tell the memory"))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let asked = i32::try_from(self.child.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        if !matches!(asked, Ok(Ok(()))) {
            let _ = self.child.kill(); // fails when it has ended
        }
        let _ = self.child.wait();
    }
}

/// The `bai` command, built beside this program.
///
/// # Errors
/// `Unavailable` when it is not there.
pub fn program() -> Result<PathBuf> {
    let path = std::env::current_exe().map_err(failed)?.with_file_name("bai");
    if path.exists() {
        return Ok(path);
    }
    Err(Error::new(ErrorKind::Unavailable, "first: cargo build --release -p bai-bin")
        .with("missing", path.display()))
}
