//! Session endpoints (spec rest-manager.md, section 2).

pub(super) mod create;
pub(super) mod files;
pub(super) mod info;
pub(super) mod lifecycle;
pub(super) mod lookup;
pub(super) mod run;
pub(super) mod services;
pub(super) mod template;
pub(super) mod waiting;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use bai_core::error::code;

use super::Gateway;
use super::auth::Auth;
use super::failure::Failure;
use super::params::OwnerOnly;
use crate::identity::Scope;

/// The `{reference}` of a path: a session id or name.
#[derive(Debug)]
pub(super) struct Reference(pub(super) String);

impl FromRequestParts<Gateway> for Reference {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Gateway) -> Result<Self, Failure> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(reference)) => Ok(Self(reference)),
            Err(_) => Err(Failure::of(code::SESSION_NOT_FOUND, "the session reference is not a text")),
        }
    }
}

/// A session and for whom it is looked up, for endpoints without other parameters.
#[derive(Debug)]
pub(super) struct Target {
    /// For whom.
    pub(super) scope: Scope,
    /// Which session.
    pub(super) reference: String,
}

impl FromRequest<Gateway> for Target {
    type Rejection = Failure;

    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let auth = Auth::from_request_parts(&mut parts, gateway).await?;
        let Reference(reference) = Reference::from_request_parts(&mut parts, gateway).await?;
        let params = OwnerOnly::from_request(Request::from_parts(parts, body), gateway).await?;
        let scope = auth.scope(gateway, params.owner()).await?;
        Ok(Self { scope, reference })
    }
}
