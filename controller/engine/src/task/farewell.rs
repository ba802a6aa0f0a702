//! The end of a process that is told to end.

use super::*;

impl Task {
    /// Waits a little for journal writes on their way, so that reports are answered and nothing is left in doubt.
    pub async fn farewell(&mut self, patience: Duration) {
        /// What nobody waits for is gathered for a while before it is written.
        const LOOK: Duration = Duration::from_millis(100);
        let until = Instant::now() + patience;
        // What was not recorded yet will never be sent by us; the next leader need not wait it out.
        self.world.withdraw_unsent();
        for uid in std::mem::take(&mut self.world.journal_due) {
            self.journals.changed(&uid);
        }
        while Instant::now() < until {
            for uid in std::mem::take(&mut self.world.journal_due) {
                self.journals.changed(&uid);
            }
            let sent = self.world.batches.values().any(|batch| batch.state == BatchState::Sent);
            let uids: Vec<SessionUid> = self.world.sessions.keys().cloned().collect();
            if !sent && uids.iter().all(|uid| self.journals.is_settled(uid)) {
                return;
            }
            for uid in self.journals.due(Instant::now(), |_| false) {
                self.write_journal(uid);
            }
            match tokio::time::timeout(LOOK, self.done.recv()).await {
                // Calls are not released any more: what waits for this write is sent by nobody.
                Ok(Some(Done::Journal(uid, Ok(())))) => drop(self.journals.written(&uid)),
                Ok(Some(done)) => drop(self.fold_done(done)),
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }
}
