//! Staged state that a workload manager applies.

use super::*;
use crate::applications::{Application, Applications};

impl Task {
    /// Applies what can be applied; answers when that is durable.
    pub(super) fn fold_application(&mut self, application: Application) {
        let now = self.now();
        let (known, unknown): (Vec<Xname>, Vec<Xname>) =
            application.xnames.into_iter().partition(|xname| self.world.by_name.contains_key(xname));
        let token: Arc<str> = format!("applied-{}", now.as_millis() / 1000).into();
        let ids = known.iter().filter_map(|xname| self.world.by_name.get(xname).copied());
        let applied = self.world.apply_staged(&ids.map(|id| (id, token.clone())).collect::<Vec<_>>(), now);
        let name = |id: &NodeId| self.world.node(*id).map(|node| node.xname.clone());
        let answer = Applications {
            succeeded: applied.begun.iter().filter_map(|(id, _)| name(id)).collect(),
            failed: applied.failed.iter().filter_map(|(id, why)| Some((name(id)?, why.clone()))).collect(),
            ignored: applied.ignored.iter().filter_map(name).chain(unknown).collect(),
        };
        let (succeeded, failed, ignored) = (answer.succeeded.len(), answer.failed.len(), answer.ignored.len());
        tracing::info!(succeeded, failed, ignored, "staged state applied");
        let mut durable = Vec::new();
        let sessions: std::collections::BTreeSet<SessionUid> = applied.begun.into_iter().map(|(_, uid)| uid).collect();
        for uid in sessions {
            let (written, wait) = oneshot::channel();
            durable.push(wait);
            let begun = self.world.sessions.get(&uid).is_some_and(|session| session.run().is_some());
            if begun {
                self.journals.await_report(&uid, written);
            } else {
                self.planning.entry(uid).or_default().push(written);
            }
        }
        self.write_plans();
        tokio::spawn(async move {
            let all = futures::future::join_all(durable).await;
            if all.iter().all(|stored| matches!(stored, Ok(ReportAnswer::Stored))) {
                // A caller that does not wait any more asks again.
                let _ = application.answer.send(answer);
            }
        });
    }
}
