//! What people asked of single nodes, and what may be made of it: the part of the checker for runs by hand and staged state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bos_core::by_hand::{Goal, Parked, Wish};
use bos_core::model::{Node, NodeId, SessionUid, World};
use bos_core::plan::Plan;
use bos_core::session::{Session, Slot};
use bos_core::time::Timestamp;

type Run = Arc<str>;

/// One request of a person.
#[derive(Debug)]
struct Request {
    at: Timestamp,
    /// The staged state is to be applied.
    applies: bool,
    /// What was wanted while it stood there.
    goals: Vec<Goal>,
}

/// One node's part in a session, as its journal has it.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) node: NodeId,
    run: Run,
    over: bool,
}

/// The nodes that a session has owned.
pub(crate) fn parts(session: &Session) -> Vec<Part> {
    let slots = session.run().into_iter().flat_map(|run| &run.slots).filter(|slot| slot.taken);
    let run = |slot: &Slot| slot.run.clone().unwrap_or_else(|| session.uid.0.clone());
    slots.map(|slot| Part { node: slot.node, run: run(slot), over: slot.end.is_some() }).collect()
}

/// Requests, and what came of them.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    asked: BTreeMap<(NodeId, Run), Request>,
    /// What was staged at a node, at whatever time.
    parked: BTreeMap<NodeId, Vec<Parked>>,
    /// What took a request up, by a durable record.
    begun: BTreeMap<(NodeId, Run), SessionUid>,
    /// Runs that are over, by a durable record.
    over: BTreeSet<(SessionUid, NodeId, Run)>,
    /// Between which instants something became as new as it is to a node: asked for, and taken up.
    spans: BTreeMap<(SessionUid, NodeId), (Timestamp, Timestamp)>,
    /// What was taken up, and was not durable when the operator died. Who lost the node to it may have known.
    forgotten: BTreeSet<(SessionUid, NodeId)>,
    /// Runs without a Session.
    planned: BTreeSet<SessionUid>,
    /// What drove each node after the last pass of this life.
    driven: Vec<Option<(SessionUid, Run)>>,
}

impl Orders {
    /// A person writes a new run.
    pub(crate) fn asked(&mut self, node: NodeId, wish: &Wish, now: Timestamp) {
        let Some(run) = wish.run.clone() else { return };
        let goals = wish.goal.clone().into_iter().collect();
        self.asked.insert((node, run), Request { at: now, applies: false, goals });
    }

    /// A person changes what is wanted, and nothing else.
    pub(crate) fn wished(&mut self, node: NodeId, wish: &Wish) {
        let (Some(run), Some(goal)) = (wish.run.clone(), wish.goal.clone()) else { return };
        if let Some(request) = self.asked.get_mut(&(node, run)) {
            request.goals.push(goal);
        }
    }

    /// A person asks for what is staged.
    pub(crate) fn applied(&mut self, node: NodeId, wish: &Wish, now: Timestamp) {
        let Some(token) = wish.apply.clone() else { return };
        self.asked.insert((node, token), Request { at: now, applies: true, goals: Vec::new() });
    }

    /// The object of a node was made again then: nothing that it says since before is a request (rule 5).
    pub(crate) fn restored(&mut self, node: NodeId, made: Timestamp) {
        self.asked.retain(|(of, _), request| *of != node || request.at > made);
        // What a run by hand owns stands in the status once the run is over, and that is gone.
        let over: BTreeSet<_> = self.over.iter().filter(|(uid, of, _)| *of == node && self.planned.contains(uid)).collect();
        self.spans.retain(|(uid, of), _| *of != node || !over.iter().any(|(by, ..)| by == uid));
    }

    /// The operator writes what is staged.
    pub(crate) fn staged(&mut self, node: NodeId, parked: Option<&Parked>) {
        self.parked.entry(node).or_default().extend(parked.cloned());
    }

    /// The plan of a run without a Session is about to be written: somebody asked for just that, once.
    pub(crate) fn planned(&mut self, uid: &SessionUid, plan: &Plan, world: &World, now: Timestamp) {
        let Some(by_hand) = &plan.by_hand else { panic!("{uid} is a Session's") };
        self.planned.insert(uid.clone());
        let set = &plan.boot_sets[0];
        let goal = Goal {
            artifacts: set.artifacts.as_ref().map(|digest| digest.0.clone()),
            image: set.image.clone(),
            configuration: set.configuration.clone(),
        };
        for ((_, xname), run) in plan.nodes().zip(&by_hand.runs) {
            let node = world.by_name[xname];
            let request = self.request(node, run);
            let at = request.at;
            assert_eq!(by_hand.applied, request.applies, "{run} of {node:?} is taken for something else");
            if request.applies {
                let staged = self.parked.get(&node).into_iter().flatten();
                let same = { staged }.any(|parked| parked.goal == goal && parked.operation == plan.operation);
                assert!(same, "{node:?} gets {goal:?}, which nobody staged there");
            } else {
                assert!(request.goals.contains(&goal), "{node:?} gets {goal:?}, and {:?} was asked for", request.goals);
            }
            assert_eq!(self.begun.get(&(node, run.clone())), None, "rule 5: {run} of {node:?} begins twice");
            self.spans.insert((uid.clone(), node), (at, now));
        }
    }

    fn request(&self, node: NodeId, run: &Run) -> &Request {
        self.asked.get(&(node, run.clone())).unwrap_or_else(|| panic!("rule 5: nobody asked for {run:?} of {node:?}"))
    }

    /// After a pass: whatever drives a node was asked for. Returns nodes that got a new run, and whether they began anew with it.
    pub(crate) fn drives(&mut self, world: &World, now: Timestamp) -> Vec<(NodeId, bool)> {
        self.driven.resize(world.nodes.len(), None);
        let mut new = Vec::new();
        for (id, node) in (0..).map(NodeId).zip(&world.nodes) {
            let place = id.0 as usize;
            let Some(drive) = &node.drive else {
                self.driven[place] = None;
                continue;
            };
            if self.driven[place].as_ref().is_some_and(|(session, run)| *session == drive.session && *run == drive.run) {
                continue;
            }
            self.driven[place] = Some((drive.session.clone(), drive.run.clone()));
            self.justified(world, id, node, now);
            let fresh = drive.action.is_none() && drive.attempts == Default::default() && drive.phase == bos_core::model::Phase::None;
            new.push((id, fresh));
        }
        new
    }

    fn justified(&mut self, world: &World, id: NodeId, node: &Node, now: Timestamp) {
        let Some(drive) = &node.drive else { return };
        let (uid, run) = (&drive.session, &drive.run);
        let again = self.over.contains(&(uid.clone(), id, run.clone()));
        assert!(!again, "rule 7: {run} of {id:?} by {uid} was over and is taken up again");
        let Some(plan) = world.sessions[uid].run().map(|run| &run.plan) else { return };
        if *run == uid.0 {
            return assert!(!plan.staged, "rule 5: {uid} acts on {id:?}, and what it staged was not applied");
        }
        if plan.by_hand.is_some() || self.begun.get(&(id, run.clone())) == Some(uid) {
            return;
        }
        let request = self.request(id, run);
        assert!(request.applies || !plan.staged || self.spans.contains_key(&(uid.clone(), id)), "rule 5: {id:?} was not applied");
        assert!(!request.applies || plan.staged, "{run} of {id:?} applies what {uid} did not stage");
        // To be tried again by the Session that the object names may make that as new as the order, or leave it as old as it is.
        let before = self.spans.get(&(uid.clone(), id)).map(|(from, _)| *from);
        let from = if request.applies { request.at } else { before.unwrap_or(world.sessions[uid].created) };
        self.spans.insert((uid.clone(), id), (from, now));
    }

    /// The journal with these parts is durable, or was found at a start.
    pub(crate) fn recorded(&mut self, uid: &SessionUid, parts: Vec<Part>) {
        for Part { node, run, over } in parts {
            if run != uid.0 {
                let before = self.begun.insert((node, run.clone()), uid.clone());
                assert!(before.as_ref().is_none_or(|before| before == uid), "rule 5: {run} of {node:?} began by {before:?}");
            }
            if over {
                self.over.insert((uid.clone(), node, run));
            }
        }
    }

    /// Whether a session had taken up what was asked for, and did not know it any more after a crash.
    pub(crate) fn forgot(&self, uid: &SessionUid, node: NodeId) -> bool {
        self.forgotten.contains(&(uid.clone(), node))
    }

    /// When it was asked for what a session or run does with a node, and when that was taken up, if that is not the session's own age.
    pub(crate) fn span(&self, uid: &SessionUid, node: NodeId) -> Option<(Timestamp, Timestamp)> {
        self.spans.get(&(uid.clone(), node)).copied()
    }

    /// The operator died, and what was durable is recorded: a staged state whose application was not is only staged again.
    pub(crate) fn crashed(&mut self) {
        self.driven.clear();
        let begun: BTreeSet<_> = self.begun.iter().map(|((node, _), uid)| (uid.clone(), *node)).collect();
        let is_durable = |place: &(SessionUid, NodeId)| self.planned.contains(&place.0) || begun.contains(place);
        self.forgotten.extend(self.spans.keys().filter(|place| !is_durable(place)).cloned());
        self.spans.retain(|place, _| is_durable(place));
    }
}
