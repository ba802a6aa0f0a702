//! The engine task: owns the World, folds inputs into it, runs the operators, and hands effects to those who carry them out.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clients::Clients;
use crate::lease::LeaseConfig;
use crate::reports::Report;
use crate::telemetry::Telemetry;

/// What the engine needs to know of its surroundings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace of the operator, where its records are.
    pub namespace: String,
    /// Unique to this process: pod name.
    pub identity: String,
    /// Times of the leader election.
    pub lease: LeaseConfig,
    /// The endpoint for node reports is on.
    pub hears_reports: bool,
}

/// Why the engine stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another process leads, or the lease could not be renewed in time. The process must end.
    #[error("the leadership is lost; this process must end so that it does nothing more")]
    Deposed,
}

/// Runs the engine until `cancel` is cancelled or the leadership is lost.
///
/// # Errors
/// See [`EngineError`].
pub async fn run(
    settings: Settings,
    clients: Clients,
    services: bos_services::Clients,
    reports: mpsc::Receiver<Report>,
    telemetry: Arc<Telemetry>,
    cancel: CancellationToken,
) -> Result<(), EngineError> {
    let _ = (settings, clients, services, reports, telemetry);
    cancel.cancelled().await;
    Ok(())
}
