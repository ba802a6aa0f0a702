//! Conditions, reasons and names.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use bos_crds::conditions::{self, find, is_true};
use bos_crds::{ConditionStatus, NewCondition, Outcome, Time, labels, reasons, schema, set_condition};
use jiff::Timestamp;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn ready(status: ConditionStatus, reason: &'static str) -> NewCondition {
    NewCondition { type_: conditions::READY, status, reason, message: "because".into(), observed_generation: Some(1) }
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let mut list = Vec::new();
    assert!(set_condition(&mut list, &ready(ConditionStatus::False, reasons::PENDING), at(10)));
    assert!(!set_condition(&mut list, &ready(ConditionStatus::False, reasons::PENDING), at(20)), "nothing changed");
    assert!(set_condition(&mut list, &ready(ConditionStatus::False, reasons::RUNNING), at(30)), "the reason changed");
    assert_eq!(find(&list, conditions::READY).unwrap().last_transition_time, Time(at(10)));
    assert!(!is_true(&list, conditions::READY));
    assert!(set_condition(&mut list, &ready(ConditionStatus::True, reasons::CHECKED), at(40)));
    assert_eq!(find(&list, conditions::READY).unwrap().last_transition_time, Time(at(40)));
    assert!(is_true(&list, conditions::READY));
    assert_eq!(list.len(), 1);
    assert!(find(&list, conditions::STALLED).is_none());
}

#[test]
fn a_condition_survives_the_wire_and_its_bound() {
    let mut list = Vec::new();
    let now = Timestamp::from_nanosecond(1_700_000_000_123_456_789).unwrap();
    let long = NewCondition { message: "x".repeat(10_000), ..ready(ConditionStatus::True, reasons::CHECKED) };
    set_condition(&mut list, &long, now);
    assert_eq!(list[0].message.chars().count(), schema::TEXT_MAX);
    let text = serde_json::to_string(&list).unwrap();
    assert_eq!(serde_json::from_str::<Vec<bos_crds::Condition>>(&text).unwrap(), list);
    assert!(!set_condition(&mut list, &long, now), "a cut message is the same message");
}

#[test]
fn reasons_are_words_of_their_own_and_explained() {
    let mut seen = BTreeSet::new();
    for (word, doc) in reasons::ALL {
        assert!(seen.insert(word), "twice: {word}");
        let camel = word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(|c| c.is_ascii_alphanumeric());
        assert!(camel && word.len() <= schema::REASON_MAX, "{word}");
        assert!(doc.trim().ends_with('.'), "{word}: {doc}");
    }
    assert_eq!(reasons::describe("Paced"), Some("The pacing options hold the node back until others are through."));
    assert_eq!(reasons::describe("Nonsense"), None);
}

/// Complete=True has the outcome as its reason.
#[test]
fn every_outcome_is_a_reason() {
    for outcome in Outcome::ALL {
        assert!(reasons::describe(outcome.as_str()).is_some(), "{outcome}");
    }
}

#[test]
fn names_fit_where_they_are_put() {
    let uid = "6b1c7e0e-0000-4000-8000-000000000000";
    assert_eq!(labels::plan_name(uid, 12), format!("bos-plan-{uid}-12"));
    assert_eq!(labels::journal_name(uid), format!("bos-journal-{uid}"));
    assert_eq!(labels::session_selector(uid), format!("bos.hpe.com/session-uid={uid}"));
    let digits = "0123456789abcdef".repeat(4);
    let digest = format!("sha256:{digits}");
    for given in [&digest, &digits] {
        assert_eq!(labels::artifacts_name(given), "bos-artifacts-0123456789abcdef0123456789abcdef");
        assert_eq!(labels::digest_label(given), &digits[..63]);
    }
    assert_eq!(labels::artifacts_name("sha256:0123abcd"), "bos-artifacts-0123abcd");
    let managers: BTreeSet<_> = labels::MANAGERS.iter().collect();
    assert_eq!(managers.len(), labels::MANAGERS.len());
}
