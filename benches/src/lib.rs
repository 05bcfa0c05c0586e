//! What the figures share: timing, medians, and the one line that each prints.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use serde_json::json;

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
        println!("{figure}: {value:.2} {unit} (aim {sign} {aim:?}, floor {floor:?}, ratio {ratio:?})");
    }
}
