//! Sessions of mode v1 end to end: the operator makes a real Job, whose pod runs the real agent against the simulated site.
//!
//! Each test is one rig with many cases. `BOS_CASE=text` runs only the cases with this in their name. What happened to nodes is asserted
//! from the site's own history.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

mod acceptance;
mod agents;
#[allow(dead_code, reason = "shared with other targets; each uses its part")]
#[path = "../boot/bench.rs"]
mod bench;
mod life;
mod trouble;
mod workflows;

use std::time::Duration;

use bench::{Bench, Cases, Result};
use bos_e2e::rig::RigConfig;
use serde_json::json;

/// With agents, on a site where whatever takes long is soon given up.
fn impatient(config: RigConfig) -> RigConfig {
    let mut config = config.boot_time(Duration::from_millis(300)).with_agents();
    config.site.settings.boot_retry_delay = Duration::from_millis(100);
    // How long PCS tries to reach a power state.
    config.site.settings.task_minute = Duration::from_secs(2);
    config
}

/// The three published workflows, step by step, by CAPMC as BOS v1 did it; the order matters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_published_workflows() -> Result {
    let config = RigConfig::with_nodes(8).boot_time(Duration::from_millis(300)).through_capmc().with_agents();
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
    cases.run("v1 boot and configure nodes", workflows::boot(&bench, 0..4)).await;
    cases.run("v1 reconfigure nodes", workflows::reconfigure(&bench, 0..4)).await;
    cases.run("v1 power off nodes", workflows::power_off(&bench, 0..4)).await;
    cases.run("CAPMC answers e 500", acceptance::capmc_error(&bench, 4..8)).await;
    bench.rig.stop().await;
    cases.verdict()
}

/// What BOS v1 got wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_v1_got_wrong() -> Result {
    let config = impatient(RigConfig::with_nodes(48)).options(json!({
        "v1BootWaitTimeSeconds": 8,
        "maxPowerOffWaitTimeSeconds": 3,
        "maxPowerOnWaitTimeSeconds": 4,
        "powerUnknownWaitTimeSeconds": 3,
    }));
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
    cases
        .together(vec![
            ("v1 five nodes", Box::pin(acceptance::five_nodes(&bench, 0..5))),
            ("v1 all on", Box::pin(acceptance::all_on(&bench, 5..8))),
            ("v1 slow configuration", Box::pin(acceptance::slow_configuration(&bench, 8..12))),
            ("v1 a stuck shutdown", Box::pin(acceptance::stuck_shutdown(&bench, 12..15))),
            ("v1 without configuration", Box::pin(acceptance::without_configuration(&bench, 15..18))),
            ("v1 a locked node", Box::pin(acceptance::locked(&bench, 18..22))),
            ("v1 the Session is deleted", Box::pin(acceptance::deleted(&bench, 22..25))),
            ("v1 artifacts gone", Box::pin(acceptance::artifacts_gone(&bench, 41..45))),
            ("v1 limits", Box::pin(acceptance::limits(&bench, 25..27))),
        ])
        .await;
    cases.run("v1 the pod is killed", acceptance::pod_killed(&bench, 27..33)).await;
    cases.run("v1 stale Ready", acceptance::stale_ready(&bench, 33..36)).await;
    cases.run("v1 CFS away", acceptance::configuration_away(&bench, 36..39)).await;
    cases.run("v1 SSH", acceptance::ssh(&bench, 39..41)).await;
    bench.rig.stop().await;
    cases.verdict()
}

/// Agents come and go, beside Sessions of mode v2 and operators that are killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_come_and_go() -> Result {
    let config = impatient(RigConfig::with_nodes(48)).through_proxy().options(json!({
        "v1BootWaitTimeSeconds": 120,
        "maxPowerOffWaitTimeSeconds": 3,
    }));
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
    cases
        .together(vec![
            ("v1 what is shown", Box::pin(life::shown(&bench, 0..2))),
            ("v1 cancelled", Box::pin(life::cancelled(&bench, 2..4))),
            ("v1 suspended", Box::pin(life::suspended(&bench, 4..6))),
            ("v1 gives nodes to v2", Box::pin(life::taken_by_v2(&bench, 6..12))),
            ("v1 takes nodes of v2", Box::pin(life::taken_by_v1(&bench, 12..15))),
        ])
        .await;
    cases.run("v1 the Job is deleted", life::job_deleted(&bench, 15..18)).await;
    cases.run("v1 its machine is lost", life::machine_lost(&bench, 33..36)).await;
    cases.run("v1 its Job is refused", life::job_refused(&bench, 36..39)).await;
    cases.run("v1 its pod cannot start", trouble::pod_cannot_start(&bench, 39..41)).await;
    cases.run("v1 PCS is away", trouble::power_service_away(&bench, 41..43)).await;
    cases.run("v1 its journal is deleted", trouble::journal_deleted(&bench, 43..45)).await;
    cases.run("v1 a BootComponent is deleted", trouble::component_deleted(&bench, 45..48)).await;
    cases.run("v1 the operator is killed", life::operator_killed(&bench, 18..21)).await;
    cases.run("v1 killed at launch", life::killed_at_launch(&bench, 21..29)).await;
    cases.run("v1 the API server is away", life::api_server_away(&bench, 29..33)).await;
    bench.rig.stop().await;
    cases.verdict()
}

/// So many that their objects are written for a while: the agent begins when all are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes() -> Result {
    const NODES: usize = 400;
    let bench = Bench::start(RigConfig::with_nodes(NODES).boot_time(Duration::from_millis(300)).with_agents()).await?;
    let mut cases = Cases::default();
    cases.run("v1 many nodes", acceptance::many(&bench, 0..NODES)).await;
    bench.rig.stop().await;
    cases.verdict()
}
