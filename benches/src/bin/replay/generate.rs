//! A made-up workload, for want of a recorded one. The same seed gives the same jobs.
//!
//! | what | distribution |
//! |---|---|
//! | agents | 32 of 64 cores, 512 GiB and 8 accelerators, 16 of 64 cores and 256 GiB |
//! | users | 40; the one of rank *k* submits in proportion to 1/*k* (Zipf) |
//! | arrivals | jobs come in bursts of one user, size geometric with mean 4; the bursts are a Poisson process whose rate follows the day: 1 + 0.8·cos(2π(*t* − 14 h)/24 h) |
//! | accelerators | 60 % of the bursts ask for some: 1 (50 %), 2 (20 %), 4 (15 %), 8 (10 %), or 2, 4 or 8 kernels of 8 each (5 %); 6 cores and 48 GiB for each |
//! | cores | the other bursts ask for 2^0 … 2^6 cores, all alike, with 3 GiB for each |
//! | run time | log-normal: 60 % short (median 5 min, σ 1.2), 40 % long (median 2 h, σ 1.3), from 10 s to 48 h; drawn per job |
//! | time limit | 20 % of the bursts have none, 15 % state the run time, the others 1 to 5 times as much (uniform) |
//!
//! The jobs of a burst are alike but for their run times. The load is exact: the arrivals are spread over the time in which the
//! cluster could do the work, divided by the load.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::workload::{Amounts, Job, Workload};

const USERS: u32 = 40;
const DAY: f64 = 86_400.0;

/// So many jobs at the given load.
pub(crate) fn generate(seed: u64, jobs: usize, load: f64) -> Workload {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut agents: Vec<Amounts> = vec![[64, 512, 8]; 32];
    agents.extend([[64, 256, 0]; 16]);
    let mut bursts = Vec::new();
    let mut left = jobs;
    while left > 0 {
        let burst = burst(&mut rng, left);
        left -= burst.len();
        bursts.push(burst);
    }
    let mut workload = Workload { agents, jobs: bursts.concat() };
    let horizon = workload.work_seconds() / load;
    for burst in &mut bursts {
        let submit = arrival(&mut rng, horizon);
        for job in burst {
            job.submit = submit;
        }
    }
    workload.jobs = bursts.concat();
    workload.jobs.sort_by_key(|job| job.submit);
    workload
}

/// Jobs of one user that come together.
fn burst(rng: &mut StdRng, most: usize) -> Vec<Job> {
    let user = zipf(rng);
    let kernels = request(rng);
    let (known, factor) = (rng.random_bool(0.8), limit_factor(rng));
    let mut burst = Vec::new();
    while burst.len() < most && (burst.is_empty() || rng.random_bool(0.75)) {
        let run = run_time(rng);
        let limit = known.then(|| seconds(run as f64 * factor));
        burst.push(Job { submit: 0, run, limit, user, project: 0, kernels: kernels.clone() });
    }
    burst
}

/// A user by rank, the busiest first.
fn zipf(rng: &mut StdRng) -> u32 {
    let sum: f64 = (1..=USERS).map(|rank| 1.0 / f64::from(rank)).sum();
    let mut left = rng.random_range(0.0..sum);
    (1..USERS)
        .find(|rank| {
            left -= 1.0 / f64::from(*rank);
            left < 0.0
        })
        .unwrap_or(USERS)
        - 1
}

fn request(rng: &mut StdRng) -> Vec<Amounts> {
    if !rng.random_bool(0.6) {
        let cores = 1_u64 << rng.random_range(0..=6);
        return vec![[cores, 3 * cores, 0]];
    }
    let (gpus, kernels) = match rng.random_range(0..100) {
        0..50 => (1, 1),
        50..70 => (2, 1),
        70..85 => (4, 1),
        85..95 => (8, 1),
        _ => (8, 1 << rng.random_range(1..=3)),
    };
    vec![[6 * gpus, 48 * gpus, gpus]; kernels]
}

/// Seconds.
fn run_time(rng: &mut StdRng) -> i64 {
    let (median, sigma) = if rng.random_bool(0.6) { (300.0, 1.2) } else { (7_200.0, 1.3) };
    seconds(median * (sigma * normal(rng)).exp()).clamp(10, 172_800)
}

fn limit_factor(rng: &mut StdRng) -> f64 {
    // 15 of the 80 percent that have a limit.
    if rng.random_bool(0.1875) { 1.0 } else { rng.random_range(1.0..5.0) }
}

/// A standard normal number (Box and Muller).
fn normal(rng: &mut StdRng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// A moment before the horizon, by the rate of its time of the day. Independent moments of a known number are a Poisson process.
fn arrival(rng: &mut StdRng, horizon: f64) -> i64 {
    loop {
        let moment = rng.random_range(0.0..horizon);
        let phase = std::f64::consts::TAU * (moment / DAY - 14.0 / 24.0);
        if rng.random_range(0.0..1.8) < 1.0 + 0.8 * phase.cos() {
            return seconds(moment);
        }
    }
}

/// Whole seconds.
#[allow(clippy::cast_possible_truncation, reason = "no more than some years")]
fn seconds(moment: f64) -> i64 {
    moment.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_jobs_and_another_one_others() {
        assert_eq!(generate(1, 500, 0.9).jobs, generate(1, 500, 0.9).jobs);
        assert_ne!(generate(1, 500, 0.9).jobs, generate(2, 500, 0.9).jobs);
    }

    #[test]
    fn the_distributions_are_those_that_are_documented() {
        let workload = generate(7, 20_000, 0.8);
        assert_eq!(workload.jobs.len(), 20_000);
        assert!((workload.load() - 0.8).abs() < 0.02, "load {}", workload.load());
        let share = |of: &dyn Fn(&Job) -> bool| {
            workload.jobs.iter().filter(|job| of(job)).count() as f64 / workload.jobs.len() as f64
        };
        let close = |share: f64, expected: f64| (share - expected).abs() < 0.04;
        assert!(close(share(&|job| job.kernels[0][2] > 0), 0.6));
        assert!(close(share(&|job| job.kernels.len() > 1), 0.03));
        assert!(close(share(&|job| job.limit.is_none()), 0.2));
        assert!(close(share(&|job| job.limit == Some(job.run)), 0.15));
        // The first of 40 by Zipf's law.
        assert!(close(share(&|job| job.user == 0), 0.234));
        // Half of the short ones and few of the long ones.
        assert!(close(share(&|job| job.run < 300), 0.6 / 2.0 + 0.4 * 0.0073));
        // From 10 to 18 o'clock: a third of the day, and 0.8·3·√3/(2π)… of the wave.
        assert!(close(share(&|job| (36_000..64_800).contains(&(job.submit % 86_400))), 0.554));
        assert!(workload.jobs.iter().all(|job| job.limit.is_none_or(|limit| limit >= job.run)));
        assert!(workload.jobs.is_sorted_by_key(|job| job.submit));
    }
}
