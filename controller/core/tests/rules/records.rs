//! What is known between sessions: who failed where, what HSM says of a node, how old a report may be, and how long Sessions stay.

use crate::desk::{Desk, token};
use crate::fixture::{START, at, plan, run_plan, seen, setup, snapshot, xname};
use crate::{MINUTE, SECOND, boot};
use bos_core::model::{EndKind, NodeId, Power, PowerSeen, SessionUid};
use bos_core::plan::PlannedOperation;
use bos_core::project::component;
use bos_core::session::Stage;
use bos_core::time::Timestamp;
use bos_core::want::Effect;
use bos_crds::{BootComponentStatus, Operation, RunningNodes, SessionSpec, reasons};

mod retry_of {
    use super::*;

    fn retry(desk: &mut Desk) -> SessionUid {
        let spec = SessionSpec { retry_of: Some("name-of-first".into()), ..SessionSpec::new(Operation::Reboot, "template") };
        desk.world.fold_session(seen("retry", desk.now, spec), desk.now);
        "retry".into()
    }

    fn fail(desk: &mut Desk, index: u32) {
        desk.world.nodes[index as usize].retry_policy = Some(0);
        desk.power(index, Power::Off);
        let _ = desk.pass();
        assert_eq!(desk.end(index as usize), Some((EndKind::Failed, reasons::POWER_ON_TIMEOUT)));
    }

    #[test]
    fn only_what_failed_is_tried_again_and_not_before_the_other_session_has_ended() {
        let mut desk = boot(2);
        let _ = desk.pass();
        fail(&mut desk, 0);
        let uid = retry(&mut desk);
        let _ = desk.pass();
        let waiting = |desk: &Desk| match &desk.world.sessions[&SessionUid::from("retry")].stage {
            Stage::Pending(pending) => pending.waiting.to_string(),
            stage => panic!("{stage:?}"),
        };
        assert!(waiting(&desk).contains("name-of-first has not ended"), "{}", waiting(&desk));
        desk.power(1, Power::Off);
        let call = desk.prepared();
        desk.carried_out(&call);
        let _ = desk.report(1, &token());
        assert!(desk.pass().contains(&Effect::SetUp(uid.clone())), "{}", waiting(&desk));
        let planned = desk.world.fold_setup(&uid, Ok(setup(2, "new", "", &[0, 1])), desk.now);
        assert_eq!(planned, Some(uid.clone()));
        let Stage::Recording(recording) = &desk.world.sessions[&uid].stage else { panic!() };
        assert_eq!(recording.plan.nodes().map(|(_, name)| name.clone()).collect::<Vec<_>>(), [xname(0)]);
    }

    /// What did not come up is on, and a Boot leaves alone what is on and unknown.
    #[test]
    fn a_boot_that_leaves_it_alone_does_not_use_the_retry_up() {
        let mut desk = boot(1);
        let mut spec = SessionSpec { retry_of: Some("first".into()), ..SessionSpec::new(Operation::Boot, "template") };
        desk.wait(SECOND);
        desk.uid = run_plan(&mut desk.world, "retry", plan(PlannedOperation::Boot, 1, "new", ""), desk.now);
        std::mem::swap(&mut desk.world.sessions.get_mut(&desk.uid).unwrap().spec, &mut spec);
        let _ = desk.pass();
        desk.power(0, Power::On);
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::UNKNOWN_IMAGE_RUNNING)));
        let _ = desk.pass();
        let Stage::Ended(ended) = &desk.world.sessions[&desk.uid].stage else { panic!() };
        let hint = "To try those again: a Session with retryOf: name-of-retry and runningNodes: Restart, which power-cycles those that are on, unless they say that they run the image.";
        assert!(ended.end.message.ends_with(hint), "{}", ended.end.message);
    }

    #[test]
    fn nothing_is_left_when_a_newer_session_has_had_the_node_since() {
        let mut desk = boot(1);
        let _ = desk.pass();
        fail(&mut desk, 0);
        let second = run_plan(&mut desk.world, "second", plan(PlannedOperation::Shutdown, 1, "", ""), desk.now + SECOND);
        desk.wait(2 * SECOND);
        desk.power(0, Power::Off);
        let _ = desk.pass();
        assert!(matches!(desk.world.sessions[&second].stage, Stage::Ended(_)));
        let uid = retry(&mut desk);
        assert_eq!(desk.world.fold_setup(&uid, Ok(setup(1, "new", "", &[0])), desk.now), None);
        let Stage::Ended(ended) = &desk.world.sessions[&uid].stage else { panic!() };
        assert_eq!(&*ended.end.reason, reasons::NO_NODES);
        assert!(ended.end.message.contains("nothing to retry"), "{}", ended.end.message);
    }
}

mod what_hsm_says_in_mid_session {
    use super::*;

    fn changed(desk: &mut Desk, change: impl FnOnce(&mut bos_core::resolve::Snapshot)) {
        let mut inventory = snapshot(desk.world.nodes.len());
        change(&mut inventory);
        desk.world.fold_inventory(Ok(inventory), desk.now);
    }

    fn facts(inventory: &mut bos_core::resolve::Snapshot, index: usize) -> &mut bos_core::resolve::Facts {
        inventory.nodes.get_mut(&xname(index)).unwrap()
    }

    #[test]
    fn a_node_that_is_locked_disabled_or_gone_is_released_and_said() {
        let mut desk = boot(4);
        let _ = desk.pass();
        changed(&mut desk, |inventory| {
            inventory.locked.insert(xname(0));
            facts(inventory, 1).enabled = false;
            facts(inventory, 2).state = Some("Empty".into());
        });
        desk.power_of_all(Power::Off);
        let calls = desk.leaves();
        assert!(calls.iter().all(|call| call.nodes == [(NodeId(3), xname(3))]), "{calls:?}");
        assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reasons::LOCKED_IN_HSM)));
        assert_eq!(desk.end(1), Some((EndKind::LeftRunning, reasons::DISABLED_IN_HSM)));
        assert_eq!(desk.end(2), Some((EndKind::LeftRunning, reasons::EMPTY_IN_HSM)));
        assert_eq!(desk.end(3), None);
    }

    #[test]
    fn one_that_was_disabled_from_the_start_is_not_where_the_session_includes_those() {
        let mut desk = Desk::new(1, bos_core::plan::Plan { include_disabled: true, ..plan(PlannedOperation::Boot, 1, "new", "") });
        let _ = desk.pass();
        changed(&mut desk, |inventory| facts(inventory, 0).enabled = false);
        desk.power(0, Power::Off);
        assert_eq!(desk.leaves().len(), 1);
    }

    #[test]
    fn set_up_goes_by_its_own_reading_and_not_by_an_older_one() {
        let mut desk = boot(1);
        desk.world = crate::fixture::world(1, desk.now);
        changed(&mut desk, |inventory| inventory.locked = [xname(0)].into());
        desk.world.fold_session(seen("first", desk.now, SessionSpec::new(Operation::Boot, "template")), desk.now);
        let uid = desk.uid.clone();
        desk.world.fold_setup(&uid, Ok(setup(1, "new", "", &[0])), desk.now);
        desk.world.start_session(&uid, desk.now);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let _ = desk.pass();
        assert_eq!(desk.end(0), None, "it is locked no more");
    }

    #[test]
    fn another_node_in_the_same_place_inherits_nothing() {
        for swap in ["emptied", "other NID", "other MAC", "other NID while we were away"] {
            let mut desk = boot(1);
            desk.world = crate::fixture::world(1, desk.now);
            desk.runs(0, "old");
            desk.world.nodes[0].failed_in = Some(("bos".into(), "before".into()));
            match swap {
                "emptied" => {
                    changed(&mut desk, |inventory| facts(inventory, 0).state = Some("Empty".into()));
                    assert!(desk.world.nodes[0].reported.is_some(), "an empty slot changes nothing yet");
                    changed(&mut desk, |inventory| facts(inventory, 0).state = Some("Off".into()));
                }
                "other MAC" => {
                    let mut macs = |macs: &[&str]| {
                        let macs = macs.iter().map(|mac| (*mac).into()).collect();
                        desk.world.fold_interfaces([(xname(0), macs)].into(), desk.now);
                        desk.world.nodes[0].reported.is_some()
                    };
                    assert!(macs(&["a", "b"]), "what is known for the first time says nothing");
                    assert!(macs(&["b", "c"]), "a new interface is no new node");
                    assert!(macs(&[]), "nor is an inventory without any");
                    assert!(!macs(&["d"]));
                }
                "other NID" => {
                    changed(&mut desk, |inventory| facts(inventory, 0).nid = Some(1));
                    assert!(desk.world.nodes[0].reported.is_some(), "a NID that is known for the first time says nothing");
                    changed(&mut desk, |inventory| facts(inventory, 0).nid = Some(2));
                }
                _ => {
                    desk.world.nodes[0].facts = None;
                    desk.world.nodes[0].before.nid = Some(1);
                    changed(&mut desk, |inventory| facts(inventory, 0).nid = Some(2));
                }
            }
            let node = &desk.world.nodes[0];
            assert!(node.reported.is_none() && node.failed_in.is_none(), "{swap}");
            let before = BootComponentStatus {
                status: Some(bos_crds::NodeStatus::Failed),
                actual_state: Some(bos_crds::ActualState::default()),
                ..BootComponentStatus::default()
            };
            let shown = component(&desk.world, NodeId(0), &before, 1, desk.now);
            assert_eq!((shown.status, shown.reason.as_str()), (Some(bos_crds::NodeStatus::Stable), reasons::NODE_REPLACED), "{swap}");
            assert_eq!((shown.actual_state, shown.last_action), (None, Some(bos_crds::LastAction::NewlyDiscovered)));
        }
    }

    #[test]
    fn a_node_that_hsm_lists_no_more_is_said_and_not_forgotten() {
        let mut desk = boot(20);
        changed(&mut desk, |inventory| drop(inventory.nodes.remove(&xname(7))));
        let shown = |desk: &Desk| component(&desk.world, NodeId(7), &BootComponentStatus::default(), 1, desk.now);
        let condition = shown(&desk).conditions.pop().unwrap();
        assert_eq!((condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str()), ("InInventory", "False", "NotInHSM"));
        changed(&mut desk, |_| ());
        assert!(shown(&desk).conditions.is_empty());
        assert!(desk.world.nodes[7].drive.is_some());
    }
}

mod age {
    use super::*;

    #[test]
    fn an_old_report_expires_and_touches_nothing_else() {
        let mut desk = boot(1);
        desk.world = crate::fixture::world(1, START);
        let _ = desk.report(0, &token());
        desk.world.nodes[0].reported.as_mut().unwrap().artifacts = Some(crate::fixture::digest("new"));
        let since = desk.world.nodes[0].reported.as_ref().unwrap().since;
        desk.wait(desk.world.options.actual_state_ttl - MINUTE);
        let _ = desk.pass();
        assert!(!desk.world.nodes[0].reported.as_ref().unwrap().expired);
        desk.world.touched.clear();
        desk.wait(2 * MINUTE);
        let _ = desk.pass();
        let report = desk.world.nodes[0].reported.clone().unwrap();
        assert!(report.expired && report.token == token());
        assert!(desk.world.touched.contains(&NodeId(0)));
        // Heard again, it is the same boot as before.
        let _ = desk.report(0, &token());
        let report = desk.world.nodes[0].reported.clone().unwrap();
        assert!(!report.expired && report.since == since && report.artifacts.is_some());
    }

    #[test]
    fn the_time_in_which_nobody_listened_does_not_count() {
        let mut desk = boot(1);
        desk.world = crate::fixture::world(1, START);
        let _ = desk.report(0, &token());
        desk.wait(desk.world.options.actual_state_ttl + MINUTE);
        desk.world.reports.listening_since = Some(desk.now - MINUTE);
        let _ = desk.pass();
        assert!(!desk.world.nodes[0].reported.as_ref().unwrap().expired);
    }

    #[test]
    fn sessions_that_ended_long_ago_are_removed_unless_a_gitops_tool_tracks_them() {
        let mut desk = boot(1);
        let ttl = desk.world.options.session_ttl.unwrap();
        for (uid, ended, tracked) in [("old", START, false), ("tracked", START, true), ("young", START + ttl, false)] {
            let spec = SessionSpec { running_nodes: RunningNodes::Leave, ..SessionSpec::new(Operation::Boot, "template") };
            let object = bos_core::session::SessionSeen { tracked, complete: Some(ended), ..seen(uid, at(0), spec) };
            desk.world.fold_session(object, START);
        }
        desk.now = START + ttl + MINUTE;
        let removed =
            |effects: Vec<Effect>| effects.into_iter().filter(|effect| matches!(effect, Effect::RemoveSession(_))).collect::<Vec<_>>();
        assert_eq!(removed(desk.pass()), [Effect::RemoveSession("old".into())]);
        assert_eq!(removed(desk.pass()), [], "it is on its way");
        desk.wait(MINUTE);
        assert_eq!(removed(desk.pass()), [Effect::RemoveSession("old".into())], "it did not arrive");
        desk.world.options.session_ttl = None;
        desk.wait(10 * MINUTE);
        assert_eq!(removed(desk.pass()), []);
    }
}

/// Somebody deleted the record of a Session, and the operator started again.
mod lost_records {
    use bos_core::model::World;
    use bos_core::project_session::session;
    use bos_crds::{LastSession, NodeStatus, SessionCounts, SessionStatus};

    use super::*;
    use crate::fixture::world;

    #[test]
    fn a_node_that_was_driven_is_shown_as_failed_in_that_session() {
        let mut shown = BootComponentStatus { enabled: true, status: Some(NodeStatus::PowerOnCalled), ..BootComponentStatus::default() };
        let (namespace, name) = ("bos".into(), "name-of-first".into());
        shown.last_session = Some(LastSession { namespace, name, uid: "first".into(), outcome: "".into() });
        let now = component(&world(1, START), NodeId(0), &shown, 1, START);
        assert!(!now.enabled);
        assert_eq!(now.reason, reasons::RECORDS_LOST);
        let last = now.last_session.unwrap();
        assert_eq!((&*last.name, &*last.outcome), ("name-of-first", "Failed"));
    }

    fn lost() -> (World, SessionUid) {
        let mut world = world(4, START);
        let uid: SessionUid = "first".into();
        let spec = SessionSpec::new(Operation::Boot, "template");
        world.ran.insert(("bos".into(), "name-of-first".into()), uid.clone());
        world.fold_session(seen("first", START, spec), START);
        let _ = bos_core::pass::run(&mut world, START);
        (world, uid)
    }

    #[test]
    fn what_was_open_in_the_session_is_counted_as_failed_once() {
        let (world, uid) = lost();
        let counts = SessionCounts { nodes: 4, done: 2, succeeded: 1, failed: 1, powering_on: 2, ..SessionCounts::default() };
        let mut shown = SessionStatus { counts, progress: "50%".into(), ..SessionStatus::default() };
        for _ in 0..2 {
            shown = session(&world, &world.sessions[&uid], &shown, START);
            let expected = SessionCounts { nodes: 4, done: 4, succeeded: 1, failed: 3, ..SessionCounts::default() };
            assert_eq!((shown.counts, &*shown.progress), (expected, "100%"));
        }
        assert!(shown.percentages.failed.starts_with("75"), "{:?}", shown.percentages);
    }

    #[test]
    fn nothing_is_counted_where_nothing_had_been_resolved() {
        let (world, uid) = lost();
        let shown = session(&world, &world.sessions[&uid], &SessionStatus::default(), START);
        assert_eq!((shown.counts, &*shown.progress), (SessionCounts::default(), ""));
    }
}

/// A look that says what was known before is shown all the same if nothing had been asked since.
mod first_look {
    use super::*;

    #[test]
    fn after_a_restart_is_news() {
        let mut desk = boot(1);
        desk.powered_on();
        desk.restart(MINUTE);
        let _ = desk.pass();
        // As the engine loads what is shown of it.
        desk.world.nodes[0].power = Some(PowerSeen { power: Power::On, at: Timestamp::default(), detail: "".into() });
        desk.world.touched.clear();
        desk.power(0, Power::On);
        assert!(desk.world.touched.contains(&NodeId(0)));
        desk.world.touched.clear();
        desk.wait(SECOND);
        desk.power(0, Power::On);
        assert!(desk.world.touched.is_empty(), "every further look would be a write");
    }
}
