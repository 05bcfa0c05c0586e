//! The lexical level both languages share.

/// What is still to be read of a text.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    /// Where the next token starts, in bytes.
    pub(super) fn position(&mut self) -> usize {
        self.rest();
        self.position
    }

    /// The rest of the text without leading blanks.
    pub(super) fn rest(&mut self) -> &'a str {
        let rest = self.text[self.position..].trim_start();
        self.position = self.text.len() - rest.len();
        rest
    }

    pub(super) fn at_end(&mut self) -> bool {
        self.rest().is_empty()
    }

    /// Skips `token` if it is next.
    pub(super) fn skip(&mut self, token: &str) -> bool {
        let is_next = self.rest().starts_with(token);
        if is_next {
            self.position += token.len();
        }
        is_next
    }

    /// Takes the characters that satisfy `accept`.
    pub(super) fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !accept(c)).unwrap_or(rest.len());
        self.position += end;
        &rest[..end]
    }

    /// Takes a name: letters, digits and underscores, not starting with a digit.
    pub(super) fn name(&mut self) -> Option<&'a str> {
        let is_name = self.rest().starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        is_name.then(|| self.take_while(|c| c.is_ascii_alphanumeric() || c == '_'))
    }

    /// Takes a double-quoted text and returns what is between the quotes. A backslash protects what follows it.
    pub(super) fn quoted(&mut self) -> Option<&'a str> {
        let inner = self.rest().strip_prefix('"')?;
        let mut is_protected = false;
        let end = inner.find(|c| {
            let is_end = c == '"' && !is_protected;
            is_protected = c == '\\' && !is_protected;
            is_end
        })?;
        self.position += end + 2;
        Some(&inner[..end])
    }

    /// What comes next, for messages.
    pub(super) fn next_for_message(&mut self) -> String {
        match self.rest().chars().next() {
            Some(c) => format!("{c:?} at position {}", self.position),
            None => "the end".to_owned(),
        }
    }
}
