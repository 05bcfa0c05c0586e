//! The `bai` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    bai_cli::main().await
}
