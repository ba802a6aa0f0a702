//! What travels: no nulls, nothing at its default in the large objects, statuses that merge.

#![allow(clippy::unwrap_used, reason = "tests")]

use bos_crds::{
    BootComponent, BootComponentSpec, BootComponentStatus, BootOptionsSpec, BootOptionsStatus, BootSet, CfsSpec, Condition, NodePhase,
    NodeStatus, Operation, SessionSpec, SessionStatus, SessionTemplateSpec, SessionTemplateStatus, Time, bounded, merge_diff, schema,
};
use serde::Serialize;
use serde_json::{Value, json};

fn wire(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(map) => map.values().any(has_null),
        _ => false,
    }
}

fn time() -> Time {
    Time("2026-11-23T14:00:00Z".parse().unwrap())
}

#[test]
fn what_is_absent_is_left_out() {
    let template = SessionTemplateSpec { boot_sets: vec![BootSet::default()], cfs: Some(CfsSpec::default()), ..Default::default() };
    let session = SessionStatus {
        boot_sets: vec![bos_crds::BootSetStatus::default()],
        failures: vec![bos_crds::FailureGroup::default()],
        excluded: vec![bos_crds::ExcludedGroup::default()],
        ..Default::default()
    };
    let component = BootComponentStatus {
        actual_state: Some(bos_crds::ActualState::default()),
        last_session: Some(bos_crds::LastSession::default()),
        ..Default::default()
    };
    let report = SessionTemplateStatus { boot_sets: vec![bos_crds::BootSetReport::default()], ..Default::default() };
    let desired = BootComponentSpec { desired_state: Some(bos_crds::DesiredState::default()), ..Default::default() };
    for value in [
        wire(&template),
        wire(&report),
        wire(&SessionSpec::new(Operation::Boot, "t")),
        wire(&session),
        wire(&desired),
        wire(&component),
        wire(&BootOptionsSpec::default()),
        wire(&BootOptionsStatus::default()),
    ] {
        assert!(!has_null(&value), "{value}");
    }
    assert_eq!(wire(&BootComponentSpec::default()), json!({}));
    assert_eq!(wire(&BootComponentStatus::default()), json!({"observedGeneration": -1, "enabled": false, "power": "Unknown"}));
    assert_eq!(wire(&SessionStatus::default()), json!({"observedGeneration": -1}));
}

#[test]
fn a_bare_default_status_is_read_as_not_observed() {
    let component: BootComponentStatus = serde_json::from_value(json!({"observedGeneration": -1})).unwrap();
    assert_eq!(component, BootComponentStatus::default());
    assert!(!component.is_observed());
    let session: SessionStatus = serde_json::from_value(json!({})).unwrap();
    assert_eq!(session, SessionStatus::default());
    assert!(!session.is_observed());
    assert!(BootComponentStatus { observed_generation: 1, ..Default::default() }.is_observed());
}

#[test]
fn no_phase_is_an_empty_cell() {
    assert_eq!(wire(&BootComponentStatus::default()).get("phase"), None);
    // By somebody else's hand: it is told from ours, which it would otherwise stay instead of.
    let theirs: BootComponentStatus = serde_json::from_value(json!({"observedGeneration": 1, "phase": "None"})).unwrap();
    assert_eq!(wire(&theirs)["phase"], json!("None"));
    let status = BootComponentStatus { phase: Some(NodePhase::PoweringOn), ..Default::default() };
    assert_eq!(wire(&status)["phase"], json!("PoweringOn"));
}

#[test]
fn words_are_the_same_everywhere() {
    for status in NodeStatus::ALL {
        assert_eq!(wire(status), json!(status.as_str()));
        assert_eq!(status.to_string().parse::<NodeStatus>().unwrap(), *status);
    }
    let error = "boot".parse::<Operation>().unwrap_err();
    assert_eq!(error.to_string(), "\"boot\" is no Operation");
}

/// Applies a merge patch as RFC 7386 says.
fn apply(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let map = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            apply(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[test]
fn a_merge_diff_leads_from_one_status_to_the_other() {
    let empty = wire(&BootComponentStatus::default());
    let busy = wire(&busy_component().status.unwrap());
    for (from, to) in [(&empty, &busy), (&busy, &empty)] {
        let patch = merge_diff(from, to).unwrap();
        let mut result = from.clone();
        apply(&mut result, &patch);
        assert_eq!(&result, to);
    }
    assert_eq!(merge_diff(&busy, &busy), None);
    let patch = merge_diff(&json!({"a": {"b": 1, "c": 2}, "d": [1]}), &json!({"a": {"b": 1}, "d": [2]}));
    assert_eq!(patch, Some(json!({"a": {"c": null}, "d": [2]})));
}

#[test]
fn texts_are_cut_to_characters() {
    assert_eq!(bounded("short", 5), "short");
    assert_eq!(bounded("longer", 5), "lo...");
    assert_eq!(bounded("äöüäöü", 5), "äö...");
    assert_eq!(bounded("longer", 2), "..");
}

fn busy_component() -> BootComponent {
    let reference = json!({"namespace": "bos", "name": "boot-x1000-1123a", "uid": "6b1c7e0e-0000-4000-8000-000000000000",
        "createdAt": "2026-11-23T14:00:00Z"});
    let digest = format!("sha256:{}", "0f".repeat(16));
    let mut component: BootComponent = serde_json::from_value(json!({
        "apiVersion": bos_crds::API_VERSION, "kind": "BootComponent", "metadata": {"name": "x1000c0s0b0n0"},
        "spec": {
            "desiredState": {"artifacts": digest, "image": "cos-3.3.12", "configuration": "cos-3.3.12"},
            "session": reference, "run": "6b1c7e0e-0000-4000-8000-000000000000"
        },
        "status": {
            "observedGeneration": 3, "enabled": true, "run": "6b1c7e0e-0000-4000-8000-000000000000", "phase": "PoweringOn",
            "status": "PowerOnCalled", "reason": "AwaitingReport", "message": "power-on accepted, boot script fetched 14:24",
            "next": "power-cycle at 14:42 if it has not reported", "since": "2026-11-23T14:22:00Z",
            "actualState": {"artifacts": digest, "image": "cos-3.3.12", "configuration": "cos-3.3.12",
                "bssToken": "6b1c7e0e-0000-4000-8000-000000000000", "lastUpdated": "2026-11-23T14:00:00Z"},
            "power": "On", "lastAction": "PoweringOn", "lastActionTime": "2026-11-23T14:22:00Z",
            "attempts": {"powerOn": 2, "powerOffForceful": 1}, "tries": "2/3",
            "lastSession": {"namespace": "bos", "name": "boot-x1000-1123a", "uid": "6b1c7e0e-0000-4000-8000-000000000000"},
            "nid": 1000, "arch": "X86", "role": "Compute"
        }
    }))
    .unwrap();
    let status = component.status.as_mut().unwrap();
    for to in [NodeStatus::PowerOnPending, NodeStatus::PowerOnCalled].repeat(schema::TRANSITIONS_MAX) {
        status.change_status(to, "AwaitingReport", time());
    }
    status.conditions = ["Ready", "InInventory"].map(condition).to_vec();
    component
}

fn condition(type_: &str) -> Condition {
    Condition {
        type_: type_.into(),
        status: "True".into(),
        reason: "Listed".into(),
        message: String::new(),
        observed_generation: Some(3),
        last_transition_time: time(),
    }
}

/// Field ownership as the API server records it for a component: two writers, the status one field.
fn with_managed_fields(component: &BootComponent) -> Value {
    let mut object = wire(component);
    object["metadata"] = json!({
        "name": "x1000c0s0b0n0", "uid": "6b1c7e0e-0000-4000-8000-000000000000", "resourceVersion": "1234567", "generation": 3,
        "creationTimestamp": "2026-11-23T14:00:00Z",
        "managedFields": [
            {"manager": "bos-operator", "operation": "Update", "apiVersion": bos_crds::API_VERSION, "time": "2026-11-23T14:00:00Z",
             "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {".": {}, "f:desiredState": {}, "f:run": {}, "f:session": {}}}},
            {"manager": "bos-operator-status", "operation": "Update", "apiVersion": bos_crds::API_VERSION, "time": "2026-11-23T14:00:00Z",
             "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {}}, "subresource": "status"}
        ]
    });
    object
}

/// The budget is 2 KiB. A boot has five changes of status; this component has every field filled in, which none has at
/// once, so a little more is allowed here.
#[test]
fn a_component_is_lean() {
    let full = with_managed_fields(&busy_component()).to_string().len();
    let mut component = busy_component();
    let status = component.status.as_mut().unwrap();
    status.transitions.drain(..3);
    status.conditions.truncate(1);
    status.actual_state = None;
    status.last_session = None;
    let usual = with_managed_fields(&component).to_string().len();
    println!("a component has {usual} bytes at its first boot, {full} with every field");
    assert!(usual <= 2048, "{usual} bytes");
    assert!(full <= 2816, "{full} bytes");
}

/// Whoever goes back to this release keeps what the newer one has written.
#[test]
fn a_history_with_words_of_another_release_is_readable() {
    let told = json!({"time": "2026-11-23T14:00:00Z", "from": "Stable", "to": "Dreaming", "reason": "Night"});
    let read: bos_crds::Transition = serde_json::from_value(told.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), told);
}

#[test]
fn transitions_are_the_last_ones_and_say_nothing_twice() {
    let mut status = BootComponentStatus { status: Some(NodeStatus::Stable), ..Default::default() };
    status.change_status(NodeStatus::PowerOnPending, "Paced", time());
    status.change_status(NodeStatus::PowerOnCalled, "AwaitingReport", time());
    let said: Vec<_> = status.transitions.iter().map(|step| (&*step.from, &*step.to, step.reason.as_str())).collect();
    assert_eq!(said, [("Stable", "PowerOnPending", "Paced"), ("", "PowerOnCalled", "AwaitingReport")]);
    assert_eq!(
        (status.status, status.reason.as_str(), status.since.clone()),
        (Some(NodeStatus::PowerOnCalled), "AwaitingReport", Some(time()))
    );
    for _ in 0..20 {
        status.change_status(NodeStatus::Failed, "BootTimeout", time());
    }
    assert_eq!(status.transitions.len(), schema::TRANSITIONS_MAX);
    assert!(status.transitions.iter().all(|step| step.to == "Failed" && step.from.is_empty()));
}
