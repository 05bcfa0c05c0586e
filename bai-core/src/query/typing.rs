//! Checking a filter against the fields of a list.

use uuid::Uuid;

use super::filter::syntax_error;
use super::{Comparison, Expr, Literal};
use crate::error::{Error, Result, code};
use crate::signing::parse_date;

/// What values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Texts.
    Text,
    /// Integers or decimals.
    Number,
    /// True or false.
    Bool,
    /// Instants; compared with texts that [`parse_date`] reads.
    Time,
    /// UUIDs; compared with their text in any form.
    Uuid,
    /// One of these member names; compared with the name as it is, or in lower or upper case.
    Enum(&'static [&'static str]),
}

/// A field of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// What values it has.
    pub kind: FieldKind,
    /// Whether it has many: a comparison holds if it holds for any of them.
    pub is_array: bool,
}

impl Field {
    /// A field of one value.
    pub const fn one(kind: FieldKind) -> Self {
        Self { kind, is_array: false }
    }

    /// A field of many values.
    pub const fn many(kind: FieldKind) -> Self {
        Self { kind, is_array: true }
    }
}

impl Expr {
    /// Checks the expression against the fields that `schema` knows and turns its literals into values of them.
    ///
    /// # Errors
    /// `Invalid` when a field is unknown, or a literal cannot be compared with it.
    pub fn typed(mut self, schema: impl Fn(&str) -> Option<Field>) -> Result<Self> {
        let mut rest = vec![&mut self];
        while let Some(expr) = rest.pop() {
            match expr {
                Self::And(left, right) | Self::Or(left, right) => rest.extend([&mut **right, &mut **left]),
                Self::Not(inner) => rest.push(inner),
                Self::Compare(comparison) => type_comparison(comparison, &schema)?,
            }
        }
        Ok(self)
    }
}

fn type_comparison(comparison: &mut Comparison, schema: &impl Fn(&str) -> Option<Field>) -> Result<()> {
    let Comparison { field, op, literal } = comparison;
    let kind = schema(field).ok_or_else(|| unknown_field(field))?.kind;
    let is_possible = match kind {
        FieldKind::Text => true,
        FieldKind::Enum(_) | FieldKind::Bool => !op.is_pattern() && !op.is_inequality(),
        FieldKind::Number | FieldKind::Time | FieldKind::Uuid => !op.is_pattern(),
    };
    if !is_possible {
        return Err(syntax_error(&format!("the operator `{}` cannot be used with {field:?}", op.as_str())));
    }
    *literal = typed_literal(field, kind, std::mem::replace(literal, Literal::Null))?;
    Ok(())
}

fn typed_literal(field: &str, kind: FieldKind, literal: Literal) -> Result<Literal> {
    let expected = |what: &str| syntax_error(&format!("{field:?} is compared with {what}"));
    Ok(match (kind, literal) {
        (_, Literal::List(items)) => Literal::List(
            items.into_iter().map(|item| typed_literal(field, kind, item)).collect::<Result<_>>()?,
        ),
        (_, Literal::Null) => Literal::Null,
        (FieldKind::Text, Literal::Text(text)) => Literal::Text(text),
        (FieldKind::Number, Literal::Number(number)) => Literal::Number(number),
        (FieldKind::Bool, Literal::Bool(value)) => Literal::Bool(value),
        (FieldKind::Time, Literal::Time(time)) => Literal::Time(time),
        (FieldKind::Time, Literal::Text(text)) => {
            Literal::Time(parse_date(&text).ok_or_else(|| expected("a date"))?.to_utc())
        }
        (FieldKind::Uuid, Literal::Text(text)) => {
            Literal::Text(Uuid::parse_str(&text).map_err(|_| expected("a UUID"))?.to_string())
        }
        (FieldKind::Enum(members), Literal::Text(text)) => Literal::Text(member(members, &text)?.to_owned()),
        (FieldKind::Text | FieldKind::Uuid | FieldKind::Enum(_), _) => return Err(expected("a text")),
        (FieldKind::Number, _) => return Err(expected("a number")),
        (FieldKind::Bool, _) => return Err(expected("true or false")),
        (FieldKind::Time, _) => return Err(expected("the text of a date")),
    })
}

/// The member that is meant: named exactly, or in upper case, or by the lower case of its name.
fn member(members: &[&'static str], text: &str) -> Result<&'static str> {
    let upper = text.to_uppercase();
    let found = members.iter().find(|name| **name == text || **name == upper || name.to_lowercase() == text);
    found.copied().ok_or_else(|| syntax_error(&format!("expected one of {}", members.join(", "))))
}

fn unknown_field(name: &str) -> Error {
    Error::of(code::FILTER_SYNTAX, format!("('Unknown/unsupported field name', '{name}')"))
}
