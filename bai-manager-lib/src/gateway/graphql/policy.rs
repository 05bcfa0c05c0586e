//! Resource policies of keypairs.

use async_graphql::{Context, Object, Result, SimpleObject};
use bai_core::identity::{KeypairPolicy, UserRole};

use super::keypair::directory;
use super::scalar::{BigInt, DateTime, JsonString};
use super::viewer::viewer;

/// Limits of a keypair. For folders there is none yet.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct KeyPairResourcePolicy {
    name: Option<String>,
    created_at: Option<DateTime>,
    default_for_unspecified: Option<String>,
    total_resource_slots: Option<JsonString>,
    max_session_lifetime: Option<i64>,
    max_concurrent_sessions: Option<i64>,
    max_containers_per_session: Option<i64>,
    idle_timeout: Option<BigInt>,
    allowed_vfolder_hosts: Option<JsonString>,
    #[graphql(deprecation = "Deprecated since 23.09.4")]
    max_vfolder_count: Option<i64>,
    #[graphql(deprecation = "Deprecated since 23.09.4")]
    max_vfolder_size: Option<BigInt>,
    #[graphql(deprecation = "Deprecated since 23.09.4")]
    max_quota_scope_size: Option<BigInt>,
}

impl From<&KeypairPolicy> for KeyPairResourcePolicy {
    fn from(row: &KeypairPolicy) -> Self {
        Self {
            name: Some(row.name.clone()),
            created_at: Some(DateTime(row.created_at)),
            default_for_unspecified: Some(row.default_for_unspecified.clone()),
            total_resource_slots: JsonString::of(&row.total_resource_slots),
            max_session_lifetime: row.max_session_lifetime.try_into().ok(),
            max_concurrent_sessions: Some(row.max_concurrent_sessions.into()),
            max_containers_per_session: Some(row.max_containers_per_session.into()),
            idle_timeout: Some(BigInt::signed(row.idle_timeout)),
            allowed_vfolder_hosts: Some(JsonString::empty()),
            // 0 is no limit. The official client cannot print null.
            max_vfolder_count: Some(0),
            max_vfolder_size: Some(BigInt::of(0)),
            max_quota_scope_size: Some(BigInt::of(0)),
        }
    }
}

/// The roots.
#[derive(Debug, Default)]
pub(super) struct PolicyRoots;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl PolicyRoots {
    async fn keypair_resource_policy(
        &self,
        context: &Context<'_>,
        name: Option<String>,
    ) -> Result<Option<KeyPairResourcePolicy>> {
        let own = &viewer(context)?.0.keypair.resource_policy;
        Ok(directory(context).await?.policies.get(name.as_ref().unwrap_or(own)).map(Into::into))
    }

    async fn keypair_resource_policies(
        &self,
        context: &Context<'_>,
    ) -> Result<Option<Vec<Option<KeyPairResourcePolicy>>>> {
        let viewer = viewer(context)?;
        let sees_all = matches!(viewer.role(), UserRole::Superadmin | UserRole::Admin);
        let directory = directory(context).await?;
        let own = &viewer.0.keypair.resource_policy;
        let rows = directory.policies.values().filter(|row| sees_all || row.name == *own);
        Ok(Some(rows.map(|row| Some(row.into())).collect()))
    }
}
