//! What admission says beforehand: mistakes all at once, and what the operators would do.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use std::collections::{BTreeMap, BTreeSet};

use bos_core::admission::{self, BootSetSeen, TemplateSeen, Verdict, nodes, overlaps, template};
use bos_core::fold::Fault;
use bos_core::health::Service;
use bos_core::model::{Digest, NodeId, Owner, Power, PowerSeen, Reported, SessionUid, Token, World};
use bos_core::preview::{excluded_text, preview};
use bos_core::resolve::{Facts, Snapshot};
use bos_core::session::{Pending, Session, SessionSeen, Stage};
use bos_core::session_setup::SetupFault;
use bos_core::time::Timestamp;
use bos_core::validation::{Finding, Severity};
use bos_core::xname::Xname;
use serde_json::json;

use bos_crds::{BootSet, Operation, SessionSpec, SessionTemplateSpec, reasons};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn node(n: usize) -> Xname {
    Xname::parse(&format!("x1c0s0b0n{n}")).unwrap()
}

/// Nodes 0 to 5: off, on with the image, on with another, on with an unknown one, of unknown power, and locked.
fn world() -> World {
    let mut world = World { install_namespace: "bos".into(), ..World::default() };
    for n in 0..6 {
        let id = world.intern(&node(n));
        let known = world.nodes.get_mut(id.0 as usize).unwrap();
        known.recorded = true;
        let power = [Power::Off, Power::On, Power::On, Power::On, Power::Unknown, Power::On][n];
        known.power = Some(PowerSeen { power, at: Timestamp::default(), detail: "".into() });
        let runs = [None, Some("image"), Some("other"), None, None, None][n];
        known.reported = runs.map(|digest: &str| Reported {
            token: Token("t".into()),
            artifacts: Some(Digest(digest.into())),
            since: Timestamp::default(),
            at: Timestamp::default(),
            expired: false,
        });
    }
    world
}

fn snapshot() -> Snapshot {
    let facts = Facts { arch: Some("X86".into()), role: Some("Compute".into()), ..Facts::default() };
    Snapshot { nodes: (0..6).map(|n| (node(n), facts.clone())).collect(), locked: [node(5)].into(), ..Snapshot::default() }
}

fn a_template() -> SessionTemplateSpec {
    let set = BootSet {
        name: "compute".into(),
        path: "s3://boot-images/7f0c/manifest.json".into(),
        node_roles_groups: vec!["Compute".into()],
        ..BootSet::default()
    };
    SessionTemplateSpec { boot_sets: vec![set], ..SessionTemplateSpec::default() }
}

fn a_session(spec: SessionSpec) -> Session {
    let stage = Stage::Pending(Pending { since: NOW, reading: false, not_before: NOW, waiting: "".into() });
    Session {
        uid: "u-new".into(),
        namespace: "bos".into(),
        name: "new".into(),
        created: NOW,
        sequence: u64::MAX,
        generation: 1,
        spec,
        tracked: false,
        by_hand: false,
        agent: bos_core::session::AgentSeen::default(),
        deleted: false,
        stage,
    }
}

fn spec(operation: Operation) -> SessionSpec {
    SessionSpec::new(operation, "cos")
}

/// What is said of a Session, with the artifacts `image` in its one boot set.
fn said(world: &World, spec: SessionSpec) -> (Option<String>, Vec<String>) {
    said_while(world, &BTreeSet::new(), spec)
}

/// The same while some nodes are being powered on or off.
fn said_while(world: &World, switched: &BTreeSet<NodeId>, spec: SessionSpec) -> (Option<String>, Vec<String>) {
    let session = a_session(spec);
    let mut verdict = admission::session(world, &session, true, NOW);
    if let Some(selection) = nodes(&mut verdict, world, &session, &a_template(), &snapshot()) {
        let digests = [("compute".to_owned(), Digest("image".into()))].into();
        let text = preview(world, &session, &selection, &digests, &BTreeMap::new(), switched, NOW).unwrap().text(session.spec.operation);
        verdict.warn(format!("{text}; {}", excluded_text(&selection).unwrap_or_default()));
    }
    (verdict.refusal(), verdict.warnings())
}

#[test]
fn the_preview_is_what_the_operator_would_decide() {
    let preview = |spec| said(&world(), spec).1.pop().unwrap();
    let excluded = "; 1 excluded: 1 locked in HSM";
    assert_eq!(
        preview(spec(Operation::Boot)),
        format!(
            "3 of 5 nodes will be acted on: 1 powered on, 1 power-cycled, 1 runs the image already, 1 left on with an unknown image, 1 of unknown power{excluded}"
        )
    );
    let restart = SessionSpec { running_nodes: bos_crds::RunningNodes::Restart, ..spec(Operation::Boot) };
    assert_eq!(
        preview(restart),
        format!("4 of 5 nodes will be acted on: 1 powered on, 2 power-cycled, 1 runs the image already, 1 of unknown power{excluded}")
    );
    let bound = SessionSpec { max_power_cycled: Some(2), ..spec(Operation::Reboot) };
    assert_eq!(
        preview(bound),
        format!("4 of 5 nodes will be acted on: 1 powered on, 2 power-cycled, 1 left on by maxPowerCycled, 1 of unknown power{excluded}")
    );
    assert_eq!(
        preview(spec(Operation::Shutdown)),
        format!("4 of 5 nodes will be acted on: 3 powered off, 1 off already, 1 of unknown power{excluded}")
    );
}

/// A node that boots is on, and nobody knows what it runs until it reports: it is not left alone for that.
#[test]
fn nodes_that_boot_are_not_said_to_be_left_alone() {
    let boots: BTreeSet<NodeId> = [NodeId(1), NodeId(3)].into();
    let text = said_while(&world(), &boots, spec(Operation::Boot)).1.pop().unwrap();
    let want = "4 of 5 nodes will be acted on: 1 powered on, 1 power-cycled, 1 runs the image already, 1 on the way up or down, looked at once taken over, 1 of unknown power";
    assert!(text.starts_with(want), "{text}");
}

#[test]
fn a_desired_state_of_which_nothing_comes_is_warned_of() {
    let spec = |image: &str, run: &str, session: bool| {
        let session = session.then(|| json!({"namespace": "bos", "name": "s", "uid": "u", "createdAt": "2026-01-01T00:00:00Z"}));
        let spec = json!({"desiredState": {"image": image}, "run": run, "session": session});
        serde_json::from_value::<bos_crds::BootComponentSpec>(spec).unwrap()
    };
    let old = spec("a", "1", true);
    let said = |new| admission::desired_in_vain(&new, &old, Some("1"));
    assert_eq!(said(spec("a", "2", true)), None, "once more by its Session");
    for run in ["1", "2"] {
        assert!(said(spec("b", run, true)).unwrap().contains("while spec.session is set"));
    }
    assert!(said(spec("b", "1", false)).unwrap().contains("by itself"));
    assert_eq!(said(spec("b", "2", false)), None);
    assert_eq!(admission::desired_in_vain(&spec("b", "1", false), &old, None), None, "what was asked is not taken up yet");
    assert_eq!(said(bos_crds::BootComponentSpec::default()), None);
}

#[test]
fn every_mistake_of_a_session_is_said_at_once() {
    let mut world = world();
    world.ran.insert(("bos".into(), "new".into()), "u-old".into());
    let before = Some(bos_crds::Time(jiff::Timestamp::UNIX_EPOCH));
    let bad = SessionSpec { retry_of: Some("nobody".into()), start_before: before, limit: Some("a,,b".into()), ..spec(Operation::Boot) };
    let (refusal, warnings) = said(&world, bad);
    let lines: Vec<String> = refusal.unwrap().lines().map(|line| line.chars().take(37).collect()).collect();
    assert_eq!(
        lines,
        [
            "4 errors:",
            "* spec.limit: item 2 (\"\") is empty; r",
            "* metadata.name: A Session of this na",
            "* spec.startBefore: startBefore 1970-",
            "* spec.retryOf: there is no Session n",
        ]
    );
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn a_limit_is_refused_by_what_hsm_knows_unless_the_session_waits() {
    let limit = |suspend| SessionSpec { limit: Some("x1,!nobody".into()), suspend, ..spec(Operation::Boot) };
    let unknown =
        "spec.limit: item 2 (\"!nobody\") is not known to HSM: no role, partition, group or node has this name, and no node is below it";
    assert_eq!(said(&world(), limit(false)), (Some(unknown.to_owned()), vec![]));
    let waits = "spec.suspend: is true, so nothing is done until it is set to false.".to_owned();
    assert_eq!(said(&world(), limit(true)), (None, vec![waits, format!("{unknown}.")]));
}

#[test]
fn a_shrunken_inventory_decides_nothing() {
    let mut verdict = Verdict::default();
    let few = Snapshot { nodes: snapshot().nodes.into_iter().take(2).collect(), ..Snapshot::default() };
    assert_eq!(nodes(&mut verdict, &world(), &a_session(spec(Operation::Boot)), &a_template(), &few), None);
    assert!(
        verdict.is_allowed() && verdict.warnings()[0].starts_with("The nodes were not checked: HSM answered with 2 nodes"),
        "{verdict:?}"
    );
}

#[test]
fn an_old_manifest_from_git_and_a_namespace_that_may_be_a_tenants_are_let_through() {
    let before = Some(bos_crds::Time(jiff::Timestamp::UNIX_EPOCH));
    let old = Session { tracked: true, ..a_session(SessionSpec { start_before: before, ..spec(Operation::Boot) }) };
    let verdict = admission::session(&world(), &old, true, NOW);
    assert!(verdict.is_allowed() && verdict.warnings()[0].contains("would end NotStarted"), "{verdict:?}");
    // Nor does it when more has changed since.
    let mut ran = world();
    ran.ran.insert((old.namespace.clone(), old.name.clone()), "u-old".into());
    let mut more = old.clone();
    more.spec.retry_of = Some("long-gone".into());
    let verdict = admission::session(&ran, &more, true, NOW);
    assert!(verdict.is_allowed() && verdict.warnings().len() >= 3, "{verdict:?}");
    assert!(!admission::session(&ran, &Session { tracked: false, ..more }, true, NOW).is_allowed());
    let elsewhere = Session { namespace: "theirs".into(), ..a_session(spec(Operation::Boot)) };
    assert!(!admission::session(&world(), &elsewhere, true, NOW).is_allowed());
    let unsure = admission::session(&world(), &elsewhere, false, NOW);
    assert!(unsure.is_allowed() && unsure.warnings()[0].contains("could not be asked"), "{unsure:?}");
}

#[test]
fn whoever_loses_nodes_is_named() {
    let mut world = world();
    for (uid, complete) in [("u-run", None), ("u-over", Some(NOW))] {
        let seen = SessionSeen {
            uid: uid.into(),
            namespace: "bos".into(),
            name: uid.into(),
            created: NOW,
            generation: 1,
            tracked: false,
            spec: spec(Operation::Boot),
            complete,
        };
        world.fold_session(seen, NOW);
    }
    for (n, uid) in ["u-run", "u-run", "u-over", "hand-1-1"].into_iter().enumerate() {
        let id = world.intern(&node(n));
        world.nodes.get_mut(id.0 as usize).unwrap().owner = Some(Owner { created: NOW, uid: SessionUid::from(uid) });
    }
    let mut verdict = Verdict::default();
    let selection = nodes(&mut verdict, &world, &a_session(spec(Operation::Boot)), &a_template(), &snapshot()).unwrap();
    let driven: BTreeSet<NodeId> = (1..6).map(NodeId).collect();
    assert_eq!(
        overlaps(&world, &driven, &selection),
        ["Takes over 1 node that Session bos/u-run is at work on.", "Takes over 1 node driven by hand."]
    );
}

#[test]
fn what_is_missing_is_a_warning_and_what_ims_refuses_an_error() {
    let seen = |fault: SetupFault| {
        let boot_sets = vec![BootSetSeen { name: "compute".into(), found: Err(fault) }];
        let verdict = template(&a_template(), &TemplateSeen { boot_sets, configurations: Vec::new() });
        (verdict.is_allowed(), verdict.refusal().or_else(|| verdict.warnings().pop()).unwrap())
    };
    let refused = |reason, message: &str| SetupFault::Refused { reason, message: message.into() };
    let away = |service| SetupFault::Unavailable(Fault { service, detail: "503".into() });
    let at = "spec.bootSets[compute].path:";
    assert_eq!(
        seen(refused(reasons::ARTIFACTS_MISSING, "no kernel")),
        (true, format!("{at} no kernel; it must be right when a Session starts."))
    );
    assert_eq!(seen(refused(reasons::IMAGE_REFUSED, "for ARM")), (false, format!("{at} for ARM")));
    assert_eq!(seen(away(Service::S3)), (true, format!("{at} could not be checked, S3 does not answer: 503.")));
    assert!(!seen(away(Service::Ims)).0, "only with imsErrorsFatal is this said of IMS");
}

#[test]
fn many_warnings_and_errors_are_bounded() {
    let mut verdict = Verdict::default();
    for n in 0..40 {
        let found = |field: String, message: String, severity| Finding { field, message, severity };
        verdict.take([
            found(format!("spec.a[{n}]"), "x".repeat(3000), Severity::Error),
            found(format!("spec.b[{n}]"), "y".repeat(300), Severity::Warning),
        ]);
    }
    let warnings = verdict.warnings();
    assert!(warnings.len() == 10 && warnings.iter().all(|text| text.chars().count() <= 256), "{warnings:?}");
    assert_eq!(warnings[9], "31 more warnings.");
    let refusal = verdict.refusal().unwrap();
    assert!(refusal.starts_with("40 errors:\n* spec.a[0]: x") && refusal.ends_with("\n* and 10 more"), "{refusal}");
}
