//! The recorded inventory, a small model of BOS's limits, and the tally of deviations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::PathBuf;

use bos_core::resolve::{Facts, Snapshot};
use bos_core::xname::Xname;
use serde_json::Value;

/// A difference from BOS that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// BOS ends the session with an index error; we refuse the limit.
    EmptyItemRefused,
    /// An operator without a name means no nodes in BOS; we refuse the limit.
    OperatorAloneRefused,
    /// BOS takes the second operator for a part of the name; we refuse the limit.
    TwoOperatorsRefused,
    /// BOS takes a text with a blank for a name; we refuse the limit.
    BlankRefused,
    /// BOS takes a pattern for a name; we refuse the limit.
    PatternRefused,
    /// An unknown name means no nodes in BOS; we refuse the limit.
    UnknownNameRefused,
    /// BOS takes a NID for a name; we refuse the limit.
    NidRefused,
    /// Excluding an empty set excludes nothing in BOS; we refuse the limit.
    EmptyExclusionRefused,
    /// BOS keeps blanks around items; we drop them.
    BlanksTrimmed,
    /// BOS starts from no nodes even if the first item takes nodes away; we start from all.
    StartsFromAll,
    /// BOS takes the parent of nodes for an unknown node; we select what is below it.
    ParentOfNodes,
    /// BOS accepts NIDs in upper case where the site refuses NIDs.
    NidInAnyCase,
    /// BOS drops nodes without architecture from X86, against its documentation.
    AbsentArchIsX86,
    /// BOS acts on empty slots.
    EmptySlotExcluded,
    /// BOS acts on management nodes.
    ManagementExcluded,
    /// BOS passes on texts that name no node.
    NotANodeReported,
    /// BOS drops nodes its own database does not have; we have no second list of nodes.
    NoSecondNodeList,
    /// Tenancy is decided by namespace, not here; the recorded nodes are ours cut to the tenant's.
    TenantDecidedElsewhere,
    /// BOS refuses a provider that is null; a field that is null does not exist in Kubernetes.
    NullProviderIsAbsent,
    /// BOS refuses cpss3 since 2.45.
    Cpss3Supported,
    /// BOS hands line breaks to BSS.
    LineBreaksBecomeBlanks,
}

/// How often cases agreed, and how often each rule was the reason that they did not.
#[derive(Debug)]
pub(crate) struct Tally<R> {
    pub(crate) agreed: usize,
    pub(crate) rules: BTreeMap<R, usize>,
    pub(crate) unexplained: Vec<String>,
}

impl<R> Default for Tally<R> {
    fn default() -> Self {
        Self { agreed: 0, rules: BTreeMap::new(), unexplained: Vec::new() }
    }
}

impl<R: Copy + Ord + fmt::Debug> Tally<R> {
    pub(crate) fn deviates(&mut self, rules: impl IntoIterator<Item = R>) {
        for rule in rules {
            *self.rules.entry(rule).or_default() += 1;
        }
    }

    pub(crate) fn unexplained(&mut self, case: impl fmt::Display) {
        self.unexplained.push(case.to_string());
    }

    /// Prints the counts, and compares them with those of the last review where the recording is the one that was reviewed.
    /// Whatever the recording, no case may be unexplained.
    pub(crate) fn check(&self, title: &str, agreed: usize, rules: &[(R, usize)]) {
        println!("{title}: {} agree; {:?}; {} unexplained", self.agreed, self.rules, self.unexplained.len());
        assert!(self.unexplained.is_empty(), "{title}:\n{}", self.unexplained.join("\n"));
        if recorded_bytes() == REVIEWED {
            assert_eq!(self.rules, rules.iter().copied().collect(), "{title}");
            assert_eq!(self.agreed, agreed, "{title}");
        }
    }
}

/// Size of the recording whose counts were reviewed.
const REVIEWED: u64 = 1_899_591;

fn recorded_bytes() -> u64 {
    let data = fs::read_dir("tests/data").unwrap();
    let recorded = data.map(Result::unwrap).filter(|file| file.path().extension().is_some_and(|end| end == "jsonl"));
    recorded.map(|file| file.metadata().unwrap().len()).sum()
}

pub(crate) fn read(name: &str) -> String {
    let path = PathBuf::from("tests/data").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn lines(name: &str) -> Vec<Value> {
    read(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The recorded inventory.
pub(crate) struct Inventory {
    pub(crate) snapshot: Snapshot,
    pub(crate) raw: Value,
}

impl Inventory {
    pub(crate) fn read() -> Self {
        let raw: Value = serde_json::from_str(&read("inventory.json")).unwrap();
        let nodes = raw["nodes"].as_array().unwrap().iter().map(|node| (Xname::parse(node["ID"].as_str().unwrap()).unwrap(), facts(node)));
        let sets = |key: &str| -> BTreeMap<String, BTreeSet<Xname>> {
            raw[key].as_object().unwrap().iter().map(|(name, members)| (name.clone(), names(members))).collect()
        };
        let snapshot =
            Snapshot { nodes: nodes.collect(), groups: sets("groups"), partitions: sets("partitions"), locked: names(&raw["locked"]) };
        Self { snapshot, raw }
    }

    /// BOS's own meaning of a name in a limit.
    fn members(&self, name: &str) -> BTreeSet<String> {
        let role: BTreeSet<String> = self.raw["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|node| has_role(node, name))
            .map(|node| text(&node["ID"]).unwrap())
            .collect();
        if !role.is_empty() {
            return role;
        }
        for kind in ["partitions", "groups"] {
            if let Some(members) = self.raw[kind].get(name) {
                return texts(members).into_iter().collect();
            }
        }
        BTreeSet::from([name.to_owned()])
    }

    /// Whether anything has this name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        let members = self.members(name);
        !(members.len() == 1 && members.contains(name) && !self.raw["nodes"].as_array().unwrap().iter().any(|node| node["ID"] == *name))
            || self.raw["groups"].get(name).is_some()
    }

    pub(crate) fn is_empty_set(&self, name: &str) -> bool {
        self.members(name).is_empty()
    }

    /// The nodes below a parent such as `x1000`.
    pub(crate) fn below(&self, parent: &str) -> Vec<String> {
        let ids = self.raw["nodes"].as_array().unwrap().iter().map(|node| text(&node["ID"]).unwrap());
        ids.filter(|id| id.strip_prefix(parent).is_some_and(|rest| rest.starts_with(['c', 's', 'b', 'n']))).collect()
    }

    /// What BOS makes of a limit; `None` where it fails.
    pub(crate) fn bos_limit(&self, limit: &str, base: &BTreeSet<String>) -> Option<BTreeSet<String>> {
        self.bos_limit_with(limit, base, |name| self.members(name))
    }

    /// What BOS would make of a limit if it knew the parents of nodes.
    pub(crate) fn bos_limit_with_parents(&self, limit: &str, base: &BTreeSet<String>) -> Option<BTreeSet<String>> {
        self.bos_limit_with(limit, base, |name| if self.knows(name) { self.members(name) } else { self.below(name).into_iter().collect() })
    }

    fn bos_limit_with(&self, limit: &str, base: &BTreeSet<String>, members: impl Fn(&str) -> BTreeSet<String>) -> Option<BTreeSet<String>> {
        let mut chosen = BTreeSet::new();
        for item in limit.split(',') {
            let first = item.chars().next()?;
            let name = if matches!(first, '!' | '&') { &item[1..] } else { item };
            let members = if matches!(name, "all" | "*") { base.clone() } else { members(name) };
            chosen = match first {
                '!' => &chosen - &members,
                '&' => &chosen & &members,
                _ => &chosen | &members,
            };
        }
        Some(&chosen & base)
    }
}

fn has_role(node: &Value, name: &str) -> bool {
    let role = node["Role"].as_str().unwrap_or_default();
    let sub = node["SubRole"].as_str();
    (!role.is_empty() && role == name) || sub.is_some_and(|sub| format!("{role}_{sub}") == name)
}

fn facts(node: &Value) -> Facts {
    Facts {
        nid: node["NID"].as_i64(),
        arch: text(&node["Arch"]).map(Into::into),
        role: text(&node["Role"]).map(Into::into),
        sub_role: text(&node["SubRole"]).map(Into::into),
        state: text(&node["State"]).map(Into::into),
        enabled: node["Enabled"].as_bool().unwrap(),
    }
}

pub(crate) fn names(value: &Value) -> BTreeSet<Xname> {
    texts(value).iter().map(|text| Xname::parse(text).unwrap()).collect()
}

pub(crate) fn strings<'a>(nodes: impl IntoIterator<Item = &'a Xname>) -> BTreeSet<String> {
    nodes.into_iter().map(ToString::to_string).collect()
}
