//! Two operators: one leads, one stands by and passes on what nodes report. Whatever happens to the one that leads, nothing is lost, no
//! node gets a command twice, and of two that take each other for dead only one can act.
//!
//! Nodes report to the second operator throughout. Who wrote what is read from the API server's audit log, what reached nodes from the
//! site. `BOS_CASE=text` runs only the cases with this in their name.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

#[allow(dead_code, reason = "shared with other targets; each uses its part")]
#[path = "../boot/bench.rs"]
mod bench;
mod leaders;

use std::time::Duration;

use bench::{Bench, Cases, Commands, LIMIT, Result, outcome};
use bos_e2e::proxy::Outage;
use bos_e2e::rig::{RigConfig, template};
use leaders::{FIRST, Leaders, SECOND};
use rustix::process::Signal;
use serde_json::json;

const NODES: usize = 6;

fn config() -> RigConfig {
    let mut config = RigConfig::with_nodes(5 * NODES).boot_time(Duration::from_millis(800)).through_proxy().with_standby().unsupervised();
    config.audit_log = true;
    config.operator_args =
        ["--lease-duration-seconds=4", "--lease-renew-deadline-seconds=2.5", "--lease-period-seconds=0.5"].map(str::to_owned).to_vec();
    config.site.settings.boot_spread = Duration::from_secs(1);
    config.site.settings.report_backoff_scale = 0.05;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_operators_acts() -> Result {
    let bench = Bench::start(config()).await?;
    let leaders = Leaders::new(&bench.rig);
    let mut cases = Cases::default();
    let nodes = |number: usize| bench.nodes(NODES * number..NODES * (number + 1));
    cases.run("what reaches the second is passed on", passed_on(&bench, &leaders, &nodes(0))).await;
    cases.run("the first is told to end", told_to_end(&bench, &leaders, &nodes(1))).await;
    cases.run("the leader is killed", killed(&bench, &leaders, &nodes(2))).await;
    cases.run("the leader is frozen past its lease", frozen(&bench, &leaders, &nodes(3))).await;
    cases.run("the leader is cut off", cut_off(&bench, &leaders, &nodes(4))).await;
    bench.rig.stop().await;
    cases.verdict()
}

/// Begins a Boot and waits until nodes have power and none is up.
async fn begun(bench: &Bench, name: &str, nodes: &[String]) -> Result<bench::Mark> {
    bench.template(name, nodes, |_| {}).await?;
    let mark = bench.mark();
    bench.rig.apply(&template::session(name, name, "Boot")).await?;
    bench.at_site("nodes have power", |site| nodes.iter().filter_map(|node| site.node(node)).any(|node| node.power)).await?;
    Ok(mark)
}

/// All booted, each with one command; every report that was answered 200 is known.
async fn booted(bench: &Bench, name: &str, mark: &bench::Mark, nodes: &[String]) -> Result {
    let ended = bench.ended(name).await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{:?}", ended.status);
    bench.assert_commands(mark, nodes, Commands::ONE_ON);
    bench.at_site("the reports are answered 200", |site| site.all_acknowledged(nodes)).await?;
    for component in bench.components(nodes).await? {
        let xname = component.metadata.name.unwrap_or_default();
        let shown = json!(component.status);
        assert_eq!(shown["actualState"]["bssToken"].as_str(), bench.site.acknowledged(&xname).as_deref(), "{xname}: a report was lost");
    }
    Ok(())
}

async fn passed_on(bench: &Bench, leaders: &Leaders<'_>, nodes: &[String]) -> Result {
    let said = leaders.readiness(SECOND).await;
    assert_eq!(said, format!("ok: standing by; {FIRST} leads\n"));
    let mark = begun(bench, "passed-on", nodes).await?;
    booted(bench, "passed-on", &mark, nodes).await?;
    let metrics = leaders.metrics_of_second().await?;
    let passed = metrics.lines().find_map(|line| line.strip_prefix(r#"bos_reports_total{outcome="passed_on"} "#));
    assert!(passed.is_some_and(|count| count.parse::<usize>().unwrap() >= NODES), "{passed:?}");
    assert!(!metrics.contains(r#"outcome="stored""#), "the second stored none by itself");
    Ok(())
}

/// SIGTERM: it sends nothing more, collects what is on its way, writes it down, and gives its lease back.
async fn told_to_end(bench: &Bench, leaders: &Leaders<'_>, nodes: &[String]) -> Result {
    let mark = begun(bench, "told-to-end", nodes).await?;
    let before = leaders.transitions().await?;
    bench.rig.operator().stop().await;
    leaders.leads(SECOND).await?;
    booted(bench, "told-to-end", &mark, nodes).await?;
    assert_eq!(leaders.transitions().await?, before + 1);
    leaders.no_journal_of_the_older_after_the_newer(FIRST, SECOND)
}

async fn killed(bench: &Bench, leaders: &Leaders<'_>, nodes: &[String]) -> Result {
    leaders.second_becomes_standby_of_first().await?;
    let mark = begun(bench, "killed", nodes).await?;
    bench.rig.kill_operator();
    leaders.leads(SECOND).await?;
    booted(bench, "killed", &mark, nodes).await
}

/// It wakes when another has led for a while: it must see that, send nothing, and end.
async fn frozen(bench: &Bench, leaders: &Leaders<'_>, nodes: &[String]) -> Result {
    leaders.second_becomes_standby_of_first().await?;
    let mark = begun(bench, "frozen", nodes).await?;
    bench.rig.operator().signal(Signal::STOP);
    leaders.leads(SECOND).await?;
    bench.rig.operator().signal(Signal::CONT);
    leaders.first_ends_deposed().await?;
    booted(bench, "frozen", &mark, nodes).await?;
    leaders.no_journal_of_the_older_after_the_newer(FIRST, SECOND)
}

/// It reaches the services and not the API server.
async fn cut_off(bench: &Bench, leaders: &Leaders<'_>, nodes: &[String]) -> Result {
    leaders.second_becomes_standby_of_first().await?;
    let mark = begun(bench, "cut-off", nodes).await?;
    let proxy = bench.rig.proxy().unwrap();
    proxy.set_outage(Outage::Hang).await;
    leaders.leads(SECOND).await?;
    leaders.first_ends_deposed().await?;
    proxy.set_outage(Outage::None).await;
    booted(bench, "cut-off", &mark, nodes).await?;
    leaders.no_journal_of_the_older_after_the_newer(FIRST, SECOND)
}

/// Waits until something holds; a guard against hanging, no measure.
async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) -> Result {
    let waited = tokio::time::timeout(LIMIT, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited.await.map_err(|_| anyhow::anyhow!("it never came to this: {what}"))
}
