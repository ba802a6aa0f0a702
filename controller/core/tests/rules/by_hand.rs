//! Nodes that a person drives by giving their BootComponent a new run (design "API", rule 5).

use std::sync::Arc;
use std::time::Duration;

use bos_core::batch::{Outcome, Task};
use bos_core::by_hand::{Goal, Wish};
use bos_core::model::{EndKind, HoldReason, NodeId, Phase, Power, PowerAction, SessionUid};
use bos_core::plan::PlannedOperation;
use bos_core::project::component;
use bos_core::running::Order;
use bos_core::session::Stage;
use bos_core::time::Timestamp;
use bos_crds::{BootComponentStatus, Operation, SessionSpec, reasons};

use crate::desk::{Desk, token};
use crate::fixture::{artifacts, digest, plan, run_plan};
use crate::{MINUTE, SECOND, boot};

/// A site without Sessions that knows the image `new`.
pub(crate) fn idle(count: usize) -> Desk {
    let mut desk = boot(count);
    desk.world.fold_session_gone(&desk.uid);
    let _ = desk.pass();
    let uid = desk.uid.clone();
    desk.world.settle(&uid);
    desk.world.artifacts.insert(digest("new"), Arc::new(artifacts("new")));
    assert!(desk.world.sessions.is_empty());
    desk
}

pub(crate) fn goal(image: &str) -> Goal {
    let artifacts = (!image.is_empty()).then(|| digest(image).0);
    Goal { artifacts, image: image.into(), configuration: "".into() }
}

pub(crate) fn ask(desk: &mut Desk, index: u32, run: &str, image: &str, session: Option<&str>) {
    let wish = Wish { run: Some(run.into()), goal: Some(goal(image)), session: session.map(SessionUid::from), ..Wish::default() };
    desk.world.fold_wish(NodeId(index), wish, desk.now);
    read_anew(desk);
}

/// HSM was asked after what was asked last.
pub(crate) fn read_anew(desk: &mut Desk) {
    (desk.world.discovery.complete, desk.world.discovery.accepted) = (true, desk.now);
}

/// The plans that are to be written.
pub(crate) fn plans(desk: &mut Desk) -> Vec<SessionUid> {
    let _ = desk.pass();
    std::mem::take(&mut desk.world.plans_due).into_iter().collect()
}

/// What was asked a second ago begins.
pub(crate) fn begun(desk: &mut Desk) -> SessionUid {
    desk.wait(SECOND);
    let uids = plans(desk);
    assert_eq!(uids.len(), 1, "{uids:?}");
    desk.world.start_session(&uids[0], desk.now);
    desk.uid = uids[0].clone();
    uids[0].clone()
}

fn refused(desk: &mut Desk, index: u32) -> String {
    desk.wait(SECOND);
    assert_eq!(plans(desk), Vec::new());
    assert!(desk.world.nodes[index as usize].drive.is_none());
    desk.world.nodes[index as usize].asked.refused.to_string()
}

#[test]
fn a_new_run_boots_the_node_into_its_desired_state() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "now", "new", None);
    begun(&mut desk);
    assert_eq!(&*desk.drive(0).run, "now");
    desk.powered_on();
    desk.report(0, &token());
    let _ = desk.pass();
    let last = desk.world.nodes[0].last.clone().unwrap();
    assert_eq!((last.end.kind, &*last.run), (EndKind::Succeeded, "now"));
    let _ = desk.pass();
    let uid = desk.uid.clone();
    assert!(matches!(desk.world.sessions[&uid].stage, Stage::Ended(_)));
    desk.world.settle(&uid);
    assert!(desk.world.sessions.is_empty(), "there is no object that would have to go first");
    desk.wait(MINUTE);
    assert_eq!(plans(&mut desk), Vec::new(), "it was taken up once");
}

#[test]
fn a_desired_state_without_image_means_off() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "now", "", None);
    begun(&mut desk);
    desk.power(0, Power::On);
    assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
}

#[test]
fn nodes_that_are_asked_together_share_a_run() {
    let mut desk = idle(3);
    for index in 0..3 {
        ask(&mut desk, index, &format!("run-{index}"), if index == 2 { "" } else { "new" }, None);
    }
    desk.wait(SECOND);
    assert_eq!(plans(&mut desk).len(), 2, "one for each desired state");
}

#[test]
fn it_takes_the_node_from_a_session() {
    let mut desk = boot(1);
    desk.world.artifacts.insert(digest("newer"), Arc::new(artifacts("newer")));
    desk.powered_on();
    let first = desk.uid.clone();
    ask(&mut desk, 0, "now", "newer", None);
    begun(&mut desk);
    let end = desk.world.sessions[&first].run().unwrap().slots[0].end.clone().unwrap();
    assert_eq!((end.kind, &*end.message), (EndKind::Superseded, "Taken over by a change made by hand."));
    let _ = desk.pass();
    let Stage::Ended(ended) = &desk.world.sessions[&first].stage else { panic!() };
    assert_eq!(&*ended.end.message, "0 of 1 nodes succeeded, 1 taken over by hand.");
}

#[test]
fn a_session_created_later_takes_the_node_back() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "now", "new", None);
    let by_hand = begun(&mut desk);
    desk.wait(SECOND);
    let later = run_plan(&mut desk.world, "later", plan(PlannedOperation::Shutdown, 1, "", ""), desk.now);
    assert_eq!(desk.drive(0).session, later);
    assert_eq!(desk.world.sessions[&by_hand].run().unwrap().slots[0].end.as_ref().unwrap().kind, EndKind::Superseded);
    desk.wait(SECOND);
    assert_eq!(plans(&mut desk), Vec::new(), "the older request is over");
}

/// A Session that waited all the while, or is set up after a restart.
#[test]
fn a_session_created_before_does_not_take_it_back_when_the_run_is_over() {
    let mut desk = idle(1);
    let older = crate::fixture::seen("older", desk.now, SessionSpec::new(Operation::Boot, "template"));
    desk.world.fold_session(older, desk.now);
    ask(&mut desk, 0, "now", "", None);
    let by_hand = begun(&mut desk);
    desk.power(0, Power::Off);
    let _ = desk.pass();
    let _ = desk.pass();
    desk.world.settle(&by_hand);
    let shown = component(&desk.world, NodeId(0), &BootComponentStatus::default(), 1, desk.now).owned_since.unwrap();
    let created = desk.world.sessions[&"older".into()].created;
    assert_eq!(Timestamp::from(shown.0), created);
    desk.world.restore(&"older".into(), Arc::new(plan(PlannedOperation::Boot, 1, "new", "")), None, desk.now);
    assert!(desk.world.nodes[0].drive.is_none());
    let end = desk.world.sessions[&"older".into()].run().unwrap().slots[0].end.clone().unwrap();
    assert_eq!((end.kind, &*end.message), (EndKind::Superseded, "It was driven by hand since this session was created."));
    desk.wait(SECOND);
    run_plan(&mut desk.world, "later", plan(PlannedOperation::Boot, 1, "new", ""), desk.now);
    assert!(desk.world.nodes[0].drive.is_some(), "one that comes later does");
    assert_eq!(component(&desk.world, NodeId(0), &BootComponentStatus::default(), 1, desk.now).owned_since, None);
}

#[test]
fn what_an_object_asked_for_goes_with_it() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "now", "new", None);
    desk.world.component_gone(NodeId(0));
    desk.wait(SECOND);
    assert_eq!(plans(&mut desk), Vec::new());
}

#[test]
fn one_run_comes_after_another() {
    let mut desk = idle(1);
    for (run, power) in [("off", Power::Off), ("on", Power::Off), ("off again", Power::On)] {
        let image = if run == "on" { "new" } else { "" };
        ask(&mut desk, 0, run, image, None);
        let uid = begun(&mut desk);
        assert_eq!(&*desk.drive(0).run, run);
        desk.power(0, power);
        let _ = desk.pass();
        if run == "off" {
            let _ = desk.pass();
            desk.world.settle(&uid);
            assert!(desk.world.sessions.is_empty());
        }
    }
}

/// A loop over a machine makes a run for each node.
#[test]
fn many_runs_that_are_silent_together_cycle_none() {
    let mut desk = idle(9);
    for index in 0..9 {
        ask(&mut desk, index, "now", "new", None);
        begun(&mut desk);
        desk.powered_on();
    }
    desk.wait(desk.world.options.max_boot_wait);
    desk.power_of_all(Power::On);
    assert_eq!(desk.leaves(), Vec::new());
    assert!((0..9).all(|index| desk.drive(index).hold.map(|hold| hold.reason) == Some(HoldReason::MassBootTimeout)));
}

#[test]
fn what_a_session_wrote_is_no_request() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "uid-of-a-session", "new", Some("uid-of-a-session"));
    assert_eq!(refused(&mut desk, 0), "");
}

#[test]
fn an_object_without_status_asks_for_nothing() {
    let mut desk = idle(1);
    let wish = Wish { run: Some("restored".into()), goal: Some(goal("new")), ..Wish::default() };
    desk.world.load_asked(NodeId(0), None, &wish);
    desk.world.fold_wish(NodeId(0), wish, desk.now);
    read_anew(&mut desk);
    let why = refused(&mut desk, 0);
    assert!(why.contains("asks for nothing"), "{why}");
}

mod is_refused_in_words {
    use super::*;

    #[test]
    fn where_the_image_is_not_known() {
        let mut desk = idle(1);
        ask(&mut desk, 0, "now", "other", None);
        let why = refused(&mut desk, 0);
        assert!(why.contains("No artifact set") && why.contains("copy spec.desiredState"), "{why}");
        desk.world.artifacts.insert(digest("other"), Arc::new(artifacts("other")));
        desk.wait(MINUTE);
        assert_eq!(plans(&mut desk), Vec::new(), "it was refused for good");
        ask(&mut desk, 0, "again", "other", None);
        begun(&mut desk);
    }

    #[test]
    fn where_hsm_says_it_must_not_be_touched() {
        let mut desk = idle(2);
        desk.world.nodes[0].facts.as_mut().unwrap().role = Some("Management".into());
        desk.world.nodes[1].locked = true;
        ask(&mut desk, 0, "now", "new", None);
        ask(&mut desk, 1, "now", "new", None);
        let why = refused(&mut desk, 0);
        assert!(why.contains("role Management"), "{why}");
        assert!(desk.world.nodes[1].asked.refused.contains("LockedInHSM"), "{}", desk.world.nodes[1].asked.refused);
    }

    #[test]
    fn where_the_session_it_names_is_over() {
        let mut desk = idle(1);
        ask(&mut desk, 0, "now", "new", Some("long-over"));
        let why = refused(&mut desk, 0);
        assert!(why.contains("is over") && why.contains("remove spec.session"), "{why}");
        ask(&mut desk, 0, "again", "new", None);
        begun(&mut desk);
    }

    #[test]
    fn where_nothing_is_wanted() {
        let mut desk = idle(1);
        let wish = Wish { run: Some("retry".into()), ..Wish::default() };
        desk.world.fold_wish(NodeId(0), wish, desk.now);
        read_anew(&mut desk);
        let why = refused(&mut desk, 0);
        assert!(why.contains("nothing is wanted"), "{why}");
    }

    #[test]
    fn where_a_gitops_tool_would_ask_again_and_again() {
        let mut desk = idle(1);
        let wish = Wish { run: Some("now".into()), goal: Some(goal("new")), tracked: true, ..Wish::default() };
        desk.world.fold_wish(NodeId(0), wish, desk.now);
        read_anew(&mut desk);
        let why = refused(&mut desk, 0);
        assert!(why.contains("GitOps"), "{why}");
    }

    #[test]
    fn where_a_configuration_could_never_be_applied() {
        let mut desk = idle(1);
        let configured = |image| Some(Goal { configuration: "conf".into(), ..goal(image) });
        for (image, words) in [("new", "no CFS"), ("", "no artifacts")] {
            if image.is_empty() {
                desk.world.services = bos_core::health::Services::default();
            }
            let wish = Wish { run: Some(words.into()), goal: configured(image), ..Wish::default() };
            desk.world.fold_wish(NodeId(0), wish, desk.now);
            read_anew(&mut desk);
            let why = refused(&mut desk, 0);
            assert!(why.contains(words), "{why}");
        }
    }
}

#[test]
fn hsm_is_asked_first() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "now", "new", None);
    desk.world.discovery.accepted = desk.now - SECOND;
    desk.wait(MINUTE);
    assert_eq!(plans(&mut desk), Vec::new());
    read_anew(&mut desk);
    assert_eq!(plans(&mut desk).len(), 1);
}

#[test]
fn what_is_asked_within_a_second_shares_a_run() {
    let mut desk = idle(20);
    for index in 0..20 {
        ask(&mut desk, index, "now", "new", None);
        desk.wait(Duration::from_millis(45));
    }
    desk.wait(Duration::from_millis(200));
    assert_eq!(plans(&mut desk).len(), 1);
}

/// Our own write of the newer run is still on its way, and meanwhile the object is seen as it was.
#[test]
fn an_old_run_that_is_seen_again_is_no_request() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "old", "", None);
    let _ = begun(&mut desk);
    desk.power(0, Power::Off);
    let _ = desk.pass();
    let later = desk.now + SECOND;
    let newer = run_plan(&mut desk.world, "newer", plan(PlannedOperation::Boot, 1, "new", ""), later);
    desk.wait(SECOND);
    let wish = desk.world.nodes[0].asked.wish.clone();
    desk.world.fold_wish(NodeId(0), Wish { tracked: true, ..wish.clone() }, desk.now);
    desk.world.fold_wish(NodeId(0), wish, desk.now);
    read_anew(&mut desk);
    desk.wait(SECOND);
    assert_eq!(plans(&mut desk), Vec::new());
    assert_eq!(desk.drive(0).session, newer);
}

#[test]
fn a_newer_request_is_not_lost_to_the_plan_of_an_older_one() {
    let mut desk = idle(1);
    ask(&mut desk, 0, "one", "new", None);
    desk.wait(SECOND);
    let planned = plans(&mut desk);
    ask(&mut desk, 0, "two", "", None);
    desk.world.start_session(&planned[0], desk.now);
    assert_eq!(&*desk.drive(0).run, "one");
    begun(&mut desk);
    assert_eq!(&*desk.drive(0).run, "two");
}

mod in_its_session {
    use super::*;

    #[test]
    fn a_failed_node_is_driven_once_more_with_fresh_attempts() {
        let mut desk = boot(2);
        desk.world.nodes[0].retry_policy = Some(0);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::POWER_ON_TIMEOUT)));
        desk.world.nodes[0].retry_policy = None;
        ask(&mut desk, 0, "again", "new", Some("first"));
        desk.wait(SECOND);
        let _ = desk.pass();
        assert_eq!((desk.end(0), &*desk.drive(0).run), (None, "again"));
        desk.power(0, Power::Off);
        let call = desk.prepared();
        assert_eq!(call.order, Order::Power(PowerAction::On));
    }

    #[test]
    fn one_that_is_at_it_gets_its_attempts_back_and_nothing_else() {
        let mut desk = boot(1);
        desk.powered_on();
        let before = desk.drive(0).clone();
        ask(&mut desk, 0, "again", "new", Some("first"));
        desk.wait(SECOND);
        assert_eq!(desk.leaves(), Vec::new());
        let after = desk.drive(0);
        assert_eq!((after.attempts.on, after.phase, after.action), (0, Phase::PoweringOn, before.action));
    }

    /// Neither in what is counted nor in what maxPowerCycled allows.
    #[test]
    fn what_was_power_cycled_before_stays_so() {
        let mut plan = plan(PlannedOperation::Reboot, 2, "new", "");
        plan.max_power_cycled = Some(1);
        let mut desk = Desk::new(2, plan);
        (0..2).for_each(|index| desk.runs(index, "old"));
        let _ = desk.pass();
        desk.power_of_all(Power::On);
        let off = desk.one();
        let [(node, _)] = off.nodes[..] else { panic!("{off:?}") };
        let other = 1 - node.0;
        assert_eq!(desk.end(other as usize), Some((EndKind::LeftRunning, reasons::MAX_POWER_CYCLED)));
        desk.answer(off.id, Outcome::Accepted { transition: "off".into() });
        desk.wait(SECOND);
        desk.tasks(&off, Task::Succeeded);
        desk.power(node.0, Power::Off);
        let counted = |desk: &Desk| {
            let session = &desk.world.sessions[&desk.uid];
            let counts = bos_core::project_session::session(&desk.world, session, &bos_crds::SessionStatus::default(), desk.now).counts;
            (counts.power_cycled, desk.run().tally().power_cycled)
        };
        assert_eq!(counted(&desk), (1, 1));
        ask(&mut desk, node.0, "again", "new", Some("first"));
        desk.wait(SECOND);
        let _ = desk.pass();
        assert_eq!((&*desk.drive(node.0 as usize).run, counted(&desk)), ("again", (1, 1)));
        desk.crash(SECOND, true);
        assert_eq!(counted(&desk), (1, 1));
        desk.power(node.0, Power::Off);
        let on = desk.prepared();
        desk.carried_out(&on);
        desk.wait(SECOND);
        let _ = desk.report(node.0, &token());
        let _ = desk.pass();
        assert_eq!((desk.end(node.0 as usize).map(|end| end.0), counted(&desk)), (Some(EndKind::Succeeded), (1, 1)));
        assert!(desk.run().slots[node.0 as usize].power_cycled, "it takes the one place that there is");
    }

    #[test]
    fn the_run_is_remembered_by_the_journal() {
        let mut desk = boot(1);
        desk.powered_on();
        ask(&mut desk, 0, "again", "new", Some("first"));
        desk.wait(SECOND);
        let _ = desk.pass();
        desk.crash(MINUTE, false);
        assert_eq!(&*desk.drive(0).run, "again");
        assert_eq!(desk.world.nodes[0].asked.taken.as_deref(), Some("again"));
    }
}

mod a_crash {
    use super::*;

    #[test]
    fn before_the_plan_is_durable_loses_nothing() {
        let mut desk = idle(1);
        ask(&mut desk, 0, "now", "new", None);
        desk.wait(SECOND);
        assert_eq!(plans(&mut desk).len(), 1);
        desk.crash(MINUTE, false);
        ask(&mut desk, 0, "now", "new", None);
        begun(&mut desk);
        assert_eq!(&*desk.drive(0).run, "now");
    }

    #[test]
    fn after_it_does_not_begin_it_twice() {
        let mut desk = idle(1);
        ask(&mut desk, 0, "now", "new", None);
        let uid = begun(&mut desk);
        desk.powered_on();
        // The status that would show the run was not written.
        desk.crash(MINUTE, false);
        ask(&mut desk, 0, "now", "new", None);
        desk.wait(SECOND);
        assert_eq!(plans(&mut desk), Vec::new());
        assert_eq!((&desk.drive(0).session, desk.drive(0).attempts.on), (&uid, 1));
        desk.power(0, Power::On);
        desk.report(0, &token());
        let _ = desk.pass();
        assert_eq!(desk.world.nodes[0].last.as_ref().unwrap().end.kind, EndKind::Succeeded);
    }
}
