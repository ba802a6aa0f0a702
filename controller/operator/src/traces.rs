//! Traces to an OpenTelemetry collector, where this program was built with the feature `otlp` and the environment names one.

use std::sync::Arc;

use bos_services::CallObserver;

#[cfg(feature = "otlp")]
mod sent {
    use super::*;
    use bos_traces::{Traced, Traces};
    use tracing::Subscriber;
    use tracing_subscriber::Layer;
    use tracing_subscriber::registry::LookupSpan;

    /// Sends the spans.
    pub(crate) struct Sender(Option<Traces>);

    /// Before the runtime starts.
    pub(crate) fn start() -> anyhow::Result<Sender> {
        Ok(Sender(Traces::from_environment("bos-operator", |name| std::env::var(name).ok())?))
    }

    impl Sender {
        pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> Option<impl Layer<S> + use<S>> {
            self.0.as_ref().map(Traces::layer)
        }

        pub(crate) fn end(&self) {
            if let Some(traces) = &self.0 {
                traces.end();
            }
        }
    }

    pub(crate) fn observed(observer: impl CallObserver + 'static) -> Arc<dyn CallObserver> {
        Arc::new(Traced(observer))
    }
}

#[cfg(not(feature = "otlp"))]
mod sent {
    use super::*;
    use tracing_subscriber::layer::Identity;

    /// Sends nothing.
    pub(crate) struct Sender;

    #[allow(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
    pub(crate) fn start() -> anyhow::Result<Sender> {
        Ok(Sender)
    }

    impl Sender {
        pub(crate) fn layer(&self) -> Identity {
            Identity::new()
        }

        pub(crate) fn end(&self) {}
    }

    pub(crate) fn observed(observer: impl CallObserver + 'static) -> Arc<dyn CallObserver> {
        Arc::new(observer)
    }
}

pub(crate) use sent::{Sender, observed, start};
