//! The manager of a cluster. `bai-manager --dump-config` shows the settings.

use std::process::ExitCode;

use bai::Result;
use bai::role::{ManagerConfig, ManagerRole};
use bai_daemon::{Context, Daemon};

struct ManagerDaemon;

impl Daemon for ManagerDaemon {
    const NAME: &'static str = "bai-manager";
    type Config = ManagerConfig;

    async fn run(config: ManagerConfig, context: Context) -> Result<()> {
        let role = ManagerRole::start(config).await?;
        context.ready();
        role.serve(context.shutdown).await
    }
}

fn main() -> ExitCode {
    bai_daemon::run::<ManagerDaemon>()
}
