//! What must hold of every node and every sequence of requests.

use std::collections::BTreeMap;

use bai_core::slots::{Amount, ResourceSlots};
use proptest::prelude::*;
use rust_decimal::Decimal;

use crate::device::{
    AffinityHint, AffinityPolicy, Allocation, Device, DevicePool, Family, Fraction, Holding, PoolOptions,
    PoolSetup, Quirks, Refused, SlotDevices, Strategy as Spread,
};

const SLOTS: [&str; 4] = ["cuda.shares", "cuda.device:mig", "cpu", "mem"];

#[derive(Debug, Clone)]
struct Node {
    families: Vec<Family>,
    options: PoolOptions,
}

impl Node {
    fn setup(&self) -> PoolSetup {
        PoolSetup::new(self.families.clone(), self.options.clone())
    }

    fn slot(&self, slot: &str) -> &SlotDevices {
        self.families
            .iter()
            .flat_map(|family| &family.slots)
            .find(|known| known.slot.as_str() == slot)
            .unwrap()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Take {
        wanted: ResourceSlots,
        near: Option<u32>,
    },
    /// Gives back one of those held, chosen by this number.
    Give(usize),
}

fn hundredths(range: std::ops::Range<i64>) -> impl Strategy<Value = Decimal> {
    range.prop_map(|number| Decimal::new(number, 2))
}

fn devices(
    prefix: &'static str,
    capacity: impl Strategy<Value = Decimal>,
) -> impl Strategy<Value = Vec<Device>> {
    let place =
        (prop::option::weighted(0.9, 0..3_u32), prop::option::of(0..2_u32), prop::bool::weighted(0.1));
    prop::collection::vec((capacity, place), 1..9).prop_map(move |devices| {
        let numbered = devices.into_iter().enumerate();
        numbered
            .map(|(number, (capacity, (numa_node, island, excluded)))| Device {
                numa_node,
                island,
                excluded,
                ..Device::new(format!("{prefix}{number}"), capacity)
            })
            .collect()
    })
}

fn strategy() -> impl Strategy<Value = Spread> {
    prop_oneof![Just(Spread::Evenly), Just(Spread::Fill)]
}

fn fraction() -> impl Strategy<Value = Fraction> {
    let quantum = prop_oneof![Just(Decimal::new(1, 2)), Just(Decimal::new(1, 1)), Just(Decimal::new(25, 2))];
    (quantum, any::<bool>()).prop_map(|(quantum, whole)| {
        let fraction = Fraction::new(quantum).unwrap();
        if whole { fraction.unfragmented() } else { fraction }
    })
}

fn whole(range: std::ops::Range<i64>) -> impl Strategy<Value = Decimal> {
    range.prop_map(Decimal::from)
}

fn node() -> impl Strategy<Value = Node> {
    let cuda = (devices("s", hundredths(0..900)), fraction(), strategy(), devices("m", whole(1..2)));
    let cpu = (devices("c", whole(0..5)), strategy());
    let mem = devices("root", whole(0..1 << 40));
    (cuda, cpu, mem, any::<bool>()).prop_map(|(cuda, cpu, mem, single)| {
        let (shares, fraction, spread, parts) = cuda;
        let shares = SlotDevices::fractional(SLOTS[0], fraction, shares).strategy(spread);
        let cuda = Family::new("cuda", vec![shares, SlotDevices::unique(SLOTS[1], parts)]);
        let cpu = Family::new("cpu", vec![SlotDevices::discrete(SLOTS[2], cpu.0).strategy(cpu.1)]);
        let mem = Family::new("mem", vec![SlotDevices::discrete(SLOTS[3], mem)]);
        let affinity = if single { AffinityPolicy::PreferSingleNode } else { AffinityPolicy::Interleaved };
        Node { families: vec![cuda, cpu, mem], options: PoolOptions { affinity, ..PoolOptions::default() } }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let amounts = (hundredths(0..1200), 0..2_u32, 0..9_u32, 0..1_u64 << 41);
    let take =
        (amounts, any::<[bool; 4]>(), prop::option::of(0..3_u32)).prop_map(|(amounts, chosen, near)| {
            let all: [Amount; 4] = [amounts.0.into(), amounts.1.into(), amounts.2.into(), amounts.3.into()];
            let named =
                SLOTS.into_iter().zip(all).zip(chosen).filter(|(_, chosen)| *chosen).map(|(slot, _)| slot);
            Step::Take { wanted: named.collect(), near }
        });
    prop::collection::vec(prop_oneof![3 => take, 1 => any::<usize>().prop_map(Step::Give)], 1..24)
}

/// Sum of what the values hold, added up here and not by the pool.
fn total<'a>(live: impl IntoIterator<Item = &'a Allocation>) -> BTreeMap<(String, String), Amount> {
    let mut sum = BTreeMap::new();
    for (slot, devices) in live.into_iter().flat_map(Allocation::held) {
        for (device, amount) in devices {
            let entry: &mut Amount = sum.entry((slot.to_string(), device.to_string())).or_default();
            *entry = entry.checked_add(*amount).unwrap();
        }
    }
    sum
}

fn flat(held: &Holding) -> BTreeMap<(String, String), Amount> {
    let slot = |(slot, devices): (&bai_core::slots::SlotName, &BTreeMap<_, Amount>)| {
        let slot = slot.to_string();
        devices
            .iter()
            .map(|(device, amount): (&crate::device::DeviceId, _)| {
                ((slot.clone(), device.to_string()), *amount)
            })
            .collect::<Vec<_>>()
    };
    held.iter().flat_map(slot).collect()
}

fn check_limits(node: &Node, pool: &DevicePool) -> Result<(), TestCaseError> {
    for ((slot, id), held) in flat(&pool.held()) {
        let device = node.slot(&slot).devices.iter().find(|device| device.id.as_str() == id).unwrap();
        prop_assert!(!device.excluded, "{id} is excluded");
        prop_assert!(held <= device.capacity, "{held} of {id}, which has {}", device.capacity);
    }
    Ok(())
}

/// What a request must add up to: itself, fractions rounded down to the quantum.
fn promised(node: &Node, slot: &str, wanted: Amount) -> Amount {
    match node.slot(slot).sharing {
        crate::device::Sharing::Fractional(fraction) => {
            let number = wanted.finite().unwrap();
            (number - number % fraction.quantum).into()
        }
        _ => wanted,
    }
}

fn check_parts(node: &Node, wanted: &ResourceSlots, held: &Holding) -> Result<(), TestCaseError> {
    for (slot, &amount) in wanted {
        prop_assert_eq!(held.total(slot.as_str()), promised(node, slot.as_str(), amount));
        for (device, part) in held.devices(slot.as_str()) {
            prop_assert!(part > Amount::ZERO, "{device} gives {part}");
        }
    }
    prop_assert!(held.iter().all(|(slot, _)| !wanted.get(slot.as_str()).is_zero()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_is_given_twice_and_everything_comes_back(node in node(), steps in steps()) {
        let pool = node.setup().open();
        let mut live: Vec<Allocation> = Vec::new();
        for step in steps {
            let before = pool.held();
            match step {
                Step::Take { wanted, near } => {
                    let hint = AffinityHint { nodes: near.into_iter().collect() };
                    match pool.allocate(&wanted, &hint) {
                        Ok(held) => {
                            check_parts(&node, &wanted, held.held())?;
                            live.push(held);
                        }
                        Err(error) => {
                            prop_assert_eq!(pool.held(), before);
                            prop_assert!(error.requested > Amount::ZERO);
                            if error.refused == Refused::Insufficient {
                                prop_assert!(error.allocatable < error.requested);
                            }
                        }
                    }
                }
                Step::Give(number) if !live.is_empty() => drop(live.swap_remove(number % live.len())),
                Step::Give(_) => {}
            }
            check_limits(&node, &pool)?;
            prop_assert_eq!(total(&live), flat(&pool.held()));
        }
        live.clear();
        prop_assert!(pool.held().is_empty());
    }

    #[test]
    fn a_restored_pool_goes_on_like_the_one_before(node in node(), first in steps(), then in steps()) {
        let pool = node.setup().open();
        let mut live: Vec<Allocation> = Vec::new();
        run(&pool, &mut live, first);
        // As from the records of kernels, read in any order.
        let setup = node.setup();
        let mut again: Vec<Allocation> = live
            .iter()
            .rev()
            .map(|held| setup.restore(serde_json::from_str(&serde_json::to_string(held).unwrap()).unwrap()))
            .collect();
        again.reverse();
        prop_assert_eq!(setup.excess(), []);
        let restored = setup.open();
        prop_assert_eq!((restored.held(), restored.free()), (pool.held(), pool.free()));
        let outcome = run(&pool, &mut live, then.clone());
        prop_assert_eq!(run(&restored, &mut again, then), outcome);
        prop_assert_eq!(restored.held(), pool.held());
    }

    #[test]
    fn a_release_returns_exactly_what_was_taken(node in node(), steps in steps(), wanted in steps()) {
        let pool = node.setup().open();
        let mut live = Vec::new();
        run(&pool, &mut live, steps);
        let before = (pool.held(), pool.free());
        for step in wanted {
            if let Step::Take { wanted, .. } = step {
                drop(pool.allocate(&wanted, &AffinityHint::default()));
                prop_assert_eq!((pool.held(), pool.free()), before.clone());
            }
        }
    }

    #[test]
    fn whole_units_are_spread_as_evenly_as_the_devices_allow(free in prop::collection::vec(0..12_u32, 1..9), wanted in 1..60_u32) {
        let devices = free.iter().enumerate().map(|(n, free)| Device::new(n.to_string(), *free)).collect();
        let family = Family::new("x", vec![SlotDevices::discrete("x", devices)]);
        let pool = PoolSetup::new(vec![family], PoolOptions::default()).open();
        let given = pool.allocate(&[("x", wanted)].into_iter().collect(), &AffinityHint::default());
        prop_assert_eq!(given.is_ok(), free.iter().sum::<u32>() >= wanted);
        let Ok(given) = given else { return Ok(()) };
        let share = |n: usize| given.held().amount("x", &n.to_string()).to_u64().unwrap();
        for (n, room) in free.iter().enumerate() {
            for other in 0..free.len() {
                let full = share(n) == u64::from(*room);
                prop_assert!(full || share(n) + 1 >= share(other), "{} beside {}", share(n), share(other));
            }
        }
    }

    #[test]
    fn fractions_are_split_as_evenly_as_any_number_of_devices_allows(
        free in prop::collection::vec(1..30_i64, 1..8),
        wanted in 1..120_i64,
    ) {
        let devices = free.iter().enumerate().map(|(n, free)| Device::new(n.to_string(), Decimal::new(*free, 2)));
        let slot = SlotDevices::fractional("x", Fraction::default(), devices.collect());
        let pool = PoolSetup::new(vec![Family::new("x", vec![slot])], PoolOptions::default()).open();
        let given = pool.allocate(&[("x", Decimal::new(wanted, 2))].into_iter().collect(), &AffinityHint::default());
        prop_assert_eq!(given.is_ok(), free.iter().sum::<i64>() >= wanted);
        let Ok(given) = given else { return Ok(()) };
        let shares: Vec<_> = given.held().devices("x").map(|(_, amount)| amount.finite().unwrap()).collect();
        if let Some(tightest) = free.iter().filter(|free| **free >= wanted).min() {
            let device = given.held().devices("x").next().unwrap().0.as_str().parse::<usize>().unwrap();
            prop_assert_eq!((shares.len(), free[device]), (1, *tightest));
            return Ok(());
        }
        let spread = shares.iter().max().unwrap() - shares.iter().min().unwrap();
        let best = best_spread(&free, wanted);
        prop_assert_eq!(spread, Decimal::new(best.0, 2), "{:?}", shares);
        prop_assert_eq!(shares.len(), best.1);
    }

    #[test]
    fn the_quirks_of_26_8_never_give_too_much_either(node in node(), steps in steps()) {
        let quirky = Node { options: PoolOptions { quirks: Quirks::V26_8, ..node.options.clone() }, ..node };
        let pool = quirky.setup().open();
        let mut live = Vec::new();
        run(&pool, &mut live, steps);
        check_limits(&quirky, &pool)?;
        live.clear();
        prop_assert!(pool.held().is_empty());
    }
}

/// Does the steps and says what happened.
fn run(pool: &DevicePool, live: &mut Vec<Allocation>, steps: Vec<Step>) -> Vec<String> {
    let mut outcome = Vec::new();
    for step in steps {
        match step {
            Step::Take { wanted, near } => {
                match pool.allocate(&wanted, &AffinityHint { nodes: near.into_iter().collect() }) {
                    Ok(held) => {
                        outcome.push(serde_json::to_string(&held).unwrap());
                        live.push(held);
                    }
                    Err(error) => outcome.push(error.to_string()),
                }
            }
            Step::Give(number) if !live.is_empty() => drop(live.swap_remove(number % live.len())),
            Step::Give(_) => {}
        }
    }
    outcome
}

/// The least spread of any choice of at least two devices, all used, and the least number of devices that has it. The
/// most even split of a choice is found by lowering a common ceiling, not in the way of the allocator.
fn best_spread(free: &[i64], wanted: i64) -> (i64, usize) {
    let choices = (1..1_usize << free.len())
        .map(|bits| (0..free.len()).filter(|i| bits >> i & 1 == 1).map(|i| free[i]).collect::<Vec<_>>());
    let split = |room: Vec<i64>| {
        let count = i64::try_from(room.len()).unwrap();
        if room.len() < 2 || room.iter().sum::<i64>() < wanted || wanted < count {
            return None;
        }
        let ceiling =
            (1..=wanted).find(|ceiling| room.iter().map(|free| free.min(ceiling)).sum::<i64>() >= wanted)?;
        let over = room.iter().map(|free| free.min(&ceiling)).sum::<i64>() - wanted;
        let at_ceiling = room.iter().filter(|free| **free >= ceiling).count();
        let lowered = i64::from(over > 0);
        let least = room.iter().map(|free| *free.min(&ceiling)).min()?.min(ceiling - lowered);
        let greatest = if usize::try_from(over).unwrap() == at_ceiling { ceiling - 1 } else { ceiling };
        (least > 0).then_some((greatest - least, room.len()))
    };
    choices.filter_map(split).min().unwrap()
}
