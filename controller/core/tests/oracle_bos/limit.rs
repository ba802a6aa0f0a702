//! Limits: the limit step alone on three sets of nodes, admission, and whole sessions.

use std::collections::BTreeSet;

use bos_core::limit::{Limit, LimitError, LimitProblem, ProblemKind};
use bos_core::resolve::Rules;
use bos_core::xname::Xname;
use serde_json::Value;

use crate::resolution::{boot_set, explain_nodes, session_nodes};
use crate::support::{Inventory, Rule, Tally, lines, strings, texts};

fn ours(limit: &str, base: &BTreeSet<String>, inventory: &Inventory) -> Result<BTreeSet<String>, LimitError> {
    let base: BTreeSet<Xname> = base.iter().map(|name| Xname::parse(name).unwrap()).collect();
    Ok(strings(&Limit::parse(limit)?.select(&base, &inventory.snapshot)?))
}

/// The rule behind a refusal, if what the refusal says is true.
fn refusal(problem: &LimitProblem, limit: &str, inventory: &Inventory) -> Option<Rule> {
    let item = limit.split(',').nth(problem.position.saturating_sub(1))?.trim();
    let name = item.trim_start_matches(['!', '&']);
    let (rule, holds) = match problem.kind {
        ProblemKind::Empty | ProblemKind::EmptyItem => (Rule::EmptyItemRefused, item.is_empty()),
        ProblemKind::OperatorAlone => (Rule::OperatorAloneRefused, item == "!" || item == "&"),
        ProblemKind::TwoOperators => (Rule::TwoOperatorsRefused, item.len() >= name.len() + 2),
        ProblemKind::Blank => (Rule::BlankRefused, name.contains(' ') && !inventory.knows(name)),
        ProblemKind::Pattern => (Rule::PatternRefused, name.contains(['*', '?', '[', '{', '^', '\\']) && !inventory.knows(name)),
        ProblemKind::Unknown => (Rule::UnknownNameRefused, !inventory.knows(name) && inventory.below(name).is_empty()),
        ProblemKind::Nid => (Rule::NidRefused, name.to_lowercase().starts_with("nid") && !inventory.knows(name)),
        ProblemKind::EmptyExclusion => (Rule::EmptyExclusionRefused, item.starts_with('!') && inventory.is_empty_set(name)),
    };
    holds.then_some(rule)
}

/// The limit that means in BOS what this one means to us, and the rules that make it so.
fn translated(limit: &str, inventory: &Inventory) -> (String, BTreeSet<Rule>) {
    let mut rules = BTreeSet::new();
    let mut items = Vec::new();
    if limit.trim_start().starts_with(['!', '&']) {
        rules.insert(Rule::StartsFromAll);
        items.push("all".to_owned());
    }
    for item in limit.split(',') {
        let trimmed = item.trim();
        if trimmed != item {
            rules.insert(Rule::BlanksTrimmed);
        }
        let name = trimmed.trim_start_matches(['!', '&']);
        if !inventory.knows(name) && !inventory.below(name).is_empty() {
            rules.insert(Rule::ParentOfNodes);
        }
        items.push(trimmed.to_owned());
    }
    (items.join(","), rules)
}

/// The rules by which our answer differs from BOS's; none where it agrees.
fn explain(limit: &str, base: &BTreeSet<String>, bos: Option<&BTreeSet<String>>, inventory: &Inventory) -> Result<BTreeSet<Rule>, String> {
    match (ours(limit, base, inventory), bos) {
        (Ok(ours), Some(bos)) if ours == *bos => Ok(BTreeSet::new()),
        (Err(error), _) => {
            error.problems.iter().map(|problem| refusal(problem, limit, inventory)).collect::<Option<_>>().ok_or_else(|| error.to_string())
        }
        (Ok(ours), _) => {
            let (meaning, rules) = translated(limit, inventory);
            let same = inventory.bos_limit_with_parents(&meaning, base).as_ref() == Some(&ours);
            if same && !rules.is_empty() { Ok(rules) } else { Err(format!("ours {ours:?}, BOS {bos:?}")) }
        }
    }
}

fn recorded(value: &Value) -> Option<BTreeSet<String>> {
    value.get("nodes").map(|nodes| texts(nodes).into_iter().collect())
}

#[test]
fn limits_agree_with_bos_or_deviate_by_rule() {
    let inventory = Inventory::read();
    let mut tally = Tally::default();
    let all = strings(inventory.snapshot.nodes.keys());
    for case in lines("limit.jsonl") {
        let Some(limit) = case["limit"].as_str().filter(|limit| !limit.is_empty()) else { continue };
        for (name, base) in [
            ("everything", all.clone()),
            ("list6", texts(&inventory.raw["boot_sets"]["list6"]["node_list"]).into_iter().collect()),
            (
                "compute",
                strings(
                    inventory.snapshot.nodes.iter().filter(|(_, facts)| facts.role.as_deref() == Some("Compute")).map(|(node, _)| node),
                ),
            ),
        ] {
            let bos = recorded(&case[name]);
            assert_eq!(inventory.bos_limit(limit, &base), bos, "the model of BOS is wrong for {limit:?} on {name}");
            match explain(limit, &base, bos.as_ref(), &inventory) {
                Ok(rules) if rules.is_empty() => tally.agreed += 1,
                Ok(rules) => tally.deviates(rules),
                Err(why) => tally.unexplained(format!("{limit:?} on {name}: {why}")),
            }
        }
    }
    tally.check(
        "limit step",
        235,
        &[
            (Rule::EmptyItemRefused, 15),
            (Rule::OperatorAloneRefused, 12),
            (Rule::TwoOperatorsRefused, 15),
            (Rule::BlankRefused, 3),
            (Rule::PatternRefused, 27),
            (Rule::UnknownNameRefused, 60),
            (Rule::NidRefused, 18),
            (Rule::EmptyExclusionRefused, 3),
            (Rule::BlanksTrimmed, 12),
            (Rule::StartsFromAll, 17),
            (Rule::ParentOfNodes, 3),
        ],
    );
}

#[test]
fn sites_that_refuse_nids_refuse_the_same_limits() {
    let mut tally = Tally::default();
    for case in lines("limit.jsonl") {
        let Some(limit) = case["limit"].as_str().filter(|limit| !limit.is_empty()) else { continue };
        let bos = case["admission"]["reject_nids"] != case["admission"]["default"];
        match Limit::parse(limit).map(|limit| limit.nids().map(str::to_owned).collect::<Vec<_>>()) {
            Err(error) => tally.deviates(refusal(&error.problems[0], limit, &Inventory::read())),
            Ok(nids) if nids.is_empty() != bos => tally.agreed += 1,
            Ok(nids) if !bos && nids.iter().all(|nid| !nid.starts_with("nid")) => tally.deviates([Rule::NidInAnyCase]),
            Ok(nids) => tally.unexplained(format!("{limit:?}: ours {nids:?}, BOS refuses: {bos}")),
        }
    }
    tally.check(
        "NIDs at admission",
        115,
        &[
            (Rule::EmptyItemRefused, 4),
            (Rule::OperatorAloneRefused, 4),
            (Rule::TwoOperatorsRefused, 5),
            (Rule::BlankRefused, 1),
            (Rule::PatternRefused, 9),
            (Rule::NidInAnyCase, 1),
        ],
    );
}

#[test]
fn sessions_with_limits_agree_with_bos_or_deviate_by_rule() {
    let inventory = Inventory::read();
    let mut tally = Tally::default();
    for case in lines("limit.jsonl") {
        let Some(limit) = case["limit"].as_str().filter(|limit| !limit.is_empty()) else { continue };
        for name in ["everything", "list6"] {
            let session = &case[format!("session_{name}")];
            let set = boot_set("b", &inventory.raw["boot_sets"][name]);
            let base = session_base(name, &inventory);
            let step = explain(limit, &base, recorded(&case[name]).as_ref(), &inventory).unwrap_or_default();
            if !step.is_empty() {
                tally.deviates(step);
                continue;
            }
            let parsed = Limit::parse(limit).unwrap();
            let found = session_nodes(&[set], &inventory, Some(&parsed), &Rules::default()).unwrap();
            match explain_nodes(&found, &texts(&session["nodes"]).into_iter().collect(), "X86", &inventory) {
                Ok(rules) if rules.is_empty() => tally.agreed += 1,
                Ok(rules) => tally.deviates(rules),
                Err(why) => tally.unexplained(format!("{limit:?} on {name}: {why}")),
            }
        }
    }
    tally.check(
        "sessions with limits",
        119,
        &[
            (Rule::EmptyItemRefused, 10),
            (Rule::OperatorAloneRefused, 8),
            (Rule::TwoOperatorsRefused, 10),
            (Rule::BlankRefused, 2),
            (Rule::PatternRefused, 18),
            (Rule::UnknownNameRefused, 40),
            (Rule::NidRefused, 12),
            (Rule::EmptyExclusionRefused, 2),
            (Rule::BlanksTrimmed, 8),
            (Rule::StartsFromAll, 11),
            (Rule::ParentOfNodes, 2),
            (Rule::AbsentArchIsX86, 21),
            (Rule::EmptySlotExcluded, 27),
            (Rule::ManagementExcluded, 22),
            (Rule::NoSecondNodeList, 21),
        ],
    );
}

fn session_base(name: &str, inventory: &Inventory) -> BTreeSet<String> {
    let set = &inventory.raw["boot_sets"][name];
    let listed = texts(&set["node_list"]);
    if listed.is_empty() { texts(&inventory.raw["groups"]["everything"]).into_iter().collect() } else { listed.into_iter().collect() }
}
