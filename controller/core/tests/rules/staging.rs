//! State that a staged Session parks at its nodes, and its application (BOS behaviour §12).

use std::sync::Arc;

use bos_core::by_hand::{Goal, Parked, Wish};
use bos_core::model::{EndKind, NodeId, Power, PowerAction, SessionUid};
use bos_core::plan::PlannedOperation;
use bos_core::running::Order;
use bos_core::session::Stage;
use bos_core::staging::Applied;
use bos_core::tenants::{Tenant, Tenants};
use bos_core::time::Timestamp;

use crate::desk::{Desk, token};
use crate::fixture::{artifacts, digest, plan, run_plan, xname};
use crate::{MINUTE, SECOND, boot_with};

/// A staged reboot of the first `count` nodes.
pub(crate) fn staged(count: usize) -> Desk {
    let mut desk = boot_with(count, |plan| {
        plan.operation = PlannedOperation::Reboot;
        plan.staged = true;
    });
    desk.world.artifacts.insert(digest("new"), Arc::new(artifacts("new")));
    desk
}

fn apply(desk: &mut Desk, nodes: &[u32], token: &str) -> Applied {
    let nodes: Vec<_> = nodes.iter().map(|index| (NodeId(*index), token.into())).collect();
    desk.world.apply_staged(&nodes, desk.now)
}

fn begun(uid: &SessionUid, nodes: &[u32]) -> Applied {
    Applied { begun: nodes.iter().map(|index| (NodeId(*index), uid.clone())).collect(), ..Applied::default() }
}

/// The spec shows what `desk.uid` has parked.
fn show_parked(desk: &mut Desk, index: u32, operation: PlannedOperation) {
    let artifacts = (operation != PlannedOperation::Shutdown).then(|| digest("new").0);
    let goal = Goal { artifacts, image: "new".into(), configuration: "".into() };
    let parked = Some(Parked { operation, goal, session: desk.uid.clone(), namespace: "bos".into() });
    let wish = Wish { parked, ..desk.world.nodes[index as usize].asked.wish.clone() };
    desk.world.fold_wish(NodeId(index), wish, desk.now);
}

/// The namespace of these Sessions is a tenant's, who owns one node.
fn owner_of_bos(index: usize, now: Timestamp) -> Tenants {
    let nodes = std::iter::once(xname(index)).collect();
    Tenants::new(vec![Tenant { name: "blue".into(), namespaces: vec!["bos".into()], nodes }], now)
}

fn finish(desk: &mut Desk, index: u32) {
    desk.power(index, Power::On);
    let call = desk.one();
    assert_eq!(call.order, Order::Power(PowerAction::SoftOff));
    desk.carried_out(&call);
    desk.wait(MINUTE);
    desk.power(index, Power::Off);
    let call = desk.prepared();
    desk.carried_out(&call);
    let _ = desk.pass();
    desk.report(index, &token());
    let _ = desk.pass();
}

#[test]
fn nothing_happens_before_it_is_applied() {
    let mut desk = staged(2);
    desk.power_of_all(Power::On);
    for _ in 0..10 {
        assert_eq!(desk.leaves(), Vec::new());
        desk.wait(MINUTE);
    }
    assert!(desk.world.nodes.iter().all(|node| node.drive.is_none() && node.staged.is_some()));
    assert!(matches!(desk.world.sessions[&desk.uid].stage, Stage::Running(_)));
}

#[test]
fn it_stays_where_it_is_at_a_node_that_its_tenant_does_not_own_any_more() {
    let mut desk = staged(2);
    desk.world.tenants = owner_of_bos(1, desk.now);
    let uid = desk.uid.clone();
    let applied = apply(&mut desk, &[0, 1], "go");
    assert_eq!(applied.begun, begun(&uid, &[1]).begun);
    assert!(applied.failed[0].1.contains("does not own the node any more"), "{applied:?}");
    assert!(desk.world.nodes[0].drive.is_none() && desk.world.nodes[0].staged.is_some());
}

#[test]
fn each_node_goes_when_it_is_applied_and_the_session_ends_with_the_last() {
    let mut desk = staged(2);
    let uid = desk.uid.clone();
    assert_eq!(apply(&mut desk, &[0], "one"), begun(&uid, &[0]));
    assert!(desk.world.nodes[1].drive.is_none());
    finish(&mut desk, 0);
    assert_eq!(desk.end(0).unwrap().0, EndKind::Succeeded);
    assert!(matches!(desk.world.sessions[&uid].stage, Stage::Running(_)));
    desk.wait(60 * MINUTE);
    assert_eq!(apply(&mut desk, &[1], "two"), begun(&uid, &[1]));
    finish(&mut desk, 1);
    let _ = desk.pass();
    assert!(matches!(desk.world.sessions[&uid].stage, Stage::Ended(_)), "staged sessions complete");
}

#[test]
fn every_operation_that_can_be_staged_is_carried_out_by_its_session() {
    for (operation, power, first) in [
        (PlannedOperation::Boot, Power::Off, PowerAction::On),
        (PlannedOperation::Reboot, Power::On, PowerAction::SoftOff),
        (PlannedOperation::Shutdown, Power::On, PowerAction::SoftOff),
    ] {
        let image = if operation == PlannedOperation::Shutdown { "" } else { "new" };
        let mut planned = plan(operation, 1, image, "");
        planned.staged = true;
        let mut desk = Desk::new(1, planned);
        let uid = desk.uid.clone();
        assert_eq!(desk.world.nodes[0].staged, Some((uid.clone(), 0)), "{operation:?}");
        assert_eq!(apply(&mut desk, &[0], "one"), begun(&uid, &[0]), "{operation:?}");
        desk.power(0, power);
        let call = if first == PowerAction::On { desk.prepared() } else { desk.one() };
        assert_eq!(call.order, Order::Power(first), "{operation:?}");
        desk.carried_out(&call);
        if operation == PlannedOperation::Shutdown {
            desk.wait(MINUTE);
            desk.power(0, Power::Off);
            let _ = desk.pass();
            assert_eq!(desk.end(0).unwrap().0, EndKind::Succeeded);
        } else {
            assert_eq!(desk.end(0), None, "{operation:?}");
        }
    }
}

#[test]
fn a_node_without_staged_state_is_ignored() {
    let mut desk = crate::boot(1);
    assert_eq!(apply(&mut desk, &[0], "one"), Applied { ignored: vec![NodeId(0)], ..Applied::default() });
}

#[test]
fn the_application_counts_as_the_newer_session() {
    let mut desk = staged(1);
    desk.wait(MINUTE);
    let between = run_plan(&mut desk.world, "between", plan(PlannedOperation::Shutdown, 1, "", ""), desk.now);
    assert_eq!(desk.drive(0).session, between);
    desk.wait(MINUTE);
    apply(&mut desk, &[0], "one");
    assert_eq!(desk.drive(0).session, desk.uid);
    assert_eq!(desk.world.sessions[&between].run().unwrap().slots[0].end.as_ref().unwrap().kind, EndKind::Superseded);
}

/// What came up between staging and application is what is to be rebooted.
#[test]
fn a_node_that_was_booted_after_it_was_staged_is_rebooted() {
    let mut desk = staged(1);
    desk.wait(60 * MINUTE);
    desk.report(0, &bos_core::model::Token("of-somebody".into()));
    desk.wait(60 * MINUTE);
    apply(&mut desk, &[0], "one");
    finish(&mut desk, 0);
    assert_eq!(desk.end(0).unwrap().0, EndKind::Succeeded);
}

/// The clock of the API server is ahead of ours.
#[test]
fn the_application_wins_whatever_the_clocks_say() {
    let mut desk = staged(1);
    let ahead = desk.now + 10 * MINUTE;
    run_plan(&mut desk.world, "ahead", plan(PlannedOperation::Shutdown, 1, "", ""), ahead);
    desk.wait(SECOND);
    let uid = desk.uid.clone();
    assert_eq!(apply(&mut desk, &[0], "one"), begun(&uid, &[0]));
    assert_eq!(desk.drive(0).session, uid);
}

#[test]
fn newer_staged_state_takes_the_place_of_older() {
    let mut desk = staged(1);
    let mut newer = plan(PlannedOperation::Reboot, 1, "newer", "");
    newer.staged = true;
    let first = desk.uid.clone();
    desk.wait(SECOND);
    let second = run_plan(&mut desk.world, "second", newer, desk.now);
    assert_eq!(desk.world.nodes[0].staged, Some((second.clone(), 0)));
    let _ = desk.pass();
    let end = desk.world.sessions[&first].run().unwrap().slots[0].end.clone().unwrap();
    assert_eq!(end.kind, EndKind::Superseded);
    assert_eq!(apply(&mut desk, &[0], "one"), begun(&second, &[0]));
}

#[test]
fn a_cancelled_session_takes_its_staged_state_back() {
    let mut desk = staged(2);
    apply(&mut desk, &[0], "one");
    let uid = desk.uid.clone();
    desk.world.sessions.get_mut(&uid).unwrap().spec.cancel = true;
    let _ = desk.pass();
    assert_eq!(desk.end(1).unwrap().0, EndKind::Cancelled);
    assert_eq!((desk.world.nodes[1].staged.clone(), desk.world.nodes[1].unstaged.clone()), (None, Some(uid)));
    assert_eq!(desk.world.nodes[0].unstaged, None, "what was applied stays");
}

#[test]
fn a_suspended_session_applies_nothing() {
    let mut desk = staged(1);
    let uid = desk.uid.clone();
    desk.world.sessions.get_mut(&uid).unwrap().spec.suspend = true;
    let applied = apply(&mut desk, &[0], "one");
    assert!(applied.failed[0].1.contains("suspended"), "{applied:?}");
    assert!(desk.world.nodes[0].staged.is_some());
}

#[test]
fn asking_again_while_it_is_under_way_changes_nothing() {
    let mut desk = staged(1);
    let uid = desk.uid.clone();
    apply(&mut desk, &[0], "one");
    show_parked(&mut desk, 0, PlannedOperation::Reboot);
    desk.power(0, Power::On);
    let call = desk.one();
    desk.answer(call.id, bos_core::batch::Outcome::Accepted { transition: "t".into() });
    let before = desk.drive(0).clone();
    assert_eq!(apply(&mut desk, &[0], "two"), begun(&uid, &[0]));
    assert_eq!(*desk.drive(0), before);
}

#[test]
fn it_is_taken_back_once_applied_if_the_options_say_so() {
    let mut desk = staged(1);
    desk.world.options.clear_stage = true;
    apply(&mut desk, &[0], "one");
    assert_eq!(desk.world.nodes[0].unstaged, Some(desk.uid.clone()));
}

pub(crate) mod when_its_session_is_over {
    use super::*;

    pub(crate) fn over() -> Desk {
        let mut desk = staged(1);
        apply(&mut desk, &[0], "one");
        show_parked(&mut desk, 0, PlannedOperation::Reboot);
        finish(&mut desk, 0);
        let _ = desk.pass();
        let uid = desk.uid.clone();
        desk.world.settle(&uid);
        desk.wait(60 * MINUTE);
        desk
    }

    #[test]
    fn it_can_be_applied_again() {
        let mut desk = over();
        let applied = apply(&mut desk, &[0], "two");
        let plans = std::mem::take(&mut desk.world.plans_due);
        let plan = plans.first().unwrap();
        assert_eq!(applied, begun(plan, &[0]));
        assert_eq!(apply(&mut desk, &[0], "three"), begun(plan, &[0]), "asked again before its plan is durable");
        assert!(desk.world.plans_due.is_empty());
        desk.world.start_session(plan, desk.now);
        desk.uid = plan.clone();
        assert_eq!((&*desk.drive(0).run, desk.drive(0).applied), ("two", true));
        finish(&mut desk, 0);
        assert_eq!(desk.world.nodes[0].last.as_ref().unwrap().end.kind, EndKind::Succeeded);
    }

    #[test]
    fn but_not_at_a_node_that_its_tenant_does_not_own_any_more() {
        let mut desk = over();
        desk.world.tenants = owner_of_bos(1, desk.now);
        let applied = apply(&mut desk, &[0], "two");
        assert!(applied.failed[0].1.contains("of tenant blue, which does not own the node any more"), "{applied:?}");
    }

    #[test]
    fn nor_where_sessions_are_not_acted_on_any_more() {
        let mut desk = over();
        desk.world.options.session_namespaces = vec!["others".into()];
        let applied = apply(&mut desk, &[0], "two");
        assert!(applied.failed[0].1.contains("are not acted on any more"), "{applied:?}");
    }

    #[test]
    fn but_not_where_its_artifacts_do_not_fit() {
        let mut desk = over();
        show_parked(&mut desk, 0, PlannedOperation::Shutdown);
        let wish = desk.world.nodes[0].asked.wish.clone();
        let parked = wish.parked.clone().map(|parked| Parked { operation: PlannedOperation::Boot, ..parked });
        desk.world.fold_wish(NodeId(0), Wish { parked, ..wish }, desk.now);
        let applied = apply(&mut desk, &[0], "two");
        assert!(applied.failed[0].1.contains("do not fit"), "{applied:?}");
    }
}

mod by_its_boot_component {
    use super::*;

    fn ask(desk: &mut Desk, token: &str) {
        let wish = Wish { apply: Some(token.into()), ..desk.world.nodes[0].asked.wish.clone() };
        desk.world.fold_wish(NodeId(0), wish, desk.now);
        (desk.world.discovery.complete, desk.world.discovery.accepted) = (true, desk.now);
        desk.wait(SECOND);
    }

    #[test]
    fn a_new_token_applies_it_once() {
        let mut desk = staged(1);
        ask(&mut desk, "go");
        let _ = desk.pass();
        assert_eq!((&*desk.drive(0).run, desk.world.nodes[0].asked.applied.as_deref()), ("go", Some("go")));
        show_parked(&mut desk, 0, PlannedOperation::Reboot);
        finish(&mut desk, 0);
        desk.wait(MINUTE);
        let _ = desk.pass();
        assert!(desk.world.plans_due.is_empty() && desk.world.nodes[0].drive.is_none());
    }

    #[test]
    fn it_is_applied_once_also_when_its_session_is_over() {
        let mut desk = super::when_its_session_is_over::over();
        ask(&mut desk, "go");
        for _ in 0..3 {
            let _ = desk.pass();
        }
        assert_eq!(desk.world.plans_due.len(), 1);
    }

    #[test]
    fn a_crash_does_not_apply_it_twice() {
        let mut desk = staged(1);
        ask(&mut desk, "go");
        let _ = desk.pass();
        let wish = desk.world.nodes[0].asked.wish.clone();
        desk.crash(MINUTE, false);
        desk.world.fold_wish(NodeId(0), Wish { session: Some(desk.uid.clone()), run: Some("go".into()), ..wish }, desk.now);
        assert_eq!(desk.world.nodes[0].asked.applied.as_deref(), Some("go"));
        desk.wait(SECOND);
        let _ = desk.pass();
        assert_eq!(desk.drive(0).session, desk.uid);
        assert!(desk.world.asked.is_empty());
    }

    #[test]
    fn with_nothing_staged_it_is_answered_in_words() {
        let mut desk = crate::boot(1);
        ask(&mut desk, "go");
        let _ = desk.pass();
        let asked = &desk.world.nodes[0].asked;
        assert_eq!((&*asked.refused, asked.applied.as_deref()), ("Its staged state was not applied: it has none.", Some("go")));
        assert!(desk.world.asked.is_empty());
    }
}

#[test]
fn a_restart_keeps_what_waits_and_what_was_applied() {
    let mut desk = staged(3);
    desk.wait(MINUTE);
    apply(&mut desk, &[1], "one");
    let applied = desk.run().slots[1].applied;
    desk.crash(MINUTE, true);
    assert_eq!(desk.run().slots[1].applied, applied);
    assert_eq!((&*desk.drive(1).run, desk.drive(1).applied), ("one", true));
    for index in [0, 2] {
        assert_eq!(desk.world.nodes[index].staged, Some((desk.uid.clone(), u32::try_from(index).unwrap())));
        assert!(desk.world.nodes[index].drive.is_none());
    }
}

/// Discovery finds another node in its place.
#[test]
fn a_node_that_was_swapped_loses_its_staged_state() {
    let mut desk = staged(2);
    let inventory = |nid: i64| {
        let mut inventory = crate::fixture::snapshot(2);
        inventory.nodes.get_mut(&crate::fixture::xname(0)).unwrap().nid = Some(nid);
        inventory
    };
    for nid in [1, 1001] {
        assert_eq!(desk.end(0), None);
        desk.world.fold_inventory(Ok(inventory(nid)), desk.now);
    }
    let (kind, reason) = desk.end(0).unwrap();
    assert_eq!((kind, reason), (EndKind::Failed, bos_crds::reasons::NODE_REPLACED));
    assert_eq!((desk.world.nodes[0].staged.clone(), desk.world.nodes[0].unstaged.clone()), (None, Some(desk.uid.clone())));
    assert!(desk.end(1).is_none() && desk.world.nodes[1].staged.is_some());
}
