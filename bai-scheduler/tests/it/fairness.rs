//! Fair share in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;

use bai_core::slots::ResourceSlots;
use bai_core::{ProjectId, UserId};
use bai_scheduler::testing::{agent, at, session, slots};
use bai_scheduler::{Delta, FairShare, Holder, Options, Outcome, Owner, Session, UsageSlice};
use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

use crate::world::World;

/// A step of the simulation and a slice of usage.
const STEP: i64 = 300;

/// Keeps the books of the past as a manager would: one slice per holder and step.
#[derive(Default)]
struct Ledger {
    slices: BTreeMap<Holder, Vec<UsageSlice>>,
    seconds: BTreeMap<Holder, u64>,
}

fn holders(owner: &Owner) -> [Holder; 3] {
    [
        Holder::Domain(owner.domain.clone()),
        Holder::Project(owner.project),
        Holder::Member(owner.project, owner.user),
    ]
}

impl Ledger {
    fn observe(&mut self, world: &mut World, counted: bool) {
        let mut used: BTreeMap<Holder, ResourceSlots> = BTreeMap::new();
        for running in world.running.values() {
            for holder in holders(&running.session.owner) {
                used.entry(holder).or_default().add(&running.session.kernels[0].slots);
            }
        }
        let middle = at(world.now - STEP / 2);
        for (holder, slots) in used {
            let slot_seconds = slots.checked_mul(STEP.unsigned_abs()).unwrap();
            if counted {
                let cpu = crate::world::amount(&slot_seconds, "cpu");
                *self.seconds.entry(holder.clone()).or_default() += cpu;
            }
            let slices = self.slices.entry(holder.clone()).or_default();
            match slices.last_mut() {
                // One slice an hour.
                Some(last) if (middle - last.at).num_seconds() < 3_600 => {
                    last.slot_seconds.add(&slot_seconds);
                }
                _ => slices.push(UsageSlice { at: middle, slot_seconds }),
            }
            let slices = slices.clone();
            world.apply(Delta::History(holder, slices));
        }
    }
}

fn fair(half_life: TimeDelta) -> Options {
    Options { sequencer: Arc::new(FairShare::default()), half_life: Some(half_life), ..Options::default() }
}

fn member(number: u128, project: u128, domain: &str) -> Owner {
    Owner {
        access_key: bai_core::AccessKey::new(format!("AKIA{number}")),
        user: UserId(Uuid::from_u128(number)),
        project: ProjectId(Uuid::from_u128(project)),
        domain: domain.to_owned(),
    }
}

/// Everybody always has something waiting; sessions run for one to four steps.
fn saturate(world: &mut World, owners: &[Owner], steps: i64, ledger: &mut Ledger) {
    let mut number: u128 = 1;
    let mut ends: BTreeMap<bai_core::SessionId, i64> = BTreeMap::new();
    for step in 0..steps {
        world.now += STEP;
        ledger.observe(world, step >= steps / 4);
        let due: Vec<_> = ends.iter().filter(|(_, end)| **end <= world.now).map(|(id, _)| *id).collect();
        for id in due {
            ends.remove(&id);
            world.end(id, Outcome::Succeeded);
        }
        for owner in owners {
            let waiting = world.pending.values().filter(|session| session.owner == *owner).count();
            for _ in waiting..8 {
                let mut session: Session = session(number, &[&[]]);
                session.kernels[0].slots = slots(&[("cpu", 1 + u64::try_from(number % 2).unwrap())]);
                session.owner = owner.clone();
                world.enqueue(session);
                number += 1;
            }
        }
        for placement in world.pass().placements {
            let length = 1 + i64::try_from(placement.session.0.as_u128() % 4).unwrap();
            ends.insert(placement.session, world.now + length * STEP);
        }
    }
}

fn shares(ledger: &Ledger, holders: &[Holder]) -> Vec<f64> {
    let all: Vec<f64> = holders
        .iter()
        .map(|holder| {
            let seconds = ledger.seconds.get(holder).copied().unwrap_or(0);
            f64::from(u32::try_from(seconds / 100).unwrap())
        })
        .collect();
    let sum: f64 = all.iter().sum();
    all.into_iter().map(|share| share / sum).collect()
}

fn assert_close(shares: &[f64], weights: &[u32]) -> Result<(), TestCaseError> {
    let sum: u32 = weights.iter().sum();
    for (share, weight) in shares.iter().zip(weights) {
        let expected = f64::from(*weight) / f64::from(sum);
        prop_assert!(
            (share - expected).abs() <= 0.05 * expected + 0.005,
            "got {shares:?} with weights {weights:?}"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn shares_of_users_converge_to_their_weights(weights in prop::collection::vec(1..5_u32, 2..5)) {
        let agents: Vec<_> = (0..2).map(|number| agent(&format!("i-{number}"), &[("cpu", 10)])).collect();
        let mut world = World::with_agents(fair(TimeDelta::hours(6)), &agents);
        let owners: Vec<_> = (1..).zip(&weights).map(|(number, _)| member(number, 1, "default")).collect();
        for (owner, weight) in owners.iter().zip(&weights) {
            world.apply(Delta::Weight(Holder::Member(owner.project, owner.user), weight * 1_000));
        }
        let mut ledger = Ledger::default();
        saturate(&mut world, &owners, 300, &mut ledger);
        let holders: Vec<_> = owners.iter().map(|owner| holders(owner)[2].clone()).collect();
        assert_close(&shares(&ledger, &holders), &weights)?;
    }
}

#[test]
fn domains_come_before_projects_and_projects_before_users() {
    let mut world = World::with_agents(fair(TimeDelta::hours(6)), &[agent("i-1", &[("cpu", 40)])]);
    // The domain `one` has one user, `two` has a project of one and a project of two.
    let owners = [member(1, 1, "one"), member(2, 2, "two"), member(3, 3, "two"), member(4, 3, "two")];
    world.apply(Delta::Weight(Holder::Project(owners[2].project), 3_000));
    let mut ledger = Ledger::default();
    saturate(&mut world, &owners, 1_000, &mut ledger);
    let users: Vec<_> = owners.iter().map(|owner| holders(owner)[2].clone()).collect();
    // Half for each domain; a quarter and three quarters of it for the projects; the last one halved again.
    assert_close(&shares(&ledger, &users), &[8, 2, 3, 3]).unwrap();
}

#[test]
fn the_past_fades() {
    let mut world = World::with_agents(fair(TimeDelta::days(1)), &[agent("i-1", &[("cpu", 1)])]);
    let (old, new) = (member(1, 1, "default"), member(2, 1, "default"));
    let slice = |days: i64, now: i64| UsageSlice {
        at: at(now - days * 86_400),
        slot_seconds: slots(&[("cpu", 86_400)]),
    };
    let now = world.now;
    // Four days ago it was a day's worth; now a sixteenth of it counts. The other used an eighth of a day just now.
    world.apply(Delta::History(holders(&old)[2].clone(), vec![slice(4, now)]));
    let recent = UsageSlice { slot_seconds: slots(&[("cpu", 86_400 / 8)]), ..slice(0, now) };
    world.apply(Delta::History(holders(&new)[2].clone(), vec![recent]));
    world.enqueue(Session { owner: new, ..session(1, &[&[("cpu", 1)]]) });
    world.enqueue(Session { owner: old, ..session(2, &[&[("cpu", 1)]]) });
    assert_eq!(crate::world::placed(&world.pass()), [2]);
}
