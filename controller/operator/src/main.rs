//! The boot operator: reads its configuration, waits for the cluster, and runs the engine with everything around it.

mod agent_image;
mod apply;
mod args;
mod config;
mod health;
mod listener;
mod metrics;
mod node_identity;
mod pass_on;
mod preflight;
mod reports;
mod template;
mod template_check;
mod traces;

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use axum::http::{HeaderValue, header};
use bos_crds::LoggingLevel;
use bos_engine::engine::{self, Asked, EngineError, Settings};
use bos_engine::process::{self, Logging};
use bos_engine::telemetry::Telemetry;
use bos_services::flags::{self, LogFormat};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use config::Config;
use listener::Listener;
use metrics::Metrics;
use pass_on::PassOn;

/// Wrong settings: starting again does not help.
const EXIT_SETTINGS: u8 = 2;
/// The leadership was lost: starting again is right.
const EXIT_DEPOSED: u8 = 3;
fn main() -> ExitCode {
    // Without a provider the first TLS connection would panic.
    drop(rustls::crypto::ring::default_provider().install_default());
    let config = match Config::load(flags::from_process(), |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(error) => return wrong_settings(&error),
    };
    let traces = match traces::start() {
        Ok(traces) => traces,
        Err(error) => return wrong_settings(&error),
    };
    let logging = match start_logging(&config, &traces) {
        Ok(logging) => logging,
        Err(error) => return wrong_settings(&error),
    };
    process::end_with_any_panic("operator");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = config.shown(), "starting");
    let ended = run(config, logging);
    traces.end();
    match ended {
        Ok(()) => {
            tracing::info!("ended");
            ExitCode::SUCCESS
        }
        Err(error) if matches!(error.downcast_ref(), Some(EngineError::Deposed)) => {
            tracing::error!("{error:#}");
            ExitCode::from(EXIT_DEPOSED)
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn wrong_settings(error: &anyhow::Error) -> ExitCode {
    eprintln!("bos-operator: {error:#}");
    ExitCode::from(EXIT_SETTINGS)
}

fn start_logging(config: &Config, traces: &traces::Sender) -> anyhow::Result<Logging> {
    let filter = process::log_filter(&config.log).with_context(|| format!("log: {:?} is not a filter", config.log))?;
    let (filter, handle) = reload::Layer::new(filter);
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let start = tracing_subscriber::registry().with(filter).with(traces.layer());
    match config.log_format {
        LogFormat::Json => start.with(logs.json().flatten_event(true).with_span_list(false)).init(),
        LogFormat::Text => start.with(logs).init(),
    }
    Ok(handle)
}

fn tell_logging(level: LoggingLevel, changed: Result<(), String>) {
    match changed {
        Ok(()) => tracing::warn!(%level, "loggingLevel of the options is in force"),
        Err(error) => tracing::error!(%error, "loggingLevel of the options cannot be used"),
    }
}

fn run(config: Config, logging: Logging) -> anyhow::Result<()> {
    let runtime = process::runtime().context("cannot start the runtime")?;
    let result = runtime.block_on(operate(config, logging));
    // Nothing that still hangs may keep a deposed process alive.
    runtime.shutdown_background();
    result
}

async fn operate(config: Config, logging: Logging) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    process::end_on_signals(&cancel, "ending; a second signal ends at once", 1).context("cannot listen for signals")?;
    let telemetry = Telemetry::shared();
    tokio::spawn(process::follow_logging(config.log.clone(), logging, telemetry.logging.subscribe(), tell_logging));
    let metrics = Arc::new(Metrics::new(Arc::clone(&telemetry)));
    let failed = parts_that_failed();
    serve_health(&config, &telemetry, &metrics, failed.0.clone())?;
    let mut kube_config = kube::Config::infer().await.context("no way to the cluster: neither a service account nor a kubeconfig")?;
    tracing::info!(cluster = %kube_config.cluster_url, "Kubernetes");
    // The audit log then tells which of two operators has done something.
    let agent = format!("bos-operator/{} ({})", env!("CARGO_PKG_VERSION"), config.identity);
    kube_config.headers.push((header::USER_AGENT, HeaderValue::from_str(&agent).context("identity: cannot be sent in a header")?));
    let clients = bos_engine::clients::Clients::new(&kube_config).context("cannot make clients of the API server")?;
    let services = bos_services::Clients::new(&config.services, traces::observed(metrics.calls.clone()))?;
    let (queue, reports) = mpsc::channel(reports::QUEUE);
    let (requests, applications) = mpsc::channel(apply::QUEUE);
    let router = reports::router(queue, Arc::clone(&telemetry), Arc::clone(&metrics));
    let router = node_identity::guard(router, &config.node_identity, clients.review.clone(), &telemetry, &metrics)?;
    let router = router.merge(apply::router(requests, Arc::clone(&telemetry), clients.review.clone()));
    let served = serve_nodes(&config, router, (&telemetry, &metrics), &cancel)?;

    let work = async {
        if !preflight::wait_for_cluster(&clients.writer, &telemetry, &cancel).await? {
            return Ok(());
        }
        let Some(agent_template) = agent_template(&config, &clients.writer, &telemetry, &cancel).await? else { return Ok(()) };
        telemetry.set_waiting("the engine to load");
        look_at_templates(&clients, &services, &telemetry, &cancel, failed.0);
        let settings = Settings {
            namespace: config.namespace.clone(),
            identity: config.identity.clone(),
            lease: config.lease()?,
            hears_reports: config.report_listen.is_some(),
            reports_at: config.reports_at(),
            agent_template,
        };
        engine::run(settings, clients, services, Asked { reports, applications }, Arc::clone(&telemetry), cancel.clone()).await?;
        if cancel.is_cancelled() { Ok(()) } else { Err(anyhow::anyhow!("the engine ended by itself")) }
    };
    let mut failures = failed.1;
    tokio::select! {
        biased;
        result = work => result,
        Some(failure) = failures.recv() => Err(failure),
    }?;
    // What was passed on to the leader is under way still.
    if let Some(served) = served {
        drop(tokio::time::timeout(listener::GRACE, served).await);
    }
    Ok(())
}

/// The pod of agents, if there are any, once it has an image. None of it when `cancel` came first.
async fn agent_template(
    config: &Config,
    client: &Client,
    telemetry: &Telemetry,
    cancel: &CancellationToken,
) -> anyhow::Result<Option<Option<PodTemplateSpec>>> {
    let Some(template) = config.agent_template()? else { return Ok(Some(None)) };
    let look = async || Ok(agent_image::complete(&template, client, &config.namespace, &config.identity).await);
    Ok(preflight::wait_for(look, telemetry, cancel).await?.map(Some))
}

type Failures = (mpsc::Sender<anyhow::Error>, mpsc::Receiver<anyhow::Error>);

/// Where a part that ended by itself says so; the process then ends.
fn parts_that_failed() -> Failures {
    mpsc::channel(8)
}

fn serve_health(
    config: &Config,
    telemetry: &Arc<Telemetry>,
    metrics: &Arc<Metrics>,
    failed: mpsc::Sender<anyhow::Error>,
) -> anyhow::Result<()> {
    let address = config.health_listen;
    let listener = TcpListener::bind(address).with_context(|| format!("healthListen: cannot listen on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "health listens");
    health::spawn(listener, Arc::clone(telemetry), Arc::clone(metrics), move |error| {
        drop(failed.blocking_send(anyhow::Error::new(error).context("the health listener ended")));
    })
    .context("cannot start the thread of the health listener")
}

fn serve_nodes(
    config: &Config,
    router: axum::Router,
    (telemetry, metrics): (&Arc<Telemetry>, &Arc<Metrics>),
    cancel: &CancellationToken,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let Some(address) = config.report_listen else {
        tracing::info!("reports of nodes are not heard (reportListen is not set)");
        return Ok(None);
    };
    let listener = Listener::bind(address).with_context(|| format!("reportListen: cannot listen on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "reports listen");
    let to_leader = PassOn::new(Arc::clone(telemetry), Arc::clone(metrics)).context("cannot make the client of the leader")?;
    let router = router.layer(axum::middleware::from_fn_with_state(to_leader.clone(), pass_on::or_answer));
    tokio::spawn(to_leader.watch_leader(cancel.clone()));
    Ok(Some(tokio::spawn(listener.serve(router, Arc::clone(telemetry), cancel.clone()))))
}

fn look_at_templates(
    clients: &bos_engine::clients::Clients,
    services: &bos_services::Clients,
    telemetry: &Arc<Telemetry>,
    cancel: &CancellationToken,
    failed: mpsc::Sender<anyhow::Error>,
) {
    let controller = template::run(clients.watch.clone(), services.clone(), Arc::clone(telemetry), cancel.clone());
    let cancel = cancel.clone();
    tokio::spawn(async move {
        controller.await;
        if !cancel.is_cancelled() {
            drop(failed.send(anyhow::anyhow!("the controller of templates ended by itself")).await);
        }
    });
}
