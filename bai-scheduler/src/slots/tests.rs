use bai_core::slots::Amount;

use super::*;

fn table() -> SlotTable {
    SlotTable::new([("cpu", SlotType::Count), ("mem", SlotType::Bytes)].into_iter().collect())
}

fn slots(amounts: &[(&str, &str)]) -> ResourceSlots {
    amounts.iter().map(|(name, amount)| (*name, amount.parse::<Amount>().unwrap())).collect()
}

#[test]
fn demands_are_rounded_up_and_supplies_down() {
    let mut table = table();
    let odd = slots(&[("cpu", "0.0015"), ("mem", "10.2")]);
    let (demand, supply) = (table.demand(&odd).unwrap(), table.supply(&odd).unwrap());
    let (cpu, mem) = (table.find("cpu").unwrap(), table.find("mem").unwrap());
    assert_eq!((demand.of(cpu), demand.of(mem)), (2, 11));
    assert_eq!((supply.of(cpu), supply.of(mem)), (1, 10));
}

#[test]
fn zero_is_nothing_and_negative_is_refused() {
    let mut table = table();
    assert!(table.demand(&slots(&[("cpu", "0"), ("cuda.device", "0")])).unwrap().is_zero());
    assert!(table.demand(&slots(&[("cpu", "-1")])).is_err());
    let mut amounts = table.demand(&slots(&[("cpu", "1")])).unwrap();
    amounts.take_all(&amounts.clone());
    assert!(amounts.is_zero());
}

#[test]
fn amounts_survive_the_way_in_and_out() {
    let mut table = table();
    for text in ["0.001", "1", "2.5", "123456", "Infinity"] {
        let amounts = table.supply(&slots(&[("cpu", text)])).unwrap();
        let cpu = table.find("cpu").unwrap();
        assert_eq!(table.amount(cpu, amounts.of(cpu)).to_string(), text);
    }
}

#[test]
fn a_slot_that_the_row_does_not_have_never_fits() {
    let mut table = table();
    let demand = table.demand(&slots(&[("rocm.device", "1")])).unwrap();
    assert!(!demand.fits(&[0]));
    assert!(Amounts::default().fits(&[]));
}

#[test]
fn family_names_stand_for_their_slots() {
    let mut table = table();
    let names = ["mem", "cpu", "zeta", "cuda.shares", "alpha"];
    let mut ids: Vec<_> = names.iter().map(|name| table.intern(&SlotName::from(*name)).unwrap()).collect();
    SlotOrder::default().sort(&mut ids, &table);
    let sorted: Vec<_> = ids.iter().map(|id| table.name(*id)).collect();
    assert_eq!(sorted, ["cuda.shares", "cpu", "mem", "alpha", "zeta"]);
}
