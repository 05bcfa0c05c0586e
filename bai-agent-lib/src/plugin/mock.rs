//! Accelerators that do not exist (agent specification, section 11): their slots are scheduled, allocated, recorded and
//! shown like those of real ones, and kernels see only environment variables.
//!
//! ```
//! use bai_agent_lib::plugin::ComputePlugin;
//! use bai_agent_lib::plugin::mock::{MockConfig, MockPlugin, MockSettings};
//!
//! let config = MockConfig::parse(r#"
//!     slot_name = "cuda"
//!     device_plugin_name = "CUDADevice"
//!     [[devices]]
//!     mother_uuid = "c59395cd-ac91-4cd3-a1b0-3d2568aa2d01"
//!     model_name = "CUDA GPU"
//!     numa_node = 0
//!     subproc_count = 108
//!     memory_size = "40g"
//! "#)?;
//! let plugin = MockPlugin::new(&config, &MockSettings::default())?;
//! let family = plugin.family();
//! assert_eq!(family.slots[0].slot.as_str(), "cuda.device");
//! assert_eq!(family.slots[0].devices[0].numa_node, Some(0));
//! # Ok::<(), bai_core::Error>(())
//! ```

mod config;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use bai_core::error::{Error, Result, code};
use bai_core::slots::{Amount, SlotName, SlotType};
use bai_scheduler::device::{Device, DeviceId, Family, Fraction, Holding, SlotDevices};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::{Value, json};

pub use config::{
    AllocationMode, MockAttributes, MockConfig, MockDevice, MockKind, MockSettings, NumberFormat, SlotFormat,
};

use super::{ComputePlugin, Grant};

/// A family of devices that exist on paper.
#[derive(Debug)]
pub struct MockPlugin {
    key: String,
    kind: MockKind,
    version: String,
    settings: MockSettings,
    formats: BTreeMap<String, SlotFormat>,
    family: Family,
    /// Masked ones too, because kernels may still hold them.
    devices: BTreeMap<DeviceId, MockDevice>,
}

impl MockPlugin {
    /// Offers the devices of a file in the way of its settings.
    ///
    /// # Errors
    /// `Invalid` ([`code::CONFIG_INVALID`]) when the file cannot be read, and as [`MockConfig::parse`] and
    /// [`MockPlugin::new`].
    pub fn open(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            misconfigured("the file cannot be read").with("path", file.display()).source(error)
        })?;
        let config = MockConfig::parse(&text)?;
        Self::new(&config, &config.settings)
    }

    /// Offers the devices of `config` in the way of `settings`.
    ///
    /// # Errors
    /// `Invalid` ([`code::CONFIG_INVALID`]) when a unit or the quantum is zero, when a device occurs twice, or when the
    /// name of a MIG device does not say of which profile it is.
    pub fn new(config: &MockConfig, settings: &MockSettings) -> Result<Self> {
        let mut devices = BTreeMap::new();
        let mut slots = Slots::of(config, settings)?;
        for (number, described) in config.devices.iter().enumerate() {
            let id: DeviceId = described.id(number).into();
            slots.add(described, &id, settings)?;
            if devices.insert(id.clone(), described.clone()).is_some() {
                return Err(misconfigured("a device occurs twice").with("device", id));
            }
        }
        let family = slots.family();
        Ok(Self {
            key: config.slot_name.clone(),
            kind: config.device_plugin_name,
            version: config
                .attributes
                .cuda_runtime
                .clone()
                .unwrap_or_else(|| env!("CARGO_PKG_VERSION").into()),
            settings: settings.clone(),
            formats: config.formats.clone(),
            family,
            devices,
        })
    }

    /// How a slot is shown to users, where the configuration says so.
    pub fn format(&self, slot: &str) -> Option<&SlotFormat> {
        let form = slot.strip_prefix(&self.key)?.strip_prefix('.')?;
        let key = if form.ends_with("-mig") { "*-mig" } else { form };
        self.formats.get(key)
    }

    /// The devices held, with the part of each: processors and bytes.
    fn parts<'a>(&'a self, held: &'a Holding) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        for SlotDevices { slot, .. } in &self.family.slots {
            for (id, amount) in held.devices(slot.as_str()) {
                let Some(device) = self.devices.get(id) else { continue };
                let (processors, memory) = if slot.as_str().ends_with(".shares") {
                    (
                        times(amount, self.settings.unit_proc),
                        times(amount, self.settings.unit_mem.saturated()),
                    )
                } else {
                    (device.subproc_count, device.memory_size.saturated())
                };
                parts.push(Part { id: id.as_str(), device, processors, memory });
            }
        }
        parts
    }

    /// What the hook library of real devices reads.
    fn cuda_lines(&self, parts: &[Part<'_>]) -> Vec<String> {
        let list = |value: &dyn Fn(&Part<'_>) -> String| {
            let numbered: Vec<_> =
                parts.iter().enumerate().map(|(n, part)| format!("{n}:{}", value(part))).collect();
            numbered.join(",")
        };
        let mut lines = vec![format!("CUDA_GLOBAL_DEVICE_IDS={}", list(&|part| part.id.to_owned()))];
        if self.settings.allocation_mode == AllocationMode::Discrete {
            lines.push("CUDA_RESOURCE_VIRTUALIZED=0".into());
            return lines;
        }
        lines.push("CUDA_RESOURCE_VIRTUALIZED=1".into());
        lines.push(format!("CUDA_MEMORY_LIMITS={}", list(&|part| part.memory.to_string())));
        lines.push(format!("CUDA_PROCESSOR_LIMITS={}", list(&|part| part.processors.to_string())));
        lines.push(format!("CUDA_RESERVED_MEMORY={}", self.settings.reserved_memory.saturated()));
        lines
    }
}

/// A part of a device that a kernel holds.
struct Part<'a> {
    id: &'a str,
    device: &'a MockDevice,
    processors: u64,
    memory: u64,
}

impl ComputePlugin for MockPlugin {
    fn key(&self) -> &str {
        &self.key
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn slot_types(&self) -> Vec<(SlotName, SlotType)> {
        let slot_type = |slot: &SlotName| {
            if slot.as_str().ends_with("-mig") { SlotType::Unique } else { SlotType::Count }
        };
        self.family.slots.iter().map(|slot| (slot.slot.clone(), slot_type(&slot.slot))).collect()
    }

    fn family(&self) -> Family {
        self.family.clone()
    }

    fn grant(&self, held: &Holding, grant: &mut Grant) {
        let parts = self.parts(held);
        if parts.is_empty() {
            return;
        }
        let ids: Vec<_> = parts.iter().map(|part| part.id).collect();
        let environ = [
            ("BACKENDAI_MOCK_CUDA_DEVICES", ids.join(",")),
            ("BACKENDAI_MOCK_CUDA_DEVICE_COUNT", ids.len().to_string()),
            ("TF_MIN_GPU_MULTIPROCESSOR_COUNT", "4".to_owned()),
        ];
        grant.environ.extend(environ.map(|(name, value)| (name.to_owned(), value)));
        if self.kind == MockKind::CudaDevice {
            grant.resource_lines.extend(self.cuda_lines(&parts));
        }
    }

    fn attached(&self, held: &Holding) -> Vec<Value> {
        let show = |part: &Part<'_>| {
            json!({
                "device_id": part.id,
                "model_name": part.device.model_name,
                "data": {"smp": part.processors, "mem": part.memory},
            })
        };
        self.parts(held).iter().map(show).collect()
    }
}

/// Devices sorted into slots.
struct Slots {
    key: String,
    fraction: Fraction,
    whole: Vec<Device>,
    shares: Vec<Device>,
    mig: BTreeMap<String, Vec<Device>>,
}

impl Slots {
    fn of(config: &MockConfig, settings: &MockSettings) -> Result<Self> {
        let fraction = Fraction::new(settings.quantum_size)
            .ok_or_else(|| misconfigured("the quantum is not above zero"))?;
        if settings.unit_proc == 0 || settings.unit_mem.saturated() == 0 {
            return Err(misconfigured("a unit of a share is zero"));
        }
        let fraction = if settings.allow_fragmentation { fraction } else { fraction.unfragmented() };
        let (whole, shares, mig) = (Vec::new(), Vec::new(), BTreeMap::new());
        Ok(Self { key: config.slot_name.clone(), fraction, whole, shares, mig })
    }

    fn add(&mut self, described: &MockDevice, id: &DeviceId, settings: &MockSettings) -> Result<()> {
        let masked = settings.device_mask.iter().any(|mask| mask == id.as_str());
        let place = |mut device: Device| {
            device.numa_node = described.numa_node;
            device.excluded = masked;
            device
        };
        if described.is_mig_device {
            let profile = described.mig_profile().ok_or_else(|| {
                misconfigured("the model name of a MIG device has no profile").with("device", id)
            })?;
            let devices = self.mig.entry(format!("{}.device:{profile}-mig", self.key)).or_default();
            devices.push(place(Device::new(id.clone(), 1)));
        } else if settings.allocation_mode == AllocationMode::Discrete {
            self.whole.push(place(Device::new(id.clone(), 1)));
        } else {
            self.shares.push(place(Device::new(id.clone(), shares(described, settings))));
        }
        Ok(())
    }

    fn family(self) -> Family {
        let Self { key, fraction, whole, shares, mig } = self;
        let [device, parts, any_mig] =
            ["device", "shares", "device:*-mig"].map(|form| format!("{key}.{form}"));
        let mut slots = Vec::new();
        if !whole.is_empty() {
            slots.push(SlotDevices::discrete(device.as_str(), whole));
        }
        if !shares.is_empty() {
            slots.push(SlotDevices::fractional(parts.as_str(), fraction, shares));
        }
        slots.extend(mig.into_iter().map(|(slot, devices)| SlotDevices::unique(slot, devices)));
        Family::new(key, slots).exclusive([device, parts, any_mig])
    }
}

/// How many shares a device has: as many units as it has both memory and processors for, to two decimal places.
fn shares(device: &MockDevice, settings: &MockSettings) -> Decimal {
    let ratio = |have: u64, unit: u64| Decimal::from(have) / Decimal::from(unit);
    let memory = ratio(device.memory_size.saturated(), settings.unit_mem.saturated());
    memory.min(ratio(device.subproc_count, settings.unit_proc)).trunc_with_scale(2).normalize()
}

/// A share in units, rounded down.
fn times(share: Amount, unit: u64) -> u64 {
    let product = share.finite().and_then(|share| share.checked_mul(unit.into()));
    product.and_then(|product| product.to_u64()).unwrap_or_default()
}

fn misconfigured(message: impl Display) -> Error {
    Error::of(code::CONFIG_INVALID, message.to_string()).with("file", "mock-accelerator.toml")
}

#[cfg(test)]
mod tests;
