//! The forceful-power-off operator: cuts the power of nodes that did not go off in time, seen on after their deadline.

use crate::by_phase::ByPhase;
use crate::graceful_power_off::open_power_offs;
use crate::model::{PowerAction, World};
use crate::time::Timestamp;
use crate::want::Want;

/// Sends Force-Off to nodes that were asked to go off and are still on after their deadline.
#[must_use]
pub fn reconcile(world: &World, by_phase: &ByPhase, now: Timestamp) -> Vec<Want> {
    open_power_offs(
        world,
        by_phase,
        now,
        PowerAction::ForceOff,
        |_, drive| matches!(drive.action, Some(issued) if issued.action != PowerAction::On && (now >= issued.power_by || issued.failed)),
    )
}
