//! HSM: what it says of nodes, what people change there, and how the operator reads it.

use bos_core::discovery::is_empty;
use bos_core::fold::Fault;
use bos_core::health::Service;
use bos_core::model::{Identity, Node, NodeId, SessionUid, World};
use bos_core::resolve::{Facts, Snapshot};
use bos_core::session_setup::{SetupFault, SetupRead};

use super::coverage::Input;
use super::fixture::{setup, snapshot, uid, xname};
use super::operator::{Event, Sim};
use super::site::{By, Site};

/// The inventory at the beginning: nodes with their numbers.
pub(crate) fn inventory(count: usize) -> Snapshot {
    let mut inventory = snapshot(count);
    for (facts, nid) in inventory.nodes.values_mut().zip(1..) {
        facts.nid = Some(nid);
    }
    inventory
}

/// What the record of a node keeps of that.
pub(crate) fn identities(inventory: &Snapshot) -> Vec<Identity> {
    inventory.nodes.values().map(|facts| Identity { nid: facts.nid, empty: is_empty(facts) }).collect()
}

/// What the status of a node says of that.
pub(crate) fn identity(node: &Node) -> Identity {
    let Some(facts) = &node.facts else { return node.before };
    Identity { nid: facts.nid.or(node.before.nid), empty: is_empty(facts) }
}

impl Site {
    pub(crate) fn locked(&self, id: NodeId) -> bool {
        self.inventory.locked.contains(&xname(id.0 as usize))
    }

    /// HSM is told something else of a node. One that it does not list cannot be changed.
    pub(crate) fn facts(&mut self, index: usize, change: impl FnOnce(&mut Facts)) {
        if let Some(facts) = self.inventory.nodes.get_mut(&xname(index)) {
            change(facts);
        }
    }
}

impl Sim {
    pub(crate) fn lock(&mut self, index: usize, lock: bool) {
        let locked = &mut self.site.inventory.locked;
        let _ = if lock { locked.insert(xname(index)) } else { locked.remove(&xname(index)) };
    }

    /// HSM lists a node no more, or again.
    pub(crate) fn unlist(&mut self, index: usize, away: bool) {
        if away {
            self.unlisted.extend(self.site.inventory.nodes.remove_entry(&xname(index)));
        } else if let Some(facts) = self.unlisted.remove(&xname(index)) {
            self.site.inventory.nodes.insert(xname(index), facts);
        }
    }

    /// The slot is empty, or has its node again; either is off.
    pub(crate) fn empty(&mut self, index: usize, empty: bool) {
        self.site.facts(index, |facts| facts.state = Some(if empty { "Empty" } else { "Off" }.into()));
        self.pulled(index);
    }

    /// Another node is in the slot, with a number of its own.
    pub(crate) fn replace(&mut self, index: usize) {
        self.site.facts(index, |facts| facts.nid = facts.nid.map(|nid| nid + 1000));
        self.pulled(index);
    }

    fn pulled(&mut self, index: usize) {
        let node = NodeId(u32::try_from(index).unwrap());
        self.check.touched_by_person(node, self.now);
        self.switch(node, false, By::Person);
    }

    pub(crate) fn read_inventory(&mut self, life: u32) {
        let failed = self.fails(Service::Hsm).is_some();
        let inventory = self.site.inventory.clone();
        if !failed {
            self.note_inventory(life, &inventory);
        }
        self.fold(life, |world, now| {
            let read = if failed { Err(fault(Service::Hsm)) } else { Ok(inventory) };
            for id in world.fold_inventory(read, now) {
                world.nodes[id.0 as usize].recorded = true;
            }
        });
    }

    pub(crate) fn set_up(&mut self, life: u32, uid: &SessionUid) {
        let failed = [Service::Hsm, Service::S3].into_iter().find(|service| self.fails(*service).is_some());
        let wanted = self.scenario.sessions.iter().zip(0..).find(|(_, index)| self::uid(*index) == *uid).unwrap().0;
        let read = match failed {
            Some(service) => Err(SetupFault::Unavailable(fault(service))),
            None => {
                let read = setup(self.scenario.quirks.len(), wanted.image, wanted.configuration, &wanted.nodes);
                Ok(SetupRead { snapshot: self.site.inventory.clone(), ..read })
            }
        };
        if let Ok(read) = &read {
            self.note_inventory(life, &read.snapshot);
        }
        let mut planned = None;
        self.fold(life, |world, now| planned = world.fold_setup(uid, read, now));
        if let Some(uid) = planned {
            self.plan_writing.insert(uid.clone());
            self.after(5, 300, Event::PlanWritten(life, uid));
        }
    }

    /// What an inventory that will be believed says anew.
    fn note_inventory(&mut self, life: u32, inventory: &Snapshot) {
        let Some(world) = self.world.as_ref().filter(|_| life == self.life) else { return };
        if bos_core::discovery::believe(inventory.nodes.len(), world.known_nodes(), world.options.inventory_shrink_percent).is_err() {
            let all: Vec<_> = world.nodes_where(|_| true).collect();
            return self.note(Input::InventoryShrunk, all);
        }
        let news: Vec<_> = world.nodes_where(|_| true).flat_map(|id| news(world, id, inventory)).collect();
        for (input, id) in news {
            self.note(input, [id]);
        }
    }
}

fn news(world: &World, id: NodeId, inventory: &Snapshot) -> Vec<(Input, NodeId)> {
    let Some(node) = world.node(id) else { return Vec::new() };
    let locked = inventory.locked.contains(&node.xname);
    let facts = inventory.nodes.get(&node.xname);
    let enabled = |facts: Option<&Facts>| facts.is_none_or(|facts| facts.enabled);
    let empty = |facts: Option<&Facts>| facts.is_some_and(is_empty);
    let nid = |facts: Option<&Facts>| facts.and_then(|facts| facts.nid);
    let before = node.facts.as_ref();
    let found = [
        (Input::Locked, locked && !node.locked),
        (Input::Unlocked, !locked && node.locked),
        (Input::Disabled, !enabled(facts) && enabled(before)),
        (Input::Enabled, enabled(facts) && !enabled(before)),
        (Input::Emptied, empty(facts) && !empty(before)),
        (Input::Unlisted, facts.is_none() && before.is_some()),
        (Input::Replaced, before.is_some() && nid(facts).is_some() && (nid(facts) != nid(before) || (empty(before) && !empty(facts)))),
    ];
    found.into_iter().filter(|(_, holds)| *holds).map(|(input, _)| (input, id)).collect()
}

pub(crate) fn fault(service: Service) -> Fault {
    Fault { service, detail: "503".into() }
}
