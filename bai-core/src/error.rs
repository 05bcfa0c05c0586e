//! One opaque error for every public function, and the one table that maps it to the edges.
//!
//! The [`ErrorKind`] tells the caller what to do; the [`Code`] tells the human what happened and is explained
//! in `docs/errors/`. HTTP status, problem type, title, exit code and binding class are functions of the
//! two ([`code`], [`ErrorKind`]); nothing else decides them.

pub mod code;
pub mod problem;

use std::error::Error as StdError;
use std::fmt;

use serde_json::Value;

pub use code::Code;
pub use problem::Problem;

/// The result of every fallible public function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong: change it.
    Invalid,
    /// Prove who you are.
    Unauthorized,
    /// You may not do this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The name or id is taken.
    AlreadyExists,
    /// Lost a compare-and-swap: reload and retry.
    Conflict,
    /// Wait, or ask for less.
    QuotaExceeded,
    /// A dependency is down: retry with back-off.
    Unavailable,
    /// The deadline passed: the outcome is unknown, retry idempotently.
    Timeout,
    /// This back end cannot do it.
    Unsupported,
    /// A defect of ours.
    Internal,
}

impl ErrorKind {
    /// Every kind, for exhaustive tests of the mappings.
    pub const ALL: [Self; 11] = [
        Self::Invalid,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::AlreadyExists,
        Self::Conflict,
        Self::QuotaExceeded,
        Self::Unavailable,
        Self::Timeout,
        Self::Unsupported,
        Self::Internal,
    ];

    /// Whether trying the same call again can help. Retry layers look at nothing else.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::Unavailable | Self::Timeout)
    }

    /// Exit code of a command: 2 usage, 3 timeout, 4 invalid argument, 1 everything else
    /// (the codes of the official command line client).
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Timeout => 3,
            Self::Invalid => 4,
            _ => 1,
        }
    }

    /// Class name of the exception that language bindings raise.
    pub fn binding_class(self) -> &'static str {
        match self {
            Self::Invalid => "InvalidError",
            Self::Unauthorized => "UnauthorizedError",
            Self::Forbidden => "ForbiddenError",
            Self::NotFound => "NotFoundError",
            Self::AlreadyExists => "AlreadyExistsError",
            Self::Conflict => "ConflictError",
            Self::QuotaExceeded => "QuotaExceededError",
            Self::Unavailable => "UnavailableError",
            Self::Timeout => "TimeoutError",
            Self::Unsupported => "UnsupportedError",
            Self::Internal => "InternalError",
        }
    }

    /// The code of an error that names none of its own.
    fn default_code(self) -> Code {
        match self {
            Self::Invalid => code::INVALID_PARAMETERS,
            Self::Unauthorized => code::UNAUTHORIZED,
            Self::Forbidden => code::FORBIDDEN,
            Self::NotFound => code::OBJECT_NOT_FOUND,
            Self::AlreadyExists => code::ALREADY_EXISTS,
            Self::Conflict => code::CONFLICT,
            Self::QuotaExceeded => code::QUOTA_EXCEEDED,
            Self::Unavailable => code::UNAVAILABLE,
            Self::Timeout => code::TIMEOUT,
            Self::Unsupported => code::UNSUPPORTED,
            Self::Internal => code::INTERNAL,
        }
    }
}

/// An error: kind, stable code, message, context, cause. The size of a pointer.
pub struct Error(Box<Repr>);

struct Repr {
    code: Code,
    message: String,
    context: Vec<(&'static str, String)>,
    data: Option<Value>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` under the kind's general code.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::of(kind.default_code(), message)
    }

    /// An error under a code of its own, which decides the kind.
    pub fn of(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Repr { code, message: message.into(), context: Vec::new(), data: None, source: None }))
    }

    /// Adds a value that helps to find the cause.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Sets the `data` member of the problem body.
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        self.0.data = Some(data);
        self
    }

    /// Keeps the cause. It is never shown to API clients.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.code.kind()
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message alone, without context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The values given by [`Error::with`].
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// The `data` member of the problem body, if one was set.
    pub fn problem_data(&self) -> Option<&Value> {
        self.0.data.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (i, (key, value)) in self.0.context.iter().enumerate() {
            f.write_str(if i == 0 { " (" } else { ", " })?;
            write!(f, "{key}: {value}")?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}: {self}", self.0.code.id(), self.kind())?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_maps_to_every_edge() {
        for kind in ErrorKind::ALL {
            let error = Error::new(kind, "x");
            assert_eq!(error.kind(), kind);
            assert!(error.code().problem().status() >= 400);
            assert!((1..=4).contains(&kind.exit_code()));
            assert!(kind.binding_class().ends_with("Error"));
        }
    }

    #[test]
    fn message_carries_context_and_hides_the_cause() {
        let error = Error::new(ErrorKind::NotFound, "no such session")
            .with("name", "abc")
            .source(std::io::Error::other("disk"));
        assert_eq!(error.to_string(), "no such session (name: abc)");
        assert!(format!("{error:?}").contains("disk"));
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
