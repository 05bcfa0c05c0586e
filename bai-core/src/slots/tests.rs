//! The recorded behaviour of both versions, and our own rules on top.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const VERSIONS: [(&str, InputRules, TextForm); 2] =
    [("23.09.10", InputRules::V23_09_10, TextForm::Exact), ("26.8", InputRules::V26_8, TextForm::Rounded)];

fn vectors(version: &str, section: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../../testdata/resource-slot-vectors.json")).unwrap();
    all[version][section].clone()
}

fn slots(value: &Value) -> ResourceSlots {
    serde_json::from_value(value.clone()).unwrap()
}

fn texts(slots: &ResourceSlots, form: TextForm) -> Value {
    slots.iter().map(|(name, amount)| (name.to_string(), Value::from(amount.to_text(form)))).collect()
}

fn known() -> SlotTypes {
    serde_json::from_value(vectors("26.8", "user_input_with_known_slots")["known"].clone()).unwrap()
}

#[test]
fn single_amounts_as_recorded() {
    for (version, rules, form) in VERSIONS {
        let cases = vectors(version, "user_input");
        assert_eq!(cases.as_array().unwrap().len(), 23);
        for case in cases.as_array().unwrap() {
            let slot = case["slot"].as_str().unwrap();
            let read = SlotTypes::new().parse_amount(slot, &case["text"], rules);
            let expected = case.get("ok").map(|ok| ok[slot].as_str().unwrap().to_owned());
            assert_eq!(read.ok().map(|amount| amount.to_text(form)), expected, "{version} {case}");
        }
    }
}

#[test]
fn whole_inputs_as_recorded() {
    for (version, rules, form) in VERSIONS {
        for case in vectors(version, "user_input_with_known_slots")["cases"].as_array().unwrap() {
            let read = known().parse_input(case["input"].as_object().unwrap(), rules);
            assert_eq!(
                read.ok().map(|slots| texts(&slots, form)).as_ref(),
                case.get("ok"),
                "{version} {case}"
            );
        }
    }
}

#[test]
fn policies_as_recorded() {
    for (version, _, form) in VERSIONS {
        for case in vectors(version, "policy").as_array().unwrap() {
            let total = case["total_resource_slots"].as_object().unwrap();
            let default = serde_json::from_value(case["default_for_unspecified"].clone()).unwrap();
            let read = known().parse_policy(total, default).unwrap();
            assert_eq!(texts(&read, form), case["ok"], "{version} {case}");
            let stored = total.iter().filter(|(_, value)| !value.is_null());
            let stored = slots(&stored.map(|(k, v)| (k.clone(), v.clone())).collect());
            assert_eq!(known().complete(&stored, default), read, "{version} {case}");
        }
    }
}

#[test]
fn comparison_and_arithmetic_as_recorded() {
    for (version, _, form) in VERSIONS {
        let cases = vectors(version, "compare");
        assert_eq!(cases.as_array().unwrap().len(), 10);
        for case in cases.as_array().unwrap() {
            let (left, right) = (slots(&case["left"]), slots(&case["right"]));
            assert_eq!(json!(left == right), case["eq"], "{case}");
            assert_eq!(json!(left <= right), case["le"], "{case}");
            assert_eq!(json!(left < right), case["lt"], "{case}");
            assert_eq!(json!(left >= right), case["ge"], "{case}");
            assert_eq!(json!(left > right), case["gt"], "{case}");
            assert_eq!(json!(left.fits_in(&right)), case["le"], "{case}");
            let sum = left.checked_add(&right).ok().map(|sum| texts(&sum, form));
            assert_eq!(sum.as_ref(), case["sum"].get("ok"), "{case}");
            let difference = left.checked_sub(&right).ok().map(|difference| texts(&difference, form));
            assert_eq!(difference.as_ref(), case["diff"].get("ok"), "{case}");
        }
    }
}

#[test]
fn reply_texts_as_recorded() {
    for (version, _, form) in VERSIONS {
        for case in vectors(version, "json_text").as_array().unwrap() {
            let amount: Amount = case["amount"].as_str().unwrap().parse().unwrap();
            assert_eq!(amount.to_text(form), case["text"], "{version} {case}");
        }
        for case in vectors(version, "humanized").as_array().unwrap() {
            let amount: Amount = case["amount"].as_str().unwrap().parse().unwrap();
            let text = SlotTypes::new().humanize(case["slot"].as_str().unwrap(), amount, form);
            assert_eq!(text, case["ok"], "{version} {case}");
        }
    }
}

#[test]
fn our_requests_are_finite_non_negative_and_bounded() {
    let mut known = known();
    known.insert("cuda.device:1g.5gb", SlotType::Unique);
    for (input, message) in [
        (json!({"cpu": "-1"}), "the amount must not be negative"),
        (json!({"cpu": -1}), "the amount must not be negative"),
        (json!({"mem": "-1g"}), "the amount must not be negative"),
        (json!({"cpu": "Infinity"}), "the amount must be finite"),
        (json!({"mem": "inf"}), "the amount must be finite"),
        (json!({"cpu": "NaN"}), "not a number"),
        (json!({"cpu": "1e19"}), "the amount is too large"),
        (json!({"mem": "1y"}), "the amount is too large"),
        (json!({"cpu": "1e99"}), "number out of range"),
        (json!({"cpu": "1e999999999999"}), "number out of range"),
        (json!({"cpu": "99999999999999999999999999999999999999"}), "number out of range"),
        (json!({"cpu": true}), "expected a number or its text"),
        (json!({"mem": "1.5"}), "not a size in bytes"),
        (json!({"mem": 1.5}), "not a size in bytes"),
        (json!({"gpu": 1}), "unknown resource slot"),
        (json!({"shmem": "1g"}), "shmem is not a slot: give it in resource_opts"),
        (json!({"cuda.device:1g.5gb": 2}), "the amount must be 0 or 1"),
    ] {
        let error = known.parse_input(input.as_object().unwrap(), InputRules::REQUEST).unwrap_err();
        assert_eq!(error.message(), message, "{input}");
        assert_eq!(error.context().last().unwrap().0, "slot", "{input}");
    }
    let input = json!({"cpu": "0.0", "mem": 0, "gpu": 0, "cuda.device:1g.5gb": "1", "cuda.mem": -0.0});
    let read = known.parse_input(input.as_object().unwrap(), InputRules::REQUEST).unwrap();
    assert_eq!(read, slots(&json!({"cuda.device:1g.5gb": 1})));
    assert_eq!(read.len(), known.len());
}

#[test]
fn json_form() {
    let read =
        slots(&json!({"mem": "1g", "cpu": 2, "cuda.shares": 0.5, "x": null, "y": "Infinity", "z": 1.50e3}));
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        r#"{"cpu":"2","cuda.shares":"0.5","mem":"1073741824","y":"Infinity","z":"1500"}"#
    );
    for bad in
        [json!({"cpu": "NaN"}), json!({"cpu": "1g"}), json!({"cpu": []}), json!([]), json!({"mem": "x"})]
    {
        assert!(serde_json::from_value::<ResourceSlots>(bad.clone()).is_err(), "{bad}");
    }
    let types = json!({"cpu": "count", "cuda.device:x": "unique", "mem": "bytes"});
    let known: SlotTypes = serde_json::from_value(types.clone()).unwrap();
    assert_eq!(serde_json::to_value(known).unwrap(), types);
}

#[test]
fn in_place_arithmetic_stops_at_the_ends() {
    let mut left = slots(&json!({"cpu": 4, "mem": "Infinity"}));
    left.take(&slots(&json!({"cpu": 5, "mem": 1, "gpu": 1})));
    assert_eq!(left, slots(&json!({"mem": "Infinity"})));
    left.add(&slots(&json!({"cpu": 1})));
    assert_eq!(left.min_with(&slots(&json!({"cpu": 2, "mem": 3}))), slots(&json!({"cpu": 1, "mem": 3})));
    assert_eq!(slots(&json!({"cpu": 2})).checked_mul(3).unwrap(), slots(&json!({"cpu": 6})));
    assert_eq!(slots(&json!({"cpu": "1.50", "mem": 0})).normalized().to_string(), "cpu=1.5");
    let large = slots(&json!({"cpu": "7e28"}));
    assert!(large.checked_add(&large).is_err() && large.checked_mul(2).is_err());
    assert_eq!(Amount::Infinity.saturating_sub(Amount::Infinity), Amount::ZERO);
    assert_eq!([Amount::ONE, Amount::Infinity].into_iter().sum::<Amount>(), Amount::Infinity);
}

#[test]
fn names_the_slot_that_does_not_fit() {
    let asked = slots(&json!({"cpu": 1, "mem": 9}));
    assert_eq!(asked.first_excess(&slots(&json!({"cpu": 1, "mem": 8}))).unwrap().as_str(), "mem");
    assert_eq!(asked.first_excess(&asked), None);
    // What is left may be negative when an agent has lost capacity: nothing fits, not even nothing.
    assert!(!ResourceSlots::new().fits_in(&slots(&json!({"cpu": -1}))));
}

#[test]
fn shares_and_devices_exclude_each_other() {
    assert!(slots(&json!({"cuda.shares": 1, "cuda.device": 1})).check_exclusive().is_err());
    assert!(slots(&json!({"cuda.shares": 1, "cuda.device": 0})).check_exclusive().is_ok());
    assert!(slots(&json!({"cuda.shares": 0, "cuda.device": 1})).check_exclusive().is_ok());
    assert!(slots(&json!({"cuda.shares": 1, "rocm.device": 1})).check_exclusive().is_ok());
}

#[test]
fn small_vocabulary() {
    assert_eq!(SlotName::from("cuda.shares").family(), "cuda");
    assert_eq!(SlotName::from("cpu").family(), "cpu");
    for slot_type in [SlotType::Count, SlotType::Bytes, SlotType::Unique, SlotType::Unified] {
        assert_eq!(slot_type.as_str().parse::<SlotType>().unwrap(), slot_type);
    }
    assert_eq!("limited".parse::<DefaultForUnspecified>().unwrap(), DefaultForUnspecified::Limited);
    assert!("none".parse::<DefaultForUnspecified>().is_err());
}

fn any_slots() -> impl Strategy<Value = ResourceSlots> {
    let amount = prop_oneof![9 => (0_i64..10_000, 0_u32..4).prop_map(|(n, scale)| Amount::from(rust_decimal::Decimal::new(n, scale))), 1 => Just(Amount::Infinity)];
    prop::collection::btree_map("[a-d]", amount, 0..4).prop_map(ResourceSlots::from_iter)
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC{0,40}", name in "cpu|mem") {
        let _ = known().parse_amount(&name, &Value::from(text), InputRules::REQUEST);
    }

    #[test]
    fn numbers_never_panic(text in "[-+]?[0-9._]{0,60}([eE][-+]?[0-9]{0,12})?") {
        let _ = text.parse::<Amount>().map(|amount| (amount.to_text(TextForm::Rounded), amount.to_f64()));
        let _ = known().parse_amount("cpu", &Value::from(text), InputRules::V23_09_10);
    }

    #[test]
    fn addition_keeps_order_and_can_be_undone(a in any_slots(), b in any_slots()) {
        let sum = a.checked_add(&b).unwrap();
        prop_assert!(a <= sum && b.fits_in(&sum));
        prop_assert_eq!(&sum, &b.checked_add(&a).unwrap());
        if b.iter().all(|(_, amount)| !amount.is_infinite()) {
            prop_assert_eq!(sum.checked_sub(&b).unwrap(), a);
        }
    }

    #[test]
    fn json_round_trips(a in any_slots()) {
        let text = serde_json::to_string(&a).unwrap();
        let back: ResourceSlots = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }

    #[test]
    fn equal_slots_have_one_normal_text(a in any_slots(), b in any_slots()) {
        prop_assert_eq!(a == b, a.normalized().to_string() == b.normalized().to_string());
    }
}
