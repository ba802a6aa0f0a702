//! Which nodes something may be done to, by phase, so that an acting operator looks at its own alone ([ADR 0016](../../../docs/adr/0016-nodes-by-phase.md)).

use crate::model::{Drive, Node, NodeId, Phase, SessionUid, World};
use crate::session::{Run, Session};
use crate::time::Timestamp;

/// The nodes of each session at work that something may be done to, by phase, as the status operator has left them in this round; they
/// hold only until the next decision. In the order of the sessions, so that both are gone through side by side: to look each of ten
/// thousand runs up takes longer.
#[derive(Debug, Default)]
pub struct ByPhase(Vec<(SessionUid, Actionable)>);

impl ByPhase {
    /// Those of a session of which the status operator decided nothing. Sessions come in their order.
    pub(crate) fn found(&mut self, session: &SessionUid, nodes: Actionable) {
        self.0.push((session.clone(), nodes));
    }

    /// With those of the other sessions, which are looked for.
    #[must_use]
    pub fn completed(self, world: &World, now: Timestamp) -> Self {
        let mut found = self.0.into_iter().peekable();
        let at_work = world.sessions.values().filter_map(|session| Some((session, session.running()?)));
        let of = |(session, run): (&Session, &Run)| {
            let known = found.next_if(|(uid, _)| *uid == session.uid);
            known.unwrap_or_else(|| (session.uid.clone(), Actionable::among(world, session, run, now)))
        };
        Self(at_work.map(of).collect())
    }

    /// The sessions for which something may be sent, each with its nodes in one phase that something may be done to.
    pub(crate) fn runs<'a>(
        &'a self,
        world: &'a World,
        phase: Phase,
        now: Timestamp,
    ) -> impl Iterator<Item = (&'a Session, &'a Run, impl Iterator<Item = (NodeId, &'a Node, &'a Drive)>)> {
        let some = self.0.iter().map(move |(uid, nodes)| (uid, nodes.of(phase))).filter(|(_, nodes)| !nodes.is_empty());
        let mut sessions = world.sessions.values().peekable();
        some.filter_map(move |(uid, nodes)| {
            while sessions.next_if(|session| session.uid < *uid).is_some() {}
            let session = sessions.next_if(|session| session.uid == *uid).filter(|session| !session.halted())?;
            // Nothing is done to a node because of what it was.
            let still = move |node: &Node, drive: &Drive| drive.phase == phase && drive.session == *uid && may_act_on(node, drive, now);
            Some((session, session.running()?, world.driven(nodes.iter().copied()).filter(move |(_, node, drive)| still(node, drive))))
        })
    }
}

/// No call with it is under way, no person holds it, and it waits neither after an error nor for what may still become of a call of the
/// session or the agent before.
fn may_act_on(node: &Node, drive: &Drive, now: Timestamp) -> bool {
    node.batch.is_none() && !node.suspended && now >= drive.not_before
}

/// The nodes of one session that something may be done to, by phase.
#[derive(Debug, Default)]
pub(crate) struct Actionable {
    powering_off: Vec<NodeId>,
    powering_on: Vec<NodeId>,
    configuring: Vec<NodeId>,
}

impl Actionable {
    fn among(world: &World, session: &Session, run: &Run, now: Timestamp) -> Self {
        let mut nodes = Self::default();
        for (id, node, drive) in world.driven(run.open()).filter(|(_, _, drive)| drive.session == session.uid) {
            nodes.add(id, node, drive, now);
        }
        nodes
    }

    pub(crate) fn add(&mut self, id: NodeId, node: &Node, drive: &Drive, now: Timestamp) {
        if !may_act_on(node, drive, now) {
            return;
        }
        match drive.phase {
            Phase::None => {}
            Phase::PoweringOff => self.powering_off.push(id),
            Phase::PoweringOn => self.powering_on.push(id),
            Phase::Configuring => self.configuring.push(id),
        }
    }

    fn of(&self, phase: Phase) -> &[NodeId] {
        match phase {
            Phase::None => &[],
            Phase::PoweringOff => &self.powering_off,
            Phase::PoweringOn => &self.powering_on,
            Phase::Configuring => &self.configuring,
        }
    }
}
