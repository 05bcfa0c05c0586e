//! `alloc-map-vectors.json`: every case as recorded under [`Quirks::V26_8`], and the exact list of cases that our own
//! rules decide differently, by weakness of the agent specification, section 13.

use std::collections::BTreeSet;

use bai_core::slots::{Amount, ResourceSlots};
use serde_json::Value;

use crate::device::{
    AffinityHint, AffinityPolicy, Allocation, Device, DevicePool, Family, Fraction, Holding, PoolOptions,
    PoolSetup, Quirks, Sharing, SlotDevices, Strategy,
};

fn vectors(section: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../../../testdata/alloc-map-vectors.json")).unwrap();
    all[section].as_array().unwrap().clone()
}

fn amount(text: &Value) -> Amount {
    text.as_str().unwrap().parse().unwrap()
}

fn slots(value: &Value) -> ResourceSlots {
    serde_json::from_value(value.clone()).unwrap()
}

fn holding(value: &Value) -> Holding {
    serde_json::from_value(value.clone()).unwrap()
}

fn fraction(case: &Value) -> Fraction {
    let mut fraction = Fraction::new(amount(&case["quantum_size"]).finite().unwrap()).unwrap();
    if let Some(least) = case.get("min_memory") {
        fraction = fraction.useless_below(amount(least).finite().unwrap());
    }
    if case.get("allow_fragmentation") == Some(&false.into()) {
        fraction = fraction.unfragmented();
    }
    fraction
}

fn slot_devices(case: &Value) -> Vec<SlotDevices> {
    let strategy = if case["strategy"] == "FILL" { Strategy::Fill } else { Strategy::Evenly };
    let mut all: Vec<SlotDevices> = Vec::new();
    for device in case["devices"].as_array().unwrap() {
        let sharing = match (case["map"].as_str().unwrap(), device["type"].as_str().unwrap()) {
            (_, "unique") => Sharing::Unique,
            ("discrete", _) => Sharing::Discrete,
            _ => Sharing::Fractional(fraction(case)),
        };
        let slot = device["slot"].as_str().unwrap();
        let device = Device::new(device["id"].as_str().unwrap(), amount(&device["amount"]));
        match all.iter_mut().find(|known| known.slot.as_str() == slot) {
            Some(known) => known.devices.push(device),
            None => all.push(SlotDevices { slot: slot.into(), sharing, strategy, devices: vec![device] }),
        }
    }
    all
}

/// Runs a case and returns the number of the first step that goes differently, with what happened.
fn replay(case: &Value, quirks: Quirks) -> Result<(), (usize, String)> {
    let patterns = case.get("exclusive_slots").and_then(Value::as_array).cloned().unwrap_or_default();
    let family = Family::new("test", slot_devices(case))
        .exclusive(patterns.iter().map(|pattern| pattern.as_str().unwrap()));
    let setup = PoolSetup::new(vec![family], PoolOptions { quirks, ..PoolOptions::default() });
    let steps = case["steps"].as_array().unwrap();
    let restored: Vec<Allocation> = steps
        .iter()
        .take_while(|step| step["op"] == "apply")
        .map(|step| setup.restore(holding(&step["alloc"])))
        .collect();
    let pool = setup.open();
    let mut live: Vec<Option<Allocation>> = restored.into_iter().map(Some).collect();
    for (number, step) in steps.iter().enumerate() {
        let outcome = match step["op"].as_str().unwrap() {
            "apply" => Value::Null,
            "free" => {
                let step = usize::try_from(step["step"].as_u64().unwrap()).unwrap();
                assert!(live[step].take().is_some(), "freed twice");
                live.push(None);
                Value::Null
            }
            "alloc" => match pool.allocate(&slots(&step["slots"]), &AffinityHint::default()) {
                Ok(allocation) => {
                    let given = serde_json::to_value(&allocation).unwrap();
                    live.push(Some(allocation));
                    given
                }
                Err(error) => {
                    live.push(None);
                    error.refused.name().into()
                }
            },
            other => panic!("unknown operation {other}"),
        };
        let expected = step.get("result").or_else(|| step.get("error")).cloned().unwrap_or_default();
        let state = state_after(&pool, step);
        if outcome != expected || state != step["state_after"] {
            return Err((number, format!("{outcome} instead of {expected}, {state} held")));
        }
    }
    Ok(())
}

/// What is held, for each device that the step names.
fn state_after(pool: &DevicePool, step: &Value) -> Value {
    let held = pool.held();
    let slot = |(slot, devices): (&String, &Value)| {
        let device = |device: &String| {
            let amount = held.amount(slot, device).normalized().to_string();
            (device.clone(), Value::from(amount))
        };
        (slot.clone(), devices.as_object().unwrap().keys().map(device).collect::<Value>())
    };
    step["state_after"].as_object().unwrap().iter().map(slot).collect()
}

#[test]
fn every_case_goes_as_recorded() {
    let cases = vectors("allocation_maps");
    assert_eq!(cases.len(), 136);
    for (number, case) in cases.iter().enumerate() {
        assert_eq!(replay(case, Quirks::V26_8), Ok(()), "case {number}: {}", case["title"]);
    }
}

/// Cases that go differently under `quirks`.
fn differing(quirks: Quirks) -> Vec<usize> {
    let cases = vectors("allocation_maps");
    (0..cases.len()).filter(|&number| replay(&cases[number], quirks).is_err()).collect()
}

/// A-15, the requirement: fractions of discrete slots are refused.
const A15: [usize; 2] = [6, 14];
/// A-16, the requirement: the request is rounded to the quantum first, then exactly that is given.
const A16: [usize; 20] = [23, 40, 43, 47, 48, 49, 54, 56, 60, 63, 66, 70, 72, 79, 82, 83, 87, 89, 90, 95];
/// A-17, the requirement: what the guard has found is what is given (together with A-16). In case 68 the recorded guard
/// refuses 2 of 1, 0.75 and 0.5 (quantum 0.25), which can be given as 0.75, 0.75 and 0.5.
const A17: [usize; 11] = [31, 57, 59, 62, 67, 68, 70, 74, 85, 86, 93];

#[test]
fn our_rules_change_these_cases_and_no_others() {
    let alone = |quirks: Quirks| differing(Quirks { fractions_of_discrete: false, ..quirks });
    assert_eq!(alone(Quirks::V26_8), A15);
    assert_eq!(differing(Quirks { round_each_share: false, ..Quirks::V26_8 }), A16);
    let all: BTreeSet<usize> = A15.into_iter().chain(A16).chain(A17).collect();
    assert_eq!(differing(Quirks::default()), all.into_iter().collect::<Vec<_>>());
}

#[test]
fn the_changed_cases_are_of_the_kind_that_their_weakness_says() {
    let cases = vectors("allocation_maps");
    let requests = |number: usize| {
        let steps = cases[number]["steps"].as_array().unwrap().iter();
        let amounts = steps
            .filter_map(|step| step.get("slots"))
            .map(|slots| amount(slots.as_object().unwrap().values().next().unwrap()));
        amounts.map(|amount| amount.finite().unwrap()).collect::<Vec<_>>()
    };
    for number in A15 {
        assert_eq!(cases[number]["map"], "discrete");
        assert!(requests(number).iter().any(|amount| !amount.fract().is_zero()), "{number}");
    }
    for number in A16 {
        let quantum = amount(&cases[number]["quantum_size"]).finite().unwrap();
        assert!(requests(number).iter().any(|amount| !(amount % quantum).is_zero()), "{number}");
    }
    for number in A17 {
        assert_eq!(
            (&cases[number]["strategy"], &cases[number]["allow_fragmentation"]),
            (&"FILL".into(), &false.into())
        );
    }
}

fn numa_families(case: &Value) -> Vec<Family> {
    let device = |device: &Value| {
        let node = u32::try_from(device["numa_node"].as_u64().unwrap()).unwrap();
        Device::new(device["id"].as_str().unwrap(), amount(&device["amount"])).on_node(node)
    };
    let family = |family: &Value| {
        let devices = family["devices"].as_array().unwrap().iter().map(device).collect();
        let slot = SlotDevices::discrete(family["slot"].as_str().unwrap(), devices);
        Family::new(family["device_name"].as_str().unwrap(), vec![slot])
    };
    case["families"].as_array().unwrap().iter().map(family).collect()
}

#[test]
fn kernels_go_to_numa_nodes_as_recorded() {
    let cases = vectors("numa_affinity");
    assert_eq!(cases.len(), 12);
    for (number, case) in cases.iter().enumerate() {
        let affinity = match case["policy"].as_str().unwrap() {
            "INTERLEAVED" => AffinityPolicy::Interleaved,
            "PREFER_SINGLE_NODE" => AffinityPolicy::PreferSingleNode,
            other => panic!("unknown policy {other}"),
        };
        let setup = PoolSetup::new(numa_families(case), PoolOptions { affinity, ..PoolOptions::default() });
        let _earlier = setup.restore(holding(&case["preset"]));
        let pool = setup.open();
        let mut live = Vec::new();
        for kernel in case["kernels"].as_array().unwrap() {
            let given = pool.allocate(&slots(&kernel["request"]), &AffinityHint::default());
            let expected = &kernel["result"];
            match given {
                Ok(allocation) => {
                    assert_eq!(*allocation.held(), holding(expected), "case {number}: {kernel}");
                    live.push(allocation);
                }
                Err(error) => {
                    let slot = error.slot.as_str();
                    assert_eq!(expected[slot]["error"], error.refused.name(), "case {number}: {kernel}");
                }
            }
        }
    }
}
