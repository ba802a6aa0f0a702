//! BOS's decision table (BOS behaviour §8.2) row by row, beside our decision and the rule by which it differs, in `golden-bos.txt`.
//!
//! After a wanted change: `BOS_GOLDEN_WRITE=1 cargo test -p bos-core --test oracle_bos`, then read the difference.

use bos_core::model::Phase;
use bos_core::plan::PlannedOperation;
use serde_json::{Value, json};

use super::ours::{Answer, answer, bos};
use super::reading::{Image, Reading, Report};
use super::record::Record;
use super::rules::predict;
use super::table;
use crate::golden::{Column, Table};

const ROWS: Column = ("row", &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "F"]);
const SITUATIONS: Column = (
    "situation",
    &[
        "taken to be off",
        "to be off, Soft-Off asked",
        "to be off, Force-Off asked",
        "taken to boot",
        "taken to reboot",
        "to go off first",
        "Soft-Off asked first",
        "Force-Off asked first",
        "to be powered on",
        "On asked",
        "On asked, not on in time",
        "On asked, not up in time",
        "On asked, not up in time, last attempt",
        "to go off, not up in time",
        "being configured",
        "given up",
    ],
);
const POWERS: Column = ("PCS says", &["on", "off", "undefined", "missing"]);
const RUNS: Column =
    ("it reported", &["wanted image, before", "wanted image, since", "other image, before", "other image, since", "nothing"]);
const CFS: Column = (
    "CFS says",
    &["configured", "pending", "failed", "unconfigured", "wants another", "missing", "nothing wanted", "nothing wanted, wants one"],
);

#[test]
fn each_row_of_bos_stands_beside_ours() {
    let table = Table { file: "golden-bos.txt", columns: &[ROWS, SITUATIONS, POWERS, RUNS, CFS], says: "BOS | ours | by" };
    table.check(|combination| {
        let [row, situation, power, runs, cfs] = combination else { panic!("{combination:?}") };
        let reading = reading(situation, power, runs, cfs)?;
        if row_of(&reading.record) != *row {
            return None;
        }
        let (theirs, ours) = (bos(&reading.record), answer(&reading));
        if theirs == ours {
            return Some(format!("{} | the same | -", words(&theirs)));
        }
        let (predicted, rules) = predict(&reading);
        assert_eq!(ours, predicted, "{combination:?}");
        let rules: Vec<String> = rules.iter().map(|rule| format!("{rule:?} ({})", rule.basis())).collect();
        Some(format!("{} | {} | {}", words(&theirs), words(&ours), rules.join(", ")))
    });
}

fn row_of(record: &Record) -> String {
    let (row, after) = table::pass(record);
    let given_up = record.overriding == after.overriding && after.shown == "failed";
    if given_up { "F".to_owned() } else { row.map_or_else(String::new, |row| row.to_string()) }
}

/// The case of a combination; None where it cannot be.
fn reading(situation: &str, power: &str, runs: &str, cfs: &str) -> Option<Reading> {
    let (image, since) = runs.split_once(", ").unwrap_or((runs, ""));
    let mut case = json!({
        "desired": "A", "config": "cfg-1", "power": power, "last_action": "session_setup", "age": 60, "phase": "", "override": "",
        "actual": match image { "wanted image" => "A", "other image" => "B_kernel", _ => "empty" },
    });
    let (status, desired) = match cfs {
        "wants another" | "nothing wanted, wants one" => ("configured", "cfg-2"),
        "nothing wanted" => ("unconfigured", ""),
        other => (other, "cfg-1"),
    };
    set(&mut case, &[("cfs", json!(status)), ("cfs_config", json!(desired))]);
    if cfs.starts_with("nothing wanted") {
        set(&mut case, &[("config", json!(""))]);
    }
    let operation = describe(&mut case, situation);
    let record = Record::parse(&case);
    let report = |report: &Report| match (report, since) {
        (Report::None, "") => true,
        (Report::Before(said), "before") | (Report::After(said), "since") => *said != Image::Other(None),
        _ => false,
    };
    Reading::all(&record).into_iter().find(|reading| report(&reading.report) && operation.is_none_or(|wanted| wanted == reading.operation))
}

fn set(case: &mut Value, fields: &[(&str, Value)]) {
    for (key, value) in fields {
        case[*key] = value.clone();
    }
}

/// Puts a situation into a case; the operation where the record does not tell it.
fn describe(case: &mut Value, situation: &str) -> Option<PlannedOperation> {
    let mut told = |phase: &str, action: &str, age: u64, attempts: [u16; 3]| {
        set(case, &[("phase", json!(phase)), ("last_action", json!(action)), ("age", json!(age)), ("attempts", json!(attempts))]);
    };
    match situation {
        "taken to boot" | "taken to be off" | "taken to reboot" => set(case, &[("override", json!("on_hold"))]),
        "to be off, Soft-Off asked" | "Soft-Off asked first" => told("powering_off", "powering_off_gracefully", 60, [0, 1, 0]),
        "to be off, Force-Off asked" | "Force-Off asked first" => told("powering_off", "powering_off_forcefully", 60, [0, 1, 1]),
        "to go off first" => told("powering_off", "session_setup", 60, [0; 3]),
        "to be powered on" => told("powering_on", "session_setup", 60, [0; 3]),
        "On asked" => told("powering_on", "powering_on", 60, [1, 0, 0]),
        "On asked, not on in time" => told("powering_on", "powering_on", 121, [1, 0, 0]),
        "On asked, not up in time" => told("powering_on", "powering_on", 1201, [1, 0, 0]),
        "On asked, not up in time, last attempt" => told("powering_on", "powering_on", 1201, [3, 2, 0]),
        "to go off, not up in time" => told("powering_off", "powering_on", 1201, [1, 0, 0]),
        "being configured" => told("configuring", "powering_on", 600, [1, 0, 0]),
        "given up" => {
            told("powering_on", "powering_on", 600, [3, 0, 0]);
            set(case, &[("override", json!("failed"))]);
        }
        other => panic!("situation {other}"),
    }
    if situation.contains("to be off") {
        set(case, &[("desired", json!("empty"))]);
    }
    match situation {
        "taken to boot" => Some(PlannedOperation::Boot),
        "taken to reboot" => Some(PlannedOperation::Reboot),
        _ => None,
    }
}

fn words(answer: &Answer) -> String {
    match answer {
        Answer::Untouched => "not looked at".to_owned(),
        Answer::GoesOn(phase, shown) => {
            let phase = match phase {
                Phase::None => "no phase",
                Phase::PoweringOff => "powering_off",
                Phase::PoweringOn => "powering_on",
                Phase::Configuring => "configuring",
            };
            format!("{phase}: {shown}")
        }
        Answer::Succeeded => "done".to_owned(),
        Answer::Failed(reason) => format!("failed {reason}").trim_end().to_owned(),
        Answer::Left => "left as it runs".to_owned(),
        Answer::Dropped => "dropped on hold".to_owned(),
    }
}
