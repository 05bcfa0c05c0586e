//! Our own rules, one by one.

use std::sync::Arc;

use bai_core::error::{Error, ErrorKind};
use bai_core::slots::{Amount, ResourceSlots};
use rust_decimal::Decimal;

use crate::device::{
    AffinityHint, AffinityPolicy, AllocError, Allocation, Device, DevicePool, Family, Fraction, Holding,
    PoolOptions, PoolSetup, Refused, ResourceText, SlotDevices, Strategy,
};

fn want<const N: usize>(slots: [(&str, &str); N]) -> ResourceSlots {
    slots.into_iter().map(|(slot, amount)| (slot, amount.parse::<Amount>().unwrap())).collect()
}

fn take(pool: &DevicePool, wanted: &ResourceSlots) -> Result<Allocation, AllocError> {
    pool.allocate(wanted, &AffinityHint::default())
}

fn devices(prefix: &str, count: u32, capacity: u32, per_node: u32) -> Vec<Device> {
    (0..count).map(|n| Device::new(format!("{prefix}{n}"), capacity).on_node(n / per_node)).collect()
}

fn gpus_and_cores(options: PoolOptions) -> PoolSetup {
    let families = vec![
        // The order of the list does not matter: the options say who is served first.
        Family::new("mem", vec![SlotDevices::discrete("mem", vec![Device::new("root", 1_u64 << 33)])]),
        Family::new("cpu", vec![SlotDevices::discrete("cpu", devices("c", 8, 1, 4))]),
        Family::new("cuda", vec![SlotDevices::discrete("cuda.device", devices("g", 4, 1, 2))]),
    ];
    PoolSetup::new(families, options)
}

fn single_node() -> PoolOptions {
    PoolOptions { affinity: AffinityPolicy::PreferSingleNode, ..PoolOptions::default() }
}

fn ids(allocation: &Allocation, slot: &str) -> Vec<String> {
    allocation.held().devices(slot).map(|(device, _)| device.to_string()).collect()
}

#[test]
fn a_request_gets_everything_or_nothing() {
    let pool = gpus_and_cores(PoolOptions::default()).open();
    let before = pool.free();
    let error = take(&pool, &want([("cuda.device", "2"), ("cpu", "4"), ("mem", "8589934593")])).unwrap_err();
    assert_eq!((error.refused, error.slot.as_str()), (Refused::Insufficient, "mem"));
    assert_eq!((error.requested, error.allocatable), (8_589_934_593_u64.into(), 8_589_934_592_u64.into()));
    assert_eq!(pool.free(), before);
    assert!(pool.held().is_empty());
}

#[test]
fn dropping_gives_back_even_when_the_holder_panics() {
    let pool = gpus_and_cores(PoolOptions::default()).open();
    let held = take(&pool, &want([("cpu", "3")])).unwrap();
    let moved = std::thread::spawn(move || {
        let _held = held;
        panic!("the kernel's task ends like this");
    });
    assert!(moved.join().is_err());
    assert_eq!(pool.free(), pool.capacity());
    drop(take(&pool, &want([("cpu", "8")])).unwrap());
}

#[test]
fn a_successor_may_get_what_is_held_and_nobody_gets_the_rest() {
    let pool = gpus_and_cores(PoolOptions::default()).open();
    let mut first = take(&pool, &want([("cuda.device", "3")])).unwrap();
    let refused = first.succeed(&want([("cuda.device", "5")]), &AffinityHint::default()).unwrap_err();
    assert_eq!(refused.refused, Refused::Insufficient);
    assert_eq!(first.held().total("cuda.device"), 3.into(), "a refusal changes nothing");

    let next = first.succeed(&want([("cuda.device", "2")]), &AffinityHint::default()).unwrap();
    let (kept, given) = (ids(&first, "cuda.device"), ids(&next, "cuda.device"));
    assert_eq!(given.len(), 2);
    assert!(given.iter().all(|id| !kept.contains(id)), "nothing is counted twice");
    assert!(pool.free().get("cuda.device") <= 1.into());
    assert!(take(&pool, &want([("cuda.device", "2")])).is_err());
    drop(first);
    assert_eq!(pool.free().get("cuda.device"), 2.into());
    drop(next);
    assert_eq!(pool.free(), pool.capacity());
}

#[test]
fn threads_never_share_a_core() {
    let pool = Arc::new(gpus_and_cores(PoolOptions::default()).open());
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let pool = Arc::clone(&pool);
            std::thread::spawn(move || {
                for _ in 0..200 {
                    let Ok(held) = take(&pool, &want([("cpu", "3"), ("cuda.device", "1")])) else { continue };
                    let all = pool.held();
                    assert!(all.devices("cpu").all(|(_, amount)| amount <= Amount::ONE));
                    assert_eq!(held.held().total("cpu"), 3.into());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert!(pool.held().is_empty());
}

#[test]
fn a_pool_in_use_is_not_rebuilt() {
    let setup = gpus_and_cores(PoolOptions::default());
    let restored = setup.restore(serde_json::from_str(r#"{"cpu": {"c0": "1"}}"#).unwrap());
    let pool = setup.open();
    let fewer = || vec![Family::new("cpu", vec![SlotDevices::discrete("cpu", devices("c", 2, 1, 2))])];
    assert_eq!(pool.rebuild(fewer()).unwrap_err().allocations, 1);
    let fresh = take(&pool, &want([("cpu", "1")])).unwrap();
    drop(restored);
    assert_eq!(pool.rebuild(fewer()).unwrap_err().allocations, 1);
    assert_eq!(pool.capacity().get("cpu"), 8.into());
    drop(fresh);
    pool.rebuild(fewer()).unwrap();
    assert_eq!(pool.capacity(), want([("cpu", "2")]));
}

#[test]
fn what_runs_is_restored_whatever_the_devices_say() {
    let gpus = vec![Device::new("g0", 1), Device::new("g1", 1).excluded()];
    let family = Family::new("cuda", vec![SlotDevices::discrete("cuda.device", gpus)]);
    let setup = PoolSetup::new(vec![family], PoolOptions::default());
    let record = |text: &str| serde_json::from_str::<Holding>(text).unwrap();
    let twice = [
        setup.restore(record(r#"{"cuda.device": {"g0": "1"}}"#)),
        setup.restore(record(r#"{"cuda.device": {"g0": "1"}}"#)),
    ];
    let gone = setup.restore(record(r#"{"cuda.device": {"g1": "1", "g7": "1"}, "npu.device": {"n0": "1"}}"#));
    let excess: Vec<_> = setup
        .excess()
        .into_iter()
        .map(|excess| (excess.device.to_string(), excess.held, excess.offered))
        .collect();
    let (zero, one) = (Amount::ZERO, Amount::ONE);
    assert_eq!(
        excess,
        [
            ("g0".into(), 2.into(), one),
            ("g1".into(), one, zero),
            ("g7".into(), one, zero),
            ("n0".into(), one, zero)
        ]
    );
    let pool = setup.open();
    assert_eq!(pool.held().total("cuda.device"), 4.into());
    let [first, second] = twice;
    drop((first, gone));
    assert_eq!(take(&pool, &want([("cuda.device", "1")])).unwrap_err().allocatable, zero);
    drop(second);
    assert_eq!(ids(&take(&pool, &want([("cuda.device", "1")])).unwrap(), "cuda.device"), ["g0"]);
}

#[test]
fn any_amount_that_was_recorded_goes_as_it_came() {
    let family = Family::new("cuda", vec![SlotDevices::discrete("cuda.device", vec![Device::new("g0", 4)])]);
    let setup = PoolSetup::new(vec![family], PoolOptions::default());
    let restored = |amount: &str| {
        let mut held = Holding::new();
        held.insert("cuda.device", "g0", amount.parse::<Amount>().unwrap());
        setup.restore(held)
    };
    let (one, endless, nothing, below) = (restored("1"), restored("inf"), restored("0"), restored("-1"));
    let pool = setup.open();
    assert!(!one.is_offered() && !endless.is_offered());
    drop((endless, nothing, below));
    assert!(one.is_offered());
    assert_eq!(pool.held().amount("cuda.device", "g0"), Amount::ONE);
    assert_eq!(pool.free().get("cuda.device"), 3.into());
    drop(one);
    assert!(pool.held().is_empty());
}

#[test]
fn excluded_devices_are_not_given() {
    let cores = vec![Device::new("0", 1), Device::new("1", 1).excluded(), Device::new("2", 1)];
    let family = Family::new("cpu", vec![SlotDevices::discrete("cpu", cores)]);
    let pool = PoolSetup::new(vec![family], PoolOptions::default()).open();
    assert_eq!(pool.capacity(), want([("cpu", "2")]));
    assert_eq!(take(&pool, &want([("cpu", "3")])).unwrap_err().allocatable, 2.into());
    assert_eq!(ids(&take(&pool, &want([("cpu", "2")])).unwrap(), "cpu"), ["0", "2"]);
}

#[test]
fn senseless_requests_are_named() {
    let shares = (0..2).map(|n| Device::new(format!("s{n}"), 1)).collect();
    let slots = vec![
        SlotDevices::discrete("cuda.device", devices("g", 2, 1, 2)),
        SlotDevices::fractional("cuda.shares", Fraction::default(), shares),
        SlotDevices::unique("cuda.device:1g.5gb-mig", vec![Device::new("m0", 1)]),
    ];
    let family = Family::new("cuda", slots).exclusive(["cuda.device", "cuda.shares", "cuda.device:*-mig"]);
    let pool = PoolSetup::new(vec![family], PoolOptions::default()).open();
    let refused = |slot: &str, amount: &str| take(&pool, &want([(slot, amount)])).unwrap_err().refused;
    for amount in ["-1", "Infinity", "1.5"] {
        assert_eq!(refused("cuda.device", amount), Refused::InvalidAmount, "{amount}");
    }
    assert_eq!(refused("cuda.device:1g.5gb-mig", "2"), Refused::InvalidAmount);
    assert_eq!(refused("cuda.shares", "0.009"), Refused::BelowQuantum);
    assert_eq!(refused("cuda.shares", "79228162514264337593543950335"), Refused::Insufficient);
    assert_eq!(refused("cuda.device", "79228162514264337593543950335"), Refused::Insufficient);
    assert_eq!(refused("npu.device", "1"), Refused::UnknownSlot);
    assert!(take(&pool, &want([("npu.device", "0")])).unwrap().held().is_empty());
    for other in ["cuda.shares", "cuda.device:1g.5gb-mig"] {
        let error = take(&pool, &want([("cuda.device", "1"), (other, "1")])).unwrap_err();
        assert_eq!(error.refused, Refused::ExcludedBy(other.into()));
        assert_eq!(Error::from(error).kind(), ErrorKind::Invalid);
    }
    let full = take(&pool, &want([("cuda.shares", "2.01")])).unwrap_err();
    assert_eq!(
        full.to_string(),
        "not enough of a resource is left on the agent (slot: cuda.shares, requested: 2.01, allocatable: 2)"
    );
    assert_eq!(Error::from(full).kind(), ErrorKind::Conflict);
}

#[test]
fn a_request_is_rounded_before_it_is_split() {
    let shares = (0..3).map(|n| Device::new(format!("s{n}"), 1)).collect();
    let fraction = Fraction::new(Decimal::new(1, 1)).unwrap();
    let family = Family::new("cuda", vec![SlotDevices::fractional("cuda.shares", fraction, shares)]);
    let pool = PoolSetup::new(vec![family], PoolOptions::default()).open();
    // A-16: shares of 0.47, rounded one by one, would add up to 1.2.
    let held = take(&pool, &want([("cuda.shares", "1.41")])).unwrap();
    assert_eq!(held.held().total("cuda.shares"), "1.4".parse().unwrap());
}

#[test]
fn the_guard_gives_equal_shares_of_fewest_devices_or_nothing() {
    let pool = |strategy| {
        let shares = (0..4).map(|n| Device::new(format!("s{n}"), 1)).collect();
        let slot = SlotDevices::fractional("cuda.shares", Fraction::default().unfragmented(), shares);
        let family = Family::new("cuda", vec![slot.strategy(strategy)]);
        PoolSetup::new(vec![family], PoolOptions::default()).open()
    };
    for strategy in [Strategy::Fill, Strategy::Evenly] {
        let pool = pool(strategy);
        let held = take(&pool, &want([("cuda.shares", "2.5")])).unwrap();
        let shares: Vec<_> =
            held.held().devices("cuda.shares").map(|(_, amount)| amount.to_string()).collect();
        assert_eq!(shares, ["0.84", "0.83", "0.83"], "{strategy:?}");
        assert_eq!(take(&pool, &want([("cuda.shares", "1.1")])).unwrap_err().refused, Refused::Fragmented);
    }
    // Three devices are more even than two, by less than a quantum.
    for (strategy, count) in [(Strategy::Fill, 2), (Strategy::Evenly, 3)] {
        let held = take(&pool(strategy), &want([("cuda.shares", "1.05")])).unwrap();
        assert_eq!(held.held().devices("cuda.shares").count(), count, "{strategy:?}");
    }
}

#[test]
fn one_node_is_chosen_that_has_room_for_all_families() {
    let pool = gpus_and_cores(single_node()).open();
    let _cores_of_0 = take(&pool, &want([("cpu", "3")])).unwrap();
    let _cores_of_1 = take(&pool, &want([("cpu", "2")])).unwrap();
    // Both nodes have idle GPUs, node 0 comes first, but only node 1 has two cores left.
    let held = take(&pool, &want([("cuda.device", "1"), ("cpu", "2")])).unwrap();
    assert_eq!((ids(&held, "cuda.device"), held.nodes()), (vec!["g2".into()], [1].into()));
}

#[test]
fn a_hint_leads_every_family_near_its_holder() {
    for options in [single_node(), PoolOptions::default()] {
        let pool = gpus_and_cores(options).open();
        let near = AffinityHint { nodes: [1].into() };
        let held = pool.allocate(&want([("cuda.device", "2"), ("cpu", "5")]), &near).unwrap();
        assert_eq!(ids(&held, "cuda.device"), ["g2", "g3"]);
        assert_eq!(ids(&held, "cpu"), ["c0", "c4", "c5", "c6", "c7"], "the near ones are used up first");
    }
}

#[test]
fn near_cores_win_over_emptier_far_ones() {
    let families = vec![
        Family::new("cuda", vec![SlotDevices::discrete("cuda.device", devices("g", 2, 1, 1))]),
        Family::new("cpu", vec![SlotDevices::discrete("cpu", devices("c", 4, 2, 2))]),
    ];
    let setup = PoolSetup::new(families, PoolOptions::default());
    let _busy = setup.restore(
        serde_json::from_str(r#"{"cpu": {"c0": "1", "c1": "1"}, "cuda.device": {"g1": "1"}}"#).unwrap(),
    );
    let held = take(&setup.open(), &want([("cuda.device", "1"), ("cpu", "2")])).unwrap();
    assert_eq!((held.nodes(), ids(&held, "cpu")), ([0].into(), vec!["c0".into(), "c1".into()]));
}

#[test]
fn one_island_is_enough_when_it_can_be() {
    let gpus = (0..8).map(|n| Device::new(format!("g{n}"), 1).on_node(n / 4).in_island(n / 2)).collect();
    let family = Family::new("cuda", vec![SlotDevices::discrete("cuda.device", gpus)]);
    let pool = PoolSetup::new(vec![family], single_node()).open();
    let one = take(&pool, &want([("cuda.device", "1")])).unwrap();
    let two = take(&pool, &want([("cuda.device", "2")])).unwrap();
    let four = take(&pool, &want([("cuda.device", "3")])).unwrap();
    assert_eq!(ids(&one, "cuda.device"), ["g0"]);
    assert_eq!(ids(&two, "cuda.device"), ["g4", "g5"], "the idle node first");
    assert_eq!(ids(&four, "cuda.device"), ["g1", "g2", "g3"], "a node, since no island has three");
}

#[test]
fn resource_text_is_read_back_exactly() {
    let pool = gpus_and_cores(PoolOptions::default()).open();
    let held = take(&pool, &want([("cuda.device", "1"), ("cpu", "2"), ("mem", "1073741825")])).unwrap();
    let lines = held.held().resource_lines();
    assert_eq!(lines, ["CPU_SHARES=c0:1,c1:1", "CUDA.DEVICE_SHARES=g0:1", "MEM_SHARES=root:1073741825"]);
    let known = ["cpu", "mem", "cuda.device"].map(Into::into);
    let text =
        format!("CID=abc\nSLOTS={{}}\n{}\nNPU.DEVICE_SHARES=n0:1\nCPU_SHARES=c7:x\n", lines.join("\n"));
    let read = ResourceText::parse(&text, &known);
    assert_eq!(read.held, *held.held());
    assert_eq!(read.ignored, ["NPU.DEVICE_SHARES=n0:1", "c7:x"]);
    let sizes = ResourceText::parse("MEM_SHARES=root:1.5g\n", &known);
    assert_eq!(sizes.held.total("mem"), (3_u64 << 29).into());
}
