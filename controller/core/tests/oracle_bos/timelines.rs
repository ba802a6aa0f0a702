//! Whole sessions over one node in virtual time: what leaves, when, and how it ends.

mod bos;
mod ours;
mod rules;
mod scenario;
mod site;

use std::collections::BTreeSet;

use bos_core::model::PowerAction;
use bos_crds::reasons;
use serde_json::{Value, json};

use crate::acting::case::Call;
use crate::support::{Tally, lines};
use bos::{AT_ONCE, Bos, End, Pace, Timeline};
use ours::{Ours, TRANSITION};
use rules::Rule;
use scenario::{NotPlayed, Parameters, call, service_of};
use site::{Code, millis};

/// A hop may come so much later than without any pause: a look at the node's power or configuration, or another try.
const HOP: u64 = 16_000;
/// And what a deadline leads to: the fresh look before it.
const LOOK: u64 = 2_000;
/// The model's second.
const EARLY: u64 = 1_000;

/// The calls and the end of the recording, as far as they are compared.
fn recorded(line: &Value) -> (Vec<(u64, String, Code)>, Option<u64>) {
    let events = line["events"].as_array().unwrap().iter();
    let calls = events.flat_map(|event| {
        let at = millis(&event["t"]);
        event["calls"].as_array().into_iter().flatten().filter(|call| call.is_object()).filter_map(move |call| named(at, call))
    });
    (calls.collect(), line["session_complete_at"].as_u64().map(|at| at * 1000))
}

fn named(at: u64, recorded: &Value) -> Option<(u64, String, Code)> {
    let (name, code) = call(recorded);
    let body = &recorded["body"];
    Some(match service_of(name)? {
        scenario::Service::Bss => (at, "BSS".to_owned(), code),
        scenario::Service::Cfs => {
            let patch = &body["patch"];
            (at, format!("CFS {} {}", patch["desired_config"].as_str().unwrap_or_default(), patch["enabled"]), code)
        }
        scenario::Service::Pcs => (at, body["operation"].as_str().unwrap().to_owned(), code),
        _ => return None,
    })
}

fn words(call: &Call) -> String {
    match call {
        Call::BootParameters => "BSS".to_owned(),
        Call::Configure { name, enabled, .. } => format!("CFS {name} {enabled}"),
        Call::Power(PowerAction::On) => "On".to_owned(),
        Call::Power(PowerAction::SoftOff) => "Soft-Off".to_owned(),
        Call::Power(PowerAction::ForceOff) => "Force-Off".to_owned(),
    }
}

fn pace(line: &Value) -> Pace {
    Pace { poll: 15_000, flow: line["order"] == "flow", fraction: millis(&line["clock_fraction"]) }
}

#[test]
fn the_model_of_bos_takes_the_time_bos_took() {
    let (mut wrong, mut played) = (Vec::new(), 0);
    for line in lines("timelines.jsonl") {
        let Ok(parameters) = Parameters::parse(&line) else { continue };
        let model = Bos::play(&parameters, pace(&line), &|_| false);
        let calls: Vec<(u64, String, Code)> = model.calls.iter().map(|(at, call, code)| (*at, words(call), *code)).collect();
        let end = model.ends[0].map(|(at, _)| at);
        let (percent, failed) = (&line["final"]["percent_successful"], &line["final"]["percent_failed"]);
        let outcome = match model.ends[0] {
            Some((_, End::Succeeded)) => *percent == 100.0,
            Some((_, End::Failed(_))) => *failed == 100.0,
            Some(_) | None => *percent == 0.0 && *failed == 0.0,
        };
        played += 1;
        if (&calls, end) != (&recorded(&line).0, recorded(&line).1) || !outcome {
            wrong.push(format!(
                "{} {} {}:\n BOS   {:?}\n model {:?}",
                line["id"],
                line["scenario"],
                pace(&line).flow,
                recorded(&line),
                (calls, model.ends)
            ));
        }
    }
    println!("{played} timelines played");
    assert!(wrong.is_empty(), "{} timelines:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether a timeline is another one, but for what hops may take.
fn differs(expected: &Timeline, found: &Timeline) -> Option<String> {
    let (expected_calls, found_calls) = (once(&expected.calls), once(&found.calls));
    let names = |calls: &[Once]| calls.iter().map(|once| words(&once.call)).collect::<Vec<_>>();
    if names(&expected_calls) != names(&found_calls) {
        return Some(format!("calls {:?}, not {:?}", names(&found_calls), names(&expected_calls)));
    }
    let mut late = 0;
    for (index, (due, found)) in expected_calls.iter().zip(&found_calls).enumerate() {
        let allowed = if by_deadline(&expected_calls, index) { LOOK } else { HOP };
        if found.last + EARLY < due.first + late || found.last > due.last + late + allowed {
            return Some(format!("{} at {}, due at {} + {late}", words(&due.call), found.last, due.last));
        }
        late = found.last.saturating_sub(due.last);
    }
    for ends in expected.ends.iter().zip(&found.ends) {
        match ends {
            (Some((due, end)), Some((at, found))) if end == found && *at + EARLY >= *due && *at <= due + late + lateness(*end) => {}
            (None, None) => {}
            (due, found) => return Some(format!("end {found:?}, not {due:?} (late by {late})")),
        }
    }
    None
}

/// A hold begins when the transition before it is over.
fn lateness(end: End) -> u64 {
    if end == End::Failed(reasons::POWER_UNKNOWN) { TRANSITION + HOP } else { HOP }
}

/// A call with the repeats that a service which does not answer costs: the last of them is what counts.
struct Once {
    call: Call,
    first: u64,
    last: u64,
}

fn once(calls: &[(u64, Call, Code)]) -> Vec<Once> {
    let mut once: Vec<Once> = Vec::new();
    for (at, call, _) in calls {
        match once.last_mut() {
            Some(same) if same.call == *call && *call != Call::Power(PowerAction::ForceOff) => same.last = *at,
            _ => once.push(Once { call: call.clone(), first: *at, last: *at }),
        }
    }
    once
}

/// Whether a deadline of the power action before it leads to a call.
fn by_deadline(calls: &[Once], index: usize) -> bool {
    let power = |once: &Once| if let Call::Power(action) = once.call { Some(action) } else { None };
    match (&calls[index].call, calls[..index].iter().rev().find_map(power)) {
        (Call::Power(PowerAction::ForceOff), _) | (Call::Power(PowerAction::SoftOff) | Call::BootParameters, Some(PowerAction::On)) => true,
        (Call::BootParameters | Call::Configure { .. } | Call::Power(_), _) => false,
    }
}

/// The rules without which the timeline would be another one.
fn needed(parameters: &Parameters, expected: &Timeline) -> BTreeSet<Rule> {
    let mut rules: BTreeSet<Rule> = Rule::SWITCHES.into_iter().collect();
    for rule in Rule::SWITCHES {
        let fewer: BTreeSet<Rule> = rules.iter().copied().filter(|other| *other != rule).collect();
        if differs(expected, &Bos::play(parameters, AT_ONCE, &|rule| fewer.contains(&rule))).is_none() {
            rules = fewer;
        }
    }
    rules
}

#[test]
fn timelines_agree_with_bos_or_deviate_by_rule() {
    let mut tally = Tally::default();
    // The order of BOS's operators and the fraction of its clock are nothing to us.
    let mut seen = BTreeSet::new();
    for line in lines("timelines.jsonl") {
        if !seen.insert((line["scenario"].to_string(), line["parameters"].to_string())) {
            continue;
        }
        let parameters = match Parameters::parse(&line) {
            Ok(parameters) => parameters,
            Err(NotPlayed::Staged) => {
                tally.deviates([Rule::StagedIsNotPlayed]);
                continue;
            }
            Err(NotPlayed::Edited) => {
                tally.deviates([Rule::EditIsNotPlayed]);
                continue;
            }
            Err(NotPlayed::Unknown(what)) => {
                tally.unexplained(format!("{}: {what} is not known here", line["scenario"]));
                continue;
            }
        };
        let expected = Bos::play(&parameters, AT_ONCE, &|_| true);
        let found = Ours::play(&parameters);
        match differs(&expected, &found) {
            Some(what) => tally.unexplained(format!("{}: {what}\n must be {expected:?}\n ours {found:?}", line["scenario"])),
            None => match needed(&parameters, &expected) {
                rules if rules.is_empty() => tally.agreed += 1,
                rules => tally.deviates(rules),
            },
        }
    }
    for rule in tally.rules.keys() {
        println!("{rule:?}: {}", rule.basis());
    }
    tally.check(
        "timelines",
        15,
        &[
            (Rule::UnknownPowerHolds, 1),
            (Rule::OldReportProvesNothing, 1),
            (Rule::CfsAskedOnlyWhenBooted, 1),
            (Rule::LastAttemptLeavesOn, 4),
            (Rule::ConfigurationHasADeadline, 1),
            (Rule::NoPowerOnUntagged, 1),
            (Rule::NoPowerOnUnprepared, 1),
            (Rule::RefusedHasFailed, 2),
            (Rule::HoldKeepsItsPlace, 2),
            (Rule::StagedIsNotPlayed, 2),
        ],
    );
}

/// The rules hold beyond the recorded scenarios.
#[test]
fn the_rules_foresee_other_timelines() {
    let (mut wrong, mut counted) = (Vec::new(), BTreeSet::new());
    for (code, parameters) in others() {
        let call = |name: &str| json!([name, code]);
        let names = ["/hsm/", "/images/", "/bootparameters", "GET /v3/components", "PATCH /v3/components", "/power-status", "/transitions"];
        let line = json!({ "parameters": parameters, "events": [{ "calls": names.map(call) }] });
        let parsed = Parameters::parse(&line).unwrap();
        let (expected, found) = (Bos::play(&parsed, AT_ONCE, &|_| true), Ours::play(&parsed));
        if let Some(what) = differs(&expected, &found) {
            wrong.push(format!("{code} {parameters}: {what}\n must be {expected:?}\n ours {found:?}"));
        }
        counted.extend(needed(&parsed, &expected));
    }
    let idle: Vec<Rule> = Rule::SWITCHES.into_iter().filter(|rule| !counted.contains(rule)).collect();
    assert!(idle.is_empty(), "{idle:?} explain nothing");
    assert!(wrong.is_empty(), "{} timelines:\n{}", wrong.len(), wrong.join("\n"));
}

/// Scenarios nobody recorded, with what services answer that fail.
fn others() -> Vec<(Value, Value)> {
    let mut others = Vec::new();
    let on = json!({ "power": "on", "running": "img-b", "config": "cfg-1" });
    let with = |base: &Value, more: Value| {
        let mut all = base.as_object().unwrap().clone();
        all.extend(more.as_object().unwrap().clone());
        Value::Object(all)
    };
    let faults = [
        json!({ "pcs": 2 }),
        json!({ "pcs": [[0, 100]] }),
        json!({ "pcs_status": [[0, 100]] }),
        json!({ "pcs_status": [[1190, 1300]] }),
        json!({ "bss": [[0, 60]] }),
        json!({ "cfs_patch": 1 }),
        json!({ "cfs_patch": [[0, 60]] }),
        json!({ "cfs_get": [[80, 200]] }),
        json!({ "ims_patch": [[0, 60]] }),
        json!({ "hsm": [[0, 60]] }),
        json!({ "hsm": [[100, 400]] }),
        json!({ "s3": [[0, 60]] }),
    ];
    // Unheard for ever: attempts are given back, but not without end.
    others.push((json!(500), json!({ "faults": { "pcs": 100 } })));
    others.push((json!(500), with(&on, json!({ "faults": { "pcs": 100 } }))));
    for code in [json!(400), json!(500), json!(503), Value::Null] {
        for faults in &faults {
            others.push((code.clone(), json!({ "faults": faults })));
            others.push((code.clone(), with(&on, json!({ "faults": faults }))));
            others.push((code.clone(), with(&on, json!({ "faults": faults, "operation": "shutdown", "soft_off_works": false }))));
        }
    }
    for operation in ["boot", "reboot", "shutdown"] {
        let base = json!({ "operation": operation });
        for site in [
            json!({}),
            json!({ "on_works": false }),
            json!({ "on_works": false, "retry_policy": 1 }),
            json!({ "reports": false, "retry_policy": 2 }),
            json!({ "report_delay": 1206 }),
            json!({ "report_delay": 1250, "soft_off_delay": 100 }),
            json!({ "on_delay": 130, "report_delay": 300 }),
            json!({ "cfs_result": "failed" }),
            json!({ "cfs_present": false }),
            json!({ "cfs_result": null }),
            json!({ "power": "on", "running": "img-b", "soft_off_delay": 150, "faults": { "hsm": [[100, 400]] } }),
            json!({ "running": "img-a", "config_wanted": null }),
            json!({ "user": [[40, "PATCH", "/v2/components/x", { "enabled": false }]], "run_until": 600 }),
            json!({ "power": "on" }),
            json!({ "power": "on", "running": "img-a" }),
            json!({ "power": "on", "running": "img-a", "config": "cfg-0" }),
            json!({ "power": "on", "running": "img-a", "config": "cfg-0", "config_wanted": null }),
            json!({ "power": "on", "running": "img-b", "soft_off_works": false }),
            json!({ "power": "on", "running": "img-b", "soft_off_works": false, "force_off_works": false, "retry_policy": 1 }),
            json!({ "power": "on", "running": "img-b", "soft_off_delay": 290 }),
            json!({ "power": "on", "running": "img-b", "reports": false, "soft_off_works": false }),
            json!({ "power_view": [[0, 7200, "undefined"]] }),
            json!({ "power_view": [[0, 60, "missing"]] }),
            json!({ "power": "on", "running": "img-b", "power_view": [[0, 7200, "error_on"]] }),
            json!({ "power": "on", "running": "img-b", "power_view": [[10, 400, "undefined"]] }),
            json!({ "power_view": [[3, 2000, "undefined"]], "reports": false }),
            json!({ "user": [[40, "POST", "/v2/sessions", { "operation": "reboot" }]], "run_until": 600 }),
        ] {
            others.push((json!(400), with(&base, site)));
        }
    }
    others
}
