//! The discovery operator: asks HSM for its inventory at a slow pace, so that every node has a BootComponent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::fold::Fault;
use crate::health::Service;
use crate::model::{Identity, Node, NodeId, World};
use crate::resolve::{Facts, Snapshot};
use crate::time::Timestamp;
use crate::want::Want;
use crate::xname::Xname;

/// An inventory that cannot be believed is read again this soon.
const FAULT_PAUSE: Duration = Duration::from_secs(30);

/// Asks for an inventory when one is due.
#[must_use]
pub fn reconcile(world: &World, now: Timestamp) -> Vec<Want> {
    let due = !world.discovery.reading && now >= world.discovery.due && world.services.may_call(Service::Hsm, now);
    if due { vec![Want::ReadInventory] } else { Vec::new() }
}

/// Whether an inventory of `seen` nodes may be believed when `known` were known before (rule 9).
///
/// # Errors
/// Says why not, for people.
pub fn believe(seen: usize, known: usize, shrink_percent: usize) -> Result<(), String> {
    if seen == 0 {
        return Err("HSM answered with an empty inventory".to_owned());
    }
    let missing = known.saturating_sub(seen);
    if missing > 0 && missing.saturating_mul(100) >= known.saturating_mul(shrink_percent.max(1)) {
        return Err(format!(
            "HSM answered with {seen} nodes where {known} are known; nothing was changed. If {missing} nodes were really removed, delete their BootComponents"
        ));
    }
    Ok(())
}

impl World {
    /// The regular inventory, or why there is none. Returns nodes that have no BootComponent yet.
    pub fn fold_inventory(&mut self, read: Result<Snapshot, Fault>, now: Timestamp) -> Vec<NodeId> {
        self.discovery.reading = false;
        let snapshot = match read {
            Ok(snapshot) => snapshot,
            Err(fault) => {
                self.fold_fault(&fault, now);
                return Vec::new();
            }
        };
        self.fold_answer(Service::Hsm, now);
        self.discovery.due = now + self.options.discovery_frequency;
        if let Err(fault) = believe(snapshot.nodes.len(), self.expected_nodes(), self.options.inventory_shrink_percent) {
            self.discovery.fault = Some(fault.into());
            self.discovery.due = now + self.options.discovery_frequency.min(FAULT_PAUSE);
            return Vec::new();
        }
        self.discovery.fault = None;
        self.discovery.largest = self.discovery.largest.max(snapshot.nodes.len());
        self.discovery.accepted = self.discovery.began;
        let first = !std::mem::replace(&mut self.discovery.complete, true);
        self.note_inventory(&snapshot, now);
        if first {
            // Until now nobody could tell that HSM does not know them.
            let unknown: Vec<NodeId> = self.nodes_where(|node| node.facts.is_none()).collect();
            self.touched.extend(unknown);
        }
        let listed = snapshot.nodes.keys().filter_map(|xname| self.by_name.get(xname).copied());
        listed.filter(|id| self.node(*id).is_some_and(|node| !node.recorded)).collect()
    }

    /// The measure against which an inventory may shrink.
    fn expected_nodes(&self) -> usize {
        if self.is_agent { self.discovery.largest } else { self.known_nodes() }
    }

    /// Nodes known to exist: those with a BootComponent.
    #[must_use]
    pub fn known_nodes(&self) -> usize {
        self.nodes.iter().filter(|node| node.recorded).count()
    }

    /// The hardware addresses of nodes, as HSM knows them. A node none of whose addresses stayed is another one.
    pub fn fold_interfaces(&mut self, found: BTreeMap<Xname, BTreeSet<Arc<str>>>, now: Timestamp) {
        for (xname, macs) in found {
            let Some(id) = self.by_name.get(&xname).copied() else { continue };
            if self.node(id).is_none_or(|node| node.macs == macs || macs.is_empty()) {
                continue;
            }
            let Some(node) = self.node_mut(id) else { continue };
            let other = !node.macs.is_empty() && node.macs.is_disjoint(&macs);
            node.macs = macs;
            if other {
                let before = node.replaced;
                node.was_replaced();
                if before {
                    continue;
                }
                self.unstage_replaced(id, now);
            }
        }
    }

    /// Takes what a believed inventory says of each node: new ones, changed ones, and those it does not list any more.
    pub(crate) fn note_inventory(&mut self, snapshot: &Snapshot, now: Timestamp) {
        for (xname, facts) in &snapshot.nodes {
            let id = self.intern(xname);
            let locked = snapshot.locked.contains(xname);
            let known = self.node(id).is_some_and(|node| node.facts.as_ref() == Some(facts) && node.locked == locked);
            if let Some(node) = if known { None } else { self.node_mut(id) } {
                let before = node.replaced;
                node.seen_in_inventory(facts, locked);
                if node.replaced && !before {
                    self.unstage_replaced(id, now);
                }
            }
        }
        let gone: Vec<NodeId> = self.nodes_where(|node| node.vanished_from(snapshot)).collect();
        for id in gone {
            if let Some(node) = self.node_mut(id) {
                node.before = node.identity();
                node.facts = None;
            }
        }
    }
}

impl Node {
    fn vanished_from(&self, snapshot: &Snapshot) -> bool {
        self.facts.is_some() && !snapshot.nodes.contains_key(&self.xname)
    }

    fn identity(&self) -> Identity {
        let Some(facts) = &self.facts else { return self.before };
        Identity { nid: facts.nid.or(self.before.nid), empty: is_empty(facts) }
    }

    fn seen_in_inventory(&mut self, facts: &Facts, locked: bool) {
        let before = self.identity();
        let other_nid = before.nid.is_some() && facts.nid.is_some() && before.nid != facts.nid;
        self.before = before;
        self.facts = Some(facts.clone());
        self.locked = locked;
        if self.replaced || other_nid || (before.empty && !is_empty(facts)) {
            self.was_replaced();
        }
    }

    fn was_replaced(&mut self) {
        self.replaced = true;
        if self.drive.is_none() {
            self.forget_hardware();
        }
    }

    /// Another node is in its place: image, attempts and error of the old one say nothing about it.
    pub(crate) fn forget_hardware(&mut self) {
        self.reported = None;
        self.heard = None;
        self.last = None;
        self.failed_in = None;
        self.left = None;
    }
}

/// Whether HSM says that the slot is empty.
#[must_use]
pub fn is_empty(facts: &Facts) -> bool {
    facts.state.as_deref().is_some_and(|state| state.eq_ignore_ascii_case("empty"))
}

#[cfg(test)]
mod tests {
    use super::believe;

    #[test]
    fn an_empty_or_shrunken_inventory_is_a_fault() {
        assert!(believe(0, 0, 10).is_err());
        assert!(believe(0, 100, 10).is_err());
        assert!(believe(50, 100, 10).is_err());
        assert!(believe(90, 100, 10).is_err());
        assert!(believe(91, 100, 10).is_ok());
        assert!(believe(100, 0, 10).is_ok());
        assert!(believe(120, 100, 10).is_ok());
    }
}
