//! Keypairs.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result, SimpleObject};
use bai_core::identity::{Keypair as KeypairRow, User as UserRow};
use bai_core::port::store::{Directory, SessionQuery};
use bai_core::query::{Field, FieldKind, Row, Value};
use bai_core::status::SessionStatus;

use super::compute_session::ComputeSession;
use super::list::{ListRow, PageArgs, page};
use super::scalar::{DateTime, Uuid};
use super::session::statuses;
use super::vfolder::VirtualFolder;
use super::viewer::{Seen, manager, text, viewer};

/// Most rows of the list without pages.
const PLAIN_ROWS: usize = 100;

/// A keypair with its user.
#[derive(Debug, Clone)]
pub(super) struct KeyPair {
    row: KeypairRow,
    user: UserRow,
    projects: Vec<String>,
    session_limit: u32,
}

/// Name and address of a user.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct UserInfo {
    email: Option<String>,
    full_name: Option<String>,
}

/// A page of keypairs.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct KeyPairList {
    items: Vec<Option<KeyPair>>,
    total_count: i64,
}

/// The roots.
#[derive(Debug, Default)]
pub(super) struct KeypairRoots;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl KeypairRoots {
    async fn keypair(
        &self,
        context: &Context<'_>,
        domain_name: Option<String>,
        access_key: Option<String>,
    ) -> Result<Option<KeyPair>> {
        let viewer = viewer(context)?;
        let seen = viewer.scope_of_one(domain_name, access_key, viewer.0.keypair.access_key.as_str())?;
        let rows = all(&*directory(context).await?);
        Ok(rows.into_iter().find(|row| seen.contains(&row.user.domain, row.row.access_key.as_str())))
    }

    async fn keypairs(
        &self,
        context: &Context<'_>,
        domain_name: Option<String>,
        email: Option<String>,
        is_active: Option<bool>,
    ) -> Result<Option<Vec<Option<KeyPair>>>> {
        let seen = by_email(context, domain_name, email)?;
        let rows = visible(&*directory(context).await?, &seen, is_active);
        Ok(Some(rows.into_iter().take(PLAIN_ROWS).map(Some).collect()))
    }

    #[allow(clippy::too_many_arguments, reason = "the arguments are given by the schema")]
    async fn keypair_list(
        &self,
        context: &Context<'_>,
        limit: i64,
        offset: i64,
        filter: Option<String>,
        order: Option<String>,
        domain_name: Option<String>,
        email: Option<String>,
        is_active: Option<bool>,
    ) -> Result<Option<KeyPairList>> {
        let seen = by_email(context, domain_name, email)?;
        let rows = visible(&*directory(context).await?, &seen, is_active);
        let (items, total_count) = page(rows, &PageArgs::new(limit, offset, filter, order))?.map(|row| row);
        Ok(Some(KeyPairList { items, total_count }))
    }
}

/// The directory of the manager.
pub(super) async fn directory(context: &Context<'_>) -> Result<Arc<Directory>> {
    manager(context)?.identities().directory().await.map_err(|error| text(&error))
}

fn by_email(context: &Context<'_>, domain: Option<String>, email: Option<String>) -> Result<Seen> {
    let viewer = viewer(context)?;
    viewer.scope(domain, email, &viewer.0.user.email)
}

fn visible(directory: &Directory, seen: &Seen, is_active: Option<bool>) -> Vec<KeyPair> {
    let rows = all(directory).into_iter().filter(|row| seen.contains(&row.user.domain, &row.user.email));
    rows.filter(|row| is_active.is_none_or(|wanted| wanted == row.row.is_active)).collect()
}

fn all(directory: &Directory) -> Vec<KeyPair> {
    let mut rows: Vec<_> = directory.keypairs.iter().filter_map(|row| joined(directory, row)).collect();
    rows.sort_by(|a, b| (a.row.created_at, &a.row.access_key).cmp(&(b.row.created_at, &b.row.access_key)));
    rows
}

fn joined(directory: &Directory, row: &KeypairRow) -> Option<KeyPair> {
    let user = directory.users.iter().find(|user| user.id == row.user_id)?.clone();
    let own = directory.projects.iter().filter(|(_, members)| members.contains(&user.id));
    let projects = own.map(|(project, _)| project.name.clone()).collect();
    let policy = directory.policies.get(&row.resource_policy);
    let session_limit = policy.map_or(0, |policy| policy.max_concurrent_sessions);
    Some(KeyPair { row: row.clone(), user, projects, session_limit })
}

impl KeyPair {
    async fn sessions(
        &self,
        context: &Context<'_>,
        query: SessionQuery,
    ) -> Result<(Vec<ComputeSession>, i64)> {
        let query = SessionQuery { access_key: Some(self.row.access_key.clone()), ..query };
        let found = manager(context)?.sessions().find(&query).await.map_err(|error| text(&error))?;
        let sessions = found.items.into_iter().map(|session| ComputeSession(Arc::new(session))).collect();
        Ok((sessions, found.total.try_into().unwrap_or(i64::MAX)))
    }
}

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl KeyPair {
    async fn id(&self) -> Option<ID> {
        Some(ID::from(self.row.access_key.as_str()))
    }

    async fn user_id(&self) -> Option<&str> {
        Some(&self.user.email)
    }

    async fn full_name(&self) -> Option<&str> {
        Some(&self.user.full_name)
    }

    async fn access_key(&self) -> Option<&str> {
        Some(self.row.access_key.as_str())
    }

    async fn secret_key(&self) -> Option<&str> {
        Some(self.row.secret_key.reveal())
    }

    async fn is_active(&self) -> Option<bool> {
        Some(self.row.is_active)
    }

    async fn is_admin(&self) -> Option<bool> {
        Some(self.row.is_admin)
    }

    async fn resource_policy(&self) -> Option<&str> {
        Some(&self.row.resource_policy)
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(DateTime(self.row.created_at))
    }

    async fn modified_at(&self) -> Option<DateTime> {
        None
    }

    async fn last_used(&self) -> Option<DateTime> {
        None
    }

    async fn rate_limit(&self) -> Option<i64> {
        self.row.rate_limit.try_into().ok()
    }

    async fn num_queries(&self) -> Option<i64> {
        None
    }

    async fn user(&self) -> Option<Uuid> {
        Some(Uuid(self.user.id.0))
    }

    async fn projects(&self) -> Option<Vec<Option<&str>>> {
        Some(self.projects.iter().map(|name| Some(name.as_str())).collect())
    }

    async fn ssh_public_key(&self) -> Option<&str> {
        None
    }

    async fn ssh_private_key(&self) -> Option<&str> {
        None
    }

    async fn dotfiles(&self) -> Option<&str> {
        None
    }

    async fn bootstrap_script(&self) -> Option<&str> {
        None
    }

    async fn vfolders(&self) -> Option<Vec<Option<VirtualFolder>>> {
        Some(Vec::new())
    }

    async fn compute_sessions(
        &self,
        context: &Context<'_>,
        status: Option<String>,
    ) -> Result<Option<Vec<Option<ComputeSession>>>> {
        let query = SessionQuery { statuses: statuses(status.as_deref())?, ..SessionQuery::default() };
        Ok(Some(self.sessions(context, query).await?.0.into_iter().map(Some).collect()))
    }

    async fn concurrency_used(&self, context: &Context<'_>) -> Result<Option<i64>> {
        let statuses = SessionStatus::ALL.iter().copied().filter(|status| status.occupies_quota()).collect();
        let query = SessionQuery { statuses, limit: Some(0), ..SessionQuery::default() };
        Ok(Some(self.sessions(context, query).await?.1))
    }

    async fn user_info(&self) -> Option<UserInfo> {
        Some(UserInfo { email: Some(self.user.email.clone()), full_name: Some(self.user.full_name.clone()) })
    }

    #[graphql(deprecation = "Moved to KeyPairResourcePolicy object as the max_concurrent_sessions field.")]
    async fn concurrency_limit(&self) -> Option<i64> {
        Some(self.session_limit.into())
    }
}

impl Row for KeyPair {
    fn value(&self, name: &str) -> Value<'_> {
        match name {
            "access_key" => self.row.access_key.as_str().into(),
            "user_id" => self.user.id.to_string().into(),
            "email" => self.user.email.as_str().into(),
            "full_name" => self.user.full_name.as_str().into(),
            "is_active" => self.row.is_active.into(),
            "is_admin" => self.row.is_admin.into(),
            "resource_policy" => self.row.resource_policy.as_str().into(),
            "created_at" => self.row.created_at.into(),
            "rate_limit" => i64::try_from(self.row.rate_limit).ok().into(),
            "projects" => self.projects.iter().map(String::as_str).collect(),
            _ => Value::Null,
        }
    }
}

impl ListRow for KeyPair {
    fn field(name: &str) -> Option<Field> {
        let kind = match name {
            "access_key" | "email" | "full_name" | "resource_policy" | "ssh_public_key" => FieldKind::Text,
            "user_id" => FieldKind::Uuid,
            "is_active" | "is_admin" => FieldKind::Bool,
            "created_at" | "last_used" => FieldKind::Time,
            "rate_limit" | "num_queries" => FieldKind::Number,
            "projects" => return Some(Field::many(FieldKind::Text)),
            _ => return None,
        };
        Some(Field::one(kind))
    }
}
