//! References to images: `[registry/][project/]name:tag`, and what their tags say.
//!
//! Rules: image specification, section 1.
//!
//! ```
//! use bai_core::image_ref::ImageRef;
//!
//! let image: ImageRef = "cr.backend.ai/stable/python:3.9-ubuntu20.04-py310".parse()?;
//! assert_eq!(image.registry(), Some("cr.backend.ai"));
//! assert_eq!(image.name(), "python");
//! let tag = image.tag_pieces()?;
//! assert_eq!(tag.version, "3.9");
//! assert_eq!(tag.platform("ubuntu"), Some("20.04"));
//! # Ok::<(), bai_core::Error>(())
//! ```

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};

/// The tag of a reference that names none.
pub const DEFAULT_TAG: &str = "latest";

const MAX_PATH: usize = 255;
const MAX_TAG: usize = 128;

/// A reference to an image. Its text is the canonical form, always with a tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    registry: Option<String>,
    project: Option<String>,
    name: String,
    tag: String,
}

impl ImageRef {
    /// Host and port of the registry. The first part of a reference is one when it has a dot or a colon, or is
    /// `localhost`, and something follows it.
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// The project, which may have several levels separated by slashes.
    pub fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// The name without project.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Project and name.
    pub fn path(&self) -> String {
        self.project().map_or_else(|| self.name.clone(), |project| format!("{project}/{}", self.name))
    }

    /// The same reference, on `registry` if it names none.
    #[must_use]
    pub fn or_registry(mut self, registry: &str) -> Self {
        self.registry.get_or_insert_with(|| registry.to_owned());
        self
    }

    /// What the tag says: a version, and the platform it was built on.
    ///
    /// # Errors
    /// `Invalid` when the tag does not follow that scheme, which is no fault of an image from elsewhere.
    pub fn tag_pieces(&self) -> Result<TagPieces<'_>> {
        TagPieces::parse(&self.tag)
    }
}

impl FromStr for ImageRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid =
            |message| Error::new(ErrorKind::Invalid, message).with("image", format_args!("{text:?}"));
        if text.contains('@') {
            return Err(invalid("an image is referred to by its tag, not by a digest"));
        }
        let (registry, rest) = match text.split_once('/') {
            Some((first, rest)) if is_registry(first) => (Some(first), rest),
            _ => (None, text),
        };
        let (path, tag) = rest.split_once(':').unwrap_or((rest, DEFAULT_TAG));
        let (project, name) =
            path.rsplit_once('/').map_or((None, path), |(project, name)| (Some(project), name));
        if registry.is_some_and(|registry| !is_host(registry)) {
            return Err(invalid("the registry is not a host with an optional port"));
        }
        if path.len() > MAX_PATH || !path.split('/').all(is_component) {
            return Err(invalid(
                "the name of an image consists of lower-case letters, digits, and single separators",
            ));
        }
        if !is_tag(tag) {
            return Err(invalid("the tag of an image consists of letters, digits, `_`, `.` and `-`"));
        }
        Ok(Self {
            registry: registry.map(str::to_owned),
            project: project.map(str::to_owned),
            name: name.to_owned(),
            tag: tag.to_owned(),
        })
    }
}

fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':'])
}

/// A host name or address, with an optional port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
            (
                if is_address { "v6" } else { "" },
                if port.is_empty() { None } else { port.strip_prefix(':').or(Some("")) },
            )
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_name = host.split('.').all(|label| {
        let edges = label.starts_with(|c: char| c.is_ascii_alphanumeric())
            && label.ends_with(|c: char| c.is_ascii_alphanumeric());
        edges && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    });
    is_name
        && port
            .is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

/// Letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let has_edges =
        bytes.first().is_some_and(|byte| is_plain(*byte)) && bytes.last().is_some_and(|byte| is_plain(*byte));
    has_edges
        && text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.registry, &self.project].into_iter().flatten() {
            write!(f, "{part}/")?;
        }
        write!(f, "{}:{}", self.name, self.tag)
    }
}

impl Serialize for ImageRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a tag such as `3.9-ubuntu20.04-py310` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagPieces<'a> {
    /// The piece before the first `-`.
    pub version: &'a str,
    /// The other pieces in their order: letters, and the version that follows them or nothing.
    pub platform: Vec<(&'a str, &'a str)>,
}

impl<'a> TagPieces<'a> {
    fn parse(tag: &'a str) -> Result<Self> {
        let invalid = |message| Error::new(ErrorKind::Invalid, message).with("tag", tag);
        let mut pieces = tag.split('-');
        let version = pieces.next().unwrap_or_default();
        let mut platform: Vec<(&str, &str)> = Vec::new();
        for piece in pieces {
            let end = piece.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(piece.len());
            let (key, value) = piece.split_at(end);
            if key.is_empty() {
                return Err(invalid("a platform tag must begin with a letter"));
            }
            if platform.iter().any(|(other, _)| *other == key) {
                return Err(invalid("a platform tag is given twice"));
            }
            platform.push((key, value));
        }
        Ok(Self { version, platform })
    }

    /// The version of a platform tag, empty when it has none; `None` when the tag is not there.
    pub fn platform(&self, key: &str) -> Option<&'a str> {
        self.platform.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }
}

/// The name of a processor architecture that we use for all its aliases: `x86_64` for `amd64` and `x64`, `aarch64`
/// for `arm64`. Others stay as they are.
pub fn canonical_architecture(name: &str) -> &str {
    const ALIASES: [(&str, &str); 5] = [
        ("amd64", "x86_64"),
        ("x64", "x86_64"),
        ("x86_64", "x86_64"),
        ("arm64", "aarch64"),
        ("aarch64", "aarch64"),
    ];
    ALIASES
        .iter()
        .find(|(alias, _)| name.eq_ignore_ascii_case(alias))
        .map_or(name, |(_, canonical)| canonical)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts() {
        for (text, registry, project, name, tag) in [
            ("python", None, None, "python", "latest"),
            ("python:3.12", None, None, "python", "3.12"),
            ("stable/python:3.12", None, Some("stable"), "python", "3.12"),
            ("a/b/python", None, Some("a/b"), "python", "latest"),
            ("localhost/python", Some("localhost"), None, "python", "latest"),
            ("localhost:5000/python:1", Some("localhost:5000"), None, "python", "1"),
            (
                "cr.backend.ai/stable/python-ff:24.03-py310",
                Some("cr.backend.ai"),
                Some("stable"),
                "python-ff",
                "24.03-py310",
            ),
            ("10.0.0.1:80/a/b/c_d:x", Some("10.0.0.1:80"), Some("a/b"), "c_d", "x"),
            ("[::1]:5000/a:b", Some("[::1]:5000"), None, "a", "b"),
            ("[::1]/a:b", Some("[::1]"), None, "a", "b"),
            (
                "index.docker.io/lablup/kernel-base__x:py3.6--",
                Some("index.docker.io"),
                Some("lablup"),
                "kernel-base__x",
                "py3.6--",
            ),
        ] {
            let image: ImageRef = text.parse().unwrap();
            assert_eq!(
                (image.registry(), image.project(), image.name(), image.tag()),
                (registry, project, name, tag),
                "{text}"
            );
            assert_eq!(image.to_string().parse::<ImageRef>().unwrap(), image);
        }
        let image: ImageRef = "stable/python".parse().unwrap();
        assert_eq!(image.path(), "stable/python");
        assert_eq!(image.or_registry("cr.example.com").to_string(), "cr.example.com/stable/python:latest");
        assert_eq!("a.b/c".parse::<ImageRef>().unwrap().or_registry("x").registry(), Some("a.b"));
    }

    #[test]
    fn refused() {
        for text in [
            "",
            ":",
            "/",
            ":tag",
            "python:",
            "Python",
            "python:a b",
            "python:-x",
            "python:.x",
            "a//b",
            "/python",
            "python/",
            "a/../b",
            "../x",
            "py..thon",
            "py___thon",
            "-python",
            "python-",
            "a:b:c",
            "a:b/c",
            "cr.backend.ai/",
            "cr.backend.ai:x/a",
            "cr.backend.ai:99999/a",
            "cr.backend.ai:+1/a",
            "[::g]/a",
            "[::1]x/a",
            "-a.b/c",
            "python@sha256:abc",
            "한글",
            "python:한글",
            "a b",
            "$(id)",
            "python:1;id",
        ] {
            assert!(text.parse::<ImageRef>().is_err(), "{text}");
        }
        assert!("a".repeat(MAX_PATH).parse::<ImageRef>().is_ok());
        assert!("a".repeat(MAX_PATH + 1).parse::<ImageRef>().is_err());
        assert!(format!("a:{}", "b".repeat(MAX_TAG + 1)).parse::<ImageRef>().is_err());
        assert!(serde_json::from_str::<ImageRef>("\"A\"").is_err());
        assert_eq!(serde_json::from_str::<ImageRef>("\"a\\u0062\"").unwrap().to_string(), "ab:latest");
    }

    #[test]
    fn tag_pieces() {
        let pieces = |tag: &'static str| TagPieces::parse(tag);
        let read = pieces("2.15-ubuntu22.04-py310-cuda12.1-tf").unwrap();
        assert_eq!(read.version, "2.15");
        assert_eq!(read.platform, [("ubuntu", "22.04"), ("py", "310"), ("cuda", "12.1"), ("tf", "")]);
        assert_eq!(
            (read.platform("cuda"), read.platform("tf"), read.platform("rocm")),
            (Some("12.1"), Some(""), None)
        );
        assert_eq!(pieces("latest").unwrap(), TagPieces { version: "latest", platform: Vec::new() });
        for bad in ["1-py36-py37", "1-2", "1-", "1--py36"] {
            assert!(pieces(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn architectures() {
        for (name, expected) in [
            ("amd64", "x86_64"),
            ("x64", "x86_64"),
            ("x86_64", "x86_64"),
            ("X86_64", "x86_64"),
            ("arm64", "aarch64"),
            ("aarch64", "aarch64"),
            ("riscv64", "riscv64"),
        ] {
            assert_eq!(canonical_architecture(name), expected);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<ImageRef>().map(|image| image.tag_pieces().is_ok());
        }

        #[test]
        fn accepted_text_reads_back(text in "([a-z]{1,3}[.:/]){0,3}[a-z0-9._-]{1,6}(:[a-zA-Z0-9._-]{1,8})?") {
            if let Ok(image) = text.parse::<ImageRef>() {
                prop_assert_eq!(image.to_string().parse::<ImageRef>().unwrap(), image);
            }
        }
    }
}
