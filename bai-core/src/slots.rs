//! Resource slots: how much of which resource something asks for, has, or uses.
//!
//! A slot is named by its device family and property (`cpu`, `mem`, `cuda.shares`) and has a [`SlotType`].
//! An [`Amount`] is an exact decimal or infinity. [`ResourceSlots`] maps names to amounts, where a missing name
//! means zero. [`SlotTypes`] is the table of slots the cluster knows; it turns what users and policies say into
//! amounts.
//!
//! Rules: scheduler specification, section 10. Amounts travel as JSON strings of plain decimals.
//!
//! ```
//! use bai_core::slots::{InputRules, ResourceSlots, SlotType, SlotTypes};
//!
//! let known: SlotTypes = [("cpu", SlotType::Count), ("mem", SlotType::Bytes)].into_iter().collect();
//! let asked = known.parse_input(serde_json::json!({"mem": "1g"}).as_object().unwrap(), InputRules::REQUEST)?;
//! let free: ResourceSlots = serde_json::from_str(r#"{"cpu": "4", "mem": "8589934592"}"#).unwrap();
//! assert!(asked.fits_in(&free));
//! assert_eq!(serde_json::to_string(&asked).unwrap(), r#"{"cpu":"0","mem":"1073741824"}"#);
//! # Ok::<(), bai_core::Error>(())
//! ```

pub(crate) mod amount;
mod map;
mod name;
mod types;

#[cfg(test)]
mod tests;

pub use amount::{Amount, TextForm};
pub use map::ResourceSlots;
pub use name::{SlotName, SlotType};
pub use types::{DefaultForUnspecified, InputRules, SlotTypes};
