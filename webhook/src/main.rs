//! Admission for the boot operator: reads its configuration, fills its caches, looks after its certificate, and answers reviews.

mod args;
mod certificates;
mod config;
mod health;
mod judge;
mod known;
mod looks;
mod metrics;
mod review;
mod routes;
mod server;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use bos_services::flags::{self, LogFormat};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use certificates::{Keeper, Served};
use config::Config;
use judge::Judge;
use known::Shared;
use looks::Looks;
use metrics::Metrics;

/// Wrong settings: starting again does not help.
const EXIT_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    // Without a provider the first TLS connection would panic.
    drop(rustls::crypto::ring::default_provider().install_default());
    let config = match Config::load(flags::from_process(), |name| std::env::var(name).ok()).and_then(|config| {
        start_logging(&config)?;
        Ok(config)
    }) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("bos-webhook: {error:#}");
            return ExitCode::from(EXIT_SETTINGS);
        }
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = config.shown(), "starting");
    match run(config) {
        Ok(()) => {
            tracing::info!("ended");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).with_context(|| format!("log: {:?} is not a filter", config.log))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Json => logs.json().flatten_event(true).init(),
        LogFormat::Text => logs.init(),
    }
    Ok(())
}

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let result = runtime.block_on(serve(config));
    runtime.shutdown_background();
    result
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    end_on_signals(&cancel)?;
    let (reviews, probes) = (listen("listen", config.listen)?, listen("healthListen", config.health_listen)?);
    tracing::info!(reviews = %reviews.local_addr()?, health = %probes.local_addr()?, "listening");
    let kube_config = kube::Config::infer().await.context("no way to the cluster: neither a service account nor a kubeconfig")?;
    let clients = bos_engine::clients::Clients::new(&kube_config).context("cannot make clients of the API server")?;
    let (known, served) = (Shared::new(&config.namespace), Arc::new(Served::default()));
    let metrics = Arc::new(Metrics::new(Arc::clone(&served)));
    let services = bos_services::Clients::new(&config.services, Arc::new(metrics.calls.clone()))?;

    let watches = watch::start(&clients, &config.namespace, &known, &cancel);
    match config.files.clone() {
        Some((certificate, key)) => certificates::follow_files(certificate, key, Arc::clone(&served), cancel.clone()).await?,
        None => drop(tokio::spawn(Keeper::new(clients.writer.clone(), Arc::clone(&served), config.certificates()).run(cancel.clone()))),
    }
    let health = health::Health { known: known.clone(), served: Arc::clone(&served), watches, metrics: Arc::clone(&metrics) };
    let health = health::serve(probes, health);
    let judge = Judge::new(known, Looks::new(services), clients.review.clone(), config.namespace.clone());
    let reviews = server::serve(reviews, routes::router(Arc::new(judge), metrics), served, cancel);
    tokio::select! {
        ended = reviews => ended.context("the server of reviews ended"),
        ended = health => Err(ended.err().map_or_else(|| anyhow::anyhow!("the health listener ended"), anyhow::Error::new)),
    }
}

fn listen(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("{key}: cannot listen on {address}"))
}

/// The first SIGTERM or SIGINT ends gracefully; what is under way may take five seconds.
fn end_on_signals(cancel: &CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let cancel = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending");
        cancel.cancel();
    });
    Ok(())
}
