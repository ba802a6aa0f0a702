//! The boot set status of BOS v1: per boot set and phase how many nodes are in each category. A node counts once in each phase.

use std::collections::BTreeMap;

use bos_crds::schema::GROUPS_MAX;
use bos_crds::{BootSetPhase, BootSetPhaseName, BootSetReason};

use super::int;
use crate::health::Service;
use crate::model::{Drive, End, EndKind, Phase, World};
use crate::plan::{PlannedBootSet, PlannedOperation};
use crate::session::{Run, Session, Slot};

/// BOS v1's categories of the nodes of a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Category<'a> {
    NotStarted,
    InProgress,
    Succeeded,
    Failed(&'a str),
    Excluded(&'a str),
}

/// The phases of each boot set, in the order of the plan; none of a Session of mode v2.
pub(super) fn of(world: &World, session: &Session, run: &Run) -> Vec<Vec<BootSetPhase>> {
    if !run.plan.agent {
        return Vec::new();
    }
    let mut slots = run.slots.iter();
    let sets = run.plan.boot_sets.iter().map(|set| {
        let slots: Vec<&Slot> = slots.by_ref().take(set.nodes.len()).collect();
        let names = names(world, run.plan.operation, set);
        let phase = |(place, name): (usize, &BootSetPhaseName)| {
            counted(*name, slots.iter().map(|slot| category(world, session, slot, &names, place)))
        };
        names.iter().enumerate().map(phase).collect()
    });
    sets.collect()
}

/// A boot set without a configuration has nothing to configure.
fn names(world: &World, operation: PlannedOperation, set: &PlannedBootSet) -> Vec<BootSetPhaseName> {
    let configures = !set.configuration.is_empty() && world.services.has(Service::Cfs);
    let configure = configures.then_some(BootSetPhaseName::Configure);
    match operation {
        PlannedOperation::Boot => std::iter::once(BootSetPhaseName::Boot).chain(configure).collect(),
        PlannedOperation::Reboot => [BootSetPhaseName::Shutdown, BootSetPhaseName::Boot].into_iter().chain(configure).collect(),
        PlannedOperation::Shutdown => vec![BootSetPhaseName::Shutdown],
        PlannedOperation::Configure => vec![BootSetPhaseName::Configure],
    }
}

/// Where a node is in the phase at this place.
fn category<'a>(world: &World, session: &Session, slot: &'a Slot, names: &[BootSetPhaseName], place: usize) -> Category<'a> {
    let Some(end) = &slot.end else {
        let drive = world.node(slot.node).and_then(|node| node.drive.as_ref()).filter(|drive| drive.session == session.uid);
        return open(drive, names, place);
    };
    ended(end, place_of(slot.reached, names), place)
}

fn open(drive: Option<&Drive>, names: &[BootSetPhaseName], place: usize) -> Category<'static> {
    let Some(drive) = drive else { return Category::NotStarted };
    let booted = drive.booted.is_some() && names.len() > 1;
    let at = if booted { names.len() - 1 } else { place_of(drive.phase, names) };
    let begun = drive.phase != Phase::None || drive.booted.is_some();
    match place.cmp(&at) {
        std::cmp::Ordering::Less => Category::Succeeded,
        std::cmp::Ordering::Equal if begun => Category::InProgress,
        std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => Category::NotStarted,
    }
}

fn ended(end: &End, at: usize, place: usize) -> Category<'_> {
    match (end.kind, place.cmp(&at)) {
        (EndKind::Succeeded, _) | (EndKind::Failed | EndKind::Superseded | EndKind::Cancelled, std::cmp::Ordering::Less) => {
            Category::Succeeded
        }
        (EndKind::Failed, std::cmp::Ordering::Equal) => Category::Failed(&end.reason),
        (EndKind::Failed | EndKind::Superseded | EndKind::Cancelled | EndKind::LeftRunning, _) => Category::Excluded(&end.reason),
    }
}

/// The place of a node's phase among those of its boot set. What it goes through before the first counts as the first: a Boot that
/// power-cycles a node is in its phase Boot.
fn place_of(phase: Phase, names: &[BootSetPhaseName]) -> usize {
    let name = match phase {
        Phase::None => return 0,
        Phase::PoweringOff => BootSetPhaseName::Shutdown,
        Phase::PoweringOn => BootSetPhaseName::Boot,
        Phase::Configuring => BootSetPhaseName::Configure,
    };
    names.iter().position(|known| *known == name).unwrap_or(if phase == Phase::Configuring { names.len().saturating_sub(1) } else { 0 })
}

fn counted<'a>(name: BootSetPhaseName, categories: impl Iterator<Item = Category<'a>>) -> BootSetPhase {
    let mut phase = BootSetPhase { name, not_started: 0, in_progress: 0, succeeded: 0, failed: 0, excluded: 0, reasons: Vec::new() };
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for category in categories {
        match category {
            Category::NotStarted => phase.not_started += 1,
            Category::InProgress => phase.in_progress += 1,
            Category::Succeeded => phase.succeeded += 1,
            Category::Failed(reason) => {
                phase.failed += 1;
                *reasons.entry(reason).or_default() += 1;
            }
            Category::Excluded(reason) => {
                phase.excluded += 1;
                *reasons.entry(reason).or_default() += 1;
            }
        }
    }
    let mut reasons: Vec<(&str, usize)> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    phase.reasons = reasons
        .into_iter()
        .take(GROUPS_MAX)
        .map(|(reason, count)| BootSetReason { reason: reason.to_owned(), count: int(count) })
        .collect();
    phase
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use BootSetPhaseName::{Boot, Configure, Shutdown};

    fn end(kind: EndKind) -> End {
        End { kind, reason: "Why".into(), message: "".into(), at: Timestamp::from_millis(0) }
    }

    fn through(kind: EndKind, reached: Phase, names: &[BootSetPhaseName]) -> Vec<String> {
        let end = end(kind);
        let place = place_of(reached, names);
        (0..names.len()).map(|at| format!("{:?}", ended(&end, place, at))).collect()
    }

    #[test]
    fn a_node_fails_in_one_phase_and_does_not_come_to_the_next() {
        let all = [Shutdown, Boot, Configure];
        let (failed, excluded) = ("Failed(\"Why\")", "Excluded(\"Why\")");
        assert_eq!(through(EndKind::Failed, Phase::PoweringOff, &all), [failed, excluded, excluded]);
        assert_eq!(through(EndKind::Failed, Phase::PoweringOn, &all), ["Succeeded", failed, excluded]);
        assert_eq!(through(EndKind::Failed, Phase::Configuring, &all), ["Succeeded", "Succeeded", failed]);
        assert_eq!(through(EndKind::Succeeded, Phase::Configuring, &all), ["Succeeded", "Succeeded", "Succeeded"]);
        assert_eq!(through(EndKind::LeftRunning, Phase::None, &[Boot, Configure]), [excluded, excluded]);
        assert_eq!(through(EndKind::Superseded, Phase::PoweringOn, &all), ["Succeeded", excluded, excluded]);
        assert_eq!(through(EndKind::Failed, Phase::PoweringOff, &[Boot]), [failed]);
        assert_eq!(through(EndKind::Failed, Phase::Configuring, &[Boot]), [failed]);
    }
}
