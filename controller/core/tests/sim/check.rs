//! What must hold in every history, judged from what the site saw, not from what the operator says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bos_core::batch::{BatchId, BatchState, Task, Work};
use bos_core::model::{ConfigStatus, Digest, EndKind, NodeId, Power, PowerAction, SessionUid, Token, World};
use bos_core::options::Options;
use bos_core::plan::{Evidence, Plan, PlannedOperation, RunningPolicy};
use bos_core::running::{Dispatch, Order};
use bos_core::time::Timestamp;
use bos_crds::reasons;

use super::fixture::START;
use super::orders::{Orders, Part};
use super::scenario::{Quirk, Scenario, Way};
use super::site::{By, Site};

/// A call leaves within this after it was decided: it waits for the journal.
const RECORDED: Duration = Duration::from_secs(2);

/// A node that was turned away comes again within this.
const HEARD_AGAIN: Duration = Duration::from_secs(50);

/// What one session has sent about one node.
#[derive(Debug, Clone, Default)]
struct Sent {
    /// The run in which that was.
    run: Arc<str>,
    /// When the session began with the node, where that was not when it was planned.
    since: Option<Timestamp>,
    last: Option<(PowerAction, Timestamp)>,
    /// The power-on before the last, if that one touched the node.
    on_before: Option<Timestamp>,
    /// The task of the last power call, once the service has one.
    task: Option<Arc<str>>,
    /// Boot parameters stored since the last power-on.
    stored: bool,
    /// A report of the right image was answered 200 since the last power-on.
    acknowledged: bool,
    /// Power-ons that the service said it tried.
    tried_on: u16,
    /// Those of which the operator may not know it any more.
    forgotten: u16,
    /// The node really went off by this session.
    switched_off: u16,
}

/// A boot that a session has begun with a node.
struct Boot {
    artifacts: Option<Digest>,
    since: Timestamp,
    came_up: bool,
    /// The newer session took the node while the older one was at it.
    taken_over: bool,
}

/// Judges one history.
#[derive(Debug)]
pub(crate) struct Checker {
    scenario: Scenario,
    /// Options as they were edited, oldest first.
    options: Vec<(Timestamp, Options)>,
    plans: BTreeMap<SessionUid, (Arc<Plan>, Timestamp)>,
    tokens: BTreeMap<Token, SessionUid>,
    sent: BTreeMap<(SessionUid, NodeId), Sent>,
    silent_cycles: BTreeMap<SessionUid, Vec<(NodeId, Timestamp)>>,
    /// Transitions whose id the operator that lives now was told.
    known: BTreeSet<Arc<str>>,
    /// Power calls of this life without an answer.
    unanswered: BTreeMap<BatchId, Vec<NodeId>>,
    /// Until when PCS behind CAPMC may be at work on a node that it switches off.
    resting: BTreeMap<NodeId, Timestamp>,
    by_person: BTreeMap<NodeId, Timestamp>,
    /// When reports were turned away.
    refused: Vec<Timestamp>,
    crashed: bool,
    pub(crate) deleted: BTreeSet<SessionUid>,
    /// Nodes that a session took, at whatever time.
    took: BTreeSet<(SessionUid, NodeId)>,
    /// Nodes that a session lost to a newer one.
    superseded: BTreeSet<(SessionUid, NodeId)>,
    /// In the order in which the sessions appeared, with their creation times.
    pub(crate) appeared: Vec<(SessionUid, Timestamp)>,
    /// How each node's part ended, for comparisons.
    pub(crate) ends: BTreeMap<(SessionUid, NodeId), EndKind>,
    /// What people asked by hand.
    pub(crate) orders: Orders,
}

impl Checker {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            scenario: scenario.clone(),
            options: vec![(START, scenario.options.clone())],
            plans: BTreeMap::new(),
            tokens: BTreeMap::new(),
            sent: BTreeMap::new(),
            silent_cycles: BTreeMap::new(),
            known: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            resting: BTreeMap::new(),
            by_person: BTreeMap::new(),
            refused: Vec::new(),
            crashed: false,
            deleted: BTreeSet::new(),
            took: BTreeSet::new(),
            superseded: BTreeSet::new(),
            appeared: Vec::new(),
            ends: BTreeMap::new(),
            orders: Orders::default(),
        }
    }

    /// The options were edited.
    pub(crate) fn retuned(&mut self, options: &Options, now: Timestamp) {
        self.options.push((now, options.clone()));
    }

    /// The most attempts that were ever allowed.
    fn most_attempts(&self) -> u16 {
        self.options.iter().map(|(_, options)| options.retry_policy).max().unwrap_or_default()
    }

    /// A deadline that began at `at` has passed: it was fixed by the options then in force (rule 4), or just before, when the
    /// call was decided that left then.
    fn passed(&self, at: Timestamp, span: impl Fn(&Options) -> Duration, now: Timestamp) -> bool {
        let decided = at - RECORDED;
        let next = self.options.iter().skip(1).map(|(until, _)| Some(*until)).chain([None]);
        let then = self.options.iter().zip(next).filter(|((from, _), until)| *from <= at && until.is_none_or(|until| until > decided));
        then.map(|((_, options), _)| span(options)).min().is_none_or(|span| now >= at + span)
    }

    /// A report was turned away: for a while silence proves nothing.
    pub(crate) fn turned_away(&mut self, now: Timestamp) {
        self.refused.push(now);
    }

    /// Whether a session took a node.
    pub(crate) fn was_taken(&self, node: NodeId) -> bool {
        self.took.iter().any(|(_, taken)| *taken == node)
    }

    pub(crate) fn planned(&mut self, uid: &SessionUid, plan: &Arc<Plan>, now: Timestamp) {
        self.plans.entry(uid.clone()).or_insert_with(|| (plan.clone(), now));
    }

    /// Whether a session is newer to a node than another. Of what was asked by hand it counts when: surely after all that was there
    /// before, and surely before all that came once it was taken up.
    fn later(&self, one: &SessionUid, other: &SessionUid, node: NodeId) -> bool {
        let span = |uid: &SessionUid| self.orders.span(uid, node);
        if span(one).is_none() && span(other).is_none() {
            return self.later_created(one, other);
        }
        let second = Duration::from_millis(999);
        let age = |uid: &SessionUid| span(uid).or_else(|| self.place(uid).map(|(_, created)| (created, created + second)));
        { age(one) }.zip(age(other)).is_some_and(|(one, other)| one.0 > other.1)
    }

    /// Its place in the order in which Sessions appeared, and when it was created.
    fn place(&self, uid: &SessionUid) -> Option<(usize, Timestamp)> {
        let place = self.appeared.iter().position(|(appeared, _)| appeared == uid)?;
        Some((place, self.appeared[place].1))
    }

    /// The same of two Sessions. Within a second nobody can tell any more once the operator was away.
    fn later_created(&self, one: &SessionUid, other: &SessionUid) -> bool {
        let Some(((place, created), (other_place, other_created))) = self.place(one).zip(self.place(other)) else { return false };
        created > other_created || (!self.crashed && created == other_created && place > other_place)
    }

    /// Notes which nodes a session has taken; before that is in its journal it has done nothing.
    pub(crate) fn taken(&mut self, world: &World, uid: &SessionUid, parts: Vec<Part>) {
        self.took.extend(parts.iter().map(|part| (uid.clone(), part.node)));
        self.orders.recorded(uid, parts);
        for session in world.sessions.values() {
            let slots = session.run().into_iter().flat_map(|run| &run.slots);
            let lost = slots.filter(|slot| slot.end.as_ref().is_some_and(|end| end.kind == EndKind::Superseded));
            self.superseded.extend(lost.map(|slot| (session.uid.clone(), slot.node)));
        }
    }

    /// Power-ons of a session that the service tried for a node.
    pub(crate) fn power_ons(&self, uid: &SessionUid, node: NodeId) -> u16 {
        self.sent.get(&(uid.clone(), node)).map_or(0, |sent| sent.tried_on)
    }

    pub(crate) fn switched_off(&self, uid: &SessionUid, node: NodeId) -> u16 {
        self.sent.get(&(uid.clone(), node)).map_or(0, |sent| sent.switched_off)
    }

    pub(crate) fn silent_cycles(&self, uid: &SessionUid) -> usize {
        self.silent_cycles.get(uid).map_or(0, Vec::len)
    }

    fn sent(&mut self, uid: &SessionUid, node: NodeId) -> &mut Sent {
        self.sent.entry((uid.clone(), node)).or_default()
    }

    /// After every pass: attempts stay within the budget (rule 14), a node is in one operation at most (rule 11), pacing holds.
    pub(crate) fn after_pass(&mut self, world: &World, _site: &Site, now: Timestamp) {
        for (id, fresh) in self.orders.drives(world, now) {
            self.new_run(world, id, fresh, now);
        }
        let limit = self.most_attempts();
        for node in &world.nodes {
            if let Some(drive) = &node.drive {
                let used = drive.attempts;
                assert!(used.on <= limit && used.graceful <= limit && used.forceful <= limit, "rule 14: {} {used:?}", node.xname);
            }
        }
        let mut seen = BTreeSet::new();
        for batch in world.batches.values() {
            let begins = batch.state == BatchState::Recording && batch.opened == now;
            if begins && batch.work == Work::Power(PowerAction::On) {
                let (flying, most) = (bos_core::power_on::in_flight(world), self.scenario.options.max_nodes_in_flight);
                assert!(most == 0 || flying <= most, "pacing: {flying} nodes between power-on and report, {most} are allowed");
            }
            for member in &batch.nodes {
                let out_of_bounds = world.node(member.node).is_some_and(|node| node.locked || node.replaced || node.suspended);
                assert!(!begins || !out_of_bounds, "rule 10: {:?} is locked, replaced or held by a person, and is acted on", member.node);
                assert!(seen.insert(member.node), "rule 11: {:?} is in two operations", member.node);
            }
        }
    }

    /// A node got a new run: in what it begins anew, or with fresh attempts in what it is at.
    fn new_run(&mut self, world: &World, id: NodeId, fresh: bool, now: Timestamp) {
        let Some(drive) = world.node(id).and_then(|node| node.drive.as_ref()) else { return };
        let (uid, run) = (&drive.session, drive.run.clone());
        let Some(sent) = self.sent.get_mut(&(uid.clone(), id)).filter(|_| run == uid.0) else {
            return self.other_run(world, (uid, id), run, fresh, now);
        };
        // A newer one was not durable yet when the operator died.
        sent.run = run;
    }

    fn other_run(&mut self, world: &World, (uid, id): (&SessionUid, NodeId), run: Arc<str>, fresh: bool, now: Timestamp) {
        if run == uid.0 || self.sent.get(&(uid.clone(), id)).is_some_and(|sent| sent.run == run) {
            return;
        }
        // A call that was decided before is one of the attempts of before.
        let open = world.node(id).is_some_and(|node| node.batch.is_some());
        let sent = self.sent(uid, id);
        if fresh {
            *sent = Sent { since: Some(now), ..Sent::default() };
        }
        (sent.run, sent.tried_on, sent.forgotten, sent.switched_off) = (run, 0, u16::from(open), 0);
    }

    /// A call leaves the process, and if `way` says so is lost.
    pub(crate) fn leaves(&mut self, world: Option<&World>, dispatch: &Dispatch, way: Option<Way>, site: &Site, now: Timestamp) {
        let Some(world) = world else { panic!("a dead operator sends") };
        let session = &world.sessions[&dispatch.session];
        assert!(!session.halted(), "rule 10: {} is cancelled, deleted or suspended", session.uid);
        let (_, planned) = &self.plans[&dispatch.session];
        for (node, _) in &dispatch.nodes {
            let newer = self.plans.iter().find(|(uid, (plan, at))| {
                let by_hand = [uid, &session.uid].into_iter().any(|uid| self.orders.span(uid, *node).is_some());
                let took = self.took.contains(&((*uid).clone(), *node));
                let other = **uid != dispatch.session && took && has(plan, *node);
                other && (by_hand || at > planned) && self.later(uid, &session.uid, *node)
            });
            assert!(newer.is_none(), "rule 11: {} acts on {node:?}, which {newer:?} took", dispatch.session);
            assert!(!world.node(*node).is_some_and(|node| node.suspended), "rule 10: a person holds {node:?}");
        }
        let Order::Power(action) = dispatch.order else { return };
        assert!(!world.emergency_stop, "rule 10: the stop switch is set");
        let nodes = dispatch.nodes.iter().map(|(node, _)| *node).collect();
        for (node, _) in &dispatch.nodes {
            let believed = world.node(*node).and_then(|node| node.power.as_ref()).map(|seen| seen.power);
            let wanted = if action == PowerAction::On { Power::Off } else { Power::On };
            assert_eq!(believed, Some(wanted), "rule 2: {action:?} to {node:?}");
            self.free(*node, site, now);
            self.justified(dispatch, *node, action, site, now);
            if way == Some(Way::NotSent) {
                continue;
            }
            let sent = self.sent(&dispatch.session, *node);
            match sent.last {
                Some((PowerAction::On, at)) if !sent.task.as_ref().is_some_and(|id| untouched(site, id, *node)) => {
                    sent.on_before = Some(at)
                }
                _ => {}
            }
            sent.last = Some((action, now));
            sent.task = None;
            if action == PowerAction::On {
                sent.acknowledged = false;
            }
        }
        self.unanswered.insert(dispatch.id, nodes);
    }

    /// No other operation on this node that the operator can know of (rule 11).
    fn free(&self, node: NodeId, site: &Site, now: Timestamp) {
        assert!(!self.unanswered.values().flatten().any(|other| *other == node), "rule 11: a call for {node:?} has no answer yet");
        for id in &self.known {
            let transition = &site.transitions[id];
            let part = transition.parts.iter().find(|part| part.node == node);
            let open = part.is_some_and(|part| !matches!(part.result, Task::Untouched { .. }) && now < part.done_at);
            assert!(!open, "rule 11: {id} is still at work on {node:?}");
        }
    }

    /// Whether a power call has a reason on the site (rules 6 and 7).
    fn justified(&mut self, dispatch: &Dispatch, node: NodeId, action: PowerAction, site: &Site, now: Timestamp) {
        let uid = &dispatch.session;
        let (plan, planned) = self.plans[uid].clone();
        let sent = self.sent.get(&(uid.clone(), node)).cloned().unwrap_or_default();
        let failed = sent.task.as_ref().is_some_and(|id| failed(site, id, node, now));
        let person = self.by_person.contains_key(&node);
        assert_ne!(plan.operation, PlannedOperation::Configure, "Configure never takes a power action");
        match (action, sent.last) {
            (PowerAction::On, last) => {
                let rests = self.resting.get(&node).is_some_and(|until| now < *until);
                assert!(person || !rests, "rule 7: PCS is still switching {node:?} off, and would cut its power again");
                assert_ne!(plan.operation, PlannedOperation::Shutdown, "a shutdown powers nothing on");
                assert!(sent.stored, "rule 6: no boot parameters since the last power-on of {node:?}");
                if let Some((PowerAction::On, at)) = last {
                    assert!(
                        person || failed || self.passed(at, |options| options.max_power_on_wait, now),
                        "rule 7: powered on twice: {node:?}"
                    );
                }
            }
            (_, Some((PowerAction::On, at))) => {
                // One that was refused without touching the node is none: what counts is the one before it, which was taken for failed.
                let refused = sent.task.as_ref().is_some_and(|id| untouched(site, id, node));
                let at = sent.on_before.filter(|_| refused).unwrap_or(at);
                assert!(!sent.acknowledged || person, "rule 7: {node:?} reported the right image and is switched off");
                assert!(
                    person || self.passed(at, |options| options.max_boot_wait, now),
                    "rule 8: {node:?} is cycled before its boot deadline"
                );
                self.silent_cycle(uid, &plan, node, now);
            }
            (_, Some((_, at))) => {
                assert!(
                    failed || self.passed(at, |options| options.max_power_off_wait, now),
                    "rule 4: {node:?} is asked again, or forced off, too early"
                )
            }
            (_, None) => {
                assert_eq!(action, PowerAction::SoftOff, "the first power-off of {node:?} is not a graceful one");
                let same = |boot: &Boot| plan.operation == PlannedOperation::Boot && boot.artifacts == plan.boot_sets[0].artifacts;
                match self.boot_by_another(uid, node, site).filter(same) {
                    Some(boot) if boot.taken_over && !(boot.came_up && plan.running == RunningPolicy::Restart) => {
                        let over = self.passed(boot.since, |options| options.max_boot_wait, now);
                        assert!(over || person, "rule 8: {node:?} is cycled before its boot deadline");
                        self.silent_cycle(uid, &plan, node, now);
                    }
                    _ => self.first_off(uid, &plan, sent.since.unwrap_or(planned), node, site),
                }
            }
        }
    }

    /// The boot that another session had begun with a node when this one took it, if its report was not answered.
    fn boot_by_another(&self, uid: &SessionUid, node: NodeId, site: &Site) -> Option<Boot> {
        let others = self.sent.iter().filter(|((other, of), _)| other != uid && *of == node);
        let touched = others.filter_map(|((other, _), sent)| Some((other, sent, last_touch(sent, site, node)?)));
        let (other, sent, (PowerAction::On, since)) = touched.max_by_key(|(.., (_, at))| *at)? else { return None };
        // Of a session that drives a node once more what it did before is not kept, but the node has been through it.
        if site.node(node).history.iter().any(|change| change.at > since && !matches!(&change.by, By::Session(by) if by == other)) {
            return None;
        }
        let plan = &self.plans[other].0;
        let came_up = match plan.evidence {
            Evidence::NodeReport | Evidence::HsmReady => site.node(node).up,
            Evidence::PowerState => site.node(node).on,
        };
        let taken_over = self.superseded.contains(&(other.clone(), node));
        (!sent.acknowledged).then(|| Boot { artifacts: plan.boot_sets[0].artifacts.clone(), since, came_up, taken_over })
    }

    /// A node is switched off only if it runs since before the session (rule 7), by a Boot only another, known image (rule 3).
    fn first_off(&self, uid: &SessionUid, plan: &Plan, planned: Timestamp, node: NodeId, site: &Site) {
        if self.by_person.contains_key(&node) {
            return;
        }
        let changed = site.node(node).last_change();
        assert!(changed <= planned || self.by_another(node, site), "rule 7: {node:?} came up after the session began");
        if plan.operation != PlannedOperation::Boot {
            return;
        }
        let wanted = plan.boot_sets[0].artifacts.as_ref();
        match plan.running {
            RunningPolicy::Restart => {}
            RunningPolicy::Leave | RunningPolicy::Skip => panic!("rule 3: {node:?} was to be left running"),
            RunningPolicy::RestartIfDifferent => {
                let booting = self.boot_by_another(uid, node, site).and_then(|boot| boot.artifacts);
                let runs = site.runs(node).or(booting.as_ref());
                assert!(runs.is_some() && runs != wanted, "rule 3: {node:?} runs {runs:?} and is switched off");
            }
        }
    }

    fn by_another(&self, node: NodeId, site: &Site) -> bool {
        matches!(site.node(node).history.last().map(|change| &change.by), Some(By::Session(_)))
    }

    fn silent_cycle(&mut self, uid: &SessionUid, plan: &Plan, node: NodeId, now: Timestamp) {
        let window = self.options.iter().map(|(_, options)| options.max_boot_wait).min().unwrap_or_default();
        // One that was turned away while the call was recorded comes too late.
        let lately = |at: &Timestamp| now < *at + HEARD_AGAIN && *at + RECORDED < now;
        let deaf = plan.evidence == Evidence::NodeReport && self.refused.iter().any(lately);
        assert!(!deaf, "rule 8: {node:?} is cycled for its silence while reports were turned away");
        let cycles = self.silent_cycles.entry(uid.clone()).or_default();
        cycles.push((node, now));
        let together = cycles.iter().filter(|(_, at)| now.since(*at) < window / 2).map(|(node, _)| node).collect::<BTreeSet<_>>().len();
        assert!(together <= self.scenario.options.mass_timeout_limit(plan.len()), "rule 8: {together} nodes cycled together");
    }

    /// BSS stored parameters.
    pub(crate) fn stored(&mut self, dispatch: &Dispatch, token: &Token) {
        self.tokens.insert(token.clone(), dispatch.session.clone());
        for (node, _) in &dispatch.nodes {
            self.sent(&dispatch.session, *node).stored = true;
        }
    }

    /// PCS has a transition: what it is about to do must be right on the site (rule 6).
    pub(crate) fn transition(&mut self, dispatch: &Dispatch, action: PowerAction, id: &Arc<str>, site: &Site) {
        let (plan, _) = self.plans[&dispatch.session].clone();
        for (node, _) in &dispatch.nodes {
            let sent = self.sent(&dispatch.session, *node);
            sent.task = Some(id.clone());
            if action != PowerAction::On {
                continue;
            }
            sent.stored &= untouched(site, id, *node);
            let hardware = site.node(*node);
            let stored = hardware.bss.as_ref().and_then(|token| site.tokens.get(token));
            assert_eq!(stored, plan.boot_sets[0].artifacts.as_ref(), "rule 6: BSS holds another image for {node:?}");
            let configuration = &plan.boot_sets[0].configuration;
            if !configuration.is_empty() {
                assert_eq!(hardware.config.desired, *configuration, "rule 6: CFS holds another configuration for {node:?}");
            }
        }
    }

    /// A call was answered, or is known to be lost.
    pub(crate) fn answered(&mut self, batch: BatchId) {
        self.unanswered.remove(&batch);
    }

    /// The operator was told the id.
    pub(crate) fn accepted(&mut self, id: &Arc<str>, site: &Site) {
        self.known.insert(id.clone());
        self.tried(id, site);
    }

    /// CAPMC has begun to switch off.
    pub(crate) fn begun(&mut self, id: &Arc<str>, action: PowerAction, site: &Site) {
        let parts = site.transitions[id].parts.iter().filter(|part| action != PowerAction::On && part.result == Task::Succeeded);
        self.resting.extend(parts.map(|part| (part.node, part.done_at)));
    }

    /// The operator was told that this was tried.
    pub(crate) fn tried(&mut self, id: &Arc<str>, site: &Site) {
        let limit = self.most_attempts();
        for ((_, node), sent) in &mut self.sent {
            if sent.task.as_ref() == Some(id) && !untouched(site, id, *node) && matches!(sent.last, Some((PowerAction::On, _))) {
                sent.tried_on += 1;
                assert!(sent.tried_on <= limit + sent.forgotten, "rule 14: {} power-ons of {node:?}", sent.tried_on);
            }
        }
    }

    /// The power of a node is about to change.
    pub(crate) fn switching(&mut self, node: NodeId, on: bool, by: &By, site: &Site, _now: Timestamp) {
        let By::Session(uid) = by else { return };
        if !on && site.node(node).on {
            let limit = self.most_attempts();
            let person = self.by_person.contains_key(&node);
            let sent = self.sent(uid, node);
            sent.switched_off += 1;
            assert!(person || sent.switched_off <= limit, "rule 7: {uid} switched {node:?} off {} times", sent.switched_off);
        }
    }

    pub(crate) fn touched_by_person(&mut self, node: NodeId, now: Timestamp) {
        self.by_person.insert(node, now);
    }

    /// A report was answered 200.
    pub(crate) fn acknowledged(&mut self, node: NodeId, token: &Token, _now: Timestamp) {
        let Some(uid) = self.tokens.get(token).cloned() else { return };
        let sent = self.sent(&uid, node);
        sent.acknowledged |= matches!(sent.last, Some((PowerAction::On, _)));
    }

    /// The operator died: what it knew of calls under way is gone.
    pub(crate) fn crashed(&mut self) {
        self.crashed = true;
        self.orders.crashed();
        self.known.clear();
        self.resting.clear();
        self.unanswered.clear();
        for sent in self.sent.values_mut() {
            sent.forgotten += u16::from(matches!(sent.last, Some((PowerAction::On, _))));
        }
    }

    /// It lives again: no acknowledged report is lost.
    pub(crate) fn restarted(&self, world: &World, site: &Site) {
        for ((uid, node), sent) in &self.sent {
            let Some(drive) = world.node(*node).and_then(|node| node.drive.as_ref()) else { continue };
            let hardware = site.node(*node);
            let right = site.runs(*node) == self.plans[uid].0.boot_sets[0].artifacts.as_ref();
            if drive.session == *uid && sent.acknowledged && hardware.up && right && !self.by_person.contains_key(node) {
                // One that came in while the node was being switched off is in its status, and is looked at before anything else is done.
                let shown =
                    world.node(*node).and_then(|node| node.reported.as_ref()).map(|report| &report.token) == hardware.token.as_ref();
                assert!(drive.booted.is_some() || shown, "an answered report of {node:?} is lost: {drive:?}");
            }
        }
    }

    /// A session has ended: what it says is true on the site.
    pub(crate) fn ended(&mut self, world: &World, uid: &SessionUid, site: &Site) {
        let Some(run) = world.sessions.get(uid).and_then(|session| session.run()) else { return };
        for slot in &run.slots {
            let Some(end) = &slot.end else { panic!("{:?} has no end", slot.node) };
            self.ends.insert((uid.clone(), slot.node), end.kind);
            assert!(end.kind == EndKind::Succeeded || !end.reason.is_empty(), "rule 15: {:?} ends without a reason", slot.node);
            let newer = |other: &SessionUid| other != uid && (!self.later(uid, other, slot.node) || self.orders.forgot(other, slot.node));
            let lost = self.plans.iter().any(|(other, (plan, _))| newer(other) && has(plan, slot.node));
            // Of one that was deleted while the operator was away nobody may know how new it was.
            assert!(
                end.kind != EndKind::Superseded || lost || self.deleted.contains(uid),
                "rule 11: {uid} lost {:?} to nothing that is newer: {end:?}",
                slot.node
            );
            let refused = *end.reason == *reasons::BOOT_PARAMETERS_REFUSED;
            assert!(!refused || site.node(slot.node).quirk == Quirk::RefusedByBss, "rule 13: {:?} fails with another node", slot.node);
            let newer = world.node(slot.node).and_then(|node| node.drive.as_ref()).is_some() || self.plans.len() > 1;
            if end.kind != EndKind::Succeeded || newer || self.by_person.contains_key(&slot.node) {
                continue;
            }
            let set = &run.plan.boot_sets[0];
            match &set.artifacts {
                None if run.plan.operation == PlannedOperation::Configure => {
                    let config = &site.node(slot.node).config;
                    assert_eq!((&config.desired, &config.status), (&set.configuration, &ConfigStatus::Configured), "{:?}", slot.node);
                }
                None => assert!(!site.node(slot.node).on, "{:?} is said to be off", slot.node),
                Some(wanted) => match run.plan.evidence {
                    Evidence::NodeReport => assert_eq!(site.runs(slot.node), Some(wanted), "{:?} is said to run the image", slot.node),
                    Evidence::HsmReady => assert!(site.node(slot.node).up, "{:?} is said to be up", slot.node),
                    Evidence::PowerState => assert!(site.node(slot.node).on, "{:?} is said to be on", slot.node),
                },
            }
        }
    }
}

fn has(plan: &Plan, node: NodeId) -> bool {
    plan.nodes().any(|(_, name)| *name == super::fixture::xname(node.0 as usize))
}

/// The last call that was not refused without touching the node.
fn last_touch(sent: &Sent, site: &Site, node: NodeId) -> Option<(PowerAction, Timestamp)> {
    let refused = sent.task.as_ref().is_some_and(|id| untouched(site, id, node));
    if refused { sent.on_before.map(|at| (PowerAction::On, at)) } else { sent.last }
}

fn untouched(site: &Site, id: &Arc<str>, node: NodeId) -> bool {
    site.transitions[id].parts.iter().any(|part| part.node == node && matches!(part.result, Task::Untouched { .. }))
}

fn failed(site: &Site, id: &Arc<str>, node: NodeId, now: Timestamp) -> bool {
    let part = site.transitions[id].parts.iter().find(|part| part.node == node);
    part.is_some_and(|part| matches!(part.result, Task::Failed { .. } | Task::Untouched { .. }) && now >= part.done_at)
}
