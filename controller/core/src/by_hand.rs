//! Nodes driven by hand: somebody gave a BootComponent a new `spec.run`.
//!
//! Where the spec names a Session, that Session must be at work on the node: it drives it once more, with fresh attempts. Where it
//! names none, the desired state itself is the order, and a run without a Session object brings the node there. Such a run has
//! plan and journal like any other, so all rules hold for it. BOS drives a component as soon as somebody enables it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bos_crds::SessionSpec;

use crate::health::Service;
use crate::model::{Attempts, Digest, Node, NodeId, Owner, SessionUid, World};
use crate::plan::{ByHand, PLAN_VERSION, Plan, PlannedBootSet, PlannedOperation, RunningPolicy};
use crate::resolve::{Exclusion, Rules, excluded};
use crate::session::{Recording, Session, Stage};
use crate::time::Timestamp;
use crate::want::Want;

/// Changes of many BootComponents that come together become one run.
const GATHERED: Duration = Duration::from_secs(1);

/// With this begin the names that runs without a Session have in the place of a uid; the uids of Kubernetes begin otherwise.
pub(crate) const BY_HAND: &str = "hand-";

/// Said of a run that an object had from the beginning.
const NOT_NEW: &str = "spec.run was there when this object was made or restored, so it asks for nothing. A new text there drives the node.";

/// How most of what [`hindrance`] says begins.
pub(crate) const BY_HAND_REFUSED: &str = "spec.run is new, but ";

/// What a node is to run, or, without artifacts, to be off.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Goal {
    /// Digest of the artifact set.
    pub artifacts: Option<Arc<str>>,
    /// Short name of the image, for people.
    pub image: Arc<str>,
    /// CFS configuration; empty for none.
    pub configuration: Arc<str>,
}

/// `spec.stagedState`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// What to do when it is applied.
    pub operation: PlannedOperation,
    /// What the node is to run then.
    pub goal: Goal,
    /// The session that staged it.
    pub session: SessionUid,
    /// Its namespace.
    pub namespace: Arc<str>,
}

/// The part of a BootComponent's spec by which people ask for something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// `spec.run`.
    pub run: Option<Arc<str>>,
    /// `spec.desiredState`.
    pub goal: Option<Goal>,
    /// A GitOps tool tracks the object.
    pub tracked: bool,
    /// `spec.session`.
    pub session: Option<SessionUid>,
    /// `spec.applyStaged`.
    pub apply: Option<Arc<str>>,
    /// `spec.stagedState`.
    pub parked: Option<Parked>,
}

/// What a BootComponent asks for, and how far that got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// `status.run`: the last run that was taken up, or refused.
    pub taken: Option<Arc<str>>,
    /// `status.appliedStaged`: the last request to apply its staged state that was answered.
    pub applied: Option<Arc<str>>,
    /// What it asks for.
    pub wish: Wish,
    /// Since when.
    pub since: Timestamp,
    /// The run for which a plan is being written, and whose plan that is.
    pub planning: Option<(Arc<str>, SessionUid)>,
    /// The run that was taken up, or refused, before that one.
    pub before: Option<Arc<str>>,
    /// What `spec.run` says still, until a newer run is written over it.
    pub overwritten: Option<Arc<str>>,
    /// Why the last request was not carried out; empty if it was.
    pub refused: Arc<str>,
}

impl Asked {
    /// A run that was not taken up yet. A run that a Session gave bears its uid, and is no request.
    #[must_use]
    pub fn new_run(&self) -> Option<&Arc<str>> {
        let run = self.wish.run.as_ref()?;
        let of_session = self.wish.session.as_ref().is_some_and(|session| session.0 == *run);
        let known = [&self.taken, &self.overwritten].into_iter().any(|known| known.as_ref() == Some(run));
        // Written by us: it bears the name of the request that applied the staged state.
        let of_application = self.wish.apply.as_ref() == Some(run);
        (!of_session && !of_application && !known && !self.is_planned(run)).then_some(run)
    }

    /// What `status.run` is to say. As long as the spec names a run that is not to be taken up any more, the status answers that one:
    /// the newer one may never get into the spec, and after a restart the status is all that is known.
    #[must_use]
    pub fn answer(&self) -> Option<&Arc<str>> {
        let overwritten = self.overwritten.as_ref().filter(|run| self.wish.run.as_ref() == Some(run));
        overwritten.or(self.taken.as_ref())
    }

    /// A request to apply the staged state that was not answered yet.
    fn new_application(&self) -> Option<&Arc<str>> {
        self.wish.apply.as_ref().filter(|token| self.applied.as_ref() != Some(token) && !self.is_planned(token))
    }

    fn is_planned(&self, run: &Arc<str>) -> bool {
        self.planning.as_ref().is_some_and(|(planned, _)| planned == run)
    }

    /// The run that was taken up last is the one that was to apply the staged state.
    fn note_applied(&mut self) {
        if self.wish.apply.is_some() && self.wish.apply == self.taken {
            self.applied.clone_from(&self.taken);
        }
    }

    /// Notes that a run was taken up, or refused; the one before is none to be taken up any more.
    fn take(&mut self, run: Option<Arc<str>>) {
        if run.is_some() && run != self.taken {
            self.before = std::mem::replace(&mut self.taken, run);
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.new_run().is_some() || self.new_application().is_some()
    }
}

impl Node {
    /// The run that its spec is to name: of what drives it. Not while the spec holds a request that is still to be answered or whose
    /// plan is being written, nor over one that was refused: the older run, there again, would pass for a request (rule 5). The run
    /// of a Session is none.
    #[must_use]
    pub fn run_to_write(&self) -> Option<&Arc<str>> {
        let waits = self.asked.new_run().is_some() || self.asked.planning.is_some();
        let drive = self.drive.as_ref().filter(|_| !waits)?;
        let known = drive.run == drive.session.0 || self.asked.taken.as_ref() == Some(&drive.run);
        known.then_some(&drive.run)
    }
}

/// A digest as specs may write it, without the name of the algorithm.
#[must_use]
pub fn bare(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// Nodes that get the same run.
#[derive(Debug, Clone)]
pub struct Group {
    /// What is done to them.
    pub operation: PlannedOperation,
    /// What they are to run.
    pub goal: Goal,
    /// Each with its new run.
    pub nodes: Vec<(NodeId, Arc<str>)>,
    /// Their staged state was applied.
    pub applied: bool,
}

/// Answers what BootComponents ask for.
#[must_use]
pub fn reconcile(world: &World, now: Timestamp) -> Vec<Want> {
    // Locks and roles are read afresh, as for a Session (rule 9).
    let fresh = |node: &&Node| world.discovery.complete && world.discovery.accepted >= node.asked.since;
    let asking = || world.asked.iter().filter_map(|id| Some((*id, world.node(*id).filter(fresh)?)));
    if !asking().any(|(_, node)| now >= node.asked.since + GATHERED) {
        return Vec::new();
    }
    let mut wants = Vec::new();
    let mut applied = Vec::new();
    let mut groups: BTreeMap<Goal, Vec<(NodeId, Arc<str>)>> = BTreeMap::new();
    // One after the other: a second plan would take the place of the first, which would be made once more.
    for (id, node) in asking().filter(|(_, node)| node.asked.planning.is_none()) {
        if let Some(token) = node.asked.new_application() {
            applied.push((id, token.clone()));
        } else if let Some(run) = node.asked.new_run() {
            match (hindrance(world, id, node), &node.asked.wish.session) {
                (Some(why), _) => wants.push(Want::Refuse(id, why.into())),
                (None, Some(_)) => wants.push(Want::DriveAgain(id)),
                (None, None) => groups.entry(node.asked.wish.goal.clone().unwrap_or_default()).or_default().push((id, run.clone())),
            }
        }
    }
    if !applied.is_empty() {
        wants.push(Want::ApplyStaged(applied));
    }
    wants.extend(groups.into_iter().map(|(goal, nodes)| {
        let operation = if goal.artifacts.is_some() { PlannedOperation::Boot } else { PlannedOperation::Shutdown };
        Want::DriveByHand(Group { operation, goal, nodes, applied: false })
    }));
    wants
}

/// Why a new run is not taken up.
#[must_use]
pub fn hindrance(world: &World, id: NodeId, node: &Node) -> Option<String> {
    const TRACKED: &str = "spec.run is new, but a GitOps tool tracks this object and would ask for it again and again. Use a Session.";
    const NOTHING: &str = "spec.run is new, but spec.desiredState is not set, so nothing is wanted. To switch the node off, set it without artifacts: {\"image\": \"\"}.";
    match (&node.asked.wish.session, &node.asked.wish.goal) {
        (Some(uid), _) => world.not_again(id, node, uid),
        (None, _) if node.asked.wish.tracked => Some(TRACKED.to_owned()),
        (None, None) => Some(NOTHING.to_owned()),
        (None, Some(goal)) => world.not_to_be_driven(node).or_else(|| world.not_bootable(goal)),
    }
}

impl World {
    /// What was shown of a node before this process. Where nothing was, a restored backup or Git may have brought the object, and
    /// nothing it says is new (rule 5).
    pub fn load_asked(&mut self, id: NodeId, shown: Option<Asked>, wish: &Wish) {
        let Some(node) = self.nodes.get_mut(id.0 as usize) else { return };
        let nothing_new = || Asked { taken: wish.run.clone(), applied: wish.apply.clone(), ..Asked::default() };
        let asks = Asked { wish: wish.clone(), ..Asked::default() }.new_run().is_some() && shown.is_none();
        // What was asked by the object before and is being planned begins all the same.
        let planning = node.asked.planning.take();
        *node.asked = Asked { planning, ..shown.unwrap_or_else(nothing_new) };
        if asks {
            node.asked.refused = NOT_NEW.into();
        }
        if let Some(drive) = &node.drive {
            // What drives it is newer than whatever its new object says.
            node.asked.overwritten.clone_from(&wish.run);
            node.asked.taken = Some(drive.run.clone());
        }
        self.note_asked(id);
    }

    /// What a BootComponent says of who owns its node: a Session in its spec, or, in the status that was shown before this process,
    /// a run by hand. The newest stays (rule 11).
    pub fn fold_owner(&mut self, id: NodeId, session: Option<Owner>, by_hand: Option<Timestamp>) {
        for owner in session.into_iter().chain(by_hand.map(Owner::by_hand)) {
            let owner = self.newer(owner, self.node(id).and_then(|node| node.owner.clone()));
            if let Some(node) = self.nodes.get_mut(id.0 as usize) {
                node.owner = Some(owner);
            }
        }
    }

    /// The spec of a BootComponent was seen, by somebody else's hand.
    pub fn fold_wish(&mut self, id: NodeId, wish: Wish, now: Timestamp) {
        let Some(node) = self.nodes.get_mut(id.0 as usize) else { return };
        if node.asked.wish == wish {
            return;
        }
        if (&node.asked.wish.run, &node.asked.wish.apply, &node.asked.wish.session) != (&wish.run, &wish.apply, &wish.session) {
            node.asked.since = now;
        }
        if wish.run.is_some() && wish.run == node.asked.before {
            // Our own write of it was on its way when a newer one was taken up; or somebody went back to it, which asks for nothing.
            node.asked.overwritten.clone_from(&wish.run);
        } else if node.asked.overwritten != wish.run {
            node.asked.overwritten = None;
        }
        node.asked.wish = wish;
        node.asked.note_applied();
        self.touched.insert(id);
        self.note_asked(id);
        if self.asked.contains(&id) {
            if let Some(node) = self.nodes.get_mut(id.0 as usize) {
                node.asked.refused = "".into();
            }
            self.discovery.due = self.discovery.due.min(now);
        }
    }

    /// A node is driven with this run from now on, by an owner as new as that: whoever asked for it is answered.
    pub(crate) fn answer_asked(&mut self, id: NodeId, session: &SessionUid, run: &Arc<str>, owned: Timestamp) {
        const OVERTAKEN: &str = "Its staged state was not applied: a newer Session has the node.";
        let by_hand = self.sessions.get(session).is_none_or(|session| session.by_hand);
        let Some(node) = self.nodes.get_mut(id.0 as usize) else { return };
        let asked = &mut node.asked;
        // What was asked after a Session came, or after staged state was applied, is newer than that, and stays.
        let later = by_hand || asked.since > owned + Duration::from_secs(1);
        let newer = later && asked.new_run().is_some_and(|asking| asking != run);
        asked.take(Some(run.clone()));
        asked.overwritten = asked.wish.run.clone().filter(|written| !newer && written != run);
        asked.planning = asked.planning.take().filter(|(planned, _)| planned != run);
        if !newer {
            asked.refused = "".into();
        }
        asked.note_applied();
        if let (false, Some(token)) = (later, asked.new_application().cloned()) {
            asked.applied = Some(token);
            asked.refused = OVERTAKEN.into();
        }
        self.note_asked(id);
    }

    /// What drives a node was taken up from its records. Whether what its spec asks for came before or after that nobody knows any
    /// more, so it is not done (rule 5).
    pub(crate) fn drop_asked(&mut self, id: NodeId) {
        const NOT_DONE: &str = "was not done: when the operator started again the node was being driven.";
        const THERE: &str = "To ask again write a new text there.";
        const OUTSIDE: &str = "To ask again write all of it once more: spec.session null, spec.desiredState and a new text in spec.run.";
        let Some(node) = self.nodes.get_mut(id.0 as usize).filter(|node| node.drive.is_some()) else { return };
        let asked = &mut node.asked;
        let mut refused = Vec::new();
        if let Some(run) = asked.new_run().cloned() {
            asked.overwritten = Some(run);
            let again = if asked.wish.session.is_some() { THERE } else { OUTSIDE };
            refused.push(format!("What spec.run asked for {NOT_DONE} {again}"));
        }
        if let Some(token) = asked.new_application().cloned() {
            asked.applied = Some(token);
            refused.push(format!("What spec.applyStaged asked for {NOT_DONE} {THERE}"));
        }
        if !refused.is_empty() {
            asked.refused = refused.join(" ").into();
        }
        self.note_asked(id);
    }

    /// Our own write of the spec arrived: it names this run now, and that is what the status has to answer from here on, also before
    /// the watch tells of it. Otherwise a run that is over would look like a new request after a restart (rule 5).
    pub fn run_written(&mut self, id: NodeId, run: &Arc<str>) {
        let Some(node) = self.nodes.get_mut(id.0 as usize) else { return };
        if node.asked.taken.as_ref() == Some(run) {
            node.asked.wish.run = Some(run.clone());
            node.asked.overwritten = node.asked.overwritten.take().filter(|overwritten| overwritten == run);
        }
        self.touched.insert(id);
    }

    /// The BootComponent of a node is gone, and with it whatever it asked for.
    pub fn component_gone(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.recorded = false;
            node.asked.wish = Wish::default();
        }
        self.note_asked(id);
    }

    /// A plan or journal names the run of a node. If that was to apply the staged state it was answered, whoever has the node since.
    pub(crate) fn note_begun(&mut self, id: NodeId, run: Option<&Arc<str>>) {
        let Some(node) = self.nodes.get_mut(id.0 as usize).filter(|node| run.is_some() && node.asked.wish.apply.as_ref() == run) else {
            return;
        };
        node.asked.applied = run.cloned();
        self.touched.insert(id);
        self.note_asked(id);
    }

    fn note_asked(&mut self, id: NodeId) {
        if self.node(id).is_some_and(|node| node.asked.is_open()) {
            self.asked.insert(id);
        } else {
            self.asked.remove(&id);
        }
    }

    /// What was asked of a node is not done.
    pub(crate) fn refuse_asked(&mut self, id: NodeId, why: Arc<str>) {
        if let Some(node) = self.node_mut(id) {
            node.asked.refused = why;
            // For good: a new run asks anew.
            let run = node.asked.new_run().cloned();
            node.asked.take(run);
        }
        self.note_asked(id);
    }

    /// A request to apply the staged state of a node was answered, with nothing done.
    pub(crate) fn refuse_application(&mut self, id: NodeId, token: &Arc<str>, why: &str) {
        if let Some(node) = self.node_mut(id) {
            node.asked.refused = format!("Its staged state was not applied: {why}").into();
            node.asked.applied = Some(token.clone());
        }
        self.note_asked(id);
    }

    /// Why the session that a node's spec names cannot drive it once more.
    fn not_again(&self, id: NodeId, node: &Node, uid: &SessionUid) -> Option<String> {
        const INSTEAD: &str = "To bring it to spec.desiredState by hand (without artifacts there it is switched off) remove spec.session and write a new text into spec.run; otherwise use a new Session.";
        let Some(session) = self.sessions.get(uid).filter(|session| session.running().is_some()) else {
            return Some(format!("spec.run is new, but the Session that spec.session names is over. {INSTEAD}"));
        };
        let slot = session.running().and_then(|run| (0_u32..).zip(&run.slots).find(|(_, slot)| slot.node == id));
        let Some((index, slot)) = slot else {
            return Some(format!("spec.run is new, but Session {} does not act on this node. {INSTEAD}", session.title()));
        };
        let ours = self.order_of(&session.as_owner(index));
        if node.owner.as_ref().is_some_and(|owner| self.order_of(owner) > ours) {
            return Some(format!("spec.run is new, but Session {} lost this node to a newer one. {INSTEAD}", session.title()));
        }
        if session.stopping() {
            return Some(format!("spec.run is new, but Session {} is being cancelled. {INSTEAD}", session.title()));
        }
        let waits = slot.applied.is_none() && session.running().is_some_and(|run| run.plan.staged);
        waits.then(|| format!("spec.run is new, but what Session {} staged has not been applied. Set spec.applyStaged.", session.title()))
    }

    /// Why a node is not driven without a Session.
    pub(crate) fn not_to_be_driven(&self, node: &Node) -> Option<String> {
        let rules = Rules { include_disabled: false, include_management: self.options.include_management };
        let why = match excluded(node.facts.as_ref(), node.locked, &rules)? {
            Exclusion::NotInHSM => "HSM does not list it.".to_owned(),
            Exclusion::ManagementRole => "It has role Management; BootOptions includeManagement would allow it.".to_owned(),
            Exclusion::DisabledInHSM => "It is disabled in HSM; a Session with includeDisabled would act on it.".to_owned(),
            other => format!("It is excluded: {}.", other.as_str()),
        };
        Some(format!("It is not driven. {why}"))
    }

    /// Why nothing can be booted to get there.
    pub(crate) fn not_bootable(&self, goal: &Goal) -> Option<String> {
        if !goal.configuration.is_empty() && !self.services.has(Service::Cfs) {
            return Some("It is not driven. It names a configuration, and this site has no CFS.".to_owned());
        }
        let Some(digest) = goal.artifacts.as_deref() else {
            let odd = !goal.configuration.is_empty();
            return odd.then(|| "It is not driven. It names a configuration and no artifacts: a node that is off has none.".to_owned());
        };
        self.artifacts_named(digest).is_none().then(|| {
            format!("It is not driven. No artifact set {digest} is known; copy spec.desiredState from a BootComponent, or use a Session.")
        })
    }

    /// The artifact set that a spec names by its digest, short or whole, with or without the name of the algorithm.
    fn artifacts_named(&self, digest: &str) -> Option<Digest> {
        let digest = bare(digest);
        let means = |known: &&Digest| digest.starts_with(&*known.0) || known.0.starts_with(digest);
        let mut found = self.artifacts.keys().filter(means);
        found.next().filter(|_| found.next().is_none()).cloned()
    }

    /// Makes the plan of a run without a Session. It begins when the plan is durable.
    pub(crate) fn drive_by_hand(&mut self, group: Group, now: Timestamp) -> Option<SessionUid> {
        let names: Vec<_> = group.nodes.iter().filter_map(|(id, run)| Some((*id, self.node(*id)?.xname.clone(), run.clone()))).collect();
        let artifacts = group.goal.artifacts.as_deref().map(|digest| self.artifacts_named(digest));
        if names.is_empty() || artifacts == Some(None) {
            return None;
        }
        self.last_sequence += 1;
        let since = self.newest();
        let uid = SessionUid(format!("{BY_HAND}{}-{}", now.as_millis(), self.last_sequence).into());
        let set = PlannedBootSet {
            name: "by-hand".into(),
            artifacts: artifacts.flatten(),
            image: group.goal.image,
            configuration: group.goal.configuration,
            nodes: names.iter().map(|(_, xname, _)| xname.clone()).collect(),
        };
        let runs = names.iter().map(|(.., run)| run.clone()).collect();
        let plan = Plan {
            version: PLAN_VERSION,
            sequence: self.last_sequence,
            created_ms: 0,
            operation: group.operation,
            namespace: self.install_namespace.clone(),
            name: uid.0.clone(),
            template_generation: 0,
            running: RunningPolicy::RestartIfDifferent,
            evidence: self.options.evidence,
            include_disabled: false,
            max_power_cycled: None,
            warnings: Vec::new(),
            excluded: BTreeMap::new(),
            staged: false,
            agent: false,
            inventory: None,
            by_hand: Some(ByHand { since_ms: since.as_millis(), runs, applied: group.applied }),
            boot_sets: vec![set],
        };
        self.fold_by_hand(&uid, Arc::new(plan), now);
        for (id, _, run) in names {
            if let Some(node) = self.node_mut(id) {
                node.asked.planning = Some((run, uid.clone()));
            }
            self.note_asked(id);
        }
        self.plans_due.insert(uid.clone());
        Some(uid)
    }

    /// The newest creation that is known. Sessions are ordered by it, by the clock of the API server and in whole seconds. What is
    /// asked now comes at the end of that second: it is newer than all that is known, also than Sessions that wait for their set-up
    /// and when this process is long forgotten, and older than all that comes.
    pub(crate) fn newest(&self) -> Timestamp {
        let owners = self.nodes.iter().filter_map(|node| Some(node.owner.as_ref()?.created));
        self.sessions.values().map(|session| session.created).chain(owners).max().unwrap_or_default()
    }

    /// A run without a Session object, new or as its plan says.
    pub(crate) fn fold_by_hand(&mut self, uid: &SessionUid, plan: Arc<Plan>, now: Timestamp) {
        let created = plan.by_hand.as_ref().map_or(now, |by_hand| Timestamp::from_millis(by_hand.since_ms)).end_of_second();
        let session = Session {
            uid: uid.clone(),
            namespace: plan.namespace.clone(),
            name: plan.name.clone(),
            created,
            sequence: plan.sequence,
            generation: 0,
            spec: SessionSpec::new(plan.operation.into(), ""),
            tracked: false,
            by_hand: true,
            agent: crate::session::AgentSeen::default(),
            deleted: false,
            stage: Stage::Recording(Recording { plan, since: now }),
        };
        self.sessions.insert(uid.clone(), session);
    }

    /// Of a run without a Session nothing is left but its plan: it is over, or somebody removed its journal. Its nodes are left as
    /// they are, and what their specs say of it is no new request.
    pub(crate) fn give_up_by_hand(&mut self, plan: &Plan) {
        let runs = plan.by_hand.iter().flat_map(|by_hand| &by_hand.runs);
        for ((_, xname), run) in plan.nodes().zip(runs) {
            let Some(id) = self.by_name.get(xname).copied() else { continue };
            if let Some(node) = self.nodes.get_mut(id.0 as usize).filter(|node| node.asked.wish.run.as_ref() == Some(run)) {
                node.asked.taken = Some(run.clone());
            }
            self.note_asked(id);
        }
    }

    /// The session that a node's spec names drives it once more, with fresh attempts.
    pub(crate) fn drive_again(&mut self, id: NodeId, now: Timestamp) {
        let Some(asked) = self.node(id).map(|node| node.asked.clone()) else { return };
        let (Some(run), Some(uid)) = (asked.new_run().cloned(), asked.wish.session) else { return };
        let Some(running) = self.sessions.get_mut(&uid).and_then(Session::running_mut) else { return };
        let Some(index) = running.slots.iter().position(|slot| slot.node == id) else { return };
        let place = u32::try_from(index).unwrap_or(u32::MAX);
        let Some(boot_set) = running.plan.member(place).map(|(boot_set, _)| boot_set) else { return };
        let Some(slot) = running.slots.get_mut(index) else { return };
        slot.run = Some(run.clone());
        slot.since = Some(now);
        slot.end = None;
        self.touched_sessions.insert(uid.clone());
        self.journal_due.insert(uid.clone());
        self.touched.insert(id);
        let driven = self.nodes.get_mut(id.0 as usize).and_then(|node| node.drive.as_mut()).filter(|drive| drive.session == uid);
        if let Some(drive) = driven {
            // What it was switched off for counts on, also for maxPowerCycled; its attempts begin anew.
            slot.cycled |= drive.cycled() || (slot.power_cycled && drive.attempts.any_off());
            drive.run = run.clone();
            (drive.attempts, drive.refunds) = (Attempts::default(), 0);
            return self.answer_asked(id, &uid, &run, now);
        }
        self.claim(&uid, place, boot_set, id, false, now);
    }
}
