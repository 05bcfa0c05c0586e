//! Who comes first.

use std::cmp::Ordering;
use std::fmt;

use crate::snapshot::Pending;

/// Orders sessions of the same priority.
pub trait Sequencer: fmt::Debug + Send + Sync {
    /// `Less` when `a` comes before `b`.
    fn compare(&self, a: &Pending, b: &Pending) -> Ordering;
}

/// First come, first served.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fifo;

impl Sequencer for Fifo {
    fn compare(&self, a: &Pending, b: &Pending) -> Ordering {
        a.created_at.cmp(&b.created_at)
    }
}

/// Last come, first served.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lifo;

impl Sequencer for Lifo {
    fn compare(&self, a: &Pending, b: &Pending) -> Ordering {
        b.created_at.cmp(&a.created_at)
    }
}

/// The pending sessions in the order in which they are served: by priority, then as the sequencer says, then by id so that
/// the order is total.
pub(crate) fn ordered<'a>(pending: &'a [Pending], sequencer: &dyn Sequencer) -> Vec<&'a Pending> {
    let mut order: Vec<&Pending> = pending.iter().collect();
    order.sort_by(|a, b| {
        b.priority.cmp(&a.priority).then_with(|| sequencer.compare(a, b)).then_with(|| a.id.cmp(&b.id))
    });
    order
}
