//! The session-cleanup operator: removes Sessions that ended long ago.
//!
//! A Session that a GitOps tool tracks stays (rule 5): the tool would create it again. Age counts from the end (BOS counts from
//! the start, so a long session vanishes as soon as it is over), and a Session is named by its uid (§21.2 no. 16).

use crate::model::World;
use crate::session::{Session, Stage};
use crate::time::Timestamp;
use crate::want::Want;

/// Removed in one pass at most: nobody waits for it.
const AT_ONCE: usize = 8;

/// Removes Sessions whose time is over.
#[must_use]
pub fn reconcile(world: &World, now: Timestamp) -> Vec<Want> {
    let Some(ttl) = world.options.session_ttl else { return Vec::new() };
    let over = |session: &&Session| match &session.stage {
        Stage::Ended(ended) => {
            let kept = session.tracked || session.deleted || ended.run.is_some() || now < ended.remove_not_before;
            !kept && now.since(ended.end.at) >= ttl
        }
        Stage::Pending(_) | Stage::Recording(_) | Stage::Running(_) => false,
    };
    world.sessions.values().filter(over).take(AT_ONCE).map(|session| Want::RemoveSession(session.uid.clone())).collect()
}
