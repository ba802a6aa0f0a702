//! Boots virtual nodes on a real control plane and shows it.

use std::time::Duration;

use bos_e2e::rig::{Rig, RigConfig, template};
use clap::Parser;

/// Boots virtual nodes on a real control plane and shows it.
#[derive(Debug, Parser)]
struct Args {
    /// How many nodes.
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// End after the Session has ended.
    #[arg(long)]
    once: bool,
    /// Seconds from power to report.
    #[arg(long, default_value_t = 3.0)]
    boot_time: f64,
    /// Seconds to wait for the end of the Session.
    #[arg(long, default_value_t = 300.0)]
    limit: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config = RigConfig::with_nodes(args.nodes).boot_time(Duration::from_secs_f64(args.boot_time));
    let rig = Rig::start_with(config, |step| println!("== {step}")).await?;
    println!("logs in {}", rig.folder().display());
    println!("export KUBECONFIG={}", rig.control_plane().admin_kubeconfig().display());
    rig.wait_discovered(args.nodes, Duration::from_secs(60)).await?;
    println!("== discovered {} nodes", args.nodes);
    rig.apply(&template::simple("cos-3.3.12")).await?;
    rig.apply(&template::session("demo", "cos-3.3.12", "Boot")).await?;
    let ended = rig
        .follow_session("demo", Rig::is_complete, Duration::from_secs_f64(args.limit), |session| {
            if let Some(status) = &session.status {
                println!("{:?} {} {}", status.phase, status.progress, status.message);
            }
        })
        .await;
    println!("{}", rig.kubectl(&["get", "sessions.bos.hpe.com", "-o", "wide"]).await?);
    println!("{:?}", rig.site().summary().await?);
    let result = ended.map(|session| println!("{:#?}", session.status));
    if !args.once {
        tokio::signal::ctrl_c().await?;
    }
    rig.stop().await;
    result
}
