//! Which devices are near each other.
//!
//! Two devices are at distance 0 on one NUMA node and at distance 1 otherwise; inside a node, devices of one island are
//! nearer still. The first family of a request chooses its nodes by the policy, later ones go to the nodes already used.

use std::collections::BTreeSet;

use bai_core::slots::Amount;
use serde::{Deserialize, Serialize};

use super::model::Device;
use super::place::{Room, Tiers};

/// How the devices of the first family are spread over NUMA nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AffinityPolicy {
    /// One device of each node in turn: most memory bandwidth.
    #[default]
    Interleaved,
    /// All from one node where that is possible, if possible for all families; one island of it if that is enough.
    PreferSingleNode,
}

/// Where the holder of a request already is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AffinityHint {
    /// NUMA nodes whose devices are preferred, by every family; empty for no preference.
    pub nodes: BTreeSet<u32>,
}

/// Devices on one node (or on no known one), those with most left first.
struct Cluster {
    node: Option<u32>,
    devices: Vec<usize>,
    used: Amount,
}

/// The ways to serve a request, the best first. The last one has all devices; with `only`, all that may be used.
pub(super) fn choices(
    room: &Room<'_>,
    policy: AffinityPolicy,
    near: &BTreeSet<u32>,
    only: Option<u32>,
) -> Vec<Tiers> {
    let clusters = clusters(room, only);
    if !near.is_empty() {
        let is_near = |cluster: &&Cluster| cluster.node.is_none_or(|node| near.contains(&node));
        let here = interleave(clusters.iter().filter(is_near));
        let elsewhere = interleave(clusters.iter().filter(|cluster| !is_near(cluster)));
        return vec![vec![here.clone()], vec![here, elsewhere]];
    }
    match policy {
        AffinityPolicy::Interleaved => vec![vec![interleave(clusters.iter())]],
        AffinityPolicy::PreferSingleNode => {
            let islands = clusters.iter().flat_map(|cluster| islands(room.devices(), cluster));
            let single = clusters.iter().map(|cluster| cluster.devices.clone());
            let mut choices: Vec<Tiers> = islands.chain(single).map(|devices| vec![devices]).collect();
            for count in 2..=clusters.len() {
                choices.push(clusters[..count].iter().map(|cluster| cluster.devices.clone()).collect());
            }
            choices
        }
    }
}

/// The nodes of a slot, the least used first.
pub(super) fn nodes(room: &Room<'_>) -> Vec<u32> {
    clusters(room, None).into_iter().filter_map(|cluster| cluster.node).collect()
}

/// The clusters, the least used first; equals in the order of their first device.
fn clusters(room: &Room<'_>, only: Option<u32>) -> Vec<Cluster> {
    let mut clusters: Vec<Cluster> = Vec::new();
    for (index, device) in room.devices().iter().enumerate() {
        let elsewhere = only.is_some_and(|node| device.numa_node.is_some_and(|there| there != node));
        if device.excluded || elsewhere {
            continue;
        }
        let used = room.used[index];
        match clusters.iter_mut().find(|cluster| cluster.node == device.numa_node) {
            Some(cluster) => {
                cluster.devices.push(index);
                cluster.used = cluster.used.saturating_add(used);
            }
            None => clusters.push(Cluster { node: device.numa_node, devices: vec![index], used }),
        }
    }
    for cluster in &mut clusters {
        cluster.devices.sort_by_key(|&device| std::cmp::Reverse(room.free(device)));
    }
    clusters.sort_by_key(|cluster| cluster.used);
    clusters
}

/// The islands of a node, in the order of their first device; none when nothing is known of any.
fn islands(devices: &[Device], cluster: &Cluster) -> Vec<Vec<usize>> {
    let mut islands: Vec<(u32, Vec<usize>)> = Vec::new();
    for &index in &cluster.devices {
        let Some(island) = devices[index].island else { continue };
        match islands.iter_mut().find(|(known, _)| *known == island) {
            Some((_, members)) => members.push(index),
            None => islands.push((island, vec![index])),
        }
    }
    islands.into_iter().map(|(_, members)| members).collect()
}

/// One device of each cluster in turn.
fn interleave<'a>(clusters: impl Iterator<Item = &'a Cluster>) -> Vec<usize> {
    let mut ranked: Vec<(usize, usize)> =
        clusters.flat_map(|cluster| cluster.devices.iter().copied().enumerate()).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, device)| device).collect()
}
