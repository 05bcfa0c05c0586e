//! The one place that prints.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unused_self)]

use std::io::{IsTerminal, Write};

use bai_core::execution::ConsoleItem;
use bai_core::{Error, ErrorKind};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::Format;

/// Prints data to standard output and everything else to standard error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether progress may be drawn.
    pub(crate) fn is_interactive(self) -> bool {
        self.format == Format::Table && std::io::stderr().is_terminal()
    }

    /// Prints rows as a table, or as the JSON they are.
    pub(crate) fn rows<T: Serialize>(self, header: &[&str], rows: &[T], cells: impl Fn(&T) -> Vec<String>) {
        if self.is_json() {
            return self.json(&rows);
        }
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(header.to_vec());
        for row in rows {
            table.add_row(cells(row));
        }
        line(table.trim_fmt());
    }

    /// Whether programs read the output.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints lines of name and value.
    pub(crate) fn fields(self, fields: &[(&str, String)]) {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in fields {
            line(format_args!("{name:width$}  {value}"));
        }
    }

    /// Prints one JSON document.
    pub(crate) fn json(self, value: &impl Serialize) {
        line(serde_json::to_string_pretty(value).unwrap_or_default());
    }

    /// Prints text as it is.
    pub(crate) fn text(self, text: &str) {
        write(&mut std::io::stdout(), text);
    }

    /// Prints a line of data.
    pub(crate) fn line(self, text: impl std::fmt::Display) {
        line(text);
    }

    /// Tells the person what happened.
    pub(crate) fn note(self, text: impl std::fmt::Display) {
        write(&mut std::io::stderr(), &format!("{text}\n"));
    }

    /// Shows a piece of a program's output where it belongs; for programs as one line of JSON.
    pub(crate) fn console(self, item: &ConsoleItem) {
        if self.is_json() {
            return line(serde_json::to_string(item).unwrap_or_default());
        }
        match item {
            ConsoleItem::Stdout(text) => write(&mut std::io::stdout(), text),
            ConsoleItem::Stderr(text) => write(&mut std::io::stderr(), text),
            ConsoleItem::Html(text) => line(text),
            ConsoleItem::Media(mime, data) => self.note(format!("[{mime}, {} bytes]", data.len())),
            ConsoleItem::Log(text) => self.note(text),
        }
    }

    /// Tells programs that a run has ended, and how.
    pub(crate) fn finished(self, exit_code: i32) {
        if self.is_json() {
            line(json!({ "type": "finished", "exit_code": exit_code }));
        }
    }

    /// Shows an error: message, code, and what to do next; for programs as the problem body that a server would send.
    pub(crate) fn error(self, error: &Error) {
        self.note(if self.is_json() { error.to_problem().to_string() } else { words(error) });
    }
}

fn words(error: &Error) -> String {
    let fields = fields(error).map(|(field, problem)| format!("\n  {field}: {problem}"));
    let help = help(error).map(|help| format!("\nhelp: {help}"));
    format!(
        "error: {error}{}\ncode: {}{}",
        fields.collect::<String>(),
        error.code().id(),
        help.unwrap_or_default()
    )
}

/// The parameters that the server refused, each with what is wrong with it (spec auth.md, section 7).
fn fields(error: &Error) -> impl Iterator<Item = (&str, &str)> {
    let named =
        error.problem_data().filter(|_| error.kind() == ErrorKind::Invalid).and_then(Value::as_object);
    named.into_iter().flatten().filter_map(|(field, problem)| Some((field.as_str(), problem.as_str()?)))
}

fn help(error: &Error) -> Option<&'static str> {
    use bai_core::error::code;
    Some(match error.code() {
        code::IMAGE_NOT_FOUND => "`bai images` lists what sessions can be created from",
        code::SESSION_NOT_FOUND => "`bai ps` lists the living sessions, `bai ps --all` the dead ones too",
        code::CONNECT_FAILED => "check BACKEND_ENDPOINT, and that the server runs",
        code::AUTH_FAILED | code::INVALID_AUTH => "check BACKEND_ACCESS_KEY and BACKEND_SECRET_KEY",
        code::SESSION_FAILED => "`bai ps --all` says why, `bai logs SESSION` what it printed",
        code::TIMEOUT if error.context().iter().any(|(key, _)| *key == "id") => {
            "the session stays in the queue: `bai info SESSION` says what it waits for, `bai rm SESSION` ends it"
        }
        code::SESSION_STATE_FORBIDS => "`bai rm --forced` ends a session whatever its status",
        code::HOST_LACKS_FEATURE => "`bai doctor` says what this host offers",
        _ if error.kind() == ErrorKind::Conflict => "try again",
        _ => return None,
    })
}

fn line(text: impl std::fmt::Display) {
    write(&mut std::io::stdout(), &format!("{text}\n"));
}

/// Writes, and ends quietly when the reader has gone: `bai logs x | head` is no error.
fn write(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use bai_core::error::code;

    #[test]
    fn refused_parameters_are_named() {
        let refused = Error::of(code::INVALID_PARAMETERS, "Input validation error")
            .data(json!({ "name": "too short", "n": 1 }));
        assert_eq!(fields(&refused).collect::<Vec<_>>(), [("name", "too short")]);
        let other = Error::of(code::SESSION_EXISTS, "taken").data(json!({ "existingSessionId": "x" }));
        assert_eq!(fields(&other).count(), 0);
    }
}
