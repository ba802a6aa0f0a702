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

/// What the site saw of an operator at work.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reactions {
    /// By what follows: a call, or the answer to a report.
    pub(super) times: BTreeMap<String, Times>,
    /// Calls of which it was not seen what led to them, and reports without an answer: no time above has them in it.
    pub(super) unpaired: usize,
}

impl Reactions {
    pub(super) fn of(calls: &[CallRecord], history: &BTreeMap<String, Vec<PowerRecord>>) -> Self {
        let mut writes: BTreeMap<&str, Vec<&CallRecord>> = BTreeMap::new();
        for call in calls.iter().filter(|call| call.status.is_some_and(|status| status < 300)) {
            for node in &call.nodes {
                writes.entry(node).or_default().push(call);
            }
        }
        let looks: Vec<&CallRecord> = calls.iter().filter(|call| switches_power(call.service) && call.nodes.is_empty()).collect();
        let mut seconds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut unpaired = 0;
        let mut note = |name: String, took: Option<f64>| match took {
            Some(took) => seconds.entry(name).or_default().push(took),
            None => unpaired += 1,
        };
        // What was reported before the first call belongs to the boot that came before what is measured.
        let begun = calls.first().map_or(f64::INFINITY, |call| call.at);
        for (node, records) in history {
            let records = &records[records.partition_point(|record| record.at < begun)..];
            answers(records).into_iter().for_each(|took| note("answer to a report".to_owned(), took));
            for pair in writes.get(node.as_str()).map_or(&[] as &[&CallRecord], Vec::as_slice).windows(2) {
                note(name(pair[1]), told(pair[0], pair[1], records, &looks).map(|told| pair[1].at - told));
            }
        }
        let times = seconds.into_iter().filter_map(|(name, seconds)| Some((name, Times::of(seconds)?))).collect();
        Self { times, unpaired }
    }
}

fn switches_power(service: Service) -> bool {
    matches!(service, Service::Pcs | Service::Capmc)
}

fn name(call: &CallRecord) -> String {
    let service = call.service.name();
    call.operation
        .as_ref()
        .filter(|_| switches_power(call.service))
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
            // CAPMC answers when the nodes are off; PCS does at once, and is looked at.
            let answered = before.ended.filter(|ended| before.service == Service::Capmc && *ended >= off);
            answered.or_else(|| looks.iter().filter(|look| look.at >= off && tells_of(look, before)).find_map(|look| look.ended))
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

/// From each report to its answer, which comes when what it changes is durable; nothing for a report that never got one. A node says
/// the same again now and then, which the history has as a repeat of the first time: only the first answer tells how long it took.
fn answers(records: &[PowerRecord]) -> Vec<Option<f64>> {
    let mut took = Vec::new();
    let mut waiting: Option<(f64, &str)> = None;
    for record in records {
        match &record.event {
            // Sent once more because it failed: it counts from the first time.
            PowerEvent::ReportSent { token } if waiting.is_none_or(|(_, before)| before != token) => {
                took.extend(waiting.replace((record.at, token)).map(|_| None));
            }
            PowerEvent::ReportAcknowledged { token } => {
                took.extend(waiting.take_if(|(_, of)| *of == token).map(|(sent, _)| Some(record.at - sent)));
            }
            _ => {}
        }
    }
    took.extend(waiting.map(|_| None));
    took
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
        let reactions = |calls: &[CallRecord]| Reactions::of(calls, &BTreeMap::from([("x1".to_owned(), off.clone())]));
        let seconds = |calls: &[CallRecord]| reactions(calls).times["bss"].longest;
        assert_eq!(seconds(&calls), 0.5);
        assert_eq!(reactions(&calls).unpaired, 0);
        let without_a_look = [&calls[..2], &calls[4..]].concat();
        assert_eq!((reactions(&without_a_look).times, reactions(&without_a_look).unpaired), (BTreeMap::new(), 1));
        let by_power = [&calls[..1], &[look("/power-status", 2.3)], &calls[1..]].concat();
        assert_eq!(seconds(&by_power), 0.7);
    }

    #[test]
    fn capmc_tells_with_its_answer_that_nodes_are_off() {
        let off = |ended| call(1.0, ended, "capmc", Some("Soft-Off"), &["x1"]);
        let look = call(2.2, 2.3, "capmc", None, &[]);
        let history = BTreeMap::from([("x1".to_owned(), vec![PowerRecord { at: 2.0, event: PowerEvent::PoweredOff, repeats: 1 }])]);
        let seconds = |off: CallRecord| {
            let calls = [off, look.clone(), call(3.0, 3.0, "capmc", Some("On"), &["x1"])];
            Reactions::of(&calls, &history).times["capmc On"].longest
        };
        assert_eq!(seconds(off(2.1)), 0.9);
        assert_eq!(seconds(off(1.1)), 0.7, "an answer before they were off tells nothing");
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
            // Of the boot before.
            PowerRecord { at: 0.1, event: PowerEvent::ReportSent { token: "s".to_owned() }, repeats: 1 },
            PowerRecord { at: 0.9, event: PowerEvent::ReportAcknowledged { token: "s".to_owned() }, repeats: 1 },
            PowerRecord { at: 2.0, event: PowerEvent::PoweredOff, repeats: 1 },
            PowerRecord { at: 6.0, event: PowerEvent::ReportSent { token: "t".to_owned() }, repeats: 1 },
            PowerRecord { at: 6.2, event: PowerEvent::ReportAcknowledged { token: "t".to_owned() }, repeats: 1 },
            // The same again, a minute later.
            PowerRecord { at: 66.0, event: PowerEvent::ReportAcknowledged { token: "t".to_owned() }, repeats: 1 },
        ];
        let Reactions { times, unpaired } = Reactions::of(&calls, &BTreeMap::from([("x1".to_owned(), events.to_vec())]));
        let longest = |name: &str| times[name].longest;
        assert_eq!((longest("bss"), longest("pcs On"), longest("cfs"), longest("answer to a report")), (0.1, 0.1, 0.5, 0.2));
        assert_eq!((times.values().map(|times| times.count).sum::<usize>(), unpaired), (4, 0));
    }

    #[test]
    fn a_report_counts_from_the_first_time_it_was_sent_and_is_told_of_without_an_answer() {
        let sent = |at, token: &str| PowerRecord { at, event: PowerEvent::ReportSent { token: token.to_owned() }, repeats: 1 };
        let failed = |at, status| PowerRecord { at, event: PowerEvent::ReportFailed { status }, repeats: 1 };
        let answered = |at, token: &str| PowerRecord { at, event: PowerEvent::ReportAcknowledged { token: token.to_owned() }, repeats: 1 };
        let often = [sent(1.0, "a"), failed(1.5, Some(503)), failed(2.0, None), sent(2.5, "a"), answered(3.0, "a")];
        assert_eq!(answers(&often), vec![Some(2.0)]);
        let overtaken = [sent(1.0, "a"), sent(2.0, "b"), answered(2.5, "b"), sent(3.0, "b")];
        assert_eq!(answers(&overtaken), vec![None, Some(0.5), None]);
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = Times::of((0..1000).rev().map(f64::from).collect()).unwrap();
        assert_eq!((times.count, times.p50, times.p99, times.longest), (1000, 499.0, 989.0, 999.0));
        assert_eq!(Times::of(Vec::new()), None);
    }
}
