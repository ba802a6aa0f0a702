//! The names a limit may use, and what was probably meant by one that does not exist.

use std::collections::{BTreeMap, BTreeSet};

use super::{Body, Operator, ProblemKind, Term, is_below, looks_like_nid, parent_of_nodes, range_from};
use crate::resolve::{Facts, Snapshot};
use crate::xname::Xname;

/// The nodes that one item of a limit names.
#[derive(Debug)]
pub(crate) enum Selection<'a> {
    /// Every node of the boot set.
    All,
    /// One node.
    One(&'a Xname),
    /// A set of nodes.
    Many(Vec<&'a Xname>),
}

impl Selection<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::All | Self::One(_) => false,
            Self::Many(members) => members.is_empty(),
        }
    }
}

/// The inventory by name, with the roles gathered from the facts of the nodes.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    snapshot: &'a Snapshot,
    roles: BTreeMap<String, Vec<&'a Xname>>,
    /// Nodes the template names itself; HSM need not know them.
    listed: BTreeSet<Xname>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot) -> Self {
        let mut roles: BTreeMap<String, Vec<&'a Xname>> = BTreeMap::new();
        for (node, facts) in &snapshot.nodes {
            for role in roles_of(facts) {
                roles.entry(role).or_default().push(node);
            }
        }
        Self { snapshot, roles, listed: BTreeSet::new() }
    }

    /// Makes the template's own nodes known.
    pub(crate) fn with_listed(mut self, listed: BTreeSet<Xname>) -> Self {
        self.listed = listed;
        self
    }

    /// How many nodes the template means.
    pub(crate) fn listed_count(&self) -> usize {
        self.listed.len()
    }

    pub(crate) fn role(&self, name: &str) -> Option<&[&'a Xname]> {
        self.roles.get(name).map(Vec::as_slice)
    }

    /// Roles before partitions before groups before nodes before parents of nodes.
    pub(crate) fn find(&self, name: &str) -> Option<Selection<'_>> {
        if let Some(members) = self.role(name) {
            return Some(Selection::Many(members.to_vec()));
        }
        if let Some(members) = self.snapshot.partitions.get(name).or_else(|| self.snapshot.groups.get(name)) {
            return Some(Selection::Many(members.iter().collect()));
        }
        match Xname::parse(name) {
            Ok(node) => self.node(&node).map(Selection::One),
            Err(_) => self.below(name).map(Selection::Many),
        }
    }

    fn node(&self, name: &Xname) -> Option<&Xname> {
        let known = self.snapshot.nodes.get_key_value(name).map(|(node, _)| node).or_else(|| self.listed.get(name));
        let sets = || self.snapshot.groups.values().chain(self.snapshot.partitions.values());
        known.or_else(|| sets().find_map(|members| members.get(name)))
    }

    fn below(&self, name: &str) -> Option<Vec<&Xname>> {
        let parent = parent_of_nodes(name)?;
        let in_hsm = self.snapshot.nodes.range::<str, _>(range_from(&parent)).map(|(node, _)| node);
        let listed = self.listed.range::<str, _>(range_from(&parent));
        let starts = |node: &&Xname| node.as_str().starts_with(parent.as_str());
        let nodes: BTreeSet<&Xname> =
            in_hsm.take_while(starts).chain(listed.take_while(starts)).filter(|node| is_below(node, &parent)).collect();
        (!nodes.is_empty()).then(|| nodes.into_iter().collect())
    }

    /// What was probably meant by an item that could not be bound.
    pub(crate) fn suggestion(&self, term: &Term, kind: ProblemKind) -> Option<String> {
        let Body::Name(name) = &term.body else { return None };
        let meant = match kind {
            ProblemKind::Nid => self.node_with_nid(name),
            ProblemKind::Unknown => self.closest(name),
            ProblemKind::EmptyExclusion
            | ProblemKind::Empty
            | ProblemKind::EmptyItem
            | ProblemKind::OperatorAlone
            | ProblemKind::TwoOperators
            | ProblemKind::Blank
            | ProblemKind::Pattern => None,
        }?;
        Some(match term.operator {
            Operator::Add => meant,
            Operator::Keep => format!("&{meant}"),
            Operator::Remove => format!("!{meant}"),
        })
    }

    fn node_with_nid(&self, name: &str) -> Option<String> {
        let number: i64 = name.get(3..)?.parse().ok()?;
        self.snapshot.nodes.iter().find(|(_, facts)| facts.nid == Some(number)).map(|(node, _)| node.to_string())
    }

    /// The known name that differs least: in case only, a sub-role without its role, or by a letter or two.
    fn closest(&self, name: &str) -> Option<String> {
        if Xname::parse(name).is_ok() || parent_of_nodes(name).is_some() {
            // Another node is a bad guess: it would be acted on.
            return None;
        }
        let known = || {
            let sets = self.snapshot.partitions.keys().chain(self.snapshot.groups.keys()).map(String::as_str);
            std::iter::once("all").chain(self.roles.keys().map(String::as_str)).chain(sets).filter(|known| !looks_like_nid(known))
        };
        let same_letters = known().find(|known| known.eq_ignore_ascii_case(name));
        let sub_role = || {
            self.roles.keys().map(String::as_str).find(|role| role.rsplit_once('_').is_some_and(|(_, sub)| sub.eq_ignore_ascii_case(name)))
        };
        let allowed = (name.chars().count() / 3).min(2);
        let near = || {
            let with_distance = known().filter_map(|known| Some((distance(name, known, allowed)?, known)));
            with_distance.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
        };
        same_letters.or_else(sub_role).or_else(near).map(str::to_owned)
    }
}

/// The names under which a node's role can be used: `Compute` and `Compute_UAN`; a sub-role without role is `_UAN`.
fn roles_of(facts: &Facts) -> impl Iterator<Item = String> {
    let role = facts.role.as_deref().filter(|role| !role.is_empty());
    let sub = facts.sub_role.as_deref().filter(|sub| !sub.is_empty());
    let both = sub.map(|sub| format!("{}_{sub}", role.unwrap_or_default()));
    role.map(str::to_owned).into_iter().chain(both)
}

/// The number of letters to change, add or remove, if it is at most `allowed`. Upper and lower case count as equal.
fn distance(a: &str, b: &str, allowed: usize) -> Option<usize> {
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    if a.chars().count().abs_diff(b.len()) > allowed {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().map(|c| c.to_ascii_lowercase()).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(left);
        for (cb, above) in b.iter().zip(row.iter().skip(1)) {
            let changed = diagonal + usize::from(ca != *cb);
            left = changed.min(above + 1).min(left + 1);
            next.push(left);
            diagonal = *above;
        }
        row = next;
    }
    row.last().copied().filter(|distance| *distance <= allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_changed_letters() {
        for (a, b, want) in [
            ("blue", "blue", Some(0)),
            ("bleu", "blue", Some(2)),
            ("Compute_", "Compute", Some(1)),
            ("gren", "green", Some(1)),
            ("blue", "apps", None),
        ] {
            assert_eq!(distance(a, b, 2), want, "{a} {b}");
        }
    }
}
