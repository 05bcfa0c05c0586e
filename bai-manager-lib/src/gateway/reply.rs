//! Successful replies.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use bai_core::{Error, ErrorKind};
use serde::Serialize;

use super::failure::{Failure, Reply};

/// Status 200 with a JSON body.
pub(super) fn ok(body: &impl Serialize) -> Reply {
    json(StatusCode::OK, body)
}

/// A JSON body under `status`.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Reply {
    let text = serde_json::to_vec(body).map_err(|error| {
        Failure(Error::new(ErrorKind::Internal, "the reply cannot be written").source(error))
    })?;
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    Ok(response)
}

/// Status 204 without a body.
pub(super) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
