//! Progress on a terminal: a spinner for waits, a bar for transfers. Silent elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Output;

/// A spinner that says what is being waited for, until it is dropped.
pub(crate) fn waiting(output: Output, what: &'static str) -> Guard {
    let bar = if output.is_interactive() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    Guard(bar)
}

/// A bar over `total` bytes, until it is dropped.
pub(crate) fn transfer(output: Output, total: u64) -> Guard {
    let bar = if output.is_interactive() { ProgressBar::new(total) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    Guard(bar)
}

/// A bar over `total` things, until it is dropped.
pub(crate) fn counting(output: Output, total: u64) -> Guard {
    let bar = if output.is_interactive() { ProgressBar::new(total) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}") {
        bar.set_style(style);
    }
    Guard(bar)
}

/// Clears the line when dropped.
#[derive(Debug)]
pub(crate) struct Guard(ProgressBar);

impl Guard {
    /// Counts `more` bytes or things as done.
    pub(crate) fn advance(&self, more: u64) {
        self.0.inc(more);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
