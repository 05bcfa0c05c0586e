//! Signing of API requests, and the verification of signed ones.
//!
//! A client signs method, target, date, host, media type and API version with a key derived from its secret key,
//! the day and the host. Everything that is signed is a header or part of the request line, so a signature can be
//! checked before the body has arrived. Rules: authentication specification, sections 1 to 3 and 6.
//!
//! Verification has two steps, because the secret key is looked up in between:
//!
//! ```
//! use bai_core::signing::{Hash, Presented, RequestHeaders, RequestToSign, VersionHeader};
//!
//! let request = RequestToSign {
//!     method: "GET",
//!     target: "/session/_/match?id=abc",
//!     host: "127.0.0.1:8081",
//!     date: "2024-02-29T12:34:56.789012+00:00",
//!     content_type: "text/plain",
//!     version: VersionHeader::BackendAi("v7.20230615"),
//! };
//! let authorization = request.authorization("AKIAIOSFODNN7EXAMPLE", "secret")?;
//!
//! let headers = RequestHeaders {
//!     authorization: Some(&authorization),
//!     date: Some(request.date),
//!     host: Some(request.host),
//!     content_type: Some("text/plain"),
//!     backendai_version: Some("v7.20230615"),
//!     ..RequestHeaders::default()
//! };
//! let now = "2024-02-29T12:40:00Z".parse().unwrap();
//! let presented = Presented::parse(&headers, now)?.expect("the request is signed");
//! assert_eq!(presented.access_key(), "AKIAIOSFODNN7EXAMPLE");
//! presented.verify("GET", request.target, "secret")?;
//! assert!(presented.verify("GET", "/session/_/match?id=abd", "secret").is_err());
//! # Ok::<(), bai_core::Error>(())
//! ```

mod authorization;
mod date;
mod failure;
mod hash;
mod version;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

pub use authorization::{Presented, RequestHeaders};
pub use date::{CLOCK_TOLERANCE, format_date, parse_date};
pub use failure::AuthFailure;
pub use hash::{Digest, Hash};
pub use version::ApiVersion;

use date::day_of;

/// The media type that is signed when a request has no content type.
pub const DEFAULT_MEDIA_TYPE: &str = "application/octet-stream";

/// The header that carried the API version, with its value. Its name is part of what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionHeader<'a> {
    /// `X-BackendAI-Version`.
    BackendAi(&'a str),
    /// `X-Sorna-Version`, from before the rename.
    Sorna(&'a str),
}

impl<'a> VersionHeader<'a> {
    /// The value of the header.
    pub fn value(self) -> &'a str {
        match self {
            Self::BackendAi(value) | Self::Sorna(value) => value,
        }
    }

    fn line_start(self) -> &'static str {
        match self {
            Self::BackendAi(_) => "\nx-backendai-version:",
            Self::Sorna(_) => "\nx-sorna-version:",
        }
    }
}

/// What a signature covers. The body never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestToSign<'a> {
    /// The method in upper case, after a method override.
    pub method: &'a str,
    /// Path and query exactly as on the request line.
    pub target: &'a str,
    /// Value of the `Host` header.
    pub host: &'a str,
    /// Text of the date header.
    pub date: &'a str,
    /// The media type in lower case, without parameters ([`media_type`]).
    pub content_type: &'a str,
    /// The version header.
    pub version: VersionHeader<'a>,
}

impl RequestToSign<'_> {
    /// The signature in lower-case hexadecimal.
    ///
    /// # Errors
    /// [`AuthFailure::DateOutOfSync`] when the date cannot be read.
    pub fn sign(&self, hash: Hash, secret_key: &str) -> Result<Digest, AuthFailure> {
        let date = parse_date(self.date).ok_or(AuthFailure::DateOutOfSync)?;
        Ok(self.sign_for_day(hash, secret_key, day_of(&date)))
    }

    /// The value of the `Authorization` header, with HMAC-SHA256 as the official clients do.
    ///
    /// # Errors
    /// [`AuthFailure::DateOutOfSync`] when the date cannot be read.
    pub fn authorization(
        &self,
        access_key: impl fmt::Display,
        secret_key: &str,
    ) -> Result<String, AuthFailure> {
        self.authorization_with(Hash::Sha256, access_key, secret_key)
    }

    /// The value of the `Authorization` header with another hash.
    ///
    /// # Errors
    /// [`AuthFailure::DateOutOfSync`] when the date cannot be read.
    pub fn authorization_with(
        &self,
        hash: Hash,
        access_key: impl fmt::Display,
        secret_key: &str,
    ) -> Result<String, AuthFailure> {
        let signature = self.sign(hash, secret_key)?;
        let method = hash.name().to_ascii_uppercase();
        Ok(format!("BackendAI signMethod=HMAC-{method}, credential={access_key}:{signature}"))
    }

    fn sign_for_day(&self, hash: Hash, secret_key: &str, day: [u8; 8]) -> Digest {
        let key = signing_key(hash, secret_key, day, self.host);
        hash.hmac(key.as_bytes(), &self.string_to_sign(hash).map(str::as_bytes))
    }

    /// The string to sign in pieces, so that it need not be put together.
    fn string_to_sign(&self, hash: Hash) -> [&str; 12] {
        [
            self.method,
            "\n",
            self.target,
            "\n",
            self.date,
            "\nhost:",
            self.host,
            "\ncontent-type:",
            self.content_type,
            self.version.line_start(),
            self.version.value(),
            hash.empty_line(),
        ]
    }
}

/// The key of the signature: derived from the secret, first for the day, then for the host.
fn signing_key(hash: Hash, secret_key: &str, day: [u8; 8], host: &str) -> Digest {
    let for_day = hash.hmac(secret_key.as_bytes(), &[&day]);
    hash.hmac(for_day.as_bytes(), &[host.as_bytes()])
}

/// The media type part of a `Content-Type` header in lower case, or the default when there is none.
pub fn media_type(content_type: Option<&str>) -> Cow<'_, str> {
    let value = content_type.unwrap_or_default();
    let media_type = value.split_once(';').map_or(value, |(media_type, _)| media_type).trim();
    if media_type.is_empty() {
        Cow::Borrowed(DEFAULT_MEDIA_TYPE)
    } else if media_type.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(media_type.to_ascii_lowercase())
    } else {
        Cow::Borrowed(media_type)
    }
}
