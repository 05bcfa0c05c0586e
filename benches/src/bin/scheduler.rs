//! The scheduler alone: passes over one resource group, on one core, and the memory that waiting sessions take.
//!
//! Building the group is not part of any figure: it is built once and then kept by deltas.
#![allow(missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bai_benches::{median_ms, print};
use bai_core::slots::{DefaultForUnspecified, ResourceSlots, SlotType, SlotTypes};
use bai_core::status::ClusterMode;
use bai_core::{Error, SessionId};
use bai_scheduler::testing::{agent, at, id, owner, session, slots};
use bai_scheduler::{Delta, Drf, FairShare, Group, Holder, Limits, Options, Outcome, Sequencer, Session};
use chrono::TimeDelta;

type Result<T> = std::result::Result<T, Error>;

const GIB: u64 = 1 << 30;
const USERS: u128 = 100;

/// Counts what is allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the arguments as they are; counting touches no memory of it.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<()> {
    let full = figure(9, || all_fit(1_000, 10_000))?;
    print("pass, 1,000 agents, 10,000 pending, all fit", full, "ms", None, Some(60.0), false);
    print("placements per second, same", 10_000.0 / full * 1e3, "1/s", None, Some(160_000.0), true);
    let explained = figure(9, || none_fits(1_000, 10_000))?;
    print("pass, same, nothing fits, all explained", explained, "ms", None, Some(40.0), false);
    let incremental = one_ends(1_000, 10_000)?;
    print("pass after one session ends, same size", incremental * 1e3, "us", None, Some(200.0), false);
    for (agents, pending, aim) in [(100, 1_000, None), (10_000, 100_000, Some(1_000.0))] {
        let name = format!("pass, {agents} agents, {pending} pending, all fit");
        print(&name, figure(5, || all_fit(agents, pending))?, "ms", None, aim, false);
    }
    let gangs = figure(9, || all_gangs(1_000, 1_000))?;
    print("gangs of 8 over 1,000 agents, fair share", 1e6 / gangs, "1/s", None, Some(10_000.0), true);
    print("memory per pending session", bytes_per_pending()?, "B", None, Some(256.0), false);
    Ok(())
}

/// Median of passes over groups that are made anew each time, in milliseconds.
fn figure(rounds: usize, mut prepare: impl FnMut() -> Result<(Group, usize)>) -> Result<f64> {
    let mut all: Vec<Duration> = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let (mut group, placements) = prepare()?;
        let start = Instant::now();
        let plan = group.pass(at(1_000_000));
        // Everybody who waits is told why, in the order of the queue.
        let waiting = if placements == 0 { group.waiting() } else { Vec::new() };
        all.push(start.elapsed());
        assert_eq!(plan.placements.len(), placements, "the wrong number of sessions was placed");
        black_box(waiting);
    }
    all.sort_unstable();
    Ok(median_ms(&all))
}

fn types() -> SlotTypes {
    let types = [("cpu", SlotType::Count), ("mem", SlotType::Bytes), ("cuda.device", SlotType::Count)];
    types.into_iter().collect()
}

fn group(sequencer: Arc<dyn Sequencer>) -> Result<Group> {
    let mut group = Group::new(Options { sequencer, ..Options::default() }, types());
    for number in 0..USERS {
        let owner = owner(number);
        for holder in
            [Holder::Keypair(owner.access_key), Holder::User(owner.user), Holder::Project(owner.project)]
        {
            let total = slots(&[("cpu", 1_000_000), ("mem", 1 << 60), ("cuda.device", 100_000)]);
            let total = Some((total, DefaultForUnspecified::Limited));
            let limits = Limits { total, max_sessions: 1_000_000, ..Limits::default() };
            group.apply(Delta::Limits(holder, Box::new(limits)))?;
        }
    }
    Ok(group)
}

/// Half of the agents have accelerators.
fn add_agents(group: &mut Group, agents: usize) -> Result<()> {
    for number in 0..agents {
        let gpus = if number % 2 == 0 { 8 } else { 0 };
        let capacity = [("cpu", 64), ("mem", 512 * GIB), ("cuda.device", gpus)];
        let agent = agent(&format!("i-{number:05}"), &capacity);
        group.apply(Delta::Agent(Box::new(agent)))?;
    }
    Ok(())
}

/// Eight sizes, a quarter with accelerators, from a hundred users.
fn request(number: u128) -> ResourceSlots {
    let size = number % 8;
    let cpu = [1, 2, 4, 8, 1, 2, 4, 2][usize::try_from(size).unwrap_or(0)];
    let gpu = u64::from(size == 3 || size == 7);
    slots(&[("cpu", cpu), ("mem", cpu * 4 * GIB), ("cuda.device", gpu)])
}

fn waiting(number: u128, request: ResourceSlots) -> Session {
    let mut session = session(number, &[&[]]);
    // The ends of a third are known.
    session.max_runtime = number.is_multiple_of(3).then(|| TimeDelta::hours(1));
    session.kernels[0].slots = request;
    session.owner = owner(number / 8 % USERS);
    session
}

fn all_fit(agents: usize, pending: usize) -> Result<(Group, usize)> {
    let mut group = group(Arc::new(Drf))?;
    add_agents(&mut group, agents)?;
    for number in (1..).take(pending) {
        group.apply(Delta::Enqueued(Box::new(waiting(number, request(number)))))?;
    }
    Ok((group, pending))
}

/// The agents are full of sessions without a known end.
fn fill(group: &mut Group, agents: usize) -> Result<Vec<SessionId>> {
    let whole = [
        slots(&[("cpu", 64), ("mem", 512 * GIB), ("cuda.device", 8)]),
        slots(&[("cpu", 64), ("mem", 512 * GIB), ("cuda.device", 0)]),
    ];
    let mut filling = Vec::with_capacity(agents);
    for number in (1_000_000..).take(agents) {
        let mut session = waiting(number, whole[usize::from(number % 2 == 1)].clone());
        session.owner = owner(number % USERS);
        filling.push(session.id);
        group.apply(Delta::Enqueued(Box::new(session)))?;
    }
    let plan = group.pass(at(999_999));
    assert_eq!(plan.placements.len(), agents, "the agents are not full");
    Ok(filling)
}

fn none_fits(agents: usize, pending: usize) -> Result<(Group, usize)> {
    let mut group = group(Arc::new(Drf))?;
    add_agents(&mut group, agents)?;
    fill(&mut group, agents)?;
    for number in (1..).take(pending) {
        group.apply(Delta::Enqueued(Box::new(waiting(number, request(number)))))?;
    }
    Ok((group, 0))
}

/// One session after another ends and makes room for some that wait. Milliseconds per end, pass included.
fn one_ends(agents: usize, pending: usize) -> Result<f64> {
    let mut group = group(Arc::new(Drf))?;
    add_agents(&mut group, agents)?;
    let filling = fill(&mut group, agents)?;
    for number in (1..).take(pending) {
        group.apply(Delta::Enqueued(Box::new(waiting(number, request(number)))))?;
    }
    let mut running: Vec<SessionId> = Vec::new();
    group.pass(at(1_000_000));
    for session in filling.into_iter().take(agents / 10) {
        group.apply(Delta::Ended(session, Outcome::Succeeded))?;
    }
    running.extend(group.pass(at(1_000_001)).placements.iter().map(|placement| placement.session));
    let mut all = Vec::with_capacity(200);
    let mut placed = 0;
    for session in running.into_iter().take(200) {
        let start = Instant::now();
        group.apply(Delta::Ended(session, Outcome::Succeeded))?;
        let plan = group.pass(at(1_000_002));
        all.push(start.elapsed());
        placed += plan.placements.len();
    }
    assert!(placed > 0, "nobody got the room");
    all.sort_unstable();
    Ok(median_ms(&all))
}

fn all_gangs(agents: usize, gangs: usize) -> Result<(Group, usize)> {
    let mut group = group(Arc::new(FairShare::default()))?;
    add_agents(&mut group, agents)?;
    for number in (1..).take(gangs) {
        let mut gang = waiting(number, slots(&[("cpu", 4), ("mem", 16 * GIB)]));
        gang.cluster_mode = ClusterMode::MultiNode;
        gang.kernels = vec![gang.kernels[0].clone(); 8];
        group.apply(Delta::Enqueued(Box::new(gang)))?;
    }
    Ok((group, gangs))
}

fn bytes_per_pending() -> Result<f64> {
    const COUNT: u32 = 100_000;
    let mut group = group(Arc::new(Drf))?;
    add_agents(&mut group, 1_000)?;
    group.apply(Delta::Enqueued(Box::new(waiting(1, request(1)))))?;
    let before = ALLOCATED.load(Ordering::Relaxed);
    for number in (2..).take(COUNT as usize) {
        group.apply(Delta::Enqueued(Box::new(waiting(number, request(number)))))?;
    }
    let bytes = ALLOCATED.load(Ordering::Relaxed) - before;
    black_box(group.explain(id(1)));
    Ok(f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / f64::from(COUNT))
}
