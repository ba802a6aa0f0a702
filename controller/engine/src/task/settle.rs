//! The end of sessions: every status first, then the Session's own, then the records go.

use super::*;
use crate::clients::{CALL_TIMEOUT, bounded};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

/// How often the nodes of an ended session are looked through.
const PACE: Duration = Duration::from_millis(50);

impl Task {
    /// Writes the statuses of touched sessions; one that has ended waits for its nodes.
    pub(super) fn update_sessions(&mut self, now: Timestamp) {
        for uid in std::mem::take(&mut self.world.touched_sessions) {
            let Some(session) = self.world.sessions.get(&uid) else { continue };
            let (ended, with_run) = match &session.stage {
                Stage::Ended(ended) => (true, ended.run.is_some()),
                Stage::Pending(_) | Stage::Recording(_) | Stage::Running(_) => (false, false),
            };
            if ended && with_run {
                continue;
            }
            if session.deleted || self.charge.is_some() {
                continue;
            }
            let Some(change) = self.views.update_session(&self.world, session, ended, now) else {
                self.world.touched_sessions.insert(uid);
                continue;
            };
            // One that ended before this process began has had its last word.
            let over = change.phase.is_some();
            if let Stage::Ended(ended) = &session.stage
                && over
            {
                self.publish_end(&uid, &ended.end);
            }
            self.tell(&uid, &change, now);
            if ended {
                // It never ran.
                self.spans.over(&uid);
            }
        }
    }

    /// Brings ended sessions to their last step.
    pub(super) fn settle(&mut self, now: Timestamp) {
        if self.settled.elapsed() < PACE {
            return;
        }
        self.settled = Instant::now();
        let ended = self.world.sessions.values().filter(|session| matches!(&session.stage, Stage::Ended(ended) if ended.run.is_some()));
        let uids: Vec<SessionUid> =
            ended.map(|session| session.uid.clone()).filter(|uid| !self.removing.contains(uid) && !self.agents.has(uid)).collect();
        for uid in uids {
            self.settle_one(uid, now);
        }
    }

    pub(super) fn settle_one(&mut self, uid: SessionUid, now: Timestamp) {
        let Some(session) = self.world.sessions.get(&uid) else { return };
        let Some(run) = session.run() else { return };
        // The status of a node that another session drives is that session's to complete. They are written from the first to the last.
        let others = |id: NodeId| self.world.driver(id).is_some_and(|(driver, _)| driver.uid != uid);
        if !run.slots.iter().rev().all(|slot| self.is_shown(slot.node) || others(slot.node)) {
            return;
        }
        // Before anything says that it is complete: a process that starts reads no records of what is.
        if !self.world.may_be_forgotten(&uid, |uid| self.journals.durable(uid)) {
            return;
        }
        if self.charge.is_some() {
            return self.settle_charge(&uid);
        }
        if !session.deleted {
            let change = self.views.update_session(&self.world, session, true, now).unwrap_or_default();
            self.tell(&uid, &change, now);
            if !self.views.session_settled(&uid) {
                return;
            }
        }
        if !self.journals.is_settled(&uid) {
            return;
        }
        if let Stage::Ended(ended) = &session.stage {
            self.publish_end(&uid, &ended.end);
        }
        self.removing.insert(uid.clone());
        let records = Arc::clone(&self.records);
        let agent = self.agents.of(session);
        self.spawn(async move {
            if let Some((launcher, order)) = agent {
                launcher.let_go(&order).await;
            }
            let removed = records.remove_session(&uid.0).await;
            Done::Removed(uid, removed)
        });
    }

    /// Deletes the object of a Session that ended long ago; if that fails it is tried again later.
    pub(super) fn remove_session_object(&self, uid: &SessionUid) {
        let Some(session) = self.world.sessions.get(uid) else { return };
        let (api, name) = (Api::<Session>::namespaced(self.client.clone(), &session.namespace), session.name.clone());
        let preconditions = Preconditions { uid: Some(uid.to_string()), resource_version: None };
        let title = session.title();
        tokio::spawn(async move {
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match bounded(CALL_TIMEOUT, api.delete(&name, &params)).await {
                Ok(_) => tracing::info!(session = title, "removed: it ended longer ago than cleanupCompletedSessionTtl"),
                Err(error) => tracing::warn!(session = title, error = error.message(), "a Session that ended long ago was not removed"),
            }
        });
    }

    /// The records of a session are gone.
    pub(super) fn removed(&mut self, uid: &SessionUid) {
        self.removing.remove(uid);
        self.journals.forget(uid);
        self.agents.over(uid);
        self.spans.over(uid);
        let session = self.world.sessions.get(uid).map(bos_core::session::Session::title).unwrap_or_default();
        self.world.settle(uid);
        self.drop_unreferenced_artifacts();
        tracing::info!(session, session_uid = %uid, "session over, its records are removed");
    }

    /// Removes artifact sets that no session and no node refers to.
    fn drop_unreferenced_artifacts(&mut self) {
        let plans = self.world.sessions.values().filter_map(|session| match &session.stage {
            Stage::Recording(recording) => Some(recording.plan.clone()),
            Stage::Pending(_) | Stage::Running(_) | Stage::Ended(_) => session.run().map(|run| run.plan.clone()),
        });
        let mut referred: std::collections::HashSet<String> = self.views.referred().map(str::to_owned).collect();
        for plan in plans {
            referred.extend(plan.boot_sets.iter().filter_map(|set| Some(set.artifacts.as_ref()?.0.to_string())));
        }
        let unused: Vec<Digest> = self.world.artifacts.keys().filter(|digest| !referred.contains(&*digest.0)).cloned().collect();
        self.dropping.retain(|_, removal| removal.peek().is_none());
        for digest in unused {
            self.world.artifacts.remove(&digest);
            let (records, name) = (Arc::clone(&self.records), digest.0.clone());
            let removal = tokio::spawn(async move {
                if let Err(error) = records.remove_artifacts(&name).await {
                    tracing::warn!(digest = %name, %error, "an unused artifact set was not removed");
                }
            });
            self.dropping.insert(digest, removal.map(drop).boxed().shared());
        }
    }
}
