//! Real managers in a simulated cluster: everything goes wrong for a while, and afterwards everything has to be right.
//!
//! ```sh
//! cargo nextest run -p bai-manager-lib --test simulation                                # what the CI runs
//! cargo test --release -p bai-manager-lib --test simulation -- --seeds 1000             # many more, from seed 1 on
//! cargo test --release -p bai-manager-lib --test simulation -- --seeds 100 --from 5000 --agents 2000
//! cargo test -p bai-manager-lib --test simulation -- --seed 17 --trace                  # the whole story of one
//! ```
//!
//! Each run has a process of its own: libraries count for themselves in places that nobody can reset, and what one run leaves
//! behind must not change the next. In it one thread does everything, in virtual time, and all that is random follows from the seed.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, clippy::expect_used)]

mod clients;
mod cluster;
#[cfg(target_os = "linux")]
mod entropy;
mod faults;
mod run;
mod scenario;
mod suite;
mod verdict;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == run::CHILD) {
        run::child(&arguments)
    } else {
        suite::main(&arguments)
    }
}
