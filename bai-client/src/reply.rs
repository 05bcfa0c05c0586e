//! Replies: the version probe, and problem bodies as errors.

use bai_core::{Code, Error, ErrorKind, error::code};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

/// Versions of a server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServerInfo {
    /// API version, such as `v7.20230615`.
    pub version: String,
    /// Version of the Backend.AI manager that the API is compatible with.
    pub manager: String,
    /// Version of bai, when the server is one.
    #[serde(default)]
    pub bai: Option<String>,
}

/// The error that a reply with a failing status stands for.
pub(crate) fn error_of(status: StatusCode, body: &[u8]) -> Error {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| problem.get(key).and_then(Value::as_str);
    let code = text("error_code").and_then(Code::from_id).unwrap_or_else(|| code_of(status));
    let message = match (text("title"), text("msg")) {
        (_, Some(message)) => message.to_owned(),
        (Some(title), None) => title.to_owned(),
        (None, None) => format!("the server answered {status}"),
    };
    let error = Error::of(code, message);
    match problem.get("data") {
        Some(data) if !data.is_null() => error.data(data.clone()),
        _ => error,
    }
}

fn code_of(status: StatusCode) -> Code {
    let kind = match status.as_u16() {
        401 => ErrorKind::Unauthorized,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        412 | 429 => ErrorKind::QuotaExceeded,
        400..=499 => ErrorKind::Invalid,
        503 => ErrorKind::Unavailable,
        504 => ErrorKind::Timeout,
        _ => return code::INTERNAL,
    };
    Error::new(kind, "").code()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_body_keeps_its_code_and_data() {
        let sent =
            Error::of(code::SESSION_EXISTS, "taken").data(serde_json::json!({"existingSessionId": "x"}));
        let received = error_of(StatusCode::BAD_REQUEST, sent.to_problem().to_string().as_bytes());
        assert_eq!(received.code(), code::SESSION_EXISTS);
        assert_eq!(received.message(), "taken");
        assert_eq!(received.problem_data(), sent.problem_data());
    }

    #[test]
    fn other_servers_are_understood_by_status() {
        let received = error_of(StatusCode::NOT_FOUND, br#"{"type": "x", "title": "No such session."}"#);
        assert_eq!((received.kind(), received.message()), (ErrorKind::NotFound, "No such session."));
        assert_eq!(error_of(StatusCode::BAD_GATEWAY, b"<html>").kind(), ErrorKind::Internal);
    }
}
