//! The fields that lists of sessions are filtered and ordered by (spec graphql-manager.md, section 6).

use std::cmp::{Ordering, Reverse};

use chrono::SecondsFormat;

use crate::clock::Timestamp;
use crate::error::{Error, Result, code};
use crate::port::store::SessionQuery;
use crate::query::{self, Expr, Field, FieldKind, Row, Value};
use crate::session::Session;
use crate::status::{ClusterMode, SessionStatus, SessionType};

const TYPES: &[&str] = &["INTERACTIVE", "BATCH", "INFERENCE"];
const CLUSTER_MODES: &[&str] = &["SINGLE_NODE", "MULTI_NODE"];
const RESULTS: &[&str] = &["UNDEFINED", "SUCCESS", "FAILURE"];
const STATUSES: &[&str] = &[
    "PENDING",
    "SCHEDULED",
    "PULLING",
    "PREPARING",
    "RUNNING",
    "RESTARTING",
    "RUNNING_DEGRADED",
    "TERMINATING",
    "TERMINATED",
    "ERROR",
    "CANCELLED",
];

/// Every field.
pub const NAMES: &[&str] = &[
    "id",
    "type",
    "name",
    "image",
    "agent_ids",
    "agent_id",
    "agents",
    "domain_name",
    "group_name",
    "user_email",
    "full_name",
    "access_key",
    "scaling_group",
    "cluster_mode",
    "cluster_size",
    "status",
    "status_info",
    "result",
    "created_at",
    "terminated_at",
    "starts_at",
    "scheduled_at",
    "startup_command",
];

/// The field called `name`, if there is one: the schema for [`Expr::typed`].
pub fn session_field(name: &str) -> Option<Field> {
    Some(match name {
        "id" => Field::one(FieldKind::Uuid),
        "type" => Field::one(FieldKind::Enum(TYPES)),
        "cluster_mode" => Field::one(FieldKind::Enum(CLUSTER_MODES)),
        "status" => Field::one(FieldKind::Enum(STATUSES)),
        "result" => Field::one(FieldKind::Enum(RESULTS)),
        "image" | "agent_ids" | "agent_id" | "agents" => Field::many(FieldKind::Text),
        "cluster_size" => Field::one(FieldKind::Number),
        "created_at" | "terminated_at" | "starts_at" => Field::one(FieldKind::Time),
        name if NAMES.contains(&name) => Field::one(FieldKind::Text),
        _ => return None,
    })
}

/// Whether lists can be ordered by the field called `name`: the check for [`query::parse_order`].
pub fn is_order_field(name: &str) -> bool {
    name != "startup_command" && session_field(name).is_some()
}

/// A query whose filter fits the fields and whose order names known ones.
///
/// # Errors
/// `Invalid` when a field is unknown, or a literal cannot be compared with it.
pub fn checked(query: &SessionQuery) -> Result<SessionQuery> {
    if let Some(unknown) = query.order.iter().find(|key| !is_order_field(&key.field)) {
        let message = format!("('Unknown/unsupported field name', '{}')", unknown.field);
        return Err(Error::of(code::FILTER_SYNTAX, message));
    }
    let filter = query.filter.clone().map(|filter: Expr| filter.typed(session_field)).transpose()?;
    Ok(SessionQuery { filter, ..query.clone() })
}

/// A session seen as a row with these fields.
#[derive(Debug, Clone, Copy)]
pub struct SessionRow<'a> {
    /// The session.
    pub session: &'a Session,
    /// Full name of its user, if the user is known.
    pub full_name: Option<&'a str>,
}

impl Row for SessionRow<'_> {
    fn value(&self, name: &str) -> Value<'_> {
        let session = self.session;
        match name {
            "id" => session.id.to_string().into(),
            "type" => type_name(session.session_type).into(),
            "name" => session.name.as_str().into(),
            "image" => session.kernels.iter().map(|kernel| kernel.image.as_str()).collect(),
            "agent_ids" | "agent_id" | "agents" => agents(session).collect(),
            "domain_name" => session.owner.domain.as_str().into(),
            "group_name" => session.owner.project.as_str().into(),
            "user_email" => session.owner.email.as_str().into(),
            "full_name" => self.full_name.into(),
            "access_key" => session.owner.access_key.as_str().into(),
            "scaling_group" => session.resource_group.as_str().into(),
            "cluster_mode" => cluster_mode_name(session.cluster_mode).into(),
            "cluster_size" => i64::try_from(session.kernels.len()).unwrap_or(i64::MAX).into(),
            "status" => session.status.as_str().into(),
            "status_info" => session.status_info.as_deref().into(),
            "result" => session.result.as_str().into(),
            "created_at" => session.created_at.into(),
            "terminated_at" => session.terminated_at.into(),
            "starts_at" => session.starts_at.into(),
            "scheduled_at" => scheduled_at(session).into(),
            "startup_command" => session.spec.startup_command.as_deref().into(),
            _ => Value::Null,
        }
    }
}

/// The agents of the kernels that have one, in the order of the kernels.
pub fn agents(session: &Session) -> impl Iterator<Item = &str> {
    session.kernels.iter().filter_map(|kernel| kernel.agent.as_ref().map(AsRef::as_ref))
}

/// When the session was last scheduled, as text: this field is compared as such.
pub fn scheduled_at(session: &Session) -> Option<String> {
    let entered = session.status_history.get(SessionStatus::Scheduled.as_str())?;
    Some(entered.to_rfc3339_opts(SecondsFormat::Micros, false))
}

/// What the newest come first by, when no order is asked for.
pub fn latest(session: &Session) -> Timestamp {
    session.terminated_at.map_or(session.created_at, |ended| ended.max(session.created_at))
}

/// The name of the member in filters.
pub fn type_name(value: SessionType) -> &'static str {
    match value {
        SessionType::Interactive => "INTERACTIVE",
        SessionType::Batch => "BATCH",
        SessionType::Inference => "INFERENCE",
    }
}

/// The name of the member in filters.
pub fn cluster_mode_name(value: ClusterMode) -> &'static str {
    match value {
        ClusterMode::SingleNode => "SINGLE_NODE",
        ClusterMode::MultiNode => "MULTI_NODE",
    }
}

/// The order asked for, or the newest first; then by id, so that pages never overlap.
pub(super) fn compare(a: &SessionRow<'_>, b: &SessionRow<'_>, query: &SessionQuery) -> Ordering {
    let asked = if query.order.is_empty() {
        Reverse(latest(a.session)).cmp(&Reverse(latest(b.session)))
    } else {
        query::compare(&query.order, a, b)
    };
    asked.then_with(|| a.session.id.cmp(&b.session.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::SessionResult;

    #[test]
    fn enum_fields_know_every_member() {
        assert_eq!(
            STATUSES.to_vec(),
            SessionStatus::ALL.iter().map(|status| status.as_str()).collect::<Vec<_>>()
        );
        assert_eq!(
            RESULTS.to_vec(),
            SessionResult::ALL.iter().map(|result| result.as_str()).collect::<Vec<_>>()
        );
        assert_eq!(TYPES.to_vec(), SessionType::ALL.iter().copied().map(type_name).collect::<Vec<_>>());
        let modes: Vec<_> = ClusterMode::ALL.iter().copied().map(cluster_mode_name).collect();
        assert_eq!(CLUSTER_MODES.to_vec(), modes);
        assert!(NAMES.iter().all(|name| session_field(name).is_some()));
    }
}
