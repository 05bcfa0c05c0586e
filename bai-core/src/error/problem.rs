//! Problem types of the API: `application/problem+json` bodies (RFC 9457 with the members `msg` and `data`
//! that the official clients read).

use serde_json::{Map, Value, json};

use super::Error;

/// Prefix of every problem type URI.
pub const TYPE_BASE: &str = "https://api.backend.ai/probs/";

macro_rules! problems {
    ($($name:ident $slug:literal $status:literal;)*) => {
        /// The type of a problem: its slug and HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Problem { $(#[doc = concat!("`", $slug, "`, status ", stringify!($status), ".")] $name,)* }

        impl Problem {
            /// Every problem type.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Last part of the type URI.
            pub fn slug(self) -> &'static str {
                match self { $(Self::$name => $slug),* }
            }

            /// HTTP status code.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }
        }
    };
}

problems! {
    UrlNotFound "url-not-found" 404;
    ObjectNotFound "object-not-found" 404;
    BadRequest "generic-bad-request" 400;
    Forbidden "generic-forbidden" 403;
    InsufficientPrivilege "insufficient-privilege" 403;
    MethodNotAllowed "method-not-allowed" 405;
    Internal "internal-server-error" 500;
    Misconfigured "server-misconfigured" 500;
    Unavailable "service-unavailable" 503;
    NotImplemented "not-implemented" 503;
    InvalidAuthParams "invalid-auth-params" 400;
    AuthFailed "auth-failed" 401;
    InvalidApiParams "invalid-api-params" 400;
    GraphQl "graphql-error" 400;
    TooManySessions "too-many-sessions-matched" 404;
    SessionExists "session-already-exists" 400;
    QuotaExceeded "quota-exceeded" 412;
    RateLimited "rate-limit-exceeded" 429;
    NoInstance "instance-not-available" 503;
    Frozen "server-frozen" 503;
    KernelCreation "kernel-creation-failed" 500;
    KernelDestruction "kernel-destruction-failed" 500;
    KernelRestart "kernel-restart-failed" 500;
    KernelExecution "kernel-execution-failed" 500;
    General "general-error" 409;
}

impl Problem {
    /// Whether the failure is the agent's, which clients show from the member `agent-details`.
    fn is_agent_side(self) -> bool {
        matches!(
            self,
            Self::KernelCreation | Self::KernelDestruction | Self::KernelRestart | Self::KernelExecution
        )
    }
}

impl Error {
    /// The problem body of this error. `type` and `title` are always there: the official client fails
    /// without them.
    pub fn to_problem(&self) -> Value {
        let code = self.code();
        let mut body = Map::new();
        body.insert("type".into(), Value::String(format!("{TYPE_BASE}{}", code.problem().slug())));
        body.insert("title".into(), code.title().into());
        body.insert("msg".into(), self.to_string().into());
        body.insert("error_code".into(), code.id().into());
        if let Some(data) = self.problem_data() {
            body.insert("data".into(), data.clone());
        }
        if code.problem().is_agent_side() {
            let kind =
                if self.kind() == super::ErrorKind::Timeout { "agent-timeout" } else { "agent-failure" };
            body.insert(
                "agent-details".into(),
                json!({ "type": format!("{TYPE_BASE}{kind}"), "title": self.to_string() }),
            );
        }
        Value::Object(body)
    }
}
