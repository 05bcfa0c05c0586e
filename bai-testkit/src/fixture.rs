//! Rows to test with: plain, valid, and different where they must be.

use bai_core::identity::{
    Domain, Keypair, KeypairPolicy, Project, ResourceGroup, User, UserRole, UserStatus,
};
use bai_core::image::Image;
use bai_core::port::store::{Agent, AgentStatus, NewEvent, SessionChange};
use bai_core::session::{Kernel, Owner, Session, SessionSpec, StatusHistory};
use bai_core::slots::{ResourceSlots, SlotType};
use bai_core::status::{ClusterMode, KernelStatus, SessionResult, SessionStatus, SessionType};
use bai_core::{AccessKey, AgentId, KernelId, ProjectId, Secret, SessionId, Timestamp, UserId, clock};
use serde_json::{Map, json};
use uuid::Uuid;

/// A moment, `seconds` after an arbitrary start.
pub fn at(seconds: i64) -> Timestamp {
    clock::from_micros(1_700_000_000_000_000 + seconds * 1_000_000)
}

/// The same user everywhere.
pub fn user_id(number: u128) -> UserId {
    UserId(Uuid::from_u128(0xbeef_0000 + number))
}

/// The same project everywhere.
pub fn project_id(number: u128) -> ProjectId {
    ProjectId(Uuid::from_u128(0xcafe_0000 + number))
}

/// `cpu` cores and `mem` bytes.
pub fn slots(cpu: i64, mem: i64) -> ResourceSlots {
    [("cpu", cpu), ("mem", mem)]
        .into_iter()
        .map(|(name, amount)| (name, bai_core::slots::Amount::from(amount)))
        .collect()
}

/// A pending session of one kernel that asks for one core and 1 MiB, created at [`at`]`(0)`.
pub fn session(name: &str) -> Session {
    cluster_session(name, 1)
}

/// A pending session of several kernels.
pub fn cluster_session(name: &str, kernels: u32) -> Session {
    Session {
        id: SessionId::random(),
        version: 0,
        name: name.to_owned(),
        owner: Owner {
            access_key: AccessKey::new("AKIATEST"),
            user_id: user_id(1),
            email: "user1@example.com".to_owned(),
            domain: "default".to_owned(),
            project_id: project_id(1),
            project: "project1".to_owned(),
        },
        resource_group: "default".to_owned(),
        session_type: SessionType::Interactive,
        cluster_mode: ClusterMode::SingleNode,
        priority: 10,
        status: SessionStatus::Pending,
        status_info: None,
        status_data: Map::new(),
        status_history: entered("PENDING"),
        result: SessionResult::Undefined,
        created_at: at(0),
        starts_at: None,
        terminated_at: None,
        spec: SessionSpec::default(),
        kernels: (0..kernels).map(kernel).collect(),
    }
}

fn kernel(rank: u32) -> Kernel {
    let (role, idx) = if rank == 0 { ("main", 1) } else { ("sub", rank) };
    Kernel {
        id: KernelId::random(),
        role: role.to_owned(),
        idx,
        local_rank: rank,
        hostname: format!("{role}{idx}"),
        image: "python:3.11".to_owned(),
        architecture: "x86_64".to_owned(),
        registry: String::new(),
        agent: None,
        generation: 0,
        status: KernelStatus::Pending,
        status_info: None,
        status_data: Map::new(),
        status_history: entered("PENDING"),
        requested: slots(1, 1 << 20),
        allocated: ResourceSlots::default(),
        container_id: None,
        kernel_host: None,
        service_ports: Vec::new(),
        attached_devices: Map::new(),
        exit_code: None,
        last_stat: None,
        started_at: None,
        terminated_at: None,
    }
}

fn entered(status: &str) -> StatusHistory {
    std::iter::once((status.to_owned(), at(0))).collect()
}

/// A change without events and without the capacity guard.
pub fn change(session: Session) -> SessionChange {
    SessionChange { session, events: Vec::new(), guard_capacity: false }
}

/// A change with one event about the session as a whole.
pub fn change_with(session: Session, event: &str) -> SessionChange {
    SessionChange { session, events: vec![event_named(event)], guard_capacity: false }
}

pub fn event_named(name: &str) -> NewEvent {
    NewEvent { name: name.to_owned(), kernel: None, reason: "because".to_owned(), exit_code: None }
}

/// An alive agent with this much room.
pub fn agent(id: &str, capacity: ResourceSlots) -> Agent {
    Agent {
        id: AgentId::new(id),
        status: AgentStatus::Alive,
        status_changed: at(1),
        region: "local".to_owned(),
        resource_group: "default".to_owned(),
        schedulable: true,
        addr: format!("http://{id}:6011"),
        public_host: id.to_owned(),
        capacity,
        slot_types: [("cpu", SlotType::Count), ("mem", SlotType::Bytes)].into_iter().collect(),
        architecture: "x86_64".to_owned(),
        version: "0.1.0".to_owned(),
        compute_plugins: json!({"cpu": {"version": "1"}}),
        first_contact: at(1),
        last_seen: at(2),
        lost_at: None,
        live_stat: json!({"node": {"cpu_util": {"current": "1.5"}}}),
        isolation_gaps: vec!["no cgroup".to_owned()],
    }
}

pub fn domain(name: &str) -> Domain {
    Domain {
        name: name.to_owned(),
        description: Some("a domain".to_owned()),
        is_active: true,
        created_at: at(3),
        total_resource_slots: [("cpu".to_owned(), "8".to_owned())].into(),
        allowed_docker_registries: vec!["cr.backend.ai".to_owned()],
    }
}

pub fn project(number: u128) -> Project {
    Project {
        id: project_id(number),
        name: format!("project{number}"),
        domain: "default".to_owned(),
        description: None,
        is_active: true,
        created_at: at(4),
        total_resource_slots: [("mem".to_owned(), "1g".to_owned())].into(),
    }
}

pub fn user(number: u128) -> User {
    User {
        id: user_id(number),
        email: format!("user{number}@example.com"),
        username: format!("user{number}"),
        full_name: format!("User Number {number}"),
        domain: "default".to_owned(),
        role: UserRole::User,
        status: UserStatus::Active,
        password_hash: Some(Secret::new("$argon2id$v=19$x".to_owned())),
        allowed_client_ip: vec!["10.0.0.0/8".to_owned()],
        sudo_session_enabled: number.is_multiple_of(2),
        created_at: at(5),
        main_access_key: Some(AccessKey::new(format!("AKIA{number}"))),
    }
}

/// A keypair of [`user`]`(number)` under the policy `default`.
pub fn keypair(number: u128) -> Keypair {
    Keypair {
        access_key: AccessKey::new(format!("AKIA{number}")),
        secret_key: Secret::new(format!("secret of keypair {number}")),
        user_id: user_id(number),
        is_active: true,
        is_admin: false,
        resource_policy: "default".to_owned(),
        rate_limit: 30_000,
        created_at: at(6),
    }
}

pub fn policy(name: &str) -> KeypairPolicy {
    KeypairPolicy {
        name: name.to_owned(),
        total_resource_slots: [("cpu".to_owned(), "4".to_owned())].into(),
        default_for_unspecified: "UNLIMITED".to_owned(),
        max_concurrent_sessions: 30,
        max_containers_per_session: 4,
        max_pending_session_count: Some(100),
        max_pending_session_resource_slots: Some([("mem".to_owned(), "1t".to_owned())].into()),
        max_priority: Some(50),
        max_session_lifetime: 0,
        idle_timeout: 1800,
        created_at: at(7),
    }
}

pub fn resource_group(name: &str) -> ResourceGroup {
    ResourceGroup {
        name: name.to_owned(),
        description: None,
        is_active: true,
        is_public: true,
        scheduler: "fifo".to_owned(),
        scheduler_opts: json!({"pending_timeout": 0}).as_object().unwrap().clone(),
        wsproxy_addr: None,
        created_at: at(8),
        domains: vec!["default".to_owned()],
    }
}

pub fn image(name: &str) -> Image {
    Image {
        name: name.to_owned(),
        architecture: "x86_64".to_owned(),
        digest: format!("sha256:{name}"),
        size: 1 << 33,
        labels: [("ai.backend.role".to_owned(), "COMPUTE".to_owned())].into(),
        aliases: vec![name.split(':').next().unwrap().to_owned()],
    }
}
