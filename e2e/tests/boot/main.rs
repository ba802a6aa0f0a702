//! Boot Sessions end to end: real API server, real operator, simulated site. What people see, what reaches the nodes, and what must not.
//!
//! Each test is one rig with many cases, as a control plane takes longer to start than a case to run. `BOS_CASE=text` runs only the
//! cases with this in their name. What happened to nodes is asserted from the site's own history.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

#[allow(dead_code, reason = "shared with other targets; each uses its part")]
mod bench;
mod by_hand;
mod evidence;
mod followed;
mod identity;
mod refused;
mod scale;
mod shown;
mod story;
mod switches;
mod tenants;
mod trouble;

use std::time::Duration;

use bench::{Bench, Cases, Result};
use bos_e2e::rig::RigConfig;
use bos_e2e::site::NodeBlock;
use serde_json::json;

/// One Session after the other on the same nodes; the order matters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_is_booted_and_nothing_is_started_again() -> Result {
    let mut config = RigConfig::with_nodes(30).boot_time(Duration::from_millis(400));
    config.site.blocks.push(NodeBlock {
        count: 2,
        cabinet: 3000,
        role: "Application".into(),
        sub_role: Some("UAN".into()),
        ..NodeBlock::default()
    });
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
    cases.run("two boot sets are booted", story::two_boot_sets(&bench)).await;
    cases.run("what kubectl shows", shown::everything(&bench)).await;
    cases.run("a node followed through the log", followed::one_node(&bench)).await;
    cases.run("a Session followed through the log", followed::one_session(&bench)).await;
    cases.run("the figures of a boot", followed::figures(&bench)).await;
    cases.run("the same image again", story::same_image(&bench)).await;
    cases.run("another image", story::another_image(&bench)).await;
    cases.run("reboot, configure, shutdown", story::other_operations(&bench)).await;
    cases.run("artifacts that nothing names any more", story::unused_artifacts(&bench)).await;
    cases.run("applied twice, deleted and created again", story::created_again(&bench)).await;
    cases.run("ended long ago", story::ended_long_ago(&bench)).await;
    cases.run("restored without status", story::restored(&bench)).await;
    bench.rig.stop().await;
    cases.verdict()
}

/// Writes and calls for many nodes stay within the budgets; `make bench` measures the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_nodes_cost_what_they_may() -> Result {
    let bench = Bench::start(RigConfig::with_nodes(1000).boot_time(Duration::from_secs(1))).await?;
    let mut cases = Cases::default();
    cases.run("a thousand nodes boot", scale::boot(&bench)).await;
    cases.run("a thousand nodes reboot", scale::reboot(&bench)).await;
    cases.run("a thousand nodes shut down", scale::shutdown(&bench)).await;
    bench.rig.stop().await;
    cases.verdict()
}

/// Nodes and Sessions in trouble, at the same time, each on nodes of its own; then what concerns the whole site.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_is_met_as_the_rules_say() -> Result {
    let config = RigConfig::with_nodes(86).boot_time(Duration::from_millis(300)).options(json!({
        "defaultRetryPolicy": 2,
        "maxBootWaitTimeSeconds": 5,
        "maxPowerOffWaitTimeSeconds": 3,
        "maxPowerOnWaitTimeSeconds": 5,
        "powerUnknownWaitTimeSeconds": 3,
        "templateWaitTimeSeconds": 15,
        "discoveryFrequencySeconds": 1,
    }));
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
    cases
        .together(vec![
            ("a node that never comes up", Box::pin(trouble::never_up(&bench, 0..10))),
            ("many silent nodes", Box::pin(trouble::many_silent(&bench, 10..40))),
            ("an unknown image", Box::pin(trouble::unknown_image(&bench, 40..44))),
            ("a dead controller", Box::pin(trouble::dead_controller(&bench, 44..48))),
            ("a stuck shutdown", Box::pin(trouble::stuck_shutdown(&bench, 48..51))),
            ("a newer Session", Box::pin(switches::newer_session(&bench, 51..55))),
            ("suspended", Box::pin(switches::suspended(&bench, 55..58))),
            ("cancelled", Box::pin(switches::cancelled(&bench, 58..62))),
            ("bad templates", Box::pin(refused::bad_templates(&bench, 62..64))),
            ("a template that comes late", Box::pin(refused::late_template(&bench, 64..66))),
            ("a template that never comes", Box::pin(refused::no_template(&bench))),
            ("locked meanwhile", Box::pin(trouble::locked_meanwhile(&bench, 84..86))),
            ("too late or tracked", Box::pin(refused::too_late_or_tracked(&bench, 66..68))),
        ])
        .await;
    cases.run("the stop switch", switches::stop_switch(&bench, 68..76)).await;
    cases.run("records deleted", switches::records_deleted(&bench, 80..84)).await;
    cases.run("an empty and a halved inventory", switches::inventory(&bench, 76..80)).await;
    bench.rig.stop().await;
    cases.verdict()
}

/// What is asked of single nodes, beside Sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_driven_by_hand_and_staged_state_is_applied() -> Result {
    let config = RigConfig::with_nodes(12).boot_time(Duration::from_millis(300)).options(json!({
        "defaultRetryPolicy": 1,
        "maxPowerOnWaitTimeSeconds": 3,
    }));
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
    cases
        .together(vec![
            ("driven by hand", Box::pin(by_hand::driven_by_hand(&bench, 0..2))),
            ("again in its Session", Box::pin(by_hand::again_in_its_session(&bench, 2..4))),
            ("staged and called for", Box::pin(by_hand::staged_by_call(&bench, 4..6))),
            ("staged and cancelled", Box::pin(by_hand::staged_and_cancelled(&bench, 6..8))),
        ])
        .await;
    cases.run("staged and applied by token", by_hand::staged_by_token(&bench, 8..11)).await;
    bench.rig.stop().await;
    cases.verdict()
}

/// A site that has neither CFS nor IMS, as OpenCHAMI.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_may_do_without_cfs_and_ims() -> Result {
    let config = RigConfig::with_nodes(4).boot_time(Duration::from_millis(300)).without_cfs_and_ims();
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
    cases.run("without CFS and IMS", evidence::bare(&bench, 0..4)).await;
    bench.rig.stop().await;
    cases.verdict()
}

/// The kind of tenants appears while the operator runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_acts_on_its_own_nodes() -> Result {
    let bench = Bench::start(RigConfig::with_nodes(4).boot_time(Duration::from_millis(300))).await?;
    let mut cases = Cases::default();
    cases.run("a tenant", tenants::a_tenant_boots_its_own(&bench, 0..4)).await;
    bench.rig.stop().await;
    cases.verdict()
}

/// Sites without reporters, and images that IMS has something to say about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_is_proved_as_the_site_chooses() -> Result {
    let config = RigConfig::with_nodes(8).boot_time(Duration::from_millis(300)).options(json!({
        "defaultRetryPolicy": 2,
        "maxBootWaitTimeSeconds": 3,
    }));
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
    cases.run("without reports", evidence::without_reports(&bench, 0..4)).await;
    cases.run("Ready all along", evidence::ready_all_along(&bench, 4..6)).await;
    cases.run("images", evidence::images(&bench, 6..8)).await;
    bench.rig.stop().await;
    cases.verdict()
}

/// Nodes show tokens that their site's issuer signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_reports_for_itself_only() -> Result {
    let issuer = identity::Issuer::start().await?;
    let mut config = RigConfig::with_nodes(4).boot_time(Duration::from_millis(300));
    config.operator_args = issuer.operator_args();
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
    cases.run("reports with tokens", identity::reports_with_tokens(&bench, &issuer, 0..4)).await;
    bench.rig.stop().await;
    cases.verdict()
}
