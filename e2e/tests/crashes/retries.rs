//! Killed at each step of a boot retry: the node that never reports is cycled within its budget and no further.
//!
//! A node's silence proves something only a minute after the operator began to listen, so all kills are in one run.

use bos_crds::{Outcome, Session};
use bos_e2e::site::{Faults, Match, PowerEvent, Service, When};
use serde_json::json;

use crate::bench::{Bench, Problems, Run, Verdicts, within};
use crate::{check, turn};

const NODES: usize = 4;
const BUDGET: usize = 2;

fn transition(operation: &str) -> Match {
    Match::new(Service::Pcs, "POST").path("/transitions").body(format!("\"{operation}\""))
}

/// The steps of the retry in order, each with the point at which the operator is killed.
fn steps() -> Vec<(&'static str, Match, When)> {
    let parameters = || Match::new(Service::Bss, "PUT").path("/bootparameters");
    vec![
        ("the shutdown is never asked for", transition("Soft-Off"), When::Before),
        ("the shutdown is asked for again", transition("Soft-Off"), When::AnswerWithheld),
        ("the parameters are never stored", parameters(), When::Before),
        ("the parameters are stored again", parameters(), When::AnswerWithheld),
        ("the power-on is never asked for", transition("On"), When::Before),
        ("the power-on is asked for again", transition("On"), When::AnswerWithheld),
    ]
}

async fn case(bench: &Bench, name: &str, silent: &str) -> anyhow::Result<Problems> {
    bench.begin(name).await?;
    let mut run = None;
    for (step, what, when) in steps() {
        let mut hook = bench.site.on(what, when);
        match run {
            None => run = Some(bench.apply(name, json!({})).await?),
            Some(_) => bench.rig.start_operator().await?,
        }
        let held = within(step, hook.reached()).await?;
        bench.kill();
        drop(held);
        eprintln!("killed {:.1} s after the start: {step}", bench.site.elapsed());
    }
    bench.rig.start_operator().await?;
    let Some(run) = run else { anyhow::bail!("there are no steps") };
    let session = bench.ended(&run).await?;
    Ok(check(bench, &run, &session, silent))
}

fn check(bench: &Bench, run: &Run, session: &Session, silent: &str) -> Problems {
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
        let right = if node.xname == silent { (BUDGET, BUDGET - 1) } else { (1, 0) };
        if (ons, offs) != right || !node.power {
            let wrong = format!("on {ons} times, off {offs} times, power {}, not as {right:?}: {events:?}", node.power);
            problems.push(format!("{}: {wrong}", node.xname));
        }
    }
    problems
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_in_a_boot_retry_spend_no_more_than_the_budget() {
    let _turn = turn().await;
    let config = Bench::config(NODES).options(json!({
        "maxPowerOnWaitTimeSeconds": 3, "maxPowerOffWaitTimeSeconds": 3, "maxBootWaitTimeSeconds": 4, "defaultRetryPolicy": BUDGET,
    }));
    let bench = Bench::start(config).await;
    let silent = bench.site.xnames().first().cloned().unwrap_or_default();
    bench.site.set_faults(&[silent.as_str()], &Faults { never_reports: true, ..Faults::default() });
    let mut verdicts = Verdicts::default();
    let result = case(&bench, "retry", &silent).await;
    verdicts.add(&bench, "retry", result);
    bench.rig.stop().await;
    verdicts.judge();
}
