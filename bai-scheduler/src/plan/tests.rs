use std::collections::BTreeMap;

use bai_core::slots::{Amount, DefaultForUnspecified, ResourceSlots};
use bai_core::status::{ClusterMode, SessionType};
use bai_core::{AccessKey, AgentId, ProjectId, SessionId, Timestamp, UserId};
use proptest::prelude::*;

use super::*;
use crate::{
    AgentState, Concentrated, Concurrency, Dependency, DependencyState, Holder, KernelRequest, Limit,
    Pending, Quota,
};

fn slots(amounts: &[(&str, u64)]) -> ResourceSlots {
    amounts.iter().map(|(name, amount)| (*name, *amount)).collect()
}

fn agent(id: &str, capacity: &[(&str, u64)]) -> AgentState {
    AgentState {
        id: id.into(),
        architecture: "x86_64".into(),
        capacity: slots(capacity),
        held: ResourceSlots::new(),
        images: None,
    }
}

fn at(seconds: i64) -> Timestamp {
    bai_core::clock::from_micros(seconds * 1_000_000)
}

/// A session whose id and age follow from `number`.
fn session(number: u128, kernels: &[&[(&str, u64)]]) -> Pending {
    Pending {
        id: id(number),
        access_key: AccessKey::new("AKIA"),
        user: UserId(uuid(1)),
        project: ProjectId(uuid(2)),
        domain: "default".into(),
        priority: 10,
        created_at: at(i64::try_from(number).unwrap()),
        session_type: SessionType::Interactive,
        cluster_mode: ClusterMode::SingleNode,
        starts_at: None,
        dependencies: Vec::new(),
        designated: Vec::new(),
        avoid: Vec::new(),
        kernels: kernels
            .iter()
            .map(|amounts| KernelRequest {
                slots: slots(amounts),
                architecture: "x86_64".into(),
                image: "python:3.11".into(),
            })
            .collect(),
    }
}

fn uuid(number: u128) -> ::uuid::Uuid {
    ::uuid::Uuid::from_u128(number)
}

fn id(number: u128) -> SessionId {
    SessionId(uuid(number))
}

fn snapshot(agents: Vec<AgentState>, pending: Vec<Pending>) -> Snapshot {
    Snapshot { agents, pending, ..Snapshot::at(at(1000)) }
}

fn decide(agents: Vec<AgentState>, pending: Vec<Pending>) -> Plan {
    plan(&snapshot(agents, pending), &Rules::default())
}

fn placed(plan: &Plan) -> Vec<u128> {
    plan.placements.iter().map(|(id, _)| id.0.as_u128()).collect()
}

fn message(plan: &Plan, number: u128) -> &str {
    let (_, reasons) = plan.unplaced.iter().find(|(known, _)| *known == id(number)).unwrap();
    &reasons.message
}

#[test]
fn a_shortage_is_explained() {
    let plan = decide(
        vec![agent("a", &[("cpu", 1)]), agent("b", &[("cpu", 2)])],
        vec![session(1, &[&[("cpu", 1000)]])],
    );
    assert_eq!(message(&plan, 1), "needs cpu 1000; best agent has 2 free of 2");
    assert_eq!(plan.unplaced[0].1.refusal, Refusal::NoAgent);
    assert_eq!(plan.unplaced[0].1.passed.len(), 7);

    let plan =
        decide(vec![agent("a", &[("cpu", 4), ("mem", 8)])], vec![session(1, &[&[("cpu", 5), ("mem", 9)]])]);
    assert_eq!(
        message(&plan, 1),
        "needs cpu 5; best agent has 4 free of 4, needs mem 9 bytes; best agent has 8 bytes free of 8 bytes"
    );
}

#[test]
fn other_obstacles_are_explained() {
    assert_eq!(
        message(&decide(vec![], vec![session(1, &[&[]])]), 1),
        "no agent is available in the resource group"
    );
    let mut arm = session(1, &[&[("cpu", 1)]]);
    arm.kernels[0].architecture = "arm64".into();
    let plan = decide(vec![agent("a", &[("cpu", 4)])], vec![arm]);
    assert_eq!(message(&plan, 1), "no available agent has the architecture aarch64");

    let mut bare = agent("a", &[("cpu", 4)]);
    bare.images = Some(std::collections::BTreeSet::new());
    let plan = decide(vec![bare], vec![session(1, &[&[("cpu", 1)]])]);
    assert_eq!(message(&plan, 1), "no available agent has the image python:3.11");

    let mut elsewhere = session(1, &[&[("cpu", 1)]]);
    elsewhere.designated = vec!["z".into()];
    let plan = decide(vec![agent("a", &[("cpu", 4)])], vec![elsewhere]);
    assert_eq!(message(&plan, 1), "the designated agent z is not available");
}

#[test]
fn priority_comes_before_age_and_the_blocked_are_passed_over() {
    let mut urgent = session(9, &[&[("cpu", 1)]]);
    urgent.priority = 20;
    let huge = session(1, &[&[("cpu", 100)]]);
    let pending = vec![session(3, &[&[("cpu", 1)]]), huge, urgent, session(2, &[&[("cpu", 1)]])];
    let plan = decide(vec![agent("a", &[("cpu", 2)])], pending);
    assert_eq!(placed(&plan), [9, 2]);
    assert_eq!(message(&plan, 3), "needs cpu 1; best agent has 0 free of 2");
}

#[test]
fn a_single_node_session_is_one_requirement() {
    let family: &[&[(&str, u64)]] = &[&[("cpu", 2)], &[("cpu", 2)]];
    let plan = decide(vec![agent("a", &[("cpu", 3)]), agent("b", &[("cpu", 3)])], vec![session(1, family)]);
    assert_eq!(message(&plan, 1), "needs cpu 4; best agent has 3 free of 3");
    let plan = decide(vec![agent("a", &[("cpu", 3)]), agent("b", &[("cpu", 4)])], vec![session(1, family)]);
    assert_eq!(plan.placements, [(id(1), vec![AgentId::new("b"), AgentId::new("b")])]);
}

#[test]
fn a_gang_is_placed_whole_or_not_at_all() {
    let mut gang = session(1, &[&[("cpu", 2)], &[("cpu", 2)], &[("cpu", 2)]]);
    gang.cluster_mode = ClusterMode::MultiNode;
    let agents = || vec![agent("a", &[("cpu", 3)]), agent("b", &[("cpu", 3)])];
    let plan =
        decide(agents(), vec![gang.clone(), session(2, &[&[("cpu", 3)]]), session(3, &[&[("cpu", 3)]])]);
    assert_eq!(placed(&plan), [2, 3]);
    assert_eq!(message(&plan, 1), "kernel 3 of 3: needs cpu 2; best agent has 1 free of 3");
    gang.kernels.pop();
    let plan = decide(agents(), vec![gang]);
    assert_eq!(plan.placements, [(id(1), vec![AgentId::new("a"), AgentId::new("b")])]);
}

#[test]
fn agents_that_failed_come_last_and_designated_ones_alone() {
    let agents = || vec![agent("a", &[("cpu", 9)]), agent("b", &[("cpu", 2)])];
    let mut burnt = session(1, &[&[("cpu", 1)]]);
    burnt.avoid = vec!["a".into()];
    assert_eq!(decide(agents(), vec![burnt.clone()]).placements[0].1, ["b".into()]);
    burnt.kernels[0].slots = slots(&[("cpu", 5)]);
    assert_eq!(decide(agents(), vec![burnt]).placements[0].1, ["a".into()]);
    let mut here = session(1, &[&[("cpu", 1)]]);
    here.designated = vec!["b".into()];
    assert_eq!(decide(agents(), vec![here.clone()]).placements[0].1, ["b".into()]);
    here.kernels[0].slots = slots(&[("cpu", 5)]);
    assert_eq!(message(&decide(agents(), vec![here]), 1), "needs cpu 5; best agent has 2 free of 2");
}

#[test]
fn zero_amounts_of_slots_an_agent_lacks_do_not_matter() {
    let plan =
        decide(vec![agent("a", &[("cpu", 2)])], vec![session(1, &[&[("cpu", 1), ("cuda.device", 0)]])]);
    assert_eq!(placed(&plan), [1]);
}

#[test]
fn checks_have_the_names_and_texts_clients_know() {
    let mut early = session(1, &[&[("cpu", 1)]]);
    early.session_type = SessionType::Batch;
    early.starts_at = Some(at(2000));
    let mut waiting = session(2, &[&[("cpu", 1)]]);
    let parent = |number, state| Dependency { id: id(number), name: format!("parent-{number}"), state };
    waiting.dependencies = vec![parent(7, DependencyState::Waiting), parent(8, DependencyState::Succeeded)];
    let mut orphan = session(3, &[&[("cpu", 1)]]);
    orphan.dependencies = vec![parent(9, DependencyState::Failed)];
    let plan = decide(vec![agent("a", &[("cpu", 9)])], vec![early, waiting, orphan]);
    assert_eq!(plan.placements, []);
    assert_eq!(message(&plan, 1), "Before start time");
    let expected = format!("Waiting dependency sessions to finish as success. (parent-7 ({}))", id(7));
    assert_eq!(message(&plan, 2), expected);
    let (_, reasons) = &plan.unplaced[1];
    assert_eq!(reasons.failed.iter().map(|failure| failure.name).collect::<Vec<_>>(), ["dependencies"]);
    assert_eq!(reasons.refusal, Refusal::Checks);
    assert_eq!(plan.unplaced[2].1.refusal, Refusal::Hopeless);
}

#[test]
fn quotas_count_what_the_pass_has_placed() {
    let mut world = snapshot(
        vec![agent("a", &[("cpu", 100)])],
        (1..=4).map(|number| session(number, &[&[("cpu", 2)]])).collect(),
    );
    world.quotas.sessions.insert("AKIA".into(), Concurrency { most: 3, used: 1 });
    let plan = plan(&world, &Rules::default());
    assert_eq!(placed(&plan), [1, 2]);
    assert_eq!(message(&plan, 3), "You cannot run more than 3 concurrent sessions");

    world.quotas.sessions.clear();
    let limit = Limit { slots: slots(&[("cpu", 5)]), others: DefaultForUnspecified::Limited };
    world
        .quotas
        .amounts
        .insert(Holder::Domain("default".into()), Quota { limit, used: slots(&[("cpu", 1)]) });
    let plan = super::plan(&world, &Rules::default());
    assert_eq!(placed(&plan), [1, 2]);
    let (_, reasons) = &plan.unplaced[0];
    assert_eq!(reasons.failed[0].name, "domain_resource_limit");
    assert_eq!(
        reasons.failed[0].message,
        "Your domain resource quota is exceeded. (cpu: 2 asked, 5 in use, limit 5)"
    );
}

#[test]
fn unmentioned_slots_follow_the_default_of_the_policy() {
    for (others, expected) in [(DefaultForUnspecified::Limited, 0), (DefaultForUnspecified::Unlimited, 1)] {
        let mut world = snapshot(vec![agent("a", &[("cpu", 9)])], vec![session(1, &[&[("cpu", 1)]])]);
        let quota =
            Quota { limit: Limit { slots: ResourceSlots::new(), others }, used: ResourceSlots::new() };
        world.quotas.amounts.insert(Holder::User(UserId(uuid(1))), quota);
        assert_eq!(plan(&world, &Rules::default()).placements.len(), expected);
    }
}

prop_compose! {
    fn any_agent(index: usize)(cpu in 0_u64..16, gpu in 0_u64..4, held in 0_u64..20) -> AgentState {
        let mut agent = agent(&format!("i-{index}"), &[("cpu", cpu), ("cuda.device", gpu)]);
        agent.held = slots(&[("cpu", held.min(cpu))]);
        agent
    }
}

prop_compose! {
    fn any_session(number: u128)(
        kernels in prop::collection::vec((0_u64..6, 0_u64..2), 1..5),
        multi in any::<bool>(),
        priority in 0..3_i32,
        avoid in prop::option::of(0_usize..6),
        created in 0..5_i64,
    ) -> Pending {
        let kernels: Vec<Vec<_>> =
            kernels.into_iter().map(|(cpu, gpu)| vec![("cpu", cpu), ("cuda.device", gpu)]).collect();
        let kernels: Vec<&[(&str, u64)]> = kernels.iter().map(Vec::as_slice).collect();
        let mut session = session(number, &kernels);
        session.cluster_mode = if multi { ClusterMode::MultiNode } else { ClusterMode::SingleNode };
        session.priority = priority;
        session.created_at = at(created);
        session.avoid = avoid.map(|index| AgentId::new(format!("i-{index}"))).into_iter().collect();
        session
    }
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let agents = (0_usize..6).prop_flat_map(|count| (0..count).map(any_agent).collect::<Vec<_>>());
    let pending = (0_u128..12).prop_flat_map(|count| (0..count).map(any_session).collect::<Vec<_>>());
    let quota = prop::option::of(0_u64..30);
    (agents, pending, quota).prop_map(|(agents, pending, quota)| {
        let mut snapshot = snapshot(agents, pending);
        if let Some(cpu) = quota {
            let limit = Limit { slots: slots(&[("cpu", cpu)]), others: DefaultForUnspecified::Unlimited };
            let used = ResourceSlots::new();
            snapshot.quotas.amounts.insert(Holder::Domain("default".into()), Quota { limit, used });
        }
        snapshot
    })
}

proptest! {
    #[test]
    fn no_agent_and_no_quota_is_ever_exceeded(snapshot in any_snapshot(), concentrated in any::<bool>()) {
        let concentrate = Rules { selector: &Concentrated, ..Rules::default() };
        let rules = if concentrated { concentrate } else { Rules::default() };
        let plan = plan(&snapshot, &rules);

        let mut held: BTreeMap<_, _> =
            snapshot.agents.iter().map(|agent| (agent.id.clone(), agent.held.clone())).collect();
        let mut total = ResourceSlots::new();
        for (id, agents) in &plan.placements {
            let session = snapshot.pending.iter().find(|session| session.id == *id).unwrap();
            prop_assert_eq!(agents.len(), session.kernels.len(), "all kernels or none");
            if session.cluster_mode == ClusterMode::SingleNode {
                prop_assert!(agents.iter().all(|agent| *agent == agents[0]));
            }
            for (kernel, agent) in session.kernels.iter().zip(agents) {
                held.get_mut(agent).unwrap().add(&kernel.slots);
                total.add(&kernel.slots);
            }
        }
        for agent in &snapshot.agents {
            prop_assert!(held[&agent.id].fits_in(&agent.capacity), "{} holds {}", agent.id, held[&agent.id]);
        }
        if let Some(quota) = snapshot.quotas.amounts.values().next() {
            prop_assert!(total.get("cpu") <= quota.limit.of("cpu"));
        }
        // Everything is decided once, and whatever is not placed has a reason.
        prop_assert_eq!(plan.placements.len() + plan.unplaced.len(), snapshot.pending.len());
        prop_assert!(plan.unplaced.iter().all(|(_, reasons)| !reasons.message.is_empty()));
    }

    #[test]
    fn the_same_snapshot_gives_the_same_plan(snapshot in any_snapshot()) {
        let mut shuffled = snapshot.clone();
        shuffled.pending.reverse();
        prop_assert_eq!(plan(&snapshot, &Rules::default()), plan(&shuffled, &Rules::default()));
    }

    #[test]
    fn what_fits_alone_on_an_empty_group_is_placed(cpu in 1_u64..16, want in 1_u64..20) {
        let plan = decide(vec![agent("a", &[("cpu", cpu)])], vec![session(1, &[&[("cpu", want)]])]);
        prop_assert_eq!(plan.placements.len(), usize::from(Amount::from(want) <= Amount::from(cpu)));
    }
}
