//! Recorded behaviour that we do not have.

/// Deviations from our rules that version 26.8 has. The default is none of them.
///
/// They exist so that the recorded vectors can be replayed as they are; a node that must decide exactly like a 26.8 agent
/// (for example to check a migration) can turn them on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// a fraction of a discrete slot is cut off (evenly) or given (fill). We refuse it.
    pub fractions_of_discrete: bool,
    /// a fractional request is split in hundredths and each share is rounded to the quantum, which loses some. We
    /// round the request first and give exactly that.
    pub round_each_share: bool,
    /// the guard against fragments checks that an even split exists, and something else is given. We give what
    /// the guard has found.
    pub guard_only_checks: bool,
}

impl Quirks {
    /// Everything as 26.8 does it.
    pub const V26_8: Self =
        Self { fractions_of_discrete: true, round_each_share: true, guard_only_checks: true };
}
