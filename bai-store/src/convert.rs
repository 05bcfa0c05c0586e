//! Between rows and what they mean.

use std::borrow::Cow;

use bai_core::Timestamp;
use bai_core::error::{Error, Result, code};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Microseconds since the Unix epoch.
pub(crate) fn micros(time: Timestamp) -> i64 {
    time.timestamp_micros()
}

/// The text of a column that is searched by. PostgreSQL has no zero bytes in texts; the document keeps them.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{FFFD}")) } else { Cow::Borrowed(text) }
}

/// The document of a row.
pub(crate) fn to_doc(row: &impl Serialize) -> Result<String> {
    serde_json::to_string(row).map_err(|error| {
        Error::of(code::STORE_FAILED, "the row cannot be written as a document").source(error)
    })
}

/// The row of a document. `what` and `key` say which, should it be damaged.
pub(crate) fn from_doc<T: DeserializeOwned>(doc: &str, what: &'static str, key: &str) -> Result<T> {
    serde_json::from_str(doc).map_err(|error| corrupt(what, key).source(error))
}

/// The error of a row that makes no sense.
pub(crate) fn corrupt(what: &'static str, key: &str) -> Error {
    Error::of(code::STORE_CORRUPT, "a row of the database cannot be read").with("row", what).with("key", key)
}
