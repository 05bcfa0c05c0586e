//! Nobody starves and nothing stands idle (W-1): both directions.

use bai_scheduler::testing::{agent, at, id, session};
use bai_scheduler::{Backfill, Delta, Options, Outcome, Session, Verdict};
use chrono::TimeDelta;
use proptest::prelude::*;

use crate::world::{World, placed};

fn cores(number: u128, cores: u64) -> Session {
    session(number, &[&[("cpu", cores)]])
}

fn limited(number: u128, cpu: u64, seconds: i64) -> Session {
    Session { max_runtime: Some(TimeDelta::seconds(seconds)), ..cores(number, cpu) }
}

fn easy(agents: &[bai_scheduler::Agent]) -> World {
    World::with_agents(Options::default(), agents)
}

#[test]
fn the_head_gets_the_time_at_which_it_can_start() {
    let mut world = easy(&[agent("i-1", &[("cpu", 4)]), agent("i-2", &[("cpu", 4)])]);
    let now = world.now;
    world.enqueue(limited(1, 4, 500));
    world.enqueue(limited(2, 3, 200));
    assert_eq!(placed(&world.pass()), [1, 2]);
    world.enqueue(cores(3, 4));
    let plan = world.pass();
    assert_eq!(plan.reservations.len(), 1);
    assert_eq!(plan.reservations[0].starts_at, Some(at(now + 200)));
    assert_eq!(plan.reservations[0].agents, ["i-2".into()]);
    let head = plan.unplaced.iter().find(|unplaced| unplaced.session == id(3)).unwrap();
    assert_eq!(head.explanation.estimate, Some(at(now + 200)));
}

#[test]
fn whoever_ends_in_time_may_use_what_is_kept_and_others_not() {
    let mut world = easy(&[agent("i-1", &[("cpu", 4)])]);
    world.enqueue(limited(1, 3, 200));
    world.pass();
    world.enqueue(cores(2, 4));
    world.enqueue(cores(3, 1));
    world.enqueue(limited(4, 1, 300));
    world.enqueue(limited(5, 1, 200));
    let plan = world.pass();
    assert_eq!(placed(&plan), [5]);
    let verdict =
        |number| plan.unplaced.iter().find(|u| u.session == id(number)).unwrap().explanation.clone();
    assert_eq!(verdict(2).verdict, Verdict::NoRoom);
    // 5 has taken what 3 and 4 might have had, so they lack room by now.
    assert_eq!(verdict(3).verdict, Verdict::NoRoom);
    world.now += 200;
    world.end_due();
    assert_eq!(placed(&world.pass()), [2]);
}

#[test]
fn capacity_that_the_head_cannot_use_is_used() {
    let mut world = easy(&[agent("i-1", &[("cpu", 8), ("cuda.device", 2)]), agent("i-2", &[("cpu", 3)])]);
    world.enqueue(session(1, &[&[("cpu", 2), ("cuda.device", 1)]]));
    world.pass();
    // Needs both accelerators and two cores; six are free, so four are not needed.
    world.enqueue(session(2, &[&[("cpu", 2), ("cuda.device", 2)]]));
    (3..=5).for_each(|number| world.enqueue(cores(number, 2)));
    world.enqueue(session(6, &[&[("cuda.device", 1)]]));
    world.enqueue(cores(7, 1));
    let plan = world.pass();
    assert_eq!(placed(&plan), [3, 4, 5, 7]);
    assert_eq!(plan.reservations[0].starts_at, None);
    let kept = plan.unplaced.iter().find(|unplaced| unplaced.session == id(6)).unwrap();
    assert_eq!(kept.explanation.verdict, Verdict::HeldBack);
    assert!(kept.explanation.sentence().contains(&id(2).to_string()));
    world.end(id(1), Outcome::Succeeded);
    assert_eq!(placed(&world.pass()), [2]);
}

#[test]
fn in_strict_mode_nobody_overtakes() {
    let options = Options { backfill: Backfill::Strict, ..Options::default() };
    let mut world = World::with_agents(options, &[agent("i-1", &[("cpu", 4)])]);
    world.enqueue(cores(1, 3));
    world.enqueue(cores(2, 2));
    world.enqueue(cores(3, 1));
    assert_eq!(placed(&world.pass()), [1]);
    assert!(world.pass().placements.is_empty());
}

#[test]
fn conservative_mode_keeps_room_for_several() {
    let options = Options { backfill: Backfill::Conservative(2), ..Options::default() };
    let mut world = World::with_agents(options, &[agent("i-1", &[("cpu", 4)])]);
    let now = world.now;
    world.enqueue(limited(1, 3, 100));
    world.pass();
    world.enqueue(limited(2, 4, 100));
    world.enqueue(limited(3, 4, 100));
    // Ends in time for the first, at the latest at the start of the first.
    world.enqueue(limited(4, 1, 101));
    world.enqueue(limited(5, 1, 100));
    let plan = world.pass();
    assert_eq!(placed(&plan), [5]);
    let starts: Vec<_> = plan.reservations.iter().map(|reservation| reservation.starts_at).collect();
    assert_eq!(starts, [Some(at(now + 100)), Some(at(now + 200))]);
}

#[test]
fn conservative_mode_lets_through_what_fits_between_two_reservations() {
    let options = Options { backfill: Backfill::Conservative(2), ..Options::default() };
    let mut world = World::with_agents(options, &[agent("i-1", &[("cpu", 8)])]);
    let now = world.now;
    world.enqueue(limited(1, 4, 100));
    world.pass();
    world.enqueue(limited(2, 6, 50));
    world.enqueue(limited(3, 8, 50));
    world.enqueue(limited(4, 2, 150));
    let plan = world.pass();
    assert_eq!(placed(&plan), [4], "two cores are free beside the first and end when the second starts");
    let starts: Vec<_> = plan.reservations.iter().map(|reservation| reservation.starts_at).collect();
    assert_eq!(starts, [Some(at(now + 100)), Some(at(now + 150))]);
}

/// Runs a world until `session` starts, and tells when.
fn start_of(world: &mut World, session: u128, until: i64) -> Option<i64> {
    while world.now < until {
        world.end_due();
        let plan = world.pass();
        if placed(&plan).contains(&session) {
            return Some(world.now);
        }
        let next_end = world.running.values().filter_map(|running| running.ends_at).min();
        world.now = next_end.map_or(world.now + 10, |end| end.timestamp().min(world.now + 10));
    }
    None
}

const HEAD: u128 = 500;

/// Agents, what runs on them at first, and the head.
fn scene(agents: &[u64], running: &[(u64, i64)], head: &Session) -> World {
    let agents: Vec<_> =
        (0..).zip(agents).map(|(number, cpu)| agent(&format!("i-{number}"), &[("cpu", *cpu)])).collect();
    let mut world = easy(&agents);
    for (number, (cpu, seconds)) in (1..).zip(running) {
        world.enqueue(limited(number, *cpu, *seconds));
    }
    world.pass();
    // Whoever found no room at first is not part of the scene.
    let left: Vec<_> = world.pending.keys().copied().collect();
    for session in left {
        world.end(session, Outcome::Failed);
    }
    world.enqueue(head.clone());
    world
}

fn head(kernels: usize, cpu: u64) -> Session {
    let kernel: &[(&str, u64)] = &[("cpu", cpu)];
    let head = session(HEAD, &vec![kernel; kernels]);
    let cluster_mode = bai_core::status::ClusterMode::MultiNode;
    if kernels > 1 { Session { cluster_mode, ..head } } else { head }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_blocked_head_starts_no_later_than_alone(
        agents in prop::collection::vec(2..9_u64, 1..5),
        running in prop::collection::vec((1..8_u64, 10..200_i64), 1..10),
        (kernels, cpu) in (1..4_usize, 2..9_u64),
        stream in prop::collection::vec((1..6_u64, prop::option::of(5..300_i64), 0..100_i64), 0..30),
        conservative in any::<bool>(),
    ) {
        let head = head(kernels, cpu);
        let mut alone = scene(&agents, &running, &head);
        let until = alone.now + 1_000;
        let first = start_of(&mut alone, HEAD, until);
        let backfill = if conservative { Backfill::Conservative(4) } else { Backfill::Easy };
        let mut world = scene(&agents, &running, &head);
        world.apply(Delta::Options(Box::new(Options { backfill, ..Options::default() })));
        let start = world.now;
        let mut arrivals: Vec<_> = stream.into_iter().enumerate().collect();
        arrivals.sort_by_key(|(_, (_, _, after))| *after);
        let mut arrivals = arrivals.into_iter().peekable();
        let mut began = None;
        while began.is_none() && world.now < until {
            world.end_due();
            while let Some((number, (cpu, seconds, _))) =
                arrivals.next_if(|(_, (_, _, after))| start + after <= world.now)
            {
                let number = HEAD + 1 + number as u128;
                let session = cores(number, cpu);
                world.enqueue(Session { max_runtime: seconds.map(TimeDelta::seconds), ..session });
            }
            let plan = world.pass();
            if placed(&plan).contains(&HEAD) {
                began = Some(world.now);
            }
            if !plan.placements.is_empty() {
                world.check_books();
            }
            let next_end = world.running.values().filter_map(|running| running.ends_at).min();
            let next_arrival = arrivals.peek().map(|(_, (_, _, after))| start + after);
            let next = next_end.map(|end| end.timestamp()).into_iter().chain(next_arrival).min();
            world.now = next.unwrap_or(until).max(world.now + 1);
        }
        match (first, began) {
            (Some(first), Some(began)) => prop_assert!(began <= first, "{} after {}", began - start, first - start),
            (None, _) => {}
            (Some(first), None) => prop_assert!(false, "never, alone after {}", first - start),
        }
    }

    #[test]
    fn small_sessions_do_not_starve_behind_big_ones(
        agents in prop::collection::vec(4..9_u64, 1..4),
        bigs in prop::collection::vec(4..9_u64, 1..6),
        smalls in prop::collection::vec(1..3_u64, 1..6),
        seconds in 10..60_i64,
    ) {
        // Big ones keep coming for ever; the small ones are all there from the start.
        let most = *agents.iter().max().unwrap();
        let agents: Vec<_> =
            (0..).zip(&agents).map(|(number, cpu)| agent(&format!("i-{number}"), &[("cpu", *cpu)])).collect();
        let mut world = World::with_agents(Options::default(), &agents);
        let count = smalls.len();
        for (number, cpu) in (100..).zip(&bigs) {
            world.enqueue(limited(number, (*cpu).min(most), seconds));
        }
        for (number, cpu) in (200..).zip(&smalls) {
            world.enqueue(limited(number, *cpu, seconds));
        }
        let mut started = 0;
        for fresh in (1_000..).take((bigs.len() + count) * 2) {
            world.end_due();
            let plan = world.pass();
            started += placed(&plan).iter().filter(|number| (200..300).contains(*number)).count();
            world.enqueue(limited(fresh, most, seconds));
            world.now += seconds;
        }
        prop_assert_eq!(started, count);
    }

    #[test]
    fn what_the_head_cannot_use_does_not_stand_idle(
        agents in prop::collection::vec((1..9_u64, 0..3_u64), 0..4),
        others in prop::collection::vec(1..4_u64, 1..6),
    ) {
        // The head wants accelerators only; what it leaves are the cores of all agents.
        let agents: Vec<_> = (0..)
            .zip(agents.iter().chain([&(3, 1)]))
            .map(|(number, (cpu, gpu))| agent(&format!("i-{number}"), &[("cpu", *cpu), ("cuda.device", *gpu)]))
            .collect();
        let mut world = easy(&agents);
        for number in 1..=20 {
            world.enqueue(session(number, &[&[("cuda.device", 1)]]));
        }
        world.pass();
        world.enqueue(session(HEAD, &[&[("cuda.device", 1)]]));
        for (number, cpu) in (HEAD + 1..).zip(&others) {
            world.enqueue(cores(number, *cpu));
        }
        world.pass();
        let free: Vec<u64> = agents
            .iter()
            .map(|agent| crate::world::amount(&world.group.room_of(&agent.id).unwrap().1, "cpu"))
            .collect();
        for session in world.pending.values() {
            let cpu = crate::world::amount(&session.kernels[0].slots, "cpu");
            let idle = cpu > 0 && free.iter().any(|free| *free >= cpu);
            prop_assert!(!idle, "{} waits with {:?} free", session.id, free);
        }
    }
}
