//! What only an agent does: it carries out one Session, and lets go of nodes that were given to somebody else.

use bos_core::health::Service;
use bos_core::model::EndKind;
use bos_core::project_session;
use bos_core::session::SessionOutcome;
use bos_core::want::Decision;
use bos_crds::SessionStatus;
use kube::Api;
use tokio::sync::Semaphore;

use super::*;
use crate::boot_set;
use crate::clients::{CALL_TIMEOUT, bounded};

/// How the Session is doing is said at most this often.
const PROGRESS: Duration = Duration::from_secs(5);

/// Between two looks at artifacts in a store that does not answer.
const AGAIN: Duration = Duration::from_secs(5);

/// Nodes whose owner is asked for at the same time; the API server has others to serve.
const ASKED: usize = 8;

/// Pause before the API server is asked for the owner of a node once more.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// The Session that an agent carries out.
pub(super) struct Carried {
    pub(super) uid: SessionUid,
    /// Set once everything of it is written.
    outcome: Option<SessionOutcome>,
    /// What was said last, and when.
    told: Option<(String, Instant)>,
    /// Outages that the journal tells of, and whether each is over.
    outages: Vec<(Service, Timestamp, bool)>,
    /// Turns for questions to the API server.
    turns: Arc<Semaphore>,
}

impl Task {
    /// How the Session of this agent ended, once everything of it is written.
    #[must_use]
    pub fn outcome(&self) -> Option<SessionOutcome> {
        self.charge.as_ref()?.outcome
    }

    /// Takes up the Session of this agent: looks at what its nodes are to boot, and for nodes that are not its own any more.
    pub fn take_charge(&mut self, uid: SessionUid) {
        let turns = Arc::new(Semaphore::new(ASKED));
        self.charge = Some(Carried { uid: uid.clone(), outcome: None, told: None, outages: Vec::new(), turns });
        // From its first write on a journal is written now and then.
        self.journals.changed(&uid);
        let Some(session) = self.world.sessions.get(&uid) else { return };
        let Some(run) = session.run() else { return };
        let (title, operation) = (session.title(), session.spec.operation.as_str());
        let (nodes, open) = (run.slots.len(), run.open().count());
        tracing::info!(session = title, operation, nodes, open, "carrying out");
        let missing: Vec<NodeId> = run.open().filter(|id| self.world.node(*id).is_some_and(|node| !node.recorded)).collect();
        for id in missing {
            self.ask_for_owner(id);
        }
        self.verify_artifacts(&uid);
    }

    /// Nodes are not touched before what they are to boot was seen to be there.
    fn verify_artifacts(&mut self, uid: &SessionUid) {
        let Some(run) = self.world.sessions.get(uid).and_then(|session| session.running()) else { return };
        let plan = Arc::clone(&run.plan);
        for (position, set) in (0_u16..).zip(&plan.boot_sets) {
            if set.artifacts.is_some() && !self.untouched(uid, position).is_empty() {
                self.world.hold_unverified(uid, position);
                self.verify(uid.clone(), position, Duration::ZERO);
            }
        }
    }

    fn verify(&self, uid: SessionUid, boot_set: u16, pause: Duration) {
        let run = self.world.sessions.get(&uid).and_then(|session| session.running());
        let digest = run.and_then(|run| run.plan.boot_set(boot_set)).and_then(|set| set.artifacts.as_ref());
        let Some(artifacts) = digest.and_then(|digest| self.world.artifacts.get(digest)).cloned() else { return };
        let services = self.services.clone();
        self.spawn(async move {
            tokio::time::sleep(pause).await;
            Done::Verified(uid, boot_set, boot_set::verify(&services, &artifacts).await)
        });
    }

    /// S3 has said whether what a boot set is to boot is there, or cannot be asked.
    pub(super) fn verified(&mut self, uid: &SessionUid, boot_set: u16, found: Result<(), SetupFault>, now: Timestamp) {
        let run = self.world.sessions.get(uid).and_then(|session| session.running());
        let Some(set) = run.and_then(|run| run.plan.boot_set(boot_set)) else { return };
        let (name, nodes) = (set.name.to_string(), set.nodes.len());
        match found {
            Err(SetupFault::Unavailable(fault)) => {
                tracing::warn!(service = %fault.service, text = %fault.detail, "not available; tried again");
                self.world.fold_fault(&fault, now);
                return self.verify(uid.clone(), boot_set, AGAIN);
            }
            Ok(()) | Err(SetupFault::TemplateMissing) => {
                self.world.fold_answer(Service::S3, now);
                tracing::info!(boot_set = name, nodes, "S3: kernel, initrd and root file system are there");
            }
            Err(SetupFault::Refused { message, .. }) => {
                tracing::error!(boot_set = name, text = message, "S3: what the nodes are to boot is not there; they are not touched");
                self.fail_untouched(uid, boot_set, &message);
            }
        }
        self.world.release_verified(uid, boot_set);
    }

    /// Nodes of a boot set for which no power action was decided.
    fn untouched(&self, uid: &SessionUid, boot_set: u16) -> Vec<NodeId> {
        let untouched = |drive: &&bos_core::model::Drive| drive.session == *uid && drive.boot_set == boot_set && drive.action.is_none();
        let Some(run) = self.world.sessions.get(uid).and_then(|session| session.running()) else { return Vec::new() };
        let open = run.open().filter(|id| self.world.node(*id).and_then(|node| node.drive.as_ref()).filter(untouched).is_some());
        open.collect()
    }

    fn fail_untouched(&mut self, uid: &SessionUid, boot_set: u16, why: &str) {
        let now = self.now();
        for id in self.untouched(uid, boot_set) {
            let end = Decision::End(EndKind::Failed, reasons::ARTIFACTS_MISSING.into(), format!("{why}. The node was not touched.").into());
            self.world.accept(bos_core::want::Want::Decide(id, end), now);
        }
    }

    /// A BootComponent as the watch of this Session's nodes brings it.
    pub(super) fn see_own(&mut self, object: &BootComponent, now: Timestamp) {
        let ours = |charge: &Carried| object.spec.session.as_ref().is_some_and(|session| *session.uid == *charge.uid.0);
        if !self.charge.as_ref().is_some_and(ours) {
            return;
        }
        if let Some(id) = convert::component(&mut self.world, object, false, now) {
            if !self.views.is_known(id, object) {
                // The operator made it again: all that is known is shown again.
                self.world.touched.insert(id);
            }
            // What is asked by hand is the operator's to answer.
            let _wish = self.views.component_seen(id, object, None);
        }
    }

    /// The operator tells of outages what the journal says: it is written for each that begins or ends.
    pub(super) fn note_outages(&mut self) {
        let Some(charge) = &mut self.charge else { return };
        let outages = self.world.services.outages().map(|(service, outage)| (service, outage.since, outage.until.is_some()));
        let outages: Vec<_> = outages.collect();
        if charge.outages != outages {
            charge.outages = outages;
            self.journals.changed(&charge.uid);
        }
    }

    /// The node left the watch: its object was deleted, or it was given to somebody else.
    pub(super) fn out_of_sight(&mut self, id: NodeId) {
        self.views.component_gone(id);
        self.ask_for_owner(id);
    }

    fn ask_for_owner(&self, id: NodeId) {
        let Some(node) = self.world.node(id).filter(|node| node.drive.is_some()) else { return };
        let Some(turns) = self.charge.as_ref().map(|charge| Arc::clone(&charge.turns)) else { return };
        let (api, xname) = (Api::<BootComponent>::all(self.client.clone()), node.xname.clone());
        self.spawn(async move {
            // It is never closed.
            let _turn = turns.acquire().await;
            let found = bounded(CALL_TIMEOUT, api.get_opt(xname.as_str())).await;
            if found.is_err() {
                tokio::time::sleep(ASKED_AGAIN).await;
            }
            Done::Owner(id, Box::new(found))
        });
    }

    pub(super) fn owner_found(&mut self, id: NodeId, found: Result<Option<BootComponent>, CallError>, now: Timestamp) {
        let Some(charge) = &self.charge else { return };
        match found {
            Err(error) => {
                tracing::warn!(error = error.message(), "cannot tell whose a node is; asked again");
                self.ask_for_owner(id);
            }
            // The operator makes it again, and then says in its spec whose it is: the watch tells of that.
            Ok(None) => self.tell_deleted(id),
            Ok(Some(object)) if object.spec.session.is_none() && object.spec.run.is_none() => self.tell_deleted(id),
            Ok(Some(object)) => match &object.spec.session {
                Some(session) if *session.uid == *charge.uid.0 => {
                    convert::component(&mut self.world, &object, false, now);
                    let _wish = self.views.component_seen(id, &object, Some(u64::MAX));
                    self.world.touched.insert(id);
                }
                Some(session) => self.let_go_of(id, &format!("{}/{}", session.namespace, session.name), now),
                None => self.let_go_of(id, "a change made by hand", now),
            },
        }
    }

    fn tell_deleted(&self, id: NodeId) {
        if let Some(node) = self.world.node(id) {
            tracing::warn!(
                xname = node.xname.as_str(),
                "its BootComponent was deleted; the operator makes it again, and the node is driven on"
            );
        }
    }

    fn let_go_of(&mut self, id: NodeId, by: &str, now: Timestamp) {
        if let Some(node) = self.world.node(id) {
            tracing::info!(xname = node.xname.as_str(), by, "node taken over; let go");
        }
        self.views.component_gone(id);
        self.world.taken_from_agent(id, by, now);
    }

    /// Everything of the Session is written.
    pub(super) fn settle_charge(&mut self, uid: &SessionUid) {
        if !self.journals.is_settled(uid) {
            return;
        }
        let Some(Stage::Ended(ended)) = self.world.sessions.get(uid).map(|session| &session.stage) else { return };
        let (outcome, text) = (ended.end.outcome, ended.end.message.clone());
        tracing::info!(?outcome, %text, "session carried out");
        if let Some(charge) = &mut self.charge {
            charge.outcome = Some(outcome);
        }
    }

    /// How far the Session is, in a line of the log.
    pub(super) fn tell_progress(&mut self, now: Timestamp) {
        let Some(charge) = self.charge.as_ref().filter(|charge| charge.told.as_ref().is_none_or(|(_, at)| at.elapsed() >= PROGRESS)) else {
            return;
        };
        let Some(session) = self.world.sessions.get(&charge.uid).filter(|session| session.running().is_some()) else { return };
        let status = project_session::session(&self.world, session, &SessionStatus::default(), now);
        let text = status.message;
        if charge.told.as_ref().is_none_or(|(told, _)| *told != text) {
            let (done, nodes, failed) = (status.counts.done, status.counts.nodes, status.counts.failed);
            tracing::info!(done, nodes, failed, text, "progress");
        }
        if let Some(charge) = &mut self.charge {
            charge.told = Some((text, Instant::now()));
        }
    }
}
