//! What is shown as asked of a node is what has left (rule 14): a call that is decided may be withdrawn as long as its record is not
//! durable, and what was sent is not forgotten with the phase that it was for.

use bos_core::batch::{BatchId, BatchState, Outcome, Progress, Task};
use bos_core::health::Service;
use bos_core::journal::{Journal, snapshot};
use bos_core::model::{EndKind, NodeId, Power, PowerAction};
use bos_core::plan::PlannedOperation;
use bos_core::project::component;
use bos_core::project_session::session;
use bos_core::running::{Dispatch, Order};
use bos_crds::{BootComponentStatus, LastAction, NodeStatus, SessionCounts, SessionStatus, reasons};

use crate::SECOND;
use crate::desk::{Desk, token};
use crate::fixture::{plan, run_plan};

fn node(desk: &Desk, index: u32) -> BootComponentStatus {
    component(&desk.world, NodeId(index), &BootComponentStatus::default(), 1, desk.now)
}

fn counts(desk: &Desk) -> SessionCounts {
    session(&desk.world, &desk.world.sessions[&desk.uid], &SessionStatus::default(), desk.now).counts
}

fn asked(status: &BootComponentStatus) -> (NodeStatus, LastAction) {
    (status.status.unwrap(), status.last_action.unwrap())
}

/// Decided, and not in the journal yet.
fn decided(desk: &mut Desk) -> BatchId {
    let _ = desk.pass();
    let unsent = desk.world.batches.values().filter(|batch| batch.state == BatchState::Recording).map(|batch| batch.id);
    unsent.collect::<Vec<_>>().try_into().map(|[id]: [BatchId; 1]| id).unwrap()
}

/// Off, prepared, and about to be powered on.
fn about_to_be_powered_on(count: usize) -> (Desk, BatchId) {
    let mut desk = crate::boot(count);
    let _ = desk.pass();
    desk.power_of_all(Power::Off);
    let parameters = desk.one();
    desk.answer(parameters.id, Outcome::Stored { token: token() });
    let call = decided(&mut desk);
    (desk, call)
}

/// Asked to shut down, in order to be powered on again.
fn asked_to_go_off() -> (Desk, Dispatch) {
    let mut desk = Desk::new(1, plan(PlannedOperation::Reboot, 1, "new", ""));
    let _ = desk.pass();
    desk.power(0, Power::On);
    let call = desk.one();
    desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
    (desk, call)
}

/// The same, and off.
fn switched_off() -> Desk {
    let (mut desk, call) = asked_to_go_off();
    desk.tasks(&call, Task::Succeeded);
    let _ = desk.pass();
    desk
}

#[test]
fn a_call_that_has_not_left_is_not_shown() {
    let (mut desk, call) = about_to_be_powered_on(2);
    let told = node(&desk, 0);
    assert_eq!((asked(&told), told.reason.as_str()), ((NodeStatus::PowerOnPending, LastAction::SessionSetup), reasons::PACED));
    assert_eq!((told.attempts.power_on, told.tries.as_str()), (0, "0/3"));
    assert_eq!((counts(&desk).pending, counts(&desk).powering_on), (2, 0));
    desk.wait(SECOND);
    assert_eq!(desk.world.release(call, desk.now).unwrap().nodes.len(), 2);
    let told = node(&desk, 0);
    assert_eq!((asked(&told), told.tries.as_str()), ((NodeStatus::PowerOnCalled, LastAction::PoweringOn), "1/3"));
    let left = Some(desk.now.wall());
    assert_eq!((told.last_action_time.map(|at| at.0), told.since.map(|at| at.0)), (left, left), "when it left");
    assert_eq!((counts(&desk).pending, counts(&desk).powering_on), (0, 2));
}

/// A person holds one of its nodes while its record is written.
#[test]
fn nor_is_one_that_left_without_the_node() {
    let (mut desk, call) = about_to_be_powered_on(2);
    let before = node(&desk, 0);
    desk.world.nodes[0].suspended = true;
    assert_eq!(desk.world.release(call, desk.now).unwrap().nodes.len(), 1);
    let told = component(&desk.world, NodeId(0), &before, 1, desk.now);
    assert_eq!((asked(&told), told.reason.as_str()), ((NodeStatus::PowerOnPending, LastAction::SessionSetup), reasons::SUSPENDED));
    assert_eq!((told.attempts.power_on, told.transitions), (0, before.transitions));
    assert_ne!(desk.world.nodes[0].last_batch, Some(call), "nor does the log name it");
    assert!(desk.world.journal_due.contains(&desk.uid), "that says that it may have been asked");
    assert_eq!(asked(&node(&desk, 1)), (NodeStatus::PowerOnCalled, LastAction::PoweringOn));
}

#[test]
fn the_call_before_it_is_shown_meanwhile() {
    let (mut desk, call) = asked_to_go_off();
    desk.wait(desk.world.options.max_power_off_wait);
    desk.world.fold_progress(call.id, desk.now, Progress::Gone, desk.now);
    desk.power(0, Power::On);
    let call = decided(&mut desk);
    assert_eq!(asked(&node(&desk, 0)), (NodeStatus::PowerOffGracefullyCalled, LastAction::PoweringOffGracefully));
    let told = node(&desk, 0);
    assert_eq!((told.attempts.power_off_graceful, told.attempts.power_off_forceful), (1, 0));
    assert_eq!(told.next, "forced off after a fresh look at its power if still on", "nobody keeps it");
    desk.power(0, Power::Off);
    assert!(!node(&desk, 0).message.contains("keeps it"), "{}", node(&desk, 0).message);
    desk.power(0, Power::On);
    assert_eq!(desk.world.release(call, desk.now).unwrap().order, Order::Power(PowerAction::ForceOff));
    assert_eq!(asked(&node(&desk, 0)), (NodeStatus::PowerOffForcefullyCalled, LastAction::PoweringOffForcefully));
}

/// What was shown last may be the end of another session: the process died before it showed more.
#[test]
fn what_was_sent_outlives_its_phase_and_the_process() {
    let mut desk = switched_off();
    let sent = node(&desk, 0).last_action_time;
    let is_told = |desk: &Desk| {
        let told = node(desk, 0);
        assert_eq!(asked(&told), (NodeStatus::PowerOnPending, LastAction::PoweringOffGracefully));
        assert_eq!((told.last_action_time.clone(), told.attempts.power_off_graceful), (sent.clone(), 1));
    };
    is_told(&desk);
    desk.restart(SECOND);
    is_told(&desk);
    desk.power(0, Power::Off);
    let call = desk.prepared();
    assert_eq!(asked(&node(&desk, 0)), (NodeStatus::PowerOnCalled, LastAction::PoweringOn));
    desk.answer(call.id, Outcome::NotSent { service: Service::Pcs, detail: "connection refused".into() });
    let told = node(&desk, 0);
    assert_eq!((told.last_action, told.attempts.power_on), (Some(LastAction::PoweringOffGracefully), 0), "that one did not reach PCS");
}

#[test]
fn and_the_session() {
    let mut desk = switched_off();
    desk.world.sessions.get_mut(&desk.uid).unwrap().spec.cancel = true;
    assert_eq!(desk.leaves(), Vec::new());
    let _ = desk.pass();
    assert_eq!(desk.end(0).unwrap().0, EndKind::Cancelled);
    for _ in 0..2 {
        assert_eq!(asked(&node(&desk, 0)), (NodeStatus::Stable, LastAction::PoweringOffGracefully));
        desk.restart(SECOND);
    }
}

/// PCS says after a restart that it did not touch the node: the call is taken back, and what was sent before is not lost with it.
#[test]
fn what_was_sent_outlives_a_call_that_did_not_touch_the_node() {
    let mut desk = switched_off();
    desk.power(0, Power::Off);
    let call = desk.prepared();
    desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
    desk.restart(SECOND);
    // It is followed under a new number.
    let call = Dispatch { id: *desk.world.batches.keys().next().unwrap(), ..call };
    desk.tasks(&call, Task::Untouched { detail: "reserved".into(), permanent: false });
    let told = node(&desk, 0);
    assert_eq!((told.last_action, told.attempts.power_on), (Some(LastAction::PoweringOffGracefully), 0));
}

/// A newer session takes the node while the call of this one is recorded: it was asked for nothing.
#[test]
fn a_node_that_is_let_go_before_its_call_leaves_was_not_asked() {
    let (mut desk, call) = about_to_be_powered_on(1);
    let before = desk.world.nodes[0].drive.as_ref().unwrap().attempts.on;
    let _ = run_plan(&mut desk.world, "second", plan(PlannedOperation::Shutdown, 1, "", ""), desk.now);
    let last = desk.world.nodes[0].last.as_ref().unwrap();
    assert_eq!((before, last.attempts.on, last.action), (1, 0, None));
    assert!(desk.world.release(call, desk.now).is_none());
}

/// Ten thousand nodes that went off one by one share entries of the journal all the same.
#[test]
fn a_journal_that_would_be_too_long_is_less_exact_about_it() {
    let mut desk = Desk::new(20, plan(PlannedOperation::Reboot, 20, "new", ""));
    let _ = desk.pass();
    desk.power_of_all(Power::On);
    let call = desk.one();
    for node in 0..20 {
        desk.world.nodes[node].drive.as_mut().unwrap().action.as_mut().unwrap().decided =
            desk.now + SECOND * u32::try_from(node).unwrap() / 20;
    }
    desk.carried_out(&call);
    let _ = desk.pass();
    let journal = |desk: &Desk| snapshot(&desk.world, &desk.world.sessions[&desk.uid], desk.now).unwrap();
    let whole = journal(&desk).encode().unwrap().len();
    let short = journal(&desk).encode_within(whole - 1).unwrap();
    assert!(short.len() < whole / 5, "{} of {whole}", short.len());
    Journal::decode(&short).unwrap();
}

/// The lines of a node in the log name its last call, and never that of the session before.
#[test]
fn the_last_call_is_known_when_it_is_over() {
    let mut desk = crate::boot(1);
    let _ = desk.pass();
    desk.power(0, Power::Off);
    let call = desk.prepared();
    desk.carried_out(&call);
    assert_eq!((desk.world.nodes[0].batch, desk.world.nodes[0].last_batch), (None, Some(call.id)));
    let _ = run_plan(&mut desk.world, "second", plan(PlannedOperation::Shutdown, 1, "", ""), desk.now);
    assert_eq!(desk.world.nodes[0].last_batch, None);
}

/// The process died with the answer. It costs no attempt, so that the log has a call more than the node has tries.
#[test]
fn a_power_on_that_nobody_confirmed_is_called_that() {
    let mut desk = crate::boot(1);
    let _ = desk.pass();
    desk.power(0, Power::Off);
    let _ = desk.prepared();
    desk.restart(SECOND);
    desk.wait(desk.world.options.max_power_on_wait);
    desk.power(0, Power::Off);
    let _ = desk.pass();
    let told = node(&desk, 0);
    assert!(told.message.contains("still off 2 min after a power-on that PCS never confirmed"), "{}", told.message);
    assert_eq!(told.attempts.power_on, 0);
}
