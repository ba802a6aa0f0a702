//! What a person on call has: one node and one Session followed through the log, and the figures of a boot.

use std::collections::BTreeSet;
use std::time::Duration;

use bos_e2e::figures::{documented, written};
use serde_json::Value;

use crate::bench::{Bench, LIMIT, Result};

/// The lines of the operator's log that grep finds.
fn grep(bench: &Bench, text: &str) -> Vec<Value> {
    let log = std::fs::read_to_string(bench.rig.operator().log()).unwrap();
    log.lines().filter(|line| line.contains(text)).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field].as_str().unwrap_or_default()
}

/// `grep XNAME`: every step of the node, each where the one before it ended, with the Session and the call it was in.
pub async fn one_node(bench: &Bench) -> Result {
    let xname = &bench.nodes(7..8)[0];
    let lines = grep(bench, &format!("\"xname\":\"{xname}\""));
    let steps: Vec<&Value> = lines.iter().filter(|line| text(line, "session") == "bos/boot-1").collect();
    let path: Vec<(&str, &str)> = steps.iter().map(|line| (text(line, "from"), text(line, "to"))).collect();
    assert!(path.windows(2).all(|pair| pair[0].1 == pair[1].0), "a step is missing: {path:?}");
    let passed: Vec<&str> = path.iter().map(|(_, to)| *to).collect();
    for status in ["PowerOnPending", "PowerOnCalled"] {
        assert!(passed.contains(&status), "{passed:?}");
    }
    assert_eq!(passed.last(), Some(&"Stable"), "{passed:?}");
    // The call that switched it on is found by its number.
    let called = steps.iter().find(|line| text(line, "to") == "PowerOnCalled").unwrap();
    let batch = called["batch"].as_u64().unwrap_or_else(|| panic!("no batch: {called}"));
    let calls = grep(bench, &format!("\"batch\":{batch},"));
    let said: Vec<&str> = calls.iter().filter(|line| text(line, "session") == "bos/boot-1").map(|line| text(line, "message")).collect();
    assert!(said.contains(&"sending") && said.contains(&"accepted"), "{said:?}");
    let accepted = calls.iter().find(|line| text(line, "message") == "accepted").unwrap();
    assert!(!text(accepted, "transition").is_empty(), "the transition of PCS is not named: {accepted}");
    Ok(())
}

/// `grep '"session":"bos/NAME"'`: its whole life, in order.
pub async fn one_session(bench: &Bench) -> Result {
    let lines = grep(bench, "\"session\":\"bos/boot-1\"");
    let mut said = lines.iter().filter(|line| line["xname"].is_null()).map(|line| text(line, "message"));
    // That it runs is told once its status says so; one that is short never does.
    for step in ["session accepted", "session set up", "sending", "accepted", "session ended"] {
        assert!(said.any(|message| message == step), "no {step:?} after what comes before it: {lines:#?}");
    }
    let ended = lines.iter().find(|line| text(line, "message") == "session ended").unwrap();
    assert_eq!(
        (text(ended, "outcome"), ended["nodes"].as_u64(), ended["succeeded"].as_u64()),
        ("Succeeded", Some(32), Some(32)),
        "{ended}"
    );
    Ok(())
}

/// The figures once the World has been counted since the inventory, which is done every few seconds.
async fn counted(bench: &Bench) -> anyhow::Result<String> {
    loop {
        let text = bench.rig.operator_metrics().await?;
        if text.lines().any(|line| line.starts_with("bos_nodes{")) {
            return Ok(text);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A boot writes figures that are documented, and those that count it have counted it.
pub async fn figures(bench: &Bench) -> Result {
    let text = tokio::time::timeout(LIMIT, counted(bench)).await??;
    let (listed, found) = (documented(include_str!("../../../docs/metrics.md"), "bos-operator"), written(&text));
    for (name, figure) in &found {
        assert_eq!(listed.get(name), Some(figure), "{name}");
    }
    let seen: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    for name in [
        "bos_api_write_duration_seconds",
        "bos_batch_nodes",
        "bos_batches_total",
        "bos_inventory_timestamp_seconds",
        "bos_journal_write_duration_seconds",
        "bos_lease_age_seconds",
        "bos_nodes",
        "bos_nodes_in_phase",
        "bos_pass_duration_seconds",
        "bos_report_duration_seconds",
        "bos_service_call_duration_seconds",
        "bos_sessions_ended_total",
    ] {
        assert!(seen.contains(name), "{name} is not in\n{text}");
    }
    for (line, least) in [
        ("bos_batch_nodes_sum{action=\"power_on\"} ", 32.0),
        ("bos_batches_total{action=\"power_on\",outcome=\"accepted\"} ", 1.0),
        ("bos_reports_total{outcome=\"stored\"} ", 32.0),
        ("bos_sessions_ended_total{outcome=\"Succeeded\"} ", 1.0),
        ("bos_journal_write_duration_seconds_count ", 1.0),
        ("bos_lease_renewals_total{outcome=\"renewed\"} ", 1.0),
        ("bos_ready ", 1.0),
    ] {
        let value = text.lines().find_map(|found| found.strip_prefix(line)).and_then(|value| value.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value >= least), "{line}{value:?}");
    }
    Ok(())
}
