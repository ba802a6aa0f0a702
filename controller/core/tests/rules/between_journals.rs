//! A newer session takes a node, and the operator dies before the journals of both say so (rules 7, 8 and 11).

use bos_core::batch::{BatchState, Outcome, Task};
use bos_core::journal::{Journal, snapshot};
use bos_core::model::{EndKind, NodeId, Phase, Power, PowerAction, SessionUid, Token};
use bos_core::plan::{Evidence, PlannedOperation, RunningPolicy};
use bos_core::resume::StoredJournal;
use bos_core::running::{Dispatch, Order};
use bos_core::session::Stage;

use crate::by_hand::{ask, begun};
use crate::desk::{Desk, token};
use crate::fixture::{plan, run_plan};
use crate::{MINUTE, SECOND, boot, boot_with, booting};

fn journal(desk: &Desk, uid: &SessionUid) -> Vec<u8> {
    snapshot(&desk.world, &desk.world.sessions[uid], desk.now).unwrap().encode().unwrap()
}

fn written(bytes: &[u8]) -> StoredJournal {
    StoredJournal::Written(Box::new(Journal::decode(bytes).unwrap()))
}

/// Dies with these journals instead of the newest, and starts a second later.
fn die_with(desk: &mut Desk, journals: &[(&SessionUid, Option<&[u8]>)]) {
    die(desk, true, journals);
}

/// The same; `shown`: the objects of the nodes name their newest session already.
fn die(desk: &mut Desk, shown: bool, journals: &[(&SessionUid, Option<&[u8]>)]) {
    desk.crash_with(SECOND, shown, |stored| {
        for record in stored {
            if let Some((_, bytes)) = journals.iter().find(|(uid, _)| **uid == record.uid) {
                record.journal = bytes.map_or(StoredJournal::Empty, written);
            }
        }
    });
}

/// The next session over the one node.
fn next(desk: &mut Desk, uid: &str, operation: PlannedOperation, image: &str) -> SessionUid {
    desk.plan = plan(operation, 1, image, "");
    std::mem::replace(&mut desk.uid, run_plan(&mut desk.world, uid, desk.plan.clone(), desk.now))
}

/// Rule 8: the newer session's journal was not written, or neither.
#[test]
fn a_boot_under_way_is_not_forgotten_between_the_journals_of_two_sessions() {
    for (older_is_written, shown) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut desk = booting();
        let before = journal(&desk, &desk.uid);
        desk.plan = plan(PlannedOperation::Boot, 1, "new", "");
        desk.plan.running = RunningPolicy::Restart;
        let first = std::mem::replace(&mut desk.uid, run_plan(&mut desk.world, "second", desk.plan.clone(), desk.now));
        let _ = desk.pass();
        let second = desk.uid.clone();
        let journals = [(&second, None), (&first, Some(&*before))];
        die(&mut desk, shown, if older_is_written { &journals[..1] } else { &journals });
        desk.power(0, Power::On);
        assert_eq!(desk.leaves(), Vec::new(), "its deadline is not over");
        desk.report(0, &token());
        let _ = desk.pass();
        assert_eq!(desk.end(0).unwrap().0, EndKind::Succeeded);
    }
}

/// The same where a process that starts is shown that the older session is complete: it is not before its taker has written.
#[test]
fn a_session_is_complete_only_when_its_taker_has_written() {
    let mut desk = booting();
    let first = next(&mut desk, "second", PlannedOperation::Boot, "new");
    let second = desk.uid.clone();
    let _ = desk.pass();
    assert!(matches!(desk.world.sessions[&first].stage, Stage::Ended(_)));
    let end = desk.world.sessions[&first].run().unwrap().slots[0].end.as_ref().unwrap().at;
    assert!(!desk.world.may_be_forgotten(&first, |_| None));
    assert!(!desk.world.may_be_forgotten(&first, |_| Some(end - SECOND)), "what was written before does not say so");
    assert!(desk.world.may_be_forgotten(&first, |uid| (*uid == second).then_some(end)));
}

/// Rule 3: a power-off that was sent ends the boot, and a report on the way there proves nothing.
#[test]
fn a_power_off_that_was_sent_ends_the_boot_under_way() {
    for crash in [false, true] {
        let mut desk = booting();
        let first = next(&mut desk, "second", PlannedOperation::Shutdown, "");
        let second = desk.uid.clone();
        let _ = desk.pass();
        desk.wait(SECOND);
        desk.power(0, Power::On);
        let call = desk.one();
        assert_eq!(call.order, Order::Power(PowerAction::SoftOff));
        desk.answer(call.id, Outcome::Accepted { transition: "off".into() });
        let before = journal(&desk, &second);
        desk.wait(SECOND);
        next(&mut desk, "third", PlannedOperation::Boot, "new");
        let _ = desk.pass();
        if crash {
            // The first is over and forgotten.
            desk.world.sessions.retain(|uid, _| *uid != first);
            let third = desk.uid.clone();
            die_with(&mut desk, &[(&second, Some(&before)), (&third, None)]);
        }
        desk.wait(SECOND);
        desk.report(0, &token());
        let _ = desk.pass();
        assert_eq!(desk.end(0), None, "crash {crash}: a power-off is on its way to it");
    }
}

/// A staged Session, and a newer one that is about to power the node on.
fn staged_and_called() -> (Desk, SessionUid, Dispatch) {
    let mut desk = boot_with(1, |plan| plan.staged = true);
    desk.wait(SECOND);
    let second = run_plan(&mut desk.world, "second", plan(PlannedOperation::Boot, 1, "new", ""), desk.now);
    let _ = desk.pass();
    desk.wait(SECOND);
    desk.power(0, Power::Off);
    let call = desk.prepared();
    (desk, second, call)
}

/// The power-on had no effect, and another one is called.
fn called_anew(desk: &mut Desk) -> Dispatch {
    desk.wait(desk.world.options.max_power_on_wait);
    desk.power(0, Power::Off);
    let _ = desk.pass();
    desk.wait(SECOND);
    desk.power(0, Power::Off);
    desk.prepared_with(&Token("staged".into()))
}

/// Rule 4: a staged Session is older by its creation and newer at the node. What it did itself is not overwritten by what it found.
#[test]
fn an_older_session_that_was_applied_keeps_its_own_power_on() {
    let (mut desk, second, call) = staged_and_called();
    let staged = desk.uid.clone();
    desk.carried_out(&call);
    let _ = desk.pass();
    desk.wait(MINUTE);
    let applied = desk.world.apply_staged(&[(NodeId(0), "go".into())], desk.now);
    assert_eq!(applied.begun, vec![(NodeId(0), staged.clone())]);
    let older = journal(&desk, &second);
    assert_eq!((&desk.drive(0).session, desk.drive(0).phase), (&staged, Phase::PoweringOn));
    let call = called_anew(&mut desk);
    desk.carried_out(&call);
    let _ = desk.pass();
    let (action, attempts) = (desk.drive(0).action.unwrap(), desk.drive(0).attempts);
    die_with(&mut desk, &[(&second, Some(&older))]);
    assert_eq!(desk.drive(0).attempts, attempts);
    assert!(desk.drive(0).action.unwrap().boot_by >= action.boot_by, "the deadline is shortened");
}

/// Rule 11: nor does a transition of the other session, which is over since its journal was last written, take the place of its own.
#[test]
fn an_older_session_that_was_applied_keeps_its_own_transition() {
    let (mut desk, second, call) = staged_and_called();
    desk.answer(call.id, Outcome::Accepted { transition: "theirs".into() });
    let older = journal(&desk, &second);
    desk.tasks(&call, Task::Succeeded);
    let _ = desk.pass();
    desk.world.apply_staged(&[(NodeId(0), "go".into())], desk.now);
    let call = called_anew(&mut desk);
    desk.answer(call.id, Outcome::Accepted { transition: "ours".into() });
    die_with(&mut desk, &[(&second, Some(&older))]);
    let batch = &desk.world.batches[&desk.world.nodes[0].batch.unwrap()];
    assert!(matches!(&batch.state, BatchState::Following { transition, .. } if **transition == *"ours"), "{batch:?}");
}

/// Rule 8: of three sessions the second has powered the node on last, with another image.
#[test]
fn the_boot_under_way_is_that_of_the_session_just_before() {
    for crash in [false, true] {
        let mut desk = booting();
        let first = next(&mut desk, "second", PlannedOperation::Boot, "other");
        let second = desk.uid.clone();
        let _ = desk.pass();
        let older = journal(&desk, &first);
        desk.wait(desk.world.options.max_power_on_wait);
        desk.power(0, Power::Off);
        let call = desk.prepared_with(&Token("second".into()));
        desk.carried_out(&call);
        let _ = desk.pass();
        let before = journal(&desk, &second);
        desk.wait(SECOND);
        next(&mut desk, "third", PlannedOperation::Boot, "new");
        let third = desk.uid.clone();
        let _ = desk.pass();
        if crash {
            die_with(&mut desk, &[(&first, Some(&older)), (&second, Some(&before)), (&third, None)]);
        }
        desk.wait(SECOND);
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff), "crash {crash}: another image is on its way");
    }
}

mod where_hsm_proves_boots {
    use super::*;

    fn ready(desk: &mut Desk, ready: bool) {
        desk.world.fold_states(&[NodeId(0)], desk.now, Ok(vec![(NodeId(0), ready)]), desk.now);
    }

    /// The first had its proof and was configuring, or it had only seen the node go down; the second wants the same image.
    fn taken(booted: bool, crash: bool) -> Desk {
        let mut planned = plan(PlannedOperation::Boot, 1, "new", if booted { "one" } else { "" });
        planned.evidence = Evidence::HsmReady;
        let mut desk = Desk::new(1, planned.clone());
        desk.powered_on();
        desk.wait(SECOND);
        ready(&mut desk, false);
        let _ = desk.pass();
        desk.wait(MINUTE);
        desk.power(0, Power::On);
        if booted {
            ready(&mut desk, true);
            let _ = desk.pass();
            assert_eq!(desk.drive(0).phase, Phase::Configuring);
            planned.boot_sets[0].configuration = "other".into();
        }
        desk.wait(SECOND);
        desk.plan = planned;
        desk.uid = run_plan(&mut desk.world, "second", desk.plan.clone(), desk.now);
        let _ = desk.pass();
        if crash {
            let second = desk.uid.clone();
            die_with(&mut desk, &[(&second, None)]);
        }
        desk
    }

    #[test]
    fn a_node_that_is_or_comes_up_is_not_cycled_after_a_crash() {
        for (booted, crash) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut desk = taken(booted, crash);
            for _ in 0..40 {
                desk.wait(MINUTE);
                desk.power(0, Power::On);
                ready(&mut desk, true);
                let calls: Vec<_> = desk.leaves().into_iter().filter(crate::desk::is_power).collect();
                assert_eq!(calls, Vec::new(), "booted {booted} crash {crash}");
            }
        }
    }
}

/// Rule 11: the answer to the power-on of the first was lost; a run by hand took the node, and nothing of that was durable.
#[test]
fn a_call_in_doubt_is_waited_out_also_where_the_taker_is_forgotten() {
    for crash in [false, true] {
        let mut desk = boot(2);
        let _ = desk.pass();
        desk.power_of_all(Power::Off);
        let call = desk.prepared();
        assert_eq!(call.order, Order::Power(PowerAction::On));
        desk.wait(SECOND);
        desk.answer(call.id, Outcome::Unknown { detail: "connection reset".into() });
        let _ = desk.pass();
        ask(&mut desk, 0, "off", "", None);
        let hand = begun(&mut desk);
        let _ = desk.pass();
        assert_eq!(desk.drive(0).session, hand);
        if crash {
            die_with(&mut desk, &[(&hand, None)]);
            assert_eq!(desk.world.nodes[0].drive, None);
        }
        desk.wait(SECOND);
        next(&mut desk, "third", PlannedOperation::Shutdown, "");
        let _ = desk.pass();
        desk.wait(SECOND);
        desk.power(0, Power::Off);
        let _ = desk.pass();
        assert_eq!(desk.end(0), None, "crash {crash}: the power-on may still reach it");
    }
}

/// A boot that was cancelled is nobody's to wait for, but what the node says when it is up is known.
#[test]
fn a_cancelled_boot_is_given_up_and_its_image_known() {
    for (reports, kind) in [(true, EndKind::Succeeded), (false, EndKind::LeftRunning)] {
        let mut desk = booting();
        desk.world.sessions.get_mut(&desk.uid).unwrap().spec.cancel = true;
        let _ = desk.pass();
        assert_eq!(desk.end(0).unwrap().0, EndKind::Cancelled);
        desk.world.settle(&desk.uid);
        desk.wait(MINUTE);
        next(&mut desk, "second", PlannedOperation::Boot, "new");
        let _ = desk.pass();
        desk.wait(SECOND);
        desk.power(0, Power::On);
        if reports {
            desk.report(0, &token());
        }
        assert_eq!(desk.leaves(), Vec::new());
        assert_eq!(desk.end(0).unwrap().0, kind);
    }
}
