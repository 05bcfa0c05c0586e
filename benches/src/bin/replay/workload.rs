//! What is replayed: a cluster and the jobs that come to it.

use bai_core::slots::{ResourceSlots, SlotType, SlotTypes};
use bai_core::status::{ClusterMode, SessionType};
use bai_core::{AccessKey, ProjectId, UserId};
use bai_scheduler::testing::{at, session};
use bai_scheduler::{Agent, Kernel, Owner, Session};
use chrono::TimeDelta;
use uuid::Uuid;

/// The slots of a replay, in the order of [`Amounts`]. Memory is in GiB here and in bytes for the scheduler.
pub(crate) const SLOTS: [&str; 3] = ["cpu", "mem", "cuda.device"];
const UNITS: [u64; 3] = [1, 1 << 30, 1];

/// Cores, memory in GiB, accelerators.
pub(crate) type Amounts = [u64; 3];

/// A job: one kernel per element of `kernels`, each on an agent of its own choice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    /// Seconds after the start of the trace.
    pub(crate) submit: i64,
    /// How long it runs, in seconds; known only to the replay.
    pub(crate) run: i64,
    /// How long it may run, in seconds; known to the scheduler.
    pub(crate) limit: Option<i64>,
    pub(crate) user: u32,
    pub(crate) project: u32,
    pub(crate) kernels: Vec<Amounts>,
}

/// A cluster and its jobs, in the order of submission.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) agents: Vec<Amounts>,
    pub(crate) jobs: Vec<Job>,
}

pub(crate) fn sum<'a>(all: impl IntoIterator<Item = &'a Amounts>) -> Amounts {
    all.into_iter().fold([0; 3], |sum, next| std::array::from_fn(|slot| sum[slot] + next[slot]))
}

impl Workload {
    /// What the cluster has.
    pub(crate) fn capacity(&self) -> Amounts {
        sum(&self.agents)
    }

    /// How many users there are: their numbers are below this.
    pub(crate) fn users(&self) -> usize {
        self.jobs.iter().map(|job| job.user as usize + 1).max().unwrap_or(0)
    }

    /// When the last job comes.
    pub(crate) fn span(&self) -> i64 {
        self.jobs.last().map_or(0, |job| job.submit)
    }

    /// Seconds that the cluster would need for all jobs if it were always full of what there is least of.
    pub(crate) fn work_seconds(&self) -> f64 {
        let capacity = self.capacity();
        let mut work = [0.0; 3];
        for job in &self.jobs {
            let asked = sum(&job.kernels);
            for slot in (0..3).filter(|slot| capacity[*slot] > 0) {
                work[slot] += asked[slot] as f64 * job.run as f64 / capacity[slot] as f64;
            }
        }
        work.into_iter().fold(0.0, f64::max)
    }

    /// The work that comes, over what the cluster can do while it comes.
    pub(crate) fn load(&self) -> f64 {
        self.work_seconds() / self.span().max(1) as f64
    }

    pub(crate) fn slot_types() -> SlotTypes {
        let types = [SlotType::Count, SlotType::Bytes, SlotType::Count];
        SLOTS.into_iter().zip(types).collect()
    }

    /// The agents as the scheduler knows them.
    pub(crate) fn fleet(&self) -> impl Iterator<Item = Agent> + '_ {
        let known = self.capacity();
        let agents = self.agents.iter().enumerate();
        agents.map(move |(at, has)| Agent::new(format!("i-{at:05}"), "x86_64", slots(has, &known)))
    }

    /// The job at a place of the list as the scheduler knows it. The place is the id of the session.
    pub(crate) fn session(&self, place: usize) -> Session {
        let known = self.capacity();
        let job = &self.jobs[place];
        let mut session = session(place as u128, &[]);
        session.owner = job.owner();
        session.created_at = at(job.submit);
        session.session_type = SessionType::Batch;
        session.cluster_mode =
            if job.kernels.len() > 1 { ClusterMode::MultiNode } else { ClusterMode::SingleNode };
        session.max_runtime = job.limit.map(TimeDelta::seconds);
        let kernels = job.kernels.iter();
        session.kernels =
            kernels.map(|asked| Kernel::new(slots(asked, &known), "x86_64", "python")).collect();
        session
    }
}

impl Job {
    pub(crate) fn owner(&self) -> Owner {
        Owner {
            access_key: AccessKey::new(format!("AKIA{}", self.user)),
            user: UserId(Uuid::from_u128(self.user.into())),
            project: ProjectId(Uuid::from_u128(self.project.into())),
            domain: "default".to_owned(),
        }
    }
}

/// Amounts of the slots that the cluster has at all.
pub(crate) fn slots(amounts: &Amounts, known: &Amounts) -> ResourceSlots {
    let known = (0..3).filter(|slot| known[*slot] > 0);
    known.map(|slot| (SLOTS[slot], amounts[slot] * UNITS[slot])).collect()
}
