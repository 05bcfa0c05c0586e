//! Users.

use async_graphql::{Context, ID, Object, Result, SimpleObject};
use bai_core::error::code;
use bai_core::identity::{User as UserRow, UserRole, UserStatus};
use bai_core::port::store::Directory;
use bai_core::query::{Field, FieldKind, Row, Value};
use bai_core::{ProjectId, UserId};

use super::keypair::directory;
use super::list::{ListRow, PageArgs, page};
use super::scalar::{DateTime, Uuid};
use super::viewer::{Viewer, refusal, text, viewer};

/// Most rows of the list without pages.
const PLAIN_ROWS: usize = 100;

/// A user with its projects.
#[derive(Debug, Clone)]
pub(super) struct User {
    row: UserRow,
    projects: Vec<(ProjectId, String)>,
}

/// A project that a user belongs to.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct UserGroup {
    id: Option<Uuid>,
    name: Option<String>,
}

/// A page of users.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct UserList {
    items: Vec<Option<User>>,
    total_count: i64,
}

/// What the lists of users are narrowed to.
#[derive(Debug, Default)]
struct Narrow {
    domain: Option<String>,
    project: Option<Uuid>,
    is_active: Option<bool>,
    status: Option<String>,
}

/// The roots.
#[derive(Debug, Default)]
pub(super) struct UserRoots;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl UserRoots {
    async fn user(
        &self,
        context: &Context<'_>,
        domain_name: Option<String>,
        email: Option<String>,
    ) -> Result<Option<User>> {
        let viewer = viewer(context)?;
        let seen = viewer.scope_of_one(domain_name, email, &viewer.0.user.email)?;
        let directory = directory(context).await?;
        let row = directory.users.iter().find(|row| seen.contains(&row.domain, &row.email));
        Ok(row.map(|row| joined(&directory, row)))
    }

    async fn user_from_uuid(
        &self,
        context: &Context<'_>,
        domain_name: Option<String>,
        user_id: Option<ID>,
    ) -> Result<Option<User>> {
        let viewer = viewer(context)?;
        let id = user_id.map(|id| id.parse::<UserId>().map(|id| id.to_string())).transpose();
        let id = id.map_err(|error| text(&error))?;
        let seen = viewer.scope_of_one(domain_name, id, &viewer.0.user.id.to_string())?;
        let directory = directory(context).await?;
        let row = directory.users.iter().find(|row| seen.contains(&row.domain, &row.id.to_string()));
        Ok(row.map(|row| joined(&directory, row)))
    }

    async fn users(
        &self,
        context: &Context<'_>,
        domain_name: Option<String>,
        group_id: Option<Uuid>,
        is_active: Option<bool>,
        status: Option<String>,
    ) -> Result<Option<Vec<Option<User>>>> {
        let narrow = Narrow { domain: domain_name, project: group_id, is_active, status };
        let rows = visible(viewer(context)?, &*directory(context).await?, narrow)?;
        Ok(Some(rows.into_iter().take(PLAIN_ROWS).map(Some).collect()))
    }

    #[allow(clippy::too_many_arguments, reason = "the arguments are given by the schema")]
    async fn user_list(
        &self,
        context: &Context<'_>,
        limit: i64,
        offset: i64,
        filter: Option<String>,
        order: Option<String>,
        domain_name: Option<String>,
        group_id: Option<Uuid>,
        is_active: Option<bool>,
        status: Option<String>,
    ) -> Result<Option<UserList>> {
        let narrow = Narrow { domain: domain_name, project: group_id, is_active, status };
        let rows = visible(viewer(context)?, &*directory(context).await?, narrow)?;
        let (items, total_count) = page(rows, &PageArgs::new(limit, offset, filter, order))?.map(|row| row);
        Ok(Some(UserList { items, total_count }))
    }
}

fn visible(viewer: &Viewer, directory: &Directory, narrow: Narrow) -> Result<Vec<User>> {
    viewer.require_admin()?;
    let own = &viewer.0.user.domain;
    let domain = match (viewer.role(), narrow.domain) {
        (UserRole::Superadmin, domain) => domain,
        (_, Some(domain)) if domain != *own => return Err(refusal(code::FORBIDDEN)),
        _ => Some(own.clone()),
    };
    let status = narrow.status.map(|status| status.parse::<UserStatus>()).transpose();
    let status = status.map_err(|error| text(&error))?;
    let rows = directory.users.iter().filter(|row| {
        domain.as_ref().is_none_or(|domain| *domain == row.domain)
            && status.is_none_or(|status| status == row.status)
            && narrow.is_active.is_none_or(|wanted| wanted == (row.status == UserStatus::Active))
    });
    let rows = rows.map(|row| joined(directory, row));
    Ok(rows.filter(|user| narrow.project.is_none_or(|wanted| user.belongs_to(ProjectId(wanted.0)))).collect())
}

fn joined(directory: &Directory, row: &UserRow) -> User {
    let own = directory.projects.iter().filter(|(_, members)| members.contains(&row.id));
    User { row: row.clone(), projects: own.map(|(project, _)| (project.id, project.name.clone())).collect() }
}

impl User {
    fn belongs_to(&self, project: ProjectId) -> bool {
        self.projects.iter().any(|(id, _)| *id == project)
    }
}

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl User {
    async fn id(&self) -> Option<ID> {
        Some(self.row.id.into())
    }

    async fn uuid(&self) -> Option<Uuid> {
        Some(Uuid(self.row.id.0))
    }

    async fn username(&self) -> Option<&str> {
        Some(&self.row.username)
    }

    async fn email(&self) -> Option<&str> {
        Some(&self.row.email)
    }

    async fn need_password_change(&self) -> Option<bool> {
        Some(false)
    }

    async fn full_name(&self) -> Option<&str> {
        Some(&self.row.full_name)
    }

    async fn description(&self) -> Option<&str> {
        None
    }

    async fn is_active(&self) -> Option<bool> {
        Some(self.row.status == UserStatus::Active)
    }

    async fn status(&self) -> Option<&str> {
        Some(self.row.status.as_str())
    }

    async fn status_info(&self) -> Option<&str> {
        None
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(DateTime(self.row.created_at))
    }

    async fn modified_at(&self) -> Option<DateTime> {
        None
    }

    async fn domain_name(&self) -> Option<&str> {
        Some(&self.row.domain)
    }

    async fn role(&self) -> Option<&str> {
        Some(self.row.role.as_str())
    }

    async fn resource_policy(&self) -> Option<&str> {
        None
    }

    async fn allowed_client_ip(&self) -> Option<Vec<Option<&str>>> {
        let networks = &self.row.allowed_client_ip;
        if networks.is_empty() {
            None
        } else {
            Some(networks.iter().map(|network| Some(network.as_str())).collect())
        }
    }

    async fn totp_activated(&self) -> Option<bool> {
        Some(false)
    }

    async fn totp_activated_at(&self) -> Option<DateTime> {
        None
    }

    async fn sudo_session_enabled(&self) -> Option<bool> {
        Some(self.row.sudo_session_enabled)
    }

    async fn main_access_key(&self) -> Option<&str> {
        self.row.main_access_key.as_ref().map(AsRef::as_ref)
    }

    async fn groups(&self) -> Option<Vec<Option<UserGroup>>> {
        let group =
            |(id, name): &(ProjectId, String)| UserGroup { id: Some(Uuid(id.0)), name: Some(name.clone()) };
        Some(self.projects.iter().map(|project| Some(group(project))).collect())
    }
}

impl Row for User {
    fn value(&self, name: &str) -> Value<'_> {
        let row = &self.row;
        match name {
            "uuid" => row.id.to_string().into(),
            "username" => row.username.as_str().into(),
            "email" => row.email.as_str().into(),
            "full_name" => row.full_name.as_str().into(),
            "need_password_change" | "totp_activated" => false.into(),
            "is_active" => (row.status == UserStatus::Active).into(),
            "status" => row.status.as_str().to_uppercase().replace('-', "_").into(),
            "created_at" => row.created_at.into(),
            "domain_name" => row.domain.as_str().into(),
            "role" => row.role.as_str().to_uppercase().into(),
            "allowed_client_ip" => row.allowed_client_ip.join(",").into(),
            "sudo_session_enabled" => row.sudo_session_enabled.into(),
            "main_access_key" => row.main_access_key.as_ref().map(AsRef::<str>::as_ref).into(),
            _ => Value::Null,
        }
    }
}

impl ListRow for User {
    fn field(name: &str) -> Option<Field> {
        let kind = match name {
            "uuid" => FieldKind::Uuid,
            "username" | "email" | "full_name" | "description" | "status_info" | "domain_name"
            | "resource_policy" | "allowed_client_ip" | "main_access_key" => FieldKind::Text,
            "need_password_change" | "is_active" | "totp_activated" | "sudo_session_enabled" => {
                FieldKind::Bool
            }
            "status" => FieldKind::Enum(&["ACTIVE", "INACTIVE", "DELETED", "BEFORE_VERIFICATION"]),
            "role" => FieldKind::Enum(&["SUPERADMIN", "ADMIN", "USER", "MONITOR"]),
            "created_at" | "modified_at" | "totp_activated_at" => FieldKind::Time,
            _ => return None,
        };
        Some(Field::one(kind))
    }
}
