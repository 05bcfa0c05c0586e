//! The `bai` command as a library, so that it can be tested in one process.
//!
//! Data goes to standard output, everything else to standard error. Without an endpoint in the environment every
//! command works on an embedded cluster: SQLite, the process sandbox, nothing to install.

mod args;
mod command;
mod connect;
mod output;
mod progress;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::Cli;
use crate::output::Output;

/// The description of the command line, for completions and manuals.
pub fn command_line() -> clap::Command {
    Cli::command()
}

/// Parses the command line, runs the command, and returns its exit code.
///
/// 0 is success, 1 failure, 2 wrong usage, 3 a time limit, 4 an invalid argument; `bai run` and `bai exec` return the exit code
/// of the user's program.
pub async fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.output);
    match command::dispatch(cli, &output).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}
