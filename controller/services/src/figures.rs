//! Figures for Prometheus: what every program says of its calls to outside services, and how figures are written.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::error::Service;
use crate::http::{CallObserver, CallOutcome};

/// The content type of [`text`].
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures of a program in the OpenMetrics text format.
///
/// # Errors
/// When a figure cannot be written.
pub fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

/// Seconds; calls take milliseconds to the longest time-out.
const LATENCIES: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    service: &'static str,
    call: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Latency {
    service: &'static str,
}

/// Counts calls and how long they take.
#[derive(Clone)]
pub struct CallFigures {
    calls: Family<Call, Counter>,
    latencies: Family<Latency, Histogram, fn() -> Histogram>,
}

impl CallFigures {
    /// New figures that `registry` shows.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let calls = Family::default();
        registry.register("service_calls", "HTTP requests to outside services by call and outcome", calls.clone());
        let latencies = Family::new_with_constructor(call_latencies as fn() -> Histogram);
        registry.register("service_call_duration_seconds", "Time from sending a request to the whole answer", latencies.clone());
        Self { calls, latencies }
    }
}

/// A histogram for how long calls take, in seconds.
#[must_use]
pub fn call_latencies() -> Histogram {
    Histogram::new(LATENCIES)
}

impl CallObserver for CallFigures {
    fn observed(&self, service: Service, call: &'static str, outcome: CallOutcome, elapsed: Duration) {
        let service = service.label();
        self.calls.get_or_create(&Call { service, call, outcome: outcome.label() }).inc();
        self.latencies.get_or_create(&Latency { service }).observe(elapsed.as_secs_f64());
    }
}

impl fmt::Debug for CallFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFigures").finish_non_exhaustive()
    }
}
