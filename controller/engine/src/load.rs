//! Reading everything back: objects, plans, journals. On start the journal wins; what has neither journal nor status is
//! observed and not driven.

use std::collections::HashMap;
use std::sync::Arc;

use bos_core::artifacts::ArtifactSet;
use bos_core::journal::Journal;
use bos_core::model::{Digest, SessionUid};
use bos_core::plan::Plan;
use bos_core::session::{SessionSeen, Stage};
use bos_core::time::Timestamp;
use bos_crds::{BootComponent, BootOptions, Operation, Session, SessionSpec, SessionTemplate};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::EngineError;
use crate::records::{Loaded, RecordError, SessionKey, StoredSession};
use crate::task::Task;
use crate::watches::{News, Seen};

/// The first full list of every kind.
#[derive(Debug, Default)]
pub struct Lists {
    templates: Option<Vec<SessionTemplate>>,
    sessions: Option<Vec<Session>>,
    /// Sessions that are there and cannot be read.
    unreadable: Vec<String>,
    components: Option<Vec<BootComponent>>,
    options: Option<Vec<BootOptions>>,
    emergency_stop: Option<bool>,
    /// What came after a kind's first list.
    later: Vec<News>,
}

impl Lists {
    fn is_complete(&self) -> bool {
        self.templates.is_some()
            && self.sessions.is_some()
            && self.components.is_some()
            && self.options.is_some()
            && self.emergency_stop.is_some()
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
            other => self.later.push(other),
        }
    }
}

/// Waits for the first list of every kind; None when stopped first.
pub async fn first_lists(news: &mut mpsc::Receiver<News>, lost: &CancellationToken, cancel: &CancellationToken) -> Option<Lists> {
    let mut lists = Lists::default();
    while !lists.is_complete() {
        tokio::select! {
            () = lost.cancelled() => return None,
            () = cancel.cancelled() => return None,
            next = news.recv() => lists.take(next?),
        }
    }
    Some(lists)
}

/// Builds the World from what was stored.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn restore(task: &mut Task, stored: Loaded, lists: Lists) -> Result<(), EngineError> {
    let now = task.now();
    task.world.emergency_stop = lists.emergency_stop.unwrap_or(false);
    let options = lists.options.unwrap_or_default();
    task.set_options(options.iter().find(|options| options.metadata.name.as_deref() == Some(bos_crds::OPTIONS_NAME)));
    for template in lists.templates.unwrap_or_default() {
        task.set_template(&template);
    }
    for component in lists.components.unwrap_or_default() {
        task.load_component(&component, now);
    }
    for (digest, bytes) in stored.artifacts {
        match serde_json::from_slice::<ArtifactSet>(&bytes) {
            Ok(set) => drop(task.world.artifacts.insert(Digest(digest.into()), Arc::new(set))),
            Err(error) => tracing::error!(digest, %error, "a stored artifact set cannot be read; nodes that need it will not be booted"),
        }
    }
    for uid in stored.incomplete {
        tracing::warn!(session_uid = uid, "a plan was never completed, so nothing was sent for it; the Session is set up anew");
    }
    for uid in stored.orphans {
        tracing::error!(session_uid = uid, "a journal has no plan any more: somebody removed it; its Session is not continued");
        task.records.remove_session(&uid).await?;
    }
    sessions(task, stored.sessions, lists.sessions.unwrap_or_default(), &lists.unreadable, now).await?;
    for later in lists.later {
        task.fold_news(later);
    }
    Ok(())
}

async fn sessions(
    task: &mut Task,
    stored: Vec<StoredSession>,
    objects: Vec<Session>,
    unreadable: &[String],
    now: Timestamp,
) -> Result<(), EngineError> {
    let mut plans: HashMap<SessionUid, StoredSession> =
        stored.into_iter().map(|stored| (SessionUid::from(stored.uid.as_str()), stored)).collect();
    for object in &objects {
        task.load_session(object, plans.keys(), now);
    }
    let mut order: Vec<(Timestamp, SessionUid)> = Vec::new();
    for (uid, stored) in &plans {
        let alive = task.world.sessions.get(uid);
        if alive.is_some_and(|session| matches!(session.stage, Stage::Ended(_))) {
            continue;
        }
        if alive.is_none() {
            // Deleted while we were away: its nodes are released as they are (rule 10).
            task.world.fold_session(gone(uid, stored), now);
        }
        order.push((task.world.sessions.get(uid).map_or(now, |session| session.created), uid.clone()));
    }
    order.sort();
    for (_, uid) in &order {
        let Some(stored) = plans.get(uid) else { continue };
        match serde_json::from_slice::<Plan>(&stored.plan) {
            Ok(plan) if plan.version <= bos_core::plan::PLAN_VERSION => {
                let created = task.world.sessions.get(uid).map_or(now, |session| session.created);
                if !remember(task, stored, created).await? {
                    // Another Session of this name ran first: this one never may (rule 5), and its plan goes.
                    continue;
                }
                task.world.restore(uid, Arc::new(plan), now);
            }
            Ok(plan) => return unusable(stored, &format!("plan version {} is newer than this operator", plan.version)),
            Err(error) => return unusable(stored, &error.to_string()),
        }
    }
    let mut known: Vec<SessionUid> = objects.iter().filter_map(|object| Some(SessionUid(object.metadata.uid.as_deref()?.into()))).collect();
    known.extend(unreadable.iter().map(|uid| SessionUid::from(uid.as_str())));
    order.retain(|(_, uid)| task.world.sessions.get(uid).is_some_and(|session| session.run().is_some()));
    for (_, uid) in order {
        if let Some(bytes) = plans.get(&uid).and_then(|stored| stored.journal.as_ref()) {
            let resumed = Journal::decode(bytes).and_then(|journal| task.world.resume(&uid, journal, now));
            if let (Err(error), Some(stored)) = (resumed, plans.get(&uid)) {
                return unusable(stored, &error.to_string());
            }
        }
        if !known.contains(&uid) {
            task.world.fold_session_gone(&uid);
        }
        if let Some(run) = task.world.sessions.get(&uid).and_then(|session| session.run()) {
            let nodes: Vec<_> = run.slots.iter().map(|slot| slot.node).collect();
            task.world.touched.extend(nodes);
        }
        plans.remove(&uid);
        tracing::info!(session_uid = %uid, "session taken up again from its plan and journal");
    }
    for uid in plans.into_keys() {
        task.records.remove_session(&uid.0).await?;
    }
    Ok(())
}

/// A record that cannot be read is never guessed at: the operator does nothing until a person has looked.
fn unusable(stored: &StoredSession, why: &str) -> Result<(), EngineError> {
    let name = format!("plan or journal of Session {} (uid {})", stored.key, stored.uid);
    Err(EngineError::Records(RecordError::Refused { name, message: format!("{why}. Delete the Session's two ConfigMaps to give it up") }))
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

/// A Session that is not there any more, or cannot be read. It is older than any that is: it takes no node from one (rule 11),
/// and it sends nothing.
fn gone(uid: &SessionUid, stored: &StoredSession) -> SessionSeen {
    let spec = SessionSpec { suspend: true, ..SessionSpec::new(Operation::Boot, "") };
    let SessionKey { namespace, name } = stored.key.clone();
    SessionSeen {
        uid: uid.clone(),
        namespace: namespace.into(),
        name: name.into(),
        created: Timestamp::default(),
        generation: 0,
        tracked: false,
        spec,
        complete: false,
    }
}
