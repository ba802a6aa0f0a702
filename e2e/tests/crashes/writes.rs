//! Killed at every kind of write to the API server: before it has seen it, and with its answer withheld.

use bos_e2e::proxy::{Rule, When};

use crate::bench::{Bench, Problems, Verdicts};
use crate::{check, turn};

const NODES: usize = 6;

/// Narrows a rule to one write.
type Which = fn(Rule) -> Rule;

/// The kind of a write and which of its kind, from the creation of the Session on.
fn writes() -> Vec<(&'static str, Which)> {
    vec![
        ("artifacts-create", |rule| rule.kind("create", "configmaps").body_contains("bos-artifacts-")),
        ("plan-create", |rule| rule.kind("create", "configmaps").body_contains("bos-plan-")),
        ("ledger-write", |rule| rule.path_contains("/configmaps").body_contains("bos-session-names")),
        ("journal-create", |rule| rule.kind("create", "configmaps").body_contains("bos-journal-")),
        ("journal-update-1", |rule| rule.kind("update", "configmaps").path_contains("bos-journal-")),
        ("journal-update-2", |rule| rule.kind("update", "configmaps").path_contains("bos-journal-").nth(2)),
        ("journal-update-3", |rule| rule.kind("update", "configmaps").path_contains("bos-journal-").nth(3)),
        ("journal-update-4", |rule| rule.kind("update", "configmaps").path_contains("bos-journal-").nth(4)),
        ("node-spec", |rule| rule.kind("patch", "bootcomponents")),
        ("node-status-1", |rule| rule.kind("patch", "bootcomponents/status")),
        ("node-status-4", |rule| rule.kind("patch", "bootcomponents/status").nth(4)),
        ("session-status-1", |rule| rule.kind("patch", "sessions/status")),
        ("session-status-2", |rule| rule.kind("patch", "sessions/status").nth(2)),
        ("session-end", |rule| rule.kind("patch", "sessions/status").body_contains("endTime")),
        ("journal-delete", |rule| rule.kind("delete", "configmaps").path_contains("bos-journal-")),
        ("plan-delete", |rule| rule.kind("delete", "configmaps").path_contains("bos-plan-")),
        ("lease-update", |rule| rule.kind("update", "leases")),
    ]
}

async fn case(bench: &Bench, name: &str, rule: Rule) -> anyhow::Result<Problems> {
    let run = bench.killed_at_write(name, rule).await?;
    bench.rig.start_operator().await?;
    let session = bench.ended(&run).await?;
    let problems = check::booted(bench, &run, &session).await?;
    bench.clear(&run).await?;
    Ok(problems)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_write_to_the_api_server_changes_nothing() {
    let _turn = turn().await;
    let bench = Bench::start(Bench::config(NODES)).await;
    let mut verdicts = Verdicts::default();
    for (kind, which) in writes() {
        for (point, when) in [("before", When::Before), ("withheld", When::AnswerWithheld)] {
            let name = format!("{kind}-{point}");
            let result = case(&bench, &name, which(Rule::new(when))).await;
            verdicts.add(&bench, &name, result);
            if verdicts.hopeless() {
                return verdicts.judge();
            }
        }
    }
    bench.rig.stop().await;
    verdicts.judge();
}
