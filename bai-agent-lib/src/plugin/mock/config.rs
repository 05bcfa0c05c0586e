//! What the mock plugin is told: `mock-accelerator.toml`, and settings from its table `[settings]` or from the config
//! store (`config/plugins/accelerator/mock`).

use std::collections::BTreeMap;

use bai_core::error::Result;
use bai_core::units::BinarySize;
use rust_decimal::Decimal;
use serde::Deserialize;

use super::misconfigured;

/// The file `mock-accelerator.toml`. Unknown keys are tolerated.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MockConfig {
    /// The device family, for example `cuda`.
    pub slot_name: String,
    /// What the devices pretend to be.
    pub device_plugin_name: MockKind,
    /// The devices.
    pub devices: Vec<MockDevice>,
    /// Versions to report.
    #[serde(default)]
    pub attributes: MockAttributes,
    /// How slots are shown, by the part of the slot name after the family: `device`, `shares` or `*-mig`.
    #[serde(default)]
    pub formats: BTreeMap<String, SlotFormat>,
    /// Settings for a node without a config store.
    #[serde(default)]
    pub settings: MockSettings,
}

impl MockConfig {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// `Invalid` (`CONFIG_INVALID`) when it is not TOML or lacks something; the message says where.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| misconfigured(error.message()).source(error))
    }
}

/// What the devices pretend to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum MockKind {
    /// CUDA devices: kernels get the `CUDA_` lines in `resource.txt`.
    #[serde(rename = "CUDADevice")]
    CudaDevice,
    /// Nothing in particular.
    MockDevice,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MockDevice {
    /// Its UUID; of a MIG device that of the device it is a part of.
    pub mother_uuid: String,
    /// Name of the model. That of a MIG device ends in its profile: `… MIG 1g.5gb`.
    pub model_name: String,
    /// NUMA node, if known.
    #[serde(default)]
    pub numa_node: Option<u32>,
    /// Processors.
    pub subproc_count: u64,
    /// Memory in bytes.
    pub memory_size: BinarySize,
    /// Whether it is a fixed part of a device, with a slot of its own.
    #[serde(default)]
    pub is_mig_device: bool,
}

impl MockDevice {
    /// Its id, given its number in the file: parts of one device have the same UUID.
    pub(super) fn id(&self, number: usize) -> String {
        if self.is_mig_device {
            format!("MIG-{}/{number}", self.mother_uuid)
        } else {
            self.mother_uuid.clone()
        }
    }

    pub(super) fn mig_profile(&self) -> Option<&str> {
        let (_, profile) = self.model_name.rsplit_once("MIG ")?;
        Some(profile.trim()).filter(|profile| !profile.is_empty())
    }
}

/// Versions to report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct MockAttributes {
    /// Version of the driver.
    #[serde(default)]
    pub nvidia_driver: Option<String>,
    /// Version of the runtime.
    #[serde(default)]
    pub cuda_runtime: Option<String>,
}

/// How a slot is shown to users.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SlotFormat {
    /// For example `fGPU`.
    pub display_unit: String,
    /// Name of an icon.
    pub display_icon: String,
    /// For example `GPU`.
    pub human_readable_name: String,
    /// What it is, in words.
    pub description: String,
    /// How its amounts are written.
    pub number_format: NumberFormat,
}

/// How amounts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct NumberFormat {
    /// With binary suffixes.
    pub binary: bool,
    /// Decimal places.
    pub round_length: u32,
}

/// Whether devices are divided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllocationMode {
    /// Whole devices: the slot `<family>.device`.
    #[default]
    Discrete,
    /// Parts of devices: the slot `<family>.shares`.
    Fractional,
}

/// How the devices are offered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MockSettings {
    /// Whether devices are divided.
    pub allocation_mode: AllocationMode,
    /// Memory of one share. Default: 2 GiB.
    pub unit_mem: BinarySize,
    /// Processors of one share. Default: 8.
    pub unit_proc: u64,
    /// Ids of devices to keep out of use.
    pub device_mask: Vec<String>,
    /// Memory of a device that kernels are told to leave alone. Default: 64 MiB.
    pub reserved_memory: BinarySize,
    /// Shares are multiples of this. Default: 0.1.
    pub quantum_size: Decimal,
    /// Whether a request may be put together from any fragments (`allow_fractional_resource_fragmentation`).
    #[serde(rename = "allow_fractional_resource_fragmentation")]
    pub allow_fragmentation: bool,
}

impl Default for MockSettings {
    fn default() -> Self {
        Self {
            allocation_mode: AllocationMode::default(),
            unit_mem: BinarySize::gib(2),
            unit_proc: 8,
            device_mask: Vec::new(),
            reserved_memory: BinarySize::mib(64),
            quantum_size: Decimal::new(1, 1),
            allow_fragmentation: true,
        }
    }
}
