//! What comes in from outside and what it changes in the World: outcomes of calls, and in [`seen`] what is observed.

mod seen;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bos_crds::reasons;

use crate::batch::{BatchId, BatchState, Member, Outcome, Progress, Task, Work};
use crate::health::Service;
use crate::model::{EndKind, HoldReason, NodeId, Power, PowerAction, PowerSeen, Prepared, SessionUid, World};
use crate::pass::MAX_REFUNDS;
use crate::session::Session;
use crate::time::Timestamp;
use crate::want::Decision;

/// A call that failed as a whole, in a way that says the service is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The service.
    pub service: Service,
    /// What it answered, for people.
    pub detail: Arc<str>,
}

/// What a report needs before it may be answered with 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportNeeds {
    /// The next journal write of this session.
    Journal(SessionUid),
    /// It was said before, and is in the journal of this session or in a write of it that is under way.
    Repeat(SessionUid),
    /// The status of this node, written or still to be.
    Status(NodeId),
    /// The node is not known: 404.
    Unknown,
}

/// PCS ends every transition some minutes after its deadline.
const ENDLESS: Duration = Duration::from_secs(600);

/// An answer of the power service that is no older shows that it answers.
const LATELY: Duration = Duration::from_secs(120);

/// A node CFS does not know may be added by its hardware sync, which runs every ten seconds.
const UNKNOWN_TO_CFS_PAUSE: Duration = Duration::from_secs(10);

/// After a refusal that did not touch the node, longer each time: PCS holds its reservation up to 15 s (external services §2.3),
/// or as long as the slowest node of another transition takes.
const UNTOUCHED_PAUSE: Duration = Duration::from_secs(3);

/// After a failure that its service names, this part of the time that the action was given; longer with each attempt.
const FAILED_SHARE: u32 = 8;

impl World {
    /// A service answered.
    pub fn fold_answer(&mut self, service: Service, now: Timestamp) {
        if self.services.answered(service, now) {
            self.touch_running();
        }
    }

    /// A status from before this process tells of an outage: it lasts until the service answers.
    pub fn take_up_outage(&mut self, service: Service, since: Timestamp) {
        let switches_power = matches!(service, Service::Pcs | Service::Capmc);
        let called = self.services.has(service) && (!switches_power || service == self.power_service.service());
        // One that is never called here would be away for ever.
        if called && self.services.down(service).is_none() {
            self.services.failed(service, "it did not answer before this operator started", since);
        }
    }

    /// A service did not answer.
    pub fn fold_fault(&mut self, fault: &Fault, now: Timestamp) {
        self.services.failed(fault.service, &fault.detail, now);
        self.touch_running();
    }

    fn touch_running(&mut self) {
        let active = self.sessions.values().filter(|session| !matches!(session.stage, crate::session::Stage::Ended(_)));
        self.touched_sessions.extend(active.map(|session| session.uid.clone()).collect::<Vec<_>>());
    }

    /// What became of a call.
    pub fn fold_outcome(&mut self, id: BatchId, outcome: Outcome, now: Timestamp) {
        let Some(batch) = self.batches.get(&id) else { return };
        let (service, session, work) = (batch.work.service(self.power_service), batch.session.clone(), batch.work);
        self.journal_changed(&session);
        self.touched_sessions.insert(session.clone());
        match outcome {
            Outcome::NotSent { service, detail } => {
                self.fold_fault(&Fault { service, detail }, now);
                self.close(id, |world, member, session| world.withdraw(member, session, work));
            }
            Outcome::HeldBack => self.close(id, |world, member, session| world.withdraw(member, session, work)),
            Outcome::Unknown { detail } => {
                self.fold_fault(&Fault { service, detail: detail.clone() }, now);
                // Boot parameters and configuration are set again, which is harmless; a power action is waited out.
                self.close(id, |world, member, _| world.note_error(member.node, &detail));
            }
            Outcome::Rejected { detail } => {
                self.fold_answer(service, now);
                self.reject(id, &detail, false, now);
            }
            Outcome::Impossible { detail } => self.reject(id, &detail, true, now),
            Outcome::Stored { token } => {
                self.fold_answer(service, now);
                // Whatever had to be asked before it (IMS, where an image must be projected) has answered too.
                self.fold_answer(Service::Ims, now);
                let boot_set = self.batches.get(&id).map_or(0, |batch| batch.boot_set);
                if let Some(run) = self.sessions.get_mut(&session).and_then(Session::running_mut) {
                    run.tokens.push((token, boot_set));
                }
                self.close(id, |world, member, session| {
                    world.with_drive(member.node, session, |drive| {
                        drive.params = Prepared::Yes;
                        drive.together = 0;
                    });
                });
            }
            Outcome::Configured { changed } => {
                self.fold_answer(service, now);
                let changed: HashSet<NodeId> = changed.into_iter().collect();
                self.close(id, |world, member, session| world.configured(member.node, session, changed.contains(&member.node), work, now));
            }
            Outcome::Accepted { transition } => {
                self.fold_answer(service, now);
                self.accepted(id, &session, |_| ());
                if let Some(batch) = self.batches.get_mut(&id) {
                    batch.state = BatchState::Following { transition, next: now + follow_pause(Duration::ZERO), reading: false };
                }
            }
            Outcome::Taken { failed, note } => {
                self.fold_answer(service, now);
                self.accepted(id, &session, |drive| {
                    drive.together = 0;
                    drive.error = note.clone();
                });
                for (node, task) in failed {
                    self.fold_task(id, node, task, now, now);
                }
                self.over(id);
            }
            Outcome::Refused { because, detail } => {
                self.fold_answer(service, now);
                self.refuse(id, because, &detail, now);
            }
        }
    }

    /// The power service accepted a call: its nodes' action is known to be under way.
    fn accepted(&mut self, id: BatchId, session: &SessionUid, more: impl Fn(&mut crate::model::Drive)) {
        let members: Vec<NodeId> = self.batches.get(&id).map(|batch| batch.nodes.iter().map(|m| m.node).collect()).unwrap_or_default();
        for node in members {
            self.with_drive(node, session, |drive| {
                if let Some(issued) = &mut drive.action {
                    issued.accepted = true;
                }
                more(drive);
            });
        }
    }

    /// A look at a transition.
    pub fn fold_progress(&mut self, id: BatchId, asked: Timestamp, progress: Progress, now: Timestamp) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let opened = batch.opened;
        let endless = now.since(opened) > self.options.max_power_off_wait.max(self.options.max_power_on_wait) + ENDLESS;
        if let BatchState::Following { next, reading, .. } = &mut batch.state {
            *reading = false;
            *next = now + follow_pause(now.since(opened));
        }
        // From its deadline on something else is said of a node, and by its Session.
        let action = |id: &NodeId| self.nodes.get(id.0 as usize)?.drive.as_ref()?.action;
        let overdue = |member: &&Member| action(&member.node).is_some_and(|issued| now >= issued.power_by);
        let overdue: Vec<NodeId> = batch.nodes.iter().filter(overdue).map(|member| member.node).collect();
        if !overdue.is_empty() {
            self.touched_sessions.insert(batch.session.clone());
        }
        self.touched.extend(overdue);
        match progress {
            // It tells of its nodes, and of this one transition never: a look at the nodes has to do.
            Progress::Unavailable { .. } if endless && self.is_told_of(id, now) => self.over(id),
            Progress::Unavailable { detail } => self.fold_fault(&Fault { service: self.power_service.service(), detail }, now),
            // PCS forgot it: it is over, and only a look at the nodes says what it did.
            Progress::Gone => self.over(id),
            Progress::Tasks { done, tasks } => {
                self.fold_answer(self.power_service.service(), now);
                for (node, task) in tasks {
                    self.fold_task(id, node, task, asked, now);
                }
                // A node the transition does not name is looked at, like one whose task is open in a finished transition; and so
                // are all of them when a transition goes on for longer than PCS keeps any.
                if done || endless {
                    self.over(id);
                }
            }
        }
    }

    /// The power service told lately of a node of this operation.
    fn is_told_of(&self, id: BatchId, now: Timestamp) -> bool {
        let mut nodes = self.batches.get(&id).into_iter().flat_map(|batch| &batch.nodes);
        let seen = |member: &Member| self.node(member.node)?.power.as_ref().map(|seen| seen.at);
        nodes.any(|member| seen(member).is_some_and(|at| now.since(at) < LATELY))
    }

    fn fold_task(&mut self, id: BatchId, node: NodeId, task: Task, asked: Timestamp, now: Timestamp) {
        let Some(batch) = self.batches.get(&id).filter(|_| task != Task::Open) else { return };
        let Some(member) = batch.nodes.iter().find(|member| member.node == node).copied() else { return };
        let (work, session) = (batch.work, batch.session.clone());
        // PCS holds its reservations until the slowest task ends, so the node stays in the batch till then; its result counts now.
        match task {
            Task::Open => {}
            Task::Succeeded => {
                let power = if work == Work::Power(PowerAction::On) { Power::On } else { Power::Off };
                let issued = self.node(node).and_then(|seen| seen.drive.as_ref()).and_then(|drive| drive.action);
                if issued.is_some_and(|issued| asked >= issued.at) {
                    self.see_power(node, PowerSeen { power, at: asked, detail: "".into() });
                }
            }
            Task::Untouched { detail, permanent } => {
                self.free(id, node);
                self.untouched(&member, work, &session, &detail, now);
                if permanent {
                    let service = self.power_service;
                    let message = format!("{service}: {detail}. Not touched; see HSM and {service}.");
                    self.fail(node, &session, reasons::POWER_REFUSED, &message, now);
                }
            }
            Task::Failed { detail } => {
                self.free(id, node);
                self.with_drive(node, &session, |drive| {
                    drive.error = detail.clone();
                });
                // PCS gives up on a graceful power-off after its own minute; the node has all of ours (rule 4).
                let graceful = work == Work::Power(PowerAction::SoftOff);
                let driver = self.node(node).and_then(|seen| seen.drive.as_ref());
                if !graceful && driver.is_some_and(|drive| drive.session == session) {
                    self.decide(node, Decision::ActionFailed { refund: false, error: detail }, now);
                    self.with_drive(node, &session, |drive| drive.not_before = now + pause_after_failure(drive));
                }
            }
        }
    }

    /// Takes one node out of a batch.
    fn free(&mut self, id: BatchId, node: NodeId) {
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.nodes.retain(|member| member.node != node);
        }
        if let Some(node) = self.node_mut(node).filter(|node| node.batch == Some(id)) {
            node.batch = None;
        }
    }

    /// A transition is over, and the journal need not name it any more.
    fn over(&mut self, id: BatchId) {
        if let Some(session) = self.batches.get(&id).map(|batch| batch.session.clone()) {
            self.journal_changed(&session);
        }
        self.close(id, |_, _, _| ());
    }

    /// The journal of a session must be written; a session that is settled has none any more.
    fn journal_changed(&mut self, uid: &SessionUid) {
        if self.sessions.get(uid).is_some_and(|session| session.run().is_some()) {
            self.journal_due.insert(uid.clone());
        }
    }

    /// Ends a batch: every node left in it is free again.
    fn close(&mut self, id: BatchId, mut each: impl FnMut(&mut Self, &Member, &SessionUid)) {
        let Some(batch) = self.batches.remove(&id) else { return };
        for member in &batch.nodes {
            if let Some(node) = self.node_mut(member.node).filter(|node| node.batch == Some(id)) {
                node.batch = None;
            }
            each(self, member, &batch.session);
        }
    }

    /// Undoes the record of a call that did not reach its service: no attempt.
    pub(crate) fn withdraw(&mut self, member: &Member, session: &SessionUid, work: Work) {
        let Work::Power(action) = work else { return };
        self.with_drive(member.node, session, |drive| drive.take_back(action, member.before));
    }

    /// A node was refused without being touched. The attempt is given back, but not for ever: a node that stays reserved by
    /// somebody else must come to its end too (rule 15).
    fn untouched(&mut self, member: &Member, work: Work, session: &SessionUid, detail: &Arc<str>, now: Timestamp) {
        let Some(refunds) = self
            .node(member.node)
            .and_then(|node| node.drive.as_ref())
            .filter(|drive| drive.session == *session)
            .map(|drive| drive.refunds)
        else {
            return;
        };
        if refunds < MAX_REFUNDS {
            self.withdraw(member, session, work);
        } else {
            self.decide(member.node, Decision::ActionFailed { refund: false, error: detail.clone() }, now);
        }
        self.with_drive(member.node, session, |drive| {
            drive.refunds = drive.refunds.saturating_add(1);
            drive.not_before = now + UNTOUCHED_PAUSE.saturating_mul(u32::from(drive.refunds));
            drive.error = detail.clone();
        });
    }

    fn note_error(&mut self, node: NodeId, detail: &Arc<str>) {
        if let Some(drive) = self.node_mut(node).and_then(|node| node.drive.as_mut()) {
            drive.error = detail.clone();
        }
    }

    /// A call was refused as a whole. One bad member must not stop the others (rule 13): the batch is halved until the bad
    /// one travels alone, and a node that is refused alone, or for a reason that holds for all, has failed.
    fn reject(&mut self, id: BatchId, detail: &Arc<str>, all: bool, now: Timestamp) {
        let Some(batch) = self.batches.get(&id) else { return };
        let (final_word, work) = (all || batch.nodes.len() == 1, batch.work);
        let service = work.service(self.power_service);
        let half = u32::try_from(batch.nodes.len().div_ceil(2)).unwrap_or(1);
        self.close(id, |world, member, session| {
            world.withdraw(member, session, work);
            world.with_drive(member.node, session, |drive| {
                drive.together = half;
                drive.error = detail.clone();
            });
            if final_word {
                let reason = match work {
                    Work::Power(_) => reasons::POWER_REFUSED,
                    Work::BootParameters => reasons::BOOT_PARAMETERS_REFUSED,
                    Work::PrepareConfiguration | Work::Configure => reasons::CONFIGURATION_FAILED,
                };
                world.fail(member.node, session, reason, &format!("{service} refused it: {detail}."), now);
            }
        });
    }

    /// A call was refused as a whole because of some of its nodes, and nothing was done. The nodes that were named are judged by
    /// that; from then on they travel with each other, not with those that are well. Where none was named the call is halved, as
    /// in `reject`; but what holds a node is temporary, so one that is refused alone is not given up for it.
    fn refuse(&mut self, id: BatchId, mut because: Vec<(NodeId, Task)>, detail: &Arc<str>, now: Timestamp) {
        let Some(batch) = self.batches.get(&id) else { return };
        let (work, session, members) = (batch.work, batch.session.clone(), batch.nodes.clone());
        because.retain(|(node, _)| members.iter().any(|member| member.node == *node));
        if let ([], [alone]) = (because.as_slice(), members.as_slice()) {
            because.push((alone.node, Task::Untouched { detail: detail.clone(), permanent: false }));
        }
        let named = u32::try_from(because.len()).unwrap_or(u32::MAX);
        for (node, task) in because {
            self.with_drive(node, &session, |drive| drive.together = named);
            self.fold_task(id, node, task, now, now);
        }
        let half = u32::try_from(members.len().div_ceil(2)).unwrap_or(1);
        self.close(id, |world, member, session| {
            world.withdraw(member, session, work);
            world.with_drive(member.node, session, |drive| {
                if named == 0 {
                    drive.together = half;
                    drive.not_before = now + UNTOUCHED_PAUSE;
                    drive.error = detail.clone();
                }
            });
        });
    }

    fn configured(&mut self, node: NodeId, session: &SessionUid, changed: bool, work: Work, now: Timestamp) {
        let patience = self.options.power_unknown_wait;
        // A node that is to have no configuration need not be known to CFS.
        let needless = self.driver(node).is_some_and(|(session, drive)| session.configuration_of(drive.boot_set).is_none());
        self.with_drive(node, session, |drive| {
            if changed || needless {
                drive.config = Prepared::Yes;
                drive.together = 0;
                drive.hold = None;
                return;
            }
            drive.not_before = now + UNKNOWN_TO_CFS_PAUSE;
            let reason = HoldReason::NotInConfigurationService;
            drive.hold.get_or_insert(crate::model::Hold { reason, since: now, until: now + patience });
        });
        // What CFS says of the node must be read anew.
        if let Some(node) = self.node_mut(node).filter(|_| work == Work::Configure) {
            node.config = None;
            node.config_since = now;
        }
    }

    fn fail(&mut self, node: NodeId, session: &SessionUid, reason: &str, message: &str, now: Timestamp) {
        if self.node(node).and_then(|seen| seen.drive.as_ref()).is_some_and(|drive| drive.session == *session) {
            self.decide(node, Decision::End(EndKind::Failed, reason.into(), message.into()), now);
        }
    }

    fn with_drive(&mut self, node: NodeId, session: &SessionUid, change: impl FnOnce(&mut crate::model::Drive)) {
        if let Some(drive) = self.node_mut(node).and_then(|node| node.drive.as_mut()).filter(|drive| drive.session == *session) {
            change(drive);
        }
    }
}

/// What the power service says at once to have failed may work a little later. Without a pause all attempts would be used up in the
/// seconds in which a controller does not answer.
fn pause_after_failure(drive: &crate::model::Drive) -> Duration {
    let Some(issued) = drive.action else { return Duration::ZERO };
    issued.power_by.since(issued.at) / FAILED_SHARE * u32::from(drive.attempts.used(issued.action))
}

/// Looks at a transition follow each other at a tenth of a second at first, then at ever longer pauses up to 5 s.
fn follow_pause(age: Duration) -> Duration {
    (age / 4).clamp(Duration::from_millis(100), Duration::from_secs(5))
}
