//! The operators that act: whom they pick, what they call, and what a fault of a service does; one component and one pass each.

pub(crate) mod case;
mod expiry;
mod ours;
mod rules;

use serde_json::{Map, Value};

use crate::support::{Tally, lines, read};
use case::{bos, parse, recorded};
use ours::done;
use rules::{Rule, predict};

fn defaults() -> Map<String, Value> {
    let defaults: Value = serde_json::from_str(&read("power-filters-defaults.json")).unwrap();
    defaults.as_object().unwrap().clone()
}

#[test]
fn operators_act_as_bos_or_deviate_by_rule() {
    let defaults = defaults();
    let mut tally = Tally::default();
    for line in lines("power-filters.jsonl") {
        let Some(case) = parse(&line, &defaults) else { continue };
        let (theirs, ours) = (bos(&case), done(&case));
        assert_eq!(theirs, recorded(&case, &line["out"]), "the model of BOS is wrong for {line}");
        let (predicted, rules) = predict(&case);
        if ours == predicted && ours == theirs {
            tally.agreed += 1;
        } else if ours == predicted {
            tally.deviates(rules);
        } else {
            tally.unexplained(format!("BOS {theirs:?}\n ours {ours:?}\n by {rules:?} it must be {predicted:?}\n   {line}"));
        }
    }
    for rule in tally.rules.keys() {
        println!("{rule:?}: {}", rule.basis());
    }
    tally.check(
        "acting operators",
        189,
        &[
            (Rule::HsmAskedAtSetUp, 6),
            (Rule::DeadlineReached, 5),
            (Rule::NoPowerOnUnprepared, 4),
            (Rule::NoPowerOnUntagged, 1),
            (Rule::NotSentIsNoAttempt, 1),
            (Rule::RefusedHasFailed, 7),
        ],
    );
}
