//! What is simulated: sizes and troubles, all of which follow from the seed.

use std::time::Duration;

use bai_testkit::simulation::{Chance, NodeOptions, Weather};

/// Agents from which on a cluster is large.
const LARGE: usize = 500;

/// The most resource groups that there are.
const GROUPS: [&str; 3] = ["default", "blue", "green"];

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) managers: usize,
    pub(crate) agents: usize,
    pub(crate) sessions: usize,
    /// Whether the manager has the store for itself.
    pub(crate) exclusive: bool,
    /// Resource groups, between which agents and sessions are divided.
    pub(crate) groups: &'static [&'static str],
    /// How long things go wrong.
    pub(crate) trouble: Duration,
    /// Longest pause between two faults, in milliseconds.
    pub(crate) fault_pause: u64,
    pub(crate) weather: Weather,
    pub(crate) kernels: NodeOptions,
    /// How many events a manager may lag behind.
    pub(crate) events_kept: usize,
    pub(crate) scheduler: &'static str,
    pub(crate) backfill: &'static str,
    /// Whether sessions may have to give way to more important ones.
    pub(crate) preemption: bool,
}

impl Scenario {
    /// Whether there are so many agents that there is room for everybody.
    pub(crate) fn is_large(&self) -> bool {
        self.agents >= LARGE
    }

    /// The run of this seed; `agents` in place of a small number of them.
    pub(crate) fn of(seed: u64, agents: Option<usize>) -> Self {
        let chance = Chance::new(seed);
        let number = |least: usize, most: usize| least + chance.below(most - least + 1);
        let share = |most: usize| u32::try_from(chance.below(most + 1)).unwrap_or(0);
        let small = number(20, 50);
        let large = agents.is_some_and(|agents| agents >= LARGE);
        let managers = number(1, 4);
        let groups = &GROUPS[..if chance.permille(500) { 1 } else { number(2, 3) }];
        let exclusive = managers == 1 && chance.permille(500);
        Self {
            seed,
            managers: if large { managers.min(2) } else { managers },
            agents: agents.unwrap_or(small),
            exclusive,
            groups,
            sessions: if large { 150 } else { 200 },
            trouble: Duration::from_secs(if large { 45 } else { 240 }),
            fault_pause: 1_000 + 1_000 * number(1, 15) as u64,
            weather: Weather {
                loss: share(100),
                repeats: share(100),
                slow: share(150),
                store: share(50),
                events: share(500),
            },
            kernels: NodeOptions {
                failures: share(80),
                stuck: if large { 0 } else { share(40) },
                deaths: share(100),
                heartbeat: Duration::from_secs(if large { 20 } else { 5 }),
            },
            scheduler: chance.pick(&["fifo", "fifo", "lifo", "drf", "fair-share"]).copied().unwrap_or("fifo"),
            backfill: chance.pick(&["strict", "easy", "conservative"]).copied().unwrap_or("easy"),
            preemption: chance.permille(300),
            events_kept: if chance.permille(300) { 16 } else { 65_536 },
        }
    }
}
