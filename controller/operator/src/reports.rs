//! The HTTP endpoint that nodes report to, as an unchanged bos-reporter calls it.
//!
//! A node that came up sends `PATCH .../v2/components/{xname}` with the boot token from its kernel command line. It is
//! answered 200 only when what it changes is durable. Everything else makes bos-reporter try again, for ever, so when in
//! doubt the answer is 503.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::patch;
use bos_core::xname::Xname;
use bos_engine::reports::{Report, ReportAnswer};
use bos_engine::telemetry::Telemetry;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::listener::CONNECTIONS;
use crate::metrics::{Metrics, ReportOutcome};

/// A report is some hundred bytes; nothing else has to be read.
const MAX_BODY: usize = 64 * 1024;
/// Reports that wait for the engine: every connection may bring one.
pub(crate) const QUEUE: usize = CONNECTIONS;
/// For the body of a report: one that trickles must not hold a connection for long.
const BODY_TIME: Duration = Duration::from_secs(5);
/// How long a node waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// When a node that was turned away should come again.
pub(crate) const RETRY_AFTER_SECONDS: &str = "5";
/// Tokens are UUIDs; this leaves room for other kinds.
const MAX_TOKEN: usize = 128;

/// What the handlers share.
#[derive(Clone)]
struct Endpoint {
    queue: mpsc::Sender<Report>,
    telemetry: Arc<Telemetry>,
    metrics: Arc<Metrics>,
}

/// What bos-reporter sends. Other keys of a BOS component are refused: they would have no effect, and saying 200 to them
/// would be a lie.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    id: Option<String>,
    actual_state: ActualState,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ActualState {
    bss_token: String,
    /// BOS sets it itself, whatever a client sends.
    #[serde(default, rename = "last_updated", skip_serializing)]
    _last_updated: Option<IgnoredAny>,
}

/// The routes for reports, and the answers to whatever is none.
pub(crate) fn router(queue: mpsc::Sender<Report>, telemetry: Arc<Telemetry>, metrics: Arc<Metrics>) -> Router {
    let endpoint = Endpoint { queue, telemetry, metrics };
    let only_patch = || patch(component).fallback(wrong_method);
    Router::new()
        .route("/apis/bos/v2/components/{xname}", only_patch())
        .route("/v2/components/{xname}", only_patch())
        .fallback(wrong_path)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(endpoint)
}

async fn component(State(endpoint): State<Endpoint>, Path(xname): Path<String>, request: Request) -> Response {
    let Ok(body) = timeout(BODY_TIME, Bytes::from_request(request, &())).await else {
        endpoint.metrics.report(ReportOutcome::Malformed, BODY_TIME);
        return problem(
            StatusCode::REQUEST_TIMEOUT,
            "The report did not arrive in time",
            &format!("its body must be there within {BODY_TIME:?}"),
        );
    };
    let begun = Instant::now();
    let (outcome, response) = match endpoint.answer(&xname, body).await {
        Ok(response) => (ReportOutcome::Stored, response),
        Err(refusal) => (refusal.outcome(), refusal.into_response()),
    };
    if outcome == ReportOutcome::TryLater {
        endpoint.telemetry.reports_put_off.fetch_add(1, Ordering::Relaxed);
    }
    endpoint.metrics.report(outcome, begun.elapsed());
    response
}

/// Why a report was not stored.
#[derive(Debug)]
enum Refusal {
    Malformed(StatusCode, String),
    UnknownNode(Xname),
    WithAgent,
    TryLater(&'static str),
}

impl Refusal {
    fn malformed(detail: impl Into<String>) -> Self {
        Self::Malformed(StatusCode::BAD_REQUEST, detail.into())
    }

    fn outcome(&self) -> ReportOutcome {
        match self {
            Self::Malformed(..) => ReportOutcome::Malformed,
            Self::UnknownNode(_) => ReportOutcome::UnknownNode,
            Self::WithAgent => ReportOutcome::WithAgent,
            Self::TryLater(_) => ReportOutcome::TryLater,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Malformed(status, detail) => problem(status, "This is not a report of a node", &detail),
            Self::UnknownNode(xname) => {
                problem(StatusCode::NOT_FOUND, "No such component", &format!("{xname} is not known here; it is once HSM lists it"))
            }
            Self::WithAgent => try_later("a Session of mode v1 drives the node; it is stored when that is over"),
            Self::TryLater(why) => try_later(why),
        }
    }
}

/// Told to come again.
pub(crate) fn try_later(why: &str) -> Response {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "Try again later", why);
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER_SECONDS));
    response
}

impl Endpoint {
    async fn answer(&self, xname: &str, body: Result<Bytes, BytesRejection>) -> Result<Response, Refusal> {
        let (xname, actual_state) = read(xname, body)?;
        // Without leadership nobody empties the queue.
        if !self.telemetry.leading.load(Ordering::Relaxed) {
            return Err(Refusal::TryLater("this operator is starting, or another one leads"));
        }
        let (answer, answered) = oneshot::channel();
        let report = Report { xname: xname.clone(), token: actual_state.bss_token.clone(), answer };
        self.queue.try_send(report).map_err(|_| Refusal::TryLater("too many reports wait"))?;
        match timeout(PATIENCE, answered).await {
            Ok(Ok(ReportAnswer::Stored)) => Ok(json_response(
                StatusCode::OK,
                "application/json",
                &json!({"id": xname.as_str(), "actual_state": {"bss_token": actual_state.bss_token}}),
            )),
            Ok(Ok(ReportAnswer::UnknownNode)) => Err(Refusal::UnknownNode(xname)),
            Ok(Ok(ReportAnswer::WithAgent)) => Err(Refusal::WithAgent),
            Ok(Ok(ReportAnswer::TryLater) | Err(_)) => Err(Refusal::TryLater("the report could not be stored")),
            Err(_) => Err(Refusal::TryLater("the report was not stored in time")),
        }
    }
}

/// Checks a report and brings the name of the node to its normal form.
fn read(path: &str, body: Result<Bytes, BytesRejection>) -> Result<(Xname, ActualState), Refusal> {
    let xname = Xname::parse(path).map_err(|error| Refusal::malformed(error.to_string()))?;
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Refusal::Malformed(StatusCode::PAYLOAD_TOO_LARGE, format!("a report has at most {MAX_BODY} bytes"))
        }
        status => Refusal::Malformed(status, rejection.body_text()),
    })?;
    let body: Body = serde_json::from_slice(&body).map_err(|error| Refusal::malformed(error.to_string()))?;
    if let Some(id) = &body.id
        && Xname::parse(id).ok().as_ref() != Some(&xname)
    {
        let shown: String = id.chars().take(64).collect();
        return Err(Refusal::malformed(format!("id {shown:?} is not {xname}, the component in the path")));
    }
    let token = &body.actual_state.bss_token;
    if token.is_empty() || token.len() > MAX_TOKEN || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Refusal::malformed(format!("actual_state.bss_token must be 1 to {MAX_TOKEN} visible ASCII characters")));
    }
    Ok((xname, body.actual_state))
}

async fn wrong_path() -> Response {
    problem(StatusCode::NOT_FOUND, "No such path", "reports go to PATCH /apis/bos/v2/components/{xname} or /v2/components/{xname}")
}

async fn wrong_method() -> Response {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "Only PATCH", "this endpoint takes reports of nodes and nothing else");
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("PATCH"));
    response
}

/// An error in the form of RFC 9457. bos-reporter wants JSON with `detail` even of a 404.
pub(crate) fn problem(status: StatusCode, title: &str, detail: &str) -> Response {
    let body = json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail});
    json_response(status, "application/problem+json", &body)
}

pub(crate) fn json_response(status: StatusCode, content_type: &'static str, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, content_type)], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body as HttpBody, to_bytes};
    use axum::http::Request;
    use serde_json::Value;
    use tower::ServiceExt;

    const PATH: &str = "/apis/bos/v2/components/x1000c0s0b0n0";
    const GOOD: &str = r#"{"id":"x1000c0s0b0n0","actual_state":{"bss_token":"t-1"}}"#;

    struct Fixture {
        router: Router,
        queue: mpsc::Receiver<Report>,
        telemetry: Arc<Telemetry>,
        metrics: Arc<Metrics>,
    }

    fn fixture(places: usize) -> Fixture {
        let (tx, queue) = mpsc::channel(places);
        let telemetry = Telemetry::shared();
        telemetry.leading.store(true, Ordering::Relaxed);
        let metrics = Arc::new(Metrics::new(Arc::clone(&telemetry)));
        Fixture { router: router(tx, Arc::clone(&telemetry), Arc::clone(&metrics)), queue, telemetry, metrics }
    }

    async fn send(router: &Router, method: &str, path: &str, body: &str) -> (StatusCode, Value, Option<String>) {
        let request = Request::builder().method(method).uri(path).body(HttpBody::from(body.to_owned())).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let retry = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        let bytes = to_bytes(response.into_body(), MAX_BODY).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap(), retry)
    }

    /// Sends one report, and answers it as an engine would.
    async fn exchange(fixture: &mut Fixture, path: &str, body: &str, answer: ReportAnswer) -> (StatusCode, Value, Report) {
        let Fixture { router, queue, .. } = fixture;
        let engine = async {
            let mut report = queue.recv().await.unwrap();
            let tx = std::mem::replace(&mut report.answer, oneshot::channel().0);
            tx.send(answer).unwrap();
            report
        };
        let ((status, body, _), report) = tokio::join!(send(router, "PATCH", path, body), engine);
        (status, body, report)
    }

    #[tokio::test]
    async fn a_report_is_200_only_when_stored_and_echoes_the_component() {
        let mut fixture = fixture(1);
        for path in [PATH, "/v2/components/X1000C0s0b0n00"] {
            let (status, body, report) = exchange(&mut fixture, path, GOOD, ReportAnswer::Stored).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(body, json!({"id": "x1000c0s0b0n0", "actual_state": {"bss_token": "t-1"}}));
            assert_eq!((report.xname.as_str(), report.token.as_str()), ("x1000c0s0b0n0", "t-1"));
        }
        assert!(fixture.metrics.text().unwrap().contains(r#"bos_reports_total{outcome="stored"} 2"#));
    }

    #[tokio::test]
    async fn an_unknown_node_gets_json_with_detail() {
        let mut fixture = fixture(1);
        let (status, body, _) = exchange(&mut fixture, PATH, GOOD, ReportAnswer::UnknownNode).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body["detail"].as_str().unwrap().contains("x1000c0s0b0n0"), "{body}");
        let (status, body, _) = send(&fixture.router, "PATCH", "/v2/sessions", "").await;
        assert!(status == StatusCode::NOT_FOUND && body["detail"].is_string(), "{body}");
        let (status, body, _) = send(&fixture.router, "GET", PATH, "").await;
        assert!(status == StatusCode::METHOD_NOT_ALLOWED && body["detail"].is_string(), "{body}");
    }

    #[tokio::test]
    async fn what_is_not_durable_is_to_be_sent_again() {
        let mut fixture = fixture(1);
        let (status, body, _) = exchange(&mut fixture, PATH, GOOD, ReportAnswer::TryLater).await;
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && body["detail"].is_string(), "{body}");

        let Fixture { router, mut queue, telemetry, metrics } = fixture;
        let dropped = async { drop(queue.recv().await.unwrap()) };
        let ((status, _, retry), ()) = tokio::join!(send(&router, "PATCH", PATH, GOOD), dropped);
        assert_eq!((status, retry.as_deref()), (StatusCode::SERVICE_UNAVAILABLE, Some("5")));

        telemetry.leading.store(false, Ordering::Relaxed);
        let (status, _, retry) = send(&router, "PATCH", PATH, GOOD).await;
        assert_eq!((status, retry.as_deref()), (StatusCode::SERVICE_UNAVAILABLE, Some("5")));
        assert!(queue.try_recv().is_err());
        assert!(metrics.text().unwrap().contains(r#"bos_reports_total{outcome="try_later"} 3"#));
        assert_eq!(telemetry.reports_put_off.load(Ordering::Relaxed), 3, "silence proves nothing for a while");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_and_a_silent_engine_are_503() {
        let fixture = fixture(1);
        // Nobody answers: the first takes the only place and waits out its time, the second is turned away at once.
        let first = tokio::spawn({
            let router = fixture.router.clone();
            async move { send(&router, "PATCH", PATH, GOOD).await }
        });
        while fixture.queue.is_empty() {
            tokio::task::yield_now().await;
        }
        let (status, body, retry) = send(&fixture.router, "PATCH", PATH, GOOD).await;
        assert_eq!((status, retry.as_deref()), (StatusCode::SERVICE_UNAVAILABLE, Some("5")));
        assert_eq!(body["detail"], "too many reports wait");
        let (status, body, _) = first.await.unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["detail"], "the report was not stored in time");
    }

    #[tokio::test]
    async fn a_malformed_report_is_refused_with_its_reason() {
        let fixture = fixture(1);
        let node = "/v2/components/x1000c0s0b0n0";
        let long = "x".repeat(MAX_TOKEN + 1);
        for (path, body, detail) in [
            ("/v2/components/nid0001", GOOD, "nid0001"),
            (node, "{", "EOF"),
            (node, "", "EOF"),
            (node, r#"{"id":"x1000c0s0b0n1","actual_state":{"bss_token":"t"}}"#, "x1000c0s0b0n1"),
            (node, r#"{"id":"x1000c0s0b0n0"}"#, "actual_state"),
            (node, r#"{"actual_state":{}}"#, "bss_token"),
            (node, r#"{"actual_state":{"bss_token":""}}"#, "bss_token"),
            (node, r#"{"actual_state":{"bss_token":"a b"}}"#, "bss_token"),
            (node, &json!({"actual_state": {"bss_token": long}}).to_string(), "bss_token"),
            (node, r#"{"actual_state":{"bss_token":"t"},"desired_state":{}}"#, "desired_state"),
        ] {
            let (status, answer, _) = send(&fixture.router, "PATCH", path, body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
            assert!(answer["detail"].as_str().unwrap().contains(detail), "{answer}");
        }
        let (status, answer, _) = send(&fixture.router, "PATCH", node, &" ".repeat(MAX_BODY + 1)).await;
        assert!(status == StatusCode::PAYLOAD_TOO_LARGE && answer["detail"].is_string(), "{answer}");
        assert!(fixture.metrics.text().unwrap().contains(r#"bos_reports_total{outcome="malformed"} 11"#));
    }

    #[tokio::test]
    async fn what_bos_sets_itself_may_be_sent() {
        let mut fixture = fixture(1);
        let body = r#"{"actual_state":{"bss_token":"t","last_updated":"2026-11-23T10:00:00Z"}}"#;
        let (status, _, _) = exchange(&mut fixture, PATH, body, ReportAnswer::Stored).await;
        assert_eq!(status, StatusCode::OK);
    }
}
