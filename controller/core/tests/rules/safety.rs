//! Safety of running nodes: rules 7 to 10.

use crate::MINUTE;
use crate::SECOND;
use crate::boot;
use crate::boot_with;
use crate::desk::Desk;
use crate::desk::is_power;
use crate::desk::token;
use crate::fixture::START;
use crate::fixture::at;
use crate::fixture::digest;
use crate::fixture::plan;
use crate::fixture::reported;
use crate::fixture::run_plan;
use crate::fixture::seen;
use crate::fixture::setup;
use crate::fixture::snapshot as inventory;
use crate::fixture::world;
use crate::seen_on_at_the_deadline;
use crate::silent;
use bos_core::batch::Outcome;
use bos_core::batch::Task;
use bos_core::fold::ReportNeeds;
use bos_core::journal::Journal;
use bos_core::journal::snapshot as journal_of;
use bos_core::model::ConfigStatus;
use bos_core::model::EndKind;
use bos_core::model::HoldReason;
use bos_core::model::NodeId;
use bos_core::model::Phase;
use bos_core::model::Power;
use bos_core::model::PowerAction;
use bos_core::model::SessionUid;
use bos_core::model::Token;
use bos_core::model::World;
use bos_core::plan::PlannedOperation;
use bos_core::running::Order;
use bos_core::session::SessionOutcome;
use bos_core::session::Stage;
use bos_core::want::Effect;
use bos_crds::Operation;
use bos_crds::SessionSpec;
use bos_crds::reasons;

mod rule_07_no_second_power_cycle {
    use super::*;

    #[test]
    fn a_restart_between_record_and_answer_sends_nothing_again() {
        let mut desk = boot(1);
        desk.runs(0, "old");
        let _ = desk.pass();
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
        desk.restart(SECOND);
        let _ = desk.pass();
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty(), "it may have been sent: it is waited out");
        assert_eq!(desk.drive(0).attempts.graceful, 1);
    }

    #[test]
    fn a_node_that_somebody_booted_since_is_left_alone() {
        let mut desk = boot(1);
        desk.runs(0, "old");
        let _ = desk.pass();
        desk.wait(MINUTE);
        desk.world.nodes[0].reported.as_mut().unwrap().since = desk.now;
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reasons::LEFT_RUNNING)));
    }

    #[test]
    fn whatever_the_operation_is() {
        for operation in [PlannedOperation::Reboot, PlannedOperation::Shutdown] {
            let mut desk = Desk::new(1, plan(operation, 1, "new", ""));
            desk.runs(0, "old");
            let _ = desk.pass();
            desk.wait(MINUTE);
            desk.world.nodes[0].reported.as_mut().unwrap().since = desk.now;
            desk.power(0, Power::On);
            assert!(desk.leaves().is_empty(), "{operation:?}");
            assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reasons::LEFT_RUNNING)));
        }
    }

    /// The session it was taken from has powered it on; that nobody else did is no reason to leave it with the older image.
    #[test]
    fn but_not_one_that_comes_up_by_the_power_on_of_the_older_session() {
        for restarted in [false, true] {
            let mut desk = boot(1);
            let _ = desk.pass();
            desk.power(0, Power::Off);
            let call = desk.prepared();
            desk.carried_out(&call);
            let newer = plan(PlannedOperation::Boot, 1, "newer", "");
            let uid = run_plan(&mut desk.world, "second", newer.clone(), desk.now);
            if restarted {
                let journal = journal_of(&desk.world, &desk.world.sessions[&uid], desk.now).unwrap();
                desk.wait(SECOND);
                let mut world = crate::fixture::world(1, desk.now);
                run_plan(&mut world, "second", newer, desk.now);
                world.resume(&uid, journal, desk.now).unwrap();
                world.nodes[0].reported = None;
                desk.world = world;
            }
            desk.wait(MINUTE);
            let _ = desk.report(0, &token());
            desk.world.nodes[0].reported.as_mut().unwrap().artifacts = Some(crate::fixture::digest("new"));
            desk.power(0, Power::On);
            assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff), "restarted: {restarted}");
        }
    }

    #[test]
    fn even_if_the_operator_was_restarted_after_that() {
        let mut desk = boot(1);
        desk.wait(MINUTE);
        let booted = desk.now;
        desk.wait(MINUTE);
        desk.restart(MINUTE);
        desk.runs(0, "old");
        desk.world.nodes[0].reported.as_mut().unwrap().since = booted;
        let _ = desk.pass();
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reasons::LEFT_RUNNING)));
    }

    #[test]
    fn a_node_that_somebody_boots_while_it_is_configured_is_left_alone() {
        let mut desk = boot_with(1, |plan| plan.boot_sets[0].configuration = "conf".into());
        desk.powered_on();
        desk.wait(MINUTE);
        let _ = desk.report(0, &token());
        let _ = desk.pass();
        desk.wait(MINUTE);
        let _ = desk.report(0, &Token("foreign".into()));
        desk.configuration(0, "conf", ConfigStatus::Configured);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reasons::LEFT_RUNNING)));
    }

    #[test]
    fn a_report_stops_a_power_off_that_has_not_left() {
        let mut desk = boot(1);
        desk.powered_on();
        desk.wait(desk.world.options.max_boot_wait);
        desk.power(0, Power::On);
        let effects = desk.pass();
        let Some(Effect::Record(batch)) = effects.last().cloned() else { panic!("{effects:?}") };
        assert_eq!(desk.report(0, &token()), ReportNeeds::Journal(desk.uid.clone()));
        assert_eq!(desk.world.release(batch, desk.now), None);
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
    }

    #[test]
    fn a_power_off_of_a_node_that_somebody_boots_meanwhile_is_withdrawn() {
        let mut desk = boot(1);
        desk.runs(0, "old");
        let _ = desk.pass();
        desk.power(0, Power::On);
        let effects = desk.pass();
        let Some(Effect::Record(batch)) = effects.last().cloned() else { panic!("{effects:?}") };
        desk.wait(SECOND);
        assert_eq!(desk.report(0, &Token("somebody's".into())), ReportNeeds::Status(NodeId(0)));
        assert_eq!(desk.world.release(batch, desk.now), None);
        assert_eq!((desk.drive(0).attempts.graceful, desk.drive(0).action, desk.world.nodes[0].batch), (0, None, None));
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reasons::LEFT_RUNNING)));
    }

    #[test]
    fn nor_is_one_powered_on_that_somebody_switches_on_meanwhile() {
        let mut desk = boot(1);
        desk.parameters_stored();
        let effects = desk.pass();
        let Some(Effect::Record(batch)) = effects.last().cloned() else { panic!("{effects:?}") };
        desk.wait(SECOND);
        desk.power(0, Power::On);
        assert_eq!(desk.world.release(batch, desk.now), None);
        assert_eq!((desk.drive(0).attempts.on, desk.drive(0).action), (0, None));
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reasons::LEFT_RUNNING)));
    }

    #[test]
    fn what_somebody_boots_with_the_wanted_image_is_a_success() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let _ = desk.one();
        desk.wait(SECOND);
        desk.world.nodes[0].reported = Some(reported(Token("somebody's".into()), Some(digest("new")), desk.now));
        desk.power(0, Power::On);
        desk.world.batches.clear();
        desk.world.nodes[0].batch = None;
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
    }

    #[test]
    fn nor_is_one_that_came_up_for_us_and_was_switched_off_and_on_by_somebody() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Reboot, 1, "new", "conf"));
        desk.powered_on();
        let _ = desk.report(0, &token());
        let _ = desk.pass();
        desk.wait(2 * MINUTE);
        // Both looks came in before the next pass.
        desk.power(0, Power::Off);
        desk.wait(SECOND);
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reasons::LEFT_RUNNING)));
    }

    /// Status operator and power-off operators judge by the same look: one that is too old for the first is too old for the others.
    #[test]
    fn nor_is_it_forced_when_the_time_of_a_boot_has_passed_since_the_look() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Shutdown, 1, "", ""));
        let _ = desk.pass();
        desk.power(0, Power::On);
        let call = desk.one();
        desk.answer(call.id, Outcome::Unknown { detail: "reset".into() });
        let boot_by = desk.drive(0).action.unwrap().boot_by;
        let asked = boot_by - SECOND;
        desk.now = boot_by + SECOND;
        desk.world.fold_power(&[NodeId(0)], asked, Ok(vec![(NodeId(0), Power::On, "".into())]), desk.now);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
    }

    #[test]
    fn a_shutdown_that_may_never_have_been_heard_is_asked_for_again_and_not_forced() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Shutdown, 1, "", ""));
        let _ = desk.pass();
        desk.power(0, Power::On);
        let call = desk.one();
        desk.answer(call.id, Outcome::Unknown { detail: "reset".into() });
        desk.wait(desk.world.options.max_power_off_wait);
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
    }
}

mod rule_08_silence {
    use super::*;

    #[test]
    fn a_few_silent_nodes_are_cycled() {
        let call = silent(8).one();
        assert_eq!((call.order, call.nodes.len()), (Order::Power(PowerAction::SoftOff), 8));
    }

    #[test]
    fn of_many_that_are_silent_together_none_is() {
        let mut desk = silent(9);
        assert!(desk.leaves().is_empty());
        assert!(desk.run().mass_timeout.is_some());
        assert_eq!(desk.drive(0).hold.map(|hold| hold.reason), Some(HoldReason::MassBootTimeout));
        desk.wait(desk.world.options.max_boot_wait);
        desk.power_of_all(Power::On);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(8), Some((EndKind::Failed, reasons::MASS_BOOT_TIMEOUT)));
    }

    /// Those that are up and being configured are past the deadline for their boot too.
    #[test]
    fn those_that_have_booted_do_not_count_as_silent() {
        let mut desk = Desk::new(9, plan(PlannedOperation::Boot, 9, "new", "conf"));
        desk.powered_on();
        for index in 1..9 {
            let _ = desk.report(index, &token());
        }
        let _ = desk.pass();
        seen_on_at_the_deadline(&mut desk);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
        assert_eq!((desk.drive(8).phase, desk.run().mass_timeout), (Phase::Configuring, None));
    }

    #[test]
    fn silence_proves_nothing_while_nobody_listens() {
        let mut desk = silent(1);
        desk.world.reports.listening_since = None;
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.drive(0).hold.map(|hold| hold.reason), Some(HoldReason::ReportPathDown));
        desk.world.reports.listening_since = Some(desk.now);
        desk.wait(MINUTE);
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
    }

    /// It was to be cycled when nodes could be heard, and something held the power-off up.
    #[test]
    fn nor_when_nobody_listens_any_more_until_its_power_off_leaves() {
        let mut desk = silent(1);
        desk.world.nodes[0].suspended = true;
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.drive(0).phase, Phase::PoweringOff);
        desk.wait(MINUTE);
        desk.world.reports.listening_since = Some(desk.now);
        desk.world.nodes[0].suspended = false;
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.drive(0).hold.map(|hold| hold.reason), Some(HoldReason::ReportPathDown));
        desk.wait(MINUTE);
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
    }

    #[test]
    fn nor_is_a_power_off_that_was_lost_asked_for_again_while_nobody_listens() {
        let mut desk = silent(1);
        let call = desk.one();
        desk.answer(call.id, Outcome::Unknown { detail: "reset".into() });
        desk.wait(desk.world.options.max_power_off_wait);
        desk.world.reports.listening_since = Some(desk.now);
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        desk.wait(MINUTE);
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
    }

    #[test]
    fn a_node_that_reports_something_else_is_alive() {
        let mut desk = boot(1);
        desk.powered_on();
        let _ = desk.report(0, &Token("its own".into()));
        desk.wait(desk.world.options.max_boot_wait);
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::BOOT_TIMEOUT)));
    }

    #[test]
    fn nor_is_one_that_speaks_before_its_power_off_has_left() {
        for restarted in [false, true] {
            let mut desk = silent(1);
            desk.world.emergency_stop = true;
            assert!(desk.leaves().is_empty());
            assert_eq!(desk.drive(0).phase, Phase::PoweringOff);
            if restarted {
                desk.restart(SECOND);
                let _ = desk.pass();
                desk.power(0, Power::On);
            }
            let _ = desk.report(0, &Token("its own".into()));
            desk.world.emergency_stop = false;
            assert!(desk.leaves().is_empty());
            assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::BOOT_TIMEOUT)));
        }
    }

    #[test]
    fn nor_one_that_says_again_what_it_said_before_the_session() {
        let mut desk = silent(1);
        // It ran something of its own before, and came up with that again.
        desk.world.nodes[0].reported = Some(reported(Token("its own".into()), None, START));
        let effects = desk.pass();
        let Some(Effect::Record(batch)) = effects.last().cloned() else { panic!("{effects:?}") };
        desk.wait(SECOND);
        assert_eq!(desk.report(0, &Token("its own".into())), ReportNeeds::Status(NodeId(0)));
        assert_eq!(desk.world.release(batch, desk.now), None);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::BOOT_TIMEOUT)));
    }

    /// The journal tells of its boot to the minute, and of nothing that it said just before the operator died.
    #[test]
    fn a_boot_by_somebody_else_since_its_boot_is_not_hidden_by_a_restart() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Boot, 1, "new", "conf"));
        desk.powered_on();
        desk.wait(MINUTE);
        let _ = desk.report(0, &token());
        let _ = desk.pass();
        let journal = journal_of(&desk.world, &desk.world.sessions[&desk.uid], desk.now).unwrap().encode().unwrap();
        desk.wait(SECOND);
        assert_eq!(desk.report(0, &Token("somebody's".into())), ReportNeeds::Status(NodeId(0)));
        let status = desk.world.nodes[0].reported.clone();
        desk.wait(SECOND);
        desk.world = world(1, desk.now);
        desk.world.nodes[0].reported = status;
        let uid = run_plan(&mut desk.world, "first", desk.plan.clone(), desk.now);
        desk.world.resume(&uid, Journal::decode(&journal).unwrap(), desk.now).unwrap();
        desk.power(0, Power::On);
        desk.configuration(0, "conf", ConfigStatus::Configured);
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reasons::LEFT_RUNNING)));
    }

    #[test]
    fn even_if_only_its_status_says_so_after_a_restart() {
        let mut desk = boot(1);
        desk.powered_on();
        let journal = journal_of(&desk.world, &desk.world.sessions[&desk.uid], desk.now).unwrap().encode().unwrap();
        desk.wait(30 * SECOND);
        assert_eq!(desk.report(0, &Token("its own".into())), ReportNeeds::Status(NodeId(0)));
        let status = desk.world.nodes[0].reported.clone();
        desk.wait(10 * MINUTE);
        desk.world = world(1, desk.now);
        desk.world.nodes[0].reported = status;
        let uid = run_plan(&mut desk.world, "first", desk.plan.clone(), desk.now);
        desk.world.resume(&uid, Journal::decode(&journal).unwrap(), desk.now).unwrap();
        desk.now = desk.drive(0).action.unwrap().boot_by;
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::BOOT_TIMEOUT)));
        let message = desk.run().slots[0].end.as_ref().unwrap().message.clone();
        assert!(message.contains("image we do not know"), "{message}");
    }

    #[test]
    fn the_last_attempt_leaves_the_node_on() {
        let mut desk = boot(1);
        desk.world.options.retry_policy = 1;
        desk.powered_on();
        desk.wait(desk.world.options.max_boot_wait);
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::BOOT_TIMEOUT)));
    }
}

mod rule_09_inventory {
    use super::*;

    #[test]
    fn an_empty_or_shrunken_inventory_changes_nothing() {
        for count in [0, 10, 18] {
            let mut world = world(20, at(0));
            assert!(world.fold_inventory(Ok(inventory(count)), at(1)).is_empty());
            assert_eq!(world.nodes.iter().filter(|node| node.facts.is_some()).count(), 20);
            assert!(world.discovery.fault.is_some(), "{count}");
        }
    }

    #[test]
    fn set_up_waits_for_a_complete_inventory() {
        let mut world = world(20, at(0));
        world.fold_session(seen("one", at(0), SessionSpec::new(Operation::Boot, "template")), at(0));
        assert_eq!(bos_core::pass::run(&mut world, at(1)), [Effect::SetUp("one".into())]);
        assert_eq!(world.fold_setup(&"one".into(), Ok(setup(10, "new", "", &[0, 1])), at(2)), None);
        assert!(matches!(&world.sessions[&"one".into()].stage, Stage::Pending(pending) if pending.waiting.contains("10 nodes")));
        assert_eq!(world.fold_setup(&"one".into(), Ok(setup(20, "new", "", &[0, 1])), at(9)), Some("one".into()));
    }

    #[test]
    fn and_is_not_begun_before_the_first_one_that_is_believed() {
        let mut world = World { install_namespace: "bos".into(), ..World::default() };
        world.fold_session(seen("one", at(0), SessionSpec::new(Operation::Boot, "template")), at(0));
        let sets_up = |effects: Vec<Effect>| effects.iter().any(|effect| matches!(effect, Effect::SetUp(_)));
        assert!(!sets_up(bos_core::pass::run(&mut world, at(1))));
        world.fold_inventory(Ok(inventory(0)), at(2));
        assert!(!sets_up(bos_core::pass::run(&mut world, at(3))));
        world.fold_inventory(Ok(inventory(2)), at(40));
        assert!(sets_up(bos_core::pass::run(&mut world, at(41))));
    }
}

mod rule_10_stopping {
    use super::*;

    /// A power-on is recorded; then somebody says stop; nothing leaves.
    fn nothing_leaves_after(stop: impl FnOnce(&mut Desk)) -> Desk {
        let mut desk = boot(1);
        desk.parameters_stored();
        let _ = desk.pass();
        stop(&mut desk);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.world.nodes[0].drive.as_ref().map_or(0, |drive| drive.attempts.on), 0, "no attempt");
        desk
    }

    fn edit(desk: &mut Desk, edit: impl FnOnce(&mut SessionSpec)) {
        edit(&mut desk.world.sessions.get_mut(&desk.uid).unwrap().spec);
    }

    #[test]
    fn cancel_sends_nothing_new_and_says_how_the_node_is_left() {
        let mut desk = nothing_leaves_after(|desk| edit(desk, |spec| spec.cancel = true));
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Cancelled, reasons::CANCELLED)));
        assert!(desk.run().slots[0].end.as_ref().unwrap().message.contains("left off"));
    }

    #[test]
    fn deletion_sends_nothing_new() {
        nothing_leaves_after(|desk| desk.world.fold_session_gone(&desk.uid.clone()));
    }

    #[test]
    fn suspension_sends_nothing_new_until_it_is_lifted() {
        let mut desk = nothing_leaves_after(|desk| edit(desk, |spec| spec.suspend = true));
        edit(&mut desk, |spec| spec.suspend = false);
        assert!(is_power(&desk.one()));
    }

    #[test]
    fn the_stop_switch_holds_power_actions_until_it_is_gone() {
        let mut desk = nothing_leaves_after(|desk| desk.world.emergency_stop = true);
        desk.world.emergency_stop = false;
        assert!(is_power(&desk.one()));
    }

    #[test]
    fn a_node_that_a_person_holds_gets_nothing() {
        nothing_leaves_after(|desk| desk.world.nodes[0].suspended = true);
    }

    #[test]
    fn what_was_accepted_is_followed_to_its_end() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        edit(&mut desk, |spec| spec.cancel = true);
        desk.wait(SECOND);
        assert!(desk.pass().contains(&Effect::Follow(call.id)));
        assert_eq!(desk.end(0), None);
    }
    #[test]
    fn cancel_does_not_give_a_node_away_while_a_call_may_still_take_effect() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::Unknown { detail: "reset".into() });
        edit(&mut desk, |spec| spec.cancel = true);
        let until = desk.drive(0).action.unwrap().power_by;
        desk.now = until - SECOND;
        desk.power(0, Power::Off);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), None);
        desk.now = until;
        desk.power(0, Power::Off);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::Cancelled, reasons::CANCELLED)));
    }

    /// A newer Session over a node that is being booted, stopped before its plan was durable.
    fn stopped_before_it_began(stop: impl Fn(&mut Desk, &SessionUid), planned_first: bool) {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        desk.wait(SECOND);
        let uid: SessionUid = "second".into();
        desk.world.fold_session(seen("second", desk.now, SessionSpec::new(Operation::Reboot, "template")), desk.now);
        assert!(desk.pass().contains(&Effect::SetUp(uid.clone())));
        let read = || Ok(setup(1, "newer", "", &[0]));
        if planned_first {
            assert_eq!(desk.world.fold_setup(&uid, read(), desk.now), Some(uid.clone()));
            stop(&mut desk, &uid);
            desk.world.start_session(&uid, desk.now);
        } else {
            stop(&mut desk, &uid);
            assert_eq!(desk.world.fold_setup(&uid, read(), desk.now), None);
        }
        let _ = desk.pass();
        assert_eq!((&desk.drive(0).session, desk.end(0)), (&desk.uid, None));
        let stage = desk.world.sessions.get(&uid).map(|session| &session.stage);
        assert!(stage.is_none_or(|stage| matches!(stage, Stage::Ended(ended) if ended.end.outcome == SessionOutcome::Cancelled)));
        desk.tasks(&call, Task::Succeeded);
        let _ = desk.report(0, &token());
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
    }

    #[test]
    fn a_session_cancelled_while_it_is_set_up_or_recorded_takes_no_node_from_a_running_one() {
        for planned_first in [false, true] {
            let cancel = |desk: &mut Desk, uid: &SessionUid| desk.world.sessions.get_mut(uid).unwrap().spec.cancel = true;
            stopped_before_it_began(cancel, planned_first);
            stopped_before_it_began(|desk, uid| desk.world.fold_session_gone(uid), planned_first);
        }
    }
}
