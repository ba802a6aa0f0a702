//! Alerts and dashboard name only figures that the programs write, and every alert has its entry in the runbook.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use std::collections::{BTreeMap, BTreeSet};

use bos_e2e::figures::{Listed, documented, named};
use serde_json::Value;

const RULES: &str = include_str!("../../../manifests/monitoring/prometheus-rule.yaml");
const RULES_TEST: &str = include_str!("../../../hack/monitoring/rules-test.yaml");
const DASHBOARD: &str = include_str!("../../../manifests/monitoring/dashboard.json");
const RUNBOOK: &str = include_str!("../../../docs/runbook.md");
const METRICS: &str = include_str!("../../../docs/metrics.md");

/// What all programs write: their own tests compare that with the documentation.
fn known() -> Listed {
    let mut known = documented(METRICS, "bos-operator");
    known.extend(documented(METRICS, "bos-webhook"));
    assert!(known.len() > 40, "{known:?}");
    known
}

/// Names of figures that are not written.
fn unknown(text: &str) -> BTreeSet<String> {
    let known = known();
    named(text, &known).into_iter().filter(|name| !known.contains_key(name)).collect()
}

/// The alerts, by name.
fn alerts() -> BTreeMap<String, Value> {
    let rule: Value = serde_saphyr::from_str(RULES).unwrap();
    let groups = rule["spec"]["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let alerts: BTreeMap<_, _> = rules.map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule.clone())).collect();
    assert!(alerts.len() >= 20, "{alerts:?}");
    alerts
}

/// The labels that an expression groups and selects by, and those that figures have, apart from what scraping adds.
fn assert_labels(expression: &str) {
    let known = known();
    let ours: BTreeSet<&str> = known.values().flat_map(|figure| figure.labels.iter().map(String::as_str)).collect();
    let added = ["le", "namespace", "pod", "alertname", "alertstate"];
    let by = expression.split(" by (").skip(1).filter_map(|rest| rest.split_once(')')).flat_map(|(labels, _)| labels.split(','));
    for label in by.map(str::trim) {
        assert!(ours.contains(label) || added.contains(&label), "{label} is no label of ours: {expression}");
    }
}

#[test]
fn alerts_name_figures_that_are_written() {
    for (name, alert) in alerts() {
        let expression = alert["expr"].as_str().unwrap();
        assert!(!named(expression, &known()).is_empty() && unknown(expression).is_empty(), "{name}: {:?}", unknown(expression));
        assert_labels(expression);
        let (label, annotations) = (&alert["labels"]["severity"], &alert["annotations"]);
        assert!(["critical", "warning", "info"].contains(&label.as_str().unwrap()), "{name}: {label}");
        for annotation in ["summary", "description", "runbook_url"] {
            assert!(annotations[annotation].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {annotation}");
        }
    }
    let tested = unknown(RULES_TEST);
    assert!(tested.is_empty(), "tests of alerts name {tested:?}");
}

#[test]
fn every_alert_is_seen_to_fire_and_not_to_fire() {
    let tests: BTreeSet<&str> = RULES_TEST.lines().filter_map(|line| line.strip_prefix("- name: ")).collect();
    let wanted: Vec<String> = alerts().keys().flat_map(|name| [format!("{name} fires"), format!("{name} does not fire")]).collect();
    assert_eq!(tests, wanted.iter().map(String::as_str).collect());
}

#[test]
fn every_alert_has_its_entry_in_the_runbook() {
    let alerts = alerts();
    let entries: BTreeSet<&str> = RUNBOOK.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(entries, alerts.keys().map(String::as_str).collect());
    for (name, alert) in &alerts {
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert_eq!(url, format!("docs/runbook.md#{}", name.to_ascii_lowercase()));
        let entry = RUNBOOK.split(&format!("### {name}\n")).nth(1).unwrap().split("\n#").next().unwrap();
        for part in ["**Symptom.**", "**It means.**", "**Look.**", "**Do.**"] {
            assert!(entry.contains(part), "{name} lacks {part}");
        }
    }
    // Links within the page.
    for link in RUNBOOK.split("](#").skip(1).filter_map(|rest| rest.split_once(')')).map(|(anchor, _)| anchor) {
        assert!(entries.iter().any(|entry| entry.to_ascii_lowercase() == link), "#{link} is nowhere");
    }
    assert!(unknown(RUNBOOK).is_empty(), "{:?}", unknown(RUNBOOK));
}

/// All expressions of a dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if ["expr", "definition", "query"].contains(&key.as_str()) => found.push(text.clone()),
                    other => expressions(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_figures_that_are_written() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36));
    let mut all = Vec::new();
    expressions(&dashboard, &mut all);
    let text = all.join("\n");
    assert!(unknown(&text).is_empty(), "{:?}", unknown(&text));
    all.iter().for_each(|expression| assert_labels(expression));
    let shown = named(&text, &known());
    let missing: Vec<_> = known().into_keys().filter(|name| !shown.contains(name)).collect();
    assert!(missing.is_empty(), "not on the dashboard: {missing:?}");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{}", panel["title"]);
    }
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
}

#[test]
fn what_no_program_writes_is_noticed() {
    assert_eq!(unknown("rate(bos_reports_total[5m]) > bos_invented"), BTreeSet::from(["bos_invented".to_owned()]));
    assert!(unknown("rate(bos_pass_duration_seconds_bucket[5m])").is_empty());
}
