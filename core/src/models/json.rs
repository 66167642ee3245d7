//! Fields of the `config.json` beside a file of weights.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// The text of a folder's `config.json`, and its name for errors.
pub(super) fn config_text(folder: &Path) -> Result<(String, String)> {
    let path = folder.join("config.json");
    let what = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((text, what)),
        Err(e) => Err(Error::Io { path: what, message: e.to_string() }),
    }
}

/// Parses a `config.json`; `what` names it in errors.
pub(super) fn read(text: &str, what: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| format_error(what, e.to_string()))
}

fn format_error(what: &str, message: String) -> Error {
    Error::Format { what: what.to_string(), message }
}

/// The fields of an object of the file.
pub(super) struct Fields<'a> {
    pub value: &'a Value,
    /// The file.
    pub what: &'a str,
    /// The object, where it is not the file itself.
    pub place: &'a str,
}

impl Fields<'_> {
    pub fn error(&self, key: &str, got: impl ToString, expected: impl ToString) -> Error {
        let dot = if self.place.is_empty() { "" } else { "." };
        let (got, expected) = (got.to_string(), expected.to_string());
        format_error(self.what, format!("{}{dot}{key} is {got}, expected {expected}", self.place))
    }

    /// Refuses another text under `key` than `expected`; none is as good.
    pub fn expect(&self, key: &str, expected: &str) -> Result<()> {
        match &self.value[key] {
            Value::Null => Ok(()),
            Value::String(text) if text == expected => Ok(()),
            other => Err(self.error(key, other, expected)),
        }
    }

    /// A size, at least 1.
    pub fn count(&self, key: &str, default: Option<usize>) -> Result<usize> {
        match (&self.value[key], default) {
            (Value::Null, Some(n)) => Ok(n),
            (Value::Null, None) => Err(self.error(key, "missing", "a whole number from 1")),
            (value, _) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(n) if n > 0 => Ok(n),
                _ => Err(self.error(key, value, "a whole number from 1")),
            },
        }
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        match &self.value[key] {
            Value::Null => Ok(None),
            value => value.as_f64().map(Some).ok_or_else(|| self.error(key, value, "a number")),
        }
    }

    pub fn flag(&self, key: &str) -> Result<bool> {
        match &self.value[key] {
            Value::Null => Ok(false),
            value => value.as_bool().ok_or_else(|| self.error(key, value, "true or false")),
        }
    }
}
