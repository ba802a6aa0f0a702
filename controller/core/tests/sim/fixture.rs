//! Small builders shared by the simulation, the rule tests and the decision table.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bos_core::artifacts::{ArtifactSet, Etags};
use bos_core::model::{Digest, Reported, SessionUid, Token, World};
use bos_core::plan::{PLAN_VERSION, Plan, PlannedBootSet, PlannedOperation, RunningPolicy};
use bos_core::resolve::{Facts, Snapshot};
use bos_core::session::SessionSeen;
use bos_core::session_setup::SetupRead;
use bos_core::time::Timestamp;
use bos_core::xname::Xname;
use bos_crds::{BootSet, CfsSpec, SessionSpec, SessionTemplateSpec};

/// The instant at which every test begins.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_795_000_000_000);

/// `seconds` after [`START`].
pub(crate) fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

/// The name of node number `index`; the order of names is the order of numbers, so `NodeId(index)` is that node in every World.
pub(crate) fn xname(index: usize) -> Xname {
    Xname::parse(&format!("x{}c0s0b0n{}", 1000 + index / 2, index % 2)).unwrap()
}

/// An inventory of `count` compute nodes.
pub(crate) fn snapshot(count: usize) -> Snapshot {
    let facts = Facts { arch: Some("X86".into()), role: Some("Compute".into()), state: Some("On".into()), ..Facts::default() };
    Snapshot { nodes: (0..count).map(|index| (xname(index), facts.clone())).collect(), ..Snapshot::default() }
}

/// A World that has seen its inventory, hears reports and has a record of each of `count` nodes.
pub(crate) fn world(count: usize, now: Timestamp) -> World {
    let mut world = World { install_namespace: "bos".into(), ..World::default() };
    for id in world.fold_inventory(Ok(snapshot(count)), now) {
        world.nodes[id.0 as usize].recorded = true;
    }
    world.reports.listening_since = Some(now);
    world
}

/// The artifacts of an image.
pub(crate) fn artifacts(image: &str) -> ArtifactSet {
    ArtifactSet {
        kernel: format!("s3://boot-images/{image}/kernel"),
        initrd: format!("s3://boot-images/{image}/initrd"),
        params: "console=ttyS0".into(),
        etags: Etags::default(),
        rootfs: None,
        image: image.into(),
    }
}

/// The digest under which plans and reports know an image.
pub(crate) fn digest(image: &str) -> Digest {
    Digest(artifacts(image).short_digest().into())
}

/// A report from long ago or just now.
pub(crate) fn reported(token: Token, artifacts: Option<Digest>, at: Timestamp) -> Reported {
    Reported { token, artifacts, since: at, at, expired: false }
}

/// A template with one boot set over these nodes; an empty configuration switches CFS off.
pub(crate) fn template(image: &str, configuration: &str, nodes: &[usize]) -> SessionTemplateSpec {
    let boot_set = BootSet {
        name: "compute".into(),
        path: format!("s3://boot-images/{image}/manifest.json"),
        node_list: nodes.iter().map(|index| xname(*index).to_string()).collect(),
        ..BootSet::default()
    };
    let cfs = (!configuration.is_empty()).then(|| CfsSpec { configuration: Some(configuration.into()) });
    SessionTemplateSpec { enable_cfs: cfs.is_some(), cfs, boot_sets: vec![boot_set], ..SessionTemplateSpec::default() }
}

/// What set-up reads for such a template.
pub(crate) fn setup(count: usize, image: &str, configuration: &str, nodes: &[usize]) -> SetupRead {
    SetupRead {
        snapshot: snapshot(count),
        template: template(image, configuration, nodes),
        template_generation: 1,
        artifacts: BTreeMap::from([("compute".to_owned(), artifacts(image))]),
        warnings: Vec::new(),
    }
}

/// The uid of the session that appears as number `index`: later ones have the smaller uid, so that its order is never the right one.
pub(crate) fn uid(index: usize) -> SessionUid {
    format!("session-{}", 9 - index).as_str().into()
}

/// A Session object.
pub(crate) fn seen(uid: &str, created: Timestamp, spec: SessionSpec) -> SessionSeen {
    SessionSeen {
        uid: uid.into(),
        namespace: "bos".into(),
        name: format!("name-of-{uid}").into(),
        created,
        generation: 1,
        tracked: false,
        spec,
        complete: None,
    }
}

/// A plan of one boot set over the first `count` nodes.
pub(crate) fn plan(operation: PlannedOperation, count: usize, image: &str, configuration: &str) -> Plan {
    let artifacts = matches!(operation, PlannedOperation::Boot | PlannedOperation::Reboot).then(|| digest(image));
    Plan {
        version: PLAN_VERSION,
        sequence: 0,
        created_ms: 0,
        operation,
        namespace: "bos".into(),
        name: "planned".into(),
        template_generation: 1,
        running: RunningPolicy::RestartIfDifferent,
        evidence: bos_core::plan::Evidence::NodeReport,
        staged: false,
        agent: false,
        inventory: None,
        by_hand: None,
        include_disabled: false,
        max_power_cycled: None,
        boot_sets: vec![PlannedBootSet {
            name: "compute".into(),
            artifacts,
            image: image.into(),
            configuration: configuration.into(),
            nodes: (0..count).map(xname).collect(),
        }],
        warnings: Vec::new(),
        excluded: BTreeMap::new(),
    }
}

/// Puts a session straight to work on a plan.
pub(crate) fn run_plan(world: &mut World, uid: &str, plan: Plan, now: Timestamp) -> SessionUid {
    let uid: SessionUid = uid.into();
    world.fold_session(seen(&uid.0, now, SessionSpec::new(plan.operation.into(), "template")), now);
    world.restore(&uid, Arc::new(plan), None, now);
    uid
}
