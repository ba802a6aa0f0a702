//! Killed in the middle of a boot retry: the node that never reports is cycled within its budget and no further.

use bos_crds::{Outcome, Session};
use bos_e2e::site::{Faults, InitialState, Match, PowerEvent, Service, When};
use serde_json::json;

use crate::bench::{Bench, Problems, Run, Verdicts, within};
use crate::{check, turn};

const NODES: usize = 4;
const BUDGET: usize = 2;

/// A point in the retry at which the operator is killed.
struct Point {
    name: &'static str,
    what: fn() -> Match,
    when: When,
    /// The last power-on never reached PCS: it was an attempt all the same, and the node is off.
    last_on_lost: bool,
}

fn transition(operation: &str) -> Match {
    Match::new(Service::Pcs, "POST").path("/transitions").body(format!("\"{operation}\""))
}

fn points() -> Vec<Point> {
    let soft = || transition("Soft-Off");
    let second_on = || transition("On").nth(2);
    let second_parameters = || Match::new(Service::Bss, "PUT").nth(2);
    let off_followed = || Match::new(Service::Pcs, "GET").path("/transitions/").nth(4);
    let point = |name, what, when, last_on_lost| Point { name, what, when, last_on_lost };
    vec![
        point("soft-off-before", soft, When::Before, false),
        point("soft-off-withheld", soft, When::AnswerWithheld, false),
        point("off-followed", off_followed, When::AnswerWithheld, false),
        point("parameters-again-before", second_parameters, When::Before, false),
        point("second-on-before", second_on, When::Before, true),
        point("second-on-withheld", second_on, When::AnswerWithheld, false),
    ]
}

async fn case(bench: &Bench, point: &Point) -> anyhow::Result<Problems> {
    let silent = bench.site.xnames().first().cloned().unwrap_or_default();
    bench.begin(point.name).await?;
    let mut hook = bench.site.on((point.what)(), point.when);
    let run = bench.apply(point.name, json!({})).await?;
    let held = within("the call comes", hook.reached()).await?;
    bench.kill();
    drop(held);
    bench.rig.start_operator().await?;
    let session = bench.ended(&run).await?;
    let problems = check(bench, &run, &session, &silent, point);
    bench.clear(&run).await?;
    bench.site.set_state(&["all"], &InitialState::Off);
    Ok(problems)
}

fn check(bench: &Bench, run: &Run, session: &Session, silent: &str, point: &Point) -> Problems {
    let mut problems = Problems::new();
    let status = session.status.clone().unwrap_or_default();
    let named = status.failures.iter().any(|group| group.sample.contains(silent));
    if status.outcome != Some(Outcome::PartiallyFailed) || status.counts.failed != 1 || !named {
        problems.push(format!("the Session ended {:?}: {} {:?}", status.outcome, status.message, status.failures));
    }
    for node in bench.site.nodes() {
        let events = check::events(bench, run, &node.xname);
        let ons = events.iter().filter(|event| matches!(event, PowerEvent::PoweredOn)).count();
        let offs = events.iter().filter(|event| matches!(event, PowerEvent::PoweredOff)).count();
        let lost = usize::from(point.last_on_lost);
        let right = if node.xname == silent { (BUDGET - lost, BUDGET - 1, !point.last_on_lost) } else { (1, 0, true) };
        if (ons, offs, node.power) != right {
            let wrong = format!("on {ons} times, off {offs} times, power {}, not as {right:?}: {events:?}", node.power);
            problems.push(format!("{}: {wrong}", node.xname));
        }
    }
    problems
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_a_boot_retry_spends_no_more_than_the_budget() {
    let _turn = turn().await;
    let config = Bench::config(NODES).options(json!({
        "maxPowerOnWaitTimeSeconds": 3, "maxPowerOffWaitTimeSeconds": 3, "maxBootWaitTimeSeconds": 4, "defaultRetryPolicy": BUDGET,
    }));
    let bench = Bench::start(config).await;
    let silent = bench.site.xnames().first().cloned().unwrap_or_default();
    bench.site.set_faults(&[silent], &Faults { never_reports: true, ..Faults::default() });
    let mut verdicts = Verdicts::default();
    for point in points() {
        let result = case(&bench, &point).await;
        verdicts.add(&bench, point.name, result);
        if verdicts.hopeless() {
            break;
        }
    }
    bench.rig.stop().await;
    verdicts.judge();
}
