//! Reading everything back: objects, plans, journals. On start the journal wins; what has neither journal nor status is
//! observed and not driven.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bos_core::artifacts::ArtifactSet;
use bos_core::journal::Journal;
use bos_core::model::{Digest, SessionUid};
use bos_core::plan::Plan;
use bos_core::project_session;
use bos_core::resume::{Stored, StoredJournal};
use bos_core::tenants::Tenant;
use bos_core::time::Timestamp;
use bos_crds::{
    BootComponent, BootOptions, ConditionStatus, Mode, Session, SessionPhase, SessionStatus, SessionTemplate, conditions, reasons,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::convert;
use crate::engine::{Charge, EngineError};
use crate::events::WORTH_AN_EVENT;
use crate::records::{JournalBytes, Loaded, RecordError, SessionKey, StoredSession};
use crate::task::Task;
use crate::telemetry::Telemetry;
use crate::watches::{News, Scope, Seen, WatchHealth, Watched};

/// The first full list of every kind.
#[derive(Debug, Default)]
pub struct Lists {
    templates: Option<Vec<SessionTemplate>>,
    sessions: Option<Vec<Session>>,
    /// Sessions that are there and cannot be read.
    unreadable: Vec<String>,
    components: Option<Vec<BootComponent>>,
    options: Option<Vec<BootOptions>>,
    emergency_stop: Option<Option<Arc<str>>>,
    tenants: Option<Option<Vec<Tenant>>>,
    /// What came after a kind's first list.
    later: Vec<News>,
}

impl Lists {
    /// What has not been listed yet.
    fn missing(&self) -> Vec<&'static str> {
        let lists = [
            (Watched::Templates.as_str(), self.templates.is_some()),
            (Watched::Sessions.as_str(), self.sessions.is_some()),
            (Watched::Components.as_str(), self.components.is_some()),
            (Watched::Options.as_str(), self.options.is_some()),
            (Watched::EmergencyStop.as_str(), self.emergency_stop.is_some()),
            ("tenants", self.tenants.is_some()),
        ];
        lists.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
    }

    /// What is not in the scope has no list that could come.
    fn of(scope: &Scope) -> Self {
        match scope {
            Scope::Operator { .. } => Self::default(),
            Scope::Agent { .. } => Self { templates: Some(Vec::new()), tenants: Some(None), ..Self::default() },
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Template(Seen::Reset { items, .. }) if self.templates.is_none() => self.templates = Some(items),
            News::Session(Seen::Reset { items, invalid }) if self.sessions.is_none() => {
                self.unreadable = invalid.into_iter().map(|bad| bad.uid).collect();
                self.sessions = Some(items);
            }
            News::Component(Seen::Reset { items, .. }) if self.components.is_none() => self.components = Some(items),
            News::Options(Seen::Reset { items, .. }) if self.options.is_none() => self.options = Some(items),
            News::EmergencyStop(set) if self.emergency_stop.is_none() => self.emergency_stop = Some(set),
            News::Tenants(all) if self.tenants.is_none() => self.tenants = Some(all),
            other => self.later.push(other),
        }
    }
}

/// Waits for the first list of every kind, and says meanwhile which are missing; None when stopped first.
pub async fn first_lists(
    news: &mut mpsc::Receiver<News>,
    scope: &Scope,
    (telemetry, watches): (&Telemetry, &WatchHealth),
    lost: &CancellationToken,
    cancel: &CancellationToken,
) -> Option<Lists> {
    let mut lists = Lists::of(scope);
    loop {
        let missing = lists.missing();
        if missing.is_empty() {
            return Some(lists);
        }
        telemetry.set_waiting(awaited(&missing, &watches.stale(PATIENCE)));
        tokio::select! {
            () = lost.cancelled() => return None,
            () = cancel.cancelled() => return None,
            next = news.recv() => lists.take(next?),
            // Why a list does not come is known only later.
            () = tokio::time::sleep(PATIENCE) => {}
        }
    }
}

/// A list that has not come for so long has a reason.
const PATIENCE: Duration = Duration::from_secs(5);

fn awaited(missing: &[&str], failing: &[(Watched, String)]) -> String {
    let why = failing.iter().map(|(watch, error)| format!("{}: {error}", watch.as_str())).collect::<Vec<_>>().join("; ");
    let lists = missing.join(", ");
    if why.is_empty() { format!("the first list of {lists}") } else { format!("the first list of {lists} ({why})") }
}

/// Builds the World from what was stored.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn restore(task: &mut Task, stored: Loaded, lists: Lists) -> Result<(), EngineError> {
    let now = task.now();
    task.set_emergency_stop(lists.emergency_stop.flatten());
    task.set_tenants(lists.tenants.flatten());
    let options = lists.options.unwrap_or_default();
    task.set_options(options.iter().find(|options| options.metadata.name.as_deref() == Some(bos_crds::OPTIONS_NAME)));
    for template in lists.templates.unwrap_or_default() {
        task.set_template(&template);
    }
    for component in lists.components.unwrap_or_default() {
        task.load_component(&component, now);
    }
    artifacts(task, stored.artifacts);
    for uid in stored.incomplete {
        tracing::warn!(session_uid = uid, "a plan was never completed, so nothing was sent for it; the Session is set up anew");
    }
    for uid in stored.orphans {
        tracing::error!(session_uid = uid, "a journal has no plan any more: somebody removed it; its Session is not continued");
        task.records.remove_session(&uid).await?;
    }
    outages(task, lists.sessions.iter().flatten(), now);
    sessions(task, stored.sessions, lists.sessions.unwrap_or_default(), &lists.unreadable, now).await?;
    for later in lists.later {
        task.fold_news(later);
    }
    Ok(())
}

/// Outages that statuses tell of last until the service answers: who was told of one is told of its end.
fn outages<'a>(task: &mut Task, sessions: impl Iterator<Item = &'a Session>, now: Timestamp) {
    // Of a Session with an agent that agent tells.
    let open = |status: &&SessionStatus| status.phase != Some(SessionPhase::Complete);
    let statuses = sessions.filter(|session| session.spec.mode != Mode::V1).filter_map(|session| session.status.as_ref()).filter(open);
    for condition in statuses.flat_map(|status| &status.conditions).filter(|condition| condition.type_ == conditions::SERVICES_AVAILABLE) {
        // What people were told of is worth the Event that it is over.
        let since = Timestamp::from(condition.last_transition_time.0).min(now - WORTH_AN_EVENT);
        for service in project_session::told_away(&condition.message).filter(|_| condition.status == ConditionStatus::False.as_str()) {
            task.world.take_up_outage(service, since);
        }
    }
}

fn artifacts(task: &mut Task, stored: Vec<(String, Vec<u8>)>) {
    for (digest, bytes) in stored {
        match serde_json::from_slice::<ArtifactSet>(&bytes) {
            Ok(set) => drop(task.world.artifacts.insert(Digest(digest.into()), Arc::new(set))),
            Err(error) => tracing::error!(digest, %error, "a stored artifact set cannot be read; nodes that need it will not be booted"),
        }
    }
}

/// Builds the World of an agent: its Session alone.
///
/// # Errors
/// When there is nothing to do, or the records cannot be read.
pub fn restore_one(task: &mut Task, charge: &Charge, stored: Loaded, lists: Lists) -> Result<(), EngineError> {
    let now = task.now();
    task.world.is_agent = true;
    task.set_emergency_stop(lists.emergency_stop.flatten());
    let options = lists.options.unwrap_or_default();
    task.set_options(options.iter().find(|options| options.metadata.name.as_deref() == Some(bos_crds::OPTIONS_NAME)));
    for component in lists.components.unwrap_or_default() {
        task.load_component(&component, now);
    }
    artifacts(task, stored.artifacts);
    let uid = SessionUid::from(charge.uid.as_str());
    let sessions = lists.sessions.unwrap_or_default();
    let object = sessions.iter().filter(|object| object.uid().as_deref() == Some(&*charge.uid)).find_map(convert::session);
    if object.as_ref().is_some_and(|seen| seen.complete.is_some()) {
        return Err(EngineError::NothingToDo(charge.session.clone()));
    }
    let usable = stored.sessions.iter().map(|stored| readable(stored, uid.clone())).collect::<Result<Vec<_>, _>>()?;
    let unreadable: Vec<SessionUid> = lists.unreadable.iter().map(|uid| SessionUid::from(uid.as_str())).collect();
    let up = task.world.take_up(object.into_iter().collect(), &unreadable, usable, now);
    let up = up.map_err(|error| unusable(&error.uid.0, Some(&charge.session), &error.error.to_string()))?;
    if !up.contains(&uid) {
        return Err(EngineError::NothingToDo(charge.session.clone()));
    }
    for later in lists.later {
        task.fold_news(later);
    }
    task.take_charge(uid);
    Ok(())
}

async fn sessions(
    task: &mut Task,
    stored: Vec<StoredSession>,
    objects: Vec<Session>,
    unreadable: &[String],
    now: Timestamp,
) -> Result<(), EngineError> {
    let (mut seen, mut created) = (Vec::new(), HashMap::new());
    let planned: HashSet<&str> = stored.iter().map(|stored| stored.uid.as_str()).collect();
    for object in &objects {
        let Some(session) = task.load_session(object, &planned) else { continue };
        created.insert(session.uid.clone(), (session.created, session.complete));
        seen.push(session);
    }
    let (mut usable, mut leftover) = (Vec::new(), Vec::new());
    for stored in &stored {
        let uid = SessionUid::from(stored.uid.as_str());
        leftover.push(uid.clone());
        let (created, complete) = created.get(&uid).copied().unwrap_or_default();
        if complete.is_some() {
            continue;
        }
        let found = readable(stored, uid)?;
        // Of two Sessions of one name only the first that ran may be taken up (rule 5); the plan of the other goes.
        if found.plan.by_hand.is_some() || remember(task, stored, created).await? {
            usable.push(found);
        }
    }
    remember_what_began(task, &objects).await?;
    let unreadable: Vec<SessionUid> = unreadable.iter().map(|uid| SessionUid::from(uid.as_str())).collect();
    let up = task.world.take_up(seen, &unreadable, usable, now).map_err(|error| {
        let of = stored.iter().find(|stored| *stored.uid == *error.uid.0);
        unusable(&error.uid.0, of.map(|stored| &stored.key), &error.error.to_string())
    })?;
    for stored in &stored {
        if let Some(job) = stored.agent.as_deref().filter(|_| up.iter().any(|uid| *uid.0 == *stored.uid)) {
            task.load_agent(&SessionUid::from(stored.uid.as_str()), job, &stored.journal);
        }
    }
    for uid in &up {
        if let Some(run) = task.world.sessions.get(uid).and_then(|session| session.run()) {
            let nodes: Vec<_> = run.slots.iter().map(|slot| slot.node).collect();
            for node in run.open().filter_map(|id| task.world.node(id)).filter(|node| !node.asked.refused.is_empty()) {
                tracing::warn!(xname = node.xname.as_str(), text = &*node.asked.refused, "what was asked of a node is not done");
            }
            task.world.touched.extend(nodes);
        }
        // From its first write on a journal is written now and then: what waits for long has no other change.
        task.world.journal_due.insert(uid.clone());
        let session = task.world.sessions.get(uid).map(bos_core::session::Session::title).unwrap_or_default();
        tracing::info!(session, session_uid = %uid, "session taken up again from its plan and journal");
    }
    task.touch_shown_as_driven();
    for uid in leftover.iter().filter(|uid| !up.contains(uid)) {
        task.records.remove_session(&uid.0).await?;
    }
    Ok(())
}

/// Names of Sessions that began, by what they say of themselves: somebody may have deleted the ledger, or restored no more than these
/// objects (rule 5).
async fn remember_what_began(task: &mut Task, objects: &[Session]) -> Result<(), EngineError> {
    for object in objects.iter().filter(|object| object.status.as_ref().is_some_and(began)) {
        let (Some(namespace), Some(uid), Some(created)) = (object.namespace(), object.uid(), object.creation_timestamp()) else { continue };
        let key = SessionKey::new(namespace, object.name_any());
        if task.records.ran(&key).is_some() {
            continue;
        }
        tracing::warn!(session = %key, "the list of names that ran does not have this Session, which did; remembered again");
        match task.records.remember(&key, &uid, &created.0.to_string()).await {
            Ok(()) | Err(RecordError::AlreadyRan { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        task.world.ran.insert((key.namespace.into(), key.name.into()), SessionUid::from(uid.as_str()));
    }
    Ok(())
}

/// Whether a Session, or another of its name, had nodes. One that failed before it had a plan, for its template was missing or no node
/// was left, did nothing: its name may be used again.
fn began(status: &SessionStatus) -> bool {
    let of_one_that_ran = |condition: &Condition| [reasons::ALREADY_RAN, reasons::RECORDS_LOST].contains(&condition.reason.as_str());
    status.start_time.is_some() || status.conditions.iter().any(of_one_that_ran)
}

/// The records of a session, read.
fn readable(stored: &StoredSession, uid: SessionUid) -> Result<Stored, EngineError> {
    let unusable = |why: &str| unusable(&stored.uid, Some(&stored.key), why);
    let plan: Plan = serde_json::from_slice(&stored.plan).map_err(|error| unusable(&error.to_string()))?;
    if plan.version > bos_core::plan::PLAN_VERSION {
        return Err(unusable(&format!("plan version {} is newer than this operator", plan.version)));
    }
    let journal = match &stored.journal {
        JournalBytes::Lost => {
            tracing::error!(session = %stored.key, session_uid = stored.uid, "its journal was deleted; its nodes are left as they are");
            StoredJournal::Lost
        }
        JournalBytes::Empty => StoredJournal::Empty,
        JournalBytes::Written(bytes) => {
            StoredJournal::Written(Box::new(Journal::decode(bytes).map_err(|error| unusable(&error.to_string()))?))
        }
    };
    Ok(Stored { uid, plan: Arc::new(plan), journal, taken_back: stored.agent.as_deref() == Some("") })
}

fn unusable(uid: &str, key: Option<&SessionKey>, why: &str) -> EngineError {
    let session = key.map(ToString::to_string).unwrap_or_default();
    EngineError::Records(RecordError::Unreadable { session, uid: uid.to_owned(), why: why.to_owned() })
}

/// False when the name belongs to another Session.
async fn remember(task: &mut Task, stored: &StoredSession, created: Timestamp) -> Result<bool, EngineError> {
    match task.records.remember(&stored.key, &stored.uid, &created.wall().to_string()).await {
        Ok(()) => Ok(true),
        Err(RecordError::AlreadyRan { key, uid }) => {
            task.world.ran.insert((key.namespace.into(), key.name.into()), SessionUid::from(uid.as_str()));
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ran_only_if_the_session_had_nodes() {
        let status = |status: serde_json::Value| serde_json::from_value::<SessionStatus>(status).unwrap();
        let over = |reason: &str| {
            let at = "2026-01-01T00:00:00Z";
            let complete =
                serde_json::json!({"type": "Complete", "status": "True", "reason": reason, "message": "", "lastTransitionTime": at});
            serde_json::json!({"phase": "Complete", "outcome": "Failed", "conditions": [complete]})
        };
        assert!(!began(&status(over(reasons::TEMPLATE_NOT_FOUND))) && !began(&status(over(reasons::CANCELLED))));
        assert!(began(&status(over(reasons::ALREADY_RAN))) && began(&status(over(reasons::RECORDS_LOST))));
        assert!(began(&status(serde_json::json!({"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}))));
    }

    #[test]
    fn readiness_names_every_list_that_is_missing() {
        let mut lists = Lists::of(&Scope::Operator { agents: true });
        assert_eq!(lists.missing(), ["sessiontemplates", "sessions", "bootcomponents", "bootoptions", "emergencystop", "tenants"]);
        lists.take(News::EmergencyStop(None));
        lists.take(News::Session(Seen::Reset { items: Vec::new(), invalid: Vec::new() }));
        assert_eq!(lists.missing(), ["sessiontemplates", "bootcomponents", "bootoptions", "tenants"]);
        assert_eq!(awaited(&["bootoptions", "tenants"], &[]), "the first list of bootoptions, tenants");
        let failing = [(Watched::Options, "forbidden".to_owned())];
        assert_eq!(awaited(&["bootoptions"], &failing), "the first list of bootoptions (bootoptions: forbidden)");
    }
}
