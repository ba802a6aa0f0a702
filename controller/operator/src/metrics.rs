//! Figures for Prometheus, see docs/metrics.md. None has a label per node: their number does not grow with the system.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bos_engine::telemetry::{Counts, Telemetry};
use bos_services::figures::{self, CallFigures, call_latencies};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
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
    report_durations: Histogram,
    /// Of the calls to outside services.
    pub(crate) calls: CallFigures,
}

impl Metrics {
    /// New figures, with those of the engine.
    pub(crate) fn new(telemetry: Arc<Telemetry>) -> Self {
        let mut registry = Registry::with_prefix("bos");
        let reports = Family::default();
        registry.register("reports", "Reports of nodes by answer", reports.clone());
        let report_durations = call_latencies();
        registry.register("report_duration_seconds", "Time from the last byte of a report to its answer", report_durations.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of this program", build);
        let calls = CallFigures::register(&mut registry);
        telemetry.figures.register(&mut registry);
        registry.register_collector(Box::new(Engine(telemetry)));
        Self { registry, reports, report_durations, calls }
    }

    /// Counts a report that was answered after so long.
    pub(crate) fn report(&self, outcome: ReportOutcome, elapsed: Duration) {
        self.report_durations.observe(elapsed.as_secs_f64());
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
        let counts = engine.counts();
        process(engine, &mut encoder)?;
        fleet(&counts, &mut encoder)?;
        sessions(&counts, &mut encoder)?;
        ended(&mut encoder, engine.ended())?;
        queues(&counts, &mut encoder)
    }
}

/// The process itself and its leadership.
fn process(engine: &Telemetry, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let flag = |flag: bool| f64::from(u8::from(flag));
    counter(encoder, "reports_taken", "Reports of nodes the engine took from the endpoint", engine.reports.load(Ordering::Relaxed))?;
    gauge(encoder, "ready", "1 if /readyz says so", flag(engine.waiting().is_empty()))?;
    gauge(encoder, "leading", "1 if this process leads and has read everything", flag(engine.leading.load(Ordering::Relaxed)))?;
    gauge(encoder, "pass_longest_seconds", "The longest pass since the start", engine.longest_pass().as_secs_f64())?;
    let silent = Duration::from_millis(engine.silent_for_millis());
    gauge(encoder, "engine_silent_seconds", "Time since the engine last went round its loop", silent.as_secs_f64())?;
    if let Some(age) = engine.figures.lease.age() {
        gauge(encoder, "lease_age_seconds", "Time since the last renewal of the leader lease, while it is held", age.as_secs_f64())?;
    }
    let epoch = i64::try_from(engine.epoch.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
    one(encoder, "leader_epoch", "Epoch of the leadership, 0 before the first", &ConstGauge::new(epoch))?;
    let stop = engine.emergency_stop.load(Ordering::Relaxed);
    one(encoder, "emergency_stop", "1 if the stop switch is set", &ConstGauge::new(i64::from(stop)))
}

fn fleet(counts: &Counts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let up = counts.services.iter().map(|(service, up)| (service, u64::from(*up)));
    by_label(encoder, "service_available", "0 while an outside service is not available", "service", up)?;
    by_label(encoder, "nodes", "Nodes by displayed status", "status", &counts.statuses)?;
    by_label(encoder, "nodes_in_phase", "Nodes by phase; None where nothing is done to them", "phase", &counts.phases)?;
    by_label(encoder, "nodes_failed", "Nodes in status Failed by reason", "reason", &counts.failed)?;
    by_label(encoder, "nodes_on_hold", "Nodes in status OnHold by reason", "reason", &counts.on_hold)?;
    let help = "Driven nodes past a deadline that were neither acted on again nor given up, by deadline";
    by_label(encoder, "nodes_overdue", help, "deadline", &counts.overdue)?;
    let help = "When the inventory began that was accepted last, in seconds since 1970";
    maybe(encoder, "inventory_timestamp_seconds", help, counts.inventory)
}

fn sessions(counts: &Counts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    by_label(encoder, "sessions", "Sessions by phase", "phase", &counts.sessions)?;
    by_label(encoder, "session_agents", "Sessions of mode v1 under way by state of their agent", "state", &counts.agents)?;
    let help = "Sessions in which many nodes fell silent together";
    gauge(encoder, "sessions_mass_timeout", help, whole(counts.mass_timeouts))?;
    let help = "When the oldest Session that waits for its set-up was seen first, in seconds since 1970";
    maybe(encoder, "session_oldest_pending_timestamp_seconds", help, counts.oldest_pending)?;
    let help = "When the oldest Session that drives nodes took them, in seconds since 1970";
    maybe(encoder, "session_oldest_driving_timestamp_seconds", help, counts.oldest_driving)
}

fn queues(counts: &Counts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    by_label(encoder, "batches_open", "Calls that are not over by state", "state", &counts.calls)?;
    gauge(encoder, "status_queue_length", "Writes of specs and statuses that wait or are on their way", whole(counts.status_queue))?;
    let help = "How long the oldest of the writes that may leave has waited";
    gauge(encoder, "status_queue_oldest_seconds", help, counts.status_queue_age.as_secs_f64())?;
    gauge(encoder, "journal_queue_length", "Journals with changes that are not durable", whole(counts.journal_queue))?;
    let help = "How long the oldest change of a journal has waited to become durable";
    gauge(encoder, "journal_queue_oldest_seconds", help, counts.journal_queue_age.as_secs_f64())?;
    counter(encoder, "events_dropped", "Events that the API server did not take", counts.events_dropped)
}

#[allow(clippy::cast_precision_loss, reason = "counts of nodes, Sessions and writes fit well into the 53 bits")]
const fn whole(count: u64) -> f64 {
    count as f64
}

fn one(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    one(encoder, name, help, &ConstCounter::new(value))
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    one(encoder, name, help, &ConstGauge::new(value))
}

/// What is not known has no line.
fn maybe(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
    value.map_or(Ok(()), |value| gauge(encoder, name, help, value))
}

fn by_label<V: AsRef<str>, C: std::borrow::Borrow<u64>>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    counts: impl IntoIterator<Item = (V, C)>,
) -> fmt::Result {
    let kind = ConstGauge::new(0_i64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (value, count) in counts {
        let labels = [(label, value.as_ref())];
        let gauge = ConstGauge::new(i64::try_from(*count.borrow()).unwrap_or(i64::MAX));
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
    use bos_core::batch::Work;
    use bos_core::model::PowerAction;
    use bos_e2e::figures::{documented, written};
    use bos_engine::figures::Write;
    use bos_services::{CallObserver, CallOutcome, Service};

    use super::*;

    /// Figures of a process that has seen everything that is counted.
    fn full() -> Metrics {
        let telemetry = Telemetry::shared();
        let metrics = Metrics::new(Arc::clone(&telemetry));
        telemetry.passed(Duration::from_micros(1500));
        telemetry.figures.projected(Duration::from_micros(1500));
        telemetry.leading.store(true, Ordering::Relaxed);
        telemetry.epoch.store(7, Ordering::Relaxed);
        let figures = &telemetry.figures;
        figures.sending(Work::Power(PowerAction::On), 30);
        figures.sent(Work::Power(PowerAction::On), &bos_core::batch::Outcome::HeldBack);
        figures.journal_written(Duration::from_millis(4));
        figures.writes.count("Session", Write::Written);
        figures.writes.took(Duration::from_millis(4));
        figures.lease.count(true);
        figures.lease.held(Some(tokio::time::Instant::now()));
        telemetry.set_counts(Counts {
            statuses: [("Stable", 98), ("Failed", 2)].into(),
            phases: [("None", 99), ("PoweringOn", 1)].into(),
            failed: [("BootTimeout".to_owned(), 2)].into(),
            on_hold: [("PowerUnknown".to_owned(), 3)].into(),
            overdue: [("boot", 4)].into(),
            sessions: [("Running", 1)].into(),
            oldest_pending: Some(1000.0),
            oldest_driving: Some(2000.5),
            mass_timeouts: 1,
            agents: [("waiting", 1)].into(),
            services: [(Service::Pcs.label(), false), (Service::Hsm.label(), true)].into(),
            calls: [("sent", 5)].into(),
            inventory: Some(3000.0),
            status_queue: 6,
            status_queue_age: Duration::from_millis(1500),
            journal_queue: 7,
            journal_queue_age: Duration::from_millis(2500),
            events_dropped: 8,
        });
        telemetry.session_ended("Succeeded");
        telemetry.session_ended("Succeeded");
        telemetry.emergency_stop.store(true, Ordering::Relaxed);
        metrics.report(ReportOutcome::TryLater, Duration::from_millis(3));
        metrics.calls.observed(Service::Pcs, "start transition", CallOutcome::Ok, Duration::from_millis(30));
        metrics
    }

    #[test]
    fn every_figure_is_written() {
        let text = full().text().unwrap();
        for line in [
            "bos_pass_duration_seconds_count 1",
            r#"bos_pass_duration_seconds_bucket{le="0.0025"} 1"#,
            "bos_projection_duration_seconds_count 1",
            "bos_pass_longest_seconds 0.0015",
            "bos_ready 0.0",
            "bos_leading 1.0",
            "bos_leader_epoch 7",
            r#"bos_nodes{status="Failed"} 2"#,
            r#"bos_nodes{status="Stable"} 98"#,
            r#"bos_nodes_in_phase{phase="PoweringOn"} 1"#,
            r#"bos_nodes_failed{reason="BootTimeout"} 2"#,
            r#"bos_nodes_on_hold{reason="PowerUnknown"} 3"#,
            r#"bos_nodes_overdue{deadline="boot"} 4"#,
            r#"bos_sessions{phase="Running"} 1"#,
            r#"bos_session_agents{state="waiting"} 1"#,
            "bos_sessions_mass_timeout 1.0",
            "bos_session_oldest_pending_timestamp_seconds 1000.0",
            "bos_session_oldest_driving_timestamp_seconds 2000.5",
            r#"bos_sessions_ended_total{outcome="Succeeded"} 2"#,
            "bos_emergency_stop 1",
            r#"bos_service_available{service="pcs"} 0"#,
            r#"bos_service_available{service="hsm"} 1"#,
            r#"bos_reports_total{outcome="try_later"} 1"#,
            "bos_report_duration_seconds_count 1",
            r#"bos_service_calls_total{service="pcs",call="start transition",outcome="ok"} 1"#,
            r#"bos_service_call_duration_seconds_bucket{le="0.05",service="pcs"} 1"#,
            r#"bos_batches_open{state="sent"} 5"#,
            "bos_inventory_timestamp_seconds 3000.0",
            "bos_status_queue_length 6.0",
            "bos_status_queue_oldest_seconds 1.5",
            "bos_journal_queue_length 7.0",
            "bos_journal_queue_oldest_seconds 2.5",
            "bos_events_dropped_total 8",
            r#"bos_api_writes_total{kind="Session",outcome="written"} 1"#,
            r#"bos_batch_nodes_bucket{le="50.0",action="power_on"} 1"#,
            r#"bos_batches_total{action="power_on",outcome="held_back"} 1"#,
            r#"bos_lease_renewals_total{outcome="renewed"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_is_not_known_has_no_line() {
        let text = Metrics::new(Telemetry::shared()).text().unwrap();
        for name in ["bos_inventory_timestamp_seconds", "bos_session_oldest", "bos_lease_age_seconds"] {
            assert!(!text.lines().any(|line| line.starts_with(name)), "{name} is in\n{text}");
        }
    }

    #[test]
    fn the_documentation_lists_what_is_written() {
        let listed = documented(include_str!("../../../docs/metrics.md"), "bos-operator");
        assert_eq!(listed, written(&full().text().unwrap()));
    }
}
