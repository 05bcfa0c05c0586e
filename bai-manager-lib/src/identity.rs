//! Who asks, and for whom.

mod bootstrap;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::code;
use bai_core::identity::{Credential, UserRole};
use bai_core::port::store::Directory;
use bai_core::{AccessKey, Error, Result, Secret};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::manager::Backends;

/// Window of the rate limit.
const WINDOW: Duration = Duration::from_mins(15);
/// Credentials kept in memory; beyond that old ones are dropped.
const MAX_CACHED: usize = 10_000;
/// Longest access key.
const MAX_ACCESS_KEY: usize = 20;

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
pub struct IdentityService {
    inner: Arc<Inner>,
}

/// A value and when it was asked for.
type Cached<T> = (Instant, T);

#[derive(Debug)]
struct Inner {
    backends: Backends,
    max_age: Duration,
    credentials: Mutex<HashMap<String, Cached<Option<Arc<Credential>>>>>,
    directory: Mutex<Option<Cached<Arc<Directory>>>>,
}

impl IdentityService {
    pub(crate) fn new(backends: Backends, max_age: Duration) -> Self {
        let inner = Inner { backends, max_age, credentials: Mutex::default(), directory: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The keypair with its owner and policy, active or not; at most a second old.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached (so for all methods here).
    pub async fn credential(&self, access_key: &str) -> Result<Option<Arc<Credential>>> {
        if access_key.len() > MAX_ACCESS_KEY {
            return Ok(None);
        }
        if let Some((at, credential)) = self.inner.credentials.lock().get(access_key)
            && at.elapsed() < self.inner.max_age
        {
            return Ok(credential.clone());
        }
        let asked = Instant::now();
        let found = self.inner.backends.identities.credential(&access_key.into()).await?.map(Arc::new);
        let mut cache = self.inner.credentials.lock();
        if cache.len() >= MAX_CACHED {
            cache.retain(|_, (at, _)| at.elapsed() < self.inner.max_age);
        }
        // Strangers are not remembered beyond the bound: they could fill the memory.
        if cache.len() < MAX_CACHED {
            cache.insert(access_key.to_owned(), (asked, found.clone()));
        }
        Ok(found)
    }

    /// Applies the rules of `owner_access_key` (spec auth.md, section 4.1).
    ///
    /// # Errors
    /// `Invalid` ([`code::OWNER_UNKNOWN`]) for an unknown key, `Forbidden` when the requester may not act for its owner.
    pub async fn scope(&self, requester: Arc<Credential>, owner_access_key: Option<&str>) -> Result<Scope> {
        let own = requester.keypair.access_key.as_str();
        let Some(wanted) = owner_access_key.filter(|key| *key != own) else {
            return Ok(Scope::own(requester));
        };
        if !matches!(requester.user.role, UserRole::Superadmin | UserRole::Admin) {
            return Err(Error::of(
                code::FORBIDDEN,
                "Only admins can perform operations on behalf of other users.",
            ));
        }
        let unknown = || Error::of(code::OWNER_UNKNOWN, "Unknown owner access key");
        let owner = self.credential(wanted).await?.ok_or_else(unknown)?;
        let foreign = owner.user.domain != requester.user.domain || owner.is_superadmin();
        if requester.user.role == UserRole::Admin && foreign {
            let message = "Domain admins can act for ordinary users of their own domain only.";
            return Err(Error::of(code::FORBIDDEN, message));
        }
        Ok(Scope { requester, owner })
    }

    /// Domains, projects, users, keypairs, policies and resource groups; at most a second old.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    pub async fn directory(&self) -> Result<Arc<Directory>> {
        if let Some((at, directory)) = self.inner.directory.lock().as_ref()
            && at.elapsed() < self.inner.max_age
        {
            return Ok(directory.clone());
        }
        let asked = Instant::now();
        let directory = Arc::new(self.inner.backends.identities.directory().await?);
        *self.inner.directory.lock() = Some((asked, directory.clone()));
        Ok(directory)
    }

    /// The directory as last read, of any age.
    pub(crate) fn last_directory(&self) -> Option<Arc<Directory>> {
        self.inner.directory.lock().as_ref().map(|(_, directory)| directory.clone())
    }

    /// Forgets everything cached, as after a write.
    pub fn invalidate(&self) {
        self.inner.credentials.lock().clear();
        *self.inner.directory.lock() = None;
    }

    /// Makes the cluster usable: domain, project, policy and resource group `default`, and a superadmin. Safe to call at
    /// every start: existing rows are kept as they are, so an existing user keeps its keys and password.
    ///
    /// # Errors
    /// `Invalid` for an access key of more than 20 characters, `AlreadyExists` when the key belongs to another user.
    pub async fn bootstrap(&self, new: Bootstrap) -> Result<Credential> {
        let credential = bootstrap::run(&self.inner.backends, new).await;
        self.invalidate();
        credential
    }

    /// Counts a request of the keypair.
    ///
    /// # Errors
    /// `Unavailable` when the counter cannot be reached.
    pub async fn hit_rate_limit(&self, credential: &Credential) -> Result<RateLimit> {
        let limit = credential.keypair.rate_limit;
        let key = format!("ratelimit/{}", credential.keypair.access_key);
        let hits = self.inner.backends.counter.hit(&key, WINDOW).await?;
        Ok(RateLimit {
            limit,
            remaining: limit.saturating_sub(hits),
            window_secs: WINDOW.as_secs(),
            exceeded: hits > limit,
        })
    }
}
