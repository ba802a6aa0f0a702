//! The actual-state-cleanup operator: what a node said long ago is not believed for ever.
//!
//! BOS empties the whole record and overwrites last action and error with it (§13, §21.2 no. 24). Here only the image becomes
//! unknown; the token stays, so that the same node is not taken for newly booted when it is heard again.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::model::{Node, World};
use crate::time::Timestamp;
use crate::want::Want;

/// The reports of ten thousand nodes are looked at so often in the time that they are believed, not in every pass.
const LOOKS: u32 = 100;

/// But at least and at most this often.
const LOOK: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// Lets the image of nodes expire that have not reported for the time the option gives, while they could have been heard.
#[must_use]
pub fn reconcile(world: &World, now: Timestamp) -> Vec<Want> {
    let Some(listening) = world.reports.listening_since else { return Vec::new() };
    let ttl = world.options.actual_state_ttl;
    if now < world.reports.looked + (ttl / LOOKS).clamp(*LOOK.start(), *LOOK.end()) {
        return Vec::new();
    }
    let old = |node: &Node| {
        let report = node.reported.as_ref().filter(|report| !report.expired);
        node.drive.is_none() && report.is_some_and(|report| now.since(report.at.max(listening)) >= ttl)
    };
    vec![Want::Expire(world.nodes_where(old).collect())]
}
