//! The same case in front of our acting operators.

use std::sync::Arc;

use bos_core::batch::{BatchState, Outcome};
use bos_core::by_phase::ByPhase;
use bos_core::fold::Fault as CoreFault;
use bos_core::health::Service;
use bos_core::model::NodeId;
use bos_core::plan::PlannedOperation;
use bos_core::running::{Dispatch, Order};
use bos_core::want::Want;
use bos_core::{configuration, forceful_power_off, graceful_power_off, power_on};

use super::case::{Call, Case, Done, Faulty, Meaning, Operator, more};
use crate::decision::ours::{Answer, Scene};
use crate::decision::reading::{Image, Reading, Report, Standing};
use crate::desk::token;

const ID: NodeId = NodeId(0);

/// The one meaning in which the node stands where the operator finds it.
pub(crate) fn reading(case: &Case) -> Reading {
    let all = Reading::all(&case.record);
    // Switched off for a reboot, so that its image does not matter.
    let reboot = Reading { operation: PlannedOperation::Reboot, report: Report::Before(Image::Other(None)), ..all[0].clone() };
    if reboot.standing == Standing::PoweringOff && reboot.record.wanted().is_some() { reboot } else { all[0].clone() }
}

/// What our operator does, and the services with it. Where it does nothing, the status operator may know why.
pub(crate) fn done(case: &Case) -> Done {
    let reading = reading(case);
    let mut scene = Scene::of(&reading, &case.options);
    match reading.standing {
        Standing::Failed => scene.give_up(),
        Standing::Disabled | Standing::Fresh | Standing::PoweringOff | Standing::PoweringOn | Standing::Configuring => {}
    }
    if case.fault.is_some_and(|fault| fault.service == Faulty::CfsRead) {
        scene.world.nodes[0].config = None;
        let fault = CoreFault { service: Service::Cfs, detail: "500".into() };
        scene.world.fold_config(&[ID], scene.now, Err(fault), scene.now);
    }
    // The status operator comes first in a pass: it has done with a node for which no configuration is wanted.
    if case.operator == Operator::Configuration && Scene::of(&reading, &case.options).judged() == Answer::Succeeded {
        return Done::nothing();
    }
    let before = scene.stands();
    let attempts_before = attempts(&scene);
    let mut calls = Vec::new();
    loop {
        let by_phase = ByPhase::default().completed(&scene.world, scene.now);
        let wants = match case.operator {
            Operator::PowerOn => power_on::reconcile(&scene.world, &by_phase, scene.now),
            Operator::Graceful => graceful_power_off::reconcile(&scene.world, &by_phase, scene.now),
            Operator::Forceful => forceful_power_off::reconcile(&scene.world, &by_phase, scene.now),
            Operator::Configuration => configuration::reconcile(&scene.world, &by_phase, scene.now),
        };
        let so_far = calls.len();
        for want in wants {
            calls.extend(call(case, &mut scene, want));
        }
        // CFS is told once; that it changed shows in a later read.
        if calls.len() == so_far || case.operator == Operator::Configuration {
            break;
        }
    }
    let counted = more(attempts_before, attempts(&scene));
    let after = if calls.is_empty() && its_turn(case, &before) { scene.judged() } else { scene.stands() };
    let becomes = (after != before).then(|| match after {
        Answer::GoesOn(_, shown) => shown,
        Answer::Failed(_) => "failed",
        Answer::Untouched | Answer::Succeeded | Answer::Left | Answer::Dropped => panic!("{after:?}"),
    });
    let same_word = matches!(&before, Answer::GoesOn(_, shown) if becomes == Some(*shown));
    Done { calls, counted, becomes: becomes.filter(|_| !same_word) }
}

/// Attempts of the run, at work or over.
fn attempts(scene: &Scene<'_>) -> [u16; 3] {
    let node = &scene.world.nodes[0];
    let used = node.drive.as_ref().map(|drive| drive.attempts).or_else(|| node.last.as_ref().map(|last| last.attempts));
    used.map_or([0; 3], |used| [used.on, used.graceful, used.forceful])
}

/// Whether the node is in a status on which the operator acts.
fn its_turn(case: &Case, stands: &Answer) -> bool {
    let Answer::GoesOn(_, shown) = stands else { return false };
    match case.operator {
        Operator::PowerOn => *shown == "power_on_pending",
        Operator::Graceful => *shown == "power_off_pending",
        Operator::Forceful => matches!(*shown, "power_off_gracefully_called" | "power_off_forcefully_called"),
        Operator::Configuration => false,
    }
}

/// Records a wanted call, lets it leave, and answers it.
fn call(case: &Case, scene: &mut Scene<'_>, want: Want) -> Option<Call> {
    let _ = scene.world.accept(want, scene.now);
    let id = scene.world.batches.values().find(|batch| batch.state == BatchState::Recording)?.id;
    let dispatch = scene.world.release(id, scene.now)?;
    let (called, service, answer) = match &dispatch.order {
        Order::BootParameters { .. } => (Call::BootParameters, Faulty::Bss, Outcome::Stored { token: token() }),
        Order::Configuration { name, enabled, clear_state } => {
            let call = Call::Configure { name: name.to_string(), enabled: *enabled, clear_state: *clear_state };
            (call, Faulty::Cfs, Outcome::Configured { changed: vec![ID] })
        }
        Order::Power(action) => (Call::Power(*action), Faulty::Pcs, Outcome::Accepted { transition: "transition".into() }),
    };
    let outcome = failure(case, service).unwrap_or(answer);
    scene.world.fold_outcome(id, outcome.clone(), scene.now);
    told(scene, &dispatch, &outcome);
    // Without its tag the image is not projected, and BSS is not asked.
    let untagged = service == Faulty::Bss && tag_fault(case).is_some();
    (!untagged).then_some(called)
}

/// How a fault comes back from the clients of our services (their tests hold which answer means what).
fn failure(case: &Case, service: Faulty) -> Option<Outcome> {
    if let Some(outcome) = tag_fault(case).filter(|_| service == Faulty::Bss) {
        return Some(outcome);
    }
    let fault = case.fault.filter(|fault| fault.service == service)?;
    let detail: Arc<str> = fault.code.map_or_else(|| "connection refused".into(), |code| code.to_string().into());
    let asked = match service {
        Faulty::Hsm => Service::Hsm,
        Faulty::Ims => Service::Ims,
        Faulty::Bss => Service::Bss,
        Faulty::CfsRead | Faulty::Cfs => Service::Cfs,
        Faulty::Pcs => Service::Pcs,
    };
    Some(match fault.means() {
        Meaning::NotSent => Outcome::NotSent { service: asked, detail },
        Meaning::Unknown => Outcome::Unknown { detail },
        Meaning::Refused => Outcome::Rejected { detail },
    })
}

/// What keeps an image from being tagged for SBPS, which comes before BSS is asked.
pub(crate) fn tag_fault(case: &Case) -> Option<Outcome> {
    let wanted = case.record.wanted()?;
    if !wanted.params.as_deref().is_some_and(|params| params.contains("root=sbps-s3")) {
        return None;
    }
    let kernel = bos_core::manifest::S3Path::parse(wanted.kernel.as_deref().unwrap_or_default()).ok();
    if kernel.as_ref().and_then(|path| path.image_id()).is_none() {
        return Some(Outcome::Impossible { detail: "no IMS image id".into() });
    }
    let fault = case.fault.filter(|fault| fault.service == Faulty::Ims)?;
    let detail: Arc<str> = "IMS".into();
    Some(match fault.means() {
        // The tag is set again, whatever came of it.
        Meaning::NotSent | Meaning::Unknown => Outcome::NotSent { service: Service::Ims, detail },
        Meaning::Refused => Outcome::Impossible { detail },
    })
}

/// The words of a fault must be found where a person looks: at the node, or at the service.
fn told(scene: &Scene<'_>, dispatch: &Dispatch, outcome: &Outcome) {
    let (Outcome::NotSent { detail, .. } | Outcome::Unknown { detail } | Outcome::Rejected { detail } | Outcome::Impossible { detail }) =
        outcome
    else {
        return;
    };
    let node = &scene.world.nodes[0];
    let at_node = node.drive.as_ref().is_some_and(|drive| drive.error == *detail);
    let at_end = node.last.as_ref().is_some_and(|last| last.end.message.contains(&**detail));
    let at_service = Service::ALL.iter().any(|service| scene.world.services.down(*service).is_some_and(|outage| outage.detail == *detail));
    assert!(at_node || at_end || at_service, "{dispatch:?}: nobody learns of {detail:?}");
}
