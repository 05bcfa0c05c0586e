//! The kernel runner: `bai-krunner --config FILE`, and the sandbox around it on a host without a container engine:
//! `bai-krunner sandbox FILE`. See `bai_kernel_lib`.

use std::{
    env,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use bai_kernel_lib::{config::RunnerConfig, runner, sandbox};

const USAGE: &str = "usage: bai-krunner --config FILE | sandbox FILE | --version";

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let result = match args.iter().map(|arg| arg.to_str()).collect::<Vec<_>>().as_slice() {
        [Some("--version")] => say(io::stdout(), concat!("bai-krunner ", env!("CARGO_PKG_VERSION"))),
        [Some("--config"), _] => RunnerConfig::load(Path::new(&args[1])).and_then(runner::run),
        [Some("sandbox"), _] => {
            return ExitCode::from(u8::from(sandbox::run(Path::new(&args[1])) != 0));
        }
        _ => {
            let _ = say(io::stderr(), USAGE);
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = say(io::stderr(), &format!("bai-krunner: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn say(mut stream: impl Write, text: &str) -> io::Result<()> {
    stream.write_all(format!("{text}\n").as_bytes())
}
