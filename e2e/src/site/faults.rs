//! What can go wrong: outages of whole services and faults of single nodes.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answers::{json_with, problem, text, xml_error};
use super::config::{Service, seconds};

/// How a service fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutageKind {
    /// 503 with the text of the service mesh.
    #[default]
    Unavailable,
    /// 500 in the service's own shape.
    InternalError,
    /// The service's own store is gone: HSM and PCS 500, BSS 400 "No data" (404 on reads), CFS 503, IMS and S3 500. For CAPMC it
    /// is PCS: it says so with a good status.
    StoreDown,
    /// 403: of the mesh as text, of the object store as XML.
    Forbidden,
    /// The request is taken, and nothing comes back.
    Hang,
    /// The connection is reset before anything is processed.
    Reset,
    /// The request is processed, then the connection is reset.
    LostAnswer,
    /// Nobody listens: connections are refused, open ones reset. Ignores method, path, rate and count.
    Refuse,
    /// 200 with JSON that is cut off.
    Garbage,
    /// 200 with a page of HTML.
    Html,
    /// 200 with no body.
    Empty,
    /// 200 with JSON of another shape.
    WrongShape,
}

/// An outage of one service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutageSpec {
    /// Which service.
    pub service: Service,
    /// How it fails.
    pub kind: OutageKind,
    /// Begins this many seconds from now.
    #[serde(default, with = "seconds")]
    pub after: Duration,
    /// Lasts this long; null = until it is cleared.
    #[serde(default, rename = "for", with = "seconds::option")]
    pub lasts: Option<Duration>,
    /// Only requests whose path and query contain this.
    #[serde(default)]
    pub path_contains: Option<String>,
    /// Only requests with this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Share of the matching requests, 0 to 1.
    #[serde(default = "one")]
    pub rate: f64,
    /// Ends after this many failed requests of clients; the nodes' own calls are spared then.
    #[serde(default)]
    pub count: Option<u64>,
    /// `Retry-After` header of the answer, in seconds.
    #[serde(default)]
    pub retry_after: Option<u64>,
}

fn one() -> f64 {
    1.0
}

impl OutageSpec {
    /// An outage of the whole service until it is cleared.
    pub fn new(service: Service, kind: OutageKind) -> Self {
        Self {
            service,
            kind,
            after: Duration::ZERO,
            lasts: None,
            path_contains: None,
            method: None,
            rate: 1.0,
            count: None,
            retry_after: None,
        }
    }

    /// Limits the outage to a window from now.
    pub fn lasting(mut self, lasts: Duration) -> Self {
        self.lasts = Some(lasts);
        self
    }

    /// Limits the outage to the first `count` matching requests.
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Limits the outage to paths (with query) that contain this.
    pub fn on_path(mut self, part: impl Into<String>) -> Self {
        self.path_contains = Some(part.into());
        self
    }

    /// Limits the outage to one method.
    pub fn on_method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }
}

/// What is wrong with one node. Everything is off by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Faults {
    /// Comes up, but sends no report.
    pub never_reports: bool,
    /// Takes the power-on command and stays off.
    pub never_powers_on: bool,
    /// Has power, but never asks for a boot script.
    pub never_boots: bool,
    /// The first so many boots die before the boot script is fetched.
    pub fail_boots: u32,
    /// Does not react to a graceful power-off.
    pub ignores_soft_off: bool,
    /// Does not react to any power-off.
    pub ignores_power_off: bool,
    /// The BMC does not answer: power state `undefined`, commands have no effect.
    pub bmc_undefined: bool,
    /// Sends its first report this much later.
    #[serde(with = "seconds::option")]
    pub report_late: Option<Duration>,
    /// Reports a token that nobody handed out.
    pub wrong_token: bool,
    /// CFS tries and fails.
    pub cfs_fails: bool,
    /// CFS never gets to it.
    pub cfs_pending: bool,
    /// The image has no cfs-state-reporter: nobody enables the node in CFS.
    pub no_cfs_reporter: bool,
    /// PCS does not know the node.
    pub missing_from_pcs: bool,
    /// PCS leaves the node out of its power status, without an error.
    pub omitted_from_pcs: bool,
    /// CFS does not know the node.
    pub missing_from_cfs: bool,
    /// HSM does not know the node.
    pub missing_from_hsm: bool,
    /// PCS fails the power-on task of this node with this text.
    pub power_on_error: Option<String>,
    /// PCS fails the power-off task of this node with this text.
    pub power_off_error: Option<String>,
}

/// The answer of a service in an outage that answers at all; `None` for those that do not.
pub(crate) fn answer(kind: OutageKind, service: Service, method: &Method) -> Option<Response> {
    let json = |body: &'static str| ok("application/json", body);
    Some(match kind {
        OutageKind::Hang | OutageKind::Reset | OutageKind::LostAnswer | OutageKind::Refuse => return None,
        OutageKind::Unavailable => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
        ),
        OutageKind::InternalError if service == Service::S3 => {
            xml_error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "We encountered an internal error. Please try again.")
        }
        OutageKind::InternalError if service == Service::Capmc => capmc_error(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
        OutageKind::InternalError => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
        OutageKind::Forbidden if service == Service::S3 => xml_error(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied"),
        OutageKind::Forbidden => text(StatusCode::FORBIDDEN, "RBAC: access denied"),
        OutageKind::Garbage => json("{\"Components\":[{\"ID\":\"x1000c0s0"),
        OutageKind::Html => ok("text/html", "<html><head><title>Sign in</title></head><body>Please sign in.</body></html>"),
        OutageKind::Empty => ok("application/json", ""),
        OutageKind::WrongShape => json("{\"unexpected\":{\"shape\":true}}"),
        OutageKind::StoreDown => store_down(service, method),
    })
}

fn store_down(service: Service, method: &Method) -> Response {
    match service {
        Service::Hsm => problem(StatusCode::INTERNAL_SERVER_ERROR, "failed to query DB."),
        Service::Pcs => problem(StatusCode::INTERNAL_SERVER_ERROR, "context deadline exceeded"),
        Service::Capmc => capmc_error(StatusCode::OK, "Error: Failed to send power request to PCS."),
        // The boot script service tells a lost store neither by status nor by text from missing data.
        Service::Bss if method == Method::GET => problem(StatusCode::NOT_FOUND, "Cannot find boot parameters for requested Hosts"),
        Service::Bss => problem(StatusCode::BAD_REQUEST, "No data"),
        Service::Cfs => problem(StatusCode::SERVICE_UNAVAILABLE, "Unable to connect to the Redis database"),
        Service::Ims => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
        Service::S3 => xml_error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "We encountered an internal error. Please try again."),
    }
}

fn capmc_error(status: StatusCode, said: &str) -> Response {
    json_with(status, &json!({"e": 500, "err_msg": said}))
}

fn ok(content_type: &'static str, body: &'static str) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
