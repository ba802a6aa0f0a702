//! Power by CAPMC: Boot, Reboot and Shutdown with bad nodes in every list, and CAPMC away.
//!
//! One rig with many cases, as in `boot`; `BOS_CASE=text` runs only the cases with this in their name.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

#[allow(dead_code, reason = "shared with other targets; each uses its part")]
#[path = "../boot/bench.rs"]
mod bench;
#[allow(dead_code, reason = "shared with other targets; each uses its part")]
#[path = "../outages/services.rs"]
mod services;
mod trouble;

use std::time::Duration;

use bench::{Bench, Cases, Result};
use bos_e2e::rig::RigConfig;
use bos_e2e::site::{OutageKind, Service};
use serde_json::json;
use services::{Moment, Trial};

const KINDS: [OutageKind; 5] = [OutageKind::Unavailable, OutageKind::Hang, OutageKind::Refuse, OutageKind::Garbage, OutageKind::StoreDown];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_nodes_fail_alone_and_an_outage_only_delays() -> Result {
    let mut config = RigConfig::with_nodes(60).boot_time(Duration::from_millis(300)).through_capmc().options(json!({
        "defaultRetryPolicy": 2,
        "maxBootWaitTimeSeconds": 60,
        "maxPowerOffWaitTimeSeconds": 20,
        "maxPowerOnWaitTimeSeconds": 5,
        "powerUnknownWaitTimeSeconds": 3,
    }));
    config.operator_args = vec!["--capmc-timeout-seconds=2".to_owned()];
    config.site.settings.boot_retry_delay = Duration::from_millis(100);
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
    // One after the other: the set-up of another Session would read from HSM that a node is disabled or locked, and the node would
    // be let go before CAPMC says anything.
    cases.run("a boot", trouble::operation(&bench, "Boot", 0..8)).await;
    cases.run("a reboot", trouble::operation(&bench, "Reboot", 8..16)).await;
    cases.run("a failure that is not named", trouble::not_named(&bench, 16..20)).await;
    cases.run("disabled before the first look", trouble::disabled_at_first(&bench, 20..24)).await;
    bench.site.configure(|settings| settings.old_capmc = true);
    cases.run("a shutdown by an old CAPMC", trouble::operation(&bench, "Shutdown", 24..32)).await;
    cases.run("a failure that is named", trouble::named(&bench, 32..36)).await;
    bench.site.configure(|settings| settings.old_capmc = false);
    for (number, kind) in KINDS.into_iter().enumerate() {
        let trial = Trial { service: Service::Capmc, kind, moment: Moment::Beginning };
        let nodes = bench.nodes(36 + 4 * number..40 + 4 * number);
        cases.run(&trial.name(), services::run(&bench, &trial, &nodes)).await;
    }
    bench.rig.stop().await;
    cases.verdict()
}
