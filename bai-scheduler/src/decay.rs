//! How past usage fades: half of it with every half life, in whole numbers, so that every machine gets the same result.

/// Bits behind the point of a weight.
const POINT: u32 = 32;

/// 2^(-1/2), 2^(-1/4), … with [`POINT`] bits behind the point.
const ROOTS: [u64; 16] = [
    3_037_000_500,
    3_611_622_603,
    3_938_502_376,
    4_112_874_773,
    4_202_935_003,
    4_248_701_965,
    4_271_771_996,
    4_283_353_945,
    4_289_156_690,
    4_292_061_010,
    4_293_513_907,
    4_294_240_540,
    4_294_603_903,
    4_294_785_595,
    4_294_876_445,
    4_294_921_870,
];

/// What is left of `amount` after `age`, both times in the same unit. Without a half life nothing fades; usage of the future
/// counts in full.
///
/// ```
/// use bai_scheduler::decay::faded;
///
/// assert_eq!(faded(1_000_000, 7, Some(7)), 500_000);
/// assert_eq!(faded(1_000_000, 0, Some(7)), 1_000_000);
/// assert_eq!(faded(1_000_000, 7, None), 1_000_000);
/// ```
pub fn faded(amount: u128, age: i64, half_life: Option<i64>) -> u128 {
    let Some(half_life) = half_life.filter(|half_life| *half_life > 0) else { return amount };
    let age = age.max(0);
    let whole = u32::try_from(age / half_life).unwrap_or(u32::MAX);
    if whole >= 127 {
        return 0;
    }
    let weight = u128::from(fraction_weight(age % half_life, half_life));
    // Amounts are far below 2^96; the product of a larger one would not fit.
    ((amount.min(u128::MAX >> POINT) * weight) >> POINT) >> whole
}

/// 2^(-part/whole) for a part below the whole.
fn fraction_weight(part: i64, whole: i64) -> u64 {
    let bits = u32::try_from(ROOTS.len()).unwrap_or(0);
    let fraction = (i128::from(part) << bits) / i128::from(whole);
    let mut weight = 1_u128 << POINT;
    for (at, root) in ROOTS.iter().enumerate() {
        if fraction >> (ROOTS.len() - 1 - at) & 1 == 1 {
            weight = (weight * u128::from(*root)) >> POINT;
        }
    }
    u64::try_from(weight).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn it_agrees_with_the_real_function() {
        for age in 0..2_000_i64 {
            let exact = 2_f64.powf(-(age as f64) / 97.0) * 1e12;
            let ours = faded(1_000_000_000_000, age, Some(97)) as f64;
            assert!((ours - exact).abs() <= exact * 2e-5 + 1.0, "{age}: {ours} {exact}");
        }
    }

    #[test]
    fn the_roots_are_what_they_say() {
        for (at, root) in ROOTS.iter().enumerate() {
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let exact =
                (2_f64.powf(-0.5_f64.powi(i32::try_from(at).unwrap() + 1)) * 2_f64.powi(32)).round() as u64;
            assert_eq!(*root, exact, "root {at}");
        }
    }

    #[test]
    fn older_is_never_more() {
        let mut last = u128::MAX;
        for age in 0..10_000 {
            let now = faded(123_456_789, age, Some(333));
            assert!(now <= last);
            last = now;
        }
        assert_eq!(faded(u128::MAX, i64::MAX, Some(1)), 0);
    }
}
