//! Logging in and asking who one is (spec rest-manager.md, section 5; auth.md, section 5.1).

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use axum::extract::State;
use bai_core::Secret;
use bai_core::error::code;
use bai_core::identity::{Keypair, User, UserRole, UserStatus};
use bai_core::port::store::UserKey;
use serde_json::json;
use uuid::Uuid;

use super::Gateway;
use super::auth::Auth;
use super::failure::{Failure, Reply};
use super::params::{Params, kind};
use super::reply;

/// `GET`, `POST /auth`: echoes a text to who can sign.
pub(super) async fn test(_auth: Auth, params: Params) -> Reply {
    let mut check = params.check();
    let echo = check.required("echo", kind::text);
    check.finish()?;
    reply::ok(&json!({ "authorized": "yes", "echo": echo }))
}

/// `POST /auth/authorize`: a keypair for a password.
pub(super) async fn authorize(State(gateway): State<Gateway>, params: Params) -> Reply {
    let mut check = params.check();
    let login_type = check.open().required("type", kind::text);
    check.required("domain", kind::text);
    let username = check.required("username", kind::text);
    let password = Secret::new(check.required("password", kind::text));
    if !matches!(login_type.as_str(), "keypair" | "jwt" | "") {
        check.mistake("type", "value doesn't match any variant");
    }
    check.finish()?;
    if login_type != "keypair" {
        return Err(Failure::of(code::INVALID_PARAMETERS, "Unsupported authorization type"));
    }
    let user = authenticate(&gateway, username, password).await?;
    let keypair = main_keypair(&gateway, &user).await?;
    reply::ok(&json!({ "data": {
        "access_key": keypair.access_key,
        "secret_key": keypair.secret_key.reveal(),
        "role": user.role,
        "status": user.status,
    } }))
}

async fn authenticate(gateway: &Gateway, username: String, password: Secret) -> Result<User, Failure> {
    let identities = &gateway.manager().backends().identities;
    let mut user = identities.user(&UserKey::Email(username.clone())).await?;
    if user.is_none() {
        user = identities.user(&UserKey::Username(username)).await?;
    }
    let hash = user.as_ref().and_then(|user| user.password_hash.clone());
    // Hashing takes tens of milliseconds on purpose: not on a thread that serves others.
    let matches = tokio::task::spawn_blocking(move || password_matches(hash.as_ref(), &password))
        .await
        .unwrap_or(false);
    let mismatch = || Failure::of(code::AUTH_FAILED, "User credential mismatch.");
    let user = user.filter(|_| matches).ok_or_else(mismatch)?;
    match user.status {
        UserStatus::Active => Ok(user),
        UserStatus::BeforeVerification => {
            Err(Failure::of(code::AUTH_FAILED, "This account needs email verification."))
        }
        UserStatus::Inactive | UserStatus::Deleted => Err(mismatch()),
    }
}

/// An argon2id hash of a random text, so that unknown users take as long as known ones.
const DUMMY_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRmb3JkdW1teQ$6cXHQmLl6c1uXYv0L3SDIgMYjCJqF2zF3oXn9c8a1xA";

fn password_matches(hash: Option<&Secret>, password: &Secret) -> bool {
    let text = hash.map_or(DUMMY_HASH, |hash| hash.reveal());
    let verified = PasswordHash::new(text)
        .is_ok_and(|parsed| Argon2::default().verify_password(password.reveal().as_bytes(), &parsed).is_ok());
    verified && hash.is_some()
}

async fn main_keypair(gateway: &Gateway, user: &User) -> Result<Keypair, Failure> {
    let directory = gateway.manager().identities().directory().await?;
    let own = directory.keypairs.iter().filter(|keypair| keypair.user_id == user.id && keypair.is_active);
    let first = own.min_by_key(|keypair| !keypair.is_admin).cloned();
    first.ok_or_else(|| Failure::of(code::AUTH_FAILED, "No API keypairs found."))
}

/// `GET /auth/role`.
pub(super) async fn role(State(gateway): State<Gateway>, auth: Auth, params: Params) -> Reply {
    let mut check = params.check();
    let group: Option<Uuid> = check.optional("group", kind::uuid);
    check.finish()?;
    let user = &auth.0.user;
    let group_role = match group {
        None => None,
        Some(group) => {
            let directory = gateway.manager().identities().directory().await?;
            let member =
                directory.projects.iter().any(|(row, users)| row.id.0 == group && users.contains(&user.id));
            let missing = || Failure::of(code::PROJECT_NOT_FOUND, "not a member of the project");
            Some(member.then_some("user").ok_or_else(missing)?)
        }
    };
    let named = |held: bool, name: &'static str| if held { name } else { "user" };
    reply::ok(&json!({
        "global_role": named(user.role == UserRole::Superadmin, "superadmin"),
        "domain_role": named(user.role == UserRole::Admin, "admin"),
        "group_role": group_role,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_users_cost_a_real_verification() {
        let parsed = PasswordHash::new(DUMMY_HASH).unwrap();
        assert_eq!(parsed.algorithm, argon2::ARGON2ID_IDENT);
        assert!(parsed.salt.is_some() && parsed.hash.is_some_and(|hash| hash.len() == 32));
        assert!(!password_matches(None, &Secret::new("x".to_owned())));
    }
}
