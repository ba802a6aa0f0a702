//! Drives the core as the engine does: folds inputs, runs passes, writes journals before calls leave, and dies now and then.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bos_core::batch::{BatchId, Outcome, Progress};
use bos_core::fold::Fault;
use bos_core::health::Service;
use bos_core::journal;
use bos_core::model::{ConfigRecord, Identity, NodeId, Power, Reported, SessionUid, World};
use bos_core::options::Options;
use bos_core::pass;
use bos_core::resolve::Facts;
use bos_core::running::Dispatch;
use bos_core::session::{SessionSeen, Stage};
use bos_core::time::Timestamp;
use bos_core::want;
use bos_core::xname::Xname;
use bos_crds::SessionSpec;

use super::check::Checker;
use super::components::{Component, Patch, Seen, View};
use super::coverage::Coverage;
use super::fixture::{START, at, seen, uid, xname};
use super::hsm::fault;
use super::orders::parts;
use super::restart::Write;
use super::rng::Rng;
use super::scenario::{Command, Scenario};
use super::site::{Effect, Site};

/// A report on its way to being durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) node: NodeId,
    pub(crate) boot: u64,
}

/// Something that happens at a time. What is answered to the operator carries the life in which it was asked.
#[derive(Debug)]
pub(crate) enum Event {
    Tick(u32),
    Pass(u32),
    Flush(u32),
    Restart,
    Appear(usize),
    Command(Command),
    Inventory(u32),
    SetUp(u32, SessionUid),
    PlanWritten(u32, SessionUid),
    JournalWritten(u32, SessionUid),
    Arrive(u32, Box<Dispatch>, Option<Outcome>),
    Answer(u32, BatchId, Outcome),
    Power(u32, Vec<NodeId>, Timestamp, Result<Vec<(NodeId, Power, Arc<str>)>, Fault>),
    Config(u32, Vec<NodeId>, Timestamp, Result<Vec<(NodeId, ConfigRecord)>, Fault>),
    States(u32, Vec<NodeId>, Timestamp, Result<Vec<(NodeId, bool)>, Fault>),
    Scripts(u32, Vec<NodeId>, Result<HashMap<NodeId, Timestamp>, Fault>),
    Progress(u32, BatchId, Timestamp, Progress),
    Hardware(Effect),
    Up(NodeId, u64),
    Report(NodeId, u64),
    Configured(NodeId, u64),
    Seen(u32, Box<Seen>),
    Spec(u32, Box<Patch>),
    Settle(u32, SessionUid),
}

/// One history while it happens.
pub(crate) struct Sim {
    pub(crate) scenario: Scenario,
    pub(crate) rng: Rng,
    pub(crate) now: Timestamp,
    queue: BinaryHeap<Reverse<(Timestamp, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    pub(crate) site: Site,
    pub(crate) check: Checker,
    /// The process, while it lives.
    pub(crate) world: Option<World>,
    pub(crate) life: u32,
    pass_due: bool,
    /// When the last pass was.
    pub(crate) passed: Timestamp,
    /// Prints every event: BOS_SIM_TRACE, together with BOS_SIM_SEED.
    traced: bool,
    pub(crate) crashes_left: u32,
    /// Durable: Session objects, plans, journals, and the last report in the status of each node.
    pub(crate) objects: BTreeMap<SessionUid, SessionSeen>,
    pub(crate) plans: BTreeMap<SessionUid, Vec<u8>>,
    pub(crate) journals: BTreeMap<SessionUid, Vec<u8>>,
    pub(crate) statuses: Vec<Option<Reported>>,
    /// And what its inventory told of the node in its place.
    pub(crate) identities: Vec<Identity>,
    pub(crate) stop: bool,
    /// Nodes that a person holds, and options as they were edited.
    pub(crate) held: BTreeSet<NodeId>,
    pub(crate) options: Options,
    /// Reports are refused.
    pub(crate) deaf: bool,
    /// Nodes that HSM does not list for the time being.
    pub(crate) unlisted: BTreeMap<Xname, Facts>,
    /// Places passed where a crash hurts, and crashes.
    places: u32,
    pub(crate) crashes: u32,
    /// Outages in which something was asked of the service.
    pub(crate) met: BTreeSet<usize>,
    /// A session took nodes on which the other one was at work.
    pub(crate) overlapped: bool,
    pub(crate) coverage: Coverage,
    /// Length of every journal that was written.
    pub(crate) written: Vec<usize>,
    /// In memory only: writes under way and what the next ones carry.
    pub(crate) writing: BTreeMap<SessionUid, Write>,
    /// How things stood when the journal of a session was last written in this life.
    pub(crate) durable: BTreeMap<SessionUid, Timestamp>,
    waiting_batches: BTreeMap<SessionUid, Vec<BatchId>>,
    waiting_reports: BTreeMap<SessionUid, Vec<Pending>>,
    waiting_statuses: Vec<Pending>,
    pub(crate) plan_writing: BTreeSet<SessionUid>,
    /// What CAPMC has begun for a call of a life.
    pub(crate) taken: BTreeMap<(u32, BatchId), Arc<str>>,
    /// BootComponents, what the operator that lives knows of them, and chance for all that people ask of them.
    pub(crate) components: Vec<Component>,
    pub(crate) views: Vec<View>,
    pub(crate) hands: Rng,
    /// Until when watches have told.
    pub(crate) told: Timestamp,
    /// Requests that people have still to make, and when the last one is over if nothing comes of it.
    pub(crate) hands_left: usize,
    pub(crate) quiet_from: Timestamp,
    pub(crate) tokens: u32,
    /// Runs whose journal was removed, and whose plan was not yet.
    pub(crate) lost: BTreeSet<SessionUid>,
}

impl Sim {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let site = Site::new(&scenario);
        let mut sim = Self {
            rng: Rng::new(scenario.seed ^ 0x5a5a),
            now: START,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            check: Checker::new(&scenario),
            world: None,
            life: 0,
            pass_due: false,
            passed: START,
            traced: std::env::var_os("BOS_SIM_TRACE").is_some(),
            crashes_left: scenario.crashes,
            objects: BTreeMap::new(),
            plans: BTreeMap::new(),
            journals: BTreeMap::new(),
            statuses: scenario.before.iter().map(|before| super::restart::recorded(*before)).collect(),
            identities: super::hsm::identities(&site.inventory),
            stop: false,
            held: BTreeSet::new(),
            options: scenario.options.clone(),
            deaf: false,
            unlisted: BTreeMap::new(),
            places: 0,
            crashes: 0,
            met: BTreeSet::new(),
            overlapped: false,
            coverage: Coverage::default(),
            written: Vec::new(),
            writing: BTreeMap::new(),
            durable: BTreeMap::new(),
            waiting_batches: BTreeMap::new(),
            waiting_reports: BTreeMap::new(),
            waiting_statuses: Vec::new(),
            plan_writing: BTreeSet::new(),
            taken: BTreeMap::new(),
            components: vec![Component::new(); scenario.quirks.len()],
            views: Vec::new(),
            hands: Rng::new(scenario.seed ^ 0x4a4d),
            told: START,
            hands_left: scenario.commands.iter().filter(|(_, command)| matches!(command, Command::Hand(..))).count(),
            quiet_from: START,
            tokens: 0,
            lost: BTreeSet::new(),
            site,
            scenario,
        };
        for (index, wanted) in sim.scenario.sessions.clone().into_iter().enumerate() {
            sim.schedule(wanted.at, Event::Appear(index));
        }
        for (when, command) in sim.scenario.commands.clone() {
            sim.schedule(when, Event::Command(command));
        }
        sim.start();
        sim
    }

    /// Runs until every session has ended; panics when one does not within `limit`.
    pub(crate) fn run(&mut self, limit: Duration) {
        while !self.over() {
            let Some(Reverse((when, number))) = self.queue.pop() else { panic!("nothing happens any more") };
            assert!(when <= START + limit, "rule 15: a session has not ended after {limit:?}: {:?}", self.standing());
            self.now = when;
            if let Some(event) = self.events.remove(&number) {
                self.happen(event);
            }
        }
    }

    fn over(&self) -> bool {
        let ended = self.objects.len() == self.scenario.sessions.len() && self.objects.values().all(|object| object.complete.is_some());
        ended && self.nothing_is_asked()
    }

    fn standing(&self) -> String {
        let Some(world) = &self.world else { return "the operator is down".to_owned() };
        let asked = world.asked.iter().filter_map(|id| world.node(*id)).map(|node| (&node.xname, &node.asked));
        let mut text = format!("{} requests to come, open {:?} ", self.hands_left, asked.collect::<Vec<_>>());
        for session in world.sessions.values() {
            let open: Vec<_> = session.running().map(|run| run.open().collect()).unwrap_or_default();
            text.push_str(&format!("{}: {:?}", session.uid, session.running().map(|run| run.tally())));
            text.extend(open.iter().map(|id| format!("\n  {:?}", world.node(*id))));
        }
        text
    }

    pub(crate) fn schedule(&mut self, when: Timestamp, event: Event) {
        self.next_event += 1;
        self.queue.push(Reverse((when, self.next_event)));
        self.events.insert(self.next_event, event);
    }

    pub(crate) fn after(&mut self, low_ms: u64, high_ms: u64, event: Event) {
        let when = self.now + Duration::from_millis(self.rng.between(low_ms, high_ms));
        self.schedule(when, event);
    }

    /// A place where a crash hurts. True when it happened: what was under way in memory is gone.
    pub(crate) fn crash_here(&mut self) -> bool {
        if self.world.is_none() {
            return false;
        }
        self.places += 1;
        let by_chance = self.crashes_left > 0 && self.rng.chance(self.scenario.crash_per_mille);
        self.crashes_left -= u32::from(by_chance);
        let crash = by_chance || self.scenario.crash_at == Some(self.places);
        if crash {
            self.crash();
        }
        crash
    }

    fn happen(&mut self, event: Event) {
        self.note_event(&event);
        if self.traced && !matches!(event, Event::Tick(_) | Event::Pass(_) | Event::Flush(_)) {
            println!("{:>9} ms  {event:?}", self.now.as_millis() - START.as_millis());
        }
        match event {
            Event::Tick(life) if life == self.life => {
                self.schedule(self.now + Duration::from_secs(5), Event::Tick(life));
                self.schedule(self.now, Event::Flush(life));
                self.wake();
            }
            Event::Pass(life) if life == self.life => self.pass(),
            Event::Flush(life) if life == self.life => self.flush(),
            Event::Tick(_) | Event::Pass(_) | Event::Flush(_) => {}
            Event::Restart => self.start(),
            Event::Appear(index) => self.appear(index),
            Event::Command(command) => self.command(command),
            Event::Inventory(life) => self.read_inventory(life),
            Event::SetUp(life, uid) => self.set_up(life, &uid),
            Event::PlanWritten(life, uid) => self.plan_written(life, &uid),
            Event::JournalWritten(life, uid) => self.journal_written(life, &uid),
            Event::Arrive(life, dispatch, lost) => self.arrive(life, &dispatch, lost),
            Event::Answer(life, batch, outcome) => self.answer(life, batch, outcome),
            Event::Power(life, nodes, asked, read) => self.fold(life, |world, now| world.fold_power(&nodes, asked, read, now)),
            Event::Config(life, nodes, asked, read) => self.fold(life, |world, now| world.fold_config(&nodes, asked, read, now)),
            Event::States(life, nodes, asked, read) => self.fold(life, |world, now| world.fold_states(&nodes, asked, read, now)),
            Event::Scripts(life, nodes, read) => self.fold(life, |world, now| world.fold_scripts(&nodes, read, now)),
            Event::Progress(life, batch, asked, progress) => {
                self.fold(life, |world, now| world.fold_progress(batch, asked, progress, now));
            }
            Event::Hardware(effect) => self.hardware(&effect),
            Event::Up(node, boot) => self.up(node, boot),
            Event::Report(node, boot) => self.report(node, boot),
            Event::Configured(node, boot) => self.configured(node, boot),
            Event::Seen(life, seen) => self.seen(life, *seen),
            Event::Spec(life, patch) => self.spec_written(life, *patch),
            Event::Settle(life, uid) if life == self.life => self.complete(&uid),
            Event::Settle(..) => {}
        }
    }

    /// Folds an answer into the World that asked for it.
    pub(crate) fn fold(&mut self, life: u32, fold: impl FnOnce(&mut World, Timestamp)) {
        if life != self.life {
            return;
        }
        if let Some(world) = &mut self.world {
            fold(world, self.now);
            self.wake();
        }
    }

    /// A pass soon, together with whatever else comes in till then.
    pub(crate) fn wake(&mut self) {
        if self.world.is_some() && !self.pass_due {
            self.pass_due = true;
            self.schedule(self.now + Duration::from_millis(20), Event::Pass(self.life));
        }
    }

    pub(crate) fn forget_process(&mut self) {
        self.world = None;
        self.life += 1;
        self.pass_due = false;
        self.waiting_batches.clear();
        self.waiting_reports.clear();
        self.waiting_statuses.clear();
        self.writing.clear();
        self.durable.clear();
        self.plan_writing.clear();
    }

    fn pass(&mut self) {
        self.pass_due = false;
        let Some(world) = &mut self.world else { return };
        let before = super::coverage::before_pass(world, self.passed, self.now);
        let effects = pass::run(world, self.now);
        self.check.after_pass(world, &self.site, self.now);
        self.passed = self.now;
        let plans = std::mem::take(&mut world.plans_due);
        self.note_pass(before);
        for effect in effects {
            self.effect(effect);
        }
        for uid in plans {
            self.plan_by_hand(uid);
        }
        self.write_journals();
        if self.scenario.hands && self.hands.chance(200) {
            self.flush();
        }
    }

    fn effect(&mut self, effect: want::Effect) {
        let (life, now) = (self.life, self.now);
        match effect {
            want::Effect::ReadInventory => self.after(20, 400, Event::Inventory(life)),
            want::Effect::SetUp(uid) => self.after(20, 400, Event::SetUp(life, uid)),
            want::Effect::ReadPower(nodes) => {
                let service = self.scenario.power.service();
                let read = match self.fails(service) {
                    Some(_) => Err(fault(service)),
                    None => Ok(self.power_of(&nodes)),
                };
                self.after(5, 2000, Event::Power(life, nodes, now, read));
            }
            want::Effect::ReadConfiguration(nodes) => {
                let read = match self.fails(Service::Cfs) {
                    Some(_) => Err(fault(Service::Cfs)),
                    None => Ok(nodes.iter().filter_map(|id| Some((*id, self.site.config(*id, now)?))).collect()),
                };
                self.after(5, 500, Event::Config(life, nodes, now, read));
            }
            want::Effect::ReadStates(nodes) => {
                let read = match self.fails(Service::Hsm) {
                    Some(_) => Err(fault(Service::Hsm)),
                    None => Ok(nodes.iter().map(|id| (*id, self.site.ready(*id, now))).collect()),
                };
                self.after(5, 2000, Event::States(life, nodes, now, read));
            }
            want::Effect::ReadScripts(nodes) => {
                let read = match self.fails(Service::Bss) {
                    Some(_) => Err(fault(Service::Bss)),
                    None => Ok(self.site.fetched(&nodes)),
                };
                self.after(5, 500, Event::Scripts(life, nodes, read));
            }
            want::Effect::RemoveSession(uid) => panic!("{uid} is not old"),
            want::Effect::Record(batch) => {
                let Some(open) = self.world.as_ref().and_then(|world| world.batches.get(&batch)) else { return };
                self.waiting_batches.entry(open.session.clone()).or_default().push(batch);
            }
            want::Effect::Follow(batch) => {
                let Some(progress) = self.look(batch) else { return };
                self.after(5, 500, Event::Progress(life, batch, now, progress));
            }
        }
    }

    /// What the power service answers; now and then it leaves a node out.
    fn power_of(&mut self, nodes: &[NodeId]) -> Vec<(NodeId, Power, Arc<str>)> {
        let omissions = if self.now < self.scenario.calm_from { self.scenario.omissions } else { 0 };
        let mut read = Vec::new();
        for id in nodes {
            if omissions == 0 || !self.rng.chance(omissions) {
                read.push((*id, self.site.power(*id, self.now), "".into()));
            }
        }
        read
    }

    fn look(&mut self, batch: BatchId) -> Option<Progress> {
        let open = self.world.as_ref()?.batches.get(&batch)?;
        let bos_core::batch::BatchState::Following { transition, .. } = open.state.clone() else { return None };
        if self.fails(Service::Pcs).is_some() {
            return Some(Progress::Unavailable { detail: "503".into() });
        }
        let (done, tasks) = self.site.progress(&transition, self.now);
        if done && self.scenario.forgotten > 0 && self.rng.chance(self.scenario.forgotten) {
            return Some(Progress::Gone);
        }
        Some(Progress::Tasks { done, tasks })
    }

    /// Starts the next journal write of each session that needs one and has none under way.
    fn write_journals(&mut self) {
        let Some(world) = &mut self.world else { return };
        let mut due: BTreeSet<SessionUid> = world.journal_due.iter().cloned().collect();
        due.extend(self.waiting_batches.keys().cloned());
        due.extend(self.waiting_reports.keys().cloned());
        let mut started = Vec::new();
        for uid in due {
            if self.writing.contains_key(&uid) {
                continue;
            }
            world.journal_due.remove(&uid);
            let batches = self.waiting_batches.remove(&uid).unwrap_or_default();
            let reports = self.waiting_reports.remove(&uid).unwrap_or_default();
            let Some(session) = world.sessions.get(&uid) else { continue };
            let ended = matches!(session.stage, Stage::Ended(_));
            let bytes = journal::snapshot(world, session, self.now).map(|journal| journal.encode().unwrap()).unwrap_or_default();
            let parts = parts(session);
            self.writing.insert(uid.clone(), Write { bytes, ended, batches, reports, parts, as_of: self.now });
            started.push(uid);
        }
        for uid in started {
            self.after(5, 300, Event::JournalWritten(self.life, uid));
        }
    }

    fn journal_written(&mut self, life: u32, uid: &SessionUid) {
        // Before the write is durable, or durable without anybody knowing: `crash` decides.
        if life != self.life || self.crash_here() {
            return;
        }
        let Some(write) = self.writing.remove(uid) else { return };
        self.durable.insert(uid.clone(), write.as_of);
        if !write.bytes.is_empty() {
            self.written.push(write.bytes.len());
            self.journals.insert(uid.clone(), write.bytes);
        }
        if let Some(world) = &self.world {
            self.check.taken(world, uid, write.parts);
        }
        if write.ended {
            self.complete(uid);
        }
        for pending in write.reports {
            self.acknowledge(pending);
        }
        for batch in write.batches {
            let dispatch = self.world.as_mut().and_then(|world| world.release(batch, self.now));
            // Durable, but the call has not left.
            if self.crash_here() {
                return;
            }
            if let Some(dispatch) = dispatch {
                self.leave(dispatch);
            }
        }
        self.wake();
    }

    /// Everything of an ended session is written; its records go.
    fn complete(&mut self, uid: &SessionUid) {
        self.flush();
        if (self.scenario.hands && !self.is_shown(uid)) || !self.may_be_forgotten(uid) {
            return self.schedule(self.now + Duration::from_millis(200), Event::Settle(self.life, uid.clone()));
        }
        let Some(world) = &mut self.world else { return };
        self.check.ended(world, uid, &self.site);
        world.settle(uid);
        if let Some(object) = self.objects.get_mut(uid) {
            object.complete = Some(self.now);
        }
        self.journals.remove(uid);
        if self.scenario.hands {
            self.lost.insert(uid.clone());
            if self.crash_here() {
                return;
            }
        }
        self.plans.remove(uid);
    }

    /// The status writer: what was touched is shown, and thereby durable.
    fn flush(&mut self) {
        let Some(world) = &mut self.world else { return };
        let touched = std::mem::take(&mut world.touched);
        for id in &touched {
            if let Some(status) = self.statuses.get_mut(id.0 as usize) {
                let node = &world.nodes[id.0 as usize];
                status.clone_from(&node.reported);
                self.identities[id.0 as usize] = super::hsm::identity(node);
            }
        }
        if self.scenario.hands {
            touched.into_iter().for_each(|id| self.show(id));
        }
        for pending in std::mem::take(&mut self.waiting_statuses) {
            self.acknowledge(pending);
        }
    }

    /// A node reports (again and again, until it is answered with 200).
    fn report(&mut self, node: NodeId, boot: u64) {
        let hardware = self.site.node(node);
        let Some(token) = hardware.token.clone().filter(|_| hardware.boot == boot && hardware.up) else { return };
        self.after(10_000, 30_000, Event::Report(node, boot));
        if self.now < self.scenario.calm_from && self.rng.chance(self.scenario.report_loss) {
            return;
        }
        if self.refused(node) {
            return;
        }
        self.note_report(node, &token);
        let Some(world) = &mut self.world else { return };
        let needs = world.fold_report(xname(node.0 as usize).as_str(), &token, self.now);
        let pending = Pending { node, boot };
        match needs {
            bos_core::fold::ReportNeeds::Journal(uid) => self.waiting_reports.entry(uid).or_default().push(pending),
            bos_core::fold::ReportNeeds::Status(_) => self.waiting_statuses.push(pending),
            // The write that holds the first one may still be under way.
            bos_core::fold::ReportNeeds::Repeat(uid) if self.writing.contains_key(&uid) => {
                self.waiting_reports.entry(uid).or_default().push(pending);
            }
            bos_core::fold::ReportNeeds::Repeat(_) => self.acknowledge(pending),
            bos_core::fold::ReportNeeds::Unknown => {}
        }
        self.wake();
    }

    fn acknowledge(&mut self, pending: Pending) {
        let hardware = self.site.node(pending.node);
        if let Some(token) = hardware.token.clone().filter(|_| hardware.boot == pending.boot) {
            self.check.acknowledged(pending.node, &token, self.now);
        }
    }

    fn appear(&mut self, index: usize) {
        let wanted = self.scenario.sessions[index].clone();
        let mut spec = SessionSpec::new(wanted.operation, "template");
        spec.running_nodes = wanted.running;
        spec.stage = wanted.stage;
        let uid = uid(index);
        // Kubernetes gives whole seconds.
        let created = self.now.whole_seconds();
        self.check.appeared.push((uid.clone(), created));
        let object = seen(&uid.0, created, spec);
        self.objects.insert(object.uid.clone(), object.clone());
        self.fold(self.life, |world, now| world.fold_session(object, now));
    }

    fn plan_written(&mut self, life: u32, uid: &SessionUid) {
        if life != self.life || self.crash_here() {
            return;
        }
        self.plan_writing.remove(uid);
        self.store_plan(uid);
        if self.crash_here() {
            return;
        }
        self.note_taking(uid);
        self.fold(life, |world, now| world.start_session(uid, now));
    }

    pub(crate) fn store_plan(&mut self, uid: &SessionUid) {
        let session = self.world.as_ref().and_then(|world| world.sessions.get(uid));
        if let Some(Stage::Recording(recording)) = session.map(|session| &session.stage) {
            self.plans.insert(uid.clone(), serde_json::to_vec(&*recording.plan).unwrap());
            self.check.planned(uid, &recording.plan, self.now);
        }
    }
}

/// The latest instant at which a history may still go on.
pub(crate) fn deadline(scenario: &Scenario) -> Duration {
    at(0).since(START) + Duration::from_secs(4 * 3600).max(scenario.options.max_boot_wait * 20)
}
