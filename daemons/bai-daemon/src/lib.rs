//! What all daemons share: the command line, layered configuration, tracing, signals and health.
//!
//! A daemon is a type with a configuration and a `run` function:
//!
//! ```no_run
//! use bai_core::Result;
//! use bai_daemon::{Context, Daemon};
//!
//! #[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
//! struct Config { greeting: String }
//!
//! struct Greeter;
//!
//! impl Daemon for Greeter {
//!     const NAME: &'static str = "bai-greeter";
//!     type Config = Config;
//!     async fn run(config: Config, context: Context) -> Result<()> {
//!         tracing::info!(config.greeting);
//!         context.ready();
//!         context.shutdown.cancelled().await;
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode { bai_daemon::run::<Greeter>() }
//! ```

mod config;
mod health;
mod memory;
mod signal;
pub mod tracing_setup;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bai_core::Result;
use clap::Parser;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

pub use memory::give_back_memory;
pub use signal::shutdown_on_signal;

/// A daemon: a configuration and what to do with it.
pub trait Daemon {
    /// Name of the binary; `bai-agent` reads variables that start with `BAI_AGENT__`.
    const NAME: &'static str;
    /// Configuration; its `Default` is the lowest layer.
    type Config: Default + Serialize + DeserializeOwned + Send;

    /// Runs until `context.shutdown` is cancelled, then drains and returns.
    ///
    /// # Errors
    /// Whatever keeps the daemon from starting or going on.
    fn run(config: Self::Config, context: Context) -> impl Future<Output = Result<()>> + Send;
}

/// What a running daemon is given.
#[derive(Debug, Clone)]
pub struct Context {
    /// Cancelled on SIGTERM and SIGINT.
    pub shutdown: CancellationToken,
    ready: Arc<AtomicBool>,
}

impl Context {
    /// Says that the daemon serves: `/readyz` answers 200 from now on.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Release);
    }
}

#[derive(Debug, Parser)]
struct Flags {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long)]
    check: bool,
    /// Print the configuration in force and exit.
    #[arg(long)]
    dump_config: bool,
    /// Address for `/healthz` and `/readyz`.
    #[arg(long, value_name = "ADDRESS")]
    health: Option<SocketAddr>,
}

/// Runs the daemon: 0 after an orderly end, 1 after a failure, 2 for wrong flags or configuration.
pub fn run<D: Daemon>() -> ExitCode {
    let flags = parse::<D>();
    tracing_setup::init();
    let config = match config::load::<D::Config>(flags.config.as_deref(), D::NAME) {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    if flags.dump_config {
        return config::dump(&config).map_or_else(|error| fail(&error, 2), |()| ExitCode::SUCCESS);
    }
    if flags.check {
        return ExitCode::SUCCESS;
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => match runtime.block_on(supervise::<D>(config, flags.health)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Err(cause) => fail(
            &bai_core::Error::new(bai_core::ErrorKind::Internal, "cannot start a runtime").source(cause),
            1,
        ),
    }
}

fn parse<D: Daemon>() -> Flags {
    use clap::{CommandFactory, FromArgMatches};
    let command = Flags::command().name(D::NAME).version(env!("CARGO_PKG_VERSION"));
    Flags::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

async fn supervise<D: Daemon>(config: D::Config, health: Option<SocketAddr>) -> Result<()> {
    let context = Context { shutdown: shutdown_on_signal()?, ready: Arc::new(AtomicBool::new(false)) };
    if let Some(address) = health {
        health::serve(address, Arc::clone(&context.ready), context.shutdown.clone()).await?;
    }
    tokio::spawn(give_back_memory());
    D::run(config, context).await
}

fn fail(error: &bai_core::Error, code: u8) -> ExitCode {
    tracing::error!(code = error.code().id(), "{error:?}");
    ExitCode::from(code)
}
