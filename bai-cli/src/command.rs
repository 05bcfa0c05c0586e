//! The commands.

mod files;
mod local;
mod queue;
mod run;
mod session;

use bai_core::Result;

use crate::args::{Cli, Command};
use crate::connect::{self, Connection};
use crate::output::Output;

/// Runs the command and returns its exit code.
pub(crate) async fn dispatch(cli: Cli, output: &Output) -> Result<u8> {
    let output = *output;
    let command = match cli.command {
        Command::Serve(args) => return local::serve(args, cli.server, output).await,
        Command::Doctor => return Ok(local::doctor(output).await),
        other => other,
    };
    let ephemeral = matches!(&command, Command::Run(run) if run.rm);
    let connection = connect::open(cli.server, ephemeral).await?;
    let outcome = on_cluster(command, &connection, output).await;
    connection.close().await;
    outcome
}

async fn on_cluster(command: Command, connection: &Connection, output: Output) -> Result<u8> {
    let client = &connection.client;
    match command {
        Command::Run(args) => return run::run(args, client, output).await,
        Command::Exec(args) => return run::exec(&args, client, output).await,
        Command::Start(args) => session::start(args, client, output).await,
        Command::Ps(args) => session::list(&args, client, output).await,
        Command::Info(args) => session::info(&args, client, output).await,
        Command::Rm(args) => return session::remove(args, client, output).await,
        Command::Restart(args) => return session::restart(args, client, output).await,
        Command::Logs(args) => session::logs(&args, client, output).await,
        Command::Events(args) => session::events(&args, client, output).await,
        Command::Queue(args) => queue::queue(&args, client, output).await,
        Command::Explain(args) => queue::explain(&args, client, output).await,
        Command::Images => session::images(client, output).await,
        Command::Agents => session::agents(client, output).await,
        Command::Upload(args) => files::upload(args, client, output).await,
        Command::Download(args) => files::download(args, client, output).await,
        Command::Ls(args) => files::list(&args, client, output).await,
        Command::Serve(_) | Command::Doctor => Ok(()),
    }?;
    Ok(0)
}
