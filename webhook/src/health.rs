//! `/healthz` and `/readyz`, plain HTTP for the kubelet, and `/metrics` for Prometheus.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bos_engine::watches::WatchHealth;
use bos_services::figures::OPENMETRICS;

use crate::certificates::Served;
use crate::known::Shared;
use crate::metrics::Metrics;

/// After this long without a watch what is known is too old to judge by.
const STALE: Duration = Duration::from_secs(120);

/// What readiness depends on, and figures.
#[derive(Clone)]
pub(crate) struct Health {
    pub(crate) known: Shared,
    pub(crate) served: Arc<Served>,
    pub(crate) watches: WatchHealth,
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves until the process ends.
///
/// # Errors
/// When the socket fails.
pub(crate) async fn serve(listener: TcpListener, health: Health) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(figures))
        .with_state(health);
    axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
}

async fn figures(State(health): State<Health>) -> Response {
    match health.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    let waiting = if health.served.is_set() { health.known.read().waits_for() } else { Some("a certificate") };
    let failing = health.watches.stale(STALE);
    match (waiting, failing.first()) {
        (Some(what), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting: {what}\n")),
        (None, Some((watch, error))) => (StatusCode::SERVICE_UNAVAILABLE, format!("watch of {} fails: {error}\n", watch.as_str())),
        (None, None) => (StatusCode::OK, "ok\n".to_owned()),
    }
}
