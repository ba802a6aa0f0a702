//! Runs by hand and staged state against what came before and after them: what the histories of the simulation showed.

use std::time::Duration;

use bos_core::by_hand::Wish;
use bos_core::journal::{Journal, snapshot};
use bos_core::model::{EndKind, NodeId, Owner, Power, SessionUid};
use bos_core::plan::PlannedOperation;
use bos_core::resume::{Stored, StoredJournal};
use bos_crds::{Operation, SessionSpec};

use crate::by_hand::{ask, begun, goal, idle, plans, read_anew};
use crate::desk::Desk;
use crate::fixture::{plan, run_plan, seen};
use crate::{MINUTE, SECOND, boot};

/// Our own write of a run arrives.
fn written(desk: &mut Desk, run: &str, image: &str) {
    let wish = Wish { run: Some(run.into()), goal: Some(goal(image)), ..desk.world.nodes[0].asked.wish.clone() };
    desk.world.fold_wish(NodeId(0), wish, desk.now);
    read_anew(desk);
    desk.wait(SECOND);
}

fn to_write(desk: &Desk) -> Option<&str> {
    desk.world.nodes[0].run_to_write().map(|run| &**run)
}

#[test]
fn a_request_is_not_written_over_while_its_plan_is_written() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "one", "new", None);
    begun(&mut desk);
    assert_eq!(to_write(&desk), Some("one"));
    ask(&mut desk, 0, "two", "", None);
    assert_eq!(to_write(&desk), None);
    desk.wait(SECOND);
    let planned = plans(&mut desk);
    assert_eq!(to_write(&desk), None);
    desk.world.start_session(&planned[0], desk.now);
    assert_eq!(to_write(&desk), Some("two"));
}

#[test]
fn nor_when_it_was_refused() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "one", "new", None);
    begun(&mut desk);
    ask(&mut desk, 0, "two", "unknown", None);
    desk.wait(SECOND);
    assert_eq!(plans(&mut desk), Vec::new());
    assert_eq!((to_write(&desk), &*desk.drive(0).run), (None, "one"));
}

/// Our own write of the older run was on its way when a newer Session took the node.
#[test]
fn an_older_run_that_is_written_late_is_no_request() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "one", "new", None);
    begun(&mut desk);
    let wish = Wish::default();
    desk.world.fold_wish(NodeId(0), wish, desk.now);
    desk.wait(SECOND);
    let newer = run_plan(&mut desk.world, "newer", plan(PlannedOperation::Shutdown, 1, "", ""), desk.now);
    written(&mut desk, "one", "new");
    assert_eq!(plans(&mut desk), Vec::new());
    assert_eq!(desk.drive(0).session, newer);
}

/// The Session was done with the node before its run was in the spec.
#[test]
fn the_status_answers_the_run_that_the_spec_names() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "one", "", None);
    begun(&mut desk);
    desk.power(0, Power::Off);
    let _ = desk.pass();
    assert!(desk.world.nodes[0].drive.is_none());
    let later = desk.now + SECOND;
    run_plan(&mut desk.world, "later", plan(PlannedOperation::Shutdown, 1, "", ""), later);
    desk.wait(2 * SECOND);
    desk.power(0, Power::Off);
    let _ = desk.pass();
    assert!(desk.world.nodes[0].drive.is_none());
    assert_eq!(desk.world.nodes[0].asked.answer().map(|run| &**run), Some("one"), "a restart would drive it again");
}

#[test]
fn one_thing_is_planned_after_the_other() {
    let mut desk = crate::staging::when_its_session_is_over::over();
    let asked = desk.world.nodes[0].asked.wish.clone();
    let wish = Wish { run: Some("run".into()), goal: Some(goal("new")), apply: Some("apply".into()), ..asked };
    desk.world.fold_wish(NodeId(0), wish, desk.now);
    read_anew(&mut desk);
    desk.wait(SECOND);
    let first = plans(&mut desk);
    assert_eq!((first.len(), plans(&mut desk)), (1, Vec::new()));
    desk.world.start_session(&first[0], desk.now);
    assert_eq!(&*desk.drive(0).run, "apply");
    assert_eq!(plans(&mut desk).len(), 1);
}

#[test]
fn an_object_that_is_restored_meanwhile_does_not_lose_what_is_planned() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "one", "new", None);
    desk.wait(SECOND);
    let planned = plans(&mut desk);
    let old = Wish { run: Some("one".into()), goal: Some(goal("new")), ..Wish::default() };
    desk.world.load_asked(NodeId(0), None, &old);
    desk.world.fold_wish(NodeId(0), old, desk.now);
    assert!(desk.world.nodes[0].asked.planning.is_some());
    desk.world.start_session(&planned[0], desk.now);
    read_anew(&mut desk);
    desk.wait(SECOND);
    assert_eq!(plans(&mut desk), Vec::new());
}

#[test]
fn and_one_that_asks_for_nothing_any_more_leaves_no_request() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "one", "new", None);
    desk.world.load_asked(NodeId(0), None, &Wish::default());
    assert!(desk.world.asked.is_empty());
}

mod an_older_session_that_was_still_waiting {
    use super::*;

    fn older(desk: &mut Desk) {
        desk.world.fold_session(seen("older", desk.now, SessionSpec::new(Operation::Reboot, "template")), desk.now);
    }

    fn gets_nothing(desk: &mut Desk) {
        let uid = SessionUid::from("older");
        desk.wait(MINUTE);
        let read = crate::fixture::setup(1, "newer", "", &[0]);
        assert_eq!(desk.world.fold_setup(&uid, Ok(read), desk.now), Some(uid.clone()));
        desk.world.start_session(&uid, desk.now);
        let end = desk.world.sessions[&uid].run().unwrap().slots[0].end.clone().unwrap();
        assert_eq!((end.kind, &*end.message), (EndKind::Superseded, "It was driven by hand since this session was created."));
    }

    #[test]
    fn does_not_take_the_node_when_the_run_is_over() {
        let mut desk = idle(1);
        older(&mut desk);
        ask(&mut desk, 0, "now", "", None);
        let uid = begun(&mut desk);
        desk.power(0, Power::Off);
        let _ = desk.pass();
        desk.world.settle(&uid);
        assert!(!desk.world.sessions.contains_key(&uid));
        gets_nothing(&mut desk);
    }

    #[test]
    fn nor_after_a_restart() {
        let mut desk = idle(1);
        older(&mut desk);
        let since = desk.now;
        desk.world.fold_owner(NodeId(0), None, Some(since));
        assert_eq!(desk.world.nodes[0].owner.as_ref().and_then(Owner::since_by_hand), Some(since));
        gets_nothing(&mut desk);
    }
}

mod after_a_restart {
    use super::*;

    /// The records of all sessions as they are now.
    fn stored(desk: &Desk) -> Vec<Stored> {
        let sessions = desk.world.sessions.values();
        let found = sessions.filter_map(|session| {
            let journal = snapshot(&desk.world, session, desk.now)?.encode().unwrap();
            let journal = StoredJournal::Written(Box::new(Journal::decode(&journal).unwrap()));
            Some(Stored { uid: session.uid.clone(), plan: session.run()?.plan.clone(), journal, taken_back: false })
        });
        found.collect()
    }

    #[test]
    fn a_session_that_was_deleted_meanwhile_keeps_its_node_until_it_lets_go() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        let records = stored(&desk);
        drop(call);
        let mut world = crate::fixture::world(1, desk.now);
        world.fold_owner(NodeId(0), Some(Owner { created: desk.now, uid: desk.uid.clone() }), None);
        world.take_up(Vec::new(), &[], records, desk.now + MINUTE).unwrap();
        assert_eq!(world.nodes[0].drive.as_ref().map(|drive| &drive.session), Some(&desk.uid), "its power-on may be on its way");
    }

    /// The status was not written that says so.
    #[test]
    fn staged_state_is_not_applied_twice_though_a_newer_session_has_the_node() {
        let mut desk = crate::staging::staged(1);
        let wish = Wish { apply: Some("go".into()), ..Wish::default() };
        desk.world.fold_wish(NodeId(0), wish.clone(), desk.now);
        read_anew(&mut desk);
        desk.wait(SECOND);
        let _ = desk.pass();
        assert_eq!(&*desk.drive(0).run, "go");
        desk.wait(MINUTE);
        let newer = run_plan(&mut desk.world, "newer", plan(PlannedOperation::Boot, 1, "newer", ""), desk.now);
        let objects = desk.world.sessions.values().map(|session| seen(&session.uid.0, session.created, session.spec.clone())).collect();
        let mut world = crate::fixture::world(1, desk.now);
        world.fold_owner(NodeId(0), Some(Owner { created: desk.now, uid: newer.clone() }), None);
        world.load_asked(NodeId(0), Some(bos_core::model::Asked::default()), &wish);
        world.fold_wish(NodeId(0), wish, desk.now);
        world.take_up(objects, &[], stored(&desk), desk.now).unwrap();
        assert_eq!(world.nodes[0].asked.applied.as_deref(), Some("go"));
        assert!(world.asked.is_empty());
    }
}

/// What the first one sent may still take effect when the third one comes.
#[test]
fn each_newer_session_waits_for_what_the_first_one_sent() {
    let mut desk = boot(1);
    let _ = desk.pass();
    desk.power(0, Power::On);
    desk.runs(0, "old");
    let call = desk.one();
    desk.answer(call.id, bos_core::batch::Outcome::Unknown { detail: "connection reset".into() });
    for name in ["second", "third"] {
        desk.wait(Duration::from_secs(2));
        run_plan(&mut desk.world, name, plan(PlannedOperation::Reboot, 1, "newer", ""), desk.now);
        assert!(desk.drive(0).held_since > desk.now, "{name}");
    }
}
