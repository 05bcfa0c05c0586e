//! A group that was kept by deltas decides like one that learnt everything at once, in whatever order.

use std::sync::Arc;

use bai_core::Timestamp;
use bai_core::slots::DefaultForUnspecified;
use bai_core::status::ClusterMode;
use bai_scheduler::testing::slots;
use bai_scheduler::testing::{agent, at, id, owner, session};
use bai_scheduler::{
    Backfill, Concentrated, Delta, Dependency, DependencyState, Direction, Drf, FairShare, Fifo, GivenUp,
    Group, Holder, Legacy, Lifo, Limits, Options, Outcome, Plan, Preemption, RoundRobin, Session,
    SessionGroup, SessionGroupId, VictimOrder, VictimScope,
};
use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

use crate::world::World;

/// Something that happens; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Event {
    Enqueue {
        owner: u8,
        priority: u8,
        cpu: u8,
        gpu: u8,
        kernels: u8,
        gang: bool,
        minutes: u8,
        special: u8,
    },
    End(u8, bool),
    Requeue(u8),
    Join(u8, u8),
    Cordon(u8, bool),
    Leave(u8),
    Limit(u8, u8),
    Prioritise(u8, u8),
    /// One that has to go for another one is gone.
    GiveWay(u8),
    /// A claim is not recorded, or so it seems.
    Void(u8, bool),
    /// A claim is given up by somebody else.
    GiveUp(u8, u8),
    /// A group that was built afresh takes over.
    Restart(u64),
    /// Victims are told to go, or nobody comes to that.
    Pass(u8, bool),
}

fn event() -> impl Strategy<Value = Event> {
    let enqueue = (0..3_u8, 0..3_u8, 0..6_u8, 0..3_u8, 1..4_u8, any::<bool>(), 0..4_u8, 0..12_u8).prop_map(
        |(owner, priority, cpu, gpu, kernels, gang, minutes, special)| Event::Enqueue {
            owner,
            priority,
            cpu,
            gpu,
            kernels,
            gang,
            minutes,
            special,
        },
    );
    prop_oneof![
        8 => enqueue,
        4 => (any::<u8>(), any::<bool>()).prop_map(|(which, good)| Event::End(which, good)),
        1 => any::<u8>().prop_map(Event::Requeue),
        1 => (0..5_u8, 1..9_u8).prop_map(|(which, cpu)| Event::Join(which, cpu)),
        1 => (0..5_u8, any::<bool>()).prop_map(|(which, on)| Event::Cordon(which, on)),
        1 => (0..5_u8).prop_map(Event::Leave),
        1 => (0..3_u8, 0..12_u8).prop_map(|(owner, cpu)| Event::Limit(owner, cpu)),
        1 => (any::<u8>(), 0..3_u8).prop_map(|(which, priority)| Event::Prioritise(which, priority)),
        3 => any::<u8>().prop_map(Event::GiveWay),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(which, seems)| Event::Void(which, seems)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(which, seconds)| Event::GiveUp(which, seconds)),
        1 => any::<u64>().prop_map(Event::Restart),
        5 => (1..120_u8, any::<bool>()).prop_map(|(seconds, tells)| Event::Pass(seconds, tells)),
    ]
}

/// What happens where the agents are full and the important push out the others.
fn crowded() -> impl Strategy<Value = Event> {
    let enqueue = (0..2_u8, 0..3_u8, 1..7_u8, 0..2_u8, 1..3_u8, any::<bool>(), 0..20_u8).prop_map(
        |(owner, priority, cpu, gpu, kernels, gang, special)| {
            let minutes = if special % 4 == 3 { 3 } else { 0 };
            Event::Enqueue { owner, priority, cpu, gpu, kernels, gang, minutes, special }
        },
    );
    prop_oneof![
        60 => enqueue,
        4 => (any::<u8>(), any::<bool>()).prop_map(|(which, good)| Event::End(which, good)),
        4 => any::<u8>().prop_map(Event::Requeue),
        3 => (0..5_u8, any::<bool>()).prop_map(|(which, on)| Event::Cordon(which, on)),
        3 => (0..5_u8, 1..9_u8).prop_map(|(which, cpu)| Event::Join(which, cpu)),
        1 => (0..5_u8).prop_map(Event::Leave),
        3 => (any::<u8>(), 0..3_u8).prop_map(|(which, priority)| Event::Prioritise(which, priority)),
        16 => any::<u8>().prop_map(Event::GiveWay),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(which, seems)| Event::Void(which, seems)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(which, seconds)| Event::GiveUp(which, seconds)),
        5 => any::<u64>().prop_map(Event::Restart),
        60 => (1..90_u8, any::<bool>()).prop_map(|(seconds, tells)| Event::Pass(seconds, tells)),
    ]
}

fn preemption() -> impl Strategy<Value = Preemption> {
    let scope = prop_oneof![1 => Just(VictimScope::User), 3 => Just(VictimScope::ResourceGroup)];
    let order = prop_oneof![
        Just(VictimOrder::LeastWorkLost),
        Just(VictimOrder::Oldest),
        Just(VictimOrder::Newest),
        Just(VictimOrder::FewestSessions),
        Just(VictimOrder::SmallestResources),
    ];
    (scope, order, 0..2_i64, 1..4_u32, 0..3_i64).prop_map(|(scope, order, minutes, attempts, cooldown)| {
        Preemption {
            scope,
            order,
            min_runtime: TimeDelta::minutes(minutes),
            grace: TimeDelta::seconds(10),
            timeout: TimeDelta::seconds(150),
            cooldown: TimeDelta::minutes(cooldown * 2),
            attempts,
        }
    })
}

fn options() -> impl Strategy<Value = Options> {
    let most = prop_oneof![Just(None), Just(Some(3_u32))];
    (0..4_u8, 0..4_u8, 0..4_u8, most, prop::option::of(preemption())).prop_map(
        |(sequencer, selector, backfill, max_kernels_per_agent, preemption)| {
            let mut options = Options { max_kernels_per_agent, preemption, ..Options::default() };
            options.sequencer = match sequencer {
                0 => Arc::new(Fifo),
                1 => Arc::new(Lifo),
                2 => Arc::new(Drf),
                _ => Arc::new(FairShare::default()),
            };
            match selector {
                0 => options.selector = Arc::new(Concentrated),
                1 => options.selector = Arc::new(RoundRobin),
                2 => options.selector = Arc::new(Legacy),
                _ => {}
            }
            options.backfill = match backfill {
                0 => Backfill::Strict,
                1 => Backfill::Conservative(3),
                _ => Backfill::Easy,
            };
            options
        },
    )
}

fn enqueued(number: u128, event: &Event) -> Option<Session> {
    let Event::Enqueue { owner: who, priority, cpu, gpu, kernels, gang, minutes, special } = event else {
        return None;
    };
    let kernel: &[(&str, u64)] = &[("cpu", u64::from(*cpu)), ("cuda.device", u64::from(*gpu))];
    let kernels = vec![kernel; usize::from(*kernels)];
    let mut session = session(number, &kernels);
    session.owner = owner(u128::from(*who));
    session.priority = i32::from(*priority);
    session.job_priority = session.priority;
    if *gang {
        session.cluster_mode = ClusterMode::MultiNode;
    }
    if *minutes > 0 {
        session.max_runtime = Some(chrono::TimeDelta::minutes(i64::from(*minutes)));
    }
    let group =
        |direction, strict| Some(SessionGroup { id: SessionGroupId(Uuid::from_u128(1)), direction, strict });
    match special {
        0 => session.group = group(Direction::Spread, true),
        1 => session.group = group(Direction::Pack, false),
        2 => session.designated = vec!["i-1".into(), "i-3".into()],
        3 => session.starts_at = Some(at(1_000_000 + i64::from(*cpu) * 60)),
        4 if number > 1 => {
            let parent = id(number - 1);
            session.dependencies =
                vec![Dependency { id: parent, name: "parent".into(), state: DependencyState::Waiting }];
        }
        _ => {}
    }
    Some(session)
}

fn pick<T: Clone>(items: &[T], which: u8) -> Option<T> {
    if items.is_empty() { None } else { Some(items[usize::from(which) % items.len()].clone()) }
}

fn agent_id(which: u8) -> bai_core::AgentId {
    format!("i-{which}").as_str().into()
}

/// Makes one event happen; the plan when it was a pass.
fn happen(world: &mut World, number: u128, event: &Event) {
    match event {
        Event::Enqueue { .. } => {
            let mut session = enqueued(number, event).unwrap();
            for dependency in &mut session.dependencies {
                let alive =
                    world.pending.contains_key(&dependency.id) || world.running.contains_key(&dependency.id);
                if !alive {
                    dependency.state = DependencyState::Succeeded;
                }
            }
            world.enqueue(session);
        }
        Event::End(which, good) => {
            let all: Vec<_> = world.running.keys().chain(world.pending.keys()).copied().collect();
            if let Some(session) = pick(&all, *which) {
                world.end(session, if *good { Outcome::Succeeded } else { Outcome::Failed });
            }
        }
        Event::Requeue(which) => {
            if let Some(session) = pick(&world.running.keys().copied().collect::<Vec<_>>(), *which) {
                let failed = world.running[&session].agents[0].clone();
                world.requeue(session, failed.into_iter().collect());
            }
        }
        Event::Join(which, cpu) => {
            let known = world.agents.get(&agent_id(*which));
            if known.is_none_or(|agent| !agent.schedulable || agent.capacity.is_zero()) {
                let capacity = [("cpu", u64::from(*cpu) + 4), ("cuda.device", u64::from(cpu % 3))];
                let used = world
                    .running
                    .values()
                    .any(|running| running.agents.iter().flatten().any(|agent| *agent == agent_id(*which)));
                if !used {
                    world.join(agent(agent_id(*which).as_str(), &capacity));
                }
            }
        }
        Event::Cordon(which, on) => {
            if let Some(agent) = world.agents.get_mut(&agent_id(*which)) {
                agent.schedulable = *on;
            }
            world.apply(Delta::AgentSchedulable(agent_id(*which), *on));
        }
        Event::Leave(which) => {
            world.agents.remove(&agent_id(*which));
            world.apply(Delta::AgentLeft(agent_id(*which)));
        }
        Event::Limit(who, cpu) => {
            let limited = (slots(&[("cpu", u64::from(*cpu))]), DefaultForUnspecified::Unlimited);
            let limits = Limits { total: Some(limited), max_sessions: u32::from(*cpu), ..Limits::default() };
            let owner = owner(u128::from(*who));
            world.limit(Holder::Keypair(owner.access_key), limits.clone());
            world.limit(Holder::Project(owner.project), limits);
        }
        Event::Prioritise(which, priority) => {
            if let Some(session) = pick(&world.pending.keys().copied().collect::<Vec<_>>(), *which) {
                world.pending.get_mut(&session).unwrap().priority = i32::from(*priority);
                world.apply(Delta::Prioritised(session, i32::from(*priority)));
            }
        }
        Event::GiveWay(which) => {
            if let Some(victim) = pick(&world.victims(), *which) {
                world.end(victim, Outcome::Failed);
            }
        }
        Event::Void(which, seems) => {
            if let Some(session) = pick(&world.claimants(), *which) {
                let claim = world.void(session);
                if *seems {
                    world.claim(session, claim);
                }
            }
        }
        Event::GiveUp(which, seconds) => {
            if let Some(session) = pick(&world.claimants(), *which) {
                let again_at = at(world.now + i64::from(*seconds));
                world.give_up(GivenUp { session, again_at });
            }
        }
        Event::Restart(seed) => world.restart(*seed),
        Event::Pass(seconds, tells) => {
            world.now += i64::from(*seconds);
            world.end_due();
            let plan = world.pass();
            if *tells {
                world.tell_victims(&plan);
            }
        }
    }
}

/// All of a plan that follows from the facts alone: what was told before does not, and neither do victims that were named before.
fn decisions(plan: &Plan, now: Timestamp) -> String {
    let preemptions: Vec<_> = plan.preemptions.iter().filter(|preempted| preempted.since == now).collect();
    let Plan { placements, reservations, given_up, cancellations, wake_at, .. } = plan;
    serde_json::to_string(&(placements, reservations, preemptions, given_up, cancellations, wake_at)).unwrap()
}

/// What a new group names again has to go by the records, and has not been told yet.
fn names_what_is_recorded(world: &World, plan: &Plan, now: Timestamp) -> Result<(), TestCaseError> {
    for preempted in plan.preemptions.iter().filter(|preempted| preempted.since != now) {
        let claim = world.pending[&preempted.beneficiary].claim.as_ref().unwrap();
        prop_assert_eq!((&preempted.agents, preempted.since), (&claim.agents, claim.since));
        prop_assert_eq!(preempted.expires, claim.expires);
        for victim in &preempted.victims {
            prop_assert!(claim.victims.contains(victim) && !world.running[victim].leaving);
        }
    }
    Ok(())
}

fn reasons(group: &mut Group) -> String {
    serde_json::to_string(&group.waiting()).unwrap()
}

fn check(options: Options, events: &[Event], seed: u64) -> Result<(), TestCaseError> {
    let mut world = World::new(options);
    for which in 0..4 {
        world.join(agent(&format!("i-{which}"), &[("cpu", 6 + which), ("cuda.device", which % 3)]));
    }
    for (number, event) in (1..).zip(events) {
        happen(&mut world, number, event);
    }
    let mut fresh = world.rebuilt(seed);
    let mut other = world.rebuilt(seed ^ 0x5555);
    let mut kept = world.group.clone();
    let now = at(world.now + 1);
    let (kept_plan, fresh_plan, other_plan) = (kept.pass(now), fresh.pass(now), other.pass(now));
    prop_assert_eq!(decisions(&kept_plan, now), decisions(&fresh_plan, now));
    prop_assert_eq!(decisions(&other_plan, now), decisions(&fresh_plan, now));
    prop_assert_eq!(&other_plan.preemptions, &fresh_plan.preemptions);
    names_what_is_recorded(&world, &fresh_plan, now)?;
    prop_assert_eq!(reasons(&mut kept), reasons(&mut fresh));
    // And once more, now that both have looked at everything.
    let now = at(world.now + 30);
    let (kept_plan, fresh_plan) = (kept.pass(now), fresh.pass(now));
    prop_assert_eq!(decisions(&kept_plan, now), decisions(&fresh_plan, now));
    prop_assert!(fresh_plan.preemptions.iter().all(|preempted| preempted.since == now), "named once");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn kept_by_deltas_or_built_afresh_it_is_the_same(
        options in options(),
        events in prop::collection::vec(event(), 1..80),
        seed in any::<u64>(),
    ) {
        check(options, &events, seed)?;
    }

    #[test]
    fn so_are_claims(
        options in options(),
        preemption in preemption(),
        events in prop::collection::vec(crowded(), 1..80),
        seed in any::<u64>(),
    ) {
        check(Options { preemption: Some(preemption), ..options }, &events, seed)?;
    }
}
