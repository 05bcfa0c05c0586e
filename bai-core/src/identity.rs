//! Who may do what: domains, projects, users, keypairs, policies and resource groups, as rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::id::{AccessKey, ProjectId, UserId};
use crate::secret::Secret;
use crate::status::named_enum;

named_enum! {
    /// Role of a user (spec auth.md, section 4).
    UserRole {
        /// The whole cluster.
        Superadmin = "superadmin",
        /// Its own domain.
        Admin = "admin",
        /// Itself.
        User = "user",
        /// Read-only role of the data model.
        Monitor = "monitor",
    }
}

named_enum! {
    /// Whether a user may log in.
    UserStatus {
        /// May log in.
        Active = "active",
        /// Switched off.
        Inactive = "inactive",
        /// Deleted; the row remains.
        Deleted = "deleted",
        /// Waits for an email confirmation.
        BeforeVerification = "before-verification",
    }
}

/// A domain: the outermost scope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Unique name.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Whether it can be used.
    pub is_active: bool,
    /// Creation time.
    pub created_at: Timestamp,
    /// Limits per slot as given; unmentioned slots are unlimited.
    pub total_resource_slots: BTreeMap<String, String>,
    /// Registries whose images may be used; empty allows all.
    pub allowed_docker_registries: Vec<String>,
}

/// A project, *group* in the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// Identity.
    pub id: ProjectId,
    /// Name, unique in its domain.
    pub name: String,
    /// Domain it belongs to.
    pub domain: String,
    /// Free text.
    pub description: Option<String>,
    /// Whether it can be used.
    pub is_active: bool,
    /// Creation time.
    pub created_at: Timestamp,
    /// Limits per slot as given; unmentioned slots are unlimited.
    pub total_resource_slots: BTreeMap<String, String>,
}

/// A user account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Identity.
    pub id: UserId,
    /// Unique email.
    pub email: String,
    /// Unique user name.
    pub username: String,
    /// Full name.
    pub full_name: String,
    /// Domain.
    pub domain: String,
    /// Role.
    pub role: UserRole,
    /// Status.
    pub status: UserStatus,
    /// argon2id hash of the password in PHC format; `None` when password login is off.
    pub password_hash: Option<Secret>,
    /// CIDRs the user may come from; empty for no restriction.
    pub allowed_client_ip: Vec<String>,
    /// Adds `SUDO_SESSION_ENABLED=1` to kernels.
    pub sudo_session_enabled: bool,
    /// Creation time.
    pub created_at: Timestamp,
    /// Keypair used when none is named.
    pub main_access_key: Option<AccessKey>,
}

/// An API keypair of a user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Keypair {
    /// Public half.
    pub access_key: AccessKey,
    /// Secret half, in clear: signing needs it. Stores encrypt it at rest.
    pub secret_key: Secret,
    /// Owner.
    pub user_id: UserId,
    /// Whether it authenticates.
    pub is_active: bool,
    /// Whether "admin required" endpoints accept it.
    pub is_admin: bool,
    /// Name of its [`KeypairPolicy`].
    pub resource_policy: String,
    /// Requests per rolling 15 minutes.
    pub rate_limit: u64,
    /// Creation time.
    pub created_at: Timestamp,
}

/// Limits of a keypair (spec scheduler.md, section 11).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeypairPolicy {
    /// Unique name.
    pub name: String,
    /// Limits per slot as given.
    pub total_resource_slots: BTreeMap<String, String>,
    /// Whether unmentioned slots are 0 (`LIMITED`) or unlimited (`UNLIMITED`).
    pub default_for_unspecified: String,
    /// 0 = unlimited.
    pub max_concurrent_sessions: u32,
    /// Kernels of one session; 0 = unlimited.
    pub max_containers_per_session: u32,
    /// Waiting sessions at once; `None` = unlimited. A row from before the limit existed has the default (W-19).
    #[serde(default = "KeypairPolicy::default_pending")]
    pub max_pending_session_count: Option<u32>,
    /// What waiting sessions may ask for together, as given; slots that are not named, and all with `None`, are unlimited.
    #[serde(default)]
    pub max_pending_session_resource_slots: Option<BTreeMap<String, String>>,
    /// Highest priority that may be asked for; `None` = any.
    #[serde(default)]
    pub max_priority: Option<i32>,
    /// Seconds; 0 = unlimited.
    pub max_session_lifetime: u64,
    /// Seconds without network use; 0 = off.
    pub idle_timeout: i64,
    /// Creation time.
    pub created_at: Timestamp,
}

impl KeypairPolicy {
    /// Waiting sessions at once, where nobody has decided otherwise.
    pub const DEFAULT_PENDING: u32 = 1_000;

    // The form that serde asks for.
    #[allow(clippy::unnecessary_wraps)]
    fn default_pending() -> Option<u32> {
        Some(Self::DEFAULT_PENDING)
    }
}

/// A resource group, *scaling group* in the API: the unit of scheduling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceGroup {
    /// Unique name.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Whether it can be used.
    pub is_active: bool,
    /// Whether ordinary users see it.
    pub is_public: bool,
    /// Name of the scheduler, such as `fifo`.
    pub scheduler: String,
    /// Options of the scheduler (spec scheduler.md, section 11).
    pub scheduler_opts: Map<String, Value>,
    /// Address of the app proxy.
    pub wsproxy_addr: Option<String>,
    /// Creation time.
    pub created_at: Timestamp,
    /// Domains that may use the group.
    pub domains: Vec<String>,
}

/// Everything a request needs to know about who signed it.
#[derive(Debug, Clone, PartialEq)]
pub struct Credential {
    /// The keypair that signed.
    pub keypair: Keypair,
    /// Its owner.
    pub user: User,
    /// Its policy.
    pub policy: KeypairPolicy,
}

impl Credential {
    /// Whether the user has the superadmin role.
    pub fn is_superadmin(&self) -> bool {
        self.user.role == UserRole::Superadmin
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_from_before_pending_limits_has_the_default_and_null_lifts_it() {
        let mut row = json!({
            "name": "old", "total_resource_slots": {}, "default_for_unspecified": "UNLIMITED",
            "max_concurrent_sessions": 0, "max_containers_per_session": 0, "max_session_lifetime": 0,
            "idle_timeout": 0, "created_at": "2024-01-01T00:00:00Z",
        });
        let old: KeypairPolicy = serde_json::from_value(row.clone()).unwrap();
        assert_eq!(old.max_pending_session_count, Some(1_000));
        assert_eq!((old.max_pending_session_resource_slots, old.max_priority), (None, None));
        row["max_pending_session_count"] = json!(null);
        let lifted: KeypairPolicy = serde_json::from_value(row).unwrap();
        assert_eq!(lifted.max_pending_session_count, None);
        let again = serde_json::to_value(&lifted).unwrap();
        assert_eq!(serde_json::from_value::<KeypairPolicy>(again).unwrap(), lifted);
    }
}
