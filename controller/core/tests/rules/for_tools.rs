//! Objects as they are shown in each state, for the tools that judge their health: Argo CD, Flux and whatever knows kstatus.
//!
//! `hack/gitops` runs the checks of `manifests/gitops` over these files. They are what is shown, so they cannot say something else than
//! the operator does; `BOS_GOLDEN=write` writes them anew.

use std::collections::BTreeMap;
use std::path::Path;

use bos_core::health::Service;
use bos_core::model::{NodeId, Power};
use bos_core::plan::RunningPolicy;
use bos_core::project::component;
use bos_core::project_session::session;
use bos_core::session::{SessionSeen, Stage};
use bos_crds::{BootComponentStatus, Operation, SessionSpec, SessionStatus, conditions};
use serde_json::{Value, json};

use crate::desk::{Desk, token};
use crate::fixture::{at, plan, run_plan, seen};
use crate::{MINUTE, boot, boot_with, booting, silent};

/// The Session of a desk, as the API server has it after the first status was written.
fn shown(desk: &Desk) -> Value {
    let known = &desk.world.sessions[&desk.uid];
    let status = session(&desk.world, known, &SessionStatus::default(), desk.now);
    let metadata = json!({"name": &*known.name, "namespace": &*known.namespace, "generation": known.generation});
    object("Session", &metadata, &known.spec, &status)
}

fn node(desk: &Desk, suspend: bool) -> Value {
    let status = component(&desk.world, NodeId(0), &BootComponentStatus::default(), 1, desk.now);
    let spec = if suspend { json!({"suspend": true}) } else { json!({}) };
    object("BootComponent", &json!({"name": desk.world.nodes[0].xname.as_str(), "generation": 1}), &spec, &status)
}

fn object(kind: &str, metadata: &Value, spec: &impl serde::Serialize, status: &impl serde::Serialize) -> Value {
    json!({"apiVersion": bos_crds::API_VERSION, "kind": kind, "metadata": metadata, "spec": spec, "status": status})
}

/// After a pass in which what happened has been seen.
fn after(mut desk: Desk, happened: impl FnOnce(&mut Desk)) -> Desk {
    happened(&mut desk);
    let _ = desk.pass();
    desk
}

fn change_spec(desk: &mut Desk, change: impl FnOnce(&mut SessionSpec)) {
    change(&mut desk.world.sessions.get_mut(&desk.uid).unwrap().spec);
}

fn ended(desk: Desk) -> Desk {
    assert!(matches!(desk.world.sessions[&desk.uid].stage, Stage::Ended(_)), "it has not ended: {}", shown(&desk));
    desk
}

/// Nobody has set it up.
fn new(change: impl FnOnce(&mut SessionSeen)) -> Desk {
    let mut desk = boot(1);
    let mut object = seen("new", desk.now, SessionSpec::new(Operation::Boot, "template"));
    change(&mut object);
    desk.uid = object.uid.clone();
    desk.world.fold_session(object, desk.now);
    let _ = desk.pass();
    desk
}

fn partially_failed() -> Desk {
    let mut desk = boot_with(2, |plan| plan.running = RunningPolicy::RestartIfDifferent);
    desk.world.options.retry_policy = 1;
    desk.powered_on();
    desk.report(0, &token());
    let _ = desk.pass();
    desk.wait(desk.world.options.max_boot_wait);
    desk.power_of_all(Power::On);
    let _ = desk.pass();
    ended(desk)
}

fn failed() -> Desk {
    let mut desk = boot(1);
    desk.world.options.retry_policy = 1;
    desk.powered_on();
    desk.wait(desk.world.options.max_boot_wait);
    desk.power_of_all(Power::On);
    let _ = desk.pass();
    ended(desk)
}

fn succeeded() -> Desk {
    ended(after(booting(), |desk| {
        let _ = desk.report(0, &token());
    }))
}

fn superseded() -> Desk {
    let mut desk = booting();
    let older = desk.uid.clone();
    let plan = plan(bos_core::plan::PlannedOperation::Boot, 1, "other", "");
    desk.wait(MINUTE);
    run_plan(&mut desk.world, "newer", plan, desk.now);
    let _ = desk.pass();
    desk.uid = older;
    ended(desk)
}

fn sessions() -> BTreeMap<&'static str, Value> {
    let mut changed_since = shown(&booting());
    changed_since["metadata"]["generation"] = json!(2);
    BTreeMap::from([
        ("Session pending", shown(&new(|_| ()))),
        ("Session running", shown(&booting())),
        ("Session in an outage", shown(&after(booting(), |desk| desk.world.services.failed(Service::Pcs, "503", desk.now)))),
        ("Session of silent nodes", shown(&after(silent(9), |_| ()))),
        ("Session suspended", shown(&after(booting(), |desk| change_spec(desk, |spec| spec.suspend = true)))),
        ("Session changed since", changed_since),
        ("Session succeeded", shown(&succeeded())),
        ("Session failed", shown(&failed())),
        ("Session partially failed", shown(&partially_failed())),
        ("Session cancelled", shown(&ended(after(booting(), |desk| change_spec(desk, |spec| spec.cancel = true))))),
        ("Session superseded", shown(&superseded())),
        ("Session that ran before", shown(&ended(new(|seen| seen.name = "name-of-first".into())))),
        ("Session after its time", shown(&ended(new(|seen| seen.spec.start_before = Some(bos_crds::Time(at(0).wall())))))),
        ("Session without startBefore", shown(&ended(new(|seen| seen.tracked = true)))),
    ])
}

fn nodes() -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("BootComponent driven", node(&booting(), false)),
        ("BootComponent stable", node(&succeeded(), false)),
        ("BootComponent failed", node(&failed(), false)),
        ("BootComponent suspended", node(&after(booting(), |desk| desk.world.nodes[0].suspended = true), true)),
    ])
}

#[test]
fn what_tools_are_tested_with_is_what_is_shown() {
    for (file, shown) in [("sessions.json", sessions()), ("nodes.json", nodes())] {
        let path = Path::new("../../hack/gitops/testdata").join(file);
        let text = format!("{:#}\n", json!(shown));
        if std::env::var_os("BOS_GOLDEN").is_some_and(|value| value == "write") {
            std::fs::write(&path, &text).unwrap();
        }
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(known == text, "{} is not what is shown now; BOS_GOLDEN=write writes it:\n{text}", path.display());
    }
}

/// A Session that has ended is done for every tool: one that waits for Current or Failed must not wait for ever.
#[test]
fn whatever_has_ended_is_ready_or_stalled_and_nothing_else_is() {
    for (name, shown) in sessions() {
        let status: SessionStatus = serde_json::from_value(shown["status"].clone()).unwrap();
        let holds = |type_| conditions::is_true(&status.conditions, type_);
        let over = holds(conditions::COMPLETE);
        let (ready, stalled) = (holds(conditions::READY), holds(conditions::STALLED));
        assert_eq!((ready || stalled, ready && stalled, holds(conditions::RECONCILING)), (over, false, !over), "{name}");
        assert_eq!(ready, holds(conditions::SUCCEEDED), "{name}");
    }
}
