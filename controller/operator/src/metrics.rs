//! Figures for Prometheus. None has a label per node: their number does not grow with the system.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bos_engine::telemetry::Telemetry;
use bos_services::figures::{self, CallFigures};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// How a report of a node was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportOutcome {
    /// 200.
    Stored,
    /// 404.
    UnknownNode,
    /// 503.
    TryLater,
    /// Told to come again, because an agent drives the node.
    WithAgent,
    /// 400 or 413.
    Malformed,
    /// Whatever the operator that leads said.
    PassedOn,
    /// 401.
    Unauthenticated,
    /// 403.
    Forbidden,
}

impl ReportOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::UnknownNode => "unknown_node",
            Self::TryLater => "try_later",
            Self::WithAgent => "with_agent",
            Self::Malformed => "malformed",
            Self::PassedOn => "passed_on",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// All figures of this process.
pub(crate) struct Metrics {
    registry: Registry,
    reports: Family<Outcome, Counter>,
    /// Of the calls to outside services.
    pub(crate) calls: CallFigures,
}

impl Metrics {
    /// New figures, with those of the engine.
    pub(crate) fn new(telemetry: Arc<Telemetry>) -> Self {
        let mut registry = Registry::with_prefix("bos");
        let reports = Family::default();
        registry.register("reports", "Reports of nodes by answer", reports.clone());
        let calls = CallFigures::register(&mut registry);
        registry.register_collector(Box::new(Engine(telemetry)));
        Self { registry, reports, calls }
    }

    /// Counts a report.
    pub(crate) fn report(&self, outcome: ReportOutcome) {
        self.reports.get_or_create(&Outcome { outcome: outcome.label() }).inc();
    }

    /// Everything in the OpenMetrics text format.
    ///
    /// # Errors
    /// When a figure cannot be written.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        figures::text(&self.registry)
    }
}

/// The engine's own figures, read when they are asked for.
#[derive(Debug)]
struct Engine(Arc<Telemetry>);

impl Collector for Engine {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let engine = &self.0;
        let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
        let load = |figure: &std::sync::atomic::AtomicU64| figure.load(Ordering::Relaxed);
        let mut counter = |name, help, value| one(&mut encoder, name, help, &ConstCounter::new(value));
        counter("passes", "Passes of all operators over all nodes", load(&engine.passes))?;
        counter("journal_writes", "Journal writes the API server acknowledged", load(&engine.journal_writes))?;
        counter("reports_taken", "Reports of nodes the engine took from the endpoint", load(&engine.reports))?;
        one(
            &mut encoder,
            "pass_duration_seconds",
            "Time spent in passes of all operators",
            &ConstCounter::new(seconds(load(&engine.pass_micros))),
        )?;
        let mut gauge = |name, help, value: f64| one(&mut encoder, name, help, &ConstGauge::new(value));
        gauge("pass_longest_seconds", "The longest pass since the start", seconds(load(&engine.longest_pass_micros)))?;
        gauge("leading", "1 if this process leads", f64::from(u8::from(engine.leading.load(Ordering::Relaxed))))?;
        let silent = Duration::from_millis(engine.silent_for_millis()).as_secs_f64();
        gauge("engine_silent_seconds", "Time since the engine last went round its loop", silent)?;
        let epoch = i64::try_from(load(&engine.epoch)).unwrap_or(i64::MAX);
        one(&mut encoder, "leader_epoch", "Epoch of the leadership, 0 before the first", &ConstGauge::new(epoch))?;
        let stop = i64::from(engine.emergency_stop.load(Ordering::Relaxed));
        one(&mut encoder, "emergency_stop", "1 if the stop switch is set", &ConstGauge::new(stop))?;
        let up = engine.services().into_iter().map(|(service, up)| (service, u64::from(up)));
        by_label(&mut encoder, "service_available", "0 while an outside service is not available", "service", up)?;
        by_label(&mut encoder, "nodes", "Nodes by displayed status", "status", engine.nodes())?;
        by_label(&mut encoder, "sessions", "Sessions by phase", "phase", engine.sessions())?;
        ended(&mut encoder, engine.ended())
    }
}

fn one(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn by_label(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    counts: impl IntoIterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let kind = ConstGauge::new(0_i64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (value, count) in counts {
        let labels = [(label, value)];
        let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        gauge.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn ended(encoder: &mut DescriptorEncoder<'_>, counts: impl IntoIterator<Item = (&'static str, u64)>) -> fmt::Result {
    let (help, kind) = ("Sessions that ended while this process led, by outcome", ConstCounter::new(0_u64).metric_type());
    let mut family = encoder.encode_descriptor("sessions_ended", help, None, kind)?;
    for (outcome, count) in counts {
        ConstCounter::new(count).encode(family.encode_family(&[("outcome", outcome)])?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bos_services::{CallObserver, CallOutcome, Service};

    use super::*;

    #[test]
    fn every_figure_is_written() {
        let telemetry = Telemetry::shared();
        let metrics = Metrics::new(Arc::clone(&telemetry));
        telemetry.passed(1_500_000);
        telemetry.leading.store(true, Ordering::Relaxed);
        telemetry.epoch.store(7, Ordering::Relaxed);
        telemetry.set_counts(
            [("Stable", 98), ("Failed", 2)].into(),
            [("Running", 1)].into(),
            [(Service::Pcs.label(), false), (Service::Hsm.label(), true)].into(),
        );
        telemetry.session_ended("Succeeded");
        telemetry.session_ended("Succeeded");
        telemetry.emergency_stop.store(true, Ordering::Relaxed);
        metrics.report(ReportOutcome::TryLater);
        metrics.calls.observed(Service::Pcs, "start transition", CallOutcome::Ok, Duration::from_millis(30));
        let text = metrics.text().unwrap();
        for line in [
            "bos_passes_total 1",
            "bos_pass_duration_seconds_total 1.5",
            "bos_pass_longest_seconds 1.5",
            "bos_leading 1.0",
            "bos_leader_epoch 7",
            r#"bos_nodes{status="Failed"} 2"#,
            r#"bos_nodes{status="Stable"} 98"#,
            r#"bos_sessions{phase="Running"} 1"#,
            r#"bos_sessions_ended_total{outcome="Succeeded"} 2"#,
            "bos_emergency_stop 1",
            r#"bos_service_available{service="pcs"} 0"#,
            r#"bos_service_available{service="hsm"} 1"#,
            r#"bos_reports_total{outcome="try_later"} 1"#,
            r#"bos_service_calls_total{service="pcs",call="start transition",outcome="ok"} 1"#,
            r#"bos_service_call_duration_seconds_bucket{le="0.05",service="pcs"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
