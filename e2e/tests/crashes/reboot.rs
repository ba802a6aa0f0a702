//! Killed between any two steps of a reboot: before a call or write has arrived, and with its answer withheld. Each node goes off
//! once and comes up once.

use bos_e2e::proxy::{Rule, When as WriteWhen};
use bos_e2e::site::{Match, PowerEvent, Service, When};
use serde_json::json;

use crate::bench::{Bench, Problems, Run, Verdicts, within};
use crate::{check, turn};

const NODES: usize = 5;
const TEMPLATE: &str = "reboot";

/// The calls of a reboot in their order.
fn calls() -> Vec<(&'static str, Match)> {
    vec![
        ("look", Match::new(Service::Pcs, "POST").path("/power-status")),
        ("shutdown", Match::new(Service::Pcs, "POST").path("/transitions").body("Soft-Off")),
        ("follow", Match::new(Service::Pcs, "GET").path("/transitions/")),
        ("parameters", Match::new(Service::Bss, "PUT")),
        ("configuration", Match::new(Service::Cfs, "PATCH")),
        ("power-on", Match::new(Service::Pcs, "POST").path("/transitions").body("\"On\"")),
        ("configured", Match::new(Service::Cfs, "GET").path("/components")),
    ]
}

/// The writes on which what leaves depends, held at this point.
fn writes(when: WriteWhen) -> Vec<(String, Rule)> {
    let journal = |nth| Rule::new(when).kind("update", "configmaps").path_contains("bos-journal-").nth(nth);
    let mut writes: Vec<_> = (1..=6).map(|nth| (format!("journal-{nth}"), journal(nth))).collect();
    writes.push(("plan".to_owned(), Rule::new(when).kind("create", "configmaps").body_contains("bos-plan-")));
    writes.push(("spec".to_owned(), Rule::new(when).kind("patch", "bootcomponents")));
    writes.push(("status".to_owned(), Rule::new(when).kind("patch", "bootcomponents/status")));
    writes
}

async fn begun(bench: &Bench, name: &str) -> anyhow::Result<Run> {
    bench.apply(name, json!({"templateName": TEMPLATE, "operation": "Reboot"})).await
}

async fn at_call(bench: &Bench, name: &str, what: Match, when: When) -> anyhow::Result<Problems> {
    let mut hook = bench.site.on(what, when);
    let run = begun(bench, name).await?;
    let held = within("the call comes", hook.reached()).await?;
    bench.kill();
    drop(held);
    judged(bench, &run).await
}

async fn at_write(bench: &Bench, name: &str, rule: Rule) -> anyhow::Result<Problems> {
    let hit = bench.rig.proxy().unwrap().on(rule);
    let run = begun(bench, name).await?;
    let process = bench.rig.operator().process().unwrap();
    within("the write comes", hit.kill(&process)).await??;
    judged(bench, &run).await
}

/// The operator starts again, the Session ends well, and each node was cycled once.
async fn judged(bench: &Bench, run: &Run) -> anyhow::Result<Problems> {
    bench.rig.start_operator().await?;
    let status = bench.ended(run).await?.status.unwrap_or_default();
    let mut problems = cycled_once(bench, run);
    if usize::try_from(status.counts.succeeded) != Ok(NODES) {
        problems.push(format!("the Session ended {:?}: {} {:?}", status.outcome, status.message, status.failures));
    }
    Ok(problems)
}

/// Every node was asked once to go off and once to come on, and is up.
pub fn cycled_once(bench: &Bench, run: &Run) -> Problems {
    let mut problems = Problems::new();
    for node in bench.site.nodes() {
        let events = check::events(bench, run, &node.xname);
        let count = |is: fn(&PowerEvent) -> bool| events.iter().filter(|event| is(event)).count();
        let seen = [
            count(|event| matches!(event, PowerEvent::SoftOffRequested { .. })),
            count(|event| matches!(event, PowerEvent::ForceOffRequested { .. })),
            count(|event| matches!(event, PowerEvent::PoweredOff)),
            count(|event| matches!(event, PowerEvent::OnRequested { .. })),
            count(|event| matches!(event, PowerEvent::PoweredOn)),
        ];
        if seen != [1, 0, 1, 1, 1] || !node.up {
            problems.push(format!("{}: asked to go off {seen:?}, up {}: {events:?}", node.xname, node.up));
        }
    }
    problems
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_any_two_steps_of_a_reboot_cycles_nothing_twice() {
    let _turn = turn().await;
    let options = json!({"maxPowerOnWaitTimeSeconds": 3, "maxPowerOffWaitTimeSeconds": 3});
    let bench = Bench::start(Bench::config(NODES).options(options)).await;
    let mut verdicts = Verdicts::default();
    bench.begin(TEMPLATE).await.unwrap();
    let first = bench.apply("first", json!({"templateName": TEMPLATE})).await.unwrap();
    bench.ended(&first).await.unwrap();
    for (kind, what) in calls() {
        for (point, when) in [("before", When::Before), ("withheld", When::AnswerWithheld)] {
            let name = format!("{kind}-{point}");
            let result = at_call(&bench, &name, what.clone(), when).await;
            verdicts.add(&bench, &name, result);
            if verdicts.hopeless() {
                return verdicts.judge();
            }
        }
    }
    for (point, when) in [("before", WriteWhen::Before), ("withheld", WriteWhen::AnswerWithheld)] {
        for (kind, rule) in writes(when) {
            let name = format!("{kind}-{point}");
            let result = at_write(&bench, &name, rule).await;
            verdicts.add(&bench, &name, result);
            if verdicts.hopeless() {
                return verdicts.judge();
            }
        }
    }
    bench.rig.stop().await;
    verdicts.judge();
}
