//! The benchmark: how long an operation takes from `kubectl apply` to the end, and what it costs whom.

mod args;
mod costs;
mod figures;
mod kept;
mod raw_limit;
mod reaction;
mod report;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bos_crds::{BootComponent, Outcome};
use kube::ResourceExt;

pub use args::Args;
use costs::Costs;
pub use figures::Work;
use reaction::Reactions;
pub use reaction::Times;
use report::Measured;
pub use report::{Cost, Idle, Report};

use crate::demo::{ModeArg, Operation};
use crate::rig::{Rig, RigConfig, Truth, Wanted, template};
use crate::signals;
use crate::site::{ImageSpec, PowerRecord, SiteConfig};

const TEMPLATE: &str = "bench";
const SESSION: &str = "bench";
const BOOT_FIRST: &str = "bench-boot-first";
/// How long discovery may take, and the writes that are left when a Session has ended.
const SETTLE_LIMIT: Duration = Duration::from_secs(300);

/// Measures once. The report says whether all budgets were kept.
///
/// # Errors
/// When something cannot be started or measured, not every node came to what was asked for, one was cycled more or less often, or what
/// one was answered 200 for is not shown.
pub async fn run(args: &Args) -> anyhow::Result<Report> {
    tokio::select! {
        result = measure(args) => result,
        () = signals::told_to_end() => anyhow::bail!("told to end"),
    }
}

async fn measure(args: &Args) -> anyhow::Result<Report> {
    let say = |text: &str| eprintln!("== {text}");
    let rig = Rig::start_with(rig_config(args)?, say).await?;
    say("discovery");
    rig.wait_discovered(args.nodes, SETTLE_LIMIT).await?;
    rig.apply(&template::simple(TEMPLATE)).await?;
    if args.operation != Operation::Boot {
        say("booting the nodes first");
        timed_session(&rig, args, BOOT_FIRST, &template::session(BOOT_FIRST, TEMPLATE, Operation::Boot.name())).await?;
    }
    costs::wait_quiet(rig.control_plane(), SETTLE_LIMIT).await?;
    rig.site().clear_calls().await?;
    let before = Costs::of(&rig).await?;
    say(&format!("{} of {} nodes on hardware that takes {} s", args.operation.name(), args.nodes, args.hardware_seconds));
    let wall = timed_session(&rig, args, SESSION, &args.mode.session(SESSION, TEMPLATE, args.operation)).await?;
    say("waiting for the last statuses");
    costs::wait_quiet(rig.control_plane(), SETTLE_LIMIT).await?;
    let costs = Costs::of(&rig).await?.since(&before);
    let calls = rig.site().call_counts().await?.services;
    let history = rig.site().power_history().await?;
    let reactions = Reactions::of(&rig.site().calls("").await?, &history);
    let heard = args.mode == ModeArg::V2;
    check(&rig, args.operation, heard).await?;
    // What is off runs nothing, and nothing is said of it.
    if heard && args.operation != Operation::Shutdown {
        check_reports(&rig, &history).await?;
    }
    let idle = idle(&rig, args.idle()?).await?;
    say("the raw limit: the same API server alone");
    rig.operator().stop().await;
    let raw_limit = raw_limit::median(&rig, args.raw_limit_runs).await?;
    rig.stop().await;
    Ok(Report::new(args, Measured { wall, raw_limit, costs, calls, reactions, idle }))
}

/// What an operator costs that has nothing to do.
async fn idle(rig: &Rig, watched: Duration) -> anyhow::Result<Option<Idle>> {
    if watched.is_zero() {
        return Ok(None);
    }
    eprintln!("== idle for {} s", watched.as_secs());
    rig.site().clear_calls().await?;
    let before = Costs::of(rig).await?;
    tokio::time::sleep(watched).await;
    let costs = Costs::of(rig).await?.since(&before);
    let calls = rig.site().call_counts().await?.services.values().sum();
    Ok(Some(Idle::new(watched, &costs, calls)))
}

fn rig_config(args: &Args) -> anyhow::Result<RigConfig> {
    let mut site = SiteConfig::with_nodes(args.nodes);
    // As BOS was measured: off at once, and some seconds from power-on to the report.
    site.settings.boot_time = args.boot_time()?;
    site.settings.off_delay = Duration::ZERO;
    // What it logs by default, and started once: figures of a second process would be lost.
    let log = "info".to_owned();
    let (power, profile) = (args.power.into(), args.profile.into());
    let config = RigConfig { site, power, profile, log, supervise: false, ..RigConfig::default() };
    Ok(if args.mode == ModeArg::V1 { config.with_agents() } else { config })
}

/// Applies a Session with kubectl and waits until it is complete.
async fn timed_session(rig: &Rig, args: &Args, name: &str, manifest: &str) -> anyhow::Result<Duration> {
    let watched = rig.wait_session(name, Rig::is_complete, args.limit()?);
    let begun = Instant::now();
    // The watch is open before kubectl is done, so the end is seen when it happens.
    let (ended, applied) = tokio::join!(async { watched.await.map(|session| (session, begun.elapsed())) }, rig.apply(manifest));
    applied.with_context(|| format!("applying Session {name}"))?;
    let (session, wall) = ended?;
    let status = session.status.unwrap_or_default();
    anyhow::ensure!(status.outcome == Some(Outcome::Succeeded), "Session {name}: {:?}: {}", status.outcome, status.message);
    Ok(wall)
}

/// Whether all nodes are as asked, at the site.
async fn check(rig: &Rig, operation: Operation, heard: bool) -> anyhow::Result<()> {
    let image = ImageSpec::default();
    let wanted = match operation {
        Operation::Shutdown => Wanted::Off,
        Operation::Boot | Operation::Reboot | Operation::Configure => {
            Wanted::Booted { heard, image: &image, configuration: template::CONFIGURATION }
        }
    };
    let nodes = rig.site().nodes().await?;
    let truth = Truth::of(&nodes, wanted);
    anyhow::ensure!(truth.wrong.is_empty(), "{} nodes are not as asked, the first: {}", truth.wrong.len(), truth.wrong[0]);
    let asked = usize::from(operation == Operation::Reboot);
    let others = kept::not_cycled_as_asked(&nodes, asked);
    if let [(node, times), ..] = others.as_slice() {
        anyhow::bail!("{} nodes were not power-cycled {asked} times, the first: {node}, {times} times", others.len());
    }
    Ok(())
}

/// Whether what nodes were answered 200 for is there.
async fn check_reports(rig: &Rig, history: &BTreeMap<String, Vec<PowerRecord>>) -> anyhow::Result<()> {
    let components = rig.components().await?;
    let token = |component: &BootComponent| component.status.as_ref()?.actual_state.as_ref()?.bss_token.as_ref().map(ToString::to_string);
    let shown = components.iter().filter_map(|component| Some((component.name_any(), token(component)?))).collect();
    let lost = kept::not_shown(history, &shown);
    if let [(node, token), ..] = lost.as_slice() {
        anyhow::bail!("{} reports were answered 200 and are not shown, the first: {token} of {node}", lost.len());
    }
    Ok(())
}
