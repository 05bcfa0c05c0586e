//! The order mini-language.

use std::cmp::Ordering;

use super::Row;
use super::scan::Scanner;
use crate::error::{Error, Result, code};

/// One key of an order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Order {
    /// Name of the field.
    pub field: String,
    /// Whether the greatest comes first.
    pub is_descending: bool,
}

/// The most keys of one order.
const MAX_KEYS: usize = 64;

/// Parses an order such as `-created_at,+name`. An empty text is no order of its own.
///
/// # Errors
/// `Invalid` when the text is no order, or names a field that `is_known` refuses.
pub fn parse_order(text: &str, is_known: impl Fn(&str) -> bool) -> Result<Vec<Order>> {
    let error =
        |detail: String| Error::of(code::FILTER_SYNTAX, format!("Query ordering parsing error: {detail}"));
    let mut scanner = Scanner::new(text);
    let mut keys = Vec::new();
    if scanner.at_end() {
        return Ok(keys);
    }
    loop {
        let is_descending = scanner.skip("-");
        let _ = is_descending || scanner.skip("+");
        let Some(field) = scanner.name() else {
            return Err(error(format!("unexpected {}, expected a field name", scanner.next_for_message())));
        };
        if !is_known(field) {
            return Err(error(format!("('Unknown/unsupported field name', '{field}')")));
        }
        keys.push(Order { field: field.to_owned(), is_descending });
        if scanner.at_end() {
            return Ok(keys);
        }
        if keys.len() == MAX_KEYS {
            return Err(error(format!("more than {MAX_KEYS} fields")));
        }
        if !scanner.skip(",") {
            return Err(error(format!("unexpected {}, expected `,`", scanner.next_for_message())));
        }
    }
}

/// The order of two rows by the keys, the first key first. As in PostgreSQL, absent values count as the greatest.
pub fn compare(order: &[Order], a: &impl Row, b: &impl Row) -> Ordering {
    order.iter().fold(Ordering::Equal, |result, key| {
        result.then_with(|| {
            let ascending = a.value(&key.field).sort_order(&b.value(&key.field));
            if key.is_descending { ascending.reverse() } else { ascending }
        })
    })
}
