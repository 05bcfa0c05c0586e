//! The first start of a cluster.

use std::collections::BTreeMap;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, SaltString};
use bai_core::error::code;
use bai_core::identity::{
    Credential, Domain, Keypair, KeypairPolicy, Project, ResourceGroup, User, UserRole, UserStatus,
};
use bai_core::port::store::{Directory, UserKey};
use bai_core::{AccessKey, Error, ErrorKind, ProjectId, Result, Secret, Timestamp, UserId};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rand::Rng;
use serde_json::Map;

use super::{Bootstrap, MAX_ACCESS_KEY};
use crate::manager::Backends;

/// Name of everything that is made at the first start.
const DEFAULT: &str = "default";
/// Requests per 15 minutes of the first keypair: the owner of the server need not be protected from, so this only stops a program
/// gone mad. Clients read it as an integer of 32 bits.
const RATE_LIMIT: u64 = 30_000_000;

/// Makes what is missing and returns the credential of the first user.
pub(super) async fn run(backends: &Backends, new: Bootstrap) -> Result<Credential> {
    if let Some(key) =
        new.access_key.as_ref().filter(|key| key.as_str().is_empty() || key.as_str().len() > MAX_ACCESS_KEY)
    {
        return Err(
            Error::new(ErrorKind::Invalid, "an access key has 1 to 20 characters").with("access_key", key)
        );
    }
    let store = &backends.identities;
    let now = backends.clock.now();
    let directory = store.directory().await?;
    scopes(backends, &directory, now).await?;
    let mut user = match store.user(&UserKey::Email(new.email.clone())).await? {
        Some(user) => user,
        None => first_user(&new, now).await?,
    };
    store.put_user(&user).await?;
    join_default_project(backends, &directory, user.id, now).await?;
    let keypair = match directory.keypairs.iter().find(|keypair| keypair.user_id == user.id) {
        Some(keypair) => keypair.clone(),
        None => first_keypair(backends, &new, user.id, now).await?,
    };
    if user.main_access_key.is_none() {
        user.main_access_key = Some(keypair.access_key.clone());
        store.put_user(&user).await?;
    }
    let missing = || Error::of(code::STORE_FAILED, "the store has lost the keypair just written");
    store.credential(&keypair.access_key).await?.ok_or_else(missing)
}

async fn scopes(backends: &Backends, directory: &Directory, now: Timestamp) -> Result<()> {
    let store = &backends.identities;
    if !directory.domains.contains_key(DEFAULT) {
        store.put_domain(&default_domain(now)).await?;
    }
    if !directory.policies.contains_key(DEFAULT) {
        store.put_policy(&default_policy(now)).await?;
    }
    if !directory.resource_groups.contains_key(DEFAULT) {
        store.put_resource_group(&default_group(now)).await?;
    }
    Ok(())
}

fn default_domain(now: Timestamp) -> Domain {
    Domain {
        name: DEFAULT.into(),
        description: Some("The default domain".into()),
        is_active: true,
        created_at: now,
        total_resource_slots: BTreeMap::new(),
        allowed_docker_registries: Vec::new(),
    }
}

fn default_policy(now: Timestamp) -> KeypairPolicy {
    KeypairPolicy {
        name: DEFAULT.into(),
        total_resource_slots: BTreeMap::new(),
        default_for_unspecified: "UNLIMITED".into(),
        max_concurrent_sessions: 0,
        max_containers_per_session: 0,
        max_pending_session_count: Some(KeypairPolicy::DEFAULT_PENDING),
        max_pending_session_resource_slots: None,
        max_priority: None,
        max_session_lifetime: 0,
        idle_timeout: 0,
        created_at: now,
    }
}

fn default_group(now: Timestamp) -> ResourceGroup {
    ResourceGroup {
        name: DEFAULT.into(),
        description: Some("The default resource group".into()),
        is_active: true,
        is_public: true,
        scheduler: "fifo".into(),
        scheduler_opts: Map::new(),
        wsproxy_addr: None,
        created_at: now,
        domains: vec![DEFAULT.into()],
    }
}

/// Puts the user into the default project, which is made when it is missing.
async fn join_default_project(
    backends: &Backends,
    directory: &Directory,
    user: UserId,
    now: Timestamp,
) -> Result<()> {
    let is_default = |project: &Project| project.name == DEFAULT && project.domain == DEFAULT;
    let existing = directory.projects.iter().find(|(project, _)| is_default(project));
    let (project, mut members) = existing.cloned().unwrap_or_else(|| {
        let project = Project {
            id: ProjectId::random(),
            name: DEFAULT.into(),
            domain: DEFAULT.into(),
            description: Some("The default project".into()),
            is_active: true,
            created_at: now,
            total_resource_slots: BTreeMap::new(),
        };
        (project, Vec::new())
    });
    if members.contains(&user) {
        return Ok(());
    }
    members.push(user);
    backends.identities.put_project(&project, &members).await
}

async fn first_user(new: &Bootstrap, now: Timestamp) -> Result<User> {
    let password = new.password.clone();
    // Hashing takes tens of milliseconds of processor time.
    let hash = tokio::task::spawn_blocking(move || hash_password(&password)).await;
    let broken = |error| Error::new(ErrorKind::Internal, "the password cannot be hashed").source(error);
    Ok(User {
        id: UserId::random(),
        email: new.email.clone(),
        username: new.email.clone(),
        full_name: "Administrator".into(),
        domain: DEFAULT.into(),
        role: UserRole::Superadmin,
        status: UserStatus::Active,
        password_hash: Some(hash.map_err(broken)??),
        allowed_client_ip: Vec::new(),
        sudo_session_enabled: false,
        created_at: now,
        main_access_key: None,
    })
}

async fn first_keypair(
    backends: &Backends,
    new: &Bootstrap,
    user_id: UserId,
    now: Timestamp,
) -> Result<Keypair> {
    let access_key = new.access_key.clone().unwrap_or_else(random_access_key);
    if let Some(taken) = backends.identities.credential(&access_key).await? {
        return Err(Error::new(ErrorKind::AlreadyExists, "the access key belongs to another user")
            .with("access_key", &access_key)
            .with("user", taken.user.email));
    }
    let keypair = Keypair {
        access_key,
        secret_key: new.secret_key.clone().unwrap_or_else(random_secret_key),
        user_id,
        is_active: true,
        is_admin: true,
        resource_policy: DEFAULT.into(),
        rate_limit: RATE_LIMIT,
        created_at: now,
    };
    backends.identities.put_keypair(&keypair).await?;
    Ok(keypair)
}

/// The argon2id hash of a password in PHC format.
///
/// # Errors
/// `Internal` when the parameters are refused, which the defaults are not.
pub(crate) fn hash_password(password: &Secret) -> Result<Secret> {
    let broken = |error| Error::new(ErrorKind::Internal, format!("the password cannot be hashed: {error}"));
    let salt = SaltString::from_b64(&STANDARD_NO_PAD.encode(rand::random::<[u8; 16]>())).map_err(broken)?;
    let hash = Argon2::default().hash_password(password.reveal().as_bytes(), &salt).map_err(broken)?;
    Ok(Secret::new(hash.to_string()))
}

/// `AKIA` and 16 base32 characters.
fn random_access_key() -> AccessKey {
    const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut rng = rand::rng();
    let tail = (0..16).map(|_| char::from(BASE32[rng.random_range(0..BASE32.len())]));
    AccessKey::new(format!("AKIA{}", tail.collect::<String>()))
}

/// 40 URL-safe characters from 30 random bytes.
fn random_secret_key() -> Secret {
    Secret::new(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 30]>()))
}

#[cfg(test)]
mod tests {
    use argon2::{PasswordHash, PasswordVerifier};

    use super::*;

    #[test]
    fn keys_have_the_documented_form() {
        let access_key = random_access_key();
        assert_eq!(access_key.as_str().len(), 20);
        assert!(access_key.as_str().starts_with("AKIA"));
        assert_eq!(random_secret_key().reveal().len(), 40);
        assert_ne!(random_secret_key(), random_secret_key());
    }

    #[test]
    fn passwords_are_hashed_with_argon2id_and_a_salt_of_their_own() {
        let password = Secret::new("correct horse".to_owned());
        let (one, two) = (hash_password(&password).unwrap(), hash_password(&password).unwrap());
        assert!(one.reveal().starts_with("$argon2id$"));
        assert_ne!(one, two);
        let parsed = PasswordHash::new(one.reveal()).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"wrong horse", &parsed).is_err());
    }
}
