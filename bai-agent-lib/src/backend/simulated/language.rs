//! What simulated kernels understand: enough to try every path of the execute state machine.
//!
//! Queries are lines of something that looks like Python. Variables are kept from query to query. Other lines do nothing.
//!
//! | line | effect |
//! |---|---|
//! | `print("text")`, `print(name)` | writes a line |
//! | `name = "text"`, `name = 1` | sets a variable |
//! | `name = input("prompt")`, `print(input("prompt"))` | writes the prompt and waits for a line |
//! | `time.sleep(seconds)` | waits; an interrupt ends the query |
//! | `raise …` | writes the line to standard error and ends the query |
//!
//! Batch steps are shell commands divided by `;` or lines: `echo text`, `sleep seconds`, `exit code`. Others do nothing.

use std::time::Duration;

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// Write a line.
    Print(Expression),
    /// Set a variable.
    Assign(String, Expression),
    /// Wait.
    Sleep(Duration),
    /// Write to standard error and end with this code.
    Fail(String, i32),
    /// End with this code.
    Exit(i32),
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// A text.
    Text(String),
    /// The value of a variable.
    Variable(String),
    /// A line of input, asked for with a prompt.
    Input(String),
}

/// Reads a query.
pub fn query(code: &str) -> Vec<Statement> {
    code.lines().filter_map(|line| query_line(line.trim())).collect()
}

/// Reads a shell command.
pub fn shell(command: &str) -> Vec<Statement> {
    command.split([';', '\n']).filter_map(|part| shell_part(part.trim())).collect()
}

fn query_line(line: &str) -> Option<Statement> {
    if line.starts_with("raise") {
        return Some(Statement::Fail(format!("{}\n", line.trim_start_matches("raise").trim()), 0));
    }
    if let Some(seconds) = call(line, "time.sleep") {
        return Some(Statement::Sleep(seconds_of(seconds)?));
    }
    if let Some(argument) = call(line, "print") {
        return Some(Statement::Print(expression(argument)?));
    }
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    plain.then(|| Some(Statement::Assign(name.to_owned(), expression(value.trim())?)))?
}

fn expression(text: &str) -> Option<Expression> {
    if let Some(prompt) = call(text, "input") {
        return Some(Expression::Input(quoted(prompt).unwrap_or_default().to_owned()));
    }
    if let Some(inner) = quoted(text) {
        return Some(Expression::Text(inner.replace("\\n", "\n")));
    }
    if text.parse::<f64>().is_ok() {
        return Some(Expression::Text(text.to_owned()));
    }
    text.chars().all(|c| c.is_alphanumeric() || c == '_').then(|| Expression::Variable(text.to_owned()))
}

fn call<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    Some(text.strip_prefix(name)?.trim_start().strip_prefix('(')?.strip_suffix(')')?.trim())
}

fn quoted(text: &str) -> Option<&str> {
    ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

fn shell_part(part: &str) -> Option<Statement> {
    let (command, rest) = part.split_once(' ').unwrap_or((part, ""));
    match command {
        "echo" => {
            let text = quoted(rest.trim()).unwrap_or(rest.trim());
            Some(Statement::Print(Expression::Text(text.to_owned())))
        }
        "sleep" => Some(Statement::Sleep(seconds_of(rest)?)),
        "exit" => Some(Statement::Exit(rest.trim().parse().unwrap_or(0))),
        _ => None,
    }
}

fn seconds_of(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_line_by_line() {
        let text = |text: &str| Expression::Text(text.to_owned());
        let code = "import time\nx = 'a'\nprint(x)\nprint(\"b\")\ny = input('? ')\ntime.sleep(1.5)\nraise ValueError('c')\nz == 1(";
        let expected = [
            Statement::Assign("x".into(), text("a")),
            Statement::Print(Expression::Variable("x".into())),
            Statement::Print(text("b")),
            Statement::Assign("y".into(), Expression::Input("? ".into())),
            Statement::Sleep(Duration::from_millis(1500)),
            Statement::Fail("ValueError('c')\n".into(), 0),
        ];
        assert_eq!(query(code), expected);
    }

    #[test]
    fn shell_commands_are_read_part_by_part() {
        let print = Statement::Print(Expression::Text("a b".into()));
        assert_eq!(shell("echo 'a b'; true; exit 3"), [print, Statement::Exit(3)]);
    }
}
