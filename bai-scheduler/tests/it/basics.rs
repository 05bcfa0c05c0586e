//! Order, dependencies, times.

use bai_core::SessionId;
use bai_core::status::SessionType;
use bai_scheduler::testing::{agent, at, id, owner, session};
use bai_scheduler::{
    Delta, Dependency, DependencyState, Drf, Kernel, Lifo, Options, Outcome, Session, Verdict,
};
use std::sync::Arc;

use crate::world::{World, placed};

fn cores(number: u128, cores: u64) -> Session {
    session(number, &[&[("cpu", cores)]])
}

#[test]
fn the_oldest_comes_first_within_a_priority_and_higher_priorities_before() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 3)])]);
    for number in [3, 1, 2, 4] {
        world.enqueue(cores(number, 1));
    }
    world.enqueue(Session { priority: 20, ..cores(9, 1) });
    assert_eq!(placed(&world.pass()), [9, 1, 2]);
    world.check_books();
}

#[test]
fn lifo_serves_the_newest_first() {
    let options = Options { sequencer: Arc::new(Lifo), ..Options::default() };
    let mut world = World::with_agents(options, &[agent("i-1", &[("cpu", 2)])]);
    (1..=4).for_each(|number| world.enqueue(cores(number, 1)));
    assert_eq!(placed(&world.pass()), [4, 3]);
}

#[test]
fn drf_gives_to_whoever_has_the_least() {
    let options = Options { sequencer: Arc::new(Drf), ..Options::default() };
    let mut world = World::with_agents(options, &[agent("i-1", &[("cpu", 6)])]);
    (1..=10).for_each(|number| world.enqueue(cores(number, 1)));
    (11..=13).for_each(|number| world.enqueue(Session { owner: owner(2), ..cores(number, 1) }));
    assert_eq!(placed(&world.pass()), [1, 11, 2, 12, 3, 13]);
}

#[test]
fn a_session_that_nobody_can_take_holds_up_nobody() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 2)])]);
    world.enqueue(cores(1, 1000));
    world.enqueue(session(2, &[&[("rocm.device", 1)]]));
    world.enqueue(cores(3, 2));
    let plan = world.pass();
    assert_eq!(placed(&plan), [3]);
    assert!(plan.reservations.is_empty());
    let verdicts: Vec<_> = plan.unplaced.iter().map(|unplaced| unplaced.explanation.verdict).collect();
    assert_eq!(verdicts, [Verdict::Impossible, Verdict::Impossible]);
    assert_eq!(plan.unplaced[1].explanation.sentence(), "needs rocm.device 1; best agent has 0 free of 0");
}

#[test]
fn zero_of_a_slot_that_no_agent_has_is_no_obstacle() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 2)])]);
    world.enqueue(session(1, &[&[("cpu", 1), ("cuda.device", 0), ("tpu", 0)]]));
    assert_eq!(placed(&world.pass()), [1]);
}

#[test]
fn sessions_wait_for_their_time() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 2)])]);
    let start = world.now + 60;
    world.enqueue(Session { session_type: SessionType::Batch, starts_at: Some(at(start)), ..cores(1, 1) });
    let plan = world.pass();
    assert_eq!(plan.wake_at, Some(at(start)));
    assert_eq!(plan.unplaced[0].explanation.failed[0].message, "Before start time");
    assert_eq!(plan.unplaced[0].explanation.estimate, Some(at(start)));
    assert!(world.pass_at(start - 1).placements.is_empty());
    assert_eq!(placed(&world.pass_at(start)), [1]);
}

fn child(number: u128, parents: &[(u128, DependencyState)]) -> Session {
    let dependency = |(parent, state): &(u128, DependencyState)| Dependency {
        id: id(*parent),
        name: format!("parent-{parent}"),
        state: *state,
    };
    Session { dependencies: parents.iter().map(dependency).collect(), ..cores(number, 1) }
}

#[test]
fn sessions_wait_for_those_they_depend_on() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 9)])]);
    world.enqueue(cores(1, 1));
    world.enqueue(child(2, &[(1, DependencyState::Waiting), (77, DependencyState::Waiting)]));
    let plan = world.pass();
    assert_eq!(placed(&plan), [1]);
    let explanation = &plan.unplaced[0].explanation;
    assert_eq!(explanation.verdict, Verdict::Dependent);
    let expected = format!(
        "Waiting dependency sessions to finish as success. (parent-1 ({}), parent-77 ({}))",
        id(1),
        id(77)
    );
    assert_eq!(explanation.sentence(), expected);
    world.end(id(1), Outcome::Succeeded);
    assert!(world.pass().placements.is_empty());
    world.apply(Delta::Dependency(id(77), Outcome::Succeeded));
    assert_eq!(placed(&world.pass()), [2]);
}

#[test]
fn whoever_depends_on_a_failure_is_cancelled_at_once_and_so_are_its_own_children() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 9)])]);
    world.enqueue(cores(1, 1));
    world.enqueue(child(2, &[(1, DependencyState::Waiting)]));
    world.enqueue(child(3, &[(2, DependencyState::Waiting)]));
    world.enqueue(child(4, &[(55, DependencyState::Failed)]));
    let plan = world.pass();
    assert_eq!(plan.cancellations.iter().map(|c| c.session).collect::<Vec<_>>(), [id(4)]);
    world.end(id(1), Outcome::Failed);
    let plan = world.pass();
    let cancelled: Vec<SessionId> = plan.cancellations.iter().map(|c| c.session).collect();
    assert_eq!(cancelled, [id(2), id(3)]);
    assert_eq!(plan.cancellations[0].reason, "dependency-failed");
    assert!(plan.cancellations[0].message.contains("parent-1"));
    assert!(world.pass().cancellations.is_empty());
    assert_eq!(world.group.pending(), 0);
}

#[test]
fn every_kernel_that_ends_frees_its_part() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 4)])]);
    world.enqueue(session(1, &[&[("cpu", 1)], &[("cpu", 3)]]));
    world.enqueue(cores(2, 2));
    assert_eq!(placed(&world.pass()), [1]);
    world.apply(Delta::KernelEnded(id(1), 1));
    world.apply(Delta::KernelEnded(id(1), 1));
    assert_eq!(placed(&world.pass()), [2]);
    world.apply(Delta::Ended(id(1), Outcome::Succeeded));
    let (_, free) = world.group.room_of(&"i-1".into()).unwrap();
    assert_eq!(free.get("cpu").to_string(), "2");
}

#[test]
fn a_negative_amount_never_gets_in() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 4)])]);
    let mut bad = cores(1, 1);
    let mut slots = bai_core::slots::ResourceSlots::new();
    slots.insert("cpu", "-1".parse::<bai_core::slots::Amount>().unwrap());
    bad.kernels = vec![Kernel::new(slots, "x86_64", "python")];
    assert!(world.group.apply(Delta::Enqueued(Box::new(bad))).is_err());
    assert_eq!(world.group.pending(), 0);
}

#[test]
fn a_delta_that_comes_twice_changes_nothing_the_second_time() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 4)])]);
    world.enqueue(cores(1, 3));
    world.enqueue(cores(1, 3));
    let plan = world.pass();
    assert_eq!(placed(&plan), [1]);
    let running = world.running[&id(1)].clone();
    world.apply(Delta::Holds(Box::new(running)));
    world.check_books();
    for _ in 0..2 {
        world.end(id(1), Outcome::Succeeded);
    }
    let (capacity, free) = world.group.room_of(&"i-1".into()).unwrap();
    assert_eq!(capacity, free);
}

#[test]
fn facts_may_come_in_any_order_and_thousands_of_them_before_the_first_pass() {
    let mut world = World::new(Options::default());
    let mut early = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 4)])]);
    early.enqueue(cores(1, 3));
    early.pass();
    world.apply(Delta::Holds(Box::new(early.running[&id(1)].clone())));
    assert!(world.pass().placements.is_empty());
    world.join(agent("i-1", &[("cpu", 4), ("mem", 1)]));
    for number in 2..3_000 {
        world.enqueue(cores(number, 1));
        world.apply(Delta::Agent(Box::new(agent("i-1", &[("cpu", 4), ("mem", 1)]))));
    }
    assert_eq!(placed(&world.pass()), [2]);
    world.apply(Delta::Ended(id(1), Outcome::Succeeded));
    assert_eq!(placed(&world.pass()), [3, 4, 5]);
}

#[test]
fn over_commit_and_alignment_shape_what_an_agent_has() {
    let options = Options {
        overcommit: [("cpu".to_owned(), 2_500)].into(),
        memory_alignment: 1 << 20,
        ..Options::default()
    };
    let world = World::with_agents(options, &[agent("i-1", &[("cpu", 3), ("mem", (5 << 20) + 77)])]);
    let (capacity, _) = world.group.room_of(&"i-1".into()).unwrap();
    assert_eq!(capacity.get("cpu").to_string(), "7.5");
    assert_eq!(capacity.get("mem").to_u64(), Some(5 << 20));
}
