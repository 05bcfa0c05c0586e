//! What an agent offers of its node, and how it hands it out.

use std::collections::BTreeMap;

use bai_agent_lib::{AffinityPolicy, AgentOptions};
use bai_core::error::{Error, Result, code};
use bai_core::units::BinarySize;
use serde::{Deserialize, Serialize};

/// The section `resource` of an agent's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceConfig {
    /// Cores kept for the host. Default 0.
    pub reserved_cpu: u32,
    /// Memory kept for the host, in bytes or as `1g`. Default 0.
    pub reserved_mem: BinarySize,
    /// How often each core is given away, 1 to 10. Above 1, kernels are not bound to cores. Default 1.
    pub cpu_overcommit: u32,
    /// How often each byte of memory is given away, 1 or more. Default 1.
    pub mem_overcommit: u32,
    /// Device families in the order in which a request is served: later ones follow the earlier to their NUMA nodes, families not
    /// named come first. Default `cuda, rocm, tpu, cpu, mem`.
    pub allocation_order: Vec<String>,
    /// How the first family of a request is spread over NUMA nodes: `INTERLEAVED`, the default, or `PREFER_SINGLE_NODE`.
    pub affinity_policy: AffinityPolicy,
    /// Ids of devices to keep out of use, by family. Kernels that hold them already keep them.
    pub device_mask: BTreeMap<String, Vec<String>>,
}

impl Default for ResourceConfig {
    fn default() -> Self {
        let options = AgentOptions::new("", "");
        Self {
            reserved_cpu: options.reserved_cpu,
            reserved_mem: options.reserved_mem.into(),
            cpu_overcommit: options.cpu_overcommit,
            mem_overcommit: options.mem_overcommit,
            allocation_order: options.allocation_order,
            affinity_policy: options.affinity_policy,
            device_mask: options.device_mask,
        }
    }
}

impl ResourceConfig {
    /// Sets the options that it is about.
    ///
    /// # Errors
    /// `Invalid` when a factor is out of range.
    pub(super) fn apply(self, options: &mut AgentOptions) -> Result<()> {
        let wrong = |message: &'static str, value: u32| {
            Err(Error::of(code::CONFIG_INVALID, message).with("value", value))
        };
        if !(1..=10).contains(&self.cpu_overcommit) {
            return wrong("resource.cpu_overcommit must be 1 to 10", self.cpu_overcommit);
        }
        if self.mem_overcommit == 0 {
            return wrong("resource.mem_overcommit must be 1 or more", self.mem_overcommit);
        }
        options.reserved_cpu = self.reserved_cpu;
        options.reserved_mem = self.reserved_mem.saturated();
        options.cpu_overcommit = self.cpu_overcommit;
        options.mem_overcommit = self.mem_overcommit;
        options.allocation_order = self.allocation_order;
        options.affinity_policy = self.affinity_policy;
        options.device_mask = self.device_mask;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_file_says_becomes_the_options_of_the_agent() {
        let section = json!({
            "reserved_cpu": 2, "reserved_mem": "1g", "cpu_overcommit": 4, "mem_overcommit": 2,
            "allocation_order": ["rocm", "cpu", "mem"], "affinity_policy": "PREFER_SINGLE_NODE",
            "device_mask": {"cuda": ["gpu-a"]},
        });
        let mut options = AgentOptions::new("i-node", "data");
        serde_json::from_value::<ResourceConfig>(section).unwrap().apply(&mut options).unwrap();
        assert_eq!((options.reserved_cpu, options.reserved_mem), (2, 1 << 30));
        assert_eq!((options.cpu_overcommit, options.mem_overcommit), (4, 2));
        assert_eq!(options.allocation_order, ["rocm", "cpu", "mem"]);
        assert_eq!(options.affinity_policy, AffinityPolicy::PreferSingleNode);
        assert_eq!(options.device_mask["cuda"], ["gpu-a"]);
    }

    #[test]
    fn a_wrong_policy_is_told_with_the_right_ones() {
        let wrong = json!({"affinity_policy": "SPREAD"});
        let error = serde_json::from_value::<ResourceConfig>(wrong).unwrap_err().to_string();
        assert!(error.contains("`INTERLEAVED` or `PREFER_SINGLE_NODE`"), "{error}");
    }

    #[test]
    fn factors_out_of_range_are_refused() {
        for wrong in
            [json!({"cpu_overcommit": 0}), json!({"cpu_overcommit": 11}), json!({"mem_overcommit": 0})]
        {
            let section = serde_json::from_value::<ResourceConfig>(wrong).unwrap();
            let error = section.apply(&mut AgentOptions::new("i-node", "data")).unwrap_err();
            assert_eq!(error.code(), code::CONFIG_INVALID);
        }
    }
}
