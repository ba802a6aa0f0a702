//! The image management service, version 3: image records and their metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::answers::{ims_problem, json_ok};
use super::core::Core;
use super::lock;

/// Where the manifest of an image lies.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Link {
    pub(crate) path: String,
    pub(crate) etag: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
}

/// An image record.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Image {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: String,
    pub(crate) arch: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) link: Option<Link>,
}

/// What the service has stored.
#[derive(Debug, Default)]
pub(crate) struct Ims {
    pub(crate) images: BTreeMap<String, Image>,
}

pub(crate) fn routes(core: Arc<Core>) -> Router {
    Router::new()
        .route("/v3/images", get(list))
        .route("/v3/images/{id}", get(show).patch(patch))
        .route("/healthz/ready", get(|| async { json_ok(&json!({"status": "ok"})) }))
        .fallback(|| async { ims_problem(StatusCode::NOT_FOUND, "The requested URL was not found on the server.", None) })
        .with_state(core)
}

fn unknown() -> Response {
    ims_problem(StatusCode::NOT_FOUND, "Requested resource does not exist. Re-run request with valid ID.", None)
}

async fn list(State(core): State<Arc<Core>>) -> Response {
    json_ok(&lock(&core.world).ims.images.values().collect::<Vec<_>>())
}

async fn show(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Response {
    match lock(&core.world).ims.images.get(&id) {
        Some(image) => json_ok(image),
        None => unknown(),
    }
}

async fn patch(State(core): State<Arc<Core>>, Path(id): Path<String>, body: Bytes) -> Response {
    let mut world = lock(&core.world);
    let Some(image) = world.ims.images.get_mut(&id) else { return unknown() };
    let Ok(value) = serde_json::from_slice::<Value>(&body) else {
        return ims_problem(
            StatusCode::BAD_REQUEST,
            "No input provided. Determine the specific information that is missing or invalid and then re-run the request with valid information.",
            None,
        );
    };
    if let Some(arch) = value.get("arch").and_then(Value::as_str) {
        if !matches!(arch, "x86_64" | "aarch64") {
            return field_error("arch", "Must be one of: aarch64, x86_64.");
        }
        arch.clone_into(&mut image.arch);
    }
    if let Some(metadata) = value.get("metadata") {
        let text = |key: &str| metadata.get(key).and_then(Value::as_str);
        match (text("operation"), text("key")) {
            (Some("set"), Some(key)) => {
                image.metadata.insert(key.to_owned(), text("value").unwrap_or_default().to_owned());
            }
            (Some("remove"), Some(key)) => {
                image.metadata.remove(key);
            }
            _ => return field_error("metadata", "Must be one of: set, remove."),
        }
    }
    json_ok(image)
}

fn field_error(field: &str, message: &str) -> Response {
    ims_problem(
        StatusCode::UNPROCESSABLE_ENTITY,
        "Input data was understood, but failed validation. Re-run request with valid input values.",
        Some((field, message)),
    )
}
