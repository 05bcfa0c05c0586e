//! Pages of rows: filter, order, offset and limit (spec graphql-manager.md, sections 3 to 6).

use async_graphql::Result;
use bai_core::query::{Expr, Field, Order, Row, compare, parse_order};

use super::viewer::text;

/// Most rows of a page.
const MAX_ROWS: u64 = 1000;

/// The arguments that every paginated list has.
#[derive(Debug, Default)]
pub(super) struct PageArgs {
    /// Rows wanted.
    pub(super) limit: u64,
    /// Rows to skip.
    pub(super) offset: u64,
    /// Filter expression.
    pub(super) filter: Option<String>,
    /// Order expression.
    pub(super) order: Option<String>,
}

impl PageArgs {
    /// Takes the arguments as they come.
    pub(super) fn new(limit: i64, offset: i64, filter: Option<String>, order: Option<String>) -> Self {
        let natural = |number: i64| u64::try_from(number).unwrap_or(0);
        Self { limit: natural(limit).min(MAX_ROWS), offset: natural(offset), filter, order }
    }

    /// The parsed filter; fields are not checked yet.
    pub(super) fn filter(&self) -> Result<Option<Expr>> {
        self.filter.as_deref().map(|filter| filter.parse().map_err(|error| text(&error))).transpose()
    }

    /// The parsed order of fields that `is_known` accepts.
    pub(super) fn order(&self, is_known: impl Fn(&str) -> bool) -> Result<Vec<Order>> {
        parse_order(self.order.as_deref().unwrap_or_default(), is_known).map_err(|error| text(&error))
    }
}

/// A page of rows out of all.
#[derive(Debug)]
pub(super) struct Page<T> {
    /// The rows.
    pub(super) items: Vec<T>,
    /// How many rows there are on all pages.
    pub(super) total: i64,
}

impl<T> Page<T> {
    /// The rows in another form, as nullable items.
    pub(super) fn map<U>(self, form: impl Fn(T) -> U) -> (Vec<Option<U>>, i64) {
        (self.items.into_iter().map(|item| Some(form(item))).collect(), self.total)
    }
}

/// A row of a list that is filtered and ordered in memory.
pub(super) trait ListRow: Row {
    /// The field of this name.
    fn field(name: &str) -> Option<Field>;
}

/// The page of `rows` that `args` asks for. Rows come in their given order unless another one is asked for.
pub(super) fn page<T: ListRow>(mut rows: Vec<T>, args: &PageArgs) -> Result<Page<T>> {
    if let Some(filter) = args.filter()? {
        let filter = filter.typed(T::field).map_err(|error| text(&error))?;
        rows.retain(|row| filter.matches(row));
    }
    let order = args.order(|name| T::field(name).is_some())?;
    if !order.is_empty() {
        rows.sort_by(|a, b| compare(&order, a, b));
    }
    let total = rows.len().try_into().unwrap_or(i64::MAX);
    let skip = usize::try_from(args.offset).unwrap_or(usize::MAX);
    let take = usize::try_from(args.limit).unwrap_or(usize::MAX);
    Ok(Page { items: rows.into_iter().skip(skip).take(take).collect(), total })
}
