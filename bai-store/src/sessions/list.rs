//! Lists of sessions.

use bai_core::Session;
use bai_core::error::Result;
use bai_core::memory::store::fields;
use bai_core::port::store::{Page, SessionQuery};
use bai_core::status::SessionStatus;

use super::filter::{self, Text};
use super::session;
use crate::convert::plain;
use crate::store::Store;

pub(super) async fn find(store: &Store, query: &SessionQuery) -> Result<Page<Session>> {
    let query = fields::checked(query)?;
    let mut text = Text::new(store.db().dialect());
    push_conditions(&mut text, &query)?;
    let (condition, args) = text.finish();

    let limit = query.limit.map_or(i64::MAX, saturated);
    let order = order_by(&query);
    let page = format!(
        "SELECT s.id, s.doc FROM sessions s WHERE {condition} ORDER BY {order} LIMIT {limit} OFFSET {offset}",
        offset = saturated(query.offset),
    );
    let rows = store.db().rows_of_text(&page, &args).await?;
    let items: Vec<_> = rows.iter().map(session).collect::<Result<_>>()?;
    let seen = query.offset.saturating_add(items.len() as u64);
    let is_known = !items.is_empty() || (query.offset == 0 && query.limit != Some(0));
    let is_last_page = is_known && query.limit.is_none_or(|limit| (items.len() as u64) < limit);
    if is_last_page {
        return Ok(Page { items, total: seen });
    }
    let count = format!("SELECT COUNT(*) FROM sessions s WHERE {condition}");
    let rows = store.db().rows_of_text(&count, &args).await?;
    let total = rows.first().map_or(Ok(0), |row| row.int(0))?;
    Ok(Page { items, total: u64::try_from(total).unwrap_or(0) })
}

fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn push_conditions(text: &mut Text, query: &SessionQuery) -> Result<()> {
    text.push("TRUE");
    let equal = [
        ("s.access_key", query.access_key.as_ref().map(|key| plain(key.as_str()).into_owned())),
        ("s.domain", query.domain.as_deref().map(|domain| plain(domain).into_owned())),
        ("s.project_id", query.project.map(|project| project.to_string())),
        ("s.name", query.name.as_deref().map(|name| plain(name).into_owned())),
    ];
    for (column, value) in equal {
        if let Some(value) = value {
            text.push(" AND ").push(column).push(" = ").bind(value.into());
        }
    }
    push_statuses(text, &query.statuses);
    if let Some(filter) = &query.filter {
        text.push(" AND (");
        filter::push(text, filter)?;
        text.push(")");
    }
    Ok(())
}

fn push_statuses(text: &mut Text, statuses: &[SessionStatus]) {
    if !statuses.is_empty() && statuses.iter().all(|status| !status.is_dead()) {
        text.push(" AND s.living"); // which the index of the living goes by
    }
    if let Some((first, rest)) = statuses.split_first() {
        text.push(" AND s.status IN (").bind(first.as_str().into());
        for status in rest {
            text.push(", ").bind(status.as_str().into());
        }
        text.push(")");
    }
}

/// Absent values count as the greatest.
fn order_by(query: &SessionQuery) -> String {
    let mut keys: Vec<_> = (query.order.iter())
        .filter_map(|key| {
            let column = filter::order_column(&key.field)?;
            Some(format!(
                "{column} {}",
                if key.is_descending { "DESC NULLS FIRST" } else { "ASC NULLS LAST" }
            ))
        })
        .collect();
    if keys.is_empty() {
        keys.push("s.latest_at DESC".to_owned());
    }
    keys.push("s.id".to_owned());
    keys.join(", ")
}
