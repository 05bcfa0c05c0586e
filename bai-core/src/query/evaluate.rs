//! Evaluation of filters in memory, with the three-valued logic of SQL: a comparison with an absent value is
//! neither true nor false, and a row matches only if the whole is true.

use std::borrow::Cow;
use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::like::{contains, like};
use super::{Comparison, Expr, Literal, Op};

/// Something with named fields.
pub trait Row {
    /// The value of a field; null when there is none. Names have been checked by [`Expr::typed`].
    fn value(&self, name: &str) -> Value<'_>;
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Absent.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer or decimal.
    Number(Decimal),
    /// A text, the member name of an enum, or the hyphenated form of a UUID.
    Text(Cow<'a, str>),
    /// An instant.
    Time(DateTime<Utc>),
    /// Many values, of which any one may satisfy a comparison.
    Many(Vec<Value<'a>>),
}

impl Value<'_> {
    /// The order of two values of the same kind; `None` for others.
    fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Self::Number(a), Value::Number(b)) => Some(a.cmp(b)),
            (Self::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Self::Time(a), Value::Time(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// The order in a sorted list: absent values come last, as in PostgreSQL.
    pub(super) fn sort_order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Many(a), Self::Many(b)) => {
                let pairs = a.iter().zip(b).map(|(a, b)| a.sort_order(b));
                pairs.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
            }
            _ => (*self == Self::Null)
                .cmp(&(*other == Value::Null))
                .then_with(|| self.compare(other).unwrap_or(Ordering::Equal)),
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number.into())
    }
}

impl From<Decimal> for Value<'_> {
    fn from(number: Decimal) -> Self {
        Self::Number(number)
    }
}

impl From<DateTime<Utc>> for Value<'_> {
    fn from(time: DateTime<Utc>) -> Self {
        Self::Time(time)
    }
}

impl<'a, V: Into<Value<'a>>> From<Option<V>> for Value<'a> {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<'a, V: Into<Value<'a>>> FromIterator<V> for Value<'a> {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        Self::Many(values.into_iter().map(Into::into).collect())
    }
}

impl Expr {
    /// Whether the row satisfies the expression, which has been [typed](Expr::typed).
    pub fn matches(&self, row: &impl Row) -> bool {
        self.truth(row) == Some(true)
    }

    /// True, false, or neither.
    fn truth(&self, row: &impl Row) -> Option<bool> {
        match self {
            Self::Not(inner) => inner.truth(row).map(|truth| !truth),
            Self::And(left, right) => match left.truth(row) {
                Some(false) => Some(false),
                Some(true) => right.truth(row),
                None => right.truth(row).filter(|truth| !truth),
            },
            Self::Or(left, right) => match left.truth(row) {
                Some(true) => Some(true),
                Some(false) => right.truth(row),
                None => right.truth(row).filter(|truth| *truth),
            },
            Self::Compare(comparison) => comparison.truth(&row.value(&comparison.field)),
        }
    }
}

impl Comparison {
    fn truth(&self, value: &Value<'_>) -> Option<bool> {
        let is_null = *value == Value::Null;
        match (self.op, &self.literal) {
            (Op::Eq | Op::Is, Literal::Null) => Some(is_null),
            (Op::Ne | Op::IsNot, Literal::Null) => Some(!is_null),
            (_, literal) => match value {
                Value::Many(values) => any(values.iter().map(|value| single(self.op, literal, value))),
                value => single(self.op, literal, value),
            },
        }
    }
}

/// A comparison of one value with a literal that is not null.
fn single(op: Op, literal: &Literal, value: &Value<'_>) -> Option<bool> {
    match (op, literal) {
        (Op::Is, Literal::Bool(expected)) => Some(*value == Value::Bool(*expected)),
        (Op::IsNot, Literal::Bool(expected)) => Some(*value != Value::Bool(*expected)),
        (Op::In, Literal::List(items)) => any(items.iter().map(|item| single(Op::Eq, item, value))),
        (Op::Contains | Op::Like | Op::Ilike, Literal::Text(pattern)) => {
            let Value::Text(text) = value else { return None };
            Some(match op {
                Op::Contains => contains(text, pattern),
                _ => like(text, pattern, op == Op::Ilike),
            })
        }
        _ => {
            let order = value.compare(&as_value(literal)?)?;
            Some(match op {
                Op::Eq => order.is_eq(),
                Op::Ne => order.is_ne(),
                Op::Gt => order.is_gt(),
                Op::Ge => order.is_ge(),
                Op::Lt => order.is_lt(),
                Op::Le => order.is_le(),
                _ => return None,
            })
        }
    }
}

fn as_value(literal: &Literal) -> Option<Value<'_>> {
    Some(match literal {
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Number(number) => Value::Number(*number),
        Literal::Text(text) => Value::from(text.as_str()),
        Literal::Time(time) => Value::Time(*time),
        Literal::Null | Literal::List(_) => return None,
    })
}

/// True if one is; otherwise undecided if one is; otherwise false.
fn any(truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(false);
    for truth in truths {
        match truth {
            Some(true) => return truth,
            Some(false) => {}
            None => result = None,
        }
    }
    result
}
