//! Several kernels: all of them or none.

use bai_scheduler::testing::{agent, gang, id, session};
use bai_scheduler::{Kernel, Options, Outcome, Session, Verdict};

use crate::world::{World, agents, placed};

fn three() -> [bai_scheduler::Agent; 3] {
    [agent("i-1", &[("cpu", 4)]), agent("i-2", &[("cpu", 4)]), agent("i-3", &[("cpu", 4)])]
}

#[test]
fn a_gang_spreads_over_agents_and_starts_whole_or_not_at_all() {
    let mut world = World::with_agents(Options::default(), &three());
    let kernel: &[(&str, u64)] = &[("cpu", 3)];
    world.enqueue(gang(1, &[kernel; 3]));
    let plan = world.pass();
    assert_eq!(agents(&plan, 0), ["i-1", "i-2", "i-3"]);
    world.end(id(1), Outcome::Succeeded);
    world.enqueue(gang(2, &[kernel; 4]));
    let plan = world.pass();
    assert!(plan.placements.is_empty());
    assert_eq!(plan.unplaced[0].explanation.verdict, Verdict::Impossible);
    assert_eq!(
        plan.unplaced[0].explanation.sentence(),
        "kernel 4 of 4: needs cpu 3; best agent has 1 free of 4"
    );
    world.check_books();
}

#[test]
fn the_kernels_of_a_single_node_session_share_an_agent() {
    let mut world = World::with_agents(Options::default(), &three());
    let kernel: &[(&str, u64)] = &[("cpu", 2)];
    world.enqueue(session(1, &[kernel; 2]));
    world.enqueue(session(2, &[kernel; 3]));
    let plan = world.pass();
    assert_eq!(placed(&plan), [1]);
    assert_eq!(agents(&plan, 0), ["i-1", "i-1"]);
    assert_eq!(plan.unplaced[0].explanation.sentence(), "needs cpu 6; best agent has 4 free of 4");
}

#[test]
fn kernels_of_different_size_and_architecture_find_their_agents() {
    let mut arm = agent("i-arm", &[("cpu", 2)]);
    arm.architecture = "arm64".into();
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 4)]), arm]);
    let mut mixed = gang(1, &[&[("cpu", 1)], &[("cpu", 3)], &[("cpu", 2)]]);
    mixed.kernels[2].architecture = "aarch64".into();
    world.enqueue(mixed);
    let plan = world.pass();
    assert_eq!(agents(&plan, 0), ["i-1", "i-1", "i-arm"]);
}

#[test]
fn the_hard_kernel_does_not_lose_its_place_to_the_easy_one() {
    // Dispersed would put the small kernel on the bigger agent.
    let mut world =
        World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 8)]), agent("i-2", &[("cpu", 2)])]);
    world.enqueue(gang(1, &[&[("cpu", 2)], &[("cpu", 8)]]));
    let plan = world.pass();
    assert_eq!(agents(&plan, 0), ["i-2", "i-1"]);
}

#[test]
fn one_agent_cannot_serve_two_architectures() {
    let mut world = World::with_agents(Options::default(), &three());
    let mut mixed: Session = session(1, &[&[("cpu", 1)]]);
    mixed.kernels.push(Kernel::new(bai_scheduler::testing::slots(&[("cpu", 1)]), "aarch64", "python"));
    world.enqueue(mixed);
    let plan = world.pass();
    assert_eq!(plan.unplaced[0].explanation.failed[0].name, "architecture");
}

#[test]
fn a_session_without_kernels_does_no_harm() {
    let mut world = World::with_agents(Options::default(), &three());
    world.enqueue(session(1, &[]));
    world.enqueue(gang(2, &[]));
    world.enqueue(session(3, &[&[("cpu", 1)]]));
    // Without a kernel there is no architecture that an agent could have; nowhere is as good as anywhere.
    assert_eq!(placed(&world.pass()), [2, 3]);
    (1..=3).for_each(|number| world.end(id(number), Outcome::Succeeded));
    world.check_books();
}

#[test]
fn a_blocked_gang_keeps_agents_that_it_needs() {
    let mut world = World::with_agents(Options::default(), &three());
    world.enqueue(session(1, &[&[("cpu", 4)]]));
    world.pass();
    world.enqueue(gang(2, &[&[("cpu", 4)], &[("cpu", 4)], &[("cpu", 4)]]));
    world.enqueue(session(3, &[&[("cpu", 1)]]));
    let plan = world.pass();
    assert!(plan.placements.is_empty());
    assert_eq!(plan.reservations[0].agents.len(), 3);
    world.end(id(1), Outcome::Succeeded);
    assert_eq!(placed(&world.pass()), [2]);
}
