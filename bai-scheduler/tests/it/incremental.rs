//! A group that was kept by deltas decides like one that learnt everything at once, in whatever order.

use std::sync::Arc;

use bai_core::slots::DefaultForUnspecified;
use bai_core::status::ClusterMode;
use bai_scheduler::testing::slots;
use bai_scheduler::testing::{agent, at, id, owner, session};
use bai_scheduler::{
    Backfill, Concentrated, Delta, Dependency, DependencyState, Direction, Drf, FairShare, Fifo, Group,
    Holder, Legacy, Lifo, Limits, Options, Outcome, Plan, RoundRobin, Session, SessionGroup, SessionGroupId,
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::world::World;

/// Something that happens; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Event {
    Enqueue { owner: u8, priority: u8, cpu: u8, gpu: u8, kernels: u8, gang: bool, minutes: u8, special: u8 },
    End(u8, bool),
    Requeue(u8),
    Join(u8, u8),
    Cordon(u8, bool),
    Leave(u8),
    Limit(u8, u8),
    Prioritise(u8, u8),
    Pass(u8),
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
        4 => (1..120_u8).prop_map(Event::Pass),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    let most = prop_oneof![Just(None), Just(Some(3_u32))];
    (0..4_u8, 0..4_u8, 0..4_u8, most).prop_map(|(sequencer, selector, backfill, max_kernels_per_agent)| {
        let mut options = Options { max_kernels_per_agent, ..Options::default() };
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
    })
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
        Event::Pass(seconds) => {
            world.now += i64::from(*seconds);
            world.end_due();
            world.pass();
        }
    }
}

/// All of a plan that follows from the facts alone: what was told before does not.
fn decisions(plan: &Plan) -> String {
    serde_json::to_string(&(&plan.placements, &plan.reservations, &plan.cancellations, &plan.wake_at))
        .unwrap()
}

fn reasons(group: &mut Group) -> String {
    serde_json::to_string(&group.waiting()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn kept_by_deltas_or_built_afresh_it_is_the_same(
        options in options(),
        events in prop::collection::vec(event(), 1..80),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(options);
        for which in 0..4 {
            world.join(agent(&format!("i-{which}"), &[("cpu", 6 + which), ("cuda.device", which % 3)]));
        }
        for (number, event) in (1..).zip(&events) {
            happen(&mut world, number, event);
        }
        let mut fresh = world.rebuilt(seed);
        let mut other = world.rebuilt(seed ^ 0x5555);
        let mut kept = world.group.clone();
        let now = at(world.now + 1);
        let (kept_plan, fresh_plan, other_plan) = (kept.pass(now), fresh.pass(now), other.pass(now));
        prop_assert_eq!(decisions(&kept_plan), decisions(&fresh_plan));
        prop_assert_eq!(decisions(&other_plan), decisions(&fresh_plan));
        prop_assert_eq!(reasons(&mut kept), reasons(&mut fresh));
        // And once more, now that both have looked at everything.
        let now = at(world.now + 30);
        prop_assert_eq!(decisions(&kept.pass(now)), decisions(&fresh.pass(now)));
    }
}
