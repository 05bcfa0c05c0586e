//! What the figures share: timing, medians, a server to measure, a load generator, and the one line that each prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod load;
pub mod nodes;
pub mod server;

use std::process::Command;
use std::time::{Duration, Instant};

use bai_core::{Error, ErrorKind};
use serde_json::json;

/// What the daemons allocate with, for programs that measure the same in their own process.
pub use mimalloc::MiMalloc as Allocator;

/// Runs `step` `count` times and returns the durations, shortest first.
///
/// # Errors
/// The first that `step` returns.
pub async fn time<E>(
    count: usize,
    mut step: impl AsyncFnMut(usize) -> Result<(), E>,
) -> Result<Vec<Duration>, E> {
    let mut all = Vec::with_capacity(count);
    for round in 0..count {
        let start = Instant::now();
        step(round).await?;
        all.push(start.elapsed());
    }
    all.sort_unstable();
    Ok(all)
}

/// The middle of sorted durations, in milliseconds.
pub fn median_ms(sorted: &[Duration]) -> f64 {
    sorted.get(sorted.len() / 2).map_or(f64::NAN, |middle| middle.as_secs_f64() * 1e3)
}

/// The middle of some numbers.
pub fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.into_iter().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A failure of the host, as an error of ours.
pub fn failed(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the host refuses").source(cause)
}

/// Says on standard error what the figures that follow were measured on.
pub fn header() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    eprintln!(
        "{}, {cores} cores, Linux {}, commit {}, load average {}",
        model.trim_start_matches(|c: char| c.is_whitespace() || c == ':'),
        kernel.trim(),
        commit.unwrap_or_default(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    );
}

/// Prints a figure: as JSON with `--json`, else for people. `aim` is an upper bound, or a lower one when `at_least`; without an aim
/// `ok` is null.
pub fn print(figure: &str, value: f64, unit: &str, floor: Option<f64>, aim: Option<f64>, at_least: bool) {
    let ok = aim.map(|aim| if at_least { value >= aim } else { value <= aim });
    let ratio = floor.map(|floor| value / floor);
    if std::env::args().any(|arg| arg == "--json") {
        let line = json!({
            "figure": figure, "value": value, "unit": unit, "floor": floor, "ratio": ratio, "aim": aim, "ok": ok,
        });
        println!("{line}");
    } else {
        let sign = if at_least { ">=" } else { "<=" };
        let aim = aim.map_or_else(String::new, |aim| format!(", aim {sign} {aim}"));
        let floor = floor.zip(ratio).map(|(floor, ratio)| format!(", floor {floor:.2}, ratio {ratio:.2}"));
        println!("{figure}: {value:.2} {unit}{aim}{}", floor.unwrap_or_default());
    }
}
