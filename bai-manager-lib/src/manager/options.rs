//! What can be tuned.

use std::time::Duration;

/// Settings of a manager, with the documented defaults.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ManagerOptions {
    /// Name of this manager among its siblings and predecessors. Default: process id and a random part, since process ids
    /// repeat between hosts and containers.
    pub id: String,
    /// An agent that has been silent this long is lost.
    pub agent_lost_after: Duration,
    /// Sessions of a lost agent end this long after it was lost.
    pub lost_agent_grace: Duration,
    /// Longest stay in `SCHEDULED` or `PREPARING`.
    pub preparing_timeout: Duration,
    /// Longest stay in `PULLING`.
    pub pulling_timeout: Duration,
    /// Longest stay in `RESTARTING`.
    pub restarting_timeout: Duration,
    /// Longest stay in `TERMINATING` before the session is declared dead without its agent.
    pub terminating_timeout: Duration,
    /// How often a session is started before it is given up.
    pub start_attempts: u32,
    /// Deadline of one command to an agent.
    pub agent_deadline: Duration,
    /// Life of the lease of the manager that plans.
    pub lease_ttl: Duration,
    /// How often everything is looked at although nothing woke the reconcilers.
    pub resync_interval: Duration,
    /// How often idle checkers look at the running sessions.
    pub idle_interval: Duration,
    /// Dead sessions are kept this long.
    pub retention: Duration,
    /// Longest that a destroy call waits for the end.
    pub destroy_wait: Duration,
    /// How old a cached identity, or setting of the scheduler, may be.
    pub identity_cache: Duration,
    /// Slots by importance for the choice of an agent; the name of a device family stands for all its slots.
    pub slot_priority: Vec<String>,
    /// Whether callbacks of sessions may go to the host of the manager: loopback and link-local addresses, where services listen that
    /// trust whoever can reach them.
    pub local_callbacks: bool,
    /// How far the usage that the fair share knows may lag behind.
    pub usage_interval: Duration,
}

impl Default for ManagerOptions {
    fn default() -> Self {
        Self {
            id: format!("manager-{}-{:08x}", std::process::id(), rand::random::<u32>()),
            agent_lost_after: Duration::from_secs(40),
            lost_agent_grace: Duration::from_mins(1),
            preparing_timeout: Duration::from_mins(2),
            pulling_timeout: Duration::from_mins(30),
            restarting_timeout: Duration::from_mins(1),
            terminating_timeout: Duration::from_mins(1),
            start_attempts: 3,
            agent_deadline: Duration::from_secs(30),
            lease_ttl: Duration::from_secs(10),
            resync_interval: Duration::from_secs(5),
            idle_interval: Duration::from_secs(15),
            retention: Duration::from_hours(365 * 24),
            destroy_wait: Duration::from_secs(2),
            identity_cache: Duration::from_secs(1),
            slot_priority: ["cuda", "rocm", "tpu", "cpu", "mem"].map(str::to_owned).into(),
            local_callbacks: false,
            usage_interval: Duration::from_secs(30),
        }
    }
}
