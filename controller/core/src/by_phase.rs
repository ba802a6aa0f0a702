//! Which nodes are in which phase, so that an acting operator looks at its own alone.

use std::collections::BTreeMap;

use crate::model::{Drive, Node, NodeId, Phase, SessionUid, World};
use crate::session::{Run, Session};

/// The nodes that each session at work drives, by phase, as the status operator has left them in this round; they hold only until
/// the next decision. Four operators that go over a hundred thousand nodes, each for those of one phase, take as long as the status
/// operator.
#[derive(Debug, Default)]
pub struct ByPhase(BTreeMap<SessionUid, Driven>);

impl ByPhase {
    /// Those of a session of which nothing was decided since.
    pub fn found(&mut self, session: &SessionUid, driven: Driven) {
        self.0.insert(session.clone(), driven);
    }

    /// Looks for those of the sessions that it does not know.
    pub fn complete(&mut self, world: &World) {
        for (session, run) in world.sessions.values().filter_map(|session| Some((session, session.running()?))) {
            if !self.0.contains_key(&session.uid) {
                self.found(&session.uid, Driven::of(world, session, run));
            }
        }
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
            // Of a list that does not hold any more nothing is believed.
            let still = move |drive: &Drive| drive.phase == phase && drive.session == *uid;
            Some((session, session.running()?, world.driven(nodes).filter(move |(_, _, drive)| still(drive))))
        })
    }
}

/// The nodes that one session drives, by phase.
#[derive(Debug, Default)]
pub struct Driven([Vec<NodeId>; Phase::Configuring as usize + 1]);

impl Driven {
    fn of(world: &World, session: &Session, run: &Run) -> Self {
        let mut driven = Self::default();
        for id in run.open() {
            let drive = world.node(id).and_then(|node| node.drive.as_ref());
            if let Some(drive) = drive.filter(|drive| drive.session == session.uid) {
                driven.add(id, drive.phase);
            }
        }
        driven
    }

    pub(crate) fn add(&mut self, node: NodeId, phase: Phase) {
        self.0[phase as usize].push(node);
    }

    fn nodes(&self, phase: Phase) -> &[NodeId] {
        &self.0[phase as usize]
    }
}
