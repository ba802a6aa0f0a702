//! Truth, deadlines, beginnings: rules 2 to 6.

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
use crate::fixture::seen;
use crate::fixture::world;
use bos_core::batch::Outcome;
use bos_core::batch::Task;
use bos_core::fold::ReportNeeds;
use bos_core::health::Service;
use bos_core::model::Digest;
use bos_core::model::EndKind;
use bos_core::model::HoldReason;
use bos_core::model::NodeId;
use bos_core::model::POWER_FRESH;
use bos_core::model::Phase;
use bos_core::model::Power;
use bos_core::model::PowerAction;
use bos_core::model::Token;
use bos_core::plan::Evidence;
use bos_core::plan::PlannedOperation;
use bos_core::plan::RunningPolicy;
use bos_core::running::Dispatch;
use bos_core::running::Order;
use bos_core::session::SessionOutcome;
use bos_core::session::Stage;
use bos_core::want::Effect;
use bos_crds::Operation;
use bos_crds::SessionSpec;
use bos_crds::reasons;

mod rule_02_unknown_is_not_an_answer {
    use super::*;

    #[test]
    fn unknown_power_holds_the_node_and_ends_in_failure_at_its_own_deadline() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Unknown);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.drive(0).hold.map(|hold| hold.reason), Some(HoldReason::PowerUnknown));
        desk.wait(14 * MINUTE);
        desk.power(0, Power::Unknown);
        assert!(desk.leaves().is_empty());
        desk.wait(MINUTE);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), None, "the deadline alone does not end it: the node is looked at again");
        desk.power(0, Power::Unknown);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::POWER_UNKNOWN)));
    }

    #[test]
    fn a_node_that_the_power_service_does_not_name_is_unknown() {
        let mut desk = boot(2);
        let _ = desk.pass();
        desk.world.fold_power(&[NodeId(0), NodeId(1)], desk.now, Ok(vec![(NodeId(0), Power::Off, "".into())]), desk.now);
        let _ = desk.pass();
        assert_eq!(desk.drive(1).hold.map(|hold| hold.reason), Some(HoldReason::PowerUnknown));
        let asked_again = desk.pass().iter().any(|effect| matches!(effect, Effect::ReadPower(_)));
        assert!(!asked_again, "it is not asked about in a tight loop");
    }

    #[test]
    fn an_off_that_a_newer_report_contradicts_is_unknown() {
        let mut desk = boot(1);
        let _ = desk.pass();
        let _ = desk.report(0, &Token("somebody's".into()));
        desk.wait(20 * SECOND);
        desk.power(0, Power::Off);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.drive(0).hold.map(|hold| hold.reason), Some(HoldReason::PowerUnknown));
    }

    /// A node is rebooted, and PCS has accepted to switch it off.
    fn goes_down() -> (Desk, Dispatch) {
        let mut desk = Desk::new(1, plan(PlannedOperation::Reboot, 1, "new", ""));
        desk.runs(0, "old");
        let _ = desk.pass();
        desk.power(0, Power::On);
        let off = desk.one();
        desk.answer(off.id, Outcome::Accepted { transition: "transition".into() });
        (desk, off)
    }

    /// It says something meanwhile, and then PCS says that it is off.
    fn says_while_it_goes_down(said: &str, prepare: impl FnOnce(&mut bos_core::drive::Drive)) -> Desk {
        let (mut desk, off) = goes_down();
        prepare(desk.world.nodes[0].drive.as_mut().unwrap());
        desk.wait(SECOND);
        let _ = desk.report(0, &Token(said.into()));
        desk.tasks(&off, Task::Succeeded);
        desk
    }

    #[test]
    fn a_node_that_says_the_same_again_while_we_switch_it_off_does_not_contradict_that() {
        let mut desk = says_while_it_goes_down("old", |_| ());
        assert!(matches!(desk.one().order, Order::BootParameters { .. }));
    }

    #[test]
    fn but_one_that_speaks_of_another_boot_does() {
        let mut desk = says_while_it_goes_down("somebody's", |_| ());
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.world.nodes[0].power_since(desk.now), Some(Power::Unknown));
    }

    #[test]
    fn and_so_does_one_that_speaks_after_the_look() {
        let (mut desk, _) = goes_down();
        let asked = desk.now;
        desk.wait(SECOND);
        let _ = desk.report(0, &Token("old".into()));
        desk.world.fold_power(&[NodeId(0)], asked, Ok(vec![(NodeId(0), Power::Off, "".into())]), desk.now);
        assert_eq!(desk.world.nodes[0].power_since(asked), Some(Power::Unknown));
    }

    #[test]
    fn and_so_does_every_word_of_one_that_is_cycled_for_its_silence() {
        let mut desk = says_while_it_goes_down("old", |drive| drive.last_on = Some(START));
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.world.nodes[0].power_since(desk.now), Some(Power::Unknown));
    }

    #[test]
    fn an_answer_that_was_asked_before_the_session_took_the_node_is_no_answer() {
        let mut desk = boot(1);
        desk.world.fold_power(&[NodeId(0)], desk.now - SECOND, Ok(vec![(NodeId(0), Power::Off, "".into())]), desk.now);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.drive(0).phase, Phase::None);
    }
}

mod rule_03_booted_on_evidence {
    use super::*;

    #[test]
    fn a_boot_leaves_and_counts_a_running_node_whose_image_nobody_knows() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reasons::UNKNOWN_IMAGE_RUNNING)));
    }

    #[test]
    fn unless_running_nodes_is_restart() {
        let mut desk = boot_with(1, |plan| plan.running = RunningPolicy::Restart);
        let _ = desk.pass();
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
    }

    /// A person who wants that too says Reboot.
    #[test]
    fn nor_is_a_node_that_runs_the_image_restarted_by_a_boot() {
        for running in [RunningPolicy::RestartIfDifferent, RunningPolicy::Leave, RunningPolicy::Restart] {
            let mut desk = boot_with(1, |plan| plan.running = running);
            desk.runs(0, "new");
            let _ = desk.pass();
            desk.power(0, Power::On);
            assert!(desk.leaves().is_empty(), "{running:?}");
            assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")), "{running:?}");
        }
    }

    #[test]
    fn an_image_reported_too_long_ago_is_unknown() {
        let mut desk = boot(1);
        desk.runs(0, "old");
        desk.wait(4 * 60 * MINUTE);
        let _ = desk.pass();
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reasons::UNKNOWN_IMAGE_RUNNING)));
    }

    #[test]
    fn another_known_image_is_cycled_and_the_wanted_one_is_left() {
        let mut desk = boot(2);
        desk.runs(0, "old");
        desk.runs(1, "new");
        let _ = desk.pass();
        desk.power_of_all(Power::On);
        let call = desk.one();
        assert_eq!((call.order, call.nodes.len(), call.nodes[0].0), (Order::Power(PowerAction::SoftOff), 1, NodeId(0)));
        assert_eq!(desk.end(1), Some((EndKind::Succeeded, "")));
    }

    #[test]
    fn power_alone_or_a_token_of_another_boot_is_no_success() {
        let mut desk = boot(1);
        desk.powered_on();
        let _ = desk.report(0, &Token("token-of-yesterday".into()));
        let _ = desk.pass();
        assert_eq!((desk.end(0), desk.drive(0).booted), (None, None));
        assert_eq!(desk.report(0, &token()), ReportNeeds::Journal(desk.uid.clone()));
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
    }

    /// HSM may go on calling a node Ready that was switched off and on.
    #[test]
    fn ready_all_along_is_no_success() {
        let mut desk = boot_with(1, |plan| plan.evidence = Evidence::HsmReady);
        desk.powered_on();
        let says = |desk: &mut Desk, ready: bool| {
            desk.wait(SECOND);
            desk.world.fold_states(&[NodeId(0)], desk.now, Ok(vec![(NodeId(0), ready)]), desk.now);
            let _ = desk.pass();
        };
        says(&mut desk, true);
        assert_eq!((desk.end(0), desk.drive(0).booted), (None, None));
        says(&mut desk, false);
        assert_eq!((desk.end(0), desk.drive(0).booted), (None, None));
        says(&mut desk, true);
        assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
    }

    /// Rule 14: an outage of HSM, which is to say that nodes are up, fails none of them, however long it lasts.
    #[test]
    fn an_outage_of_hsm_is_no_silence_of_nodes_that_it_tells_of() {
        let mut desk = boot_with(2, |plan| plan.evidence = Evidence::HsmReady);
        desk.powered_on();
        let nodes = [NodeId(0), NodeId(1)];
        desk.world.services.failed(Service::Hsm, "503", desk.now);
        for _ in 0..4 {
            desk.wait(desk.world.options.max_boot_wait);
            desk.power_of_all(Power::On);
            let _ = desk.pass();
            assert_eq!((desk.end(0), desk.drive(0).hold), (None, None));
        }
        // It is back, and hears of its nodes again: of one after a while, of the other never.
        desk.world.fold_states(&nodes, desk.now, Ok(nodes.map(|id| (id, false)).to_vec()), desk.now);
        let _ = desk.pass();
        assert_eq!((desk.end(0), desk.drive(0).phase), (None, Phase::PoweringOn));
        desk.wait(10 * SECOND);
        desk.world.fold_states(&nodes, desk.now, Ok(vec![(NodeId(0), true), (NodeId(1), false)]), desk.now);
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
        desk.wait(MINUTE);
        desk.power_of_all(Power::On);
        desk.world.fold_states(&nodes, desk.now, Ok(vec![(NodeId(1), false)]), desk.now);
        for _ in 0..3 {
            let _ = desk.pass();
        }
        assert_eq!(desk.drive(1).phase, Phase::PoweringOff, "it is silent, and HSM says so");
    }

    #[test]
    fn a_node_that_is_off_again_while_it_is_configured_is_powered_on_anew() {
        let mut desk = boot_with(1, |plan| plan.boot_sets[0].configuration = "conf".into());
        desk.powered_on();
        let _ = desk.report(0, &token());
        let _ = desk.pass();
        assert_eq!(desk.drive(0).phase, Phase::Configuring);
        desk.wait(MINUTE);
        desk.power(0, Power::Off);
        assert_eq!(desk.prepared().order, Order::Power(PowerAction::On));
        assert_eq!(desk.drive(0).attempts.on, 2);
    }

    #[test]
    fn no_more_nodes_are_cycled_than_max_power_cycled_says_even_in_one_pass() {
        let mut desk = boot_with(5, |plan| plan.max_power_cycled = Some(2));
        for index in 0..5 {
            desk.runs(index, "old");
        }
        let _ = desk.pass();
        desk.power_of_all(Power::On);
        assert_eq!(desk.one().nodes.len(), 2);
        assert_eq!(desk.end(4), Some((EndKind::LeftRunning, reasons::MAX_POWER_CYCLED)));
    }
}

mod rule_03_after_a_restart {
    use super::*;

    fn reported(desk: &Desk) -> Option<(Token, Option<Digest>)> {
        desk.world.nodes[0].reported.as_ref().map(|report| (report.token.clone(), report.artifacts.clone()))
    }

    #[test]
    fn an_answered_report_is_known_though_no_status_shows_it() {
        let mut desk = boot(1);
        desk.powered_on();
        desk.wait(SECOND);
        desk.report(0, &token());
        let known = reported(&desk);
        assert_eq!(known, Some((token(), Some(digest("new")))));
        desk.restart(SECOND);
        assert_eq!(reported(&desk), known);
    }

    #[test]
    fn so_is_that_of_a_node_which_is_done() {
        let mut desk = boot(1);
        desk.powered_on();
        desk.wait(SECOND);
        desk.report(0, &token());
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
        let known = reported(&desk);
        desk.restart(SECOND);
        assert_eq!(reported(&desk), known);
    }

    /// It was answered at once, for the journal holds that the node is up: but not with which token.
    #[test]
    fn what_the_journal_does_not_hold_waits_for_the_status_however_often_it_is_said() {
        let mut desk = boot_with(1, |plan| plan.boot_sets[0].configuration = "conf".into());
        desk.powered_on();
        desk.wait(SECOND);
        let _ = desk.report(0, &token());
        let _ = desk.pass();
        desk.world.journal_due.clear();
        assert_eq!(desk.report(0, &token()), ReportNeeds::Repeat(desk.uid.clone()));
        for _ in 0..2 {
            desk.wait(SECOND);
            assert_eq!(desk.report(0, &Token("somebody's".into())), ReportNeeds::Status(NodeId(0)));
        }
    }
}

mod rule_04_deadlines {
    use super::*;

    #[test]
    fn an_edited_option_does_not_move_a_deadline_that_runs() {
        let mut desk = boot(1);
        desk.powered_on();
        let deadline = desk.drive(0).action.unwrap().boot_by;
        desk.world.options.max_boot_wait = SECOND;
        desk.wait(MINUTE);
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.drive(0).action.unwrap().boot_by, deadline);
    }

    #[test]
    fn our_own_downtime_does_not_count() {
        let mut desk = boot(1);
        desk.powered_on();
        let left = desk.drive(0).action.unwrap().boot_by.since(desk.now);
        desk.restart(60 * MINUTE);
        assert_eq!(desk.drive(0).action.unwrap().boot_by.since(desk.now), left);
    }

    /// A node that was asked to go off, by a session that began to be asked then.
    fn asked_to_go_off() -> Desk {
        let mut desk = Desk::new(1, plan(PlannedOperation::Shutdown, 1, "", ""));
        let _ = desk.pass();
        desk.power(0, Power::On);
        let call = desk.one();
        desk.answer(call.id, Outcome::Accepted { transition: "transition".into() });
        desk.tasks(&call, Task::Open);
        desk
    }

    #[test]
    fn nor_does_it_cut_the_power_of_a_node_that_is_going_off() {
        let mut desk = asked_to_go_off();
        desk.world.options.max_power_off_wait = SECOND;
        desk.wait(MINUTE);
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
    }

    #[test]
    fn nor_does_our_downtime_for_one_that_is_going_off() {
        let mut desk = asked_to_go_off();
        let left = desk.drive(0).action.unwrap().power_by.since(desk.now);
        desk.restart(60 * MINUTE);
        assert_eq!(desk.drive(0).action.unwrap().power_by.since(desk.now), left);
    }

    #[test]
    fn the_time_until_a_call_may_leave_does_not_count() {
        let mut desk = boot(1);
        desk.parameters_stored();
        let _ = desk.pass();
        desk.wait(MINUTE);
        assert!(is_power(&desk.one()));
        assert_eq!(desk.drive(0).action.unwrap().boot_by.since(desk.now), desk.world.options.max_boot_wait);
    }

    #[test]
    fn a_look_from_before_an_action_says_nothing_about_it() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::Unknown { detail: "reset".into() });
        desk.wait(desk.world.options.max_power_on_wait);
        let _ = desk.pass();
        assert!(!desk.drive(0).action.unwrap().failed);
        desk.power(0, Power::Off);
        let _ = desk.pass();
        assert!(desk.drive(0).action.unwrap().failed);
    }

    #[test]
    fn a_fresh_look_precedes_every_escalation() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Shutdown, 1, "", ""));
        let _ = desk.pass();
        desk.power(0, Power::On);
        let call = desk.one();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        desk.world.fold_progress(call.id, desk.now, bos_core::batch::Progress::Gone, desk.now);
        desk.power(0, Power::On);
        desk.wait(desk.world.options.max_power_off_wait);
        assert!(desk.leaves().is_empty(), "its last look at the node is older than the deadline");
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::ForceOff));
    }

    #[test]
    fn a_graceful_power_off_that_pcs_gave_up_on_has_all_of_its_own_time() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Shutdown, 1, "", ""));
        let _ = desk.pass();
        desk.power(0, Power::On);
        let call = desk.one();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        let until = desk.drive(0).action.unwrap().power_by;
        desk.wait(MINUTE);
        desk.tasks(&call, Task::Failed { detail: "failed to achieve desired power state".into() });
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        desk.now = until - SECOND;
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        assert_eq!((desk.drive(0).attempts.graceful, desk.drive(0).attempts.forceful), (1, 0));
        desk.now = until;
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::ForceOff));
    }

    #[test]
    fn a_power_action_whose_look_grew_old_while_it_was_recorded_is_withdrawn() {
        let mut desk = boot(1);
        desk.parameters_stored();
        let effects = desk.pass();
        let Some(Effect::Record(batch)) = effects.last().cloned() else { panic!("{effects:?}") };
        desk.wait(POWER_FRESH + SECOND);
        assert_eq!(desk.world.release(batch, desk.now), None);
        assert_eq!((desk.drive(0).attempts.on, desk.drive(0).action, desk.world.nodes[0].batch), (0, None, None));
        assert!(desk.pass().contains(&Effect::ReadPower(vec![NodeId(0)])), "it is looked at anew");
        desk.power(0, Power::Off);
        assert_eq!(desk.one().order, Order::Power(PowerAction::On));
        assert_eq!(desk.drive(0).attempts.on, 1);
    }

    #[test]
    fn a_look_from_before_a_long_suspension_switches_nothing_off() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Reboot, 1, "new", ""));
        desk.world.emergency_stop = true;
        let _ = desk.pass();
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        desk.wait(60 * MINUTE);
        desk.world.emergency_stop = false;
        assert!(desk.leaves().is_empty());
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
    }
}

mod rule_05_nothing_starts_by_accident {
    use super::*;

    fn pending(change: impl FnOnce(&mut bos_core::session::SessionSeen), prepare: impl FnOnce(&mut bos_core::model::World)) -> Stage {
        let mut world = world(1, at(0));
        prepare(&mut world);
        let mut object = seen("one", at(0), SessionSpec::new(Operation::Boot, "template"));
        change(&mut object);
        let uid = object.uid.clone();
        world.fold_session(object, at(0));
        let _ = bos_core::pass::run(&mut world, at(1));
        world.sessions[&uid].stage.clone()
    }

    fn refused(stage: &Stage) -> Option<&str> {
        match stage {
            Stage::Ended(ended) if ended.end.outcome == SessionOutcome::NotStarted => Some(&ended.end.reason),
            _ => None,
        }
    }

    #[test]
    fn a_name_runs_once() {
        let stage = pending(|_| (), |world| drop(world.ran.insert(("bos".into(), "name-of-one".into()), "before".into())));
        assert_eq!(refused(&stage), Some(reasons::ALREADY_RAN));
        assert_eq!(refused(&pending(|_| (), |_| ())), None);
    }

    #[test]
    fn a_session_is_not_started_after_its_start_before() {
        let stage = pending(|object| object.spec.start_before = Some(bos_crds::Time(at(0).wall())), |_| ());
        assert_eq!(refused(&stage), Some(reasons::EXPIRED));
    }

    #[test]
    fn a_session_that_a_gitops_tool_tracks_needs_start_before() {
        assert_eq!(refused(&pending(|object| object.tracked = true, |_| ())), Some(reasons::START_BEFORE_REQUIRED));
    }

    #[test]
    fn a_session_whose_status_says_complete_does_nothing() {
        let stage = pending(|object| object.complete = Some(crate::fixture::START), |_| ());
        assert!(matches!(stage, Stage::Ended(ended) if ended.run.is_none()));
    }

    #[test]
    fn a_node_without_a_session_is_observed_and_not_driven() {
        let mut world = world(3, at(0));
        world.fold_power(&[NodeId(0)], at(1), Ok(vec![(NodeId(0), Power::Off, "".into())]), at(1));
        let effects = bos_core::pass::run(&mut world, at(1));
        assert!(effects.is_empty() && world.batches.is_empty(), "{effects:?}");
    }
}

mod rule_06_power_on_needs_what_it_boots {
    use super::*;

    #[test]
    fn boot_parameters_then_configuration_then_power() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Boot, 1, "new", "conf"));
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.one();
        assert!(matches!(call.order, Order::BootParameters { .. }));
        assert!(desk.leaves().is_empty(), "nothing before BSS has confirmed");
        desk.answer(call.id, Outcome::Stored { token: token() });
        let call = desk.one();
        assert_eq!(call.order, Order::Configuration { name: "conf".into(), enabled: false, clear_state: true });
        assert!(desk.leaves().is_empty(), "nothing before CFS has confirmed");
        desk.answer(call.id, Outcome::Configured { changed: vec![NodeId(0)] });
        assert_eq!(desk.one().order, Order::Power(PowerAction::On));
    }

    #[test]
    fn a_lost_answer_of_bss_confirms_nothing() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.one();
        desk.answer(call.id, Outcome::Unknown { detail: "reset".into() });
        desk.wait(MINUTE);
        desk.power(0, Power::Off);
        assert!(matches!(desk.one().order, Order::BootParameters { .. }));
    }

    #[test]
    fn a_node_that_cfs_does_not_know_is_not_powered_on() {
        let mut desk = Desk::new(2, plan(PlannedOperation::Boot, 2, "new", "conf"));
        let _ = desk.pass();
        desk.power_of_all(Power::Off);
        let call = desk.one();
        desk.answer(call.id, Outcome::Stored { token: token() });
        let call = desk.one();
        desk.answer(call.id, Outcome::Configured { changed: vec![NodeId(0)] });
        let call = desk.one();
        assert_eq!((call.order, call.nodes.len()), (Order::Power(PowerAction::On), 1));
    }

    #[test]
    fn a_second_power_on_has_boot_parameters_of_its_own() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        desk.tasks(&call, Task::Failed { detail: "BMC".into() });
        let _ = desk.pass();
        desk.now = desk.drive(0).not_before;
        desk.power(0, Power::Off);
        assert!(matches!(desk.one().order, Order::BootParameters { .. }));
    }
}
