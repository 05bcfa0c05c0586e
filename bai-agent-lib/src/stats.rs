//! Statistics of kernels and of the node (spec agent.md, section 12).
//!
//! Back ends read counters ([`Sample`]); this module turns them into the values that clients see: rates, extremes and
//! averages, as decimal texts of at most three digits after the point.

mod metric;
mod node;
mod sample;
mod series;

pub use sample::Sample;

pub(crate) use node::NodeSeries;
pub(crate) use series::KernelSeries;
