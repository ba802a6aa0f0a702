//! What the programs around the engine have in common: how they log, and how they end.

use std::sync::Arc;
use std::time::Duration;

use bos_crds::LoggingLevel;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::telemetry::Telemetry;

/// What Rust programs end with after a panic.
const EXIT_PANIC: i32 = 101;
/// What shells show for a program that was interrupted.
const EXIT_INTERRUPTED: i32 = 130;
/// A graceful end takes at most this long; the kubelet gives 30 s.
const LONGEST_END: Duration = Duration::from_secs(25);

/// The runtime of a program around the engine: one thread for all that waits for the network, beside the caller's own, in which the
/// engine runs. With more of them, work is handed from one to another: a tenth more CPU, and nothing faster, as the API server is the bound
/// (docs/performance.md).
///
/// # Errors
/// When the system gives no thread.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// Changes how much is logged.
pub type Logging = reload::Handle<EnvFilter, Registry>;

/// The client library logs a request that failed once more, without saying what it was for; our own lines do.
const UNNAMED: &str = "kube_client::client::builder=off";

/// What is logged under `log` of the configuration, which may name that part too.
///
/// # Errors
/// When that is no filter.
pub fn log_filter(configured: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(format!("{UNNAMED},{configured}"))
}

/// What is logged under `loggingLevel` of the options. INFO leaves the filter of the configuration in force; any other level takes
/// the place of what that says for everything, and leaves what it says for single parts.
fn filter(configured: &str, level: LoggingLevel) -> String {
    match level {
        LoggingLevel::Info => configured.to_owned(),
        LoggingLevel::Debug => format!("{configured},debug"),
        LoggingLevel::Warning => format!("{configured},warn"),
        LoggingLevel::Error | LoggingLevel::Critical => format!("{configured},error"),
    }
}

/// Follows `loggingLevel` of the options; `told` hears of each change, and of what cannot be used.
pub async fn follow_logging(
    configured: String,
    logging: Logging,
    mut level: tokio::sync::watch::Receiver<LoggingLevel>,
    told: impl Fn(LoggingLevel, Result<(), String>) + Send,
) {
    while level.changed().await.is_ok() {
        let level = *level.borrow_and_update();
        let changed = log_filter(&filter(&configured, level))
            .map_err(|error| error.to_string())
            .and_then(|filter| logging.reload(filter).map_err(|error| error.to_string()));
        told(level, changed);
    }
}

/// Looks at the beat of the engine, from a thread of its own.
#[derive(Debug, Default)]
struct Watchdog {
    beat: u64,
    silent: u32,
}

impl Watchdog {
    /// True when the engine has been silent for too many looks in a row. Looks, not time: a process that was frozen, and its engine
    /// with it, is not hung.
    fn look(&mut self, beat: u64) -> bool {
        self.silent = if beat == self.beat { self.silent + 1 } else { 0 };
        self.beat = beat;
        self.silent > LONGEST_SILENCE
    }
}

/// Looks, one a second, before an engine that does not go round its loop is taken for dead.
const LONGEST_SILENCE: u32 = 60;

/// Ends a process whose engine hangs, with this code, where no kubelet asks whether it lives.
///
/// # Errors
/// When the thread cannot be started.
pub fn end_when_hung(telemetry: Arc<Telemetry>, code: u8) -> std::io::Result<()> {
    let watch = move || {
        let mut watchdog = Watchdog::default();
        while !watchdog.look(telemetry.last_beat()) {
            std::thread::sleep(Duration::from_secs(1));
        }
        tracing::error!("the engine has been silent for {LONGEST_SILENCE} s; ending");
        std::process::exit(i32::from(code));
    };
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch).map(drop)
}

/// A part that panicked would leave the rest working with half of the truth. Whoever started the process starts it again.
pub fn end_with_any_panic(program: &'static str) {
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(%panic, "a part of the {program} panicked; ending");
        show(panic);
        std::process::exit(EXIT_PANIC);
    }));
}

/// The first SIGTERM or SIGINT ends gracefully, the second at once; `says` what the first one means, and a process that cannot end
/// gracefully ends with the code `late`.
///
/// # Errors
/// When signals cannot be listened for.
pub fn end_on_signals(cancel: &CancellationToken, says: &'static str, late: u8) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancel = cancel.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!("{name}: {says}");
        cancel.cancel();
        match tokio::time::timeout(LONGEST_END, next()).await {
            Ok(_) => std::process::exit(EXIT_INTERRUPTED),
            Err(_) => {
                tracing::error!("could not end gracefully within {LONGEST_END:?}");
                std::process::exit(i32::from(late));
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_nobody_is_not_logged_unless_asked_for() {
        let logged = |configured: &str| log_filter(configured).unwrap().to_string();
        assert_eq!(logged(&filter("info", LoggingLevel::Debug)), "kube_client::client::builder=off,debug");
        assert_eq!(logged("info,kube_client::client::builder=error"), "kube_client::client::builder=error,info");
        assert!(log_filter("a=b=c").is_err());
    }

    #[test]
    fn only_an_engine_that_is_silent_look_after_look_is_dead() {
        let mut watchdog = Watchdog::default();
        assert!((1..=1000).all(|beat| !watchdog.look(beat)));
        assert!((0..LONGEST_SILENCE).all(|_| !watchdog.look(1000)));
        assert!(!watchdog.look(1001), "it went round its loop at the last moment");
        assert!((0..LONGEST_SILENCE).all(|_| !watchdog.look(1001)));
        assert!(watchdog.look(1001));
    }
}
