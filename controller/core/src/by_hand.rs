//! Nodes driven by hand: somebody gave a BootComponent a new `spec.run`.
//!
//! Where the spec names a Session, that Session must be at work on the node: it drives it once more, with fresh attempts. Where it
//! names none, the desired state itself is the order, and a run without a Session object brings the node there. Such a run has
//! plan and journal like any other, so all rules hold for it. BOS drives a component as soon as somebody enables it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bos_crds::{Operation, SessionSpec};

use crate::model::{Attempts, Digest, Node, NodeId, SessionUid, World};
use crate::plan::{ByHand, PLAN_VERSION, Plan, PlannedBootSet, PlannedOperation, RunningPolicy};
use crate::resolve::{Exclusion, Rules, excluded};
use crate::session::{Recording, Session, Stage};
use crate::time::Timestamp;
use crate::want::{Effect, Want};

/// Changes of many BootComponents that come together become one run.
const GATHERED: Duration = Duration::from_secs(1);

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
}

/// The part of a BootComponent's spec by which people ask for something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// `spec.run`.
    pub run: Option<Arc<str>>,
    /// `spec.desiredState`.
    pub goal: Goal,
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
    /// `status.run`: the last run that was taken up.
    pub taken: Option<Arc<str>>,
    /// `status.appliedStaged`: the last request to apply its staged state that was answered.
    pub applied: Option<Arc<str>>,
    /// What it asks for.
    pub wish: Wish,
    /// Since when.
    pub since: Timestamp,
    /// The run for which a plan is being written.
    pub planning: Option<Arc<str>>,
    /// Why the last request was not carried out; empty if it was.
    pub refused: Arc<str>,
}

impl Asked {
    /// A run that was not taken up yet. A run that a Session gave bears its uid, and is no request.
    #[must_use]
    pub fn new_run(&self) -> Option<&Arc<str>> {
        let run = self.wish.run.as_ref()?;
        let of_session = self.wish.session.as_ref().is_some_and(|session| session.0 == *run);
        let known = of_session || self.taken.as_ref() == Some(run) || self.planning.as_ref() == Some(run);
        (!known).then_some(run)
    }

    /// A request to apply the staged state that was not answered yet.
    fn new_application(&self) -> Option<&Arc<str>> {
        self.wish.apply.as_ref().filter(|token| self.applied.as_ref() != Some(token))
    }

    /// The run that was taken up last is the one that was to apply the staged state.
    fn note_applied(&mut self) {
        if self.wish.apply.is_some() && self.wish.apply == self.taken {
            self.applied.clone_from(&self.taken);
        }
    }

    fn is_open(&self) -> bool {
        self.new_run().is_some() || self.new_application().is_some()
    }
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
    if !world.discovery.complete {
        return Vec::new();
    }
    let mut wants = Vec::new();
    let mut groups: BTreeMap<Goal, Vec<(NodeId, Arc<str>)>> = BTreeMap::new();
    let asking = world.asked.iter().filter_map(|id| Some((*id, world.node(*id)?)));
    for (id, node) in asking.filter(|(_, node)| now >= node.asked.since + GATHERED) {
        if let Some(token) = node.asked.new_application() {
            wants.push(Want::ApplyStaged(id, token.clone()));
        } else if let Some(run) = node.asked.new_run() {
            match (hindrance(world, id, node), &node.asked.wish.session) {
                (Some(why), _) if *node.asked.refused == *why => {}
                (Some(why), _) => wants.push(Want::Refuse(id, why.into())),
                (None, Some(_)) => wants.push(Want::DriveAgain(id)),
                (None, None) => groups.entry(node.asked.wish.goal.clone()).or_default().push((id, run.clone())),
            }
        }
    }
    wants.extend(groups.into_iter().map(|(goal, nodes)| {
        let operation = if goal.artifacts.is_some() { PlannedOperation::Boot } else { PlannedOperation::Shutdown };
        Want::DriveByHand(Group { operation, goal, nodes, applied: false })
    }));
    wants
}

/// Why a new run is not taken up.
fn hindrance(world: &World, id: NodeId, node: &Node) -> Option<String> {
    match &node.asked.wish.session {
        Some(uid) => world.not_again(id, node, uid),
        None => world.not_to_be_driven(node).or_else(|| world.not_bootable(&node.asked.wish.goal)),
    }
}

impl World {
    /// What was shown of a node before this process. Where nothing was, a restored backup or Git may have brought the object, and
    /// nothing it says is new (rule 5).
    pub fn load_asked(&mut self, id: NodeId, shown: Option<Asked>, wish: &Wish) {
        let Some(node) = self.nodes.get_mut(id.0 as usize) else { return };
        let nothing_new = || Asked { taken: wish.run.clone(), applied: wish.apply.clone(), ..Asked::default() };
        node.asked = shown.unwrap_or_else(nothing_new);
    }

    /// The spec of a BootComponent was seen, by somebody else's hand.
    pub fn fold_wish(&mut self, id: NodeId, wish: Wish, now: Timestamp) {
        let Some(node) = self.nodes.get_mut(id.0 as usize) else { return };
        if node.asked.wish == wish {
            return;
        }
        if (&node.asked.wish.run, &node.asked.wish.apply, &node.asked.wish.session) != (&wish.run, &wish.apply, &wish.session) {
            node.asked.since = now;
            node.asked.refused = "".into();
        }
        node.asked.wish = wish;
        node.asked.note_applied();
        self.touched.insert(id);
        self.note_asked(id);
    }

    /// A node is driven with this run from now on: whoever asked for it is answered.
    pub(crate) fn answer_asked(&mut self, id: NodeId, session: &SessionUid, run: &Arc<str>) {
        let by_hand = self.sessions.get(session).is_some_and(|session| session.by_hand);
        let Some(node) = self.nodes.get_mut(id.0 as usize) else { return };
        node.asked.taken = Some(run.clone());
        // What an older request said is overwritten.
        node.asked.wish.run = Some(run.clone());
        node.asked.wish.session = (!by_hand).then(|| session.clone());
        node.asked.planning = node.asked.planning.take().filter(|planned| planned != run);
        node.asked.refused = "".into();
        node.asked.note_applied();
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
        }
    }

    /// A request to apply the staged state of a node was answered, with nothing done.
    pub(crate) fn refuse_application(&mut self, id: NodeId, token: &Arc<str>, why: &str) {
        self.refuse_asked(id, format!("Its staged state was not applied: {why}").into());
        if let Some(node) = self.node_mut(id) {
            node.asked.applied = Some(token.clone());
        }
        self.note_asked(id);
    }

    /// Why the session that a node's spec names cannot drive it once more.
    fn not_again(&self, id: NodeId, node: &Node, uid: &SessionUid) -> Option<String> {
        const INSTEAD: &str = "To bring it to spec.desiredState by hand remove spec.session; otherwise use a new Session.";
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
        let digest = goal.artifacts.as_deref()?;
        self.artifacts_named(digest).is_none().then(|| {
            format!("It is not driven. No artifact set {digest} is known; copy spec.desiredState from a BootComponent, or use a Session.")
        })
    }

    /// The artifact set that a spec names by its digest, short or whole, with or without the name of the algorithm.
    fn artifacts_named(&self, digest: &str) -> Option<Digest> {
        let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
        let means = |known: &&Digest| digest.starts_with(&*known.0) || known.0.starts_with(digest);
        let mut found = self.artifacts.keys().filter(means);
        found.next().filter(|_| found.next().is_none()).cloned()
    }

    /// Makes the plan of a run without a Session. It begins when the plan is durable.
    pub(crate) fn drive_by_hand(&mut self, group: Group, now: Timestamp) -> Option<Effect> {
        let names: Vec<_> = group.nodes.iter().filter_map(|(id, run)| Some((*id, self.node(*id)?.xname.clone(), run.clone()))).collect();
        let artifacts = group.goal.artifacts.as_deref().map(|digest| self.artifacts_named(digest));
        if names.is_empty() || artifacts == Some(None) {
            return None;
        }
        self.last_sequence += 1;
        let since = self.newest_owner(&group.nodes, now);
        let uid = SessionUid(format!("hand-{}-{}", now.as_millis(), self.last_sequence).into());
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
            by_hand: Some(ByHand { since_ms: since.as_millis(), runs, applied: group.applied }),
            boot_sets: vec![set],
        };
        self.fold_by_hand(&uid, &plan, now);
        if let Some(session) = self.sessions.get_mut(&uid) {
            session.stage = Stage::Recording(Recording { plan: Arc::new(plan), since: now });
        }
        for (id, _, run) in names {
            if let Some(node) = self.node_mut(id) {
                node.asked.planning = Some(run);
            }
            self.note_asked(id);
        }
        Some(Effect::WritePlan(uid))
    }

    /// Sessions are ordered by their creation in whole seconds, by the clock of the API server; what is asked now is newer than all.
    fn newest_owner(&self, nodes: &[(NodeId, Arc<str>)], now: Timestamp) -> Timestamp {
        let owners = nodes.iter().filter_map(|(id, _)| Some(self.node(*id)?.owner.as_ref()?.created));
        owners.fold(now.whole_seconds(), Timestamp::max)
    }

    /// A run without a Session object, new or as its plan says.
    pub(crate) fn fold_by_hand(&mut self, uid: &SessionUid, plan: &Plan, now: Timestamp) {
        let operation = match plan.operation {
            PlannedOperation::Boot => Operation::Boot,
            PlannedOperation::Reboot => Operation::Reboot,
            PlannedOperation::Shutdown => Operation::Shutdown,
            PlannedOperation::Configure => Operation::Configure,
        };
        let created = plan.by_hand.as_ref().map_or(now, |by_hand| Timestamp::from_millis(by_hand.since_ms));
        let session = Session {
            uid: uid.clone(),
            namespace: plan.namespace.clone(),
            name: plan.name.clone(),
            created,
            sequence: plan.sequence,
            generation: 0,
            spec: SessionSpec::new(operation, ""),
            tracked: false,
            by_hand: true,
            deleted: false,
            stage: Stage::Recording(Recording { plan: Arc::new(plan.clone()), since: now }),
        };
        self.sessions.insert(uid.clone(), session);
    }

    /// Whether every node of a run without a Session is shown with that run, and not as driven.
    pub(crate) fn is_settled_by_hand(&self, plan: &Plan) -> bool {
        let runs = plan.by_hand.iter().flat_map(|by_hand| &by_hand.runs);
        let node = |xname| self.by_name.get(xname).and_then(|id| self.node(*id));
        plan.nodes().zip(runs).all(|((_, xname), run)| node(xname).is_none_or(|node| node.asked.taken.as_ref() == Some(run)))
    }

    /// The session that a node's spec names drives it once more, with fresh attempts.
    pub(crate) fn drive_again(&mut self, id: NodeId, now: Timestamp) {
        let Some(asked) = self.node(id).map(|node| node.asked.clone()) else { return };
        let (Some(run), Some(uid)) = (asked.new_run().cloned(), asked.wish.session) else { return };
        let Some(running) = self.sessions.get_mut(&uid).and_then(Session::running_mut) else { return };
        let Some(index) = running.slots.iter().position(|slot| slot.node == id) else { return };
        let place = u32::try_from(index).unwrap_or(u32::MAX);
        let Some(boot_set) = running.plan.member(place).map(|(boot_set, _)| boot_set) else { return };
        let slot = &mut running.slots[index];
        slot.run = Some(run.clone());
        slot.end = None;
        self.touched_sessions.insert(uid.clone());
        self.journal_due.insert(uid.clone());
        let driven = self.node_mut(id).and_then(|node| node.drive.as_mut()).filter(|drive| drive.session == uid);
        if let Some(drive) = driven {
            drive.run = run.clone();
            (drive.attempts, drive.refunds) = (Attempts::default(), 0);
            return self.answer_asked(id, &uid, &run);
        }
        self.claim(&uid, place, boot_set, id, false, now);
    }
}
