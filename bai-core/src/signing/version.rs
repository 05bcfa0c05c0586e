//! Versions of the API.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::VersionHeader;
use crate::error::{Error, Result, code};

/// A version of the API, such as `v7.20230615`. Later versions are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    major: u16,
    revision: u32,
}

impl ApiVersion {
    /// The version of 23.09.
    pub const V7: Self = Self::new(7, 2023, 6, 15);
    /// The version of 26.8.
    pub const V9: Self = Self::new(9, 2025, 7, 22);
    /// Assumed when an unsigned request has no version header.
    pub const ASSUMED: Self = Self::new(5, 2019, 12, 15);

    /// Every version accepted in a request header: those of 23.09.10 and those of 26.8, the oldest first.
    pub const ACCEPTED: [Self; 15] = [
        Self::new(4, 2018, 12, 15),
        Self::new(4, 2019, 1, 15),
        Self::new(4, 2019, 3, 15),
        Self::new(4, 2019, 6, 15),
        Self::ASSUMED,
        Self::new(6, 2020, 8, 15),
        Self::new(6, 2021, 8, 15),
        Self::new(6, 2022, 3, 15),
        Self::new(6, 2022, 6, 15),
        Self::new(6, 2022, 12, 1),
        Self::new(6, 2023, 3, 15),
        Self::V7,
        Self::new(8, 2024, 3, 15),
        Self::new(8, 2024, 9, 15),
        Self::V9,
    ];

    /// From its major number and the day of its revision.
    pub const fn new(major: u16, year: u32, month: u32, day: u32) -> Self {
        Self { major, revision: (year * 100 + month) * 100 + day }
    }

    /// The major number.
    pub const fn major(self) -> u16 {
        self.major
    }

    /// The revision, a date written `yyyymmdd`.
    pub const fn revision(self) -> u32 {
        self.revision
    }

    /// The version a client and a server speak: the older one.
    #[must_use]
    pub fn negotiated_with(self, other: Self) -> Self {
        self.min(other)
    }

    /// The version a request is made in. Without a header it is [`ApiVersion::ASSUMED`].
    ///
    /// # Errors
    /// `Invalid` when the header has anything but an accepted version.
    pub fn of_request(header: Option<VersionHeader<'_>>) -> Result<Self> {
        let Some(header) = header else { return Ok(Self::ASSUMED) };
        let version = parse(header.value()).filter(|version| Self::ACCEPTED.contains(version));
        version.ok_or_else(|| Error::of(code::UNSUPPORTED_VERSION, "Unsupported API version."))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{:08}", self.major, self.revision)
    }
}

impl FromStr for ApiVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text)
            .ok_or_else(|| Error::of(code::UNSUPPORTED_VERSION, "not an API version").with("value", text))
    }
}

fn parse(text: &str) -> Option<ApiVersion> {
    let (major, revision) = text.strip_prefix('v')?.split_once('.')?;
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(major) || major.starts_with('0') || !is_digits(revision) || revision.len() != 8 {
        return None;
    }
    Some(ApiVersion { major: major.parse().ok()?, revision: revision.parse().ok()? })
}

impl Serialize for ApiVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ApiVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_exactly_the_known_versions() {
        assert!(ApiVersion::ACCEPTED.is_sorted());
        for version in ApiVersion::ACCEPTED {
            let text = version.to_string();
            assert_eq!(ApiVersion::of_request(Some(VersionHeader::BackendAi(&text))).unwrap(), version);
            assert_eq!(ApiVersion::of_request(Some(VersionHeader::Sorna(&text))).unwrap(), version);
        }
        for text in [
            "",
            "v7",
            "7.20230615",
            "v7.20230616",
            "v2.20170215",
            "V7.20230615",
            "v07.20230615",
            "v7.+2023061",
        ] {
            let error = ApiVersion::of_request(Some(VersionHeader::BackendAi(text))).unwrap_err();
            assert_eq!(
                (error.code(), error.to_string().as_str()),
                (code::UNSUPPORTED_VERSION, "Unsupported API version.")
            );
        }
        assert_eq!(ApiVersion::of_request(None).unwrap().to_string(), "v5.20191215");
    }

    #[test]
    fn the_older_side_decides() {
        assert_eq!(ApiVersion::V9.negotiated_with(ApiVersion::V7), ApiVersion::V7);
        assert!("v10.20300101".parse::<ApiVersion>().unwrap() > ApiVersion::V9);
        assert_eq!(serde_json::to_string(&ApiVersion::V7).unwrap(), "\"v7.20230615\"");
    }
}
