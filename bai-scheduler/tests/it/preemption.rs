//! Pushing others out, and never in a circle.

use std::collections::BTreeMap;

use bai_core::SessionId;
use bai_scheduler::testing::{agent, at, gang, id, owner, session};
use bai_scheduler::{
    GivenUp, Options, Outcome, Plan, Preemption, Session, Verdict, VictimOrder, VictimScope,
};
use chrono::TimeDelta;
use proptest::prelude::*;

use crate::world::{World, placed};

fn options(preemption: Preemption) -> Options {
    Options { preemption: Some(preemption), ..Options::default() }
}

fn cores(number: u128, cores: u64, job_priority: i32) -> Session {
    Session { job_priority, ..session(number, &[&[("cpu", cores)]]) }
}

fn victims(plan: &Plan) -> Vec<u128> {
    plan.preemptions.iter().flat_map(|preempted| &preempted.victims).map(|id| id.0.as_u128()).collect()
}

#[test]
fn without_the_option_nobody_is_pushed_out() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 4)])]);
    world.enqueue(cores(1, 4, 1));
    world.pass();
    world.enqueue(cores(2, 4, 99));
    assert!(world.pass().preemptions.is_empty());
}

#[test]
fn the_lowest_and_then_the_youngest_work_goes_and_the_room_is_kept_for_who_asked() {
    let mut world = World::with_agents(options(Preemption::default()), &[agent("i-1", &[("cpu", 4)])]);
    world.enqueue(cores(1, 1, 5));
    world.pass();
    world.now += 100;
    world.enqueue(cores(2, 1, 5));
    world.enqueue(cores(3, 1, 1));
    world.enqueue(cores(4, 1, 10));
    world.pass();
    world.now += 100;
    world.enqueue(cores(5, 2, 10));
    world.enqueue(Session { preemptible: false, ..cores(6, 1, 1) });
    let plan = world.pass();
    assert_eq!(victims(&plan), [2, 3]);
    assert_eq!(plan.preemptions[0].beneficiary, id(5));
    assert_eq!(plan.preemptions[0].grace, TimeDelta::seconds(30));
    let claimed = world.group.explain(id(5)).unwrap();
    assert_eq!(claimed.explanation.verdict, Verdict::Claimed);
    world.end(id(3), Outcome::Failed);
    assert!(world.pass().placements.is_empty(), "6 does not get what 5 waits for");
    world.end(id(2), Outcome::Failed);
    assert_eq!(placed(&world.pass()), [5]);
    world.check_books();
}

#[test]
fn only_sessions_of_the_scope_that_ran_long_enough_go() {
    let preemption = Preemption {
        scope: VictimScope::Project,
        min_runtime: TimeDelta::seconds(50),
        ..Preemption::default()
    };
    let mut world = World::with_agents(options(preemption), &[agent("i-1", &[("cpu", 2)])]);
    world.enqueue(Session { owner: owner(2), ..cores(1, 1, 1) });
    world.enqueue(cores(2, 1, 1));
    world.pass();
    world.enqueue(cores(3, 1, 2));
    assert!(world.pass().preemptions.is_empty());
    world.now += 50;
    assert_eq!(victims(&world.pass()), [2]);
}

#[test]
fn victims_are_spared_when_they_would_not_help() {
    let preemption = Preemption { scope: VictimScope::ResourceGroup, ..Preemption::default() };
    let mut world = World::with_agents(options(preemption), &[agent("i-1", &[("cpu", 4)])]);
    world.enqueue(cores(1, 1, 1));
    world.enqueue(cores(2, 3, 9));
    world.pass();
    world.enqueue(cores(3, 2, 5));
    assert!(
        world.pass().preemptions.is_empty(),
        "one core is not enough, and the other three are out of reach"
    );
}

#[test]
fn orders_of_victims() {
    for (order, expected) in [
        (VictimOrder::Oldest, vec![1]),
        (VictimOrder::Newest, vec![3]),
        (VictimOrder::FewestSessions, vec![2]),
        (VictimOrder::SmallestResources, vec![1]),
        (VictimOrder::LeastWorkLost, vec![3]),
    ] {
        let preemption = Preemption { order, ..Preemption::default() };
        let mut world = World::with_agents(options(preemption), &[agent("i-1", &[("cpu", 6)])]);
        for (number, cpu) in [(1, 1), (2, 4), (3, 1)] {
            world.enqueue(cores(number, cpu, 1));
            world.pass();
            world.now += 100;
        }
        world.enqueue(cores(4, 1, 5));
        assert_eq!(victims(&world.pass()), expected, "{order:?}");
    }
}

#[test]
fn a_gang_gets_room_on_all_its_agents() {
    let agents = ["i-1", "i-2"].map(|id| agent(id, &[("cpu", 4)]));
    let mut world = World::with_agents(options(Preemption::default()), &agents);
    (1..=4).for_each(|number| world.enqueue(cores(number, 2, 1)));
    world.pass();
    let kernel: &[(&str, u64)] = &[("cpu", 3)];
    world.enqueue(Session { job_priority: 5, ..gang(5, &[kernel; 2]) });
    let plan = world.pass();
    assert_eq!(victims(&plan), [1, 2, 3, 4]);
    assert_eq!(plan.preemptions[0].agents.len(), 2);
    (1..=4).for_each(|number| world.end(id(number), Outcome::Failed));
    assert_eq!(placed(&world.pass()), [5]);
}

#[test]
fn a_claim_is_given_up_when_the_victims_do_not_go() {
    let mut world = World::with_agents(options(Preemption::default()), &[agent("i-1", &[("cpu", 2)])]);
    world.enqueue(cores(1, 2, 1));
    world.pass();
    world.enqueue(cores(2, 2, 5));
    let plan = world.pass();
    let expiry = plan.wake_at.unwrap();
    assert_eq!(expiry, at(world.now + 330));
    world.now += 330;
    let plan = world.pass();
    assert!(plan.preemptions.is_empty(), "not again at once");
    assert_eq!(plan.unplaced[0].explanation.verdict, Verdict::NoRoom);
    world.end(id(1), Outcome::Failed);
    assert_eq!(placed(&world.pass()), [2]);
}

#[test]
fn a_claim_ends_with_who_made_it() {
    let mut world = World::with_agents(options(Preemption::default()), &[agent("i-1", &[("cpu", 2)])]);
    world.enqueue(cores(1, 2, 1));
    world.pass();
    world.enqueue(cores(2, 2, 5));
    world.enqueue(cores(3, 2, 1));
    world.pass();
    world.end(id(2), Outcome::Failed);
    world.end(id(1), Outcome::Failed);
    assert_eq!(placed(&world.pass()), [3]);
}

/// Two cores on each of two agents, all held by 1 to 4. 5 needs the first agent, and claims it; 6 waits for the same.
fn claimed() -> World {
    let agents = ["i-1", "i-2"].map(|id| agent(id, &[("cpu", 2)]));
    let mut world = World::with_agents(options(Preemption::default()), &agents);
    (1..=4).for_each(|number| world.enqueue(cores(number, 1, 1)));
    world.pass();
    world.now += 100;
    for number in [5, 6] {
        world.enqueue(Session { designated: vec!["i-1".into()], ..cores(number, 2, 9) });
    }
    let plan = world.pass();
    assert_eq!((plan.preemptions.len(), victims(&plan).len()), (1, 2));
    world
}

#[test]
fn a_claim_outlives_the_group_that_made_it() {
    for seed in 0..50 {
        let mut world = claimed();
        let told = world.victims();
        world.end(told[0], Outcome::Failed);
        world.restart(seed);
        let plan = world.pass();
        assert!(plan.placements.is_empty(), "nobody gets what 5 waits for");
        let [again] = &plan.preemptions[..] else { panic!("{plan:?}") };
        assert_eq!((again.beneficiary, &again.victims[..]), (id(5), &told[1..]));
        assert_eq!(world.group.explain(id(5)).unwrap().explanation.verdict, Verdict::Claimed);
        world.now += 1;
        assert!(world.pass().preemptions.is_empty(), "named once");
        world.end(told[1], Outcome::Failed);
        assert_eq!(placed(&world.pass()), [5]);
        world.check_books();
    }
}

#[test]
fn who_is_on_its_way_to_its_end_is_not_named_again() {
    let mut world = claimed();
    let told = world.victims();
    let first = world.running.get_mut(&told[0]).unwrap();
    first.leaving = true;
    world.restart(1);
    assert_eq!(world.pass().preemptions[0].victims, told[1..]);
    let both = world.running.values_mut().filter(|running| told.contains(&running.session.id));
    both.for_each(|running| running.leaving = true);
    world.restart(2);
    assert!(world.pass().preemptions.is_empty());
}

#[test]
fn a_claim_that_has_lost_its_sense_does_not_come_back() {
    let given_up = |world: &mut World| {
        world.restart(3);
        let plan = world.pass();
        assert!(plan.preemptions.iter().all(|preempted| preempted.beneficiary != id(5)));
        let again_at = at(world.now) + Preemption::default().cooldown;
        assert_eq!(plan.given_up, [GivenUp { session: id(5), again_at }]);
        assert_ne!(world.group.explain(id(5)).unwrap().explanation.verdict, Verdict::Claimed);
        world.restart(4);
        let plan = world.pass();
        assert!(plan.given_up.is_empty());
        let tries_again = plan.preemptions.iter().any(|preempted| preempted.beneficiary == id(5));
        assert!(!tries_again, "nor does it try again before its time");
    };
    let mut world = claimed();
    world.now += 330;
    given_up(&mut world);
    let mut world = claimed();
    world.agents.remove("i-1");
    given_up(&mut world);
    let mut world = claimed();
    world.agents.get_mut("i-1").unwrap().schedulable = false;
    given_up(&mut world);
    let mut world = claimed();
    world.end(id(5), Outcome::Failed);
    world.restart(5);
    assert_eq!(world.pass().preemptions[0].beneficiary, id(6));
}

#[test]
fn a_claim_that_is_not_recorded_is_void_and_so_is_who_should_go() {
    let mut world = claimed();
    world.void(id(5));
    world.end(id(5), Outcome::Failed);
    let plan = world.pass();
    assert_eq!((plan.preemptions[0].beneficiary, victims(&plan).len()), (id(6), 2));
    world.check_books();
}

#[test]
fn a_claim_that_does_not_fit_its_session_is_none() {
    let mut world = claimed();
    let claim = world.pending.get_mut(&id(5)).unwrap().claim.as_mut().unwrap();
    claim.agents.push("i-2".into());
    world.restart(6);
    assert_eq!(world.pass().preemptions[0].since, at(world.now), "it is decided anew");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn preemption_comes_to_rest(
        agents in prop::collection::vec(1..8_u64, 1..4),
        sessions in prop::collection::vec((1..6_u64, 0..4_i32, 1..3_usize, 0..3_i32), 1..20),
        order in 0..5_u8,
    ) {
        let order = [
            VictimOrder::LeastWorkLost,
            VictimOrder::Oldest,
            VictimOrder::Newest,
            VictimOrder::FewestSessions,
            VictimOrder::SmallestResources,
        ][usize::from(order)];
        let preemption = Preemption { scope: VictimScope::ResourceGroup, order, ..Preemption::default() };
        let agents: Vec<_> =
            (0..).zip(&agents).map(|(number, cpu)| agent(&format!("i-{number}"), &[("cpu", *cpu)])).collect();
        let mut world = World::with_agents(options(preemption), &agents);
        let bound = sessions.len() * sessions.len() + 20;
        let mut pushed: BTreeMap<SessionId, usize> = BTreeMap::new();
        for (number, (cpu, job_priority, kernels, priority)) in (1..).zip(&sessions) {
            let kernel: &[(&str, u64)] = &[("cpu", *cpu)];
            let session = gang(number, &vec![kernel; *kernels]);
            world.enqueue(Session { job_priority: *job_priority, priority: *priority, ..session });
        }
        let mut quiet = 0;
        for _ in 0..bound {
            world.now += 1;
            let plan = world.pass();
            world.check_books();
            let still = plan.placements.is_empty() && plan.preemptions.is_empty();
            quiet = if still { quiet + 1 } else { 0 };
            for preempted in &plan.preemptions {
                let mine = world.pending[&preempted.beneficiary].job_priority;
                for victim in &preempted.victims {
                    prop_assert!(world.running[victim].session.job_priority < mine);
                    *pushed.entry(*victim).or_default() += 1;
                    world.requeue(*victim, Vec::new());
                }
            }
            if quiet > 2 {
                return Ok(());
            }
        }
        prop_assert!(false, "still moving after {bound} passes: {pushed:?}");
    }
}
