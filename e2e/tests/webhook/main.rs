//! Admission end to end: what kubectl says of every mistake, what happens without the webhook, and what a hostile or slow client,
//! an outage and a rotation of certificates do.
//!
//! One rig with many cases, as in `boot`; `BOS_CASE=text` runs only the cases with this in their name. `golden.txt` has kubectl's own
//! words for each case; `BOS_GOLDEN=write` writes it anew.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

mod away;
#[allow(dead_code, reason = "shared with other targets; each uses its part")]
#[path = "../boot/bench.rs"]
mod bench;
mod golden;
mod hostile;
mod rotation;
mod said;

use std::time::Duration;

use bench::{Bench, Cases, Result};
use bos_e2e::rig::{RigConfig, WebhookConfig};
use bos_e2e::site::NodeBlock;
use golden::Golden;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_hear_at_apply_what_would_go_wrong() -> Result {
    let mut config = RigConfig::with_nodes(12).boot_time(Duration::from_millis(300)).options(json!({"discoveryFrequencySeconds": 1}));
    let block = |count, cabinet, role: &str, arch: &str| NodeBlock {
        count,
        cabinet,
        role: role.into(),
        arch: Some(arch.into()),
        ..NodeBlock::default()
    };
    config.site.blocks.push(block(2, 2000, "Compute", "ARM"));
    config.site.blocks.push(block(1, 3000, "Management", "X86"));
    let bench = Bench::start(config).await?;
    let golden = Golden::read();
    let mut cases = Cases::default();
    cases.run("without the webhook", away::absent(&bench, &golden)).await;
    // Rotations go on while everything else is done.
    let args = ["--certificate-seconds=30".to_owned(), "--overlap-seconds=3".to_owned()].to_vec();
    let webhook = bench.rig.start_webhook(&WebhookConfig { args, failure_policy: None }).await?;
    cases.run("templates", said::templates(&bench, &golden)).await;
    cases.run("Sessions", said::sessions(&bench, &golden)).await;
    cases.run("who asked", said::requested_by(&bench)).await;
    cases.run("previews", said::previews(&bench, &golden)).await;
    cases.run("nodes and options", said::nodes_and_options(&bench, &golden)).await;
    cases.run("services away", said::services_away(&bench, &golden)).await;
    cases
        .together(vec![
            ("hostile and slow clients", Box::pin(hostile::clients(&bench, &webhook))),
            ("certificates rotate", Box::pin(rotation::rotates(&bench))),
        ])
        .await;
    cases.run("the webhook is away", away::outage(&bench, webhook)).await;
    cases.run("nothing is left over in golden.txt", async { golden.finish() }).await;
    bench.rig.stop().await;
    cases.verdict()
}
