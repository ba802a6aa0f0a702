//! `/livez`, `/readyz` and `/metrics`, served by a thread and a runtime of their own, so that they answer when the engine hangs.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bos_engine::telemetry::Telemetry;
use bos_services::figures::OPENMETRICS;

use crate::metrics::Metrics;

/// An engine that has not gone round its loop for longer is taken for dead.
const LONGEST_SILENCE_MILLIS: u64 = 30_000;

/// What the handlers share.
#[derive(Clone)]
struct Health {
    telemetry: Arc<Telemetry>,
    metrics: Arc<Metrics>,
}

/// Serves until the process ends. Ending earlier is a failure that `failed` is told of.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn spawn(
    listener: TcpListener,
    telemetry: Arc<Telemetry>,
    metrics: Arc<Metrics>,
    failed: impl FnOnce(std::io::Error) + Send + 'static,
) -> std::io::Result<()> {
    let router = router(telemetry, metrics);
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            listener.set_nonblocking(true)?;
            axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
        })
    };
    let thread = std::thread::Builder::new().name("health".to_owned());
    thread.spawn(move || failed(serve().err().unwrap_or_else(|| std::io::Error::other("the server ended"))))?;
    Ok(())
}

fn router(telemetry: Arc<Telemetry>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(figures))
        .with_state(Health { telemetry, metrics })
}

async fn livez(State(health): State<Health>) -> Response {
    liveness(health.telemetry.silent_for_millis())
}

fn liveness(silent: u64) -> Response {
    if silent <= LONGEST_SILENCE_MILLIS {
        return (StatusCode::OK, "ok\n").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("the engine has been silent for {} s\n", silent / 1000)).into_response()
}

async fn readyz(State(health): State<Health>) -> Response {
    match readiness(&health.telemetry) {
        Ok(how) => (StatusCode::OK, format!("ok: {how}\n")).into_response(),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting: {missing}\n")).into_response(),
    }
}

/// One that stands by is ready when it can pass reports on: it is behind the same Service as the one that leads.
fn readiness(telemetry: &Telemetry) -> Result<String, String> {
    let leader = telemetry.leader.borrow().clone();
    let missing = if leader.is_some() { telemetry.cannot_pass_on() } else { telemetry.waiting() };
    match leader {
        _ if !missing.is_empty() => Err(missing),
        Some(leader) => Ok(format!("standing by; {} leads", leader.identity)),
        None => Ok("leading".to_owned()),
    }
}

async fn figures(State(health): State<Health>) -> Response {
    match health.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use bos_engine::lease::Leader;
    use tower::ServiceExt;

    async fn get(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        let telemetry = Telemetry::shared();
        let router = router(Arc::clone(&telemetry), Arc::new(Metrics::new(Arc::clone(&telemetry))));
        telemetry.set_waiting("the CRD sessions");
        assert_eq!(get(&router, "/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "waiting: the CRD sessions\n".to_owned()));
        telemetry.set_waiting("");
        assert_eq!(get(&router, "/readyz").await, (StatusCode::OK, "ok: leading\n".to_owned()));
    }

    #[tokio::test]
    async fn one_that_stands_by_is_ready_when_it_can_pass_reports_on() {
        let telemetry = Telemetry::shared();
        let router = router(Arc::clone(&telemetry), Arc::new(Metrics::new(Arc::clone(&telemetry))));
        telemetry.set_waiting("the leadership");
        telemetry.set_cannot_pass_on("pod-a leads and cannot be reached");
        assert_eq!(get(&router, "/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "waiting: the leadership\n".to_owned()));
        telemetry.leader.send_replace(Some(Leader { identity: "pod-a".to_owned(), reports: None }));
        let (status, said) = get(&router, "/readyz").await;
        assert_eq!((status, said.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "waiting: pod-a leads and cannot be reached\n"));
        telemetry.set_cannot_pass_on("");
        assert_eq!(get(&router, "/readyz").await, (StatusCode::OK, "ok: standing by; pod-a leads\n".to_owned()));
    }

    #[tokio::test]
    async fn an_engine_that_goes_round_no_more_is_dead() {
        assert_eq!(liveness(LONGEST_SILENCE_MILLIS).status(), StatusCode::OK);
        let dead = liveness(LONGEST_SILENCE_MILLIS + 1);
        assert_eq!(dead.status(), StatusCode::SERVICE_UNAVAILABLE);
        let said = to_bytes(dead.into_body(), 1 << 20).await.unwrap();
        assert_eq!(said, "the engine has been silent for 30 s\n");
    }

    #[tokio::test]
    async fn a_young_engine_lives_and_has_figures() {
        let telemetry = Telemetry::shared();
        let router = router(Arc::clone(&telemetry), Arc::new(Metrics::new(telemetry)));
        assert_eq!(get(&router, "/livez").await, (StatusCode::OK, "ok\n".to_owned()));
        let (status, text) = get(&router, "/metrics").await;
        assert!(status == StatusCode::OK && text.contains("bos_leading 0.0"), "{text}");
    }
}
