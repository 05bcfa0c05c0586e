//! What binds the kernels of one session together (spec agent.md, sections 6 to 8).

use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::status::ClusterMode;

/// The cluster that a kernel is part of. Sessions of one kernel have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// How the kernels reach each other.
    pub network: ClusterNetwork,
    /// How they trust each other: the same pair for all kernels of the session, and for no other session.
    pub ssh: SshKeypair,
}

/// The private network of a session, with the same content for each of its kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNetwork {
    /// Whether the kernels share an agent.
    pub mode: ClusterMode,
    /// Name of the network, unique in the cluster and kept by restarts.
    pub name: String,
    /// Host names of all kernels, that of the main one first. Every kernel resolves all of them.
    pub hosts: Vec<String>,
}

/// A key pair in the text forms of OpenSSH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKeypair {
    /// The private key, a PEM text of several lines.
    pub private_key: Secret,
    /// The public key, one line: type, key and comment.
    pub public_key: String,
}
