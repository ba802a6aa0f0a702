//! A Session as the engine sees it: waiting for set-up, running over its plan, ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use bos_crds::SessionSpec;

use crate::health::{Outage, Service};
use crate::model::{End, EndKind, Flight, Inherited, Issued, Left, NodeId, Owner, Phase, SessionUid, Token, World};
use crate::plan::Plan;
use crate::time::Timestamp;

/// What a run without a Session is called where people look for the name of one.
pub(crate) const TITLE_BY_HAND: &str = "a change made by hand";

/// One Session.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its uid.
    pub uid: SessionUid,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// `metadata.creationTimestamp`, in whole seconds: the newer session owns a node (rule 11).
    pub created: Timestamp,
    /// Order of appearance: of sessions created in the same second the one that appeared later is the newer one. 0 for sessions
    /// that were over before this process began.
    pub sequence: u64,
    /// `metadata.generation` of the spec below.
    pub generation: i64,
    /// What was asked.
    pub spec: SessionSpec,
    /// A GitOps tool tracks it (rule 5).
    pub tracked: bool,
    /// There is no such object: nodes driven by hand, see [`crate::by_hand`].
    pub by_hand: bool,
    /// How its agent is, in mode v1.
    pub agent: AgentSeen,
    /// The object was deleted: nothing new is sent, nodes are released (rule 10).
    pub deleted: bool,
    /// Where it stands.
    pub stage: Stage,
}

/// How the agent of a Session of mode v1 is, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentSeen {
    /// It is at work.
    pub running: bool,
    /// Reason from the registry; empty before there is anything to say.
    pub reason: &'static str,
    /// How Job and pod are.
    pub message: Arc<str>,
}

/// Where a Session stands.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Waits for set-up.
    Pending(Pending),
    /// The plan is made and being written; nothing has been sent.
    Recording(Recording),
    /// Drives its nodes.
    Running(Box<Run>),
    /// Over.
    Ended(Box<Ended>),
}

/// A Session before its plan.
#[derive(Debug, Clone)]
pub struct Pending {
    /// When we first saw it.
    pub since: Timestamp,
    /// The reads for set-up are under way.
    pub reading: bool,
    /// No read before.
    pub not_before: Timestamp,
    /// What it waits for; empty at first.
    pub waiting: Arc<str>,
}

/// A Session whose plan is being written.
#[derive(Debug, Clone)]
pub struct Recording {
    /// The plan.
    pub plan: Arc<Plan>,
    /// When it was made.
    pub since: Timestamp,
}

/// A Session at work.
#[derive(Debug, Clone)]
pub struct Run {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Its nodes, in the order of the plan.
    pub slots: Vec<Slot>,
    /// When the nodes were taken.
    pub started: Timestamp,
    /// Every token BSS returned to this session, with the boot set it was for. All of them are good: a lost answer or a repeat
    /// leaves hosts with either (external services, trap T7).
    pub tokens: Vec<(Token, u16)>,
    /// Times at which a boot time-out led to a power cycle, newest last, for rule 8.
    pub timeout_cycles: Vec<(Timestamp, u32)>,
    /// Nodes fell silent together at that time (rule 8).
    pub mass_timeout: Option<Timestamp>,
    /// Power-ons released lately, for pacing.
    pub paced: Vec<(Timestamp, u32)>,
    /// Services that its agent has found away.
    pub outages: Vec<(Service, Outage)>,
    /// Boot sets of which its agent does not know yet whether what they boot is there.
    pub unverified: BTreeSet<u16>,
    /// An agent carries it out, or is about to: what we know of it is what its journal says.
    pub by_agent: bool,
}

/// One node's place in a session.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The node.
    pub node: NodeId,
    /// The session has owned the node.
    pub taken: bool,
    /// Its end, once its part is over.
    pub end: Option<Box<End>>,
    /// It was running and this session switched it off to boot another image.
    pub power_cycled: bool,
    /// The session switched it off and on, for whatever reason, in a part that is over, or switched it off before somebody asked by hand
    /// for fresh attempts.
    pub cycled: bool,
    /// Its part is over: the phase it had come to.
    pub reached: Phase,
    /// `spec.run` that goes with it, where that is not the session's uid.
    pub run: Option<Arc<str>>,
    /// Its staged state was applied then; the session is as new to this node as that.
    pub applied: Option<Timestamp>,
    /// Its part began then, where that is not when the session began.
    pub since: Option<Timestamp>,
    /// What it left at the node when its part ended.
    pub left: Option<Box<Left>>,
}

impl Slot {
    /// A place of which nothing is known yet.
    #[must_use]
    pub const fn new(node: NodeId) -> Self {
        Self {
            node,
            taken: false,
            end: None,
            power_cycled: false,
            cycled: false,
            reached: Phase::None,
            run: None,
            applied: None,
            since: None,
            left: None,
        }
    }

    /// In a staged session: its state waits to be applied.
    #[must_use]
    pub const fn is_staged(&self) -> bool {
        self.end.is_none() && !self.taken && self.applied.is_none()
    }
}

/// Outcome of a Session, see design "API".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionOutcome {
    /// Refused, expired, or the name ran already.
    NotStarted,
    /// Set-up failed, or no node succeeded and one failed.
    Failed,
    /// Every node was taken by newer sessions.
    Superseded,
    /// Cancelled or deleted.
    Cancelled,
    /// All remaining nodes succeeded, at least one.
    Succeeded,
    /// Anything between.
    PartiallyFailed,
}

/// Why and how a Session ended.
#[derive(Debug, Clone)]
pub struct SessionEnd {
    /// Outcome.
    pub outcome: SessionOutcome,
    /// Reason from the registry.
    pub reason: Arc<str>,
    /// For people.
    pub message: Arc<str>,
    /// When.
    pub at: Timestamp,
}

/// A Session that is over.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How.
    pub end: SessionEnd,
    /// Its run, kept until every status is written and the records are removed; None where it never ran.
    pub run: Option<Box<Run>>,
    /// It had ended before this process began: what its status says is all there is to know, and stays.
    pub before_us: bool,
    /// The object is not deleted before, however old.
    pub remove_not_before: Timestamp,
}

impl Ended {
    /// It ends now, with what it did.
    #[must_use]
    pub fn new(end: SessionEnd, run: Option<Box<Run>>) -> Self {
        Self { end, run, before_us: false, remove_not_before: Timestamp::default() }
    }
}

/// Counts of a run's nodes by the end of their part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// All nodes.
    pub nodes: usize,
    /// Ended well.
    pub succeeded: usize,
    /// Given up.
    pub failed: usize,
    /// Left as they run.
    pub left: usize,
    /// Taken by a newer session.
    pub superseded: usize,
    /// Cancelled first.
    pub cancelled: usize,
    /// Switched off to boot another image, or because they did not come up.
    pub power_cycled: usize,
}

impl Tally {
    /// Nodes whose part is over.
    #[must_use]
    pub const fn ended(&self) -> usize {
        self.succeeded + self.failed + self.left + self.superseded + self.cancelled
    }
}

impl Session {
    /// Its run, at work or over.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        match &self.stage {
            Stage::Running(run) => Some(run),
            Stage::Ended(ended) => ended.run.as_deref(),
            Stage::Pending(_) | Stage::Recording(_) => None,
        }
    }

    /// The same.
    pub(crate) fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.stage {
            Stage::Running(run) => Some(run),
            Stage::Ended(ended) => ended.run.as_deref_mut(),
            Stage::Pending(_) | Stage::Recording(_) => None,
        }
    }

    /// Its run while it is at work.
    pub fn running_mut(&mut self) -> Option<&mut Run> {
        match &mut self.stage {
            Stage::Running(run) => Some(run),
            Stage::Pending(_) | Stage::Recording(_) | Stage::Ended(_) => None,
        }
    }

    /// Its run while it is at work in this process.
    #[must_use]
    pub fn running(&self) -> Option<&Run> {
        match &self.stage {
            Stage::Running(run) => Some(&**run).filter(|run| !run.by_agent),
            Stage::Pending(_) | Stage::Recording(_) | Stage::Ended(_) => None,
        }
    }

    /// Its run while an agent carries it out, or has brought it to its end.
    #[must_use]
    pub fn with_agent(&self) -> Option<&Run> {
        self.run().filter(|run| run.by_agent)
    }

    /// Nothing new may be sent for it, because a person said stop.
    #[must_use]
    pub const fn stopping(&self) -> bool {
        self.deleted || self.spec.cancel
    }

    /// Nothing new may be sent for it now.
    #[must_use]
    pub const fn halted(&self) -> bool {
        self.stopping() || self.spec.suspend
    }

    /// The configuration a boot set of its plan asks for, if any.
    #[must_use]
    pub fn configuration_of(&self, boot_set: u16) -> Option<Arc<str>> {
        let set = self.run()?.plan.boot_set(boot_set)?;
        (!set.configuration.is_empty()).then(|| set.configuration.clone())
    }

    /// `namespace/name`.
    #[must_use]
    pub fn title(&self) -> String {
        if self.by_hand { TITLE_BY_HAND.to_owned() } else { format!("{}/{}", self.namespace, self.name) }
    }

    /// The session as owner of the node in this place of its plan.
    #[must_use]
    pub fn as_owner(&self, index: u32) -> Owner {
        let applied = self.run().and_then(|run| run.slots.get(index as usize)?.applied);
        Owner { created: applied.unwrap_or(self.created), uid: self.uid.clone() }
    }
}

impl Run {
    /// Counts the ends of its nodes.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally { nodes: self.slots.len(), ..Tally::default() };
        for slot in &self.slots {
            tally.power_cycled += usize::from(slot.power_cycled || slot.cycled);
            match slot.end.as_ref().map(|end| end.kind) {
                None => {}
                Some(EndKind::Succeeded) => tally.succeeded += 1,
                Some(EndKind::Failed) => tally.failed += 1,
                Some(EndKind::LeftRunning) => tally.left += 1,
                Some(EndKind::Superseded) => tally.superseded += 1,
                Some(EndKind::Cancelled) => tally.cancelled += 1,
            }
        }
        tally
    }

    /// Nodes whose part is not over.
    pub fn open(&self) -> impl Iterator<Item = NodeId> {
        self.slots.iter().filter(|slot| slot.end.is_none()).map(|slot| slot.node)
    }

    /// Whether a token of this session stands for a boot set: two boot sets of one image may share it.
    #[must_use]
    pub fn stands_for(&self, token: &Token, boot_set: u16) -> bool {
        self.tokens.iter().any(|(known, set)| known == token && *set == boot_set)
    }

    /// The boot of a node of a boot set that is still to come up.
    pub(crate) fn flight(&self, boot_set: u16, issued: Issued, last_on: Option<Timestamp>, down_seen: bool) -> Flight {
        let artifacts = self.plan.boot_set(boot_set).and_then(|set| set.artifacts.clone());
        Flight { artifacts, issued, last_on, down_seen }
    }

    /// The tokens by which a node of a boot set may be known to whoever takes it: its own, and those that the session had
    /// inherited with it.
    #[must_use]
    pub fn bequeathed(&self, boot_set: u16, inherited: &[Inherited]) -> Vec<Inherited> {
        let artifacts = self.plan.boot_set(boot_set).and_then(|set| set.artifacts.clone());
        let ours = self.tokens.iter().filter(|(token, set)| *set == boot_set && !inherited.iter().any(|known| known.0 == *token));
        inherited.iter().cloned().chain(ours.map(|(token, _)| Inherited(token.clone(), artifacts.clone()))).collect()
    }

    /// The boot set a token of this session stands for.
    #[must_use]
    pub fn boot_set_of(&self, token: &Token) -> Option<u16> {
        self.tokens.iter().find(|(known, _)| known == token).map(|(_, set)| *set)
    }
}

/// What the API server says of a Session object.
#[derive(Debug, Clone)]
pub struct SessionSeen {
    /// Its uid.
    pub uid: SessionUid,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// `metadata.generation`.
    pub generation: i64,
    /// A GitOps tool tracks it.
    pub tracked: bool,
    /// Its spec.
    pub spec: SessionSpec,
    /// Its status says Complete, since then.
    pub complete: Option<Timestamp>,
}

impl World {
    /// A Session object was seen, new or changed.
    pub fn fold_session(&mut self, seen: SessionSeen, now: Timestamp) {
        if let Some(known) = self.sessions.get_mut(&seen.uid) {
            if known.generation != seen.generation {
                known.generation = seen.generation;
                known.spec = seen.spec;
                self.touched_sessions.insert(seen.uid);
            }
            known.deleted = false;
            known.tracked = seen.tracked;
            return;
        }
        self.last_sequence += u64::from(seen.complete.is_none());
        let (stage, sequence) = match seen.complete {
            Some(at) => {
                let end = SessionEnd { outcome: SessionOutcome::Succeeded, reason: "".into(), message: "".into(), at };
                (Stage::Ended(Box::new(Ended { before_us: true, ..Ended::new(end, None) })), 0)
            }
            None => {
                self.touched_sessions.insert(seen.uid.clone());
                let waiting = "".into();
                (Stage::Pending(Pending { since: now, reading: false, not_before: now, waiting }), self.last_sequence)
            }
        };
        let SessionSeen { uid, namespace, name, created, generation, tracked, spec, .. } = seen;
        let session = Session {
            uid: uid.clone(),
            namespace,
            name,
            created,
            sequence,
            generation,
            spec,
            tracked,
            by_hand: false,
            agent: AgentSeen::default(),
            deleted: false,
            stage,
        };
        self.sessions.insert(uid, session);
    }

    /// The place of a session in the order of sessions: creation, then appearance, for creation times have whole seconds (BOS
    /// takes hash order, §21.2 no. 13). Sessions that are not known any more were over before any that is.
    #[must_use]
    pub fn order_of(&self, owner: &Owner) -> (Timestamp, u64, SessionUid) {
        let sequence = self.sessions.get(&owner.uid).map_or(0, |session| session.sequence);
        (owner.created, sequence, owner.uid.clone())
    }

    /// The newer of two sessions.
    #[must_use]
    pub fn newer(&self, one: Owner, other: Option<Owner>) -> Owner {
        match other {
            Some(other) if self.order_of(&other) > self.order_of(&one) => other,
            _ => one,
        }
    }

    /// A Session object is gone. What it was doing is cancelled (rule 10); what was over is forgotten.
    pub fn fold_session_gone(&mut self, uid: &SessionUid) {
        let Some(session) = self.sessions.get_mut(uid) else { return };
        let idle = match &session.stage {
            Stage::Pending(_) => true,
            Stage::Recording(_) | Stage::Running(_) => false,
            Stage::Ended(ended) => ended.run.is_none(),
        };
        session.deleted = true;
        let name = (session.namespace.clone(), session.name.clone());
        if idle {
            self.sessions.remove(uid);
            // The durable list of names is asked again when the name comes back.
            self.ran.remove(&name);
        } else {
            self.touched_sessions.insert(uid.clone());
        }
    }

    /// Whether an ended session may be called complete, and its records go: newer sessions have in their own journals what they took
    /// from it. Until then a boot under way that they go on with is known from here alone. `durable` says how things stood for a
    /// session when its journal was last written.
    #[must_use]
    pub fn may_be_forgotten(&self, uid: &SessionUid, durable: impl Fn(&SessionUid) -> Option<Timestamp>) -> bool {
        let slots = self.sessions.get(uid).and_then(Session::run).into_iter().flat_map(|run| &run.slots);
        let lost = slots.filter_map(|slot| Some((slot, slot.end.as_ref().filter(|end| end.kind == EndKind::Superseded)?)));
        let mut taken = lost.filter_map(|(slot, end)| Some((&self.driver(slot.node)?.0.uid, end.at)));
        taken.all(|(taker, at)| taker == uid || durable(taker).is_some_and(|as_of| as_of >= at))
    }

    /// Everything of an ended session is written: its run need not be kept.
    pub fn settle(&mut self, uid: &SessionUid) {
        let Some(session) = self.sessions.get_mut(uid) else { return };
        if let Stage::Ended(ended) = &mut session.stage {
            ended.run = None;
            if session.deleted || session.by_hand {
                self.sessions.remove(uid);
            }
        }
    }
}
