//! Services and the API server that fail for a while: a Session is delayed and says by whom; nothing fails, no attempt is used, no node
//! loses power.
//!
//! An outage ends when the Session has shown it, not after a time, so nothing here depends on how fast the machine is.
//! `BOS_CASE=text` runs only the cases with this in their name.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

mod api_server;
#[allow(dead_code, reason = "shared with other targets; each uses its part")]
#[path = "../boot/bench.rs"]
mod bench;
mod services;

use std::time::Duration;

use bench::{Bench, Cases, Result};
use bos_e2e::rig::RigConfig;
use bos_e2e::site::{OutageKind, Service};
use services::{Moment, Trial};
use tokio::sync::Semaphore;

/// So many control planes run at the same time.
static CONTROL_PLANES: Semaphore = Semaphore::const_new(2);

/// Every way in which any service fails.
const KINDS: [OutageKind; 6] =
    [OutageKind::Unavailable, OutageKind::Hang, OutageKind::Reset, OutageKind::Garbage, OutageKind::Html, OutageKind::Refuse];

/// Runs trials one after the other on one rig.
async fn trials(trials: Vec<Trial>) -> Result {
    let _slot = CONTROL_PLANES.acquire().await?;
    let others = 4 * trials.len()..4 * trials.len() + 8;
    let mut config = RigConfig::with_nodes(others.end).boot_time(Duration::from_millis(300));
    // Well above what a busy machine needs, well below what would make hanging services slow to test.
    config.operator_args = ["hsm", "pcs", "bss", "cfs", "ims", "s3"].map(|service| format!("--{service}-timeout-seconds=2")).to_vec();
    config.site.settings.boot_retry_delay = Duration::from_millis(100);
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
    for (number, trial) in trials.iter().enumerate() {
        let nodes = bench.nodes(4 * number..4 * number + 4);
        cases.run(&trial.name(), services::run(&bench, trial, &nodes)).await;
    }
    if trials.iter().any(|trial| trial.service == Service::Pcs) {
        let nodes = bench.nodes(others);
        cases.run("a Reboot while BSS is away", services::before_a_power_off(&bench, &nodes[..4])).await;
        cases.run("an outage that lasts over a restart", services::over_a_restart(&bench, &nodes[4..])).await;
    }
    bench.rig.stop().await;
    cases.verdict()
}

fn at(moment: Moment, services: &[Service], kinds: &[OutageKind]) -> Vec<Trial> {
    services.iter().flat_map(|service| kinds.iter().map(move |kind| Trial { service: *service, kind: *kind, moment })).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_set_up_needs() -> Result {
    let mut all = at(Moment::Beginning, &[Service::Hsm, Service::S3, Service::Cfs], &KINDS);
    all.extend(at(Moment::Beginning, &[Service::Ims], &[OutageKind::Unavailable, OutageKind::Hang]));
    trials(all).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_nodes_need() -> Result {
    let mut all = at(Moment::Beginning, &[Service::Pcs, Service::Bss], &KINDS);
    // BSS tells a lost store neither by status nor by text from missing data.
    all.extend(at(Moment::Beginning, &[Service::Bss], &[OutageKind::StoreDown]));
    all.extend(at(Moment::Middle, &[Service::Pcs, Service::Bss, Service::Cfs], &KINDS));
    trials(all).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_away_for_longer_than_the_lease() -> Result {
    let _slot = CONTROL_PLANES.acquire().await?;
    api_server::away().await
}
