//! The Boot Orchestration Agent: carries one Session of mode v1 out, as the container of a Job, and says by its exit code how that went.

mod args;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use bos_core::session::SessionOutcome;
use bos_engine::agents::exit;
use bos_engine::clients::Clients;
use bos_engine::engine::{self, Charge, EngineError, Settings};
use bos_engine::process::{self, Logging};
use bos_engine::records::RecordError;
use bos_engine::telemetry::Telemetry;
use bos_services::flags::{self, LogFormat};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use args::Config;

fn main() -> ExitCode {
    // Without a provider the first TLS connection would panic.
    drop(rustls::crypto::ring::default_provider().install_default());
    let config = match Config::load(flags::from_process(), |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(error) => return wrong_settings(&error),
    };
    let logging = match start_logging(&config) {
        Ok(logging) => logging,
        Err(error) => return wrong_settings(&error),
    };
    process::end_with_any_panic("agent");
    let session = config.charge.session.to_string();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), session, session_uid = config.charge.uid, pod = config.identity, "starting");
    let code = match run(config, logging) {
        Ok(Some(outcome)) => code_of(outcome),
        // Another pod goes on where this one was.
        Ok(None) => exit::TRANSIENT,
        Err(error) => {
            tracing::error!("{error:#}");
            code_of_error(&error)
        }
    };
    tracing::info!(session, code, "ended");
    ExitCode::from(code)
}

fn wrong_settings(error: &anyhow::Error) -> ExitCode {
    eprintln!("bos-boa: {error:#}");
    ExitCode::from(exit::SETTINGS)
}

/// What the Job is told of the Session.
const fn code_of(outcome: SessionOutcome) -> u8 {
    match outcome {
        // Nothing of it was left to do, or a person said stop.
        SessionOutcome::Succeeded | SessionOutcome::Superseded | SessionOutcome::Cancelled => 0,
        SessionOutcome::PartiallyFailed => exit::PARTLY,
        SessionOutcome::Failed | SessionOutcome::NotStarted => exit::FAILED,
    }
}

fn code_of_error(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(EngineError::Deposed) => exit::DEPOSED,
        // Without its journal no other pod may go on either: not even where somebody puts an old copy back.
        Some(EngineError::NothingToDo(_) | EngineError::Records(RecordError::Gone { .. })) => exit::FAILED,
        Some(EngineError::Records(_)) | None => exit::TRANSIENT,
    }
}

fn start_logging(config: &Config) -> anyhow::Result<Logging> {
    let filter = process::log_filter(&config.log).with_context(|| format!("log: {:?} is not a filter", config.log))?;
    let (filter, handle) = reload::Layer::new(filter);
    let start = tracing_subscriber::registry().with(filter);
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    match config.log_format {
        LogFormat::Json => start.with(logs.json().flatten_event(true).with_span_list(false)).init(),
        LogFormat::Text => start.with(logs.with_ansi(false)).init(),
    }
    Ok(handle)
}

fn run(config: Config, logging: Logging) -> anyhow::Result<Option<SessionOutcome>> {
    let runtime = process::runtime().context("cannot start the runtime")?;
    let result = runtime.block_on(carry_out(config, logging));
    // Nothing that still hangs may keep a deposed process alive.
    runtime.shutdown_background();
    result
}

async fn carry_out(config: Config, logging: Logging) -> anyhow::Result<Option<SessionOutcome>> {
    let cancel = CancellationToken::new();
    let says = "ending; what was recorded is taken up by the next pod. A second signal ends at once";
    process::end_on_signals(&cancel, says, exit::TRANSIENT).context("cannot listen for signals")?;
    let telemetry = Telemetry::shared();
    process::end_when_hung(Arc::clone(&telemetry), exit::TRANSIENT).context("cannot start the thread that watches the engine")?;
    // Its log is the story of one Session.
    let silently = |_, _| ();
    tokio::spawn(process::follow_logging(config.log.clone(), logging, telemetry.logging.subscribe(), silently));
    let cluster = kube::Config::infer().await.context("no way to the cluster: neither a service account nor a kubeconfig")?;
    let clients = Clients::new(&cluster).context("cannot make clients of the API server")?;
    let services = bos_services::Clients::new(&config.services, Arc::new(bos_services::NoObserver))?;
    let settings = Settings {
        namespace: config.namespace.clone(),
        identity: config.identity.clone(),
        lease: config.lease,
        hears_reports: false,
        reports_at: None,
        agent_template: None,
    };
    let charge = Charge { session: config.charge.session, uid: config.charge.uid, job: config.charge.job };
    Ok(engine::run_agent(settings, charge, clients, services, telemetry, cancel).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_how_it_went() {
        let codes = [
            (SessionOutcome::Succeeded, 0),
            (SessionOutcome::Superseded, 0),
            (SessionOutcome::Cancelled, 0),
            (SessionOutcome::PartiallyFailed, 10),
            (SessionOutcome::Failed, 11),
            (SessionOutcome::NotStarted, 11),
        ];
        for (outcome, code) in codes {
            assert_eq!(code_of(outcome), code, "{outcome:?}");
        }
        assert_eq!(code_of_error(&EngineError::Deposed.into()), 3);
        let gone = RecordError::Gone { name: "bos-journal-1".to_owned() };
        assert_eq!(code_of_error(&EngineError::from(gone).into()), 11, "another pod must not find an old copy that was put back");
        let refused = RecordError::Refused { name: "bos-journal-1".to_owned(), message: "no".to_owned() };
        assert_eq!(code_of_error(&EngineError::from(refused).into()), 75);
        assert_eq!(code_of_error(&anyhow::anyhow!("no way to the cluster")), 75);
    }
}
