//! One process of the product.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::patience::{PATIENCE, until};

/// Lines of the log that a failed test shows.
const TAIL: usize = 60;

/// A running program, with its log in a file. Dropping it kills it; a failing test shows the end of the log.
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// Where a program of this workspace was built.
///
/// # Panics
/// When it was not.
fn built(name: &str) -> PathBuf {
    let bai = Path::new(env!("CARGO_BIN_EXE_bai"));
    let path = bai.with_file_name(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build --all-features -p bai-bin -p bai-manager -p bai-agent",
        path.display()
    );
    path
}

impl Program {
    /// Starts it; its standard error is appended to `<dir>/<name>.log`.
    pub(crate) fn start(name: &'static str, dir: &Path, args: &[&OsStr]) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(built(name));
        for (key, _) in std::env::vars_os() {
            let key_text = key.to_string_lossy();
            if key_text.starts_with("BACKEND_") || key_text.starts_with("BAI_") {
                command.env_remove(&key);
            }
        }
        let child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { name, child, log }
    }

    /// The next line of its standard output.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        let mut stdout = BufReader::new(self.child.stdout.as_mut().unwrap());
        let read = tokio::time::timeout(PATIENCE, stdout.read_line(&mut line)).await;
        assert!(read.is_ok_and(|read| read.unwrap() > 0), "{} says nothing", self.name);
        line
    }

    /// Waits until `/readyz` at `health` answers that it serves.
    pub(crate) async fn ready(&mut self, health: &str) {
        until(&format!("{} is to be ready", self.name), async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended: {status}", self.name);
            }
            let answer = get(health, "/readyz").await.map_err(|error| error.to_string())?;
            if answer.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(answer) }
        })
        .await;
    }

    /// As a crash: no chance to clean up.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM; it must end in good order.
    pub(crate) async fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().unwrap().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("{} does not end", self.name)).unwrap();
        assert!(status.success(), "{} ended with {status}", self.name);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            eprintln!("--- the end of the log of {}\n{tail}\n---", self.name);
        }
    }
}

/// One plain HTTP request.
async fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
