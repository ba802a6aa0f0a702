//! Sessions of tenants: their namespaces, and their nodes alone (BOS behaviour §16).

use std::time::Duration;

use bos_core::model::{SessionUid, World};
use bos_core::session::{SessionSeen, Stage};
use bos_core::tenants::{Tenant, Tenants};
use bos_core::time::Timestamp;
use bos_core::want::Effect;
use bos_crds::{Operation, SessionSpec, reasons};

use crate::fixture::{START, seen, setup, world, xname};
use crate::{MINUTE, SECOND};

const UID: &str = "theirs";

fn tenant(name: &str, nodes: &[usize]) -> Tenant {
    Tenant { name: name.into(), namespaces: vec!["blue-users".into()], nodes: nodes.iter().map(|index| xname(*index)).collect() }
}

/// A Session in the namespace of a tenant, in a World of four nodes where the tenants are known since `asked`.
fn with(tenants: Vec<Tenant>, asked: Timestamp) -> (World, Timestamp) {
    let mut world = world(4, START);
    world.discovery.complete = true;
    world.install_namespace = "bos".into();
    world.tenants = Tenants::new(tenants, asked);
    let now = START + MINUTE;
    let session = SessionSeen { namespace: "blue-users".into(), ..seen(UID, now, SessionSpec::new(Operation::Boot, "template")) };
    world.fold_session(session, now);
    (world, now)
}

fn stage(world: &World) -> &Stage {
    &world.sessions[&SessionUid::from(UID)].stage
}

/// Reason and message of the end.
fn ended(world: &World) -> (String, String) {
    match stage(world) {
        Stage::Ended(ended) => (ended.end.reason.to_string(), ended.end.message.to_string()),
        stage => panic!("{stage:?}"),
    }
}

/// Sets the Session up over a template that lists these nodes; without any it means all that have the role.
fn set_up(world: &mut World, now: Timestamp, listed: &[usize]) {
    let mut read = setup(4, "new", "", listed);
    if listed.is_empty() {
        read.template.boot_sets[0].node_roles_groups = vec!["Compute".into()];
    }
    world.fold_setup(&UID.into(), Ok(read), now);
}

#[test]
fn a_session_in_a_tenants_namespace_begins() {
    let (mut world, now) = with(vec![tenant("blue", &[0, 1])], START);
    assert!(bos_core::pass::run(&mut world, now).contains(&Effect::SetUp(UID.into())));
}

#[test]
fn one_in_nobodys_namespace_does_not() {
    let (mut world, now) = with(Vec::new(), START + 2 * MINUTE);
    let _ = bos_core::pass::run(&mut world, now);
    assert_eq!(ended(&world).0, reasons::NAMESPACE_NOT_ALLOWED);
}

#[test]
fn a_tenant_that_has_just_been_made_is_waited_for() {
    let (mut world, now) = with(Vec::new(), START);
    let _ = bos_core::pass::run(&mut world, now);
    let Stage::Pending(pending) = stage(&world) else { panic!() };
    assert_eq!(&*pending.waiting, "Waiting to hear whether namespace blue-users belongs to a tenant.");
    let later = now + Duration::from_secs(15);
    world.tenants = Tenants::new(vec![tenant("blue", &[0])], later);
    assert!(bos_core::pass::run(&mut world, later + SECOND).contains(&Effect::SetUp(UID.into())));
}

#[test]
fn and_refused_when_none_was_made() {
    let (mut world, now) = with(Vec::new(), START);
    world.tenants = Tenants::new(Vec::new(), now + SECOND);
    let _ = bos_core::pass::run(&mut world, now + 2 * SECOND);
    assert_eq!(ended(&world).0, reasons::NAMESPACE_NOT_ALLOWED);
}

#[test]
fn a_namespace_that_two_tenants_claim_is_nobodys() {
    let (mut world, now) = with(vec![tenant("blue", &[0]), tenant("green", &[1])], START + 2 * MINUTE);
    let _ = bos_core::pass::run(&mut world, now);
    let (reason, message) = ended(&world);
    assert!(reason == reasons::NAMESPACE_NOT_ALLOWED && message.contains("More than one tenant"), "{message}");
}

#[test]
fn a_listed_node_of_somebody_else_fails_the_session() {
    let (mut world, now) = with(vec![tenant("blue", &[0, 1])], START);
    set_up(&mut world, now, &[0, 2]);
    let (reason, message) = ended(&world);
    assert_eq!(reason, reasons::NOT_OWNED_BY_TENANT);
    assert!(message.contains(xname(2).as_str()) && message.contains("tenant blue") && !message.contains(xname(0).as_str()), "{message}");
}

#[test]
fn groups_and_roles_mean_the_tenants_nodes_and_the_others_are_counted() {
    let (mut world, now) = with(vec![tenant("blue", &[0, 3])], START);
    set_up(&mut world, now, &[]);
    let Stage::Recording(recording) = stage(&world) else { panic!("{:?}", stage(&world)) };
    let nodes: Vec<_> = recording.plan.nodes().map(|(_, name)| name.clone()).collect();
    assert_eq!(nodes, [xname(0), xname(3)]);
    assert_eq!(recording.plan.excluded[reasons::NOT_OWNED_BY_TENANT], [xname(1), xname(2)]);
}

#[test]
fn with_no_node_of_its_own_left_it_says_why() {
    let (mut world, now) = with(vec![tenant("blue", &[])], START);
    set_up(&mut world, now, &[]);
    let (reason, message) = ended(&world);
    assert!(reason == reasons::NO_NODES && message.contains("4 NotOwnedByTenant"), "{message}");
}

#[test]
fn the_install_namespace_is_bound_to_no_tenant() {
    let (mut world, now) = with(vec![tenant("blue", &[0])], START);
    world.fold_session(seen("admin", now, SessionSpec::new(Operation::Boot, "template")), now);
    let read = setup(4, "new", "", &[2, 3]);
    assert!(world.fold_setup(&"admin".into(), Ok(read), now).is_some());
}
