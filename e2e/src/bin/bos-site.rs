//! The simulated site as a program: prints where its services are and runs until told to end.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bos_e2e::site::{ADMIN_HELP, Site, SiteConfig};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Simulates the services of a machine room (HSM, PCS, CAPMC, BSS, CFS, IMS, S3) and its nodes.
///
/// When ready it prints one line of JSON with all base URLs on standard output. It ends on SIGTERM,
/// SIGINT, or when its standard input is closed.
#[derive(Debug, Parser)]
#[command(version, after_help = format!("Admin listener:\n{ADMIN_HELP}"))]
struct Args {
    /// Configuration file (JSON); flags override what is in it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the default configuration and end: the form of --config.
    #[arg(long)]
    print_config: bool,
    /// Number of nodes in the first block.
    #[arg(long, short)]
    nodes: Option<usize>,
    /// First cabinet of the first block.
    #[arg(long)]
    cabinet: Option<u32>,
    /// Base URL of the operator's report endpoint.
    #[arg(long, value_name = "URL")]
    operator_url: Option<String>,
    /// Seconds from power to report.
    #[arg(long, value_name = "SECONDS")]
    boot_time: Option<f64>,
    /// Random addition to the boot time, in seconds.
    #[arg(long, value_name = "SECONDS")]
    boot_spread: Option<f64>,
    /// Seconds from the power-on command to power.
    #[arg(long, value_name = "SECONDS")]
    on_delay: Option<f64>,
    /// Seconds from a graceful power-off command to off.
    #[arg(long, value_name = "SECONDS")]
    off_delay: Option<f64>,
    /// Seconds CFS needs to configure a node.
    #[arg(long, value_name = "SECONDS")]
    cfs_delay: Option<f64>,
    /// Factor on the back-off of reports.
    #[arg(long)]
    report_backoff_scale: Option<f64>,
    /// Delays as on real hardware; other flags override single ones.
    #[arg(long)]
    realistic: bool,
    /// Seed of everything random.
    #[arg(long)]
    seed: Option<u64>,
    /// Fixed port of a service or of `admin`, e.g. `--port admin=9000`; may be repeated.
    #[arg(long = "port", value_name = "NAME=PORT", value_parser = port)]
    ports: Vec<(String, u16)>,
    /// Do not end when standard input is closed.
    #[arg(long)]
    ignore_stdin: bool,
}

fn port(text: &str) -> Result<(String, u16), String> {
    let (name, port) = text.split_once('=').ok_or("expected NAME=PORT")?;
    if !matches!(name, "hsm" | "pcs" | "capmc" | "bss" | "cfs" | "ims" | "s3" | "admin") {
        return Err(format!("{name} is not one of hsm, pcs, capmc, bss, cfs, ims, s3, admin"));
    }
    Ok((name.to_owned(), port.parse().map_err(|e| format!("{port}: {e}"))?))
}

fn seconds(value: Option<f64>, into: &mut Duration) -> anyhow::Result<()> {
    if let Some(value) = value {
        *into = Duration::try_from_secs_f64(value).with_context(|| format!("{value} is not a number of seconds"))?;
    }
    Ok(())
}

fn configuration(args: &Args) -> anyhow::Result<SiteConfig> {
    let mut config = match &args.config {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is not a site configuration", path.display()))?
        }
        None => SiteConfig::default(),
    };
    if config.blocks.is_empty() {
        config.blocks.push(Default::default());
    }
    let block = &mut config.blocks[0];
    block.count = args.nodes.unwrap_or(block.count);
    block.cabinet = args.cabinet.unwrap_or(block.cabinet);
    config.seed = args.seed.unwrap_or(config.seed);
    config.ports.extend(args.ports.iter().cloned().collect::<BTreeMap<_, _>>());
    if args.realistic {
        config.settings = config.settings.realistic();
    }
    let settings = &mut config.settings;
    settings.operator_url = args.operator_url.clone().or(settings.operator_url.take());
    settings.report_backoff_scale = args.report_backoff_scale.unwrap_or(settings.report_backoff_scale);
    seconds(args.boot_time, &mut settings.boot_time)?;
    seconds(args.boot_spread, &mut settings.boot_spread)?;
    seconds(args.on_delay, &mut settings.on_delay)?;
    seconds(args.off_delay, &mut settings.off_delay)?;
    seconds(args.cfs_delay, &mut settings.cfs_delay)?;
    Ok(config)
}

/// Ends when standard input is closed. Read in a thread of its own, as such a read cannot be broken off.
async fn stdin_closed(ignore: bool) {
    if ignore {
        return std::future::pending().await;
    }
    let (closed, seen) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = closed.send(());
    });
    let _ = seen.await;
}

async fn run(args: Args) -> anyhow::Result<()> {
    // Asked for before anybody can know that we run, so that no signal is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let site = Site::start(configuration(&args)?).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(site.urls())?)?;
    out.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stdin_closed(args.ignore_stdin) => {}
    }
    Ok(())
}

/// Each node that reports has a connection of its own.
fn open_many_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context("raising the limit of open files")
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.print_config {
        println!("{}", serde_json::to_string_pretty(&SiteConfig::default())?);
        return Ok(());
    }
    open_many_files()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(args))
}
