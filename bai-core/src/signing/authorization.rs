//! What a signed request presents, and whether it is right.

use std::borrow::Cow;

use subtle::ConstantTimeEq;

use super::date::day_of;
use super::{AuthFailure, CLOCK_TOLERANCE, Hash, RequestToSign, VersionHeader, media_type, parse_date};
use crate::clock::Timestamp;

/// The headers that authentication looks at, as received.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestHeaders<'a> {
    /// `Authorization`.
    pub authorization: Option<&'a str>,
    /// `Date`.
    pub date: Option<&'a str>,
    /// `X-BackendAI-Date`, used when there is no `Date`.
    pub backendai_date: Option<&'a str>,
    /// `X-Sorna-Date`, used when there is neither.
    pub sorna_date: Option<&'a str>,
    /// `Host`.
    pub host: Option<&'a str>,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `X-BackendAI-Version`.
    pub backendai_version: Option<&'a str>,
    /// `X-Sorna-Version`, used when there is no `X-BackendAI-Version`.
    pub sorna_version: Option<&'a str>,
}

impl<'a> RequestHeaders<'a> {
    /// The text of the date header in effect.
    fn date(&self) -> Option<&'a str> {
        [self.date, self.backendai_date, self.sorna_date].into_iter().find_map(present)
    }

    fn version(&self) -> Option<VersionHeader<'a>> {
        let current = present(self.backendai_version).map(VersionHeader::BackendAi);
        current.or_else(|| present(self.sorna_version).map(VersionHeader::Sorna))
    }
}

fn present(header: Option<&str>) -> Option<&str> {
    header.filter(|value| !value.is_empty())
}

/// A well-formed and timely claim that a request was signed with the secret of an access key.
#[derive(Debug, Clone)]
pub struct Presented<'a> {
    access_key: &'a str,
    signature: &'a str,
    hash: Hash,
    date: &'a str,
    day: [u8; 8],
    host: &'a str,
    media_type: Cow<'a, str>,
    version: VersionHeader<'a>,
}

impl<'a> Presented<'a> {
    /// Reads the headers of a request. `None` means the request is anonymous. Its date is checked all the same,
    /// and before anything else.
    ///
    /// # Errors
    /// The first thing that is wrong with the headers.
    pub fn parse(headers: &RequestHeaders<'a>, now: Timestamp) -> Result<Option<Self>, AuthFailure> {
        let date = headers.date().ok_or(AuthFailure::DateOutOfSync)?;
        let parsed = parse_date(date).ok_or(AuthFailure::DateOutOfSync)?;
        if parsed.to_utc().signed_duration_since(now).abs() >= CLOCK_TOLERANCE {
            return Err(AuthFailure::DateOutOfSync);
        }
        let Some(authorization) = present(headers.authorization) else { return Ok(None) };
        let claim = Claim::parse(authorization)?;
        Ok(Some(Self {
            access_key: claim.access_key,
            signature: claim.signature,
            hash: sign_method(claim.sign_method)?,
            date,
            day: day_of(&parsed),
            host: headers.host.unwrap_or_default(),
            media_type: media_type(headers.content_type),
            version: headers.version().ok_or(AuthFailure::VersionMissing)?,
        }))
    }

    /// The access key whose secret the request claims to be signed with.
    pub fn access_key(&self) -> &'a str {
        self.access_key
    }

    /// The hash of the signing method.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The API version header.
    pub fn version(&self) -> VersionHeader<'a> {
        self.version
    }

    /// Compares the signature, in constant time, with that of a request of this method (after an override) and
    /// target (as on the request line).
    ///
    /// # Errors
    /// [`AuthFailure::SignatureMismatch`] when they differ.
    pub fn verify(&self, method: &str, target: &str, secret_key: &str) -> Result<(), AuthFailure> {
        let request = RequestToSign {
            method,
            target,
            host: self.host,
            date: self.date,
            content_type: &self.media_type,
            version: self.version,
        };
        let expected = request.sign_for_day(self.hash, secret_key, self.day);
        let is_equal = expected.to_hex().as_bytes().ct_eq(self.signature.as_bytes());
        if is_equal.into() { Ok(()) } else { Err(AuthFailure::SignatureMismatch) }
    }
}

/// The parts of an `Authorization` header.
struct Claim<'a> {
    sign_method: &'a str,
    access_key: &'a str,
    signature: &'a str,
}

impl<'a> Claim<'a> {
    fn parse(header: &'a str) -> Result<Self, AuthFailure> {
        let (scheme, parameters) = header.split_once(' ').ok_or(AuthFailure::MalformedHeader)?;
        if !matches!(scheme, "BackendAI" | "Sorna") {
            return Err(AuthFailure::InvalidType);
        }
        let (mut sign_method, mut credential) = (None, None);
        for parameter in parameters.split(',') {
            let (key, value) = parameter.split_once('=').ok_or(AuthFailure::MalformedParameters)?;
            match key.trim() {
                "signMethod" => sign_method = Some(value.trim()),
                "credential" => credential = Some(value.trim()),
                _ => {}
            }
        }
        let credential = credential.and_then(|credential| credential.split_once(':'));
        let (access_key, signature) = credential.ok_or(AuthFailure::MalformedParameters)?;
        let sign_method = sign_method.ok_or(AuthFailure::MalformedParameters)?;
        Ok(Self { sign_method, access_key, signature })
    }
}

fn sign_method(text: &str) -> Result<Hash, AuthFailure> {
    let (mac, hash) = text.split_once('-').ok_or(AuthFailure::InvalidSignature)?;
    if hash.contains('-') {
        return Err(AuthFailure::InvalidSignature);
    }
    if !mac.eq_ignore_ascii_case("hmac") {
        return Err(AuthFailure::UnsupportedMac);
    }
    Hash::from_name(hash).ok_or(AuthFailure::UnsupportedHash)
}
