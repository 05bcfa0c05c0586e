//! Small agents and sessions for examples, tests and benchmarks.

use bai_core::slots::ResourceSlots;
use bai_core::status::{ClusterMode, SessionType};
use bai_core::{AccessKey, ProjectId, SessionId, Timestamp, UserId};
use uuid::Uuid;

use crate::model::{Agent, Designation, Kernel, Owner, Session};

/// Whole amounts by slot name.
pub fn slots(amounts: &[(&str, u64)]) -> ResourceSlots {
    amounts.iter().map(|(name, amount)| (*name, *amount)).collect()
}

/// An x86 agent.
pub fn agent(id: &str, capacity: &[(&str, u64)]) -> Agent {
    Agent::new(id, "x86_64", slots(capacity))
}

/// So many seconds after the epoch.
pub fn at(seconds: i64) -> Timestamp {
    bai_core::clock::from_micros(seconds.saturating_mul(1_000_000))
}

/// The id of the session with this number.
pub fn id(number: u128) -> SessionId {
    SessionId(Uuid::from_u128(number))
}

/// The owner with this number: a keypair, a user and a project of its own, all in one domain.
pub fn owner(number: u128) -> Owner {
    Owner {
        access_key: AccessKey::new(format!("AKIA{number}")),
        user: UserId(Uuid::from_u128(number)),
        project: ProjectId(Uuid::from_u128(number)),
        domain: "default".to_owned(),
    }
}

/// An interactive session with one kernel per list of amounts, all on one agent. Its number tells its id and its age: the
/// smaller, the older.
pub fn session(number: u128, kernels: &[&[(&str, u64)]]) -> Session {
    Session {
        id: id(number),
        owner: owner(1),
        priority: 10,
        job_priority: 10,
        preemptible: true,
        created_at: at(i64::try_from(number).unwrap_or(i64::MAX / 1_000_000)),
        session_type: SessionType::Interactive,
        private: false,
        cluster_mode: ClusterMode::SingleNode,
        starts_at: None,
        max_runtime: None,
        dependencies: Vec::new(),
        designated: Vec::new(),
        designation: Designation::Strict,
        avoid: Vec::new(),
        group: None,
        claim: None,
        no_preemption_before: None,
        kernels: kernels.iter().map(|amounts| Kernel::new(slots(amounts), "x86_64", "python:3.11")).collect(),
    }
}

/// The same with every kernel on an agent of its own choice.
pub fn gang(number: u128, kernels: &[&[(&str, u64)]]) -> Session {
    Session { cluster_mode: ClusterMode::MultiNode, ..session(number, kernels) }
}
