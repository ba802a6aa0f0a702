//! What comes in between: requests beside Sessions, restarts, clocks that are put back, answers that never come.

use std::sync::Arc;
use std::time::Duration;

use bos_core::batch::{Outcome, Progress};
use bos_core::by_hand::{Asked, Goal, Parked, Wish};
use bos_core::journal::{Journal, snapshot};
use bos_core::model::{EndKind, NodeId, Owner, Power, PowerAction, SessionUid, Token, World};
use bos_core::plan::PlannedOperation;
use bos_core::project::component;
use bos_core::resume::{Stored, StoredJournal};
use bos_core::running::Order;
use bos_core::session::{SessionSeen, Stage};
use bos_core::tenants::{Tenant, Tenants};
use bos_core::time::Timestamp;
use bos_crds::{BootComponentStatus, Operation, SessionSpec};

use crate::desk::Desk;
use crate::fixture::{START, artifacts, digest, plan, run_plan, seen, setup, snapshot as snapshot_of_hsm, world, xname};
use crate::{MINUTE, SECOND, boot};

fn idle(count: usize) -> Desk {
    let mut desk = boot(count);
    desk.world.fold_session_gone(&desk.uid);
    let _ = desk.pass();
    let uid = desk.uid.clone();
    desk.world.settle(&uid);
    for image in ["new", "other"] {
        desk.world.artifacts.insert(digest(image), Arc::new(artifacts(image)));
    }
    desk
}

fn wish(run: &str, image: &str) -> Wish {
    let goal = Goal { artifacts: Some(digest(image).0), image: image.into(), configuration: "".into() };
    Wish { run: Some(run.into()), goal: Some(goal), ..Wish::default() }
}

fn read_anew(desk: &mut Desk) {
    (desk.world.discovery.complete, desk.world.discovery.accepted) = (true, desk.now);
}

/// What was asked of these nodes begins as one run, and all of them are powered on.
fn booted_by_hand(desk: &mut Desk, nodes: std::ops::Range<u32>) -> SessionUid {
    for index in nodes.clone() {
        desk.world.fold_wish(NodeId(index), wish("now", "new"), desk.now);
    }
    read_anew(desk);
    desk.wait(SECOND);
    let _ = desk.pass();
    let uids: Vec<_> = std::mem::take(&mut desk.world.plans_due).into_iter().collect();
    assert_eq!(uids.len(), 1);
    desk.world.start_session(&uids[0], desk.now);
    let _ = desk.pass();
    for index in nodes {
        desk.power(index, Power::Off);
    }
    let call = desk.prepared();
    desk.carried_out(&call);
    uids[0].clone()
}

/// Rule 8 holds for a run by itself too: that others are well is no reason to cycle all of its nodes.
#[test]
fn a_run_by_hand_that_is_silent_as_a_whole_is_not_cycled_because_others_are_well() {
    let mut desk = idle(200);
    let _ = booted_by_hand(&mut desk, 0..9);
    let first = desk.drive(0).action.unwrap().boot_by;
    desk.wait(MINUTE);
    let _ = booted_by_hand(&mut desk, 9..200);
    desk.now = first + SECOND;
    for index in 0..9 {
        desk.power(index, Power::On);
    }
    assert_eq!(desk.leaves(), Vec::new(), "nine of nine are silent");
}

/// Rule 15: PCS answers everything but for this one transition.
#[test]
fn a_transition_that_pcs_cannot_tell_of_does_not_hold_its_nodes_for_ever() {
    let mut desk = boot(1);
    desk.world.nodes[0].retry_policy = Some(1);
    let _ = desk.pass();
    desk.power(0, Power::Off);
    let call = desk.prepared();
    desk.answer(call.id, Outcome::Accepted { transition: "broken".into() });
    for _ in 0..30 {
        desk.wait(MINUTE);
        desk.world.fold_progress(call.id, desk.now, Progress::Unavailable { detail: "unexpected answer".into() }, desk.now);
        desk.power(0, Power::On);
        let _ = desk.pass();
    }
    assert_eq!(desk.world.nodes[0].batch, None);
}

/// The operator dies and starts again as the engine does it: objects first, with their specs and statuses, then the records.
fn restarted(
    desk: &Desk,
    wishes: &[(NodeId, Option<Asked>, Wish)],
    unreadable: &[SessionUid],
    objects: Vec<SessionSeen>,
    owner: Option<Owner>,
) -> World {
    let mut after = world(desk.world.nodes.len(), desk.now);
    (after.options, after.services) = (desk.world.options.clone(), desk.world.services.clone());
    after.artifacts.clone_from(&desk.world.artifacts);
    for (id, shown, wish) in wishes {
        after.load_asked(*id, shown.clone(), wish);
        after.fold_wish(*id, wish.clone(), desk.now);
    }
    if let Some(owner) = owner {
        after.nodes[0].owner = Some(owner);
    }
    let stored = desk.world.sessions.values().filter_map(|session| {
        let journal = snapshot(&desk.world, session, desk.now)?;
        let journal = StoredJournal::Written(Box::new(Journal::decode(&journal.encode().unwrap()).unwrap()));
        Some(Stored { uid: session.uid.clone(), plan: session.run()?.plan.clone(), journal, taken_back: false })
    });
    after.take_up(objects, unreadable, stored.collect(), desk.now).unwrap();
    after
}

/// Rules 5 and 11: a Session took the node from a request that had not begun. The spec still says so, for our write of it is on
/// its way when the operator dies.
#[test]
fn a_request_that_a_session_took_over_does_not_come_back_by_a_restart() {
    let mut desk = idle(1);
    let asked = wish("by-hand", "other");
    desk.world.fold_wish(NodeId(0), asked.clone(), desk.now);
    let created = desk.now;
    let uid = run_plan(&mut desk.world, "session", plan(PlannedOperation::Boot, 1, "new", ""), created);
    read_anew(&mut desk);
    desk.wait(2 * SECOND);
    let _ = desk.pass();
    assert!(desk.world.plans_due.is_empty(), "the Session is newer");
    desk.uid = uid;
    desk.powered_on();
    desk.wait(MINUTE);
    let objects = vec![seen("session", created, SessionSpec::new(Operation::Boot, "template"))];
    let shown = Asked { taken: Some("before".into()), ..Asked::default() };
    let within = Wish { session: Some("session".into()), apply: Some("staged".into()), ..asked.clone() };
    let said = |wish: &Wish| {
        let after = restarted(&desk, &[(NodeId(0), Some(shown.clone()), wish.clone())], &[], objects.clone(), None);
        after.nodes[0].asked.refused.to_string()
    };
    assert!(said(&asked).starts_with("What spec.run asked for was not done: ") && said(&asked).contains("spec.session null"));
    let both = said(&within);
    assert!(
        !both.contains("spec.session null") && both.contains("spec.run asked for") && both.contains("spec.applyStaged asked for"),
        "{both}"
    );
    desk.world = restarted(&desk, &[(NodeId(0), Some(shown), asked)], &[], objects, None);
    desk.wait(2 * SECOND);
    read_anew(&mut desk);
    let _ = desk.pass();
    assert!(desk.world.plans_due.is_empty(), "a restart makes it newer than the Session, whose boot it then power-cycles");
}

/// Rule 11: the Session was deleted while nobody ran. `owner`: what `spec.session` of the node says, as the engine loads it.
fn deleted_while_away(owner: bool) -> Desk {
    let mut desk = Desk::new(1, plan(PlannedOperation::Reboot, 1, "new", ""));
    desk.runs(0, "new");
    let _ = desk.pass();
    desk.power(0, Power::On);
    let call = desk.one();
    assert_eq!(call.order, Order::Power(PowerAction::SoftOff));
    desk.answer(call.id, Outcome::Unknown { detail: "no answer".into() });
    let created = desk.world.sessions[&desk.uid].created;
    let owner = owner.then(|| Owner { created, uid: desk.uid.clone() });
    desk.wait(SECOND);
    desk.world = restarted(&desk, &[], &[], Vec::new(), owner);
    desk.uid = run_plan(&mut desk.world, "later", plan(PlannedOperation::Boot, 1, "new", ""), desk.now);
    let _ = desk.pass();
    desk.wait(SECOND);
    desk.power(0, Power::On);
    let _ = desk.pass();
    desk
}

#[test]
fn what_a_deleted_session_may_have_sent_is_waited_out() {
    assert_eq!(deleted_while_away(false).end(0), None, "without the owner that every real object names");
    let desk = deleted_while_away(true);
    let older = desk.world.sessions.values().find(|session| session.uid != desk.uid).unwrap();
    let end = older.run().unwrap().slots[0].end.clone();
    assert_eq!(desk.end(0), None, "it goes off any moment; and the older one: {end:?}");
}

/// A Session that is there and cannot be read sends nothing, and keeps its nodes and its records until it can be read again.
#[test]
fn a_session_that_cannot_be_read_keeps_its_nodes_over_a_restart() {
    for owned in [false, true] {
        let mut desk = boot(1);
        desk.powered_on();
        let created = desk.world.sessions[&desk.uid].created;
        let owner = owned.then(|| Owner { created, uid: desk.uid.clone() });
        desk.world = restarted(&desk, &[], &[desk.uid.clone()], Vec::new(), owner);
        desk.wait(SECOND);
        let _ = desk.pass();
        assert!(desk.world.nodes[0].drive.is_some(), "owned {owned}: {:?}", desk.end(0));
    }
}

/// What was staged was meant for the hardware that was there.
#[test]
fn a_node_that_was_swapped_while_it_was_driven_loses_its_staged_state_too() {
    let mut desk = boot(1);
    desk.world.artifacts.insert(digest("new"), Arc::new(artifacts("new")));
    let goal = Goal { artifacts: Some(digest("new").0), image: "new".into(), configuration: "".into() };
    let parked = Parked { operation: PlannedOperation::Reboot, goal, session: "long-over".into(), namespace: "bos".into() };
    desk.world.fold_wish(NodeId(0), Wish { parked: Some(parked), ..Wish::default() }, desk.now);
    let _ = desk.pass();
    for nid in [1, 2] {
        let mut inventory = snapshot_of_hsm(1);
        inventory.nodes.get_mut(&xname(0)).unwrap().nid = Some(nid);
        desk.world.fold_inventory(Ok(inventory), desk.now);
    }
    desk.power(0, Power::On);
    let _ = desk.pass();
    assert!(desk.world.nodes[0].drive.is_none(), "it was let go");
    let applied = desk.world.apply_staged(&[(NodeId(0), "token".into())], desk.now);
    assert_eq!(applied.begun, [], "and unstaged: {:?}", desk.world.nodes[0].unstaged);
}

/// Rules 4 and 8: the wall clock was ten minutes ahead before the restart.
#[test]
fn a_clock_that_was_put_back_makes_no_node_that_speaks_silent() {
    let mut desk = boot(1);
    desk.powered_on();
    let journal = snapshot(&desk.world, &desk.world.sessions[&desk.uid], desk.now).unwrap().encode().unwrap();
    desk.now = desk.now - 10 * MINUTE;
    let mut after = world(1, desk.now);
    after.services = desk.world.services.clone();
    let uid = run_plan(&mut after, &desk.uid.0, desk.plan.clone(), desk.now);
    after.resume(&uid, Journal::decode(&journal).unwrap(), desk.now).unwrap();
    desk.world = after;
    desk.wait(MINUTE);
    desk.report(0, &Token("of-an-image-nobody-knows".into()));
    desk.now = desk.drive(0).action.unwrap().boot_by + SECOND;
    desk.power(0, Power::On);
    assert_eq!(desk.leaves(), Vec::new(), "it spoke after its power-on, so it is up");
    assert_eq!(desk.end(0).map(|end| end.0), Some(EndKind::Failed));
}

/// Rule 15: other people's requests come in all the time, one while each inventory is read.
#[test]
fn a_request_does_not_wait_for_all_that_come_after_it() {
    let mut desk = idle(61);
    desk.world.fold_wish(NodeId(0), wish("now", "new"), desk.now);
    for index in 1..=60 {
        let began = desk.now + Duration::from_millis(100);
        desk.wait(2 * SECOND);
        desk.world.fold_wish(NodeId(index), wish("now", "new"), desk.now);
        desk.wait(SECOND);
        (desk.world.discovery.complete, desk.world.discovery.accepted) = (true, began);
        let _ = desk.pass();
        if !desk.world.plans_due.is_empty() {
            return;
        }
    }
    panic!("three minutes later nobody's run has begun");
}

/// Rule 15 and "errors for people": HSM is away, so what was asked cannot begin; NEXT must say so.
#[test]
fn a_request_that_waits_for_hsm_says_so() {
    let mut desk = idle(1);
    desk.world.fold_wish(NodeId(0), wish("now", "new"), desk.now);
    desk.world.discovery.fault = Some("HSM answered with an empty inventory".into());
    desk.wait(10 * MINUTE);
    let _ = desk.pass();
    let shown = component(&desk.world, NodeId(0), &BootComponentStatus::default(), 1, desk.now);
    assert_ne!(shown.next, "");
}

/// Tenancy: nobody can tell yet whose the namespace is, and the options list it too.
#[test]
fn a_listed_namespace_waits_too_until_the_tenants_are_known() {
    let mut world = world(4, START);
    world.options.session_namespaces = vec!["blue-users".into()];
    // As the engine puts it when the first read of the tenants fails.
    world.tenants = Tenants::new(Vec::new(), Timestamp::default());
    let now = START + MINUTE;
    world.fold_session(SessionSeen { namespace: "blue-users".into(), ..seen("theirs", now, SessionSpec::new(Operation::Boot, "t")) }, now);
    let _ = bos_core::pass::run(&mut world, now);
    world.fold_setup(&"theirs".into(), Ok(setup(4, "new", "", &[2])), now);
    let taken = matches!(world.sessions[&"theirs".into()].stage, Stage::Recording(_));
    let blue = Tenant { name: "blue".into(), namespaces: vec!["blue-users".into()], nodes: [xname(0)].into() };
    world.tenants = Tenants::new(vec![blue], now);
    assert!(!taken, "node 2 is another tenant's");
}

/// Rule 16: a journal that cannot be written ends the operator, and with it every Session of the site.
#[test]
fn a_journal_with_a_run_for_each_node_can_be_written() {
    let count = 16_000_u32;
    let mut staged = plan(PlannedOperation::Boot, count as usize, "new", "");
    staged.staged = true;
    let mut desk = Desk::new(count as usize, staged);
    for index in 0..count {
        desk.wait(Duration::from_millis(50));
        let run: Arc<str> = format!("{index:040}").into();
        desk.world.apply_staged(&[(NodeId(index), run)], desk.now);
    }
    let journal = snapshot(&desk.world, &desk.world.sessions[&desk.uid], desk.now).unwrap();
    let bytes = journal.encode_within(1000 * 1024).unwrap().len();
    assert!(bytes <= 1000 * 1024, "{bytes}");
}

/// Rule 11: what was asked before staged state was applied is older than the application.
#[test]
fn an_application_is_newer_than_what_was_asked_before_it() {
    let mut staged = plan(PlannedOperation::Boot, 1, "new", "");
    staged.staged = true;
    let mut desk = Desk::new(1, staged);
    desk.world.artifacts.insert(digest("other"), Arc::new(artifacts("other")));
    desk.wait(MINUTE);
    desk.world.fold_wish(NodeId(0), wish("by-hand", "other"), desk.now);
    desk.wait(5 * SECOND);
    // A workload manager's call, while HSM is still being read for the request.
    desk.world.apply_staged(&[(NodeId(0), "applied".into())], desk.now);
    assert_eq!(desk.drive(0).session, desk.uid);
    read_anew(&mut desk);
    desk.wait(2 * SECOND);
    let _ = desk.pass();
    assert!(desk.world.plans_due.is_empty(), "the older request takes the node from the newer application");
}

/// Rules 2 and 3: its off may never have been shown, where it was on again within a second, or the operator died before that.
#[test]
fn what_a_node_ran_before_it_was_off_is_not_shown_any_more() {
    let mut desk = boot(1);
    desk.runs(0, "old");
    let shown = |desk: &Desk, before: &BootComponentStatus| component(&desk.world, NodeId(0), before, 1, desk.now);
    let before = shown(&desk, &BootComponentStatus::default());
    assert!(before.actual_state.is_some());
    desk.power(0, Power::Off);
    desk.wait(SECOND);
    desk.power(0, Power::On);
    assert_eq!(shown(&desk, &before).actual_state, None);
}
