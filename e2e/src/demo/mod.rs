//! The demo: boots virtual nodes on a real control plane and shows what a person would see.

mod args;
mod faults;
mod show;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bos_crds::{Outcome, Session};
use serde_json::json;

pub(crate) use args::some_nodes;
pub use args::{Args, ModeArg, Operation, PowerArg, ProfileArg};
use faults::Trouble;
use show::Show;

use crate::rig::{Rig, RigConfig, Truth, Wanted, Webhook, WebhookConfig, template};
use crate::signals;
use crate::site::{ImageSpec, SiteConfig};

/// The template of `manifests/samples`, which is right for the simulated site too.
const TEMPLATE: &str = "cos-3.3.12";
/// Name of the Session that is shown.
const SESSION: &str = "demo";
/// Name of the Session that boots nodes which are then rebooted or shut down.
const BOOT_FIRST: &str = "demo-boot-first";
/// How long discovery may take.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(120);
/// Node faults make the operator wait for its deadline; this much beyond the boot time keeps the demo short.
const BOOT_WAIT_MARGIN: f64 = 10.0;

/// Runs the demo. True if every node came to what was asked for.
///
/// # Errors
/// When a part cannot be started or the Session does not end in time.
pub async fn run(args: Args) -> anyhow::Result<bool> {
    let (rig, _webhook, good) = tokio::select! {
        result = play(&args) => result?,
        () = signals::told_to_end() => {
            println!("\nTold to end before the nodes were done; everything is stopped.");
            return Ok(false);
        }
    };
    if !args.once {
        signals::told_to_end().await;
        println!("\nStopping.");
    }
    rig.stop().await;
    Ok(good)
}

/// Everything up to the point where there is nothing left to show.
async fn play(args: &Args) -> anyhow::Result<(Rig, Option<Webhook>, bool)> {
    let trouble = Trouble::of(&args.faults);
    let started = Instant::now();
    let rig = Rig::start_with(rig_config(args, &trouble)?, show::step).await?;
    let show = Show::new(&rig, args.nodes).await?;
    show.where_things_are(started.elapsed());
    show::step(&format!("waiting until the operator has discovered {} nodes in HSM", args.nodes));
    rig.wait_discovered(args.nodes, DISCOVERY_LIMIT).await?;
    let webhook = if args.webhook {
        show::step("starting the webhook");
        Some(rig.start_webhook(&WebhookConfig::default()).await?)
    } else {
        None
    };
    let good = operate(&rig, args, &trouble, &show).await?;
    if !args.once {
        show.what_to_try(SESSION, webhook.is_some());
    }
    drop(show);
    Ok((rig, webhook, good))
}

fn rig_config(args: &Args, trouble: &Trouble) -> anyhow::Result<RigConfig> {
    let boot_time = args.boot_time()?;
    let mut site = SiteConfig::with_nodes(args.nodes);
    site.settings.boot_time = boot_time;
    // Not all at once: it looks like a machine room, and the progress can be followed.
    site.settings.boot_spread = boot_time.mul_f64(args.spread);
    site.settings.cfs_delay = boot_time.mul_f64(args.spread / 2.0);
    let (power, profile) = (args.power.into(), args.profile.into());
    let mut config = RigConfig { site, power, controller_manager: args.controller_manager, profile, ..RigConfig::default() };
    config.log = "info".to_owned();
    if args.mode == ModeArg::V1 {
        config = config.with_agents();
    }
    let wait = args.boot_wait.or_else(|| trouble.hurts_nodes().then_some(args.boot_time * (1.0 + args.spread) + BOOT_WAIT_MARGIN));
    if let Some(seconds) = wait {
        let seconds = seconds.ceil();
        config.options = json!({
            "maxBootWaitTimeSeconds": seconds,
            "maxPowerOffWaitTimeSeconds": seconds,
            "maxPowerOnWaitTimeSeconds": seconds,
            "configurationWaitTimeSeconds": seconds,
            "powerUnknownWaitTimeSeconds": seconds,
            "v1BootWaitTimeSeconds": seconds,
        });
    }
    Ok(config)
}

/// The Sessions, and what became of the nodes.
async fn operate(rig: &Rig, args: &Args, trouble: &Trouble, show: &Show<'_>) -> anyhow::Result<bool> {
    show::step("kubectl apply -f manifests/samples/template.yaml");
    let sample = Rig::manifests().join("samples/template.yaml");
    let sample = sample.to_str().context("the path of the samples is not UTF-8")?;
    show::indented(&rig.kubectl(&["apply", "-f", sample]).await?);
    if args.operation != Operation::Boot {
        show::step("booting the nodes first");
        let first = template::session(BOOT_FIRST, TEMPLATE, Operation::Boot.name());
        run_session(rig, args, show, BOOT_FIRST, &first).await?;
    }
    trouble.begin(rig.site(), args.nodes).await?;
    let _killer = trouble.kills.map(|every| show::kill_now_and_then(rig, every));
    let session = run_session(rig, args, show, SESSION, &args.mode.session(SESSION, TEMPLATE, args.operation)).await?;
    show.summary(&session).await?;
    if args.mode == ModeArg::V1 {
        show.agent(SESSION).await?;
    }
    let truth = truth(rig, args.operation, args.mode == ModeArg::V2).await?;
    show::truth(&truth, args.operation);
    let outcome = session.status.and_then(|status| status.outcome);
    let good = truth.wrong.is_empty() && outcome == Some(Outcome::Succeeded);
    if !good {
        println!("\nNot every node is {}; outcome {}.", args.operation.done(), outcome.map_or("unknown", Outcome::as_str));
    }
    Ok(good)
}

async fn run_session(rig: &Rig, args: &Args, show: &Show<'_>, name: &str, session: &str) -> anyhow::Result<Session> {
    show::step(&format!("kubectl apply -f - <<< '{session}'"));
    show::indented(&rig.apply(session).await?);
    show.follow(name, args.limit()?).await
}

async fn truth(rig: &Rig, operation: Operation, heard: bool) -> anyhow::Result<Truth> {
    let image = ImageSpec::default();
    let wanted = match operation {
        Operation::Shutdown => Wanted::Off,
        Operation::Boot | Operation::Reboot | Operation::Configure => {
            Wanted::Booted { heard, image: &image, configuration: template::CONFIGURATION }
        }
    };
    Ok(Truth::of(&rig.site().nodes().await?, wanted))
}
