//! The runs of the CI, as tests that `cargo nextest` and `cargo test` know how to ask for, and runs of any number of seeds.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;

use crate::run::{Order, number};

/// Seeds of the CI: some that found something once, and some for luck.
const SEEDS: &[u64] = &[1, 6, 7, 14, 29, 134, 310, 735, 1031, 1750];
/// Of these the story is told twice.
const TWICE: &[u64] = &[2];
/// A run with many agents: its seed and how many.
const MANY: (u64, usize) = (5, 2_000);

/// A name, and what says whether all is well.
type Test = (&'static str, fn() -> bool);

/// The tests.
const TESTS: &[Test] = &[
    ("all_is_well_after_the_trouble", || run_all(SEEDS.iter().map(|seed| order(*seed)).collect())),
    ("one_seed_gives_one_story", || TWICE.iter().all(|seed| is_repeated(*seed))),
    ("agents_by_the_thousand", || run_all(vec![Order { agents: Some(MANY.1), ..order(MANY.0) }])),
];

fn order(seed: u64) -> Order {
    Order { seed, agents: None, trace: false }
}

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        if !has("--ignored") {
            for (name, _) in TESTS {
                println!("{name}: test");
            }
        }
        return ExitCode::SUCCESS;
    }
    let agents = number(arguments, "--agents").and_then(|agents| usize::try_from(agents).ok());
    let good = if let Some(seed) = number(arguments, "--seed") {
        let outcome = Order { seed, agents, trace: has("--trace") }.run();
        print!("{}", outcome.story);
        outcome.good
    } else if let Some(count) = number(arguments, "--seeds") {
        let from = number(arguments, "--from").unwrap_or(1);
        run_all((from..from + count).map(|seed| Order { agents, ..order(seed) }).collect())
    } else {
        tests(arguments)
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the tests whose names contain one of the arguments; without arguments all.
fn tests(arguments: &[String]) -> bool {
    let names: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let mut good = true;
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        let passed = test();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        good &= passed;
    }
    good
}

/// Runs all, as many at a time as there are processors, and says which went wrong.
fn run_all(orders: Vec<Order>) -> bool {
    let begun = Instant::now();
    let count = orders.len();
    let failed = AtomicU64::new(0);
    let queue = Mutex::new(orders.into_iter());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(order) = queue.lock().next() else { return };
                    let outcome = order.run();
                    if !outcome.good {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!("seed {} went wrong:\n{}", order.seed, outcome.story);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{count} runs in {:.1} s, {failed} went wrong", begun.elapsed().as_secs_f64());
    failed == 0
}

/// Whether two runs of a seed tell the same story, line by line.
fn is_repeated(seed: u64) -> bool {
    let tell = || Order { trace: true, ..order(seed) }.run();
    let (one, other) = (tell(), tell());
    let (one, other): (Vec<_>, Vec<_>) = (one.story.lines().collect(), other.story.lines().collect());
    let most = one.len().max(other.len());
    let Some(first) = (0..most).find(|line| one.get(*line) != other.get(*line)) else { return true };
    println!(
        "seed {seed} tells two stories, from line {} on:\n{:?}\n{:?}",
        first + 1,
        one.get(first),
        other.get(first)
    );
    false
}
