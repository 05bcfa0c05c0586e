//! Errors as `application/problem+json` replies.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bai_core::error::Code;
use bai_core::{Error, ErrorKind};

/// An error on its way to a client.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Error);

/// What a handler returns.
pub(super) type Reply = Result<Response, Failure>;

impl Failure {
    /// A failure under `code` whose problem body says `message`.
    pub(super) fn of(code: Code, message: impl Into<String>) -> Self {
        Self(Error::of(code, message))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = self.0;
        if error.kind() == ErrorKind::Internal {
            tracing::error!(?error, "request failed");
        }
        let status = StatusCode::from_u16(error.code().problem().status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = error.to_problem().to_string();
        (status, [(CONTENT_TYPE, "application/problem+json; charset=utf-8")], body).into_response()
    }
}
