//! The filter and order mini-languages of the list queries.
//!
//! ```text
//! expr  := '!' expr | term | term ('&' | '|') expr          term := NAME op value | '(' expr ')'
//! op    := == != > >= < <= contains in isnot is like ilike
//! value := "text" | number | [value, …] | null | true | false
//! order := item {',' item}                                  item := ['+' | '-'] NAME
//! ```
//!
//! There is no precedence: `&` and `|` bind to the right, and `!` applies to everything that follows it. Parentheses
//! bound both. Rules: GraphQL specification, sections 4 and 5.
//!
//! A filter is parsed, then [typed](Expr::typed) against the fields of the list, which turns dates and enum names
//! into values and refuses what cannot be compared. Stores compile the result to SQL, or evaluate it row by row:
//!
//! ```
//! use bai_core::query::{Expr, Field, FieldKind, Row, Value};
//!
//! struct Session(&'static str);
//! impl Row for Session {
//!     fn value(&self, name: &str) -> Value<'_> {
//!         if name == "name" { Value::from(self.0) } else { Value::Null }
//!     }
//! }
//!
//! let filter: Expr = r#"name ilike "%TEST%" | name == "other""#.parse()?;
//! let filter = filter.typed(|name| (name == "name").then_some(Field::one(FieldKind::Text)))?;
//! assert!(filter.matches(&Session("my-test")));
//! assert!(!filter.matches(&Session("another")));
//! # Ok::<(), bai_core::Error>(())
//! ```

mod evaluate;
mod filter;
mod like;
mod order;
mod scan;
mod typing;

#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

pub use evaluate::{Row, Value};
pub use like::like;
pub use order::{Order, compare, parse_order};
pub use typing::{Field, FieldKind};

/// A filter expression. It has at most [`Expr::MAX_TERMS`] nodes, so that walking it recursively is safe.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// Both sides.
    And(Box<Expr>, Box<Expr>),
    /// Either side.
    Or(Box<Expr>, Box<Expr>),
    /// Not the inner one.
    Not(Box<Expr>),
    /// A comparison of a field with a value.
    Compare(Comparison),
}

impl Expr {
    /// The longest text that is parsed, in bytes.
    pub const MAX_LENGTH: usize = 64 * 1024;
    /// The most comparisons and negations of one filter.
    pub const MAX_TERMS: usize = 500;
    /// The deepest nesting of parentheses or lists.
    pub const MAX_DEPTH: usize = 64;

    /// Both `self` and `other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::And(Box::new(self), Box::new(other))
    }

    /// Either `self` or `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self::Or(Box::new(self), Box::new(other))
    }

    /// The opposite; twice is the same as not at all.
    #[must_use]
    pub fn negated(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }
}

/// A comparison of a field with a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Name of the field.
    pub field: String,
    /// How to compare.
    pub op: Op,
    /// What to compare with.
    pub literal: Literal,
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `==`; with null: is null.
    Eq,
    /// `!=`; with null: is not null.
    Ne,
    /// `>`.
    Gt,
    /// `>=`.
    Ge,
    /// `<`.
    Lt,
    /// `<=`.
    Le,
    /// `contains`: like, with `%` on either side. `%` and `_` in the value keep their meaning.
    Contains,
    /// `in`: equal to one of a list; an empty list has no equal.
    In,
    /// `isnot`: not exactly null, true or false.
    IsNot,
    /// `is`: exactly null, true or false.
    Is,
    /// `like`, see [`like`].
    Like,
    /// `ilike`: like without regard to case.
    Ilike,
}

impl Op {
    /// Every operator.
    pub const ALL: [Self; 12] = [
        Self::Eq,
        Self::Ne,
        Self::Gt,
        Self::Ge,
        Self::Lt,
        Self::Le,
        Self::Contains,
        Self::In,
        Self::IsNot,
        Self::Is,
        Self::Like,
        Self::Ilike,
    ];

    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Contains => "contains",
            Self::In => "in",
            Self::IsNot => "isnot",
            Self::Is => "is",
            Self::Like => "like",
            Self::Ilike => "ilike",
        }
    }

    fn is_inequality(self) -> bool {
        matches!(self, Self::Gt | Self::Ge | Self::Lt | Self::Le)
    }

    fn is_pattern(self) -> bool {
        matches!(self, Self::Contains | Self::Like | Self::Ilike)
    }
}

/// The value of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A signed integer or decimal.
    Number(Decimal),
    /// A text. After typing, the member name of an enum and the hyphenated form of a UUID are texts as well.
    Text(String),
    /// An instant. Only typing makes these.
    Time(DateTime<Utc>),
    /// A list, for `in` only.
    List(Vec<Literal>),
}
