//! Owners of sessions, their limits and their past usage.

use bai_core::slots::{DefaultForUnspecified, ResourceSlots};
use bai_core::{AccessKey, ProjectId, Timestamp, UserId};

/// Who a session belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Keypair that asked for it.
    pub access_key: AccessKey,
    /// User.
    pub user: UserId,
    /// Project.
    pub project: ProjectId,
    /// Domain.
    pub domain: String,
}

/// Somebody whose usage is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A keypair.
    Keypair(AccessKey),
    /// A user, over all keypairs and projects.
    User(UserId),
    /// A project.
    Project(ProjectId),
    /// A domain.
    Domain(String),
    /// A user within one project: the last level of the fair share.
    Member(ProjectId, UserId),
}

impl Holder {
    /// Name of the check of this holder's limit, as clients know it.
    pub fn check_name(&self) -> &'static str {
        match self {
            Self::Keypair(_) => "keypair_resource_limit",
            Self::User(_) | Self::Member(..) => "user_resource_limit",
            Self::Project(_) => "user_group_resource_limit",
            Self::Domain(_) => "domain_resource_limit",
        }
    }

    /// What people call it.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Keypair(_) => "keypair",
            Self::User(_) => "user",
            Self::Project(_) => "project",
            Self::Domain(_) => "domain",
            Self::Member(..) => "member",
        }
    }
}

/// Limits of one holder (spec scheduler.md, section 11). The default has none. Counts of sessions and kernels are looked at
/// for keypairs only.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Most amounts in use, and what holds for the slots that are not named; `None` for no limit.
    pub total: Option<(ResourceSlots, DefaultForUnspecified)>,
    /// Most sessions that are not private at once; 0 for any number.
    pub max_sessions: u32,
    /// Most private sessions at once; 0 for any number.
    pub max_private_sessions: u32,
    /// Most waiting sessions; `None` for any number.
    pub max_pending_sessions: Option<u32>,
    /// Most amounts that waiting sessions ask for, of the slots that are named; `None` for any.
    pub max_pending_slots: Option<ResourceSlots>,
    /// Highest priority that may be asked for.
    pub max_priority: Option<i32>,
    /// Most kernels of one session; 0 for any number.
    pub max_kernels: u32,
}

/// What a holder has used in a stretch of the past, for the fair share.
#[derive(Debug, Clone)]
pub struct UsageSlice {
    /// Middle of the stretch. Usage weighs half as much with each half life that has passed since.
    pub at: Timestamp,
    /// Amounts times seconds.
    pub slot_seconds: ResourceSlots,
}
