//! Why a session waits, in words and for programs.

use bai_scheduler::testing::{agent, id, owner, session};
use bai_scheduler::{Explanation, Options, Outcome, Session, Verdict};

use crate::world::{World, placed};

#[test]
fn the_nearest_miss_is_told() {
    let nodes = [
        agent("i-1", &[("cpu", 8), ("mem", 16 << 30), ("cuda.device", 8)]),
        agent("i-2", &[("cpu", 64), ("mem", 64 << 30), ("cuda.device", 2)]),
    ];
    let mut world = World::with_agents(Options::default(), &nodes);
    world.enqueue(session(1, &[&[("cpu", 1), ("cuda.device", 5)]]));
    world.pass();
    world.enqueue(session(2, &[&[("cpu", 2), ("cuda.device", 4)]]));
    world.enqueue(session(3, &[&[("cpu", 9), ("mem", 3 << 29), ("cuda.device", 4)]]));
    let plan = world.pass();
    let sentence = |number| {
        plan.unplaced.iter().find(|unplaced| unplaced.session == id(number)).unwrap().explanation.sentence()
    };
    assert_eq!(sentence(2), "needs cuda.device 4; best agent has 3 free of 8");
    assert_eq!(sentence(3), "needs cuda.device 4; best agent has 2 free of 2");
    world.enqueue(session(4, &[&[("cpu", 1), ("mem", 3 << 35)]]));
    let plan = world.pass();
    assert_eq!(
        plan.unplaced[0].explanation.sentence(),
        "needs mem 96 GiB; best agent has 64 GiB free of 64 GiB"
    );
}

#[test]
fn positions_follow_the_order_of_service() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 1)])]);
    for number in 1..=4 {
        world.enqueue(session(number, &[&[("cpu", 1)]]));
    }
    world.enqueue(Session { priority: 50, owner: owner(2), ..session(9, &[&[("cpu", 1)]]) });
    assert_eq!(placed(&world.pass()), [9]);
    let position = |world: &mut World, number| world.group.explain(id(number)).unwrap().position;
    assert_eq!(position(&mut world, 1), Some(0));
    assert_eq!(position(&mut world, 4), Some(3));
    assert!(world.group.explain(id(9)).is_none(), "who runs does not wait");
    world.end(id(2), Outcome::Failed);
    assert_eq!(position(&mut world, 4), Some(2));
    let order: Vec<_> = world.group.waiting().iter().map(|unplaced| unplaced.session).collect();
    assert_eq!(order, [id(1), id(3), id(4)]);
}

#[test]
fn only_news_is_told() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 2)])]);
    world.enqueue(session(1, &[&[("cpu", 2)]]));
    world.enqueue(session(2, &[&[("cpu", 2)]]));
    assert_eq!(world.pass().unplaced.len(), 1);
    assert!(world.pass().unplaced.is_empty());
    world.enqueue(session(3, &[&[("cpu", 2)]]));
    let plan = world.pass();
    assert_eq!(plan.unplaced.iter().map(|unplaced| unplaced.session).collect::<Vec<_>>(), [id(3)]);
    world.apply(bai_scheduler::Delta::AgentSchedulable("i-1".into(), false));
    let plan = world.pass();
    assert_eq!(plan.unplaced.len(), 2, "both can no longer be placed at all");
    assert!(plan.unplaced.iter().all(|unplaced| unplaced.explanation.verdict == Verdict::Impossible));
}

#[test]
fn the_form_for_programs_is_stable() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 2)])]);
    world.enqueue(session(1, &[&[("cpu", 1)]]));
    world.pass();
    world.enqueue(session(2, &[&[("cpu", 2)]]));
    let plan = world.pass();
    let json = serde_json::to_value(&*plan.unplaced[0].explanation).unwrap();
    let expected = serde_json::json!({
        "verdict": "no-room",
        "passed": [
            "reserved_time", "dependencies", "concurrency", "keypair_resource_limit", "user_resource_limit",
            "user_group_resource_limit", "domain_resource_limit", "session_type", "architecture", "image_limits",
        ],
        "failed": [],
        "rejections": [{ "rule": "resource", "agents": 1 }],
        "nearest": {
            "agent": "i-1",
            "shortfalls": [{ "slot": "cpu", "asked": "2", "free": "1", "capacity": "2" }],
        },
        "kernels": null,
        "waits_for": { "what": "room" },
        "estimate": null,
    });
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_value::<Explanation>(expected).unwrap(), *plan.unplaced[0].explanation);
}
