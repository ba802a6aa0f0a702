//! The power-on operator: boot parameters first, then CFS set and disabled, then power (BOS behaviour §9.1). Each step starts
//! only for nodes for which the one before was confirmed (rule 6).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::batch::Work;
use crate::by_phase::ByPhase;
use crate::health::Service;
use crate::model::{Drive, HoldReason, Node, NodeId, Phase, Power, PowerAction, Prepared, World};
use crate::session::Session;
use crate::time::Timestamp;
use crate::want::Want;

/// Starts the next step of every node that is to come up.
#[must_use]
pub fn reconcile(world: &World, by_phase: &ByPhase, now: Timestamp) -> Vec<Want> {
    let mut wants = Vec::new();
    let mut power_ons = allowance(world, now);
    for (session, _, nodes) in by_phase.runs(world, Phase::PoweringOn, now) {
        let mut steps: BTreeMap<(Work, u16, u32), Vec<NodeId>> = BTreeMap::new();
        for (id, node, drive) in nodes.filter(|(_, node, drive)| is_ready(world, node, drive, now)) {
            let work = next_step(world, drive);
            if matches!(work, Work::Power(_)) && now < node.rests_until {
                continue;
            }
            let boot_set = if matches!(work, Work::Power(_)) { 0 } else { drive.boot_set };
            if may_start(world, work, now) {
                steps.entry((work, boot_set, drive.together)).or_default().push(id);
            }
        }
        for ((work, boot_set, together), mut nodes) in steps {
            if matches!(work, Work::Power(_)) {
                nodes.truncate(power_ons);
                power_ons -= nodes.len();
            }
            let size = chunk_size(world, together);
            wants.extend(nodes.chunks(size).map(|chunk| Want::Open {
                session: session.uid.clone(),
                boot_set,
                work,
                nodes: chunk.to_vec(),
            }));
        }
    }
    wants
}

/// Boot parameters of some images need IMS too: it must project them before they are booted.
fn may_start(world: &World, work: Work, now: Timestamp) -> bool {
    let ims = work != Work::BootParameters || world.services.may_call(Service::Ims, now);
    ims && world.services.may_call(work.service(world.power_service), now)
}

/// Nodes a call may carry: the option, or fewer after a refusal.
pub(crate) fn chunk_size(world: &World, together: u32) -> usize {
    let size = world.options.batch_size.max(1);
    if together == 0 { size } else { size.min(together as usize) }
}

/// Its status is PowerOnPending, and nothing holds it.
fn is_ready(world: &World, node: &Node, drive: &Drive, now: Timestamp) -> bool {
    let pending = || {
        drive.booted.is_none()
            && drive.hold.is_none_or(|hold| hold.reason == HoldReason::NotInConfigurationService)
            && !matches!(drive.action, Some(issued) if issued.action == PowerAction::On && !issued.failed)
    };
    let off = || node.power_fresh(drive.acted_or_held_since(), now) == Some(Power::Off);
    let budget = || drive.attempts.on < world.retry_limit(node);
    pending() && off() && budget()
}

/// CFS is told where no configuration is wanted too: otherwise it would bring the node to the one it was told last.
fn next_step(world: &World, drive: &Drive) -> Work {
    match (drive.params, drive.config) {
        (Prepared::No, _) => Work::BootParameters,
        (Prepared::Yes, Prepared::No) if world.services.has(Service::Cfs) => Work::PrepareConfiguration,
        (Prepared::Yes, _) => Work::Power(PowerAction::On),
    }
}

/// How many power-ons may leave now, for all sessions together: none while the stop switch is set; otherwise what pacing leaves.
fn allowance(world: &World, now: Timestamp) -> usize {
    if world.emergency_stop {
        return 0;
    }
    let rate = match world.options.power_ons_per_second {
        0 => usize::MAX,
        rate => {
            let paced = world.sessions.values().filter_map(Session::running).flat_map(|run| &run.paced);
            let lately: u32 = paced.filter(|(at, _)| now.since(*at) < Duration::from_secs(1)).map(|(_, nodes)| *nodes).sum();
            rate.saturating_sub(lately as usize)
        }
    };
    match world.options.max_nodes_in_flight {
        0 => rate,
        most => rate.min(most.saturating_sub(in_flight(world))),
    }
}

/// Nodes between power-on and report, of all sessions.
#[must_use]
pub fn in_flight(world: &World) -> usize {
    let drives = world.nodes.iter().filter_map(|node| node.drive.as_ref());
    let boots = |drive: &&Drive| match (drive.action, &drive.in_flight) {
        (Some(issued), _) => issued.action == PowerAction::On && !issued.failed,
        (None, flight) => flight.is_some(),
    };
    drives.filter(|drive| drive.booted.is_none()).filter(boots).count()
}
