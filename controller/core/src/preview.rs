//! What a Session would do to its nodes if it began now: the decisions of the status operator, asked before anything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bos_crds::{Operation, reasons};

use crate::model::{Digest, EndKind, Node, NodeId, Phase, Power, PowerSeen, Reported, SessionUid, World};
use crate::plan::{Plan, PlannedBootSet};
use crate::session::{Recording, Session, Stage};
use crate::session_setup::{Selection, boots, empty_plan};
use crate::status::Case;
use crate::time::Timestamp;
use crate::want::Decision;
use crate::xname::Xname;

/// Counts of nodes by what would be done to them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preview {
    /// All nodes to act on.
    pub nodes: usize,
    /// Off, and powered on.
    pub powered_on: usize,
    /// On, powered off and on again.
    pub cycled: usize,
    /// On, and powered off.
    pub powered_off: usize,
    /// As they should be: they run the image, or are off.
    pub reached: usize,
    /// Left as they are, by reason.
    pub left: BTreeMap<Arc<str>, usize>,
    /// Their power is not known.
    pub unknown: usize,
    /// A person holds them.
    pub suspended: usize,
    /// They are being powered on or off, and what they run then is not known yet.
    pub on_the_way: usize,
}

/// Judges every node of a selection by what is known of it, and by `power` where that was asked for just now. `switched` are the nodes that
/// are being powered on or off. Without the artifacts of a boot set nobody can say what a Boot does to its running nodes: None.
#[must_use]
pub fn preview(
    known: &World,
    session: &Session,
    selection: &Selection,
    artifacts: &BTreeMap<String, Digest>,
    power: &BTreeMap<Xname, Power>,
    switched: &BTreeSet<NodeId>,
    now: Timestamp,
) -> Option<Preview> {
    let boot_sets = planned(session, selection, artifacts)?;
    let plan = Arc::new(Plan { boot_sets, staged: false, ..empty_plan(session, &known.options) });
    let mut world = World { options: known.options.clone(), power_service: known.power_service, ..World::default() };
    for (_, xname) in plan.nodes() {
        let id = world.intern(xname);
        let seen = known.by_name.get(xname).and_then(|id| known.node(*id));
        let Some(node) = world.nodes.get_mut(id.0 as usize) else { continue };
        if let Some(seen) = seen {
            as_if_seen_now(node, seen, now);
        }
        if let Some(power) = power.get(xname) {
            node.power = Some(PowerSeen { power: *power, at: now, detail: "".into() });
        }
    }
    let stage = Stage::Recording(Recording { plan: Arc::clone(&plan), since: now });
    world.sessions.insert(session.uid.clone(), Session { stage, ..session.clone() });
    world.begin(&session.uid, plan, None, now);
    let on_the_way = |xname: &Xname| known.by_name.get(xname).is_some_and(|id| switched.contains(id));
    count(&world, &session.uid, on_the_way, now)
}

fn planned(session: &Session, selection: &Selection, artifacts: &BTreeMap<String, Digest>) -> Option<Vec<PlannedBootSet>> {
    let mut boot_sets = Vec::new();
    for set in selection.resolved.boot_sets.iter().filter(|set| !set.nodes.is_empty()) {
        let artifacts = artifacts.get(&set.name).cloned();
        // Only a Boot looks at what runs.
        if session.spec.operation == Operation::Boot && artifacts.is_none() {
            return None;
        }
        boot_sets.push(PlannedBootSet {
            name: set.name.as_str().into(),
            artifacts: artifacts.filter(|_| boots(session.spec.operation)),
            image: "".into(),
            configuration: "".into(),
            nodes: set.nodes.clone(),
        });
    }
    Some(boot_sets)
}

/// Decisions ask for a fresh look; here what was seen last is all there is.
fn as_if_seen_now(node: &mut Node, seen: &Node, now: Timestamp) {
    node.power = seen.power.as_ref().map(|power| PowerSeen { at: now, ..power.clone() });
    node.reported = seen.reported.as_ref().map(|report| Reported { at: now, since: report.since.min(now), ..report.clone() });
    node.retry_policy = seen.retry_policy;
    node.suspended = seen.suspended;
}

fn count(world: &World, uid: &SessionUid, on_the_way: impl Fn(&Xname) -> bool, now: Timestamp) -> Option<Preview> {
    let session = world.sessions.get(uid)?;
    let run = session.run()?;
    let mut preview = Preview { nodes: run.slots.len(), ..Preview::default() };
    for (_, node, drive) in world.driven(run.open()) {
        let Some(boot_set) = run.plan.boot_set(drive.boot_set) else { continue };
        if node.suspended {
            preview.suspended += 1;
            continue;
        }
        let case = Case { world, session, run, boot_set, node, drive, mass_silence: false, cycled: preview.cycled, now };
        match case.judge() {
            // Whoever takes it over goes on with the boot that is under way, or looks at it then.
            Some(Decision::End(_, reason, _)) if *reason == *reasons::UNKNOWN_IMAGE_RUNNING && on_the_way(&node.xname) => {
                preview.on_the_way += 1;
            }
            decision => preview.add(decision),
        }
    }
    Some(preview)
}

impl Preview {
    fn add(&mut self, decision: Option<Decision>) {
        match decision {
            Some(Decision::Enter(Phase::PoweringOn)) => self.powered_on += 1,
            Some(Decision::Enter(Phase::PoweringOff)) => self.powered_off += 1,
            Some(Decision::Cycle) => self.cycled += 1,
            Some(Decision::AlreadyBooted | Decision::End(EndKind::Succeeded, ..)) => self.reached += 1,
            Some(Decision::End(_, reason, _)) => *self.left.entry(reason).or_default() += 1,
            Some(
                Decision::Hold(_)
                | Decision::Release
                | Decision::Enter(Phase::None | Phase::Configuring)
                | Decision::CycleSilent(_)
                | Decision::ActionFailed { .. },
            )
            | None => self.unknown += 1,
        }
    }

    /// In words, for one warning.
    #[must_use]
    pub fn text(&self, operation: Operation) -> String {
        let reached = match operation {
            Operation::Boot | Operation::Reboot if self.reached == 1 => "runs the image already",
            Operation::Boot | Operation::Reboot => "run the image already",
            Operation::Shutdown => "off already",
            Operation::Configure => "configured if they need it",
        };
        let mut parts: Vec<String> = Vec::new();
        let mut part = |count: usize, what: &str| parts.extend((count > 0).then(|| format!("{count} {what}")));
        part(self.powered_on, "powered on");
        part(self.cycled, "power-cycled");
        part(self.powered_off, "powered off");
        part(self.reached, reached);
        for (reason, count) in &self.left {
            part(*count, left_words(reason));
        }
        part(self.on_the_way, "on the way up or down, looked at once taken over");
        part(self.suspended, "held by suspend");
        part(self.unknown, "of unknown power");
        let alone = self.left.values().sum::<usize>() + if operation == Operation::Configure { 0 } else { self.reached };
        let acted = self.nodes.saturating_sub(alone);
        let whom = match acted {
            0 if self.nodes == 1 => "1 node will not be acted on".to_owned(),
            0 => format!("None of {} will be acted on", counted(self.nodes)),
            _ if acted == self.nodes => acted_on(acted),
            _ => format!("{acted} of {} will be acted on", counted(self.nodes)),
        };
        format!("{whom}: {}", parts.join(", "))
    }
}

/// `3 nodes will be acted on`.
#[must_use]
pub fn acted_on(nodes: usize) -> String {
    format!("{} will be acted on", counted(nodes))
}

/// `1 node`, `3 nodes`.
#[must_use]
pub fn counted(nodes: usize) -> String {
    format!("{nodes} {}", if nodes == 1 { "node" } else { "nodes" })
}

/// Why nodes are left as they are, after their number.
fn left_words(reason: &str) -> &str {
    match reason {
        reasons::UNKNOWN_IMAGE_RUNNING => "left on with an unknown image",
        reasons::LEFT_RUNNING => "left on with another image",
        reasons::ALREADY_ON => "on already, which mode v1 leaves",
        reasons::MAX_POWER_CYCLED => "left on by maxPowerCycled",
        reasons::POWERED_OFF => "off, so not configured",
        other => other,
    }
}

/// The nodes that are left out, in words: `3 excluded: 2 locked in HSM, 1 disabled in HSM`; None where there are none.
#[must_use]
pub fn excluded_text(selection: &Selection) -> Option<String> {
    let excluded = selection.excluded();
    let total: usize = excluded.values().map(Vec::len).sum();
    let parts: Vec<String> = excluded.iter().map(|(reason, nodes)| format!("{} {}", nodes.len(), excluded_words(reason))).collect();
    (total > 0).then(|| format!("{total} excluded: {}", parts.join(", ")))
}

fn excluded_words(reason: &str) -> &str {
    match reason {
        reasons::LOCKED_IN_HSM => "locked in HSM",
        reasons::DISABLED_IN_HSM => "disabled in HSM",
        reasons::NOT_IN_HSM => "not in HSM",
        reasons::ARCH_MISMATCH => "of another architecture",
        reasons::EMPTY_IN_HSM => "empty in HSM",
        reasons::MANAGEMENT_ROLE => "of role Management",
        reasons::NOT_OWNED_BY_TENANT => "of other tenants",
        other => other,
    }
}
