//! Nodes: what each boot set resolves to, and what whole sessions act on.

use std::collections::BTreeSet;

use bos_core::limit::{Limit, LimitError};
use bos_core::resolve::{Rules, resolve, resolve_template};
use bos_core::xname::Xname;
use bos_crds::BootSet;
use serde_json::Value;

use crate::support::{Inventory, Rule, Tally, lines, strings, texts};

/// A recorded boot set as one of ours.
pub(crate) fn boot_set(name: &str, recorded: &Value) -> BootSet {
    BootSet {
        name: name.to_owned(),
        arch: recorded["arch"].as_str().unwrap_or("X86").parse().unwrap(),
        path: "s3://boot-images/img-a/manifest.json".to_owned(),
        node_list: texts(&recorded["node_list"]),
        node_groups: texts(&recorded["node_groups"]),
        node_roles_groups: texts(&recorded["node_roles_groups"]),
        ..BootSet::default()
    }
}

/// All nodes of a session.
pub(crate) fn session_nodes(
    sets: &[BootSet],
    inventory: &Inventory,
    limit: Option<&Limit>,
    rules: &Rules,
) -> Result<BTreeSet<String>, LimitError> {
    let found = resolve_template(sets, &inventory.snapshot, limit, rules)?;
    Ok(found.boot_sets.iter().flat_map(|set| strings(&set.nodes)).collect())
}

/// The rules by which two sets of nodes differ, each node looked at by itself.
pub(crate) fn explain_nodes(
    ours: &BTreeSet<String>,
    bos: &BTreeSet<String>,
    arch: &str,
    inventory: &Inventory,
) -> Result<BTreeSet<Rule>, String> {
    let not_in_bos = texts(&inventory.raw["not_in_bos"]);
    let mut rules = BTreeSet::new();
    for node in ours ^ bos {
        let facts = Xname::parse(&node).ok().and_then(|node| inventory.snapshot.nodes.get(&node).cloned());
        let rule = match facts {
            None if Xname::parse(&node).is_err() && bos.contains(&node) => Rule::NotANodeReported,
            None => return Err(format!("{node} is in one of both and unknown")),
            Some(facts) if bos.contains(&node) => match (facts.state.as_deref(), facts.role.as_deref()) {
                (Some("Empty"), _) => Rule::EmptySlotExcluded,
                (_, Some("Management")) => Rule::ManagementExcluded,
                _ => return Err(format!("only BOS acts on {node}")),
            },
            Some(_) if not_in_bos.contains(&node) => Rule::NoSecondNodeList,
            Some(facts) => match (arch, facts.arch.as_deref()) {
                ("X86", None) => Rule::AbsentArchIsX86,
                _ => return Err(format!("only we act on {node}")),
            },
        };
        rules.insert(rule);
    }
    Ok(rules)
}

#[test]
fn boot_sets_agree_with_bos_or_deviate_by_rule() {
    let inventory = Inventory::read();
    let mut tally = Tally::default();
    for case in lines("resolution.jsonl") {
        let label = case["label"].as_str().unwrap();
        if !resolved(&case) {
            continue;
        }
        let rules = Rules { include_disabled: case["include_disabled"].as_bool().unwrap_or(false), include_management: false };
        for (name, recorded) in case["boot_sets"].as_object().unwrap() {
            let set = boot_set(name, recorded);
            let limit = case["limit"].as_str().map(|limit| Limit::parse(limit).unwrap());
            let found = match resolve(&set, &inventory.snapshot, limit.as_ref(), &rules) {
                Ok(found) => found,
                Err(error) if texts(&case["per_boot_set"][name]).is_empty() => {
                    assert_eq!(case["limit"], "x9999c0s0b0n0", "{error}");
                    tally.deviates([Rule::UnknownNameRefused]);
                    continue;
                }
                Err(error) => {
                    tally.unexplained(format!("{label}: {error}"));
                    continue;
                }
            };
            let bos: BTreeSet<String> = texts(&case["per_boot_set"][name]).into_iter().collect();
            let mut ours = strings(&found.nodes);
            let mut deviations = BTreeSet::new();
            if let Some(tenant) = case["tenant"].as_str() {
                deviations.insert(Rule::TenantDecidedElsewhere);
                let owned: BTreeSet<String> = texts(&inventory.raw["tenants"][tenant]).into_iter().collect();
                // BOS fails the whole session where the template names a node of somebody else.
                ours = if case["per_boot_set"][name].is_object() { BTreeSet::new() } else { &ours & &owned };
            }
            if case["limit"] == "!blue" {
                deviations.insert(Rule::StartsFromAll);
                let blue = inventory.snapshot.groups["blue"].clone();
                assert!(found.nodes.iter().all(|node| !blue.contains(node)), "{label}");
                ours.clear();
            }
            match explain_nodes(&ours, &bos, set.arch.as_str(), &inventory) {
                Ok(rules) => deviations.extend(rules),
                Err(why) => tally.unexplained(format!("{label} {name}: {why}")),
            }
            if deviations.is_empty() { tally.agreed += 1 } else { tally.deviates(deviations) }
        }
    }
    tally.check(
        "boot sets",
        40,
        &[
            (Rule::UnknownNameRefused, 3),
            (Rule::StartsFromAll, 2),
            (Rule::AbsentArchIsX86, 7),
            (Rule::EmptySlotExcluded, 9),
            (Rule::ManagementExcluded, 5),
            (Rule::NotANodeReported, 1),
            (Rule::TenantDecidedElsewhere, 9),
        ],
    );
}

#[test]
fn a_node_of_two_boot_sets_gets_what_bos_gives_it() {
    let inventory = Inventory::read();
    let mut tally = Tally::default();
    for case in lines("resolution.jsonl") {
        if !resolved(&case) || case.get("tenant").is_some() || case.get("limit").is_some() || case["operation"] == "shutdown" {
            continue;
        }
        let label = case["label"].as_str().unwrap();
        let recorded = case["boot_sets"].as_object().unwrap();
        let rules = Rules { include_disabled: case["include_disabled"].as_bool().unwrap_or(false), include_management: false };
        let sets: Vec<BootSet> = ordered(recorded, label);
        let found = resolve_template(&sets, &inventory.snapshot, None, &rules).unwrap();
        let mut deviations = BTreeSet::new();
        for (set, nodes) in sets.iter().zip(&found.boot_sets) {
            let prefix = format!("cfg-{}|", set.name);
            let written = case["written"].as_object().unwrap().iter().filter(|(key, _)| key.starts_with(&prefix));
            let bos = written.flat_map(|(_, value)| texts(&value["nodes"])).collect();
            match explain_nodes(&strings(&nodes.nodes), &bos, set.arch.as_str(), &inventory) {
                Ok(rules) => deviations.extend(rules),
                Err(why) => tally.unexplained(format!("{label} {}: {why}", set.name)),
            }
        }
        if deviations.is_empty() { tally.agreed += 1 } else { tally.deviates(deviations) }
    }
    tally.check(
        "sessions",
        30,
        &[(Rule::AbsentArchIsX86, 6), (Rule::EmptySlotExcluded, 9), (Rule::ManagementExcluded, 5), (Rule::NoSecondNodeList, 7)],
    );
}

/// Whether the recording comes to nodes at all; where image and boot set have different architectures BOS refuses the session before.
fn resolved(case: &Value) -> bool {
    let refused = case.get("per_boot_set").is_none();
    assert_eq!(refused, case["label"] == "X86 boot set with an aarch64 image", "{}", case["label"]);
    !refused
}

/// The boot sets in the order of the recording, which the parser sorts away.
fn ordered(recorded: &serde_json::Map<String, Value>, label: &str) -> Vec<BootSet> {
    let mut names: Vec<&String> = recorded.keys().collect();
    if label == "arch split" {
        names.sort_by_key(|name| ["x", "a", "o", "u"].iter().position(|known| known == name));
    }
    names.into_iter().map(|name| boot_set(name, &recorded[name])).collect()
}
