//! Which agent.

use std::collections::BTreeSet;
use std::sync::Arc;

use bai_scheduler::testing::{agent, gang, id, session, slots};
use bai_scheduler::{
    Agent, AgentView, Concentrated, Delta, Designation, Direction, Legacy, Options, Outcome, Profile,
    RoundRobin, SelectionKey, Selector, Session, SessionGroup, SessionGroupId, Verdict,
};
use uuid::Uuid;

use crate::world::{World, agents, placed};

fn world(selector: Arc<dyn Selector>, agents: &[Agent]) -> World {
    World::with_agents(Options { selector, ..Options::default() }, agents)
}

fn cores(number: u128, cores: u64) -> Session {
    session(number, &[&[("cpu", cores)]])
}

fn chosen(world: &mut World, session: Session) -> String {
    world.enqueue(session);
    let plan = world.pass();
    agents(&plan, 0)[0].to_owned()
}

fn sizes() -> Vec<Agent> {
    [("i-1", 4), ("i-2", 2), ("i-3", 8), ("i-4", 8)].map(|(id, cpu)| agent(id, &[("cpu", cpu)])).into()
}

#[test]
fn dispersed_takes_the_emptiest_and_concentrated_the_fullest() {
    let mut dispersed = World::with_agents(Options::default(), &sizes());
    let order: Vec<_> = (1..=4).map(|number| chosen(&mut dispersed, cores(number, 1))).collect();
    assert_eq!(order, ["i-3", "i-4", "i-3", "i-4"]);
    let mut concentrated = world(Arc::new(Concentrated), &sizes());
    let order: Vec<_> = (1..=4).map(|number| chosen(&mut concentrated, cores(number, 1))).collect();
    assert_eq!(order, ["i-2", "i-2", "i-1", "i-1"]);
}

#[test]
fn legacy_takes_the_biggest_whatever_it_holds() {
    let mut legacy = world(Arc::new(Legacy), &sizes());
    let order: Vec<_> = (1..=9).map(|number| chosen(&mut legacy, cores(number, 1))).collect();
    assert_eq!(order[..8], ["i-3"; 8]);
    assert_eq!(order[8], "i-4");
}

#[test]
fn agents_take_turns_also_after_a_change_of_the_manager() {
    let mut first = world(Arc::new(RoundRobin), &sizes());
    let order: Vec<_> = (1..=3).map(|number| chosen(&mut first, cores(number, 2))).collect();
    assert_eq!(order, ["i-1", "i-2", "i-3"]);
    // Exactly what is asked for is enough (W-14), and what does not fit is passed over.
    let mut second = world(Arc::new(RoundRobin), &sizes());
    for (architecture, agent) in first.group.last_used().clone() {
        second.apply(Delta::LastUsed(architecture, agent));
    }
    let order: Vec<_> = (1..=5).map(|number| chosen(&mut second, cores(number, 2))).collect();
    assert_eq!(order, ["i-4", "i-1", "i-2", "i-3", "i-4"]);
    assert_eq!(chosen(&mut second, cores(6, 4)), "i-3");
}

#[test]
fn accelerators_are_spared_and_come_before_cores() {
    let nodes = [
        agent("i-gpu", &[("cpu", 9), ("cuda.device", 4)]),
        agent("i-small-gpu", &[("cpu", 64), ("cuda.device", 2)]),
        agent("i-cpu", &[("cpu", 4)]),
    ];
    let mut dispersed = World::with_agents(Options::default(), &nodes);
    assert_eq!(chosen(&mut dispersed, session(1, &[&[("cpu", 1), ("cuda.device", 0)]])), "i-cpu");
    assert_eq!(chosen(&mut dispersed, session(2, &[&[("cpu", 1), ("cuda.device", 1)]])), "i-gpu");
    assert_eq!(chosen(&mut dispersed, session(3, &[&[("cpu", 1)]])), "i-small-gpu");
}

#[test]
fn only_agents_of_the_architecture_and_with_the_image_will_do() {
    let mut arm = agent("i-arm", &[("cpu", 9)]);
    arm.architecture = "aarch64".into();
    let mut bare = agent("i-bare", &[("cpu", 9)]);
    bare.images = Some(BTreeSet::from(["other".to_owned()]));
    let mut world = World::with_agents(Options::default(), &[arm, bare, agent("i-1", &[("cpu", 1)])]);
    assert_eq!(chosen(&mut world, cores(1, 1)), "i-1");
    world.enqueue(cores(2, 1));
    let plan = world.pass();
    let rules: Vec<_> =
        plan.unplaced[0].explanation.rejections.iter().map(|r| (r.rule.as_str(), r.agents)).collect();
    assert_eq!(rules, [("architecture", 1), ("image", 1), ("resource", 1)]);
}

#[test]
fn designated_agents_are_a_must_or_a_wish() {
    let mut world = World::with_agents(Options::default(), &sizes());
    let designated = vec!["i-2".into()];
    assert_eq!(chosen(&mut world, Session { designated: designated.clone(), ..cores(1, 1) }), "i-2");
    let wish = Session { designated, designation: Designation::Preferred, ..cores(2, 2) };
    assert_eq!(chosen(&mut world, wish.clone()), "i-3");
    assert_eq!(chosen(&mut world, Session { id: id(3), kernels: cores(3, 1).kernels, ..wish }), "i-2");
    world.enqueue(Session { designated: vec!["i-2".into()], ..cores(4, 1) });
    let plan = world.pass();
    let explanation = &plan.unplaced[0].explanation;
    assert_eq!(explanation.verdict, Verdict::NoRoom);
    assert_eq!((&*explanation.rejections[0].rule, explanation.rejections[0].agents), ("designated", 3));
    world.enqueue(Session { designated: vec!["i-gone".into()], ..cores(5, 1) });
    assert_eq!(world.pass().unplaced[0].explanation.verdict, Verdict::Impossible);
}

#[test]
fn kernels_get_their_designated_agents_one_by_one() {
    let mut world = World::with_agents(Options::default(), &sizes());
    let one: &[(&str, u64)] = &[("cpu", 1)];
    let designated = vec!["i-4".into(), "i-1".into()];
    world.enqueue(Session { designated, ..gang(1, &[one; 2]) });
    assert_eq!(agents(&world.pass(), 0), ["i-4", "i-1"]);
}

fn member(number: u128, direction: Direction, strict: bool) -> Session {
    let group = SessionGroup { id: SessionGroupId(Uuid::from_u128(7)), direction, strict };
    Session { group: Some(group), ..cores(number, 1) }
}

#[test]
fn replicas_spread_or_pack() {
    let three = || ["i-1", "i-2", "i-3"].map(|id| agent(id, &[("cpu", 4)]));
    let mut spread = world(Arc::new(Concentrated), &three());
    let order: Vec<_> =
        (1..=4).map(|number| chosen(&mut spread, member(number, Direction::Spread, false))).collect();
    assert_eq!(order, ["i-1", "i-2", "i-3", "i-1"]);
    let mut pack = World::with_agents(Options::default(), &three());
    let order: Vec<_> =
        (1..=5).map(|number| chosen(&mut pack, member(number, Direction::Pack, false))).collect();
    assert_eq!(order, ["i-1", "i-1", "i-1", "i-1", "i-2"]);
    let mut strict = World::with_agents(Options::default(), &three());
    (1..=4).for_each(|number| strict.enqueue(member(number, Direction::Spread, true)));
    let plan = strict.pass();
    assert_eq!(placed(&plan), [1, 2, 3]);
    let rules: Vec<_> =
        plan.unplaced[0].explanation.rejections.iter().map(|r| (r.rule.as_str(), r.agents)).collect();
    assert_eq!(rules, [("session-group", 3)]);
    strict.end(id(2), Outcome::Succeeded);
    assert_eq!(placed(&strict.pass()), [4]);
    let mut packed = World::with_agents(Options::default(), &three());
    (1..=5).for_each(|number| packed.enqueue(member(number, Direction::Pack, true)));
    assert_eq!(placed(&packed.pass()), [1, 2, 3, 4]);
}

#[test]
fn agents_that_failed_a_session_come_last_for_it() {
    let mut world = World::with_agents(Options::default(), &sizes());
    assert_eq!(chosen(&mut world, cores(1, 1)), "i-3");
    world.requeue(id(1), vec!["i-3".into()]);
    let plan = world.pass();
    assert_eq!(agents(&plan, 0), ["i-4"]);
    world.requeue(id(1), vec!["i-1".into(), "i-2".into(), "i-4".into()]);
    assert_eq!(agents(&world.pass(), 0), ["i-3"], "better an agent that failed than none");
}

#[test]
fn an_agent_takes_only_so_many_kernels() {
    let options = Options { max_kernels_per_agent: Some(2), ..Options::default() };
    let mut world = World::with_agents(options, &[agent("i-1", &[("cpu", 9)])]);
    (1..=3).for_each(|number| world.enqueue(cores(number, 1)));
    let plan = world.pass();
    assert_eq!(placed(&plan), [1, 2]);
    let explanation = &plan.unplaced[0].explanation;
    assert_eq!(explanation.rejections[0].rule, "container-limit");
    assert_eq!(explanation.sentence(), "needs kernels 1; best agent has 0 free of 2");
}

#[test]
fn agents_that_take_nothing_get_nothing_until_they_do() {
    let mut world = World::with_agents(Options::default(), &[agent("i-1", &[("cpu", 4)])]);
    world.apply(Delta::AgentSchedulable("i-1".into(), false));
    world.enqueue(cores(1, 1));
    let plan = world.pass();
    assert_eq!(plan.unplaced[0].explanation.verdict, Verdict::Impossible);
    assert_eq!(plan.unplaced[0].explanation.rejections[0].rule, "unavailable");
    world.apply(Delta::AgentSchedulable("i-1".into(), true));
    assert_eq!(placed(&world.pass()), [1]);
    world.apply(Delta::AgentLeft("i-1".into()));
    world.enqueue(cores(2, 1));
    let plan = world.pass();
    assert_eq!(plan.unplaced[0].explanation.sentence(), "no agent is available in the resource group");
    world.join(agent("i-1", &[("cpu", 2)]));
    assert_eq!(placed(&world.pass()), [2], "what it held before it left is still held");
    world.enqueue(cores(3, 1));
    assert!(world.pass().placements.is_empty());
}

/// Agents of the zone first that has the label.
#[derive(Debug)]
struct Zone(&'static str);

impl Selector for Zone {
    fn name(&self) -> &'static str {
        "zone"
    }

    fn key(&self, _: &Profile, agent: &AgentView<'_>) -> SelectionKey {
        let here = agent.labels.get("zone").is_some_and(|zone| zone == self.0);
        SelectionKey::from_slice(&[i64::from(!here)])
    }
}

#[test]
fn a_selector_of_ones_own_sees_the_labels() {
    let mut far = agent("i-1", &[("cpu", 2)]);
    let mut near = agent("i-2", &[("cpu", 1)]);
    far.labels.insert("zone".into(), "far".into());
    near.labels.insert("zone".into(), "near".into());
    far.capacity = slots(&[("cpu", 2)]);
    let mut world = world(Arc::new(Zone("near")), &[far, near]);
    assert_eq!(chosen(&mut world, cores(1, 1)), "i-2");
    assert_eq!(chosen(&mut world, cores(2, 1)), "i-1");
}
