//! Who comes first (spec scheduler.md, section 8).
//!
//! Sessions of a higher priority come before all others. Within a priority, a [`Sequencer`] decides in two steps: it may
//! compare owners, level by level, by what they use; below that it compares sessions by a fixed position. Owners are
//! compared anew after every placement, so whoever just got something steps back.
//!
//! | sequencer | levels | share of an owner | position |
//! |---|---|---|---|
//! | [`Fifo`] | – | – | oldest first |
//! | [`Lifo`] | – | – | newest first |
//! | [`Drf`] | user | dominant share of the group | oldest first |
//! | [`FairShare`] | domain, project, member | weighted, faded usage ÷ weight | oldest first |
//!
//! Equal shares are decided by the position of the first session, equal positions by the session id.

pub(crate) mod tree;

use std::fmt;

use bai_core::{SessionId, Timestamp};

use crate::slots::{SlotId, SlotTable, Units};

/// Where owners are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Domains.
    Domain,
    /// Projects.
    Project,
    /// Users, each within one project.
    Member,
    /// Users, over all their projects. Use it alone.
    User,
}

/// An owner as a sequencer sees it.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Weight in thousandths; never zero.
    pub weight: u32,
    /// The slots of the group.
    pub table: &'a SlotTable,
    pub(crate) used: &'a [Units],
    pub(crate) faded: &'a [u128],
    pub(crate) capacity: &'a [Units],
}

impl Standing<'_> {
    /// Slots of which the group has some.
    pub fn slots(&self) -> impl Iterator<Item = (SlotId, &str)> {
        let ids = self.table.ids().filter(|slot| self.capacity(*slot) > 0);
        ids.map(|slot| (slot, self.table.name(slot)))
    }

    /// What the group has of a slot, over all agents that take sessions.
    pub fn capacity(&self, slot: SlotId) -> Units {
        self.capacity.get(slot.index()).copied().unwrap_or(0)
    }

    /// What the owner holds of a slot in this group.
    pub fn used(&self, slot: SlotId) -> Units {
        self.used.get(slot.index()).copied().unwrap_or(0).max(0)
    }

    /// What the owner has used of a slot in the past, in unit-seconds, faded with the half life of the group.
    pub fn past(&self, slot: SlotId) -> u128 {
        self.faded.get(slot.index()).copied().unwrap_or(0)
    }
}

/// A waiting session as a sequencer sees it.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Identity.
    pub id: SessionId,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// Kernels it has.
    pub kernels: u32,
}

/// Orders the sessions of one priority.
pub trait Sequencer: fmt::Debug + Send + Sync {
    /// Name, as in the options of a resource group.
    fn name(&self) -> &str;

    /// Where owners are compared, from the top; empty when only sessions are.
    fn levels(&self) -> &[Level] {
        &[]
    }

    /// What owners on one level are compared by; the smallest comes first. It must not become smaller when the owner gets
    /// more.
    fn share(&self, _level: Level, _owner: &Standing<'_>) -> u64 {
        0
    }

    /// What sessions are compared by; the smallest comes first. It must not change while the session waits.
    fn position(&self, session: &Waiting) -> i64 {
        session.created_at.timestamp_micros()
    }
}

/// First come, first served.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fifo;

impl Sequencer for Fifo {
    fn name(&self) -> &'static str {
        "fifo"
    }
}

/// Last come, first served.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lifo;

impl Sequencer for Lifo {
    fn name(&self) -> &'static str {
        "lifo"
    }

    fn position(&self, session: &Waiting) -> i64 {
        session.created_at.timestamp_micros().saturating_neg()
    }
}

/// Dominant resource fairness: the user whose largest share of any slot is the smallest comes first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Drf;

impl Sequencer for Drf {
    fn name(&self) -> &'static str {
        "drf"
    }

    fn levels(&self) -> &[Level] {
        &[Level::User]
    }

    fn share(&self, _: Level, owner: &Standing<'_>) -> u64 {
        dominant(owner.used, owner.capacity)
    }
}

/// The largest part of any slot, in millionths of a millionth; slots that the whole does not have are ignored.
pub(crate) fn dominant(part: &[Units], whole: &[Units]) -> u64 {
    let shares = part.iter().zip(whole).filter(|(used, all)| **used > 0 && **all > 0).map(|(used, all)| {
        let share = used.unsigned_abs();
        // The quick way as long as the product fits.
        share.checked_mul(1_000_000_000_000).map_or_else(
            || {
                let exact = u128::from(share) * 1_000_000_000_000 / u128::from(all.unsigned_abs());
                u64::try_from(exact).unwrap_or(u64::MAX)
            },
            |scaled| scaled / all.unsigned_abs(),
        )
    });
    shares.max().unwrap_or(0)
}

/// Hierarchical fair share: domains, then projects, then users are compared by what they have used, faded with the half life
/// of the group, against their weights.
#[derive(Debug, Clone)]
pub struct FairShare {
    /// How much slots count, in thousandths, by name; others count 1,000.
    pub slot_weights: Vec<(String, u32)>,
    /// What is held right now counts as if it had been held for this many seconds more. The usage history lags behind by
    /// up to one slice; this keeps one owner from getting everything in the meantime.
    pub foresight_secs: u32,
}

impl Default for FairShare {
    fn default() -> Self {
        let weights = [("cpu", 1_000), ("mem", 1), ("cuda.device", 10_000), ("cuda.shares", 10_000)];
        let slot_weights = weights.into_iter().map(|(name, weight)| (name.to_owned(), weight)).collect();
        Self { slot_weights, foresight_secs: 300 }
    }
}

impl FairShare {
    fn weight_of(&self, slot: &str) -> u32 {
        self.slot_weights.iter().find(|(name, _)| name == slot).map_or(1_000, |(_, weight)| *weight)
    }

    /// The factor that is shown to users: 1 without usage, less and less with more of it (spec scheduler.md, section 12).
    pub fn factor(&self, owner: &Standing<'_>, lookback_secs: u32) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a number for people")]
        let normalised = self.usage(owner) as f64 / 1e6 / f64::from(lookback_secs.max(1));
        let exponent = normalised * 1e3 / f64::from(owner.weight.max(1));
        2_f64.powf(-exponent.clamp(-10.0, 10.0)).clamp(0.0, 1.0)
    }

    /// Seconds for which the owner would have had the whole group, in millionths, weighted by slots.
    fn usage(&self, owner: &Standing<'_>) -> u128 {
        let (mut sum, mut weights) = (0_u128, 0_u128);
        for (slot, name) in owner.slots() {
            let weight = u128::from(self.weight_of(name));
            let ahead = u128::from(owner.used(slot).unsigned_abs()) * u128::from(self.foresight_secs);
            let seconds = owner.past(slot).saturating_add(ahead).saturating_mul(1_000_000)
                / u128::from(owner.capacity(slot).unsigned_abs());
            sum = sum.saturating_add(seconds.saturating_mul(weight));
            weights += weight;
        }
        sum / weights.max(1)
    }
}

impl Sequencer for FairShare {
    fn name(&self) -> &'static str {
        "fair-share"
    }

    fn levels(&self) -> &[Level] {
        &[Level::Domain, Level::Project, Level::Member]
    }

    fn share(&self, _: Level, owner: &Standing<'_>) -> u64 {
        let share = self.usage(owner).saturating_mul(1_000) / u128::from(owner.weight.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dominant_share_is_the_largest_one() {
        assert_eq!(dominant(&[0, 1, 5], &[0, 10, 20]), 250_000_000_000);
        assert_eq!(dominant(&[7, 0], &[0, 10]), 0);
        assert_eq!(dominant(&[1 << 60], &[1 << 61]), 500_000_000_000);
    }
}
