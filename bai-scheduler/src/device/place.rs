//! One request for one slot.

use bai_core::slots::Amount;
use rust_decimal::Decimal;
use rust_decimal::prelude::{FromPrimitive, ToPrimitive};

use super::error::Refused;
use super::model::{Device, Fraction, Sharing, SlotDevices, Strategy};
use super::quirks::Quirks;
use super::split::{self, Even};

/// Devices in the order in which they are preferred, in tiers: whole units come from a later tier only when the earlier
/// ones are used up.
pub(super) type Tiers = Vec<Vec<usize>>;

/// The devices of a slot as they are now.
#[derive(Debug)]
pub(super) struct Room<'a> {
    pub(super) slot: &'a SlotDevices,
    /// What is held of each device.
    pub(super) used: Vec<Amount>,
    pub(super) quirks: Quirks,
}

/// A request in whole numbers of a unit.
#[derive(Debug, Clone, Copy)]
struct Demand {
    units: u128,
    unit: Decimal,
}

impl Room<'_> {
    pub(super) fn devices(&self) -> &[Device] {
        &self.slot.devices
    }

    /// What is left of a device.
    pub(super) fn free(&self, device: usize) -> Amount {
        self.slot.devices[device].offer().saturating_sub(self.used[device])
    }

    /// What is left of all devices, in parts that can be given.
    pub(super) fn allocatable(&self) -> Amount {
        let unit = match self.slot.sharing {
            Sharing::Fractional(fraction) => fraction.quantum,
            Sharing::Discrete | Sharing::Unique => Decimal::ONE,
        };
        (0..self.used.len()).map(|device| amount(units(self.free(device), unit), unit)).sum()
    }

    /// What to take of which device: the first of the `choices` that has enough decides.
    pub(super) fn plan(&self, wanted: Amount, choices: &[Tiers]) -> Result<Vec<(usize, Amount)>, Refused> {
        let demand = self.demand(wanted)?;
        let mut refused = Refused::Insufficient;
        for tiers in choices {
            match self.take(demand, tiers) {
                Ok(taken) => return self.amounts(demand, taken),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn demand(&self, wanted: Amount) -> Result<Demand, Refused> {
        let number =
            wanted.finite().filter(|number| *number > Decimal::ZERO).ok_or(Refused::InvalidAmount)?;
        let (unit, number) = match self.slot.sharing {
            Sharing::Unique if wanted != Amount::ONE => return Err(Refused::InvalidAmount),
            Sharing::Discrete if !wanted.is_integer() => self.part_of_whole(number)?,
            Sharing::Unique | Sharing::Discrete => (Decimal::ONE, number),
            Sharing::Fractional(_) if self.quirks.round_each_share => (Decimal::new(1, 2), number),
            Sharing::Fractional(fraction) => (fraction.quantum, number),
        };
        match units(number.into(), unit) {
            0 => Err(Refused::BelowQuantum),
            MOST_UNITS.. => Err(Refused::Insufficient),
            units => Ok(Demand { units, unit }),
        }
    }

    /// What 26.8 makes of a fraction of a discrete slot.
    fn part_of_whole(&self, number: Decimal) -> Result<(Decimal, Decimal), Refused> {
        match self.slot.strategy {
            _ if !self.quirks.fractions_of_discrete => Err(Refused::InvalidAmount),
            Strategy::Evenly => Ok((Decimal::ONE, number.trunc())),
            Strategy::Fill => Ok((Decimal::new(1, 3), number)),
        }
    }

    fn take(&self, demand: Demand, tiers: &Tiers) -> Result<Vec<(usize, u128)>, Refused> {
        match self.slot.sharing {
            Sharing::Discrete | Sharing::Unique => self.take_whole(demand, tiers),
            Sharing::Fractional(fraction) => {
                let order = tiers.concat();
                let taken = self.take_parts(demand, fraction, &self.room_of(&order, demand.unit))?;
                Ok(order.into_iter().zip(taken).collect())
            }
        }
    }

    fn room_of(&self, order: &[usize], unit: Decimal) -> Vec<u128> {
        order.iter().map(|&device| units(self.free(device), unit)).collect()
    }

    fn take_whole(&self, demand: Demand, tiers: &Tiers) -> Result<Vec<(usize, u128)>, Refused> {
        let mut taken = Vec::new();
        let mut missing = demand.units;
        for tier in tiers {
            let free = self.room_of(tier, demand.unit);
            let shares = match self.slot.strategy {
                Strategy::Evenly => split::evenly(&free, missing),
                Strategy::Fill => split::fill(&free, missing),
            };
            missing -= shares.iter().sum::<u128>();
            taken.extend(tier.iter().copied().zip(shares));
        }
        if missing == 0 { Ok(taken) } else { Err(Refused::Insufficient) }
    }

    fn take_parts(&self, demand: Demand, fraction: Fraction, free: &[u128]) -> Result<Vec<u128>, Refused> {
        let Demand { units: wanted, unit } = demand;
        let even = Even { useless_below: units_up(fraction.useless_below, unit), ..Even::default() };
        if fraction.whole {
            let greatest =
                self.devices().iter().map(|device| units(device.offer(), unit)).max().unwrap_or_default();
            if wanted <= greatest {
                // One device must do; the strategies below then take one that does.
                if !free.iter().any(|free| *free >= wanted) {
                    return Err(Refused::Fragmented);
                }
            } else if self.quirks.guard_only_checks {
                let rounded = round_down(wanted, unit, fraction.quantum);
                if !split::has_equal_split(free, greatest, wanted, rounded) {
                    return Err(Refused::Fragmented);
                }
            } else {
                let fewest_first = self.slot.strategy == Strategy::Fill;
                let equal = Even { equal_only: true, fewest_first, ..even };
                return split::evenly_over_fewest(free, wanted, equal).ok_or(Refused::Fragmented);
            }
        }
        if free.iter().sum::<u128>() < wanted {
            return Err(Refused::Insufficient);
        }
        match self.slot.strategy {
            Strategy::Evenly => split::evenly_over_fewest(free, wanted, even).ok_or(Refused::Insufficient),
            Strategy::Fill => Ok(split::fill(free, wanted)),
        }
    }

    fn amounts(&self, demand: Demand, taken: Vec<(usize, u128)>) -> Result<Vec<(usize, Amount)>, Refused> {
        let round = |count| match self.slot.sharing {
            Sharing::Fractional(fraction) => round_down(count, demand.unit, fraction.quantum),
            Sharing::Discrete | Sharing::Unique => count,
        };
        let taken: Vec<_> = taken
            .into_iter()
            .map(|(device, count)| (device, amount(round(count), demand.unit)))
            .filter(|(_, amount)| !amount.is_zero())
            .collect();
        if taken.is_empty() { Err(Refused::BelowQuantum) } else { Ok(taken) }
    }
}

/// More than any node has. Keeps sums of units far away from the limits of the number types.
const MOST_UNITS: u128 = 1 << 80;

/// How many whole units there are in an amount.
fn units(amount: Amount, unit: Decimal) -> u128 {
    let Some(number) = amount.finite() else { return MOST_UNITS };
    // The remainder goes first: a quotient with a fraction could be rounded up to the next whole number.
    let whole = number.checked_rem(unit).and_then(|rest| (number - rest).checked_div(unit));
    whole.map_or(MOST_UNITS, |count| count.to_u128().unwrap_or(0)).min(MOST_UNITS)
}

/// How many units cover an amount.
fn units_up(number: Decimal, unit: Decimal) -> u128 {
    let whole = units(number.into(), unit);
    let exact = amount(whole, unit) == Amount::from(number);
    if exact { whole } else { whole + 1 }
}

fn amount(units: u128, unit: Decimal) -> Amount {
    let count = Decimal::from_u128(units).unwrap_or(Decimal::MAX);
    Amount::Finite(count.saturating_mul(unit).normalize())
}

/// The greatest number of units that is a whole number of quanta.
fn round_down(count: u128, unit: Decimal, quantum: Decimal) -> u128 {
    if unit == quantum {
        return count;
    }
    units(amount(units(amount(count, unit), quantum), quantum), unit)
}
