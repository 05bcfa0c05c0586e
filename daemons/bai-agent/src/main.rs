//! The agent of a cluster. `bai-agent --dump-config` shows the settings.

use std::process::ExitCode;

use bai::Result;
use bai::role::{AgentConfig, AgentRole};
use bai_daemon::{Context, Daemon};

struct AgentDaemon;

impl Daemon for AgentDaemon {
    const NAME: &'static str = "bai-agent";
    type Config = AgentConfig;

    async fn run(config: AgentConfig, context: Context) -> Result<()> {
        let role = AgentRole::start(config).await?;
        context.ready();
        role.serve(context.shutdown).await
    }
}

fn main() -> ExitCode {
    bai_daemon::run::<AgentDaemon>()
}
