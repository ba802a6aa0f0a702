//! Shapes of answers that several services share.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::json;

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A problem document as the Go services and CFS send it.
pub(crate) fn problem(status: StatusCode, detail: impl AsRef<str>) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = json!({"type": "about:blank", "title": title, "detail": detail.as_ref(), "status": status.as_u16()});
    with_type(status, "application/problem+json", body.to_string())
}

/// A problem document as IMS sends it: without `type`, perhaps with errors by field.
pub(crate) fn ims_problem(status: StatusCode, detail: &str, field: Option<(&str, &str)>) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let mut body = json!({"title": title, "detail": detail, "status": status.as_u16()});
    if let Some((name, message)) = field {
        body["errors"] = json!({name: [message]});
    }
    with_type(status, "application/problem+json", body.to_string())
}

/// Plain text.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Response {
    with_type(status, "text/plain; charset=utf-8", body.into())
}

/// What Go's router answers on a path it does not know.
pub(crate) fn go_not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// 200 with JSON.
pub(crate) fn json_ok<T: Serialize>(value: &T) -> Response {
    json_with(StatusCode::OK, value)
}

/// Any status with JSON.
pub(crate) fn json_with<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => with_type(status, "application/json", body),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// A status without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An error of the object store.
pub(crate) fn xml_error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message><RequestId>tx000000000000000000001</RequestId><HostId>site</HostId></Error>"
    );
    with_type(status, "application/xml", body)
}
