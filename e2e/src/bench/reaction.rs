//! How long the operator takes from what it is told to the call that follows from it, both as the site sees them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::site::{CallRecord, PowerEvent, PowerRecord, Service};

/// Times of one kind, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Times {
    /// How many: one for each node.
    pub count: usize,
    /// Half of them took no longer.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// None took longer.
    pub longest: f64,
}

impl Times {
    fn of(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_by(f64::total_cmp);
        let at = |percent: usize| seconds.get((seconds.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        let rounded = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
        Some(Self { count: seconds.len(), p50: rounded(at(50)?), p99: rounded(at(99)?), longest: rounded(*seconds.last()?) })
    }
}

/// By what follows: a call, or the answer to a report.
pub(super) fn times(calls: &[CallRecord], history: &BTreeMap<String, Vec<PowerRecord>>) -> BTreeMap<String, Times> {
    let mut writes: BTreeMap<&str, Vec<&CallRecord>> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.status.is_some_and(|status| status < 300)) {
        for node in &call.nodes {
            writes.entry(node).or_default().push(call);
        }
    }
    let looks: Vec<&CallRecord> = calls.iter().filter(|call| call.service == Service::Pcs && call.nodes.is_empty()).collect();
    let mut seconds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (node, records) in history {
        for (name, took) in answers(records) {
            seconds.entry(name).or_default().push(took);
        }
        for pair in writes.get(node.as_str()).map_or(&[] as &[&CallRecord], Vec::as_slice).windows(2) {
            if let Some(told) = told(pair[0], pair[1], records, &looks) {
                seconds.entry(name(pair[1])).or_default().push(pair[1].at - told);
            }
        }
    }
    seconds.into_iter().filter_map(|(name, seconds)| Some((name, Times::of(seconds)?))).collect()
}

fn name(call: &CallRecord) -> String {
    let service = call.service.name();
    call.operation
        .as_ref()
        .filter(|_| call.service == Service::Pcs)
        .map_or_else(|| service.to_owned(), |operation| format!("{service} {operation}"))
}

/// When the operator was told what led from one call to the next.
fn told(before: &CallRecord, next: &CallRecord, records: &[PowerRecord], looks: &[&CallRecord]) -> Option<f64> {
    let between = |wanted: fn(&PowerEvent) -> bool| {
        records.iter().find(|record| record.at >= before.at && record.at <= next.at && wanted(&record.event)).map(|record| record.at)
    };
    match before.operation.as_deref() {
        Some("Soft-Off" | "Force-Off") => {
            let off = between(|event| *event == PowerEvent::PoweredOff)?;
            looks.iter().filter(|look| look.at >= off && tells_of(look, before)).find_map(|look| look.ended)
        }
        Some("On") => between(|event| matches!(event, PowerEvent::ReportSent { .. })),
        _ => before.ended,
    }
}

/// Whether a look can tell what became of a power action: one at another transition cannot.
fn tells_of(look: &CallRecord, action: &CallRecord) -> bool {
    let transition = |path: &str| path.rsplit_once("transitions/").map(|(_, id)| id.to_owned());
    match (transition(&look.path), action.location.as_deref().and_then(transition)) {
        (Some(looked_at), Some(begun)) => looked_at == begun,
        _ => true,
    }
}

/// From each report to its answer, which comes when what it changes is durable. A node says the same again now and then, which the
/// history has as a repeat of the first time: only the first answer tells how long it took.
fn answers(records: &[PowerRecord]) -> impl Iterator<Item = (String, f64)> {
    let mut sent = None;
    records.iter().filter_map(move |record| match &record.event {
        PowerEvent::ReportSent { token } => {
            sent = Some((record.at, token));
            None
        }
        PowerEvent::ReportAcknowledged { token } => {
            let (at, _) = sent.take_if(|(_, of)| *of == token)?;
            Some(("answer to a report".to_owned(), record.at - at))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(at: f64, ended: f64, service: &str, operation: Option<&str>, nodes: &[&str]) -> CallRecord {
        serde_json::from_value(json!({
            "seq": 1, "at": at, "ended": ended, "service": service, "method": "POST", "path": "/", "operation": operation, "nodes": nodes,
            "nodeCount": nodes.len(), "body": "", "status": 200, "outcome": "answered", "processed": true
        }))
        .unwrap()
    }

    #[test]
    fn a_look_at_another_transition_tells_nothing() {
        let begun = CallRecord { location: Some("../transitions/t1".to_owned()), ..call(1.0, 1.1, "pcs", Some("Soft-Off"), &["x1"]) };
        let look = |path: &str, at| CallRecord { path: path.to_owned(), ..call(at, at, "pcs", None, &[]) };
        let calls = [
            begun,
            look("/transitions/t2", 2.1),
            look("/transitions/t1", 2.5),
            look("/transitions/t1", 2.6),
            call(3.0, 3.1, "bss", None, &["x1"]),
        ];
        let off = vec![PowerRecord { at: 2.0, event: PowerEvent::PoweredOff, repeats: 1 }];
        let seconds = |calls: &[CallRecord]| times(calls, &BTreeMap::from([("x1".to_owned(), off.clone())]))["bss"].longest;
        assert_eq!(seconds(&calls), 0.5);
        let by_power = [&calls[..1], &[look("/power-status", 2.3)], &calls[1..]].concat();
        assert_eq!(seconds(&by_power), 0.7);
    }

    #[test]
    fn what_is_told_by_an_answer_counts_from_the_answer() {
        let calls = [
            call(1.0, 1.1, "pcs", Some("Soft-Off"), &["x1", "x2"]),
            call(1.5, 1.6, "pcs", None, &[]),
            call(2.5, 2.6, "pcs", None, &[]),
            call(2.7, 2.9, "bss", None, &["x1"]),
            call(3.0, 3.1, "pcs", Some("On"), &["x1"]),
            call(6.5, 6.6, "cfs", None, &["x1"]),
        ];
        let events = [
            PowerRecord { at: 2.0, event: PowerEvent::PoweredOff, repeats: 1 },
            PowerRecord { at: 6.0, event: PowerEvent::ReportSent { token: "t".to_owned() }, repeats: 1 },
            PowerRecord { at: 6.2, event: PowerEvent::ReportAcknowledged { token: "t".to_owned() }, repeats: 1 },
            // The same again, a minute later.
            PowerRecord { at: 66.0, event: PowerEvent::ReportAcknowledged { token: "t".to_owned() }, repeats: 1 },
        ];
        let times = times(&calls, &BTreeMap::from([("x1".to_owned(), events.to_vec())]));
        let longest = |name: &str| times[name].longest;
        assert_eq!((longest("bss"), longest("pcs On"), longest("cfs"), longest("answer to a report")), (0.1, 0.1, 0.5, 0.2));
        assert_eq!(times.values().map(|times| times.count).sum::<usize>(), 4);
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = Times::of((0..1000).rev().map(f64::from).collect()).unwrap();
        assert_eq!((times.count, times.p50, times.p99, times.longest), (1000, 499.0, 989.0, 999.0));
        assert_eq!(Times::of(Vec::new()), None);
    }
}
