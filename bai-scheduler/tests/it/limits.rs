//! Limits of owners, types, images; validators of one's own.

use std::collections::BTreeSet;
use std::sync::Arc;

use bai_core::slots::DefaultForUnspecified;
use bai_core::status::SessionType;
use bai_scheduler::testing::{agent, id, owner, session, slots};
use bai_scheduler::{Candidate, Delta, Holder, Limits, Options, Outcome, Session, Validator, Verdict};

use crate::world::{World, placed};

fn cores(number: u128, cores: u64) -> Session {
    session(number, &[&[("cpu", cores)]])
}

fn big() -> World {
    World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 100), ("mem", 100)])])
}

fn total(amounts: &[(&str, u64)], others: DefaultForUnspecified) -> Limits {
    Limits { total: Some((slots(amounts), others)), ..Limits::default() }
}

#[test]
fn a_keypair_has_only_so_many_sessions_at_once() {
    let mut world = big();
    world.limit(Holder::Keypair(owner(1).access_key), Limits { max_sessions: 2, ..Limits::default() });
    (1..=3).for_each(|number| world.enqueue(cores(number, 1)));
    world.enqueue(Session { private: true, ..cores(4, 1) });
    let plan = world.pass();
    assert_eq!(placed(&plan), [1, 2, 4]);
    let failed = &plan.unplaced[0].explanation.failed;
    assert_eq!(failed[0].name, "concurrency");
    assert_eq!(failed[0].message, "You cannot run more than 2 concurrent sessions");
    assert_eq!(plan.unplaced[0].explanation.passed[0], "reserved_time");
    world.end(id(4), Outcome::Succeeded);
    assert!(world.pass().placements.is_empty());
    world.end(id(1), Outcome::Succeeded);
    assert_eq!(placed(&world.pass()), [3]);
}

#[test]
fn all_limits_are_checked_and_all_failures_told() {
    let mut world = big();
    let owner = owner(1);
    world.limit(Holder::User(owner.user), total(&[("cpu", 2)], DefaultForUnspecified::Unlimited));
    world.limit(Holder::Project(owner.project), total(&[("cpu", 3)], DefaultForUnspecified::Unlimited));
    world.limit(Holder::Domain(owner.domain), total(&[("cpu", 50)], DefaultForUnspecified::Limited));
    world.enqueue(cores(1, 4));
    world.enqueue(session(2, &[&[("cpu", 1), ("mem", 1)]]));
    let plan = world.pass();
    let names: Vec<_> = plan.unplaced[0].explanation.failed.iter().map(|failure| &*failure.name).collect();
    assert_eq!(names, ["user_resource_limit", "user_group_resource_limit"]);
    assert_eq!(
        plan.unplaced[0].explanation.failed[0].message,
        "Your user resource quota is exceeded. (cpu: 4 asked, 0 in use, limit 2)"
    );
    let names: Vec<_> = plan.unplaced[1].explanation.failed.iter().map(|failure| &*failure.name).collect();
    assert_eq!(names, ["domain_resource_limit"], "a domain that limits what it does not name has no memory");
}

#[test]
fn usage_in_other_groups_counts_too() {
    let mut world = big();
    let holder = Holder::User(owner(1).user);
    world.limit(holder.clone(), total(&[("cpu", 4)], DefaultForUnspecified::Unlimited));
    world.apply(Delta::UsedElsewhere(holder.clone(), slots(&[("cpu", 3)]), [0, 0]));
    world.enqueue(cores(1, 2));
    assert!(world.pass().placements.is_empty());
    world.apply(Delta::UsedElsewhere(holder, slots(&[("cpu", 2)]), [0, 0]));
    assert_eq!(placed(&world.pass()), [1]);
}

#[test]
fn whoever_waits_for_a_limit_holds_up_nobody_and_goes_on_when_it_is_raised() {
    let mut world = big();
    let holder = Holder::Keypair(owner(1).access_key);
    world.limit(holder.clone(), total(&[("cpu", 1)], DefaultForUnspecified::Unlimited));
    world.enqueue(cores(1, 2));
    world.enqueue(Session { owner: owner(2), ..cores(2, 1) });
    let plan = world.pass();
    assert_eq!(placed(&plan), [2]);
    assert!(plan.reservations.is_empty());
    world.limit(holder, total(&[("cpu", 2)], DefaultForUnspecified::Unlimited));
    assert_eq!(placed(&world.pass()), [1]);
}

#[test]
fn private_sessions_are_held_to_their_number_only() {
    let mut world = big();
    let limits = Limits {
        max_sessions: 1,
        max_private_sessions: 1,
        ..total(&[("cpu", 0)], DefaultForUnspecified::Limited)
    };
    world.limit(Holder::Keypair(owner(1).access_key), limits);
    (1..=2).for_each(|number| world.enqueue(Session { private: true, ..cores(number, 1) }));
    let plan = world.pass();
    assert_eq!(placed(&plan), [1]);
    assert_eq!(
        plan.unplaced[0].explanation.sentence(),
        "You cannot run more than 1 concurrent SFTP sessions"
    );
}

#[test]
fn a_group_takes_only_the_types_it_takes() {
    let allowed_types = BTreeSet::from([SessionType::Batch]);
    let options = Options { allowed_types, ..Options::default() };
    let mut world = World::with_agents(options, &[agent("i-1", &[("cpu", 4)])]);
    world.enqueue(cores(1, 1));
    world.enqueue(Session { session_type: SessionType::Batch, ..cores(2, 1) });
    world.enqueue(Session { private: true, ..cores(3, 1) });
    let plan = world.pass();
    assert_eq!(placed(&plan), [2, 3]);
    assert_eq!(plan.unplaced[0].explanation.failed[0].name, "session_type");
    world.apply(Delta::Options(Box::default()));
    assert_eq!(placed(&world.pass()), [1]);
}

#[test]
fn images_have_a_least_and_a_most() {
    let mut world = big();
    let mut session = cores(1, 1);
    session.kernels[0].minimum = slots(&[("cpu", 2), ("mem", 1)]);
    session.kernels[0].maximum = slots(&[("cpu", 4)]);
    world.enqueue(session.clone());
    session.id = id(2);
    session.kernels[0].slots = slots(&[("cpu", 5), ("mem", 1)]);
    world.enqueue(session.clone());
    session.id = id(3);
    session.kernels[0].slots = slots(&[("cpu", 3), ("mem", 1)]);
    world.enqueue(session);
    let plan = world.pass();
    assert_eq!(placed(&plan), [3]);
    assert_eq!(
        plan.unplaced[0].explanation.sentence(),
        "python:3.11: cpu 1 asked, at least 2; python:3.11: mem 0 bytes asked, at least 1 byte"
    );
    assert_eq!(plan.unplaced[1].explanation.sentence(), "python:3.11: cpu 5 asked, at most 4");
}

#[test]
fn the_queue_of_a_keypair_is_bounded() {
    let mut world = big();
    let limits = Limits {
        max_pending_sessions: Some(2),
        max_pending_slots: Some(slots(&[("cpu", 5)])),
        max_priority: Some(20),
        max_kernels: 2,
        ..Limits::default()
    };
    world.limit(Holder::Keypair(owner(1).access_key), limits);
    let mut names = |session: &Session| -> Vec<String> {
        world.group.admit(session).unwrap().into_iter().map(|failure| failure.name).collect()
    };
    assert!(names(&cores(1, 5)).is_empty());
    assert_eq!(names(&cores(1, 6)), ["pending_resource_limit"]);
    let one: &[(&str, u64)] = &[("cpu", 1)];
    let greedy = Session { priority: 21, ..session(1, &[one; 3]) };
    assert_eq!(names(&greedy), ["priority_limit", "kernels_limit"]);
    world.enqueue(cores(1, 4));
    world.enqueue(cores(2, 1));
    let failures = world.group.admit(&cores(3, 1)).unwrap();
    let names: Vec<_> = failures.iter().map(|failure| failure.name.as_str()).collect();
    assert_eq!(names, ["pending_session_limit", "pending_resource_limit"]);
    world.pass();
    assert!(world.group.admit(&cores(3, 1)).unwrap().is_empty());
}

/// Refuses sessions with odd numbers.
#[derive(Debug)]
struct Even;

impl Validator for Even {
    fn name(&self) -> &'static str {
        "even"
    }

    fn check(&self, session: &Candidate<'_>) -> Result<(), String> {
        if session.id.0.as_u128().is_multiple_of(2) { Ok(()) } else { Err("odd".to_owned()) }
    }
}

#[test]
fn a_check_of_ones_own_refuses_only_whom_it_refuses() {
    let options = Options { validators: vec![Arc::new(Even)], ..Options::default() };
    let mut world = World::with_agents(options, &[agent("i-1", &[("cpu", 3)])]);
    (1..=9).for_each(|number| world.enqueue(cores(number, 1)));
    let plan = world.pass();
    assert_eq!(placed(&plan), [2, 4, 6]);
    let reason = |number| {
        plan.unplaced.iter().find(|unplaced| unplaced.session == id(number)).unwrap().explanation.clone()
    };
    assert_eq!((reason(3).verdict, reason(3).sentence()), (Verdict::Checks, "odd".to_owned()));
    assert_eq!(reason(8).verdict, Verdict::NoRoom);
    assert!(world.pass().unplaced.is_empty(), "the same reasons are not told twice");
    world.end(id(2), Outcome::Succeeded);
    assert_eq!(placed(&world.pass()), [8]);
}
