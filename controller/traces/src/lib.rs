//! Traces by OTLP over HTTP: the spans of Sessions, of the calls made for them, and of each request, sent to a collector; and the
//! context of a trace (W3C Trace Context) in the requests to services. A crate of its own, so that who does not want it does not
//! build it.

use std::time::Duration;

use bos_services::{CallObserver, CallOutcome, Service};
use http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::HeaderInjector;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::registry::LookupSpan;

/// Where traces go, as OpenTelemetry calls it: the whole URL.
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// The same of everything; the path of traces is added.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// A collector that does not answer holds nothing up: what cannot be sent in time is dropped.
const SENT_WITHIN: Duration = Duration::from_secs(5);

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent to {url}: {why}")]
pub struct TracesError {
    url: String,
    why: String,
}

/// Sends spans from a thread of its own. Dropping it does not send what is left: see [`Traces::end`].
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    service: &'static str,
}

impl Traces {
    /// Traces of this program to where the environment says; None where it says nothing.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn from_environment(service: &'static str, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, TracesError> {
        let named = |name: &str| variable(name).filter(|url| !url.is_empty());
        let everything = named(ENDPOINT).map(|url| format!("{}/v1/traces", url.trim_end_matches('/')));
        named(TRACES_ENDPOINT).or(everything).map(|url| Self::to(service, &url)).transpose()
    }

    /// Traces of this program to this URL. Must not be called by a task of a runtime.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn to(service: &'static str, url: &str) -> Result<Self, TracesError> {
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_endpoint(url).with_timeout(SENT_WITHIN);
        let exporter = exporter.build().map_err(|error| TracesError { url: url.to_owned(), why: error.to_string() })?;
        let resource = Resource::builder().with_service_name(service).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self { provider, service })
    }

    /// What takes up the spans.
    #[must_use]
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> OpenTelemetryLayer<S, opentelemetry_sdk::trace::SdkTracer> {
        let layer = tracing_opentelemetry::layer().with_tracer(self.provider.tracer(self.service));
        // What is left out is of no use to who reads a trace.
        layer.with_location(false).with_threads(false).with_tracked_inactivity(false).with_target(false)
    }

    /// Sends what is left; no span is taken up any more.
    pub fn end(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(SENT_WITHIN) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// An observer that also gives each request the context of its trace.
#[derive(Debug)]
pub struct Traced<O>(pub O);

impl<O: CallObserver> CallObserver for Traced<O> {
    fn observed(&self, service: Service, call: &'static str, outcome: CallOutcome, elapsed: Duration) {
        self.0.observed(service, call, outcome, elapsed);
    }

    fn trace(&self, headers: &mut HeaderMap) {
        let context = tracing::Span::current().context();
        TraceContextPropagator::new().inject_context(&context, &mut HeaderInjector(headers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bos_services::NoObserver;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use tracing_subscriber::layer::SubscriberExt as _;

    /// A collector for one request: its URL, and where that request arrives.
    fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let (tx, rx) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            let mut some = [0; 4096];
            let (head, body) = loop {
                let read = stream.read(&mut some).unwrap();
                all.extend_from_slice(&some[..read]);
                let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
                if all.len() >= end + 4 + length {
                    break (head, all[end + 4..].to_vec());
                }
            };
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            tx.send((head, body)).unwrap();
        });
        (url, rx)
    }

    fn contains(body: &[u8], text: &str) -> bool {
        body.windows(text.len()).any(|part| part == text.as_bytes())
    }

    #[test]
    fn spans_arrive_at_the_collector_and_their_context_at_the_service() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let (url, arrived) = collector();
        let traces = Traces::to("bos-operator", &url).unwrap();
        let headers = tracing::subscriber::with_default(tracing_subscriber::registry().with(traces.layer()), || {
            let session = tracing::info_span!(parent: None, "session", session = "bos/boot-1");
            let batch = tracing::info_span!(parent: &session, "batch", session = "bos/boot-1", batch = 3);
            batch.in_scope(|| {
                let mut headers = HeaderMap::new();
                Traced(NoObserver).trace(&mut headers);
                headers
            })
        });
        traces.end();
        let (head, body) = arrived.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(head.starts_with("post /v1/traces ") && head.contains("content-type: application/x-protobuf"), "{head}");
        for text in ["bos-operator", "session", "bos/boot-1", "batch"] {
            assert!(contains(&body, text), "{text} did not arrive");
        }
        // 00-TRACE-SPAN-01, of the very trace that was sent.
        let parts: Vec<&str> = headers["traceparent"].to_str().unwrap().split('-').collect();
        assert_eq!((parts.len(), parts[0], parts[1].len(), parts[2].len(), parts[3]), (4, "00", 32, 16, "01"));
        let bytes: Vec<u8> = (0..16).map(|n| u8::from_str_radix(&parts[1][2 * n..2 * n + 2], 16).unwrap()).collect();
        assert!(body.windows(16).any(|part| part == bytes), "the trace that the service is told of is another");
    }

    #[test]
    fn without_a_collector_there_are_no_traces() {
        drop(rustls::crypto::ring::default_provider().install_default());
        assert!(Traces::from_environment("bos-operator", |_| None).unwrap().is_none());
        let mut headers = HeaderMap::new();
        Traced(NoObserver).trace(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
        let error = Traces::from_environment("bos-operator", |name| (name == TRACES_ENDPOINT).then(|| "no url".to_owned())).unwrap_err();
        assert!(error.to_string().starts_with("traces cannot be sent to no url: "), "{error}");
        let general = |name: &str| (name == ENDPOINT).then(|| "http://127.0.0.1:4318/".to_owned());
        assert!(Traces::from_environment("bos-operator", general).unwrap().is_some());
    }
}
