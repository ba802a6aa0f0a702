//! A World on a desk: one session, moved on by hand, step by step.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::HashMap;
use std::time::Duration;

use bos_core::batch::{BatchId, BatchState, Outcome, Progress, Task};
use bos_core::by_hand::Asked;
use bos_core::fold::ReportNeeds;
use bos_core::health::{Service, Services};
use bos_core::journal::{Journal, snapshot};
use bos_core::model::{ConfigRecord, ConfigStatus, Drive, EndKind, NodeId, Power, PowerAction, Reported, SessionUid, Token, World};
use bos_core::pass;
use bos_core::plan::Plan;
use bos_core::resume::{Stored, StoredJournal};
use bos_core::running::{Dispatch, Order};
use bos_core::session::Run;
use bos_core::time::Timestamp;
use bos_core::want::Effect;

use crate::fixture::{START, digest, run_plan, world, xname};

/// A World, the time, and the session of most tests.
pub(crate) struct Desk {
    pub(crate) world: World,
    pub(crate) now: Timestamp,
    pub(crate) uid: SessionUid,
    pub(crate) plan: Plan,
}

impl Desk {
    /// A session at work on a plan, in a World of `count` nodes. Where the plan wants no configuration, the site has no CFS.
    pub(crate) fn new(count: usize, plan: Plan) -> Self {
        let needless = plan.boot_sets.iter().all(|set| set.configuration.is_empty());
        Self::at_a_site(count, plan, Services::without(needless.then_some(Service::Cfs)))
    }

    pub(crate) fn at_a_site(count: usize, plan: Plan, services: Services) -> Self {
        let mut world = world(count, START);
        world.services = services;
        let now = START + Duration::from_secs(120);
        let uid = run_plan(&mut world, "first", plan.clone(), now);
        Self { world, now, uid, plan }
    }

    pub(crate) fn wait(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    /// One pass. BSS answers at once that nobody has fetched a boot script.
    pub(crate) fn pass(&mut self) -> Vec<Effect> {
        let (asked, mut effects): (Vec<_>, Vec<_>) =
            pass::run(&mut self.world, self.now).into_iter().partition(|effect| matches!(effect, Effect::ReadScripts(_)));
        for effect in &asked {
            let Effect::ReadScripts(nodes) = effect else { continue };
            self.world.fold_scripts(nodes, Ok(HashMap::new()), self.now);
        }
        if !asked.is_empty() {
            effects.extend(pass::run(&mut self.world, self.now));
        }
        effects
    }

    /// The power service is asked and says this of a node.
    pub(crate) fn power(&mut self, index: u32, power: Power) {
        let read = Ok(vec![(NodeId(index), power, "".into())]);
        self.world.fold_power(&[NodeId(index)], self.now, read, self.now);
    }

    /// The same of every node.
    pub(crate) fn power_of_all(&mut self, power: Power) {
        for index in 0..u32::try_from(self.world.nodes.len()).unwrap() {
            self.power(index, power);
        }
    }

    /// What may leave after a pass, every journal being durable at once.
    pub(crate) fn leaves(&mut self) -> Vec<Dispatch> {
        let _ = self.pass();
        let recorded = self.world.batches.values().filter(|batch| batch.state == BatchState::Recording).map(|batch| batch.id);
        recorded.collect::<Vec<_>>().into_iter().filter_map(|id| self.world.release(id, self.now)).collect()
    }

    /// The one call that leaves.
    pub(crate) fn one(&mut self) -> Dispatch {
        let mut calls = self.leaves();
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.remove(0)
    }

    pub(crate) fn answer(&mut self, id: BatchId, outcome: Outcome) {
        self.world.fold_outcome(id, outcome, self.now);
    }

    /// BSS and CFS answer; what is left is the call for power.
    pub(crate) fn prepared(&mut self) -> Dispatch {
        self.prepared_with(&token())
    }

    /// The same where BSS gives this token.
    pub(crate) fn prepared_with(&mut self, token: &Token) -> Dispatch {
        loop {
            let call = self.one();
            match call.order {
                Order::BootParameters { .. } => self.answer(call.id, Outcome::Stored { token: token.clone() }),
                Order::Configuration { .. } => {
                    let changed = call.nodes.iter().map(|(node, _)| *node).collect();
                    self.answer(call.id, Outcome::Configured { changed });
                }
                Order::Power(_) => return call,
            }
        }
    }

    /// The first node is off, and BSS has its boot parameters.
    pub(crate) fn parameters_stored(&mut self) {
        let _ = self.pass();
        self.power(0, Power::Off);
        let call = self.one();
        self.answer(call.id, Outcome::Stored { token: token() });
    }

    /// PCS accepts a call, and its transition ends well.
    pub(crate) fn carried_out(&mut self, call: &Dispatch) {
        self.answer(call.id, Outcome::Accepted { transition: "transition".into() });
        self.tasks(call, Task::Succeeded);
    }

    /// A look at a transition that is over, with the same task for every node.
    pub(crate) fn tasks(&mut self, call: &Dispatch, task: Task) {
        let tasks = call.nodes.iter().map(|(node, _)| (*node, task.clone())).collect();
        self.wait(Duration::from_secs(1));
        self.world.fold_progress(call.id, self.now, Progress::Tasks { done: true, tasks }, self.now);
    }

    /// Every node is off, prepared and powered on.
    pub(crate) fn powered_on(&mut self) {
        let _ = self.pass();
        self.power_of_all(Power::Off);
        let call = self.prepared();
        assert_eq!(call.order, Order::Power(PowerAction::On));
        self.carried_out(&call);
        let _ = self.pass();
    }

    pub(crate) fn report(&mut self, index: u32, token: &Token) -> ReportNeeds {
        self.world.fold_report(xname(index as usize).as_str(), token, self.now)
    }

    pub(crate) fn configuration(&mut self, index: u32, desired: &str, status: ConfigStatus) {
        let record = ConfigRecord { desired: desired.into(), status };
        self.world.fold_config(&[NodeId(index)], self.now, Ok(vec![(NodeId(index), record)]), self.now);
    }

    /// The record of a node says since long that it runs this image.
    pub(crate) fn runs(&mut self, index: usize, image: &str) {
        let old = START - Duration::from_secs(3600);
        self.world.nodes[index].reported =
            Some(Reported { token: Token("old".into()), artifacts: Some(digest(image)), since: old, at: old, expired: false });
    }

    pub(crate) fn drive(&self, index: usize) -> &Drive {
        self.world.nodes[index].drive.as_ref().unwrap()
    }

    pub(crate) fn run(&self) -> &Run {
        self.world.sessions[&self.uid].run().unwrap()
    }

    /// How a node's part ended, and the reason.
    pub(crate) fn end(&self, index: usize) -> Option<(EndKind, &str)> {
        self.run().slots[index].end.as_ref().map(|end| (end.kind, &*end.reason))
    }

    /// The operator dies and starts again after `away`, with the journal of its session as it is now.
    pub(crate) fn restart(&mut self, away: Duration) {
        let journal = snapshot(&self.world, &self.world.sessions[&self.uid], self.now).unwrap().encode().unwrap();
        self.wait(away);
        let mut world = world(self.world.nodes.len(), self.now);
        world.options = self.world.options.clone();
        world.services = self.world.services.clone();
        (world.power_service, world.power_rest) = (self.world.power_service, self.world.power_rest);
        let uid = run_plan(&mut world, &self.uid.0, self.plan.clone(), self.now);
        world.resume(&uid, Journal::decode(&journal).unwrap(), self.now).unwrap();
        self.world = world;
    }
}

impl Desk {
    /// The operator dies and starts again after `away`, with all that was durable: every plan that was written and every journal.
    /// `shown`: the objects of the nodes had got that far too.
    pub(crate) fn crash(&mut self, away: Duration, shown: bool) {
        self.crash_with(away, shown, |_| ());
    }

    /// The same with other records than the newest.
    pub(crate) fn crash_with(&mut self, away: Duration, shown: bool, change: impl FnOnce(&mut Vec<Stored>)) {
        let (mut objects, mut stored) = (Vec::new(), Vec::new());
        for session in self.world.sessions.values() {
            if !session.by_hand {
                objects.push(crate::fixture::seen(&session.uid.0, session.created, session.spec.clone()));
            }
            if let Some(journal) = snapshot(&self.world, session, self.now) {
                let journal = StoredJournal::Written(Box::new(Journal::decode(&journal.encode().unwrap()).unwrap()));
                stored.push(Stored { uid: session.uid.clone(), plan: session.run().unwrap().plan.clone(), journal, taken_back: false });
            }
        }
        change(&mut stored);
        self.wait(away);
        let mut world = world(self.world.nodes.len(), self.now);
        (world.options, world.services) = (self.world.options.clone(), self.world.services.clone());
        world.artifacts.clone_from(&self.world.artifacts);
        for (node, before) in world.nodes.iter_mut().zip(&self.world.nodes).filter(|_| shown) {
            *node.asked = Asked { taken: before.asked.taken.clone(), applied: before.asked.applied.clone(), ..Asked::default() };
            node.owner.clone_from(&before.owner);
        }
        world.take_up(objects, &[], stored, self.now).unwrap();
        self.world = world;
    }
}

/// The token BSS gives in these tests.
pub(crate) fn token() -> Token {
    Token("token-of-bss".into())
}

/// Whether a call is for power.
pub(crate) fn is_power(call: &Dispatch) -> bool {
    matches!(call.order, Order::Power(_))
}
