//! Waiting for conditions, and moments chosen by chance.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

/// Longest wait for anything that has to come about: a loaded machine is slow, and what never comes is stuck.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Asks until there is an answer; the test fails with `what` when there is none within [`PATIENCE`]. `ask` says what is
/// missing as its error.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(missing) => assert!(Instant::now() < give_up, "{what}: still {missing}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Moments by chance. The seed is printed; `BAI_TEST_SEED` repeats it.
pub(crate) struct Dice(SmallRng);

impl Dice {
    pub(crate) fn new() -> Self {
        let given =
            std::env::var("BAI_TEST_SEED").ok().map(|text| text.parse().expect("BAI_TEST_SEED is a number"));
        let seed = given.unwrap_or_else(|| rand::rng().random());
        eprintln!("BAI_TEST_SEED={seed}");
        Self(SmallRng::seed_from_u64(seed))
    }

    /// Waits for a random part of `longest`.
    pub(crate) async fn wait(&mut self, longest: Duration) {
        let moment = longest.mul_f64(self.0.random_range(0.0..1.0));
        eprintln!("waiting {moment:?}");
        tokio::time::sleep(moment).await;
    }
}
