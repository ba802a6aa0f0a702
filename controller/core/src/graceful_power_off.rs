//! The graceful-power-off operator: asks the operating system of nodes with status PowerOffPending to shut down.

use std::collections::BTreeMap;

use crate::batch::Work;
use crate::by_phase::ByPhase;
use crate::model::{Drive, Node, NodeId, Phase, Power, PowerAction, World};
use crate::power_on::chunk_size;
use crate::time::Timestamp;
use crate::want::Want;

/// Sends Soft-Off to nodes that must go off and have not been asked.
#[must_use]
pub fn reconcile(world: &World, by_phase: &ByPhase, now: Timestamp) -> Vec<Want> {
    open_power_offs(
        world,
        by_phase,
        now,
        PowerAction::SoftOff,
        |_, drive| !matches!(drive.action, Some(issued) if issued.action != PowerAction::On),
    )
}

/// Opens one kind of power-off for all nodes in PoweringOff that were seen on and that `due` picks. Shared by the graceful and
/// the forceful operator, which differ only in whom they pick.
pub(crate) fn open_power_offs(
    world: &World,
    by_phase: &ByPhase,
    now: Timestamp,
    action: PowerAction,
    due: impl Fn(&Node, &Drive) -> bool,
) -> Vec<Want> {
    let work = Work::Power(action);
    if world.emergency_stop || !world.services.may_call(work.service(world.power_service), now) {
        return Vec::new();
    }
    let mut wants = Vec::new();
    for (session, _, nodes) in by_phase.runs(world, Phase::PoweringOff, now) {
        let mut batches: BTreeMap<u32, Vec<NodeId>> = BTreeMap::new();
        for (id, node, drive) in nodes {
            let pending = || drive.booted.is_none() && drive.hold.is_none();
            let budget = || drive.attempts.used(action) < world.retry_limit(node);
            let on = || node.power_fresh(drive.evidence_since(now), now) == Some(Power::On);
            if due(node, drive) && pending() && budget() && on() {
                batches.entry(drive.together).or_default().push(id);
            }
        }
        for (together, nodes) in batches {
            let chunks = nodes.chunks(chunk_size(world, together)).map(<[NodeId]>::to_vec);
            wants.extend(chunks.map(|nodes| Want::Open { session: session.uid.clone(), boot_set: 0, work, nodes }));
        }
    }
    wants
}
