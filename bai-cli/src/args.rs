//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use bai_core::status::ClusterMode;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  bai run --rm -c 'print(\"hello world\")' python      run a snippet in a session of its own
  bai run --rm python main.py                        run a file
  bai start -t lab python                            keep a session, and use it:
  bai exec lab 'x = 41'
  bai exec lab 'print(x + 1)'
  bai serve --data DIR                               serve sessions to others";

/// Compute sessions, embedded or on a server.
///
/// Without BACKEND_ENDPOINT in the environment, commands work on an embedded cluster of this machine.
#[derive(Debug, Parser)]
#[command(name = "bai", version, arg_required_else_help = true, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) server: Server,

    /// How data is printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT", help_heading = GLOBAL)]
    pub(crate) output: Format,
}

/// Heading of the options that every command takes.
const GLOBAL: &str = "Global options";

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Which server to use.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// URL of the server; embedded when there is none.
    #[arg(long, global = true, env = "BACKEND_ENDPOINT", hide_env_values = true, value_name = "URL", help_heading = GLOBAL)]
    pub(crate) endpoint: Option<String>,

    /// Public half of the keypair.
    #[arg(long, global = true, env = "BACKEND_ACCESS_KEY", hide_env_values = true, value_name = "KEY", help_heading = GLOBAL)]
    pub(crate) access_key: Option<String>,

    /// Secret half of the keypair.
    #[arg(long, global = true, env = "BACKEND_SECRET_KEY", hide_env_values = true, value_name = "KEY", help_heading = GLOBAL)]
    pub(crate) secret_key: Option<String>,

    /// Directory of the embedded cluster's state.
    #[arg(long, global = true, env = "BAI_DATA", hide_env_values = true, value_name = "DIR", help_heading = GLOBAL)]
    pub(crate) data: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a session, run code or files in it, and show the output.
    Run(Run),
    /// Create a session and leave it running.
    Start(Start),
    /// List sessions.
    #[command(visible_alias = "list")]
    Ps(Ps),
    /// Show one session.
    Info(One),
    /// End sessions.
    #[command(visible_alias = "destroy")]
    Rm(Rm),
    /// Restart sessions in place; files stay.
    Restart(Many),
    /// Show the console log of a session.
    Logs(One),
    /// Run a snippet in a session and show the output.
    Exec(Exec),
    /// Copy files into a session.
    Upload(Upload),
    /// Copy files out of a session.
    Download(Download),
    /// List files of a session.
    Ls(Ls),
    /// Follow the events of a session, or of all.
    Events(Events),
    /// List the sessions that wait, in the order in which they are served.
    Queue(Queue),
    /// Tell why a session waits.
    Explain(One),
    /// List the images that sessions can be created from.
    Images,
    /// List the agents.
    Agents,
    /// Serve the manager API on this machine.
    Serve(Serve),
    /// Check what this host offers to kernels.
    Doctor,
}

/// What a new session gets.
#[derive(Debug, Args)]
pub(crate) struct NewSession {
    /// Image name or alias, such as `python`.
    pub(crate) image: String,

    /// Name of the session; a living one of the same name and image is reused.
    #[arg(short = 't', long)]
    pub(crate) name: Option<String>,

    /// Amount of a resource slot, such as `cpu=2` or `mem=512m`.
    #[arg(short, long = "resources", value_name = "SLOT=AMOUNT", value_parser = key_value)]
    pub(crate) resources: Vec<(String, String)>,

    /// Resource option, such as `shmem=64m`.
    #[arg(long = "resource-opts", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) resource_opts: Vec<(String, String)>,

    /// Environment variable.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) env: Vec<(String, String)>,

    /// Free text kept with the session.
    #[arg(long)]
    pub(crate) tag: Option<String>,

    /// Number of kernels.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) cluster_size: u32,

    /// Whether the kernels share one agent or get one each.
    #[arg(long, default_value_t = ClusterMode::SingleNode, value_name = "MODE", value_parser = cluster_mode())]
    pub(crate) cluster_mode: ClusterMode,

    /// Priority in the queue, up to 100 for the most urgent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=100))]
    pub(crate) priority: Option<u8>,

    /// Resource group.
    #[arg(long, value_name = "GROUP")]
    pub(crate) scaling_group: Option<String>,

    /// Shell script to run in the session first.
    #[arg(long, value_name = "FILE")]
    pub(crate) bootstrap_script: Option<PathBuf>,

    /// Fail when a living session has the same name.
    #[arg(long)]
    pub(crate) no_reuse: bool,

    /// Longest time to wait for the start; 0 for no limit.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) max_wait: u64,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "bai run [OPTIONS] -c <CODE> <IMAGE>\n       bai run [OPTIONS] <IMAGE> <FILES>..."
)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["files", "code", "exec"])))]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) session: NewSession,

    /// Files to upload and run in batch mode.
    #[arg(conflicts_with = "code")]
    pub(crate) files: Vec<PathBuf>,

    /// Snippet to run in query mode.
    #[arg(short, long)]
    pub(crate) code: Option<String>,

    /// Command of the clean step; `*` for the image's default.
    #[arg(long, conflicts_with = "code", value_name = "COMMAND")]
    pub(crate) clean: Option<String>,

    /// Command of the build step; `*` for the image's default.
    #[arg(long, conflicts_with = "code", value_name = "COMMAND")]
    pub(crate) build: Option<String>,

    /// Command of the exec step; `*`, the default, for the image's default.
    #[arg(long, conflicts_with = "code", value_name = "COMMAND")]
    pub(crate) exec: Option<String>,

    /// End the session when the run has ended.
    #[arg(long)]
    pub(crate) rm: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Queue {
    /// Only the queue of this resource group.
    #[arg(long, value_name = "GROUP")]
    pub(crate) scaling_group: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    #[command(flatten)]
    pub(crate) session: NewSession,

    /// Make it a batch session that runs this command and ends.
    #[arg(short = 'c', long, value_name = "COMMAND")]
    pub(crate) startup_command: Option<String>,

    /// Earliest start: a time in ISO 8601, or a span from now such as `5m` or `2h`.
    #[arg(long, value_name = "TIME", requires = "startup_command")]
    pub(crate) starts_at: Option<String>,

    /// Longest run of the batch session.
    #[arg(long, value_name = "SECONDS", requires = "startup_command")]
    pub(crate) timeout: Option<u64>,

    /// Wait in the queue until this session has succeeded.
    #[arg(long, value_name = "SESSION")]
    pub(crate) depends: Vec<String>,

    /// Return as soon as the session is in the queue.
    #[arg(long)]
    pub(crate) enqueue_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Include dead sessions.
    #[arg(short, long)]
    pub(crate) all: bool,

    /// Most rows to show.
    #[arg(long, default_value_t = 100, value_name = "ROWS")]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// Session name or id.
    pub(crate) session: String,
}

#[derive(Debug, Args)]
pub(crate) struct Many {
    /// Session names or ids.
    #[arg(required = true)]
    pub(crate) sessions: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    #[command(flatten)]
    pub(crate) many: Many,

    /// End them whatever their status.
    #[arg(short, long)]
    pub(crate) forced: bool,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "bai exec [OPTIONS] <SESSION> <CODE>\n       bai exec [OPTIONS] -c <CODE> <SESSION>"
)]
#[command(group(ArgGroup::new("snippet").required(true).args(["code", "option"])))]
pub(crate) struct Exec {
    /// Session name or id.
    pub(crate) session: String,

    /// Snippet to run.
    code: Option<String>,

    /// Snippet to run, said as in `bai run`.
    #[arg(short = 'c', long = "code", value_name = "CODE")]
    option: Option<String>,
}

impl Exec {
    /// The snippet, however it was given.
    pub(crate) fn snippet(&self) -> &str {
        self.code.as_deref().or(self.option.as_deref()).unwrap_or_default()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Upload {
    /// Session name or id.
    pub(crate) session: String,

    /// Files below the current directory.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Download {
    /// Session name or id.
    pub(crate) session: String,

    /// Paths below the session's home directory.
    #[arg(required = true)]
    pub(crate) files: Vec<String>,

    /// Directory to write to.
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub(crate) dest: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Session name or id.
    pub(crate) session: String,

    /// Path below the session's home directory.
    #[arg(default_value = ".")]
    pub(crate) path: String,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Session name or id; all sessions when there is none.
    pub(crate) session: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,

    /// What runs the kernels.
    #[arg(long, value_enum, default_value_t = Backend::Process)]
    pub(crate) backend: Backend,
}

/// What runs the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// The process sandbox, with the interpreters of this host.
    Process,
    /// Docker, with its labelled images.
    Docker,
    /// Nothing at all: kernels are simulated, for tests and benchmarks.
    Simulated,
}

fn cluster_mode() -> impl TypedValueParser<Value = ClusterMode> {
    PossibleValuesParser::new(ClusterMode::ALL.iter().map(|mode| mode.as_str()))
        .try_map(|name| name.parse::<ClusterMode>())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
