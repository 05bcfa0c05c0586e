//! `bai serve`: from the start of the process to ready, and its memory when idle.
#![allow(missing_docs)]

use std::process::Command;
use std::time::{Duration, Instant};

use bai_benches::server::{ServerProcess, program};
use bai_benches::{failed, header, median, print};
use bai_core::Result;

const STARTS: usize = 9;
/// What is done after the start is done by then.
const SETTLE: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    header();
    let (mut floors, mut starts, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        floors.push(bare()?);
        let server = ServerProcess::start("process")?;
        starts.push(server.time_to_ready().as_secs_f64() * 1e3);
        std::thread::sleep(SETTLE);
        memory.push(server.memory_mb()?);
    }
    print("bai serve, start to ready", median(starts), "ms", Some(median(floors)), Some(300.0), false);
    print("bai serve, idle memory (PSS)", median(memory), "MB", None, Some(40.0), false);
    Ok(())
}

/// Time, in milliseconds, that the same program takes to start, say its version and end.
fn bare() -> Result<f64> {
    let start = Instant::now();
    Command::new(program()?).arg("--version").output().map_err(failed)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
