//! Replays a workload under several policies and tells how long jobs wait, how much of the cluster is used and how fair it was.
//!
//! ```sh
//! cargo run --release -p bai-benches --bin replay -- --svg docs/scheduling/replay.svg
//! cargo run --release -p bai-benches --bin replay -- --trace FILE.swf
//! ```
//!
//! | argument | meaning | without it |
//! |---|---|---|
//! | `--trace FILE` | a trace in the Standard Workload Format | jobs are made up |
//! | `--seed N`, `--jobs N`, `--loads A,B` | of the jobs that are made up | 1, 15,000 and 0.6,0.7,0.8,0.9,1.0 |
//! | `--selector NAME` | which agent | `concentrated` |
//! | `--svg FILE` | where the plot goes | none |
//! | `--json` | a line per figure | a table for each load |
#![allow(missing_docs)]
#![allow(clippy::print_stdout)]
#![allow(clippy::cast_precision_loss, reason = "the figures are for people")]

mod generate;
mod measure;
mod plot;
mod simulate;
mod swf;
mod workload;

use std::str::FromStr;

use bai_benches::{failed, print};
use bai_core::{Error, ErrorKind};
use bai_scheduler::Backfill;

use crate::measure::Figures;
use crate::plot::Point;
use crate::simulate::{Policy, replay};
use crate::workload::Workload;

const ORDERS: [&str; 3] = ["fifo", "drf", "fair-share"];
const MODES: [(&str, Backfill); 2] = [("strict", Backfill::Strict), ("easy", Backfill::Easy)];

fn main() -> Result<(), Error> {
    let selector = argument("--selector", "concentrated".to_owned())?;
    let mut points = Vec::new();
    for (load, workload) in workloads()? {
        let mut rows = Vec::new();
        for order in ORDERS {
            for (mode, backfill) in MODES {
                let figures = replay(&workload, Policy { sequencer: order, backfill }, &selector)?;
                rows.push(Point { order, mode, load, figures });
            }
        }
        report(load, &workload, &rows);
        points.extend(rows);
    }
    if let Some(path) = value("--svg") {
        std::fs::write(path, plot::svg(&points)).map_err(failed)?;
    }
    Ok(())
}

/// What is replayed, with its load.
fn workloads() -> Result<Vec<(f64, Workload)>, Error> {
    if let Some(path) = value("--trace") {
        // Some have names in an older encoding in their comments.
        let trace = swf::parse(&String::from_utf8_lossy(&std::fs::read(path).map_err(failed)?))?;
        return Ok(vec![(trace.load(), trace)]);
    }
    let (seed, jobs) = (argument("--seed", 1)?, argument("--jobs", 15_000)?);
    let loads = value("--loads").unwrap_or_else(|| "0.6,0.7,0.8,0.9,1.0".to_owned());
    let loads = loads.split(',').map(|load| parsed::<f64>("--loads", load));
    loads.map(|load| load.map(|load| (load, generate::generate(seed, jobs, load)))).collect()
}

fn value(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

fn argument<T: FromStr>(name: &str, otherwise: T) -> Result<T, Error> {
    value(name).map_or(Ok(otherwise), |text| parsed(name, &text))
}

fn parsed<T: FromStr>(name: &str, text: &str) -> Result<T, Error> {
    let invalid = |_| Error::new(ErrorKind::Invalid, format!("{name}: {text}"));
    text.parse().map_err(invalid)
}

fn report(load: f64, workload: &Workload, rows: &[Point]) {
    if std::env::args().any(|arg| arg == "--json") {
        rows.iter().for_each(json);
        return;
    }
    let (jobs, days) = (workload.jobs.len(), workload.span() as f64 / 86_400.0);
    println!("\nLoad {load:.2}, {jobs} jobs in {days:.1} days:\n");
    println!(
        "| order | backfill | mean wait | p95 wait | mean slowdown | utilisation | Jain, shares | Jain, slowdown |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for Point { order, mode, figures, .. } in rows {
        let Figures { wait, wait_p95, slowdown, utilisation, .. } = figures;
        let (wait, wait_p95, used) = (wait / 60.0, wait_p95 / 60.0, utilisation * 100.0);
        let [fairness, evenness] = [figures.fairness, figures.evenness]
            .map(|index| index.map_or("–".to_owned(), |index| format!("{index:.2}")));
        println!(
            "| `{order}` | {mode} | {wait:.1} min | {wait_p95:.1} min | {slowdown:.1} | {used:.1} % | {fairness} | {evenness} |"
        );
    }
}

fn json(Point { order, mode, load, figures }: &Point) {
    let line = |what, value, unit| {
        print(&format!("replay, {order}, {mode}, load {load:.2}: {what}"), value, unit, None, None, false);
    };
    line("mean wait", figures.wait, "s");
    line("p95 wait", figures.wait_p95, "s");
    line("utilisation", figures.utilisation * 100.0, "%");
    line("Jain of shares", figures.fairness.unwrap_or(f64::NAN), "");
    line("Jain of slowdowns", figures.evenness.unwrap_or(f64::NAN), "");
}
