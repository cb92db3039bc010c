//! Answers that the proxy gives by itself, and errors that break connections.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

/// The connection breaks here.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the connection is broken on purpose")]
pub(super) struct Broken;

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, Broken>;

/// A whole body.
pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Kubernetes' `Status` for a code.
pub(super) fn status(code: u16) -> Value {
    let (reason, message) = match code {
        401 => ("Unauthorized", "the token is not the one in the kubeconfig"),
        409 => ("Conflict", "the object has been modified; please apply your changes to the latest version"),
        410 => ("Expired", "too old resource version"),
        429 => ("TooManyRequests", "the server has received too many requests"),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        _ => ("InternalError", "an error on the server has prevented the request from succeeding"),
    };
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code,
    });
    if asks_for_pause(code) {
        status["details"] = json!({"retryAfterSeconds": 1});
    }
    status
}

fn asks_for_pause(code: u16) -> bool {
    matches!(code, 429 | 503)
}

/// An answer with such a status.
pub(super) fn failure(code: u16) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::from(status(code).to_string())));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if asks_for_pause(code) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The line with which an API server ends a watch whose history is gone.
pub(super) fn gone_line() -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status(410)})))
}
