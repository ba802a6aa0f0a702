//! Which nodes are in which phase, so that an acting operator looks at its own alone ([ADR 0016](../../../docs/adr/0016-nodes-by-phase.md)).

use std::collections::BTreeMap;

use crate::model::{Drive, Node, NodeId, Phase, SessionUid, World};
use crate::session::{Run, Session};

/// The nodes that each session at work drives, by phase, as the status operator has left them in this round; they hold only until
/// the next decision.
#[derive(Debug, Default)]
pub struct ByPhase(BTreeMap<SessionUid, Driven>);

impl ByPhase {
    /// Those of a session of which the status operator decided nothing.
    pub(crate) fn found(&mut self, session: &SessionUid, driven: Driven) {
        self.0.insert(session.clone(), driven);
    }

    /// With those of the other sessions, which are looked for.
    #[must_use]
    pub fn completed(mut self, world: &World) -> Self {
        for (session, run) in world.sessions.values().filter_map(|session| Some((session, session.running()?))) {
            self.0.entry(session.uid.clone()).or_insert_with(|| Driven::of(world, session, run));
        }
        self
    }

    /// The sessions for which something may be sent, each with its nodes in one phase.
    pub(crate) fn runs<'a>(
        &'a self,
        world: &'a World,
        phase: Phase,
    ) -> impl Iterator<Item = (&'a Session, &'a Run, impl Iterator<Item = (NodeId, &'a Node, &'a Drive)>)> {
        let some = self.0.iter().map(move |(uid, driven)| (uid, driven.nodes(phase))).filter(|(_, nodes)| !nodes.is_empty());
        some.filter_map(move |(uid, nodes)| {
            let session = world.sessions.get(uid).filter(|session| !session.halted())?;
            // Nothing is done to a node because of what it was.
            let still = move |drive: &Drive| drive.phase == phase && drive.session == *uid;
            Some((session, session.running()?, world.driven(nodes.iter().copied()).filter(move |(_, _, drive)| still(drive))))
        })
    }
}

/// The nodes that one session drives, by phase: those for which an operator acts.
#[derive(Debug, Default)]
pub(crate) struct Driven {
    powering_off: Vec<NodeId>,
    powering_on: Vec<NodeId>,
    configuring: Vec<NodeId>,
}

impl Driven {
    fn of(world: &World, session: &Session, run: &Run) -> Self {
        let mut driven = Self::default();
        for (id, _, drive) in world.driven(run.open()).filter(|(_, _, drive)| drive.session == session.uid) {
            driven.add(id, drive.phase);
        }
        driven
    }

    pub(crate) fn add(&mut self, node: NodeId, phase: Phase) {
        match phase {
            Phase::None => {}
            Phase::PoweringOff => self.powering_off.push(node),
            Phase::PoweringOn => self.powering_on.push(node),
            Phase::Configuring => self.configuring.push(node),
        }
    }

    fn nodes(&self, phase: Phase) -> &[NodeId] {
        match phase {
            Phase::None => &[],
            Phase::PoweringOff => &self.powering_off,
            Phase::PoweringOn => &self.powering_on,
            Phase::Configuring => &self.configuring,
        }
    }
}
