//! Killed at calls of CAPMC, which tells no transition: what was sent is waited out and looked at, and no node is cycled twice.

use bos_e2e::site::{Match, Service, When};
use serde_json::json;

use crate::bench::{Bench, Problems, Verdicts, within};
use crate::reboot::cycled_once;
use crate::{check, turn};

const NODES: usize = 6;

fn call(path: &str) -> Match {
    Match::new(Service::Capmc, "POST").path(path)
}

async fn boot(bench: &Bench, name: &str, path: &str, when: When) -> anyhow::Result<Problems> {
    let run = bench.killed_at_call(name, call(path), when).await?;
    bench.rig.start_operator().await?;
    let session = bench.ended(&run).await?;
    let problems = check::booted(bench, &run, &session).await?;
    bench.clear(&run).await?;
    Ok(problems)
}

/// The nodes are booted, then rebooted with a kill on the way.
async fn reboot(bench: &Bench, name: &str, path: &str, when: When) -> anyhow::Result<Problems> {
    bench.begin(name).await?;
    let first = bench.apply(&format!("{name}-first"), json!({"templateName": name})).await?;
    bench.ended(&first).await?;
    let mut hook = bench.site.on(call(path), when);
    let run = bench.apply(name, json!({"operation": "Reboot"})).await?;
    let held = within("the call comes", hook.reached()).await?;
    bench.kill();
    drop(held);
    bench.rig.start_operator().await?;
    let session = bench.ended(&run).await?;
    let mut problems = cycled_once(bench, &run);
    let status = session.status.unwrap_or_default();
    if usize::try_from(status.counts.succeeded) != Ok(NODES) {
        problems.push(format!("the Session ended {:?}: {} {:?}", status.outcome, status.message, status.failures));
    }
    Ok(problems)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_call_to_capmc_cycles_nothing_twice() {
    let _turn = turn().await;
    let options = json!({"maxPowerOnWaitTimeSeconds": 3, "maxPowerOffWaitTimeSeconds": 3});
    let bench = Bench::start(Bench::config(NODES).through_capmc().options(options)).await;
    let mut verdicts = Verdicts::default();
    for (point, when) in [("before", When::Before), ("withheld", When::AnswerWithheld)] {
        for path in ["/get_xname_status", "/xname_on"] {
            let name = format!("boot{}-{point}", path.replace(['/', '_'], "-"));
            let result = boot(&bench, &name, path, when).await;
            verdicts.add(&bench, &name, result);
        }
        for path in ["/xname_off", "/xname_on"] {
            let name = format!("reboot{}-{point}", path.replace(['/', '_'], "-"));
            let result = reboot(&bench, &name, path, when).await;
            verdicts.add(&bench, &name, result);
        }
    }
    bench.rig.stop().await;
    verdicts.judge();
}
