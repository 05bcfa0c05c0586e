//! Parsing of filters.

use std::str::FromStr;

use rust_decimal::Decimal;

use super::scan::Scanner;
use super::{Comparison, Expr, Literal, Op};
use crate::error::{Error, code};

impl FromStr for Expr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|detail| syntax_error(&detail))
    }
}

/// The error of a filter that cannot be parsed.
pub(super) fn syntax_error(detail: &str) -> Error {
    Error::of(code::FILTER_SYNTAX, format!("Query filter parsing error: {detail}"))
}

type Parsed<T> = Result<T, String>;

fn parse(text: &str) -> Parsed<Expr> {
    if text.len() > Expr::MAX_LENGTH {
        return Err(format!("the filter is longer than {} bytes", Expr::MAX_LENGTH));
    }
    let mut parser = Parser { scanner: Scanner::new(text), terms: 0, depth: 0 };
    let expr = parser.expr()?;
    if parser.scanner.at_end() { Ok(expr) } else { Err(parser.unexpected("`&`, `|` or the end")) }
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    terms: usize,
    depth: usize,
}

/// What waits for the rest of the expression to its right.
enum Waiting {
    Not,
    And(Expr),
    Or(Expr),
}

impl Parser<'_> {
    /// Parses to the end of the chain, then folds it from the right. Only parentheses recurse.
    fn expr(&mut self) -> Parsed<Expr> {
        let mut waiting = Vec::new();
        let mut last = loop {
            while self.scanner.skip("!") {
                self.count_term()?;
                waiting.push(Waiting::Not);
            }
            let term = self.term()?;
            if self.scanner.skip("&") {
                waiting.push(Waiting::And(term));
            } else if self.scanner.skip("|") {
                waiting.push(Waiting::Or(term));
            } else {
                break term;
            }
        };
        while let Some(left) = waiting.pop() {
            last = match left {
                Waiting::Not => last.negated(),
                Waiting::And(left) => left.and(last),
                Waiting::Or(left) => left.or(last),
            };
        }
        Ok(last)
    }

    fn term(&mut self) -> Parsed<Expr> {
        if self.scanner.skip("(") {
            let inner = self.nested(Self::expr)?;
            return if self.scanner.skip(")") { Ok(inner) } else { Err(self.unexpected("`)`")) };
        }
        self.count_term()?;
        let field =
            self.scanner.name().ok_or_else(|| self.unexpected("a field name, `!` or `(`"))?.to_owned();
        let op = self.op()?;
        let literal = self.literal()?;
        check_operand(op, &literal)?;
        Ok(Expr::Compare(Comparison { field, op, literal }))
    }

    fn op(&mut self) -> Parsed<Op> {
        let position = self.scanner.position();
        // Longer symbols first, so that `>=` is not taken for `>`.
        for op in [Op::Eq, Op::Ne, Op::Ge, Op::Le, Op::Gt, Op::Lt] {
            if self.scanner.skip(op.as_str()) {
                return Ok(op);
            }
        }
        let Some(word) = self.scanner.name() else { return Err(self.unexpected("an operator")) };
        let op = Op::ALL.into_iter().find(|op| op.as_str() == word);
        op.ok_or_else(|| format!("unknown operator {word:?} at position {position}"))
    }

    fn literal(&mut self) -> Parsed<Literal> {
        if self.scanner.skip("[") {
            return self.nested(Self::list);
        }
        if self.scanner.rest().starts_with('"') {
            let text = self.scanner.quoted().ok_or("a text has no closing quote")?;
            return Ok(Literal::Text(text.replace("\\\"", "\"")));
        }
        let position = self.scanner.position();
        match self.scanner.name() {
            Some("null") => Ok(Literal::Null),
            Some("true") => Ok(Literal::Bool(true)),
            Some("false") => Ok(Literal::Bool(false)),
            Some(word) => Err(format!("unexpected {word:?} at position {position}, expected a value")),
            None => self.number(),
        }
    }

    fn list(&mut self) -> Parsed<Literal> {
        let mut items = Vec::new();
        if self.scanner.skip("]") {
            return Ok(Literal::List(items));
        }
        loop {
            items.push(self.literal()?);
            if self.scanner.skip("]") {
                return Ok(Literal::List(items));
            }
            if !self.scanner.skip(",") {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
    }

    fn number(&mut self) -> Parsed<Literal> {
        let position = self.scanner.position();
        let text = self.scanner.take_while(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
        if text.is_empty() {
            return Err(self.unexpected("a value"));
        }
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let number =
            (is_digits(whole) && is_digits(fraction)).then(|| text.parse::<Decimal>().ok()).flatten();
        number.map(Literal::Number).ok_or_else(|| format!("bad number {text:?} at position {position}"))
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == Expr::MAX_DEPTH {
            return Err(format!("nested deeper than {} levels", Expr::MAX_DEPTH));
        }
        self.depth += 1;
        let parsed = parse(self)?;
        self.depth -= 1;
        Ok(parsed)
    }

    fn count_term(&mut self) -> Parsed<()> {
        self.terms += 1;
        if self.terms > Expr::MAX_TERMS {
            return Err(format!("more than {} terms", Expr::MAX_TERMS));
        }
        Ok(())
    }

    fn unexpected(&mut self, expected: &str) -> String {
        format!("unexpected {}, expected {expected}", self.scanner.next_for_message())
    }
}

fn check_operand(op: Op, literal: &Literal) -> Parsed<()> {
    let is_list = matches!(literal, Literal::List(_));
    let expected = match op {
        Op::In if !is_list => "a list",
        Op::Is | Op::IsNot if !matches!(literal, Literal::Null | Literal::Bool(_)) => "null, true or false",
        _ if op.is_pattern() && !matches!(literal, Literal::Text(_)) => "a text",
        Op::Eq | Op::Ne | Op::Gt | Op::Ge | Op::Lt | Op::Le if is_list => "a single value",
        _ => return Ok(()),
    };
    Err(format!("the operator `{}` takes {expected}", op.as_str()))
}
