//! Collects typed values out of a parameter object, and every mistake in it.

use bai_core::Error;
use bai_core::error::code;
use serde_json::{Map, Value};

use crate::gateway::failure::Failure;

/// A parameter object being taken apart. What is not asked for is a mistake, unless it is [`Check::open`]ed.
#[derive(Debug)]
pub(in crate::gateway) struct Check {
    values: Map<String, Value>,
    mistakes: Map<String, Value>,
    open: bool,
}

impl Check {
    /// Starts with all of `values` unchecked.
    pub(in crate::gateway) fn new(values: Map<String, Value>) -> Self {
        Self { values, mistakes: Map::new(), open: false }
    }

    /// Allows keys that nothing asks for.
    pub(in crate::gateway) fn open(&mut self) -> &mut Self {
        self.open = true;
        self
    }

    /// A value that must be there. After a mistake it is the type's default, and [`Check::finish`] fails.
    pub(in crate::gateway) fn required<T: Default>(
        &mut self,
        names: &str,
        kind: impl Fn(&Value) -> Result<T, String>,
    ) -> T {
        if let Some((name, value)) = self.take(names) {
            return self.convert(name, &value, kind).unwrap_or_default();
        }
        self.mistake(names.split('|').next().unwrap_or(names), "is required");
        T::default()
    }

    /// A value that may be absent or null.
    pub(in crate::gateway) fn optional<T>(
        &mut self,
        names: &str,
        kind: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let (name, value) = self.take(names)?;
        if value.is_null() { None } else { self.convert(name, &value, kind) }
    }

    /// A value with a default.
    pub(in crate::gateway) fn or<T>(
        &mut self,
        names: &str,
        kind: impl Fn(&Value) -> Result<T, String>,
        default: T,
    ) -> T {
        self.optional(names, kind).unwrap_or(default)
    }

    /// An object with parameters of its own, empty when absent or null. Its mistakes appear under `name`.
    pub(in crate::gateway) fn nested<T>(&mut self, name: &str, parse: impl FnOnce(&mut Self) -> T) -> T {
        let mut inner = match self.take(name) {
            None | Some((_, Value::Null)) => Self::new(Map::new()),
            Some((_, Value::Object(values))) => Self::new(values),
            Some(_) => {
                self.mistake(name, "value is not a dict");
                Self::new(Map::new())
            }
        };
        let parsed = parse(&mut inner);
        let mistakes = inner.all_mistakes();
        if !mistakes.is_empty() && !self.mistakes.contains_key(name) {
            self.mistakes.insert(name.to_owned(), Value::Object(mistakes));
        }
        parsed
    }

    /// The value under the first of the `|`-separated names that is there, with that name.
    pub(in crate::gateway) fn take(&mut self, names: &str) -> Option<(String, Value)> {
        let mut found = None;
        for name in names.split('|') {
            if let Some(value) = self.values.shift_remove(name) {
                found.get_or_insert((name.to_owned(), value));
            }
        }
        found
    }

    /// Records a mistake.
    pub(in crate::gateway) fn mistake(&mut self, name: &str, message: impl Into<String>) {
        self.mistakes.entry(name.to_owned()).or_insert_with(|| Value::String(message.into()));
    }

    /// Ends the check.
    ///
    /// # Errors
    /// `Invalid` with all mistakes as `data`.
    pub(in crate::gateway) fn finish(self) -> Result<(), Failure> {
        let mistakes = self.all_mistakes();
        if mistakes.is_empty() {
            return Ok(());
        }
        let error = Error::of(code::INVALID_PARAMETERS, "Input validation error");
        Err(Failure(error.data(Value::Object(mistakes))))
    }

    fn convert<T>(
        &mut self,
        name: String,
        value: &Value,
        kind: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        kind(value).map_err(|message| self.mistakes.insert(name, Value::String(message))).ok()
    }

    fn all_mistakes(mut self) -> Map<String, Value> {
        if !self.open {
            for (name, _) in std::mem::take(&mut self.values) {
                let message = format!("{name} is not allowed key");
                self.mistake(&name, message);
            }
        }
        self.mistakes
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kind;
    use super::*;

    fn check(value: Value) -> Check {
        match value {
            Value::Object(values) => Check::new(values),
            _ => panic!("not an object"),
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let mut check = check(json!({"a": 1, "other": true, "config": {"n": "x", "z": 0}}));
        check.required("name|alias", kind::text);
        check.required("a", kind::text);
        check.nested("config", |config| config.or("n", kind::integer(0, 9), 1));
        let data = check.finish().unwrap_err().0.problem_data().cloned().unwrap();
        assert_eq!(
            data,
            json!({
                "name": "is required",
                "a": "value is not a string",
                "config": {"n": "value can't be converted to int", "z": "z is not allowed key"},
                "other": "other is not allowed key",
            })
        );
    }

    #[test]
    fn aliases_nulls_and_defaults() {
        let mut check = check(json!({"alias": "x", "tag": null, "flag": "Yes"}));
        assert_eq!(check.required("name|alias", kind::text), "x");
        assert_eq!(check.optional("tag", kind::text), None);
        assert!(check.or("flag", kind::boolean, false));
        assert_eq!(check.or("size", kind::integer(1, 5), 3), 3);
        check.finish().unwrap();
    }
}
