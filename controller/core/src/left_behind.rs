//! What a session leaves behind at a node, and how the next one goes on from there (rules 7, 8 and 11): what was sent may still take
//! effect, and a boot may still be to come up.

use crate::model::{EndKind, Flight, Inherited, Left, NodeId, Phase, PowerAction, SessionUid, World};
use crate::plan::PlannedOperation;
use crate::time::Timestamp;

impl World {
    /// What the session that drives a node leaves behind when its part ends like this.
    pub(crate) fn left_behind(&self, id: NodeId, kind: EndKind) -> Option<Left> {
        if kind == EndKind::Succeeded {
            return None;
        }
        let (session, drive) = self.driver(id)?;
        // What ended in any other way ended by a look at the node.
        let unseen = matches!(kind, EndKind::Superseded | EndKind::Cancelled);
        let until = self.unsettled(id).filter(|_| unseen);
        let (flight, tokens) = self.boot_under_way(id).map_or((None, Vec::new()), |(flight, tokens)| (Some(flight), tokens));
        // What was given up nobody goes on with: people may have done anything to the node since.
        let flight = flight.filter(|_| kind == EndKind::Superseded);
        Some(Left { by: session.as_owner(drive.index), unsettled_until: until.unwrap_or_default(), flight, tokens })
    }

    /// Until when what the session has sent to a node may still take effect. A call that has not left is withdrawn: what counts is
    /// the one before it.
    fn unsettled(&self, id: NodeId) -> Option<Timestamp> {
        let node = self.node(id)?;
        node.unsettled_after(self.so_far(id)?.action, self.untold())
    }

    /// A boot that was given up and should be up by now, or is, may have been through other hands since.
    pub(crate) fn forget_what_is_over(&mut self, id: NodeId, now: Timestamp) {
        let Some(node) = self.nodes.get_mut(id.0 as usize) else { return };
        let Some(issued) = node.left.as_ref().and_then(|left| left.flight.as_ref()).map(|flight| flight.issued) else { return };
        if now >= issued.boot_by || node.spoke_since(issued.decided) {
            node.left.as_mut().map(|left| left.flight.take());
        }
    }

    /// Gives a node to a session, with what the one before has left there.
    pub(crate) fn take_what_was_left(&mut self, id: NodeId, uid: &SessionUid, index: u32, boot_set: u16, now: Timestamp) {
        let left = self.nodes.get_mut(id.0 as usize).and_then(|node| node.left.take()).map(|left| *left);
        let until = left.as_ref().map_or(now, |left| left.unsettled_until.max(now));
        self.take(id, uid, index, boot_set, until);
        match left {
            Some(Left { flight: Some(flight), tokens, .. }) => self.take_over(id, uid, boot_set, (flight, tokens)),
            Some(Left { flight: None, tokens, .. }) => {
                if let Some(drive) = self.node_mut(id).and_then(|node| node.drive.as_mut()) {
                    drive.inherited = tokens;
                }
            }
            None => {}
        }
    }

    /// The boot that is still to come up: by the session that drives the node now, or the one that it left in flight when it took the
    /// node, if it has done nothing to it since. With the tokens that prove it.
    fn boot_under_way(&self, id: NodeId) -> Option<(Flight, Vec<Inherited>)> {
        // Of a boot by an agent only that one knows how it goes.
        let (session, drive) = self.driver(id).filter(|(session, _)| session.with_agent().is_none())?;
        let unsent = self.unsent(id).is_some();
        let issued = match drive.action {
            // It is withdrawn.
            _ if unsent && drive.in_flight.is_none() => return None,
            Some(issued) if !unsent => issued,
            _ => return drive.in_flight.as_deref().map(|flight| (flight.clone(), drive.inherited.clone())),
        };
        if issued.action != PowerAction::On || drive.booted.is_some() {
            return None;
        }
        let run = session.run()?;
        let flight = run.flight(drive.boot_set, issued, drive.last_on, drive.down_seen);
        Some((flight, run.bequeathed(drive.boot_set, &drive.inherited)))
    }

    /// A Boot that wants what the older session was booting the node with goes on with that boot; nobody else would watch it. Any
    /// other knows at least what it was: its report is no boot by somebody else, and another image is no unknown one.
    pub(crate) fn take_over(&mut self, id: NodeId, uid: &SessionUid, boot_set: u16, (flight, tokens): (Flight, Vec<Inherited>)) {
        let Some(run) = self.sessions.get_mut(uid).and_then(|session| session.running_mut()) else { return };
        let wanted = run.plan.boot_set(boot_set).and_then(|set| set.artifacts.as_ref());
        let same =
            wanted.is_some() && flight.artifacts.as_ref() == wanted && run.plan.operation == PlannedOperation::Boot && !run.plan.agent;
        if same {
            // Those of a boot that this one has come after may stand for something else.
            for Inherited(token, _) in tokens.iter().filter(|Inherited(_, artifacts)| *artifacts == flight.artifacts) {
                if !run.stands_for(token, boot_set) {
                    run.tokens.push((token.clone(), boot_set));
                }
            }
        }
        let Some(drive) = self.node_mut(id).and_then(|node| node.drive.as_mut()) else { return };
        drive.inherited = tokens;
        if same {
            drive.phase = Phase::PoweringOn;
            drive.action = Some(flight.issued);
            drive.last_on = flight.last_on;
            drive.down_seen = flight.down_seen;
            drive.attempts.on = 1;
        } else {
            drive.in_flight = Some(Box::new(flight));
        }
    }
}
