//! Why a request is not accepted as signed.

use std::fmt;
use std::net::IpAddr;

use crate::error::{Code, Error, code};

/// Why a request is not authenticated. The texts are those of the original service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthFailure {
    /// The `Authorization` header has no space. Status 400.
    MalformedHeader,
    /// The type of the `Authorization` header is neither `BackendAI` nor `Sorna`. Status 400.
    InvalidType,
    /// `signMethod` or `credential` is missing or malformed. Status 400.
    MalformedParameters,
    /// The date is missing, unreadable, or 15 minutes or more off. Status 400.
    DateOutOfSync,
    /// The first part of the signing method is not `HMAC`. Status 400.
    UnsupportedMac,
    /// The second part of the signing method is no hash we know. Status 400.
    UnsupportedHash,
    /// There is no version header. Status 400.
    VersionMissing,
    /// The request is anonymous where it must not be. Status 401.
    Unauthorized,
    /// The access key is unknown or inactive. Status 401.
    AccessKeyNotFound,
    /// The signing method does not have exactly two parts. Status 401.
    InvalidSignature,
    /// The signature is not the expected one. Status 401.
    SignatureMismatch,
    /// The user may not come from this address. Status 401.
    AddressNotAllowed(IpAddr),
}

impl AuthFailure {
    /// The error code, which decides problem type and status.
    pub fn code(self) -> Code {
        match self {
            Self::MalformedHeader
            | Self::InvalidType
            | Self::MalformedParameters
            | Self::DateOutOfSync
            | Self::UnsupportedMac
            | Self::UnsupportedHash
            | Self::VersionMissing => code::INVALID_AUTH,
            Self::Unauthorized
            | Self::AccessKeyNotFound
            | Self::InvalidSignature
            | Self::SignatureMismatch
            | Self::AddressNotAllowed(_) => code::AUTH_FAILED,
        }
    }
}

impl fmt::Display for AuthFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::MalformedHeader => "Malformed authorization header",
            Self::InvalidType => "Invalid authorization type name",
            Self::MalformedParameters => "Missing or malformed authorization parameters",
            Self::DateOutOfSync => "Date/time sync error",
            Self::UnsupportedMac => "Unsupported request signing method (MAC type)",
            Self::UnsupportedHash => "Unsupported request signing method (hash type)",
            Self::VersionMissing => "API version missing in request headers",
            Self::Unauthorized => "Unauthorized access",
            Self::AccessKeyNotFound => "Access key not found",
            Self::InvalidSignature => "Invalid signature",
            Self::SignatureMismatch => "Signature mismatch",
            Self::AddressNotAllowed(address) => return write!(f, "'{address}' is not allowed IP address"),
        };
        f.write_str(text)
    }
}

impl std::error::Error for AuthFailure {}

impl From<AuthFailure> for Error {
    fn from(failure: AuthFailure) -> Self {
        Self::of(failure.code(), failure.to_string())
    }
}
