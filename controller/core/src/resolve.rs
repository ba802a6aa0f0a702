//! Which nodes a template means, by an inventory that was read completely.
//!
//! A boot set names nodes, groups and roles; the Session's limit takes some of them; and some are excluded, each for one reason that a person
//! can see. As in BOS a node that two boot sets could boot gets the last one.
//!
//! Differences from BOS: nodes whose architecture HSM does not record belong to X86 unless a boot set of architecture Unknown takes them, as the
//! BOS documentation says and its code does not; empty slots and management nodes are excluded; and a text that is no node name is reported.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bos_crds::{Arch, BootSet};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::limit::names::Names;
use crate::limit::{BoundLimit, Limit, LimitError};
use crate::xname::Xname;

/// What HSM knows, read completely at one time. A part that could not be read must not be passed as an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Snapshot {
    /// Every component of type Node.
    pub nodes: BTreeMap<Xname, Facts>,
    /// Groups by label; a group may be empty and may name nodes HSM has no component for.
    pub groups: BTreeMap<String, BTreeSet<Xname>>,
    /// Partitions by name.
    pub partitions: BTreeMap<String, BTreeSet<Xname>>,
    /// Nodes that an administrator has locked; a reservation alone does not count.
    pub locked: BTreeSet<Xname>,
}

/// What HSM knows about one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Number of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nid: Option<i64>,
    /// Architecture as HSM writes it: X86, ARM, Other or UNKNOWN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<SmolStr>,
    /// Role, for example Compute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<SmolStr>,
    /// Sub-role, for example UAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_role: Option<SmolStr>,
    /// State, for example Ready, Off or Empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<SmolStr>,
    /// HSM's own enabled flag.
    pub enabled: bool,
}

impl Default for Facts {
    fn default() -> Self {
        Self { nid: None, arch: None, role: None, sub_role: None, state: None, enabled: true }
    }
}

/// Which nodes may be acted on although they normally are not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Nodes that HSM reports as disabled.
    pub include_disabled: bool,
    /// Nodes of role Management.
    pub include_management: bool,
}

/// Why a node that the template and the limit mean is not acted on. Where several hold, the first in this order is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Exclusion {
    /// HSM has no node of this name.
    NotInHSM,
    /// The node has role Management.
    ManagementRole,
    /// The node is locked in HSM.
    LockedInHSM,
    /// HSM says that the slot is empty.
    EmptyInHSM,
    /// The node is disabled in HSM.
    DisabledInHSM,
    /// The node has another architecture than every boot set that names it.
    ArchMismatch,
}

impl Exclusion {
    /// Every reason, in order.
    pub const ALL: [Self; 6] =
        [Self::NotInHSM, Self::ManagementRole, Self::LockedInHSM, Self::EmptyInHSM, Self::DisabledInHSM, Self::ArchMismatch];

    /// The reason as statuses show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotInHSM => "NotInHSM",
            Self::ManagementRole => "ManagementRole",
            Self::LockedInHSM => "LockedInHSM",
            Self::EmptyInHSM => "EmptyInHSM",
            Self::DisabledInHSM => "DisabledInHSM",
            Self::ArchMismatch => "ArchMismatch",
        }
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Names in a template that mean nothing to HSM; each list is sorted and without repetitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// Groups HSM does not have.
    pub groups: BTreeSet<String>,
    /// Roles that no node has.
    pub roles: BTreeSet<String>,
    /// Texts in a node list that are not names of nodes.
    pub nodes: BTreeSet<String>,
}

impl Unknown {
    /// Whether every name was known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.roles.is_empty() && self.nodes.is_empty()
    }

    fn extend(&mut self, other: Self) {
        self.groups.extend(other.groups);
        self.roles.extend(other.roles);
        self.nodes.extend(other.nodes);
    }
}

impl fmt::Display for Unknown {
    /// One line for people, with at most five names of a kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [("groups", &self.groups), ("roles", &self.roles), ("node names", &self.nodes)];
        let mut separator = "unknown to HSM: ";
        for (kind, names) in kinds.into_iter().filter(|(_, names)| !names.is_empty()) {
            let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            write!(f, "{separator}{kind} {}", shown.join(", "))?;
            if names.len() > shown.len() {
                write!(f, " +{} more", names.len() - shown.len())?;
            }
            separator = "; ";
        }
        Ok(())
    }
}

/// The nodes of one boot set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// The nodes to act on, sorted.
    pub nodes: Vec<Xname>,
    /// The nodes that are left out, sorted, by reason. Nodes outside the limit are not here: nobody asked for them.
    pub excluded: BTreeMap<Exclusion, Vec<Xname>>,
    /// Names in the boot set that mean nothing to HSM.
    pub unknown: Unknown,
    /// How many nodes of the boot set the limit left out.
    pub outside_limit: usize,
}

/// The nodes of a whole template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateResolution {
    /// The nodes of each boot set, in the template's order; no node is in two of them.
    pub boot_sets: Vec<BootSetNodes>,
    /// The nodes that no boot set can boot, sorted, by their first reason.
    pub excluded: BTreeMap<Exclusion, Vec<Xname>>,
    /// Names in the template that mean nothing to HSM.
    pub unknown: Unknown,
    /// How many nodes of the template the limit left out.
    pub outside_limit: usize,
    /// Nodes that more than one boot set could boot; the last one got them.
    pub repeated: Vec<Xname>,
}

impl TemplateResolution {
    /// Leaves only these nodes; the others count as outside the limit.
    pub fn retain(&mut self, only: &BTreeSet<Xname>) {
        let count = |result: &Self| result.node_count() + result.excluded.values().map(Vec::len).sum::<usize>();
        let before = count(self);
        self.boot_sets.iter_mut().for_each(|set| set.nodes.retain(|node| only.contains(node)));
        self.excluded.values_mut().for_each(|nodes| nodes.retain(|node| only.contains(node)));
        self.excluded.retain(|_, nodes| !nodes.is_empty());
        self.repeated.retain(|node| only.contains(node));
        self.outside_limit += before - count(self);
    }

    /// Leaves only a tenant's nodes; returns the others.
    pub fn retain_owned(&mut self, owned: &BTreeSet<Xname>) -> Vec<Xname> {
        let mut foreign = BTreeSet::new();
        let lists = self.boot_sets.iter_mut().map(|set| &mut set.nodes).chain(self.excluded.values_mut());
        for list in lists {
            foreign.extend(list.extract_if(.., |node| !owned.contains(node)));
        }
        self.excluded.retain(|_, nodes| !nodes.is_empty());
        self.repeated.retain(|node| owned.contains(node));
        foreign.into_iter().collect()
    }

    /// How many nodes are acted on.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.boot_sets.iter().map(|boot_set| boot_set.nodes.len()).sum()
    }
}

/// The nodes that boot by one boot set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSetNodes {
    /// Name of the boot set.
    pub name: String,
    /// Its nodes, sorted; may be empty.
    pub nodes: Vec<Xname>,
}

/// Finds the nodes of one boot set.
///
/// # Errors
/// When the limit names what HSM does not know, or excludes an empty set.
pub fn resolve(boot_set: &BootSet, snapshot: &Snapshot, limit: Option<&Limit>, rules: &Rules) -> Result<Resolution, LimitError> {
    let (mut resolutions, _) = resolve_each(std::slice::from_ref(boot_set), snapshot, limit, rules)?;
    Ok(resolutions.pop().unwrap_or_default())
}

/// Finds the nodes of all boot sets of a template.
///
/// # Errors
/// When the limit names what HSM does not know, or excludes an empty set.
pub fn resolve_template(
    boot_sets: &[BootSet],
    snapshot: &Snapshot,
    limit: Option<&Limit>,
    rules: &Rules,
) -> Result<TemplateResolution, LimitError> {
    let (resolutions, outside_limit) = resolve_each(boot_sets, snapshot, limit, rules)?;
    let mut result = TemplateResolution { outside_limit, ..TemplateResolution::default() };
    result.boot_sets = boot_sets.iter().map(|boot_set| BootSetNodes { name: boot_set.name.clone(), nodes: Vec::new() }).collect();
    let mut owner: BTreeMap<&Xname, usize> = BTreeMap::new();
    let mut repeated: BTreeSet<&Xname> = BTreeSet::new();
    for (index, node) in
        resolutions.iter().enumerate().flat_map(|(index, resolution)| resolution.nodes.iter().map(move |node| (index, node)))
    {
        match owner.entry(node) {
            Entry::Vacant(entry) => drop(entry.insert(index)),
            Entry::Occupied(mut entry) => {
                repeated.insert(node);
                if !keeps(boot_sets, *entry.get(), index) {
                    entry.insert(index);
                }
            }
        }
    }
    result.excluded = first_reasons(&resolutions, |node| owner.contains_key(node));
    result.repeated = repeated.into_iter().cloned().collect();
    for (node, index) in owner {
        if let Some(boot_set) = result.boot_sets.get_mut(index) {
            boot_set.nodes.push(node.clone());
        }
    }
    for resolution in resolutions {
        result.unknown.extend(resolution.unknown);
    }
    Ok(result)
}

/// Whether the earlier boot set keeps a node that a later one could boot too. Only nodes without architecture fit both X86 and Unknown.
fn keeps(boot_sets: &[BootSet], earlier: usize, later: usize) -> bool {
    let arch = |index| boot_sets.get(index).map(|boot_set: &BootSet| boot_set.arch);
    arch(earlier) == Some(Arch::Unknown) && arch(later) == Some(Arch::X86)
}

/// The nodes nobody took, each with the first of the reasons the boot sets gave.
fn first_reasons(resolutions: &[Resolution], taken: impl Fn(&Xname) -> bool) -> BTreeMap<Exclusion, Vec<Xname>> {
    let mut reasons: BTreeMap<&Xname, Exclusion> = BTreeMap::new();
    for (reason, nodes) in resolutions.iter().flat_map(|resolution| &resolution.excluded) {
        for node in nodes.iter().filter(|node| !taken(node)) {
            reasons.entry(node).and_modify(|first| *first = (*reason).min(*first)).or_insert(*reason);
        }
    }
    let mut excluded: BTreeMap<Exclusion, Vec<Xname>> = BTreeMap::new();
    for (node, reason) in reasons {
        excluded.entry(reason).or_default().push(node.clone());
    }
    excluded
}

/// Each boot set by itself, and how many nodes of all of them together are outside the limit.
fn resolve_each(
    boot_sets: &[BootSet],
    snapshot: &Snapshot,
    limit: Option<&Limit>,
    rules: &Rules,
) -> Result<(Vec<Resolution>, usize), LimitError> {
    let names = Names::new(snapshot);
    let meant: Vec<(BTreeSet<Xname>, Unknown)> = boot_sets.iter().map(|boot_set| members(boot_set, snapshot, &names)).collect();
    let all: BTreeSet<Xname> = meant.iter().flat_map(|(nodes, _)| nodes).cloned().collect();
    let names = names.with_listed(all);
    let bound = limit.map(|limit| limit.bind(&names)).transpose()?;
    let mut limited: BTreeSet<Xname> = BTreeSet::new();
    let mut resolutions = Vec::with_capacity(boot_sets.len());
    for (boot_set, (base, unknown)) in boot_sets.iter().zip(meant) {
        let selected = bound.as_ref().map_or_else(|| base.clone(), |limit: &BoundLimit<'_>| limit.apply(&base));
        let outside_limit = base.len().saturating_sub(selected.len());
        resolutions.push(classify(
            &selected,
            boot_set.arch,
            snapshot,
            rules,
            Resolution { unknown, outside_limit, ..Resolution::default() },
        ));
        limited.extend(selected);
    }
    Ok((resolutions, names.listed_count().saturating_sub(limited.len())))
}

/// The nodes a boot set means, before limit and exclusions.
fn members(boot_set: &BootSet, snapshot: &Snapshot, names: &Names<'_>) -> (BTreeSet<Xname>, Unknown) {
    let mut nodes = BTreeSet::new();
    let mut unknown = Unknown::default();
    for text in &boot_set.node_list {
        match Xname::parse(text) {
            Ok(node) => drop(nodes.insert(node)),
            Err(error) => drop(unknown.nodes.insert(error.text)),
        }
    }
    for group in &boot_set.node_groups {
        match snapshot.groups.get(group) {
            Some(members) => nodes.extend(members.iter().cloned()),
            None => drop(unknown.groups.insert(group.clone())),
        }
    }
    for role in &boot_set.node_roles_groups {
        match names.role(role) {
            Some(members) => nodes.extend(members.iter().copied().cloned()),
            None => drop(unknown.roles.insert(role.clone())),
        }
    }
    (nodes, unknown)
}

/// Sorts the selected nodes into those to act on and those to leave out.
fn classify(selected: &BTreeSet<Xname>, arch: Arch, snapshot: &Snapshot, rules: &Rules, mut result: Resolution) -> Resolution {
    for node in selected {
        match exclusion(node, arch, snapshot, rules) {
            None => result.nodes.push(node.clone()),
            Some(reason) => result.excluded.entry(reason).or_default().push(node.clone()),
        }
    }
    result
}

fn exclusion(node: &Xname, arch: Arch, snapshot: &Snapshot, rules: &Rules) -> Option<Exclusion> {
    let facts = snapshot.nodes.get(node);
    let mismatch = facts.is_some_and(|facts| !arch_matches(arch, facts.arch.as_deref()));
    excluded(facts, snapshot.locked.contains(node), rules).or_else(|| mismatch.then_some(Exclusion::ArchMismatch))
}

/// Why nothing is done to a node, by what HSM says of it alone.
#[must_use]
pub fn excluded(facts: Option<&Facts>, locked: bool, rules: &Rules) -> Option<Exclusion> {
    let Some(facts) = facts else { return Some(Exclusion::NotInHSM) };
    let reasons = [
        (Exclusion::ManagementRole, !rules.include_management && is_management(facts)),
        (Exclusion::LockedInHSM, locked),
        (Exclusion::EmptyInHSM, crate::discovery::is_empty(facts)),
        (Exclusion::DisabledInHSM, !rules.include_disabled && !facts.enabled),
    ];
    reasons.into_iter().find(|(_, holds)| *holds).map(|(reason, _)| reason)
}

fn is_management(facts: &Facts) -> bool {
    facts.role.as_deref().is_some_and(|role| role.eq_ignore_ascii_case("management"))
}

/// Whether a node of HSM's architecture `recorded` belongs to a boot set of architecture `wanted`.
///
/// An architecture that HSM does not record says nothing against X86, the architecture of every system before HSM knew the attribute. As in BOS,
/// HSM's `UNKNOWN` means X86, and `Unknown` takes the nodes without architecture; a template with both boot sets gives such a node to `Unknown`.
#[must_use]
pub fn arch_matches(wanted: Arch, recorded: Option<&str>) -> bool {
    let recorded = recorded.filter(|arch| !arch.is_empty());
    match wanted {
        Arch::X86 => matches!(recorded, None | Some("X86" | "UNKNOWN")),
        Arch::Arm => recorded == Some("ARM"),
        Arch::Other => recorded == Some("Other"),
        Arch::Unknown => matches!(recorded, None | Some("Unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(nodes: &[(&str, Facts)]) -> Snapshot {
        Snapshot { nodes: nodes.iter().map(|(name, facts)| (node(name), facts.clone())).collect(), ..Snapshot::default() }
    }

    fn node(name: &str) -> Xname {
        Xname::parse(name).unwrap()
    }

    fn x86() -> Facts {
        Facts { arch: Some("X86".into()), role: Some("Compute".into()), ..Facts::default() }
    }

    fn set(name: &str, arch: Arch, list: &[&str]) -> BootSet {
        BootSet { name: name.into(), arch, node_list: list.iter().map(|&node| node.into()).collect(), ..BootSet::default() }
    }

    #[test]
    fn each_excluded_node_has_one_reason() {
        let inventory = Snapshot {
            locked: [node("x1c0s0b0n1"), node("x1c0s0b0n9")].into(),
            ..snapshot(&[
                ("x1c0s0b0n0", x86()),
                ("x1c0s0b0n1", Facts { enabled: false, ..x86() }),
                ("x1c0s0b0n2", Facts { enabled: false, ..x86() }),
                ("x1c0s0b0n3", Facts { role: Some("Management".into()), ..x86() }),
                ("x1c0s0b0n4", Facts { state: Some("Empty".into()), ..x86() }),
                ("x1c0s0b0n5", Facts { arch: Some("ARM".into()), ..x86() }),
            ])
        };
        let all: Vec<String> = (0..6).chain([9]).map(|n| format!("X1c0s0b0n{n}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let found = resolve(&set("a", Arch::X86, &all), &inventory, None, &Rules::default()).unwrap();
        assert_eq!(found.nodes, [node("x1c0s0b0n0")]);
        let want = [
            (Exclusion::NotInHSM, "x1c0s0b0n9"),
            (Exclusion::ManagementRole, "x1c0s0b0n3"),
            (Exclusion::LockedInHSM, "x1c0s0b0n1"),
            (Exclusion::EmptyInHSM, "x1c0s0b0n4"),
            (Exclusion::DisabledInHSM, "x1c0s0b0n2"),
            (Exclusion::ArchMismatch, "x1c0s0b0n5"),
        ];
        assert_eq!(found.excluded, want.map(|(reason, name)| (reason, vec![node(name)])).into());
        let rules = Rules { include_disabled: true, include_management: true };
        assert_eq!(resolve(&set("a", Arch::X86, &all), &inventory, None, &rules).unwrap().nodes.len(), 3);
    }

    #[test]
    fn a_node_belongs_to_one_boot_set_and_is_excluded_only_if_none_takes_it() {
        let arm = Facts { arch: Some("ARM".into()), ..x86() };
        let bare = Facts { arch: None, ..x86() };
        let inventory = snapshot(&[
            ("x1c0s0b0n0", x86()),
            ("x1c0s0b0n1", arm),
            ("x1c0s0b0n2", bare),
            ("x1c0s0b0n3", Facts { arch: Some("Other".into()), ..x86() }),
        ]);
        let all = ["x1c0s0b0n0", "x1c0s0b0n1", "x1c0s0b0n2", "x1c0s0b0n3"];
        let sets = [set("u", Arch::Unknown, &all), set("x", Arch::X86, &all), set("a", Arch::Arm, &all), set("x2", Arch::X86, &all[..1])];
        let found = resolve_template(&sets, &inventory, None, &Rules::default()).unwrap();
        let nodes: Vec<(&str, Vec<Xname>)> = found.boot_sets.iter().map(|set| (set.name.as_str(), set.nodes.clone())).collect();
        assert_eq!(nodes, [("u", vec![node(all[2])]), ("x", vec![]), ("a", vec![node(all[1])]), ("x2", vec![node(all[0])])]);
        assert_eq!(found.repeated, [node(all[0]), node(all[2])]);
        assert_eq!(found.excluded, [(Exclusion::ArchMismatch, vec![node(all[3])])].into());
        assert_eq!(found.node_count(), 3);
    }

    #[test]
    fn counts_what_the_limit_leaves_out_and_reports_unknown_names() {
        let inventory = snapshot(&[("x1c0s0b0n0", x86()), ("x2c0s0b0n0", x86())]);
        let template = [BootSet {
            node_groups: vec!["nope".into()],
            node_roles_groups: vec!["Compute".into(), "compute".into()],
            ..set("a", Arch::X86, &["x1c0s0b0", "x3c0s0b0n0"])
        }];
        let limit = Limit::parse("x1").unwrap();
        let found = resolve_template(&template, &inventory, Some(&limit), &Rules::default()).unwrap();
        assert_eq!((found.node_count(), found.outside_limit), (1, 2));
        assert_eq!(found.unknown.to_string(), "unknown to HSM: groups nope; roles compute; node names x1c0s0b0");
        // HSM does not know the listed node, but the template does, so a limit may name it.
        let limit = Limit::parse("all,!x3").unwrap();
        assert_eq!(resolve_template(&template, &inventory, Some(&limit), &Rules::default()).unwrap().excluded, BTreeMap::new());
    }

    #[test]
    fn limits_suggest_what_was_meant() {
        let uan = Facts { role: Some("Application".into()), sub_role: Some("UAN".into()), nid: Some(7), ..x86() };
        let inventory = Snapshot { groups: [("blue".into(), BTreeSet::new())].into(), ..snapshot(&[("x1c0s0b0n0", uan)]) };
        let template = [set("a", Arch::X86, &["x1c0s0b0n0"])];
        let limit = Limit::parse("Blue,!uan,nid000007,aplication,all,!blue,x2").unwrap();
        let error = resolve_template(&template, &inventory, Some(&limit), &Rules::default()).unwrap_err();
        let meant: Vec<Option<&str>> = error.problems.iter().map(|problem| problem.suggestion.as_deref()).collect();
        assert_eq!(meant, [Some("blue"), Some("!Application_UAN"), Some("x1c0s0b0n0"), Some("Application"), None, None]);
        assert_eq!(
            error.problems[0].to_string(),
            r#"item 1 ("Blue") is not known to HSM: no role, partition, group or node has this name, and no node is below it (did you mean "blue"?)"#
        );
    }

    /// A small inventory whose nodes have every combination of the facts that matter.
    fn varied() -> Snapshot {
        let mut inventory = Snapshot::default();
        for n in 0..64u32 {
            let name = node(&format!("x{}c0s{}b0n{}", n / 32, n / 4 % 8, n % 4));
            let facts = Facts {
                arch: [Some("X86"), Some("ARM"), None][(n % 3) as usize].map(SmolStr::from),
                role: [Some("Compute"), Some("Management"), Some("Compute")][(n / 3 % 3) as usize].map(SmolStr::from),
                enabled: n % 7 != 0,
                ..Facts::default()
            };
            if n % 5 == 0 {
                inventory.locked.insert(name.clone());
            }
            inventory.groups.entry(format!("g{}", n % 4)).or_default().insert(name.clone());
            inventory.nodes.insert(name, facts);
        }
        inventory
    }

    proptest::proptest! {
        #[test]
        fn every_node_is_taken_once_or_excluded_once_or_outside_the_limit(
            groups in proptest::collection::vec((proptest::collection::vec(0u32..4, 1..3), 0usize..4), 1..5),
            limit in proptest::option::of("(all|x0|x1|!x1|g[0-3])(,[!&]?(g[0-3]|x0|x1c0s[0-7]|Compute)){0,4}"),
        ) {
            let inventory = varied();
            let sets: Vec<BootSet> = groups.iter().enumerate().map(|(index, (groups, arch))| BootSet {
                node_groups: groups.iter().map(|group| format!("g{group}")).collect(),
                ..set(&format!("s{index}"), Arch::ALL[*arch], &[])
            }).collect();
            let meant: BTreeSet<&Xname> = sets.iter().flat_map(|set| &set.node_groups).flat_map(|group| &inventory.groups[group]).collect();
            let limit = limit.map(|limit| Limit::parse(&limit).unwrap());
            let found = resolve_template(&sets, &inventory, limit.as_ref(), &Rules::default()).unwrap();
            let mut seen = BTreeSet::new();
            for name in found.boot_sets.iter().flat_map(|set| &set.nodes).chain(found.excluded.values().flatten()) {
                proptest::prop_assert!(meant.contains(name) && seen.insert(name), "{name} twice, or nobody asked for it");
            }
            proptest::prop_assert_eq!(seen.len() + found.outside_limit, meant.len());
        }
    }
}
