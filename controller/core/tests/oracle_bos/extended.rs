//! The extended session status: counts, percentages and errors of small populations.

mod ours;
mod population;

use std::collections::BTreeSet;
use std::time::Duration;

use bos_core::model::Phase;
use bos_crds::{SessionPhase, Time};
use serde_json::{Map, Value};

use crate::decision::record::Override;
use crate::fixture::START;
use crate::support::{Tally, lines, read};
use ours::{Scene, numbers};
use population::{Member, Numbers, bos, is_recorded, members};

/// A difference from BOS that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// A node counts once, in the session that drives it. BOS counts what a session staged beside what it drives.
    StagedIsNotDriven,
    /// The nodes of a session are fixed: those that others took are counted, and done with (rule 11, §21.2 no. 13). BOS forgets them.
    TakenOverIsCounted,
    /// Every node is in one class (§21.1, 2.4.0). BOS counts a node that failed just now in its phase as well.
    FailedIsNotUnderWay,
    /// A person's hold does not take a node out of its session. A node disabled in BOS is in no class.
    SuspendedIsUnderWay,
    /// A node that succeeded has no error (rule 15). In BOS an old text stays (BOS behaviour §26 no. 11).
    SuccessHasNoError,
    /// A node on hold has a reason of its own and has not failed (rule 2). BOS dropped it, with an error.
    HeldIsNoError,
    /// A Session has an end exactly when it has ended, and counts exactly when it has begun. BOS's record may say otherwise.
    StandsInOnePlace,
    /// What an ended Session says does not change when others take its nodes (BOS behaviour §11.1, without a snapshot).
    EndedStaysAsItWas,
    /// A tenant is a namespace.
    TenantIsANamespace,
}

type Rewrite = fn(&mut Member);

/// The numbers we must show, and the rules that make them others than BOS's.
fn predict(members: &[Member]) -> (Numbers, BTreeSet<Rule>) {
    let mut rules = BTreeSet::new();
    let mut members = members.to_vec();
    let rewrites: [(Rule, Rewrite); 5] = [
        (Rule::StagedIsNotDriven, |member| member.staged = false),
        (Rule::FailedIsNotUnderWay, |member| member.enabled &= member.overriding != Override::Failed),
        (Rule::SuspendedIsUnderWay, |member| member.enabled |= member.overriding == Override::None && member.phase != Phase::None),
        (Rule::SuccessHasNoError, |member| {
            if member.shown() == "stable" {
                member.error.clear();
            }
        }),
        (Rule::HeldIsNoError, |member| {
            if member.overriding == Override::OnHold {
                member.error.clear();
            }
        }),
    ];
    let taken = members.iter().filter(|member| member.taken_over()).count();
    for (rule, rewrite) in rewrites {
        let before = bos(&members);
        members.iter_mut().for_each(rewrite);
        if bos(&members) != before {
            rules.insert(rule);
        }
    }
    let mut numbers = bos(&members);
    if taken > 0 {
        rules.insert(Rule::TakenOverIsCounted);
        numbers.managed += taken;
        numbers.complete += taken;
    }
    (numbers, rules)
}

#[test]
fn extended_statuses_agree_with_bos_or_deviate_by_rule() {
    let kinds: Value = serde_json::from_str(&read("extended-status-kinds.json")).unwrap();
    let kinds = kinds["kinds"].as_object().unwrap();
    let mut tally = Tally::default();
    for line in lines("extended-status.jsonl") {
        if !line["tenant"].is_null() {
            tally.deviates([Rule::TenantIsANamespace]);
            continue;
        }
        compare(&line, kinds, &mut tally);
    }
    tally.check(
        "extended status",
        29,
        &[
            (Rule::StagedIsNotDriven, 16),
            (Rule::TakenOverIsCounted, 9),
            (Rule::FailedIsNotUnderWay, 2),
            (Rule::SuspendedIsUnderWay, 4),
            (Rule::SuccessHasNoError, 5),
            (Rule::HeldIsNoError, 4),
            (Rule::StandsInOnePlace, 3),
            (Rule::EndedStaysAsItWas, 1),
        ],
    );
}

fn compare(line: &Value, kinds: &Map<String, Value>, tally: &mut Tally<Rule>) {
    let members = members(line, kinds);
    let body = &line["get"][1];
    assert!(is_recorded(&bos(&members), body), "the model of BOS is wrong for {line}");
    let scene = Scene::of(&members);
    let status = scene.status();
    let (theirs, ours) = (bos(&members), numbers(&status));
    let (predicted, mut rules) = predict(&members);
    rules.extend(ends(line, &members, scene));
    let [_, shares @ ..] = ours.percentages();
    assert_eq!(ours::percentages(&status), shares, "{}", line["label"]);
    let most_first = status.failures.is_sorted_by_key(|group| -group.count);
    if ours != predicted || !most_first {
        tally.unexplained(format!("{}: BOS {theirs:?}\n ours {ours:?}\n by {rules:?} it must be {predicted:?}", line["label"]));
    } else if rules.is_empty() {
        tally.agreed += 1;
    } else {
        tally.deviates(rules);
    }
}

/// Label, times and constancy.
fn ends(line: &Value, members: &[Member], mut scene: Scene) -> Option<Rule> {
    let body = &line["get"][1];
    let status = scene.status();
    assert_eq!((status.phase, &status.start_time), (Some(SessionPhase::Running), &Some(Time(START.wall()))));
    let (ended, end) = (body["status"] == "complete", &line["session_status"]["end_time"]);
    if body["status"] == "running" && end.is_null() && line.get("snapshot").is_none() {
        assert_eq!(status.end_time, None);
        return None;
    }
    if body["status"] == "pending" || ended == end.is_null() && line.get("snapshot").is_none() {
        return Some(Rule::StandsInOnePlace);
    }
    // What is open when BOS's session is set complete cannot be in ours.
    let over: Vec<Member> = members.iter().filter(|member| matches!(member.shown(), "stable" | "failed")).cloned().collect();
    scene = Scene::of(&over);
    let after = Duration::from_secs(seconds(if ended { body } else { &line["snapshot"][1] }));
    scene.complete(after);
    let complete = scene.status();
    assert_eq!((complete.phase, &complete.end_time), (Some(SessionPhase::Complete), &Some(Time((START + after).wall()))));
    scene.drift(&over);
    assert_eq!(scene.status(), complete);
    line.get("snapshot").map(|_| Rule::EndedStaysAsItWas)
}

/// The duration `1:01:40` in seconds.
fn seconds(body: &Value) -> u64 {
    let text = body["timing"]["duration"].as_str().unwrap();
    text.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap())
}
