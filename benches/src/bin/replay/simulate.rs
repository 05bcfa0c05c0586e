//! Replays a workload in virtual time: tells the scheduler what happens, and does what it plans.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bai_core::{Error, ErrorKind, SessionId};
use bai_scheduler::testing::{at, id};
use bai_scheduler::{Backfill, Delta, Group, Holder, Options, Outcome, UsageSlice};

use crate::measure::{Books, Figures};
use crate::workload::{Amounts, Job, Workload, slots, sum};

/// How often the usage of the past is told, in seconds.
const OBSERVED: i64 = 300;
/// Length of a slice of it.
const SLICE: i64 = 6 * 3_600;

/// A way to schedule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// Name of the order of service.
    pub(crate) sequencer: &'static str,
    pub(crate) backfill: Backfill,
}

impl Policy {
    fn options(self, selector: &str) -> Result<Options, Error> {
        let unknown = |name: &str| Error::new(ErrorKind::Invalid, format!("unknown: {name}"));
        Ok(Options {
            sequencer: Options::sequencer_named(self.sequencer).ok_or_else(|| unknown(self.sequencer))?,
            selector: Options::selector_named(selector).ok_or_else(|| unknown(selector))?,
            backfill: self.backfill,
            ..Options::default()
        })
    }
}

/// Replays all jobs to their end.
///
/// # Errors
/// `Invalid` for the name of a selector that there is not; those of the scheduler; `Internal` if a job never starts.
pub(crate) fn replay(workload: &Workload, policy: Policy, selector: &str) -> Result<Figures, Error> {
    let mut group = Group::new(policy.options(selector)?, Workload::slot_types());
    for agent in workload.fleet() {
        group.apply(Delta::Agent(Box::new(agent)))?;
    }
    let ledger = (policy.sequencer == "fair-share").then(|| Ledger::new(workload.capacity()));
    let mut replay = Replay {
        workload,
        group,
        ledger,
        books: Books::new(workload),
        arrived: 0,
        ends: BinaryHeap::new(),
        wake: None,
    };
    while let Some(now) = replay.next() {
        replay.step(now)?;
    }
    if replay.group.pending() > 0 {
        return Err(Error::new(ErrorKind::Internal, format!("{} never start", replay.group.pending())));
    }
    Ok(replay.books.figures())
}

struct Replay<'a> {
    workload: &'a Workload,
    group: Group,
    /// Only where the order of service looks at the past.
    ledger: Option<Ledger>,
    books: Books,
    /// How many jobs have come.
    arrived: usize,
    /// When which of the jobs ends.
    ends: BinaryHeap<Reverse<(i64, usize)>>,
    /// When the scheduler wants to be asked again.
    wake: Option<i64>,
}

impl Replay<'_> {
    /// When something happens next; `None` when nothing will.
    fn next(&self) -> Option<i64> {
        let arrival = self.workload.jobs.get(self.arrived).map(|job| job.submit);
        let end = self.ends.peek().map(|Reverse((end, _))| *end);
        let event = arrival.into_iter().chain(end).min()?;
        let told = self.ledger.as_ref().map(|ledger| ledger.now + OBSERVED);
        Some(told.into_iter().chain(self.wake).fold(event, i64::min))
    }

    fn step(&mut self, now: i64) -> Result<(), Error> {
        self.books.advance(now);
        if let Some(ledger) = self.ledger.as_mut().filter(|ledger| ledger.now + OBSERVED <= now) {
            let running = self.ends.iter().map(|Reverse((_, place))| &self.workload.jobs[*place]);
            ledger.observe(now, running).try_for_each(|delta| self.group.apply(delta))?;
        }
        while let Some(place) = self.over(now) {
            self.books.ended(&self.workload.jobs[place]);
            self.group.apply(Delta::Ended(session(place), Outcome::Succeeded))?;
        }
        while let Some(job) = self.workload.jobs.get(self.arrived).filter(|job| job.submit <= now) {
            self.books.submitted(job);
            self.group.apply(Delta::Enqueued(Box::new(self.workload.session(self.arrived))))?;
            self.arrived += 1;
        }
        self.pass(now)
    }

    /// A job that is over by now.
    fn over(&mut self, now: i64) -> Option<usize> {
        let Reverse((end, place)) = *self.ends.peek()?;
        if end > now {
            return None;
        }
        self.ends.pop();
        Some(place)
    }

    fn pass(&mut self, now: i64) -> Result<(), Error> {
        let plan = self.group.pass(at(now));
        for placement in &plan.placements {
            let place = usize::try_from(placement.session.0.as_u128()).unwrap_or(usize::MAX);
            let Some(job) = self.workload.jobs.get(place) else { continue };
            self.books.started(job);
            self.ends.push(Reverse((now + job.run, place)));
        }
        if let Some(cancelled) = plan.cancellations.first() {
            return Err(Error::new(ErrorKind::Internal, cancelled.message.clone()));
        }
        self.wake = plan.wake_at.map(|wake| wake.timestamp()).filter(|wake| *wake > now);
        Ok(())
    }
}

fn session(place: usize) -> SessionId {
    id(place as u128)
}

/// Writes down what was used, as a manager does.
struct Ledger {
    capacity: Amounts,
    now: i64,
    past: BTreeMap<Holder, Vec<UsageSlice>>,
}

impl Ledger {
    fn new(capacity: Amounts) -> Self {
        Self { capacity, now: 0, past: BTreeMap::new() }
    }

    /// Adds what has run since the last time, and tells it.
    fn observe<'a>(
        &mut self,
        now: i64,
        running: impl Iterator<Item = &'a Job>,
    ) -> impl Iterator<Item = Delta> {
        let mut used: BTreeMap<Holder, Amounts> = BTreeMap::new();
        for job in running {
            let owner = job.owner();
            let asked = sum(&job.kernels);
            let member = Holder::Member(owner.project, owner.user);
            for holder in [Holder::Domain(owner.domain), Holder::Project(owner.project), member] {
                let used = used.entry(holder).or_default();
                *used = sum([&*used, &asked]);
            }
        }
        let seconds = now.abs_diff(self.now);
        self.now = now;
        let mut news = Vec::new();
        for (holder, used) in used {
            let used = slots(&used.map(|amount| amount * seconds), &self.capacity);
            let slices = self.past.entry(holder.clone()).or_default();
            let middle = at(now / SLICE * SLICE + SLICE / 2);
            match slices.last_mut() {
                Some(last) if last.at == middle => last.slot_seconds.add(&used),
                _ => slices.push(UsageSlice { at: middle, slot_seconds: used }),
            }
            news.push(Delta::History(holder, slices.clone()));
        }
        news.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::generate;

    fn job(submit: i64, run: i64, limit: Option<i64>, user: u32, cores: u64) -> Job {
        Job { submit, run, limit, user, project: 0, kernels: vec![[cores, 0, 0]] }
    }

    fn figures(jobs: &[Job], sequencer: &'static str, backfill: Backfill) -> Figures {
        let workload = Workload { agents: vec![[4, 0, 0]], jobs: jobs.to_vec() };
        replay(&workload, Policy { sequencer, backfill }, "concentrated").unwrap()
    }

    /// Two fillers at both ends, which are not counted.
    fn framed(jobs: &[Job]) -> Vec<Job> {
        let mut all = vec![job(0, 1, None, 0, 1)];
        all.extend_from_slice(jobs);
        all.push(job(800, 1, None, 0, 1));
        all
    }

    #[test]
    fn backfill_uses_the_room_beside_a_job_that_waits() {
        let jobs = framed(&[
            job(100, 100, Some(100), 0, 3),
            job(101, 50, Some(50), 1, 4),
            job(102, 20, Some(30), 2, 1),
        ]);
        // Without it: 99 for the second, and 148 for the third, which comes after it.
        let strict = figures(&jobs, "fifo", Backfill::Strict);
        assert!((strict.wait - (99.0 + 148.0) / 3.0).abs() < 1e-9, "{strict:?}");
        let easy = figures(&jobs, "fifo", Backfill::Easy);
        assert!((easy.wait - 99.0 / 3.0).abs() < 1e-9, "{easy:?}");
        assert!((easy.wait_p95 - 99.0).abs() < 1e-9, "{easy:?}");
    }

    #[test]
    fn a_fair_order_serves_the_second_user_before_the_rest_of_the_first() {
        let runs = [50, 70].into_iter().cycle();
        let mut jobs: Vec<Job> = runs.take(8).map(|run| job(100, run, Some(run), 0, 2)).collect();
        jobs.push(job(101, 10, Some(10), 1, 2));
        let jobs = framed(&jobs);
        let fifo = figures(&jobs, "fifo", Backfill::Easy).evenness.unwrap();
        for sequencer in ["drf", "fair-share"] {
            let fair = figures(&jobs, sequencer, Backfill::Easy).evenness.unwrap();
            assert!(fair > fifo, "{sequencer}: {fair} and {fifo}");
        }
    }

    #[test]
    fn a_replay_gives_the_same_figures_twice_and_ends_all_jobs() {
        let workload = generate(3, 300, 0.9);
        for sequencer in ["fifo", "drf", "fair-share"] {
            let policy = Policy { sequencer, backfill: Backfill::Easy };
            let once = replay(&workload, policy, "concentrated").unwrap();
            assert_eq!(once, replay(&workload, policy, "concentrated").unwrap());
            assert!(once.utilisation > 0.2 && once.utilisation <= 1.0, "{once:?}");
        }
    }
}
