//! The status operator's decisions, one component and one pass each.

mod golden_table;
pub(crate) mod ours;
pub(crate) mod reading;
pub(crate) mod record;
mod rules;
pub(crate) mod table;

use crate::support::{Tally, lines};
use ours::{answer, bos};
use reading::Reading;
use record::Record;
use rules::{Rule, predict};
use serde_json::{Value, json};

/// Combinations of values that are tried beyond the recording.
const SAMPLES: u64 = 40_000;
const STEP: u64 = 1_000_003_219;

#[test]
fn the_model_of_bos_decides_as_bos_did() {
    let mut wrong = Vec::new();
    for case in lines("decision.jsonl") {
        let record = Record::parse(&case["in"]);
        let (row, said) = table::pass(&record);
        let done = table::recorded(&case["out"], &record);
        if said != done {
            wrong.push(format!("case {} row {row:?}: BOS {done:?}, the model {said:?}\n   {}", case["id"], case["in"]));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn decisions_agree_with_bos_or_deviate_by_rule() {
    let mut tally = Tally::default();
    for case in lines("decision.jsonl") {
        compare(&case["in"], &mut tally);
    }
    for rule in tally.rules.keys() {
        println!("{rule:?}: {}", rule.basis());
    }
    tally.check(
        "decisions",
        1258,
        &[
            (Rule::UnknownPowerHolds, 487),
            (Rule::MissingPowerHolds, 161),
            (Rule::ReportProvesBoot, 12),
            (Rule::CfsAskedOnlyWhenBooted, 122),
            (Rule::MissingFromCfsHolds, 12),
            (Rule::NoNameIsNoConfiguration, 28),
            (Rule::RunBeginsAnew, 88),
            (Rule::OffAgainIsANewPowerOn, 9),
            (Rule::DeadlineReached, 6),
            (Rule::OldReportProvesNothing, 85),
            (Rule::RebootRestarts, 17),
            (Rule::ExpiryUndoesNothing, 27),
            (Rule::SwitchedOnByAnother, 27),
            (Rule::BootedByAnother, 31),
            (Rule::PowerOffWaitedOut, 8),
            (Rule::CycleStands, 20),
            (Rule::OnAfterAll, 10),
            (Rule::UnknownImageIsLeft, 45),
            (Rule::AliveIsNotCycled, 6),
            (Rule::FailureIsFinal, 55),
            (Rule::BudgetSpent, 96),
        ],
    );
}

/// Compares one record in all its meanings.
fn compare(case: &Value, tally: &mut Tally<Rule>) {
    let record = Record::parse(case);
    for reading in Reading::all(&record) {
        let (theirs, ours) = (bos(&record), answer(&reading));
        let (predicted, rules) = predict(&reading);
        if ours == predicted && ours == theirs {
            tally.agreed += 1;
        } else if ours == predicted {
            tally.deviates(rules);
        } else {
            let Reading { operation, standing, report, .. } = &reading;
            let read = format!("{operation:?}, {standing:?}, report {report:?}");
            tally.unexplained(format!("({read}): BOS {theirs:?}, ours {ours:?}, by {rules:?} it must be {predicted:?}\n   {case}"));
        }
    }
}

/// The rules hold beyond the recorded cases: of all combinations of their values, each time the next one that differs in many of them.
#[test]
fn the_rules_explain_every_combination() {
    let values: Vec<(&str, Vec<Value>)> = [
        ("desired", json!(["A", "A_noparams", "A_emptyparams", "nokernel", "empty", "absent"])),
        ("actual", json!(["A", "A_emptyparams", "A_trailing_blank", "B_kernel", "B_params", "A_noinitrd", "empty", "absent"])),
        ("power", json!(["on", "off", "undefined", "error_on", "missing", "blank"])),
        ("cfs", json!(["configured", "pending", "failed", "unconfigured", "", "absent", "missing"])),
        ("cfs_config", json!(["cfg-1", "cfg-2", "", "absent"])),
        ("config", json!(["cfg-1", "", "absent"])),
        ("last_action", json!(["powering_on", "powering_off_gracefully", "powering_off_forcefully", "session_setup"])),
        ("last_failed", json!([false, true])),
        ("age", json!([0, 60, 119, 120, 120.5, 121, 299, 300, 301, 1199, 1200, 1200.5, 1201, null])),
        ("attempts", json!([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 1, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3], [4, 4, 4]])),
        ("phase", json!(["", "powering_on", "powering_off", "configuring"])),
        ("override", json!(["", "", "", "on_hold", "failed"])),
        ("retry_policy", json!([null, 0, 1, 5])),
    ]
    .map(|(key, values)| (key, values.as_array().unwrap().clone()))
    .into();
    let all: u64 = values.iter().map(|(_, values)| values.len() as u64).product();
    let mut tally = Tally::default();
    for sample in 0..SAMPLES {
        // A step without a common divisor with the number of combinations visits none twice.
        let mut combination = sample * STEP % all;
        let case: serde_json::Map<String, Value> = values
            .iter()
            .map(|(key, values)| {
                let position = usize::try_from(combination % values.len() as u64).unwrap();
                combination /= values.len() as u64;
                ((*key).to_owned(), values[position].clone())
            })
            .collect();
        compare(&Value::Object(case), &mut tally);
    }
    println!("combinations: {} agree; {:?}", tally.agreed, tally.rules);
    assert!(
        tally.unexplained.is_empty(),
        "{} cases, the first:\n{}",
        tally.unexplained.len(),
        tally.unexplained[..10.min(tally.unexplained.len())].join("\n")
    );
    let idle: Vec<Rule> = Rule::ALL.into_iter().filter(|rule| !tally.rules.contains_key(rule)).collect();
    assert!(idle.is_empty(), "{idle:?} explain nothing");
}
