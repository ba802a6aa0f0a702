//! Measures how long admission of one Session takes beside many nodes, as the API server's client sees it; see `--help`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bos_crds::Session;
use bos_e2e::rig::{NAMESPACE, Rig, RigConfig, WebhookConfig, template};
use clap::Parser;
use kube::Api;
use kube::api::PostParams;

/// No Session may take longer.
const LIMIT: Duration = Duration::from_secs(1);
/// Discovery of many nodes takes a while.
const DISCOVERY: Duration = Duration::from_secs(600);

/// Creates one Session after the other, as a dry run, that would act on all nodes, and measures each.
#[derive(Debug, Parser)]
#[command(name = "bench-admission")]
struct Args {
    /// How many nodes there are.
    #[arg(long, default_value_t = 10_000)]
    nodes: usize,
    /// How many Sessions are measured.
    #[arg(long, default_value_t = 12)]
    sessions: usize,
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-admission: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let rig = Rig::start_with(RigConfig::with_nodes(args.nodes), |step| eprintln!("{step}")).await?;
        eprintln!("waiting for {} nodes", args.nodes);
        rig.wait_discovered(args.nodes, DISCOVERY).await?;
        let webhook = rig.start_webhook(&WebhookConfig::default()).await?;
        rig.apply(&template::simple("cos")).await?;
        let api: Api<Session> = Api::namespaced(rig.client(), NAMESPACE);
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let mut times = Vec::with_capacity(args.sessions);
        for n in 0..args.sessions {
            let operation = ["Boot", "Reboot", "Shutdown"][n % 3];
            let session: Session = serde_json::from_str(&template::session(&format!("s-{n}"), "cos", operation))?;
            let began = Instant::now();
            api.create(&params, &session).await.context("a Session was refused")?;
            times.push(began.elapsed());
            // Every other one reads the inventory anew.
            if n % 2 == 0 {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        }
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default();
        let last = template::session("last", "cos", "Reboot");
        let said = rig.control_plane().kubectl_command().run_with_input(&["apply", "--dry-run=server", "-f", "-"], &last);
        print!("{}", said.await?.stderr);
        let stats = webhook.stats()?;
        println!(
            "{} nodes, {} Sessions: median {:.0} ms, 90 % within {:.0} ms, longest {:.0} ms; webhook {:.1} CPU-s, {:.0} MiB, at most {:.0} MiB",
            args.nodes,
            args.sessions,
            at(50).as_secs_f64() * 1e3,
            at(90).as_secs_f64() * 1e3,
            at(100).as_secs_f64() * 1e3,
            stats.cpu_seconds,
            stats.rss_bytes as f64 / (1024.0 * 1024.0),
            stats.peak_rss_mib(),
        );
        drop(webhook);
        rig.stop().await;
        Ok(at(100) <= LIMIT)
    })
}
