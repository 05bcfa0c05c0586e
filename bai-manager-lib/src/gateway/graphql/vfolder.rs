//! The type `VirtualFolder`, which keypairs refer to. There are no folders yet.

use async_graphql::{ID, SimpleObject};

use super::scalar::{BigInt, DateTime, Uuid};

/// A folder.
#[derive(Debug, SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(super) struct VirtualFolder {
    id: Option<ID>,
    host: Option<String>,
    quota_scope_id: Option<String>,
    name: Option<String>,
    user: Option<Uuid>,
    user_email: Option<String>,
    group: Option<Uuid>,
    group_name: Option<String>,
    creator: Option<String>,
    unmanaged_path: Option<String>,
    usage_mode: Option<String>,
    permission: Option<String>,
    ownership_type: Option<String>,
    max_files: Option<i64>,
    max_size: Option<BigInt>,
    created_at: Option<DateTime>,
    last_used: Option<DateTime>,
    num_files: Option<i64>,
    cur_size: Option<BigInt>,
    cloneable: Option<bool>,
    status: Option<String>,
}
