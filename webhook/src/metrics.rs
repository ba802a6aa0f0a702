//! Figures for Prometheus.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bos_services::figures::{self, CallFigures, call_latencies};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::certificates::Served;

/// How a review was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReviewOutcome {
    Allowed,
    /// Allowed, with something to say.
    Warned,
    Denied,
    /// It was no review of ours: too large, too slow, or not to be read.
    Refused,
    /// Caches are not filled yet.
    Starting,
}

impl ReviewOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Warned => "warned",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Starting => "starting",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Review {
    kind: &'static str,
    outcome: &'static str,
}

/// All figures of this process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    reviews: Family<Review, Counter>,
    durations: Histogram,
    /// Of the calls to outside services.
    pub(crate) calls: CallFigures,
}

impl Metrics {
    pub(crate) fn new(served: Arc<Served>) -> Self {
        let mut registry = Registry::with_prefix("bos_webhook");
        let reviews = Family::default();
        registry.register("reviews", "Reviews by kind of object and by answer", reviews.clone());
        let durations = call_latencies();
        registry.register("review_duration_seconds", "Time from the last byte of a review to its answer", durations.clone());
        let calls = CallFigures::register(&mut registry);
        registry.register_collector(Box::new(Certificate(served)));
        Self { registry, reviews, durations, calls }
    }

    /// Counts a review of a kind, as its request says; of whatever else comes all are one.
    pub(crate) fn review(&self, kind: &str, outcome: ReviewOutcome) {
        let kinds = ["SessionTemplate", "Session", "BootComponent", "BootOptions"];
        let kind = kinds.into_iter().find(|known| *known == kind).unwrap_or("unknown");
        self.reviews.get_or_create(&Review { kind, outcome: outcome.label() }).inc();
    }

    /// A review was judged within this time.
    pub(crate) fn judged(&self, elapsed: Duration) {
        self.durations.observe(elapsed.as_secs_f64());
    }

    /// Everything in the OpenMetrics text format.
    ///
    /// # Errors
    /// When a figure cannot be written.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        figures::text(&self.registry)
    }
}

/// The certificate that is served, looked at when it is asked for.
#[derive(Debug)]
struct Certificate(Arc<Served>);

impl Collector for Certificate {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(expires) = self.0.expires() else { return Ok(()) };
        let gauge = ConstGauge::new(expires);
        let help = "When the certificate that is served expires, in seconds since 1970";
        gauge.encode(encoder.encode_descriptor("certificate_expiry_timestamp_seconds", help, None, gauge.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use bos_e2e::figures::{documented, written};
    use bos_services::{CallObserver, CallOutcome, Service};

    use super::*;

    #[test]
    fn every_figure_is_written() {
        let listed = documented(include_str!("../../docs/metrics.md"), "bos-webhook");
        let served = Arc::new(Served::default());
        let metrics = Metrics::new(Arc::clone(&served));
        assert!(!metrics.text().unwrap().contains("certificate_expiry"), "there is none yet");
        let mut params = rcgen::CertificateParams::new(vec!["bos-webhook".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        served.set(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        metrics.review("Session", ReviewOutcome::Denied);
        metrics.review("Pod", ReviewOutcome::Refused);
        metrics.judged(Duration::from_millis(30));
        metrics.calls.observed(Service::Hsm, "components", CallOutcome::Ok, Duration::from_millis(3));
        let text = metrics.text().unwrap();
        assert_eq!(listed, written(&text));
        for line in [
            r#"bos_webhook_reviews_total{kind="Session",outcome="denied"} 1"#,
            r#"bos_webhook_reviews_total{kind="unknown",outcome="refused"} 1"#,
            r#"bos_webhook_review_duration_seconds_bucket{le="0.05"} 1"#,
            r#"bos_webhook_service_calls_total{service="hsm",call="components",outcome="ok"} 1"#,
            "bos_webhook_certificate_expiry_timestamp_seconds 1893456000",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
