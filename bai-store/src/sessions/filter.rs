//! Filter expressions as SQL. What users write only ever becomes an argument; names of columns come from the table
//! here. The result must be the one of evaluation in memory, the logic of absent values included.

use bai_core::error::{Error, Result, code};
use bai_core::query::{Comparison, Expr, Literal, Op};

use super::super::dialect::Dialect;
use crate::convert::plain;
use crate::db::Arg;
use pattern::Pattern;

mod pattern;

/// A condition that is being put together, with its arguments.
#[derive(Debug)]
pub(super) struct Text {
    dialect: Dialect,
    sql: String,
    args: Vec<Arg<'static>>,
}

impl Text {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, sql: String::new(), args: Vec::new() }
    }

    /// Appends our own words.
    pub(super) fn push(&mut self, words: &str) -> &mut Self {
        self.sql.push_str(words);
        self
    }

    /// Appends an argument.
    pub(super) fn bind(&mut self, arg: Arg<'static>) -> &mut Self {
        self.args.push(arg);
        let number = self.args.len().to_string();
        self.push("$").push(&number)
    }

    pub(super) fn finish(self) -> (String, Vec<Arg<'static>>) {
        (self.sql, self.args)
    }
}

/// Where a field is found.
#[derive(Debug, Clone, Copy)]
enum Column {
    /// A text, UUID or enum member.
    Text(&'static str),
    /// A number, or a time in microseconds.
    Number(&'static str),
    /// A text of each kernel; absent ones do not count.
    OfKernels { element: &'static str, list: &'static str },
}

fn column(field: &str) -> Option<Column> {
    Some(match field {
        "id" => Column::Text("s.id"),
        "type" => Column::Text("s.session_type"),
        "name" => Column::Text("s.name"),
        "image" => Column::OfKernels { element: "k.image", list: "s.image_list" },
        "agent_ids" | "agent_id" | "agents" => {
            Column::OfKernels { element: "k.agent_id", list: "s.agent_list" }
        }
        "domain_name" => Column::Text("s.domain"),
        "group_name" => Column::Text("s.project"),
        "user_email" => Column::Text("s.user_email"),
        "full_name" => Column::Text("(SELECT u.full_name FROM users u WHERE u.id = s.user_id)"),
        "access_key" => Column::Text("s.access_key"),
        "scaling_group" => Column::Text("s.resource_group"),
        "cluster_mode" => Column::Text("s.cluster_mode"),
        "cluster_size" => Column::Number("s.cluster_size"),
        "status" => Column::Text("s.status"),
        "status_info" => Column::Text("s.status_info"),
        "result" => Column::Text("s.result"),
        "created_at" => Column::Number("s.created_at"),
        "terminated_at" => Column::Number("s.terminated_at"),
        "starts_at" => Column::Number("s.starts_at"),
        "scheduled_at" => Column::Text("s.scheduled_at"),
        "startup_command" => Column::Text("s.startup_command"),
        _ => return None,
    })
}

/// What to order by for a field.
pub(super) fn order_column(field: &str) -> Option<&'static str> {
    column(field).map(|column| match column {
        Column::Text(column) | Column::Number(column) | Column::OfKernels { list: column, .. } => column,
    })
}

/// Appends a typed expression.
///
/// # Errors
/// `Invalid` when it has not been typed, or a pattern is too long.
pub(super) fn push(text: &mut Text, expr: &Expr) -> Result<()> {
    match expr {
        Expr::Not(inner) => {
            text.push("NOT (");
            push(text, inner)?;
        }
        Expr::And(left, right) | Expr::Or(left, right) => {
            text.push("((");
            push(text, left)?;
            text.push(if matches!(expr, Expr::And(..)) { ") AND (" } else { ") OR (" });
            push(text, right)?;
            text.push(")");
        }
        Expr::Compare(comparison) => {
            text.push("(");
            push_comparison(text, comparison)?;
        }
    }
    text.push(")");
    Ok(())
}

fn push_comparison(text: &mut Text, comparison: &Comparison) -> Result<()> {
    let Comparison { field, op, literal } = comparison;
    let column = column(field).ok_or_else(impossible)?;
    let asks_absent = match (op, literal) {
        (Op::Eq | Op::Is, Literal::Null) => Some(true),
        (Op::Ne | Op::IsNot, Literal::Null) => Some(false),
        _ => None,
    };
    match (asks_absent, column, literal) {
        // A list of kernels is never absent.
        (Some(absent), Column::OfKernels { .. }, _) => {
            text.push(if absent { "FALSE" } else { "TRUE" });
        }
        (Some(absent), Column::Text(name) | Column::Number(name), _) => {
            text.push(name).push(if absent { " IS NULL" } else { " IS NOT NULL" });
        }
        (None, Column::OfKernels { element, .. }, literal) => push_any(text, element, *op, literal)?,
        (None, column, Literal::List(items)) if *op == Op::In => push_in(text, column, items)?,
        (None, column, literal) => push_single(text, column, *op, literal)?,
    }
    Ok(())
}

/// The refusal of what typing should have refused.
fn impossible() -> Error {
    Error::of(code::FILTER_SYNTAX, "the comparison is not possible")
}

/// Whether any element satisfies a comparison with a literal; undecided when none does and the comparison is with
/// an absent value, unless there is no element at all.
fn push_any(text: &mut Text, element: &'static str, op: Op, literal: &Literal) -> Result<()> {
    let elements =
        format!("EXISTS (SELECT 1 FROM kernels k WHERE k.session_id = s.id AND {element} IS NOT NULL");
    let literals = match (op, literal) {
        (Op::In, Literal::List(items)) => items.as_slice(),
        (_, literal) => std::slice::from_ref(literal),
    };
    let op = if op == Op::In { Op::Eq } else { op };
    text.push("CASE");
    for literal in literals.iter().filter(|literal| **literal != Literal::Null) {
        text.push(" WHEN ").push(&elements).push(" AND ");
        push_single(text, Column::Text(element), op, literal)?;
        text.push(") THEN TRUE");
    }
    if literals.contains(&Literal::Null) {
        text.push(" WHEN ").push(&elements).push(") THEN NULL");
    }
    text.push(" WHEN FALSE THEN TRUE ELSE FALSE END");
    Ok(())
}

/// Equal to any of a list; undecided when not and the list, or the row, has an absent value.
fn push_in(text: &mut Text, column: Column, items: &[Literal]) -> Result<()> {
    text.push("FALSE");
    for item in items {
        text.push(" OR (");
        push_single(text, column, Op::Eq, item)?;
        text.push(")");
    }
    Ok(())
}

/// One value compared with one literal.
fn push_single(text: &mut Text, column: Column, op: Op, literal: &Literal) -> Result<()> {
    match (column, literal) {
        (_, Literal::Null) => {
            text.push("CAST(NULL AS BOOLEAN)");
        }
        (Column::Text(name), Literal::Text(pattern)) if matches!(op, Op::Like | Op::Ilike | Op::Contains) => {
            push_pattern(text, name, op, pattern)?;
        }
        (Column::Text(name), Literal::Text(value)) => {
            text.push(name).push(sign(op)?).bind(plain(value).into_owned().into());
        }
        (Column::Number(name), Literal::Number(number)) => {
            let floor = number.floor();
            let limit = if number.is_sign_negative() { i64::MIN } else { i64::MAX };
            let whole = i64::try_from(floor).ok();
            push_number(text, name, op, whole.unwrap_or(limit), whole.is_some() && floor == *number)?;
        }
        (Column::Number(name), Literal::Time(time)) => {
            let is_whole = time.timestamp_subsec_nanos() % 1000 == 0;
            push_number(text, name, op, time.timestamp_micros(), is_whole)?;
        }
        _ => return Err(impossible()),
    }
    Ok(())
}

/// A whole number compared with one that may lie between `floor` and the next one.
fn push_number(text: &mut Text, name: &str, op: Op, floor: i64, is_whole: bool) -> Result<()> {
    if is_whole {
        text.push(name).push(sign(op)?).bind(floor.into());
        return Ok(());
    }
    match op {
        Op::Eq => text.push(name).push(" <> ").push(name), // false, or absent
        Op::Ne => text.push(name).push(" = ").push(name),
        Op::Gt | Op::Ge => text.push(name).push(" > ").bind(floor.into()),
        _ => text.push(name).push(" <= ").bind(floor.into()),
    };
    Ok(())
}

fn push_pattern(text: &mut Text, name: &str, op: Op, pattern: &str) -> Result<()> {
    let pattern = plain(pattern);
    let pattern =
        if op == Op::Contains { Pattern::parse(&format!("%{pattern}%")) } else { Pattern::parse(&pattern) };
    let ignore_case = op == Op::Ilike;
    match text.dialect {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => text.push(name).push(" GLOB ").bind(pattern.as_glob(ignore_case)?.into()),
        #[cfg(feature = "postgres")]
        Dialect::Postgres => text.push(name).push(" ~ ").bind(pattern.as_regex(ignore_case)?.into()),
    };
    Ok(())
}

fn sign(op: Op) -> Result<&'static str> {
    Ok(match op {
        Op::Eq => " = ",
        Op::Ne => " <> ",
        Op::Gt => " > ",
        Op::Ge => " >= ",
        Op::Lt => " < ",
        Op::Le => " <= ",
        _ => {
            return Err(Error::of(code::FILTER_SYNTAX, "the comparison is not possible")
                .with("operator", op.as_str()));
        }
    })
}
