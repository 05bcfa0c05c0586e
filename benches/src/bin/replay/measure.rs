//! What a replay is judged by.
//!
//! The first and the last, unfinished window are not counted: the cluster is empty at first, and drains at last. A window is a day, or
//! an eighth of the trace if that is shorter.

use crate::workload::{Amounts, Job, Workload, sum};

/// The figures of one replay.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figures {
    /// Mean wait in seconds.
    pub(crate) wait: f64,
    /// 95 of 100 wait no longer than this, in seconds.
    pub(crate) wait_p95: f64,
    /// Mean of (wait + run) ÷ run, with run times below ten seconds taken as ten.
    pub(crate) slowdown: f64,
    /// Used of the slot of which most is used, from 0 to 1.
    pub(crate) utilisation: f64,
    /// Jain's index of the dominant shares of users who want more, in one window after another: 1 when all get the same, 1/n when
    /// one of n gets all. `None` when there was never a second one.
    pub(crate) fairness: Option<f64>,
    /// Jain's index of the users' mean slowdowns.
    pub(crate) evenness: Option<f64>,
}

/// The sum squared over n times the sum of the squares.
pub(crate) fn jain(numbers: &[f64]) -> Option<f64> {
    let total: f64 = numbers.iter().sum();
    let squares: f64 = numbers.iter().map(|number| number * number).sum();
    (numbers.len() > 1 && squares > 0.0).then(|| total * total / (numbers.len() as f64 * squares))
}

#[derive(Debug, Clone, Default)]
struct User {
    held: Amounts,
    waiting: u32,
    /// Seconds of this window in which something waited, and the dominant share meanwhile, in share-seconds.
    wanted: f64,
    got: f64,
}

/// Keeps account of who holds and wants what, through time.
#[derive(Debug)]
pub(crate) struct Books {
    capacity: Amounts,
    users: Vec<User>,
    window: i64,
    /// From when to when is counted.
    counted: (i64, i64),
    now: i64,
    used: [f64; 3],
    fairness: Vec<f64>,
    waits: Vec<(u32, f64, f64)>,
}

impl Books {
    pub(crate) fn new(workload: &Workload) -> Self {
        let window = (workload.span() / 8).clamp(1, 86_400);
        Self {
            capacity: workload.capacity(),
            users: vec![User::default(); workload.users()],
            window,
            counted: (window, (workload.span() / window * window).max(window)),
            now: 0,
            used: [0.0; 3],
            fairness: Vec::new(),
            waits: Vec::new(),
        }
    }

    /// Time passes.
    pub(crate) fn advance(&mut self, to: i64) {
        while self.now < to {
            let end = (self.now / self.window + 1) * self.window;
            let until = end.min(to);
            let counted = (self.counted.0..self.counted.1).contains(&self.now);
            if counted {
                self.account((until - self.now) as f64);
            }
            self.now = until;
            if until == end && counted {
                self.close_window();
            }
        }
    }

    fn account(&mut self, seconds: f64) {
        for user in &mut self.users {
            let shares: [f64; 3] =
                std::array::from_fn(|slot| user.held[slot] as f64 / self.capacity[slot].max(1) as f64);
            for (used, share) in self.used.iter_mut().zip(shares) {
                *used += share * seconds;
            }
            if user.waiting > 0 {
                user.wanted += seconds;
                user.got += shares.into_iter().fold(0.0, f64::max) * seconds;
            }
        }
    }

    /// Those count who wanted more for at least half of the window.
    fn close_window(&mut self) {
        let half = self.window as f64 / 2.0;
        let hungry = self.users.iter().filter(|user| user.wanted >= half);
        let shares: Vec<f64> = hungry.map(|user| user.got / user.wanted).collect();
        self.fairness.extend(jain(&shares));
        for user in &mut self.users {
            (user.wanted, user.got) = (0.0, 0.0);
        }
    }

    pub(crate) fn submitted(&mut self, job: &Job) {
        self.users[job.user as usize].waiting += 1;
    }

    pub(crate) fn started(&mut self, job: &Job) {
        let user = &mut self.users[job.user as usize];
        user.waiting -= 1;
        user.held = sum([&user.held, &sum(&job.kernels)]);
        if (self.counted.0..self.counted.1).contains(&job.submit) {
            let (wait, run) = ((self.now - job.submit) as f64, job.run as f64);
            self.waits.push((job.user, wait, ((wait + run) / run.max(10.0)).max(1.0)));
        }
    }

    pub(crate) fn ended(&mut self, job: &Job) {
        let (held, freed) = (&mut self.users[job.user as usize].held, sum(&job.kernels));
        *held = std::array::from_fn(|slot| held[slot] - freed[slot]);
    }

    pub(crate) fn figures(&self) -> Figures {
        let mut waits: Vec<f64> = self.waits.iter().map(|(_, wait, _)| *wait).collect();
        waits.sort_unstable_by(f64::total_cmp);
        let mut users: Vec<Vec<f64>> = vec![Vec::new(); self.users.len()];
        for (user, _, slowdown) in &self.waits {
            users[*user as usize].push(*slowdown);
        }
        let slowdowns: Vec<f64> = users.iter().filter(|all| !all.is_empty()).map(|all| mean(all)).collect();
        let seconds = (self.counted.1 - self.counted.0).max(1) as f64;
        Figures {
            wait: mean(&waits),
            wait_p95: waits.get((waits.len() * 95).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0.0),
            slowdown: mean(&users.concat()),
            utilisation: self.used.into_iter().fold(0.0, f64::max) / seconds,
            fairness: (!self.fairness.is_empty()).then(|| mean(&self.fairness)),
            evenness: jain(&slowdowns),
        }
    }
}

/// Zero for nothing.
fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_is_one_for_equals_and_a_part_for_one_of_many() {
        assert_eq!(jain(&[2.0, 2.0, 2.0]), Some(1.0));
        assert_eq!(jain(&[3.0, 0.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(jain(&[1.0]), None);
        assert_eq!(jain(&[0.0, 0.0]), None);
    }

    #[test]
    fn windows_at_both_ends_are_left_out() {
        let job =
            |submit, run| Job { submit, run, limit: None, user: 0, project: 0, kernels: vec![[2, 0, 0]] };
        let workload =
            Workload { agents: vec![[4, 0, 0]], jobs: vec![job(0, 150), job(120, 20), job(800, 1)] };
        let mut books = Books::new(&workload);
        books.submitted(&workload.jobs[0]);
        books.started(&workload.jobs[0]);
        books.advance(120);
        books.submitted(&workload.jobs[1]);
        books.advance(150);
        books.ended(&workload.jobs[0]);
        books.started(&workload.jobs[1]);
        books.advance(170);
        books.ended(&workload.jobs[1]);
        books.advance(900);
        let figures = books.figures();
        // Counted are 100 to 800 and the second job; half of the cores were used until 170.
        assert!((figures.wait - 30.0).abs() < 1e-9 && (figures.slowdown - 2.5).abs() < 1e-9, "{figures:?}");
        assert!((figures.utilisation - 0.5 * 70.0 / 700.0).abs() < 1e-9, "{figures:?}");
    }
}
