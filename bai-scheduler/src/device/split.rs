//! Spreading an amount over devices, in whole numbers of the smallest part.
//!
//! Each function takes what is left of each device, in the order in which devices are preferred, and returns what to
//! take of each. The order only breaks ties.

/// Indices by what is left, the most first; equals stay in order.
pub(super) fn by_room(free: &[u128]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..free.len()).filter(|&i| free[i] > 0).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(free[i]));
    order
}

/// The devices with most left first, each as far as it goes. Takes all there is when that is not enough.
pub(super) fn fill(free: &[u128], wanted: u128) -> Vec<u128> {
    let mut taken = vec![0; free.len()];
    let mut missing = wanted;
    for i in by_room(free) {
        taken[i] = free[i].min(missing);
        missing -= taken[i];
    }
    taken
}

/// The same number from each device as far as it has it; what does not divide goes to those with most left. Takes all
/// there is when that is not enough.
pub(super) fn evenly(free: &[u128], wanted: u128) -> Vec<u128> {
    let mut left = free.to_vec();
    let mut missing = wanted;
    loop {
        let order = by_room(&left);
        if missing == 0 || order.is_empty() {
            return free.iter().zip(left).map(|(before, after)| before - after).collect();
        }
        // A round with a share for everyone serves all in full or uses up a device; what does not divide waits for the
        // last round, which has one part each for some. So there is at most one round more than there are devices.
        let share = (missing / order.len() as u128).max(1);
        for i in order.into_iter().take(usize::try_from(missing).unwrap_or(usize::MAX)) {
            let part = share.min(left[i]);
            left[i] -= part;
            missing -= part;
        }
    }
}

/// How fractions may be split.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Even {
    /// Rests below this are useless.
    pub(super) useless_below: u128,
    /// Only splits into equal shares, up to one part, will do.
    pub(super) equal_only: bool,
    /// Fewer devices matter more than the last part of evenness.
    pub(super) fewest_first: bool,
}

/// All from the tightest device that is enough; else the most even split, of those the one over fewest devices, of those
/// the one that leaves least in useless rests. `None` when there is no such split.
pub(super) fn evenly_over_fewest(free: &[u128], wanted: u128, rules: Even) -> Option<Vec<u128>> {
    let order = by_room(free);
    let mut taken = vec![0; free.len()];
    if let Some(&tightest) = order.iter().rev().filter(|&&i| free[i] >= wanted).min_by_key(|&&i| free[i]) {
        taken[tightest] = wanted;
        return Some(taken);
    }
    let sorted: Vec<u128> = order.iter().map(|&i| free[i]).collect();
    let best = best_window(&sorted, wanted, rules)?;
    for (&i, share) in order[best.start..].iter().zip(best.shares) {
        taken[i] = share;
    }
    Some(taken)
}

/// Neighbours in the order of what is left, and what to take of each.
#[derive(Debug)]
struct Window {
    start: usize,
    shares: Vec<u128>,
    /// Difference of the greatest and the least share.
    spread: u128,
    /// Sum of the useless rests.
    waste: u128,
}

/// The best window of two or more devices. `sorted` is what is left, the most first.
fn best_window(sorted: &[u128], wanted: u128, rules: Even) -> Option<Window> {
    let mut best: Option<Window> = None;
    for size in 2..=sorted.len() {
        // More devices are worse unless they are more even, and this is as even as so many can be.
        let least = u128::from(!wanted.is_multiple_of(size as u128));
        if best.as_ref().is_some_and(|best| best.spread <= least) {
            continue;
        }
        for window in windows(sorted, size, wanted, rules) {
            let better = best.as_ref().is_none_or(|best| {
                let rank = |window: &Window| (window.spread, window.shares.len(), window.waste);
                rank(&window) <= rank(best)
            });
            if better {
                best = Some(window);
            }
        }
        // Nothing is more even than no spread, and more devices are worse.
        if best.as_ref().is_some_and(|best| best.spread == 0 || rules.fewest_first) {
            break;
        }
    }
    best
}

/// The windows of one size that have enough.
fn windows(sorted: &[u128], size: usize, wanted: u128, rules: Even) -> impl Iterator<Item = Window> {
    let enough = move |room: &&[u128]| room.iter().sum::<u128>() >= wanted;
    // Windows only get poorer from here on.
    sorted.windows(size).take_while(enough).enumerate().filter_map(move |(start, room)| {
        let shares = share_out(room, wanted);
        let spread = shares.iter().max()? - shares.iter().min()?;
        let usable = !shares.contains(&0) && (spread <= 1 || !rules.equal_only);
        let rest =
            |(room, share): (&u128, &u128)| Some(room - share).filter(|rest| *rest < rules.useless_below);
        let waste = room.iter().zip(&shares).filter_map(rest).sum();
        usable.then_some(Window { start, shares, spread, waste })
    })
}

/// As even as the room allows: devices with too little give all they have, the others share the rest. `room` is sorted,
/// the most first, and there is enough.
fn share_out(room: &[u128], wanted: u128) -> Vec<u128> {
    let mut missing = wanted;
    let mut shares = Vec::with_capacity(room.len());
    for (count, &least) in (1..=room.len()).rev().zip(room.iter().rev()) {
        if least.saturating_mul(count as u128) >= missing {
            let mut first: Vec<u128> = even_shares(missing, count).collect();
            first.extend(shares.into_iter().rev());
            return first;
        }
        missing -= least;
        shares.push(least);
    }
    shares.reverse();
    shares
}

/// Equal shares; the first ones are one greater where it does not divide.
fn even_shares(amount: u128, count: usize) -> impl Iterator<Item = u128> {
    let devices = count as u128;
    (0..devices).map(move |i| amount / devices + u128::from(i < amount % devices))
}

/// What 26.8 asks before it gives more than the greatest device has: whether some number of devices have an equal share
/// of `rounded` each.
pub(super) fn has_equal_split(free: &[u128], greatest: u128, wanted: u128, rounded: u128) -> bool {
    let sorted: Vec<u128> = by_room(free).into_iter().map(|i| free[i]).collect();
    let least_count = wanted.div_ceil(greatest.max(1));
    (1..)
        .zip(&sorted)
        .skip_while(|(count, _)| *count < least_count)
        .any(|(count, least)| least.saturating_mul(count) >= rounded)
}
