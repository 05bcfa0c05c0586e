//! The table of error codes. Each has a page `docs/errors/<code>.md` that explains cause and remedy.

use super::{ErrorKind, Problem};

/// A stable error code and everything that follows from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(&'static Row);

#[derive(PartialEq, Eq)]
struct Row {
    id: &'static str,
    kind: ErrorKind,
    problem: Problem,
    title: &'static str,
}

impl Code {
    /// Finds a code by its text, as received from another process.
    pub fn from_id(id: &str) -> Option<Self> {
        TABLE.iter().copied().find(|code| code.id() == id)
    }

    /// Stable text, such as `BAI-S001`.
    pub fn id(self) -> &'static str {
        self.0.id
    }

    /// What the caller can do.
    pub fn kind(self) -> ErrorKind {
        self.0.kind
    }

    /// Problem type and HTTP status.
    pub fn problem(self) -> Problem {
        self.0.problem
    }

    /// Title of the problem body.
    pub fn title(self) -> &'static str {
        self.0.title
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id())
    }
}

macro_rules! codes {
    ($($name:ident $id:literal $kind:ident $problem:ident $title:literal;)*) => {
        $(
            #[doc = concat!("`", $id, "`: ", $title)]
            pub const $name: Code = Code(&Row {
                id: $id, kind: ErrorKind::$kind, problem: Problem::$problem, title: $title,
            });
        )*
        /// Every code.
        pub const TABLE: &[Code] = &[$($name),*];
    };
}

codes! {
    // General: what an error means when nothing more precise is known.
    INVALID_PARAMETERS "BAI-G001" Invalid InvalidApiParams "Missing or invalid API parameters.";
    UNAUTHORIZED "BAI-G002" Unauthorized AuthFailed "Credential/signature mismatch.";
    FORBIDDEN "BAI-G003" Forbidden Forbidden "Forbidden operation.";
    OBJECT_NOT_FOUND "BAI-G004" NotFound ObjectNotFound "No such object.";
    ALREADY_EXISTS "BAI-G005" AlreadyExists BadRequest "The object already exists.";
    CONFLICT "BAI-G006" Conflict General "The object has been changed by someone else.";
    QUOTA_EXCEEDED "BAI-G007" QuotaExceeded QuotaExceeded "You have reached your resource limit.";
    UNAVAILABLE "BAI-G008" Unavailable Unavailable "Service unavailable.";
    TIMEOUT "BAI-G009" Timeout Unavailable "The operation has timed out.";
    UNSUPPORTED "BAI-G010" Unsupported NotImplemented "This operation is not supported.";
    INTERNAL "BAI-G011" Internal Internal "Internal server error.";
    BAD_REQUEST "BAI-G012" Invalid BadRequest "Bad request.";
    INSUFFICIENT_PRIVILEGE "BAI-G013" Forbidden InsufficientPrivilege "Insufficient privilege.";

    // Gateway and authentication (spec auth.md, sections 2, 6 to 9).
    URL_NOT_FOUND "BAI-A001" NotFound UrlNotFound "Unknown URL path.";
    METHOD_NOT_ALLOWED "BAI-A002" Invalid MethodNotAllowed "HTTP Method Not Allowed.";
    INVALID_AUTH "BAI-A003" Invalid InvalidAuthParams "Missing or invalid authorization parameters.";
    AUTH_FAILED "BAI-A004" Unauthorized AuthFailed "Credential/signature mismatch.";
    UNSUPPORTED_VERSION "BAI-A005" Invalid BadRequest "Bad request.";
    RATE_LIMITED "BAI-A006" QuotaExceeded RateLimited "You have reached your API query rate limit.";
    FROZEN "BAI-A007" Unavailable Frozen "The server is frozen due to maintenance. Please try again later.";
    GRAPHQL "BAI-A008" Invalid GraphQl "GraphQL-generated error.";
    MALFORMED_BODY "BAI-A009" Invalid InvalidApiParams "Missing or invalid API parameters.";
    FILTER_SYNTAX "BAI-A010" Invalid InvalidApiParams "Missing or invalid API parameters.";

    // Sessions (spec rest-manager.md, section 2).
    SESSION_NOT_FOUND "BAI-S001" NotFound ObjectNotFound "No such session.";
    SESSION_EXISTS "BAI-S002" AlreadyExists SessionExists "The session already exists but you requested not to reuse existing one.";
    TOO_MANY_SESSIONS "BAI-S003" NotFound TooManySessions "Too many sessions matched.";
    SESSION_MOVED_ON "BAI-S004" Conflict General "The session has been changed by someone else.";
    SESSION_NOT_RUNNING "BAI-S005" Invalid BadRequest "Bad request.";
    SESSION_STATE_FORBIDS "BAI-S006" Forbidden Forbidden "Forbidden operation.";
    INVALID_TRANSITION "BAI-S007" Conflict General "The session cannot make this transition.";
    INVALID_SESSION_NAME "BAI-S008" Invalid InvalidApiParams "Missing or invalid API parameters.";
    INVALID_SLOTS "BAI-S009" Invalid InvalidApiParams "Missing or invalid API parameters.";
    OVER_CAPACITY "BAI-S010" Conflict General "The agent has no room left.";
    UNKNOWN_DEPENDENCY "BAI-S011" Invalid InvalidApiParams "Missing or invalid API parameters.";
    OWNER_UNKNOWN "BAI-S012" Invalid InvalidApiParams "Missing or invalid API parameters.";
    CLUSTER_TOO_LARGE "BAI-S013" QuotaExceeded QuotaExceeded "You have reached your resource limit.";
    TOO_MUCH_WAITS "BAI-S014" QuotaExceeded QuotaExceeded "You have reached your resource limit.";
    PRIORITY_TOO_HIGH "BAI-S015" QuotaExceeded QuotaExceeded "You have reached your resource limit.";

    // Images.
    IMAGE_NOT_FOUND "BAI-I001" NotFound ObjectNotFound "No such environment image.";
    RESOURCE_GROUP_NOT_FOUND "BAI-I002" NotFound ObjectNotFound "No such scaling group.";
    PROJECT_NOT_FOUND "BAI-I003" NotFound ObjectNotFound "No such user group (or project).";
    TEMPLATE_NOT_FOUND "BAI-I004" NotFound ObjectNotFound "No such task template.";
    VFOLDER_NOT_FOUND "BAI-I005" NotFound ObjectNotFound "No such virtual folder.";
    BACKGROUND_TASK_NOT_FOUND "BAI-I006" NotFound ObjectNotFound "No such background task.";
    APP_SERVICE_NOT_FOUND "BAI-I007" NotFound ObjectNotFound "No such app service.";
    DOMAIN_NOT_FOUND "BAI-I008" NotFound ObjectNotFound "No such domain.";

    // Kernels and agents.
    KERNEL_NOT_FOUND "BAI-K001" NotFound ObjectNotFound "No such main kernel.";
    KERNEL_CREATION "BAI-K002" Unavailable KernelCreation "Kernel creation has failed.";
    KERNEL_DESTRUCTION "BAI-K003" Unavailable KernelDestruction "Kernel destruction has failed.";
    KERNEL_RESTART "BAI-K004" Unavailable KernelRestart "Kernel restart has failed.";
    KERNEL_EXECUTION "BAI-K005" Unavailable KernelExecution "Executing user code in the kernel has failed.";
    KERNEL_TIMEOUT "BAI-K006" Timeout KernelExecution "Executing user code in the kernel has failed.";
    AGENT_NOT_FOUND "BAI-K007" NotFound ObjectNotFound "No such agent instance.";
    AGENT_UNREACHABLE "BAI-K008" Unavailable KernelExecution "Executing user code in the kernel has failed.";
    BACKEND_FAILED "BAI-K009" Unavailable KernelCreation "Kernel creation has failed.";
    HOST_LACKS_FEATURE "BAI-K010" Unsupported NotImplemented "The host lacks a needed feature.";
    STALE_GENERATION "BAI-K011" Conflict General "The kernel has been replaced by a newer generation.";
    RUNNER_GONE "BAI-K012" Unavailable KernelExecution "Executing user code in the kernel has failed.";

    // Files of a session (spec session-lifecycle.md, section 7).
    PATH_ESCAPES "BAI-F001" Invalid InvalidApiParams "Missing or invalid API parameters.";
    FILE_NOT_FOUND "BAI-F002" Invalid InvalidApiParams "Missing or invalid API parameters.";
    FILE_TOO_LARGE "BAI-F003" Invalid InvalidApiParams "Missing or invalid API parameters.";
    TOO_MANY_FILES "BAI-F004" Invalid InvalidApiParams "Missing or invalid API parameters.";

    // Back ends: stores, coordination, configuration.
    STORE_FAILED "BAI-B001" Unavailable Unavailable "Service unavailable.";
    STORE_CORRUPT "BAI-B002" Internal Internal "Internal server error.";
    COORD_FAILED "BAI-B003" Unavailable Unavailable "Service unavailable.";
    LEASE_LOST "BAI-B004" Conflict General "The lease is held by someone else.";
    CONFIG_INVALID "BAI-B005" Invalid Misconfigured "Service misconfigured.";
    EVENTS_LAGGED "BAI-B006" Conflict General "Events were lost: resume from a fresh snapshot.";

    // The client side.
    CONNECT_FAILED "BAI-C001" Unavailable Unavailable "The server cannot be reached.";
    BAD_REPLY "BAI-C002" Internal Internal "The server's reply cannot be understood.";
    SESSION_FAILED "BAI-C003" Unavailable KernelCreation "The session could not be started.";
    CLIENT_USAGE "BAI-C004" Invalid BadRequest "Bad request.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_found_again() {
        let ids: HashSet<_> = TABLE.iter().map(|code| code.id()).collect();
        assert_eq!(ids.len(), TABLE.len());
        for code in TABLE {
            assert_eq!(Code::from_id(code.id()), Some(*code));
            assert!(code.title().ends_with('.'), "{}", code.id());
        }
    }
}
