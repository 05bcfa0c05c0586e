//! Who asks, what they may see, and how refusals read (spec graphql-manager.md, section 7).

use std::sync::Arc;

use async_graphql::Context;
use bai_core::Error;
use bai_core::error::code;
use bai_core::identity::{Credential, UserRole};

use crate::manager::Manager;

/// The keypair that signed the request.
#[derive(Debug, Clone)]
pub(super) struct Viewer(pub(super) Arc<Credential>);

/// What a scope leaves of the arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Only this domain.
    pub(super) domain: Option<String>,
    /// Only this identity (access key, email …).
    pub(super) identity: Option<String>,
}

/// The manager behind the schema.
pub(super) fn manager<'a>(context: &Context<'a>) -> async_graphql::Result<&'a Manager> {
    context.data::<Manager>()
}

/// Who asks.
pub(super) fn viewer<'a>(context: &Context<'a>) -> async_graphql::Result<&'a Viewer> {
    context.data::<Viewer>()
}

/// An error as its title, with its message in parentheses.
pub(super) fn text(error: &Error) -> async_graphql::Error {
    if error.code() == code::FILTER_SYNTAX {
        return async_graphql::Error::new(error.message());
    }
    async_graphql::Error::new(format!("{} ({error})", error.code().title()))
}

/// An error that is its title alone.
pub(super) fn refusal(code: bai_core::error::Code) -> async_graphql::Error {
    async_graphql::Error::new(code.title())
}

impl Viewer {
    /// Role of the user.
    pub(super) fn role(&self) -> UserRole {
        self.0.user.role
    }

    /// Whether everything may be seen.
    pub(super) fn is_superadmin(&self) -> bool {
        self.0.is_superadmin()
    }

    /// Refuses everybody but superadmins.
    pub(super) fn require_superadmin(&self) -> async_graphql::Result<()> {
        if self.is_superadmin() {
            return Ok(());
        }
        Err(async_graphql::Error::new(format!("{} (superadmin privilege required)", code::FORBIDDEN.title())))
    }

    /// Refuses ordinary users.
    pub(super) fn require_admin(&self) -> async_graphql::Result<()> {
        match self.role() {
            UserRole::Superadmin | UserRole::Admin => Ok(()),
            UserRole::User => Err(refusal(code::INSUFFICIENT_PRIVILEGE)),
            UserRole::Monitor => Err(unknown_role()),
        }
    }

    /// The scope rule: superadmins see what they ask for, admins their domain, users themselves. `own` is the viewer's
    /// identity in the terms of the query.
    pub(super) fn scope(
        &self,
        domain: Option<String>,
        identity: Option<String>,
        own: &str,
    ) -> async_graphql::Result<Seen> {
        let forced_domain = |domain: Option<String>| match domain {
            Some(domain) if domain != self.0.user.domain => Err(refusal(code::FORBIDDEN)),
            _ => Ok(Some(self.0.user.domain.clone())),
        };
        match self.role() {
            UserRole::Superadmin => Ok(Seen { domain, identity }),
            UserRole::Admin => Ok(Seen { domain: forced_domain(domain)?, identity }),
            UserRole::User if identity.as_deref().is_some_and(|identity| identity != own) => {
                Err(refusal(code::FORBIDDEN))
            }
            UserRole::User => Ok(Seen { domain: forced_domain(domain)?, identity: Some(own.to_owned()) }),
            UserRole::Monitor => Err(unknown_role()),
        }
    }

    /// The scope rule for a single thing: without an identity, the viewer's own.
    pub(super) fn scope_of_one(
        &self,
        domain: Option<String>,
        identity: Option<String>,
        own: &str,
    ) -> async_graphql::Result<Seen> {
        self.scope(domain, Some(identity.unwrap_or_else(|| own.to_owned())), own)
    }
}

impl Seen {
    /// Whether something of `domain` and `identity` is inside.
    pub(super) fn contains(&self, domain: &str, identity: &str) -> bool {
        self.domain.as_deref().is_none_or(|only| only == domain)
            && self.identity.as_deref().is_none_or(|only| only == identity)
    }
}

fn unknown_role() -> async_graphql::Error {
    async_graphql::Error::new("Unknown client role")
}
