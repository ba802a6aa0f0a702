//! Agents that are kept from their work: people are told by an Event on the Session once that has lasted, and by another when it is over,
//! as of services that are away.

use std::collections::BTreeMap;

use bos_core::health::clause;
use bos_core::model::SessionUid;
use bos_core::time::{Timestamp, span_text};
use bos_crds::reasons;

use super::pods::Standing;
use crate::events::Severity;

/// What keeps agents from their work, by Session.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    lasting: BTreeMap<SessionUid, Trouble>,
}

#[derive(Debug)]
struct Trouble {
    since: Timestamp,
    told: bool,
}

/// An Event on a Session.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) severity: Severity,
    pub(super) reason: &'static str,
    pub(super) note: String,
}

impl Troubles {
    /// The agent of a Session stands so, for a reason in words: what people are to be told now.
    pub(super) fn look(
        &mut self,
        uid: &SessionUid,
        standing: Standing,
        (reason, why): (&'static str, &str),
        now: Timestamp,
    ) -> Option<Told> {
        match standing {
            Standing::Works => {
                let Trouble { since, .. } = self.lasting.remove(uid).filter(|trouble| trouble.told)?;
                let note = format!("Its agent is at work; it was not for {} from {} on.", span_text(now.since(since)), since.clock());
                Some(Told { severity: Severity::Normal, reason: reasons::AGENT_RUNNING, note })
            }
            Standing::OnItsWay => {
                // What was told lasts until the agent works: the next pod may come to the same end.
                if self.lasting.get(uid).is_some_and(|trouble| !trouble.told) {
                    self.forget(uid);
                }
                None
            }
            Standing::InTrouble(least) => {
                let trouble = self.lasting.entry(uid.clone()).or_insert(Trouble { since: now, told: false });
                if trouble.told || now.since(trouble.since) < least {
                    return None;
                }
                trouble.told = true;
                let note = format!("Its agent is not at work since {}. {}.", trouble.since.clock(), clause(why));
                Some(Told { severity: Severity::Warning, reason, note })
            }
        }
    }

    /// No agent is waited for any more.
    pub(super) fn forget(&mut self, uid: &SessionUid) {
        self.lasting.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LEAST: Standing = Standing::InTrouble(Duration::from_secs(2));

    fn looked(troubles: &mut Troubles, standing: Standing, why: &str, second: i64) -> Option<(Severity, &'static str, String)> {
        let now = Timestamp::from_millis(second * 1000);
        let told = troubles.look(&SessionUid::from("u"), standing, (reasons::AGENT_STARTING, why), now);
        told.map(|told| (told.severity, told.reason, told.note))
    }

    #[test]
    fn what_lasts_is_told_once_and_so_is_its_end() {
        let mut troubles = Troubles::default();
        assert_eq!(looked(&mut troubles, LEAST, "ErrImagePull.", 0), None);
        assert_eq!(looked(&mut troubles, LEAST, "ErrImagePull.", 1), None);
        let warning = "Its agent is not at work since 00:00 UTC. ImagePullBackOff.".to_owned();
        assert_eq!(looked(&mut troubles, LEAST, "ImagePullBackOff.", 2), Some((Severity::Warning, reasons::AGENT_STARTING, warning)));
        assert_eq!(looked(&mut troubles, LEAST, "ErrImagePull.", 20), None);
        assert_eq!(looked(&mut troubles, Standing::OnItsWay, "", 30), None, "another pod");
        assert_eq!(looked(&mut troubles, LEAST, "ErrImagePull.", 40), None, "the same goes on");
        let over = "Its agent is at work; it was not for 50 s from 00:00 UTC on.".to_owned();
        assert_eq!(looked(&mut troubles, Standing::Works, "", 50), Some((Severity::Normal, reasons::AGENT_RUNNING, over)));
        assert_eq!(looked(&mut troubles, Standing::Works, "", 51), None);
    }

    #[test]
    fn what_does_not_last_is_not_told() {
        let mut troubles = Troubles::default();
        assert_eq!(looked(&mut troubles, LEAST, "ErrImagePull.", 0), None);
        assert_eq!(looked(&mut troubles, Standing::OnItsWay, "", 1), None);
        assert_eq!(looked(&mut troubles, LEAST, "ErrImagePull.", 2), None, "it begins anew");
        assert_eq!(looked(&mut troubles, Standing::Works, "", 3), None);
        assert!(troubles.lasting.is_empty());
    }
}
