//! Why a request gets nothing.

use bai_core::error::{Error, code};
use bai_core::slots::{Amount, SlotName};

/// The rule that a request breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// Not enough is left.
    Insufficient,
    /// Enough may be left, but only in fragments that may not be combined.
    Fragmented,
    /// It is less than the smallest part that is given.
    BelowQuantum,
    /// The slot is not given in such an amount: it is negative, infinite, a part of a whole unit, or not 1.
    InvalidAmount,
    /// This other slot of the request excludes it.
    ExcludedBy(SlotName),
    /// The node has no such slot.
    UnknownSlot,
}

impl Refused {
    /// The name of this error in version 26.8.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Insufficient => "InsufficientResource",
            Self::Fragmented => "FractionalResourceFragmented",
            Self::BelowQuantum => "NotMultipleOfQuantum",
            Self::InvalidAmount => "InvalidResourceArgument",
            Self::ExcludedBy(_) => "InvalidResourceCombination",
            Self::UnknownSlot => "UnsupportedResource",
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Insufficient => "not enough of a resource is left on the agent",
            Self::Fragmented => "what is left of a resource on the agent is too scattered",
            Self::BelowQuantum => "the amount is below the smallest part of the resource",
            Self::InvalidAmount => "the resource is not given in such an amount",
            Self::ExcludedBy(_) => "these slots exclude each other",
            Self::UnknownSlot => "this agent has no such resource",
        }
    }
}

/// A request was refused; nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocError {
    /// Why.
    pub refused: Refused,
    /// The slot concerned.
    pub slot: SlotName,
    /// How much of it was asked for.
    pub requested: Amount,
    /// How much of it is left on the node, perhaps in several parts.
    pub allocatable: Amount,
}

impl std::fmt::Display for AllocError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { refused, slot, requested, allocatable } = self;
        write!(f, "{} (slot: {slot}, requested: {requested}, allocatable: {allocatable}", refused.reason())?;
        if let Refused::ExcludedBy(other) = refused {
            write!(f, ", other slot: {other}")?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for AllocError {}

impl From<AllocError> for Error {
    /// `Conflict` where another time or another node may do, `Invalid` where the request is wrong.
    fn from(error: AllocError) -> Self {
        let code = match error.refused {
            Refused::Insufficient | Refused::Fragmented => code::OVER_CAPACITY,
            _ => code::INVALID_SLOTS,
        };
        let mut converted = Self::of(code, error.refused.reason())
            .with("slot", &error.slot)
            .with("requested", error.requested)
            .with("allocatable", error.allocatable);
        if let Refused::ExcludedBy(other) = &error.refused {
            converted = converted.with("other slot", other);
        }
        converted
    }
}
