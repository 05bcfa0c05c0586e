//! The file that tells a runner what it serves.
//!
//! The agent writes it as JSON into the control directory of the kernel, next to the socket, readable by root only:
//!
//! ```
//! use bai_kernel_lib::config::{RunnerConfig, RuntimeType};
//!
//! let config = RunnerConfig::from_json(br#"{"socket": "/run/ctl/runner.sock", "token": "s", "runtime_type": "python"}"#)?;
//! assert_eq!(config.runtime_type, RuntimeType::Python);
//! assert_eq!(config.work_dir.as_os_str(), "/home/work");
//! # Ok::<(), std::io::Error>(())
//! ```

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What a runner needs to know. Every field but `socket` and `token` has a default.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunnerConfig {
    /// Path of the unix socket to listen on (created with mode 0600; an old one is replaced).
    pub socket: PathBuf,
    /// Secret that a connection must present.
    pub token: String,
    /// Id of the kernel; also names its log under `.logs/task`.
    #[serde(default)]
    pub kernel_id: String,
    /// Language of the kernel (label `ai.backend.runtime-type`). Default `app`.
    #[serde(default)]
    pub runtime_type: RuntimeType,
    /// Program of the language (label `ai.backend.runtime-path`). When absent, not executable or the
    /// label's placeholder `/bin/true`, the usual names of the language are looked up in `PATH`.
    #[serde(default)]
    pub runtime_path: Option<PathBuf>,
    /// Home and working directory of user code. Default `/home/work`.
    #[serde(default = "default_work_dir")]
    pub work_dir: PathBuf,
    /// Directory with `environ.txt`. Default `/home/config`.
    #[serde(default = "default_config_dir")]
    pub config_dir: PathBuf,
    /// Directory for the runner's own small files (hook scripts, input socket). Default: a new directory below
    /// `/run`, or `/tmp` when that cannot be written.
    #[serde(default)]
    pub runtime_dir: Option<PathBuf>,
    /// User id of user code. Not applied when absent or 0, or when the runner is not root.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Group id of user code; the user id when absent.
    #[serde(default)]
    pub gid: Option<u32>,
    /// Supplementary group ids of user code.
    #[serde(default)]
    pub supplementary_gids: Vec<u32>,
    /// Variables for user code, on top of the runner's own environment.
    #[serde(default)]
    pub environ: BTreeMap<String, String>,
    /// Detach the directory of the socket from the mount namespace once the socket is bound, so that nothing in
    /// the kernel can reach it; the path outside still works. Best effort. Default false.
    #[serde(default)]
    pub hide_control_dir: bool,
    /// User code can never gain privileges (`no_new_privs`). Default true; sudo needs false.
    #[serde(default = "default_true")]
    pub no_new_privs: bool,
    /// File that collects everything user code writes, bounded by `log_limit`. Default: none.
    #[serde(default)]
    pub log_file: Option<PathBuf>,
    /// Most bytes kept of the log, in two files (`NAME` and `NAME.old`) of half the size each; the newest
    /// survive. Default 16 MiB.
    #[serde(default = "default_log_limit")]
    pub log_limit: u64,
    /// Bytes of frames kept until they are acknowledged; programs that write more have to wait. Default 8 MiB.
    #[serde(default = "default_replay_bytes")]
    pub replay_bytes: usize,
    /// Most runs waiting in the queue. Default 256.
    #[serde(default = "default_max_queued_runs")]
    pub max_queued_runs: usize,
    /// Start the interpreter of query mode right after the runner is ready, not at the first query. Default true.
    #[serde(default = "default_true")]
    pub prestart: bool,
    /// Milliseconds between SIGTERM and SIGKILL when the kernel ends. Default 5000.
    #[serde(default = "default_grace_ms")]
    pub grace_ms: u64,
}

impl RunnerConfig {
    /// A configuration with every default.
    pub fn new(socket: impl Into<PathBuf>, token: impl Into<String>, runtime_type: RuntimeType) -> Self {
        Self {
            socket: socket.into(),
            token: token.into(),
            kernel_id: String::new(),
            runtime_type,
            runtime_path: None,
            work_dir: default_work_dir(),
            config_dir: default_config_dir(),
            runtime_dir: None,
            uid: None,
            gid: None,
            supplementary_gids: Vec::new(),
            environ: BTreeMap::new(),
            hide_control_dir: false,
            no_new_privs: true,
            log_file: None,
            log_limit: default_log_limit(),
            replay_bytes: default_replay_bytes(),
            max_queued_runs: default_max_queued_runs(),
            prestart: true,
            grace_ms: default_grace_ms(),
        }
    }

    /// Parses and checks a configuration file.
    ///
    /// # Errors
    /// `InvalidData` for malformed JSON, an unknown field, or an empty token.
    pub fn from_json(text: &[u8]) -> io::Result<Self> {
        let config: Self = serde_json::from_slice(text)?;
        if config.token.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "token is empty"));
        }
        Ok(config)
    }

    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// As [`RunnerConfig::from_json`], and those of reading the file.
    pub fn load(path: &Path) -> io::Result<Self> {
        Self::from_json(&std::fs::read(path)?)
    }
}

impl fmt::Debug for RunnerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerConfig")
            .field("socket", &self.socket)
            .field("kernel_id", &self.kernel_id)
            .field("runtime_type", &self.runtime_type)
            .field("runtime_path", &self.runtime_path)
            .field("work_dir", &self.work_dir)
            .field("uid", &self.uid)
            .finish_non_exhaustive()
    }
}

/// Language of a kernel (`krunner.md` section 5). On the wire it is the label's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum RuntimeType {
    /// No language: queries are shell scripts.
    #[default]
    App,
    /// Python, with a long-lived interpreter.
    Python,
    /// Node.js, with a long-lived interpreter.
    Nodejs,
    /// C, compiled and run per query.
    C,
    /// C++, compiled and run per query.
    Cpp,
    /// A language without a driver: batch runs with explicit commands work, queries are refused with 127.
    Other(String),
}

impl RuntimeType {
    /// The label's text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::App => "app",
            Self::Python => "python",
            Self::Nodejs => "nodejs",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for RuntimeType {
    fn from(text: String) -> Self {
        match text.as_str() {
            "" | "app" | "shell" => Self::App,
            "python" => Self::Python,
            "nodejs" | "node" => Self::Nodejs,
            "c" => Self::C,
            "cpp" | "c++" => Self::Cpp,
            _ => Self::Other(text),
        }
    }
}

impl From<RuntimeType> for String {
    fn from(runtime: RuntimeType) -> Self {
        runtime.as_str().to_owned()
    }
}

fn default_work_dir() -> PathBuf {
    "/home/work".into()
}

fn default_config_dir() -> PathBuf {
    "/home/config".into()
}

const fn default_true() -> bool {
    true
}

const fn default_log_limit() -> u64 {
    16 << 20
}

const fn default_replay_bytes() -> usize {
    8 << 20
}

const fn default_max_queued_runs() -> usize {
    256
}

const fn default_grace_ms() -> u64 {
    5000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_configuration_reads_back() {
        let mut config = RunnerConfig::new("/c/s", "secret", RuntimeType::from("r".to_owned()));
        config.environ.insert("A".into(), "b".into());
        let text = serde_json::to_vec(&config).unwrap();
        let read = RunnerConfig::from_json(&text).unwrap();
        assert_eq!(read.runtime_type, RuntimeType::Other("r".into()));
        assert_eq!(read.environ, config.environ);
        assert_eq!(read.replay_bytes, 8 << 20);
        assert!(!format!("{read:?}").contains("secret"));
    }

    #[test]
    fn mistakes_are_refused() {
        for text in ["{}", r#"{"socket": "/s", "token": ""}"#, r#"{"socket": "/s", "token": "t", "tokn": 1}"#]
        {
            assert!(RunnerConfig::from_json(text.as_bytes()).is_err(), "{text}");
        }
    }
}
