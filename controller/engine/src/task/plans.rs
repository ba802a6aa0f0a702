//! From what set-up read to a plan that is durable, and to nodes that are taken.

use super::*;

impl Task {
    pub(super) fn set_up_read(&mut self, uid: &SessionUid, read: Result<SetupRead, SetupFault>, now: Timestamp) {
        let artifacts: Vec<_> = read.as_ref().map(|read| read.artifacts.values().cloned().collect()).unwrap_or_default();
        if self.world.fold_setup(uid, read, now).is_none() {
            return;
        }
        let Some(session) = self.world.sessions.get(uid) else { return };
        let Stage::Recording(recording) = &session.stage else { return };
        self.tell_set_up(session, &recording.plan);
        let Ok(plan) = serde_json::to_vec(&*recording.plan) else { return };
        let key = SessionKey::new(&*session.namespace, &*session.name);
        let created = session.created.wall().to_string();
        let (mut sets, mut going) = (Vec::new(), Vec::new());
        for set in artifacts {
            let digest = Digest(set.short_digest().into());
            going.extend(self.dropping.get(&digest).cloned());
            if let Ok(bytes) = serde_json::to_vec(&set) {
                sets.push((digest.clone(), bytes));
            }
            self.world.artifacts.insert(digest, Arc::new(set));
        }
        let (records, uid) = (Arc::clone(&self.records), uid.clone());
        self.spawn(async move {
            futures::future::join_all(going).await;
            let written = record_plan(&records, &uid, &key, &created, &plan, sets).await;
            Done::Planned(uid, written)
        });
    }

    /// Writes the plans of runs without a Session.
    pub(super) fn write_plans(&mut self) {
        for uid in std::mem::take(&mut self.world.plans_due) {
            self.write_plan(uid);
        }
    }

    /// There is no name to remember, and the artifact sets are stored. The record that all leaders share is written instead: it
    /// fails a leader that was deposed before it acts on the plan (rule 12).
    fn write_plan(&self, uid: SessionUid) {
        let Some(session) = self.world.sessions.get(&uid) else { return };
        let Stage::Recording(recording) = &session.stage else { return };
        let Ok(plan) = serde_json::to_vec(&*recording.plan) else { return };
        let key = SessionKey::new(&*session.namespace, &*session.name);
        tracing::info!(nodes = recording.plan.len(), run = %uid, operation = ?recording.plan.operation, "driving nodes by hand");
        let records = Arc::clone(&self.records);
        self.spawn(async move {
            let written = match records.create_plan(&uid.0, &key, &plan).await {
                Ok(()) => records.fence(&uid.0).await,
                Err(error) => Err(error),
            };
            Done::Planned(uid, written)
        });
    }

    /// Somebody may have deleted the object of a node that is driven now; an inventory would bring it back only later.
    fn show_driven(&mut self, uid: &SessionUid) {
        let run = self.world.sessions.get(uid).and_then(|session| session.run());
        for id in run.map(|run| run.open().collect::<Vec<_>>()).unwrap_or_default() {
            self.views.create_component(&self.world, id);
        }
    }

    pub(super) fn planned(&mut self, uid: &SessionUid, result: Result<(), RecordError>, now: Timestamp) -> Result<(), EngineError> {
        match result {
            Ok(()) => {
                self.world.start_session(uid, now);
                self.show_driven(uid);
                // The plan alone is dropped at a restart.
                for answer in self.planning.remove(uid).unwrap_or_default() {
                    self.journals.await_report(uid, answer);
                }
                self.tell_started(uid);
                Ok(())
            }
            Err(RecordError::AlreadyRan { uid: ran, .. }) => {
                if let Some(session) = self.world.sessions.get_mut(uid) {
                    self.world.ran.insert((session.namespace.clone(), session.name.clone()), SessionUid::from(ran.as_str()));
                    session.stage =
                        Stage::Pending(bos_core::session::Pending { since: now, reading: false, not_before: now, waiting: "".into() });
                }
                Ok(())
            }
            Err(error) => Err(record_failure(error)),
        }
    }
}

/// Artifact sets first, then the plan, then the name: each refers to what is there already, and nothing leaves before all are.
async fn record_plan(
    records: &Records,
    uid: &SessionUid,
    key: &SessionKey,
    created: &str,
    plan: &[u8],
    sets: Vec<(Digest, Vec<u8>)>,
) -> Result<(), RecordError> {
    for (digest, bytes) in sets {
        match records.put_artifacts(&digest.0, &bytes).await {
            // The same boot with another report frequency or short name: what is stored serves as well.
            Ok(()) | Err(RecordError::Differs { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    records.create_plan(&uid.0, key, plan).await?;
    records.remember(key, &uid.0, created).await
}
