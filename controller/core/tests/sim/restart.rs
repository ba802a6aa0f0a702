//! Death and restart of the operator: only what was durable survives.

use std::sync::Arc;
use std::time::Duration;

use bos_core::batch::BatchId;
use bos_core::journal::Journal;
use bos_core::model::{Reported, World};
use bos_core::resume::{Stored, StoredJournal};
use bos_core::time::Timestamp;

use super::fixture::{START, artifacts, digest, xname};
use super::operator::{Event, Pending, Sim};
use super::orders::{Part, parts};
use super::scenario::Before;
use super::site::known_token;

/// A journal write.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ended: bool,
    pub(crate) batches: Vec<BatchId>,
    pub(crate) reports: Vec<Pending>,
    pub(crate) parts: Vec<Part>,
    pub(crate) as_of: Timestamp,
}

impl Sim {
    /// The process dies. A write under way may have reached the API server or not.
    pub(crate) fn crash(&mut self) {
        for uid in self.plan_writing.clone() {
            if self.rng.chance(500) {
                self.store_plan(&uid);
            }
        }
        for (uid, write) in std::mem::take(&mut self.writing) {
            // An end is removed only after it was acknowledged, so an unacknowledged one stays in the journal.
            if !write.bytes.is_empty() && self.rng.chance(500) {
                self.check.orders.recorded(&uid, write.parts);
                self.journals.insert(uid, write.bytes);
            }
        }
        self.note_crash();
        self.crashes += 1;
        self.forget_process();
        self.check.crashed();
        let away = self.rng.pick(&[1, 20, 200]);
        self.schedule(self.now + Duration::from_secs(away), Event::Restart);
    }

    /// The process starts, for the first time or again.
    pub(crate) fn start(&mut self) {
        let mut world = self.known_nodes();
        if self.scenario.hands {
            self.load_components(&mut world);
        }
        world.emergency_stop = self.stop;
        world.power_service = self.scenario.power;
        world.power_rest = super::site::REST;
        for (node, status) in world.nodes.iter_mut().zip(&self.statuses) {
            // As the engine does: the age of what a status says begins anew.
            node.reported = status.clone().map(|report| Reported { at: self.now, ..report });
        }
        let deleted = &self.check.deleted;
        let objects = self.objects.values().filter(|object| !deleted.contains(&object.uid)).cloned().collect();
        let stored = self.plans.iter().map(|(uid, bytes)| Stored {
            uid: uid.clone(),
            plan: Arc::new(serde_json::from_slice(bytes).unwrap()),
            journal: match self.journals.get(uid) {
                Some(bytes) => StoredJournal::Written(Box::new(Journal::decode(bytes).unwrap())),
                None if self.lost.contains(uid) => StoredJournal::Lost,
                None => StoredJournal::Empty,
            },
            taken_back: false,
        });
        let stored = stored.filter(|stored| self.objects.get(&stored.uid).is_none_or(|object| object.complete.is_none()));
        let up = world.take_up(objects, &[], stored.collect(), self.now).unwrap();
        if self.scenario.hands {
            // Of no use any more.
            self.plans.retain(|uid, _| up.contains(uid));
            self.journals.retain(|uid, _| up.contains(uid));
            up.iter().for_each(|uid| self.check.orders.recorded(uid, parts(&world.sessions[uid])));
        }
        // What was in the journal already ended, but not acknowledged, is written again.
        world.journal_due.extend(up);
        for uid in self.check.deleted.clone() {
            if !self.plans.contains_key(&uid)
                && let Some(object) = self.objects.get_mut(&uid)
            {
                object.complete = Some(self.now);
            }
        }
        self.check.restarted(&world, &self.site);
        self.world = Some(world);
        self.note_start();
        self.schedule(self.now, Event::Tick(self.life));
    }

    /// The nodes as their objects tell of them, and the first inventory if it is one to believe.
    fn known_nodes(&self) -> World {
        let mut world = World { install_namespace: "bos".into(), ..World::default() };
        for (index, identity) in self.identities.iter().enumerate() {
            let id = world.intern(&xname(index));
            let node = &mut world.nodes[id.0 as usize];
            (node.recorded, node.before, node.suspended) = (true, *identity, self.held.contains(&id));
        }
        world.options = self.options.clone();
        if self.scenario.hands {
            // The first inventory is read when everything was taken up.
            world.artifacts = ["old", "new", "newer"].map(|image| (digest(image), Arc::new(artifacts(image)))).into();
        } else {
            world.fold_inventory(Ok(self.site.inventory.clone()), self.now);
        }
        world.reports.listening_since = Some(self.now);
        world
    }
}

/// What the record of a node says of its image when the history begins.
pub(super) fn recorded(before: Before) -> Option<Reported> {
    let Before::Runs(image) = before else { return None };
    let since = Timestamp::from_millis(START.as_millis() - 86_400_000);
    Some(Reported { token: known_token(image), artifacts: Some(digest(image)), since, at: START, expired: false })
}
