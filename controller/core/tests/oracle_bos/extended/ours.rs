//! The same population as a Session of ours.

use std::collections::BTreeMap;
use std::time::Duration;

use bos_core::fold::Fault;
use bos_core::model::{EndKind, Hold, HoldReason, Issued, NodeId, Phase, Power, PowerAction, SessionUid, World};
use bos_core::plan::{Plan, PlannedOperation};
use bos_core::project_session;
use bos_core::resolve::{Facts, Snapshot};
use bos_core::session_completion;
use bos_core::want::{Decision, Want};
use bos_core::xname::Xname;
use bos_crds::{SessionStatus, reasons};

use super::population::{Member, Numbers, percent};
use crate::decision::record::{Last, Override};
use crate::fixture::{START, plan, run_plan};

/// A Session over the members that are or were its own.
pub(crate) struct Scene {
    pub(crate) world: World,
    uid: SessionUid,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Scene {
    pub(crate) fn of(members: &[Member]) -> Self {
        let facts = Facts { arch: Some("X86".into()), role: Some("Compute".into()), state: Some("On".into()), ..Facts::default() };
        let nodes = members.iter().map(|member| (member.xname.clone(), facts.clone())).collect();
        let mut world = World { install_namespace: "bos".into(), ..World::default() };
        let read: Result<Snapshot, Fault> = Ok(Snapshot { nodes, ..Snapshot::default() });
        for id in world.fold_inventory(read, START) {
            world.nodes[id.0 as usize].recorded = true;
        }
        let ours: Vec<&Member> = members.iter().filter(|member| member.owned() || member.taken_over()).collect();
        let uid = run_plan(&mut world, "first", of_nodes(&ours), START);
        let mut scene = Self { world, uid };
        for member in &ours {
            scene.stand(member);
        }
        let taken: Vec<&Member> = members.iter().filter(|member| member.taken_over()).collect();
        if !taken.is_empty() {
            run_plan(&mut scene.world, "second", of_nodes(&taken), START + HOUR / 2);
        }
        scene
    }

    fn id(&self, xname: &Xname) -> NodeId {
        self.world.by_name[xname]
    }

    /// Puts a node where BOS's record says it stands.
    fn stand(&mut self, member: &Member) {
        let id = self.id(&member.xname);
        if member.taken_over() {
            return;
        }
        let done = member.phase == Phase::None && member.overriding == Override::None;
        let failed = member.overriding == Override::Failed;
        if done || failed {
            let (kind, reason) = if failed { (EndKind::Failed, reason(&member.error)) } else { (EndKind::Succeeded, "") };
            let end = Decision::End(kind, reason.into(), member.error.as_str().into());
            let _ = self.world.accept(Want::Decide(id, end), START);
            return;
        }
        let node = &mut self.world.nodes[id.0 as usize];
        // Somebody disabled it in flight: a person's hold.
        node.suspended = !member.enabled && member.overriding == Override::None;
        if member.overriding == Override::OnHold {
            if !member.enabled {
                let hold = Hold { reason: HoldReason::PowerUnknown, since: START, until: START + HOUR };
                let _ = self.world.accept(Want::Decide(id, Decision::Hold(hold)), START);
            }
            return;
        }
        let drive = node.drive.as_mut().unwrap();
        drive.phase = member.phase;
        drive.booted = (member.phase == Phase::Configuring).then_some(START);
        let action = match (member.phase, member.last) {
            (Phase::PoweringOn | Phase::Configuring, Last::On) => Some(PowerAction::On),
            (Phase::PoweringOff, Last::SoftOff) => Some(PowerAction::SoftOff),
            (Phase::PoweringOff, Last::ForceOff) => Some(PowerAction::ForceOff),
            _ => None,
        };
        drive.action = action.map(|action| Issued {
            action,
            at: START,
            decided: START,
            power_by: START + HOUR,
            boot_by: START + HOUR,
            accepted: true,
            failed: member.last_failed,
        });
    }

    pub(crate) fn status(&self) -> SessionStatus {
        let session = &self.world.sessions[&self.uid];
        project_session::session(&self.world, session, &SessionStatus::default(), START + HOUR)
    }

    /// Ends the Session, which has no open node, an hour after its start.
    pub(crate) fn complete(&mut self, after: Duration) {
        for want in session_completion::reconcile(&self.world, START + after) {
            let _ = self.world.accept(want, START + after);
        }
    }

    /// A newer Session takes every second node of an ended one.
    pub(crate) fn drift(&mut self, members: &[Member]) {
        let half: Vec<&Member> = members.iter().step_by(2).collect();
        run_plan(&mut self.world, "third", of_nodes(&half), START + HOUR / 2);
        for member in &half {
            let id = self.id(&member.xname);
            self.world.fold_power(&[id], START + HOUR / 2, Ok(vec![(id, Power::Off, "".into())]), START + HOUR / 2);
        }
    }
}

fn of_nodes(members: &[&Member]) -> Plan {
    let mut plan = plan(PlannedOperation::Boot, 0, "image", "cfg-1");
    plan.boot_sets[0].nodes = members.iter().map(|member| member.xname.clone()).collect();
    plan
}

/// A reason of ours for each text of the recording: which, does not matter, but for each another one.
fn reason(error: &str) -> &'static str {
    match error {
        "cfs configuration failed" => reasons::CONFIGURATION_FAILED,
        "some error" => reasons::POWER_REFUSED,
        "other error" => reasons::POWER_OFF_TIMEOUT,
        "x" => reasons::BOOT_PARAMETERS_REFUSED,
        "" => reasons::BOOT_TIMEOUT,
        _ => reasons::POWER_ON_TIMEOUT,
    }
}

/// BOS's numbers, from the counts of our status and, for the phases, from its percentages. Nodes taken over are done with.
pub(crate) fn numbers(status: &SessionStatus) -> Numbers {
    let counts = &status.counts;
    let number = |count: i32| usize::try_from(count).unwrap();
    let errors: BTreeMap<String, (usize, String)> = status
        .failures
        .iter()
        .filter(|group| !group.message.is_empty())
        .map(|group| (group.message.clone(), (number(group.count), group.sample.clone())))
        .collect();
    let of = |share: f64| (0..=number(counts.nodes)).find(|part| percent(*part, number(counts.nodes)) == share).unwrap();
    let [configuring, _, powering_off, powering_on, ..] = percentages(status);
    Numbers {
        managed: number(counts.nodes),
        staged: 0,
        successful: number(counts.succeeded),
        failed: number(counts.failed),
        complete: number(counts.done),
        powering_on: of(powering_on),
        powering_off: of(powering_off),
        configuring: of(configuring),
        errors,
    }
}

/// BOS's percentages but for the first, from the shares of our status.
pub(crate) fn percentages(status: &SessionStatus) -> [f64; 6] {
    let shares = &status.percentages;
    let of = |share: &String| if share.is_empty() { 0.0 } else { share.parse().unwrap() };
    [&shares.configuring, &shares.failed, &shares.powering_off, &shares.powering_on, &shares.staged, &shares.succeeded].map(of)
}
