//! Who signed the request (spec auth.md, sections 2 to 4).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HOST};
use axum::http::request::Parts;
use bai_core::error::code;
use bai_core::identity::{Credential, UserStatus};
use bai_core::signing::{AuthFailure, Presented, RequestHeaders};
use bai_core::{Error, ErrorKind};

use super::Gateway;
use super::failure::Failure;
use super::pipeline::Wire;
use super::serve::PeerAddr;
use crate::identity::Scope;

/// The keypair that signed the request. As an extractor it makes a route auth-required.
#[derive(Debug, Clone)]
pub(super) struct Auth(pub(super) Arc<Credential>);

impl Auth {
    /// For whom the request acts.
    ///
    /// # Errors
    /// As [`crate::IdentityService::scope`].
    pub(super) async fn scope(&self, gateway: &Gateway, owner: Option<&str>) -> Result<Scope, Failure> {
        if owner.is_none() {
            return Ok(Scope::own(self.0.clone()));
        }
        Ok(gateway.manager().identities().scope(self.0.clone(), owner).await?)
    }
}

impl From<AuthFailure> for Failure {
    fn from(failure: AuthFailure) -> Self {
        Self(failure.into())
    }
}

impl FromRequestParts<Gateway> for Auth {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Failure> {
        let wire = wire(parts)?;
        let credential = verify(parts, wire, gateway).await?;
        if let Some(peer) = parts.extensions.get::<PeerAddr>() {
            check_address(&credential, peer.0.ip())?;
        }
        let rate = gateway.manager().identities().hit_rate_limit(&credential).await?;
        wire.set_rate(rate);
        if rate.exceeded {
            return Err(Failure::of(code::RATE_LIMITED, "too many requests"));
        }
        Ok(Self(credential))
    }
}

/// What the pipeline remembered of the request.
pub(super) fn wire(parts: &Parts) -> Result<&Wire, Failure> {
    let missing = || Failure(Error::new(ErrorKind::Internal, "the request has not passed the pipeline"));
    parts.extensions.get::<Wire>().ok_or_else(missing)
}

async fn verify(parts: &Parts, wire: &Wire, gateway: &Gateway) -> Result<Arc<Credential>, Failure> {
    let headers = signed_headers(&parts.headers, wire);
    let now = gateway.manager().backends().clock.now();
    let presented = Presented::parse(&headers, now)?.ok_or(AuthFailure::Unauthorized)?;
    let credential = gateway.manager().identities().credential(presented.access_key()).await?;
    let credential =
        credential.filter(|found| found.keypair.is_active).ok_or(AuthFailure::AccessKeyNotFound)?;
    presented.verify(parts.method.as_str(), wire.target(), credential.keypair.secret_key.reveal())?;
    if credential.user.status != UserStatus::Active {
        return Err(AuthFailure::Unauthorized.into());
    }
    Ok(credential)
}

fn signed_headers<'a>(headers: &'a HeaderMap, wire: &'a Wire) -> RequestHeaders<'a> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    RequestHeaders {
        authorization: text(AUTHORIZATION.as_str()),
        date: text(DATE.as_str()),
        backendai_date: text("x-backendai-date"),
        sorna_date: text("x-sorna-date"),
        host: text(HOST.as_str()).or_else(|| wire.authority()),
        content_type: text(CONTENT_TYPE.as_str()),
        backendai_version: text("x-backendai-version"),
        sorna_version: text("x-sorna-version"),
    }
}

fn check_address(credential: &Credential, peer: IpAddr) -> Result<(), AuthFailure> {
    let allowed = &credential.user.allowed_client_ip;
    let peer = peer.to_canonical();
    if allowed.is_empty() || allowed.iter().any(|network| contains(network, peer)) {
        Ok(())
    } else {
        Err(AuthFailure::AddressNotAllowed(peer))
    }
}

/// Whether a network in CIDR notation, or a single address, contains `address`.
fn contains(network: &str, address: IpAddr) -> bool {
    let (base, length) =
        network.split_once('/').map_or((network, None), |(base, length)| (base, Some(length)));
    let Ok(base) = base.trim().parse::<IpAddr>() else { return false };
    let (base, address, bits) = match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => (base.to_bits().into(), address.to_bits().into(), 32),
        (IpAddr::V6(base), IpAddr::V6(address)) => (base.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let length = length.map_or(Some(bits), |length| length.trim().parse::<u32>().ok());
    let Some(ignored) = length.and_then(|length| bits.checked_sub(length)) else { return false };
    let prefix = |value: u128| value.checked_shr(ignored).unwrap_or(0);
    prefix(base) == prefix(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("192.168.1.5", "192.168.1.5", true),
            ("192.168.1.5/32", "192.168.1.6", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("::/0", "fe80::1", true),
            ("fd00::/8", "fd12::1", true),
            ("10.0.0.0/8", "fd12::1", false),
            ("10.0.0.0/33", "10.0.0.1", false),
            ("nonsense", "10.0.0.1", false),
        ] {
            assert_eq!(contains(network, address.parse().unwrap()), expected, "{network} {address}");
        }
    }
}
