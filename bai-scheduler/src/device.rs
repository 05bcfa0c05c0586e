//! Devices of one node: which of them a kernel gets, and who holds what (agent specification, section 10).
//!
//! ```text
//!   families ──► PoolSetup ── restore(record) ──► Allocation      before the agent accepts work
//!                    │ open
//!                    ▼
//!                DevicePool ── allocate(slots, hint) ──► Allocation ── drop ──► free again
//! ```
//!
//! The only state is the table of what is held. What a device has left is its capacity less the sum of that table, so a
//! release is the removal of an entry: it returns exactly what was taken, and nothing can drift.
//!
//! An [`Allocation`] is owned by the kernel it was made for and ends with it. It serialises as slot → device → amount;
//! read back as a [`Holding`], it is restored through [`PoolSetup`], which exists only until the pool is opened. A pool
//! that something is held of refuses to be rebuilt.
//!
//! A request is planned for all families before anything is taken: it gets everything or changes nothing.
//!
//! ```
//! use bai_core::slots::ResourceSlots;
//! use bai_scheduler::device::{AffinityHint, Device, Family, PoolOptions, PoolSetup, SlotDevices};
//!
//! let gpus = (0..2).map(|n| Device::new(format!("gpu{n}"), 1).on_node(n)).collect();
//! let cores = (0..8).map(|n| Device::new(n.to_string(), 1).on_node(n / 4)).collect();
//! let families = vec![
//!     Family::new("cuda", vec![SlotDevices::discrete("cuda.device", gpus)]),
//!     Family::new("cpu", vec![SlotDevices::discrete("cpu", cores)]),
//! ];
//! let pool = PoolSetup::new(families, PoolOptions::default()).open();
//! let wanted: ResourceSlots = [("cuda.device", 1_u32), ("cpu", 2)].into_iter().collect();
//!
//! let first = pool.allocate(&wanted, &AffinityHint::default())?;
//! assert_eq!(serde_json::to_string(&first).unwrap(), r#"{"cpu":{"0":"1","1":"1"},"cuda.device":{"gpu0":"1"}}"#);
//! let second = pool.allocate(&wanted, &AffinityHint::default())?; // on the other node
//! assert_eq!(second.nodes(), [1].into());
//! drop(first);
//! assert_eq!(pool.free().get("cpu"), 6_u32.into());
//! # Ok::<(), bai_scheduler::device::AllocError>(())
//! ```

mod affinity;
mod error;
mod holding;
mod model;
mod place;
mod pool;
mod quirks;
mod split;

#[cfg(test)]
mod tests;

pub use affinity::{AffinityHint, AffinityPolicy};
pub use error::{AllocError, Refused};
pub use holding::{Holding, ResourceText};
pub use model::{Device, DeviceId, Family, Fraction, Sharing, SlotDevices, Strategy};
pub use pool::{Allocation, DevicePool, Excess, InUse, PoolOptions, PoolSetup};
pub use quirks::Quirks;
