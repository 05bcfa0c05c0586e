//! What holds whatever happens.

use std::collections::BTreeMap;

use bai_core::slots::{Amount, DefaultForUnspecified, ResourceSlots, SlotType};
use bai_core::status::ClusterMode;
use bai_scheduler::testing::{agent, owner, session, slots};
use bai_scheduler::{Backfill, Holder, Limits, Options, Outcome, Session};
use proptest::prelude::*;

use crate::world::{World, placed, placed_set};

/// A session out of small numbers.
#[derive(Debug, Clone)]
struct Draft {
    owner: u128,
    priority: i32,
    kernels: Vec<(u64, u64, u64)>,
    gang: bool,
    minutes: Option<i64>,
}

fn draft() -> impl Strategy<Value = Draft> {
    let kernels = prop::collection::vec((0..6_u64, 0..40_u64, 0..3_u64), 1..4);
    (0..4_u128, 0..3_i32, kernels, any::<bool>(), prop::option::of(1..5_i64)).prop_map(
        |(owner, priority, kernels, gang, minutes)| Draft { owner, priority, kernels, gang, minutes },
    )
}

fn build(number: u128, draft: &Draft) -> Session {
    let mut session = session(number, &[]);
    for (cpu, mem, gpu) in &draft.kernels {
        let amounts = slots(&[("cpu", *cpu), ("mem", *mem), ("cuda.device", *gpu)]);
        session.kernels.push(bai_scheduler::Kernel::new(amounts, "x86_64", "python:3.11"));
    }
    session.owner = owner(draft.owner);
    session.priority = draft.priority;
    session.max_runtime = draft.minutes.map(chrono::TimeDelta::minutes);
    if draft.gang {
        session.cluster_mode = ClusterMode::MultiNode;
    }
    session
}

fn agents() -> impl Strategy<Value = Vec<bai_scheduler::Agent>> {
    prop::collection::vec((1..9_u64, 1..100_u64, 0..4_u64), 1..6).prop_map(|sizes| {
        (0..)
            .zip(sizes)
            .map(|(number, (cpu, mem, gpu))| {
                agent(&format!("i-{number}"), &[("cpu", cpu), ("mem", mem), ("cuda.device", gpu)])
            })
            .collect()
    })
}

fn options() -> impl Strategy<Value = Options> {
    (0..3_u8, 0..4_u8, 0..4_u8, prop::option::of(1..5_u32)).prop_map(
        |(backfill, sequencer, selector, kernels)| {
            let backfill =
                [Backfill::Easy, Backfill::Conservative(3), Backfill::Strict][usize::from(backfill)];
            let sequencer = ["fifo", "lifo", "drf", "fair-share"][usize::from(sequencer)];
            let selector = ["concentrated", "dispersed", "roundrobin", "legacy"][usize::from(selector)];
            Options {
                sequencer: Options::sequencer_named(sequencer).unwrap(),
                selector: Options::selector_named(selector).unwrap(),
                backfill,
                max_kernels_per_agent: kernels,
                ..Options::default()
            }
        },
    )
}

/// What everybody holds, by holder.
fn usage(world: &World) -> BTreeMap<Holder, (ResourceSlots, u32)> {
    let mut usage: BTreeMap<Holder, (ResourceSlots, u32)> = BTreeMap::new();
    for running in world.running.values() {
        let owner = &running.session.owner;
        for holder in [Holder::Keypair(owner.access_key.clone()), Holder::Project(owner.project)] {
            let (slots, sessions) = usage.entry(holder).or_default();
            running.session.kernels.iter().for_each(|kernel| slots.add(&kernel.slots));
            *sessions += 1;
        }
    }
    usage
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn nothing_is_given_away_twice_and_gangs_start_whole_and_no_limit_is_exceeded(
        options in options(),
        agents in agents(),
        drafts in prop::collection::vec(draft(), 1..40),
        limits in prop::collection::vec((0..4_u128, 1..20_u64, 0..6_u32), 0..4),
        ends in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut world = World::with_agents(options, &agents);
        for (who, cpu, max_sessions) in limits {
            let total = Some((slots(&[("cpu", cpu)]), DefaultForUnspecified::Unlimited));
            let limits = Limits { total, max_sessions, ..Limits::default() };
            world.limit(Holder::Keypair(owner(who).access_key), limits.clone());
            world.limit(Holder::Project(owner(who).project), limits);
        }
        let mut ends = ends.into_iter();
        for (at, drafts) in drafts.chunks(8).enumerate() {
            for (number, draft) in (1 + at as u128 * 8..).zip(drafts) {
                world.enqueue(build(number, draft));
            }
            for _ in 0..4 {
                world.now += 20;
                world.end_due();
                let plan = world.pass();
                for placement in &plan.placements {
                    let session = &world.running[&placement.session].session;
                    prop_assert_eq!(placement.agents.len(), session.kernels.len());
                    if session.cluster_mode == ClusterMode::SingleNode {
                        prop_assert!(placement.agents.windows(2).all(|pair| pair[0] == pair[1]));
                    }
                }
                world.check_books();
                for (holder, (used, sessions)) in usage(&world) {
                    let Some(limits) = world.limits.get(&holder) else { continue };
                    let (total, _) = limits.total.as_ref().unwrap();
                    prop_assert!(used.get("cpu") <= total.get("cpu"), "{:?} uses {}", holder, used);
                    let counts = matches!(holder, Holder::Keypair(_)) && limits.max_sessions > 0;
                    prop_assert!(!counts || sessions <= limits.max_sessions);
                }
                if let Some(end) = ends.next() && !world.running.is_empty() {
                    let session = *world.running.keys().nth(end.index(world.running.len())).unwrap();
                    world.end(session, Outcome::Succeeded);
                }
            }
        }
    }

    #[test]
    fn equal_requests_are_served_by_priority_and_age(
        cores in 1..20_u64,
        priorities in prop::collection::vec(0..4_i32, 1..40),
        lifo in any::<bool>(),
    ) {
        let sequencer = Options::sequencer_named(if lifo { "lifo" } else { "fifo" }).unwrap();
        let options = Options { sequencer, ..Options::default() };
        let mut world = World::with_agents(options, &[agent("i-1", &[("cpu", cores)])]);
        let mut expected: Vec<(i32, u128)> = Vec::new();
        for (number, priority) in (1_u128..).zip(&priorities) {
            let owner = owner(number % 3);
            world.enqueue(Session { priority: *priority, owner, ..session(number, &[&[("cpu", 1)]]) });
            expected.push((*priority, number));
        }
        let age = |number: u128| i128::try_from(number).unwrap() * if lifo { -1 } else { 1 };
        expected.sort_by_key(|(priority, number)| (-priority, age(*number)));
        let expected: Vec<u128> = expected.into_iter().map(|(_, number)| number).collect();
        prop_assert_eq!(world.group.positions().iter().map(|id| id.0.as_u128()).collect::<Vec<_>>(), &expected[..]);
        let served = placed(&world.pass());
        let most = usize::try_from(cores).unwrap().min(expected.len());
        prop_assert_eq!(&served[..], &expected[..most]);
    }

    #[test]
    fn the_order_in_which_facts_are_told_does_not_matter(
        options in options(),
        agents in agents(),
        drafts in prop::collection::vec(draft(), 1..30),
        seeds in (any::<u64>(), any::<u64>()),
    ) {
        let mut world = World::with_agents(options, &agents);
        for (number, draft) in (1..).zip(&drafts) {
            world.enqueue(build(number, draft));
        }
        let now = bai_scheduler::testing::at(world.now);
        let first = world.rebuilt(seeds.0).pass(now);
        prop_assert_eq!(&world.rebuilt(seeds.1).pass(now), &first);
        prop_assert_eq!(&world.group.pass(now), &first);
    }

    #[test]
    fn explanations_agree_with_the_plan(
        options in options(),
        agents in agents(),
        drafts in prop::collection::vec(draft(), 1..30),
        limit in 0..12_u64,
    ) {
        let mut world = World::with_agents(options, &agents);
        let total = Some((slots(&[("cpu", limit)]), DefaultForUnspecified::Unlimited));
        world.limit(Holder::Keypair(owner(0).access_key), Limits { total, ..Limits::default() });
        for (number, draft) in (1..).zip(&drafts) {
            world.enqueue(build(number, draft));
        }
        let plan = world.pass();
        let started = placed_set(&plan);
        let told: Vec<u128> = plan.unplaced.iter().map(|unplaced| unplaced.session.0.as_u128()).collect();
        let expected: Vec<u128> =
            (1..=drafts.len() as u128).filter(|number| !started.contains(number)).collect();
        prop_assert_eq!(&told, &expected, "everybody is placed or told why not");
        for unplaced in world.group.waiting() {
            agrees(&world, &unplaced)?;
        }
        // The next pass finds nothing that this one has missed, unless a reservation may move: because another one is the head of
        // the queue by now, or because those placed in this pass have known ends.
        if plan.reservations.is_empty() {
            let again = world.group.clone().pass(bai_scheduler::testing::at(world.now));
            prop_assert!(again.placements.is_empty());
        }
    }
}

/// Checks an explanation against the facts.
fn agrees(world: &World, unplaced: &bai_scheduler::Unplaced) -> Result<(), TestCaseError> {
    use bai_scheduler::Verdict;
    let session = &world.pending[&unplaced.session];
    let explanation = &unplaced.explanation;
    let free = |agent: &bai_scheduler::Agent| world.group.room_of(&agent.id).unwrap().1;
    let total: ResourceSlots = session.kernels.iter().map(|kernel| &kernel.slots).sum();
    let single = session.cluster_mode == ClusterMode::SingleNode || session.kernels.len() == 1;
    let fits = |room: &ResourceSlots| total.normalized().fits_in(room);
    match explanation.verdict {
        Verdict::NoRoom | Verdict::Impossible if single && world.options.max_kernels_per_agent.is_none() => {
            prop_assert!(world.agents.values().all(|agent| !fits(&free(agent))));
            let anywhere = world.agents.values().any(|agent| fits(&agent.capacity));
            prop_assert_eq!(anywhere, explanation.verdict == Verdict::NoRoom);
            let nearest = explanation.nearest.as_ref().unwrap();
            let agent = &world.agents[&nearest.agent];
            for short in &nearest.shortfalls {
                let words = SlotType::guess(&short.slot).describe(free(agent).get(&short.slot));
                prop_assert_eq!(&words, &short.free);
                prop_assert!(total.get(&short.slot) > free(agent).get(&short.slot));
            }
            let ruled_out: u32 = explanation.rejections.iter().map(|rejection| rejection.agents).sum();
            prop_assert_eq!(ruled_out as usize, world.agents.len());
        }
        Verdict::Checks => {
            let used = world.group.used_by(&Holder::Keypair(session.owner.access_key.clone())).get("cpu");
            let (limit, _) =
                world.limits[&Holder::Keypair(session.owner.access_key.clone())].total.clone().unwrap();
            prop_assert!(used.checked_add(total.get("cpu")) > Some(limit.get("cpu")));
            prop_assert!(total.get("cpu") > Amount::ZERO);
        }
        Verdict::Ready => prop_assert!(false, "{} could have been placed", unplaced.session),
        _ => {}
    }
    Ok(())
}
