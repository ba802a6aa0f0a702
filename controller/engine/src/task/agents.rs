//! Sessions of mode v1 in the operator: their Jobs are launched, followed and ended, and the Sessions taken back.

use std::collections::BTreeMap;

use bos_core::journal::Journal;
use bos_core::session::{AgentSeen, Session};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;

use super::*;
use crate::agents::{Ending, Launcher, Order};
use crate::clients::Backoff;
use crate::events::WORTH_AN_EVENT;
use crate::records::{JournalBytes, journal_bytes};
use crate::task::pods::{Standing, of_pod};
use crate::task::troubles::Troubles;

/// What the operator knows of agents.
#[derive(Default)]
pub(super) struct Agents {
    launcher: Option<Launcher>,
    lost: Option<CancellationToken>,
    /// Sessions that were given to an agent, or are about to be.
    given: BTreeMap<SessionUid, Given>,
    /// Their Jobs, by the uid of the Session.
    jobs: BTreeMap<SessionUid, Job>,
    /// The Jobs were listed.
    listed: bool,
    /// Their journals as they were read last: of one that somebody deletes, this is all that is known.
    journals: BTreeMap<SessionUid, Vec<u8>>,
    /// Their pods, by name.
    pods: BTreeMap<String, Pod>,
    /// Jobs that were let begin, and are not seen to have.
    begun: BTreeSet<Arc<str>>,
    /// Sessions whose Jobs could not be made yet.
    denied: BTreeMap<SessionUid, Denied>,
    /// What keeps agents from their work.
    troubles: Troubles,
    /// Jobs whose Sessions are gone, being removed.
    removed: BTreeSet<String>,
}

/// Where a Session and its agent stand.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Given {
    /// The Job is being made.
    Launching,
    /// The Job with this uid carries it out; since when we know.
    With(Arc<str>, Timestamp),
    /// It is being taken back, perhaps for a reason that its Job does not tell.
    TakingBack(Arc<str>, Option<String>),
    /// It is with the operator again.
    Back,
}

/// A Job that could not be made.
struct Denied {
    why: String,
    next: Timestamp,
    pauses: Backoff,
}

/// A Job gets its pod in a moment; one that has none for so long is refused it, by a quota say.
const WITHOUT_POD: Duration = Duration::from_secs(10);

/// How long a Job that was just made may take to be seen.
const UNSEEN: Duration = Duration::from_secs(5);

/// How long after its time a pod that is being deleted is taken to end by itself: that time is the API server's.
const OVERDUE: Duration = Duration::from_secs(30);

/// How long a Job may go on after its agent has written the end of the Session: another container of the pod may never end.
const LINGERING: Duration = Duration::from_secs(10);

impl Agents {
    /// An agent may be writing the journal of a session.
    pub(super) fn has(&self, uid: &SessionUid) -> bool {
        matches!(self.given.get(uid), Some(Given::Launching | Given::With(..) | Given::TakingBack(..)))
    }

    /// What it takes to leave the Job of a Session to itself.
    pub(super) fn of(&self, session: &Session) -> Option<(Launcher, Order)> {
        let had = self.given.contains_key(&session.uid);
        Some((self.launcher.clone().filter(|_| had)?, order(session, None)))
    }

    /// The records of a session are gone.
    pub(super) fn over(&mut self, uid: &SessionUid) {
        self.given.remove(uid);
        self.denied.remove(uid);
        self.journals.remove(uid);
        self.troubles.forget(uid);
    }

    pub(super) fn fold_jobs(&mut self, seen: Seen<Job>) {
        match seen {
            Seen::Reset { items, .. } => {
                self.jobs = items.into_iter().filter_map(|job| Some((of_session(job.labels())?, job))).collect();
                self.listed = true;
            }
            Seen::Applied(job) => {
                if let Some(uid) = of_session(job.labels()) {
                    self.jobs.insert(uid, *job);
                }
            }
            Seen::Deleted(job) => {
                if let Some(uid) = of_session(job.labels())
                    && self.jobs.get(&uid).is_some_and(|known| known.uid() == job.uid())
                {
                    self.jobs.remove(&uid);
                }
            }
            Seen::Invalid(_) | Seen::InvalidDeleted(_) => {}
        }
    }

    pub(super) fn fold_pods(&mut self, seen: Seen<Pod>) {
        match seen {
            Seen::Reset { items, .. } => self.pods = items.into_iter().map(|pod| (pod.name_any(), pod)).collect(),
            Seen::Applied(pod) => drop(self.pods.insert(pod.name_any(), *pod)),
            Seen::Deleted(pod) => drop(self.pods.remove(&pod.name_any())),
            Seen::Invalid(_) | Seen::InvalidDeleted(_) => {}
        }
    }

    fn newest_pod(&self, uid: &SessionUid) -> Option<&Pod> {
        let ours = |pod: &&Pod| of_session(pod.labels()).as_ref() == Some(uid);
        self.pods.values().filter(ours).max_by_key(|pod| pod.creation_timestamp().map(|at| at.0))
    }

    /// Why the pod of an agent will not end by itself: its machine does not answer any more, so that nothing tells how the container is.
    /// It may still run; its Lease and the epoch of its journal keep it from acting.
    fn lost(&self, uid: &SessionUid, now: Timestamp) -> Option<String> {
        let pod = self.newest_pod(uid)?;
        let status = pod.status.as_ref();
        let over = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        let gone_by = Timestamp::from_millis(pod.metadata.deletion_timestamp.as_ref()?.0.as_millisecond());
        let machine = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("none");
        let text =
            || format!("pod {} was to end at {} and does not: its machine {machine} does not answer", pod.name_any(), gone_by.wall());
        (!over && now >= gone_by + OVERDUE).then(text)
    }

    /// How a Job and the newest of its pods are. `over`: the Session is not its any more.
    fn seen(&self, uid: &SessionUid, over: bool) -> (AgentSeen, Standing) {
        let Some(job) = self.jobs.get(uid) else {
            let (reason, message) = match over {
                true => (reasons::AGENT_ENDED, "Its Job is gone."),
                false => (reasons::AGENT_STARTING, "Its Job is being made."),
            };
            return (AgentSeen { running: false, reason, message: message.into() }, Standing::OnItsWay);
        };
        let name = job.name_any();
        // Why it gets none (a quota, a policy, a service account that is missing) is said in Events of the Job alone.
        let none = || {
            let namespace = job.namespace().unwrap_or_default();
            (format!("no pod yet; if that stays so, kubectl -n {namespace} describe job {name} says why"), Standing::InTrouble(WITHOUT_POD))
        };
        let (words, standing) = self.newest_pod(uid).map_or_else(none, of_pod);
        let message = format!("Job {name}: {}{words}.", ended(job).map(|how| format!("{how}; ")).unwrap_or_default());
        let (reason, standing) = match (ended(job), standing) {
            (Some(_), _) => (reasons::AGENT_ENDED, Standing::OnItsWay),
            (None, Standing::Works) => (reasons::AGENT_RUNNING, standing),
            (None, Standing::OnItsWay | Standing::InTrouble(_)) => (reasons::AGENT_STARTING, standing),
        };
        (AgentSeen { running: reason == reasons::AGENT_RUNNING, reason, message: message.into() }, standing)
    }
}

impl Task {
    /// Sessions of mode v1 are carried out, where the settings say how.
    pub fn launches(&mut self, settings: &Settings, client: &Client, lost: &CancellationToken) {
        self.world.launches_agents = settings.agent_template.is_some();
        self.agents.lost = Some(lost.clone());
        let template = settings.agent_template.clone();
        self.agents.launcher = Some(Launcher {
            template: template.map(Arc::new),
            client: client.clone(),
            namespace: settings.namespace.clone(),
            identity: settings.identity.clone(),
            lease: settings.lease,
        });
    }

    /// A Session that an earlier operator gave to an agent; to none any more where there is no Job.
    pub fn load_agent(&mut self, uid: &SessionUid, job: &str, journal: &JournalBytes) {
        let (now, back) = (self.now(), job.is_empty());
        self.agents.given.insert(uid.clone(), if back { Given::Back } else { Given::With(job.into(), now) });
        if back {
            return self.world.give_up_agent(uid, "Its agent ended before the Session was over.", now);
        }
        self.world.may_be_with_agent(uid);
        if let JournalBytes::Written(bytes) = journal {
            self.mirror(uid, bytes, now);
        }
    }

    /// Launches what may be launched, and takes back what no agent carries out any more.
    pub(super) fn look_after_agents(&mut self, now: Timestamp) {
        if self.agents.launcher.is_none() {
            return;
        }
        let uids: Vec<SessionUid> = self
            .world
            .sessions
            .values()
            .filter(|session| session.run().is_some_and(|run| run.plan.agent))
            .map(|session| session.uid.clone())
            .collect();
        for uid in uids {
            self.look_after_agent(&uid, now);
        }
        self.remove_ownerless();
    }

    fn look_after_agent(&mut self, uid: &SessionUid, now: Timestamp) {
        let Some(session) = self.world.sessions.get(uid) else { return };
        let stopping = session.stopping() && !matches!(session.stage, Stage::Ended(_));
        match self.agents.given.get(uid).cloned() {
            None if session.with_agent().is_some() => self.launch(uid, now),
            None | Some(Given::Launching | Given::Back) => {}
            Some(Given::With(job, since)) => {
                let known = self.agents.jobs.get(uid).filter(|known| known.uid().as_deref() == Some(&*job));
                let over = matches!(&session.stage, Stage::Ended(ended) if now.since(ended.end.at) >= LINGERING);
                let lost = self.agents.lost(uid, now);
                let ending = match known {
                    Some(known) if ended(known).is_some() => Some(Ending::Over),
                    Some(_) | None if stopping || lost.is_some() => Some(Ending::Stopped),
                    Some(_) if over => Some(Ending::Over),
                    None if self.agents.listed && now.since(since) >= UNSEEN => Some(Ending::Gone),
                    Some(_) | None => None,
                };
                if let Some(ending) = ending {
                    self.take_back(uid, job, ending, lost);
                } else if let Some(known) = known {
                    self.see_begun(uid, &job, is_suspended(known));
                }
                let (seen, standing) = self.see_agent(uid, false);
                self.tell_trouble(uid, standing, (seen.reason, &seen.message), now);
            }
            Some(Given::TakingBack(..)) => {
                self.agents.troubles.forget(uid);
                self.see_agent(uid, true);
            }
        }
    }

    fn see_agent(&mut self, uid: &SessionUid, over: bool) -> (AgentSeen, Standing) {
        let (seen, standing) = self.agents.seen(uid, over);
        self.world.see_agent(uid, seen.clone());
        (seen, standing)
    }

    fn tell_trouble(&mut self, uid: &SessionUid, standing: Standing, why: (&'static str, &str), now: Timestamp) {
        if let Some(told) = self.agents.troubles.look(uid, standing, why, now) {
            self.publish(uid, told.severity, told.reason, &told.note);
        }
    }

    fn launch(&mut self, uid: &SessionUid, now: Timestamp) {
        let Some(session) = self.world.sessions.get(uid) else { return };
        let Some(run) = session.with_agent() else { return };
        if session.stopping() || run.open().next().is_none() {
            return self.world.keep_from_agent(uid);
        }
        if let Some(denied) = self.agents.denied.get(uid).filter(|denied| now < denied.next) {
            let wait = denied.next.since(now).as_secs().max(1);
            let message = format!("Its Job cannot be made now: {}. Tried again within {wait} s; its nodes are not touched.", denied.why);
            let why = format!("Its Job cannot be made: {}. It is tried again; its nodes are not touched", denied.why);
            self.world.see_agent(uid, AgentSeen { running: false, reason: reasons::AGENT_WAITING, message: message.into() });
            return self.tell_trouble(uid, Standing::InTrouble(WORTH_AN_EVENT), (reasons::AGENT_WAITING, &why), now);
        }
        let open: Vec<NodeId> = run.open().collect();
        let busy = open.iter().filter(|id| self.world.node(**id).is_some_and(|node| node.batch.is_some() || node.agent.is_some())).count();
        let halted = session.halted();
        let shown = open.iter().all(|id| !self.projections.is_put_aside(*id) && self.views.is_written(&self.world, *id));
        if halted || busy > 0 || !shown || !self.world.is_ready_for_agent(uid, now) || !self.journals.is_settled(uid) {
            let message = match busy {
                0 => "Its nodes are being taken; then its Job is made.".to_owned(),
                some => format!("Its Job is made when what an older Session asked of {some} of its nodes has ended."),
            };
            return self.world.see_agent(uid, AgentSeen { running: false, reason: reasons::AGENT_WAITING, message: message.into() });
        }
        let Some(launcher) = self.agents.launcher.clone() else { return };
        let order = order(session, self.world.options.session_ttl);
        tracing::info!(session = session.title(), job = order.job_name(), nodes = open.len(), "launching its agent");
        self.world.hand_over(uid);
        self.agents.given.insert(uid.clone(), Given::Launching);
        self.see_agent(uid, false);
        let (records, uid) = (Arc::clone(&self.records), uid.clone());
        self.spawn(async move {
            let launched = launcher.launch(&records, &order).await;
            Done::Launched(uid, launched.map(Box::new))
        });
    }

    pub(super) fn launched(
        &mut self,
        uid: &SessionUid,
        launched: Result<Box<Job>, LaunchError>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        match launched {
            Ok(job) => {
                let job_uid = job.uid().unwrap_or_default();
                tracing::info!(session_uid = %uid, job = job.name_any(), job_uid, "agent launched");
                self.agents.denied.remove(uid);
                self.agents.given.insert(uid.clone(), Given::With(job_uid.as_str().into(), now));
                self.see_begun(uid, &job_uid.into(), is_suspended(&job));
                Ok(())
            }
            Err(LaunchError::NotNow(why)) => {
                tracing::warn!(session_uid = %uid, text = why, "the agent cannot be launched now; tried again");
                self.agents.given.remove(uid);
                self.world.no_agent_was_launched(uid);
                let denied = self.agents.denied.entry(uid.clone()).or_insert_with(|| Denied::new(now));
                (denied.why, denied.next) = (why, now + denied.pauses.next_pause());
                Ok(())
            }
            Err(LaunchError::Record(error)) => Err(record_failure(error)),
            Err(LaunchError::Refused(why)) => {
                tracing::error!(session_uid = %uid, text = why, "the agent cannot be launched");
                self.agents.given.insert(uid.clone(), Given::Back);
                self.world.give_up_agent(uid, &format!("Its Job could not be made: {why}."), now);
                Ok(())
            }
        }
    }

    /// Its uid is recorded; where it was not begun it is let begin, once until the watch tells of it.
    fn see_begun(&mut self, uid: &SessionUid, job: &Arc<str>, suspended: bool) {
        if !suspended {
            self.agents.begun.remove(job);
            return;
        }
        if !self.agents.begun.insert(Arc::clone(job)) {
            return;
        }
        let (Some(launcher), Some(session)) = (self.agents.launcher.clone(), self.world.sessions.get(uid)) else { return };
        let (name, job) = (order(session, None).job_name(), Arc::clone(job));
        let tx = self.done_tx.clone();
        tokio::spawn(async move {
            if !launcher.start(&name, &job).await {
                // The receiver is gone only when the engine has ended.
                let _ = tx.send(Done::NotBegun(job));
            }
        });
    }

    /// It is to be let begin once more.
    pub(super) fn not_begun(&mut self, job: &Arc<str>) {
        self.agents.begun.remove(job);
    }

    fn take_back(&mut self, uid: &SessionUid, job: Arc<str>, ending: Ending, why: Option<String>) {
        let (Some(launcher), Some(lost)) = (self.agents.launcher.clone(), self.agents.lost.clone()) else { return };
        let Some(session) = self.world.sessions.get(uid) else { return };
        tracing::info!(session = session.title(), ?ending, why, "taking the session back from its agent");
        let order = order(session, None);
        self.agents.given.insert(uid.clone(), Given::TakingBack(job.clone(), why));
        let (records, uid) = (Arc::clone(&self.records), uid.clone());
        self.spawn(async move {
            let taken = launcher.take_back(&records, &order, &job, ending, &lost).await;
            Done::TakenBack(uid, taken)
        });
    }

    pub(super) fn taken_back(
        &mut self,
        uid: &SessionUid,
        taken: Result<TakenBack, RecordError>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Some(Given::TakingBack(job, why)) = self.agents.given.get(uid).cloned() else { return Ok(()) };
        let (journal, shown) = match taken {
            Err(error) => return Err(record_failure(error)),
            Ok(TakenBack::StillThere) => {
                self.agents.given.insert(uid.clone(), Given::With(job, now));
                return Ok(());
            }
            Ok(TakenBack::Taken(journal, shown)) => (journal, shown),
        };
        for object in &shown {
            if let Some(id) = Xname::parse(&object.name_any()).ok().and_then(|xname| self.world.by_name.get(&xname).copied()) {
                self.see_shown_by_agent(id, object);
            }
        }
        self.agents.given.insert(uid.clone(), Given::Back);
        self.agents.begun.remove(&job);
        let last = self.agents.journals.remove(uid);
        let why = self.why_lost(uid, why);
        let taken = match journal {
            JournalBytes::Written(bytes) => Journal::decode(&bytes).and_then(|journal| self.world.take_back(uid, Some(journal), &why, now)),
            JournalBytes::Empty => self.world.take_back(uid, None, &why, now),
            JournalBytes::Lost => {
                tracing::error!(session_uid = %uid, "the journal of an agent was deleted; its nodes are left as they are");
                let last = last.as_deref().map(Journal::decode).transpose();
                last.and_then(|last| self.world.take_back_without_journal(uid, last, now))
            }
        };
        if let Err(error) = taken {
            // What it had written before is all that is known.
            tracing::error!(session_uid = %uid, %error, "the journal of an agent cannot be used");
            self.world.give_up_agent(uid, &why, now);
        }
        self.see_agent(uid, true);
        Ok(())
    }

    fn why_lost(&self, uid: &SessionUid, lost: Option<String>) -> String {
        let name = self.world.sessions.get(uid).map(|session| order(session, None).job_name()).unwrap_or_default();
        if let Some(lost) = lost {
            return format!("The agent did not get through with this node: {lost}. The Session was taken back from it; look at the node.");
        }
        match self.agents.jobs.get(uid).and_then(ended) {
            Some(how) => {
                let of_pod = self.agents.newest_pod(uid).map(of_pod).filter(|(_, standing)| matches!(standing, Standing::InTrouble(_)));
                let pod = of_pod.map(|(words, _)| format!("; {words}")).unwrap_or_default();
                format!("The agent ended before this node was through ({how}{pod}); see the log of Job {name} and the node.")
            }
            None => format!("The Job {name} of the agent was removed before this node was through; look at the node."),
        }
    }

    /// The journal of an agent was written.
    pub(super) fn fold_agent_journals(&mut self, seen: Seen<ConfigMap>, now: Timestamp) {
        let objects = match seen {
            Seen::Reset { items, .. } => items,
            Seen::Applied(object) => vec![*object],
            Seen::Deleted(_) | Seen::Invalid(_) | Seen::InvalidDeleted(_) => return,
        };
        for object in objects {
            let Some((uid, bytes)) = journal_bytes(&object) else { continue };
            let uid = SessionUid::from(uid);
            if !matches!(self.agents.given.get(&uid), Some(Given::With(..) | Given::Launching)) {
                continue;
            }
            self.mirror(&uid, bytes, now);
        }
    }

    fn mirror(&mut self, uid: &SessionUid, bytes: &[u8], now: Timestamp) {
        self.agents.journals.insert(uid.clone(), bytes.to_vec());
        let mirrored = match Journal::decode(bytes) {
            Ok(journal) => self.world.mirror(uid, journal, now),
            Err(error) => Err(error),
        };
        if let Err(error) = mirrored {
            tracing::error!(session_uid = %uid, %error, "the journal of an agent cannot be used");
        }
    }

    /// What an agent shows of a node is what there is to be shown of it.
    pub(super) fn see_shown_by_agent(&mut self, id: NodeId, object: &BootComponent) {
        if self.charge.is_none() && self.world.is_shown_by_agent(id) {
            self.views.shown_by_agent(id, object);
            convert::shown_by_agent(&mut self.world, id, object);
        }
    }

    /// The Session is gone, and its Job goes with it; while an agent is at work it is taken back first.
    pub(super) fn forget_agent(&self, uid: &SessionUid) {
        let Some(session) = self.world.sessions.get(uid) else { return };
        if session.spec.mode != bos_crds::Mode::V1 || self.agents.has(uid) {
            return;
        }
        if let Some(launcher) = self.agents.launcher.clone() {
            let name = order(session, None).job_name();
            tokio::spawn(async move { launcher.delete(&name, None).await });
        }
    }

    /// Jobs of Sessions that nobody knows: they were deleted while no operator ran.
    fn remove_ownerless(&mut self) {
        let Some(launcher) = &self.agents.launcher else { return };
        for (uid, job) in self.agents.jobs.iter().filter(|(uid, _)| !self.world.sessions.contains_key(*uid)) {
            let (name, job_uid) = (job.name_any(), job.uid().unwrap_or_default());
            if self.agents.removed.insert(job_uid.clone()) {
                tracing::info!(job = name, session_uid = %uid, "its Session is gone");
                let launcher = launcher.clone();
                tokio::spawn(async move { launcher.delete(&name, Some(&job_uid)).await });
            }
        }
        let jobs = &self.agents.jobs;
        self.agents.removed.retain(|removed| jobs.values().any(|job| job.uid().as_deref() == Some(removed)));
    }
}

impl Denied {
    fn new(now: Timestamp) -> Self {
        Self { why: String::new(), next: now, pauses: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)) }
    }
}

fn order(session: &Session, stays: Option<Duration>) -> Order {
    Order {
        namespace: session.namespace.to_string(),
        name: session.name.to_string(),
        uid: session.uid.to_string(),
        operation: session.spec.operation.as_str(),
        stays,
    }
}

fn of_session(labels: &BTreeMap<String, String>) -> Option<SessionUid> {
    labels.get(bos_crds::labels::SESSION_UID).map(|uid| SessionUid::from(uid.as_str()))
}

/// How a Job ended, in words; None while it has not.
fn ended(job: &Job) -> Option<String> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let over =
        conditions.iter().find(|condition| condition.status == "True" && matches!(condition.type_.as_str(), "Complete" | "Failed"))?;
    let reason = over.reason.as_deref().filter(|_| over.type_ == "Failed").map(|reason| format!(" ({reason})")).unwrap_or_default();
    Some(format!("{}{reason}", over.type_))
}

fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true))
}
