//! The configuration operator: nodes that are up with the right image but for which CFS wants another configuration.
//!
//! After a boot by us it has nothing to do, for power-on set the configuration already; it serves "same image, other
//! configuration", which needs no reboot (BOS behaviour §10), and the operation Configure, which always tells CFS once: what CFS
//! said before is no evidence that it was asked (a stale `configured` counted as success in v1).

use std::collections::BTreeMap;

use crate::batch::Work;
use crate::by_phase::ByPhase;
use crate::health::Service;
use crate::model::{NodeId, Phase, Prepared, World};
use crate::plan::PlannedOperation;
use crate::power_on::chunk_size;
use crate::time::Timestamp;
use crate::want::Want;

/// Sets the configuration in CFS where CFS wants another one.
#[must_use]
pub fn reconcile(world: &World, by_phase: &ByPhase, now: Timestamp) -> Vec<Want> {
    if !world.services.may_call(Service::Cfs, now) {
        return Vec::new();
    }
    let mut wants = Vec::new();
    for (session, run, nodes) in by_phase.runs(world, Phase::Configuring, now) {
        let mut by_set: BTreeMap<(u16, u32), Vec<NodeId>> = BTreeMap::new();
        for (id, node, drive) in nodes {
            let Some((booted, set)) = drive.booted.zip(run.plan.boot_set(drive.boot_set)) else { continue };
            let seen = node.config.as_ref().filter(|seen| seen.at >= booted).and_then(|seen| seen.record.as_ref());
            let to_tell = run.plan.operation == PlannedOperation::Configure && drive.config == Prepared::No;
            let differs = seen.is_some_and(|record| record.desired != set.configuration || to_tell);
            if differs {
                by_set.entry((drive.boot_set, drive.together)).or_default().push(id);
            }
        }
        for ((boot_set, together), nodes) in by_set {
            let chunks = nodes.chunks(chunk_size(world, together));
            wants.extend(chunks.map(|chunk| Want::Open {
                session: session.uid.clone(),
                boot_set,
                work: Work::Configure,
                nodes: chunk.to_vec(),
            }));
        }
    }
    wants
}
