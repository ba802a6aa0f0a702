//! What people read while a Session runs and afterwards: it must be true, name what is waited for, and say what comes next.

use crate::desk::{Desk, is_power};
use crate::fixture::{START, plan, run_plan, seen, setup, snapshot, xname};
use crate::silent;
use crate::{MINUTE, SECOND, boot, boot_with};
use bos_core::batch::{Outcome, Progress};
use bos_core::health::Service;
use bos_core::model::{EndKind, NodeId, Power, PowerAction, World};
use bos_core::plan::{PlannedOperation, RunningPolicy};
use bos_core::project::component;
use bos_core::project_session::{lasting, recovered, session};
use bos_core::running::Order;
use bos_core::session::Stage;
use bos_core::time::Timestamp;
use bos_core::xname::Xname;
use bos_crds::{BootComponentStatus, Condition, NodePhase, NodeStatus, Operation, SessionSpec, SessionStatus, conditions, reasons};

mod many_that_are_silent;

fn shown(desk: &Desk) -> SessionStatus {
    session(&desk.world, &desk.world.sessions[&desk.uid], &SessionStatus::default(), desk.now)
}

fn condition(status: &SessionStatus, type_: &str) -> Condition {
    status.conditions.iter().find(|condition| condition.type_ == type_).unwrap().clone()
}

fn node(desk: &Desk, index: u32) -> BootComponentStatus {
    component(&desk.world, NodeId(index), &BootComponentStatus::default(), 1, desk.now)
}

mod why_it_is_cycled {
    use super::*;

    const WHY: &str = "no report within 20 min of power-on 1; it never fetched its boot script; power-cycled";

    #[test]
    fn is_said_from_the_shutdown_to_the_next_power_on_also_after_a_restart() {
        let mut desk = silent(1);
        let call = desk.one();
        assert_eq!(call.order, Order::Power(PowerAction::SoftOff));
        let told = |desk: &Desk| node(desk, 0).message;
        assert!(told(&desk).contains(&format!("Switched off: {WHY}; power-on 2 of 3 follows.")), "{}", told(&desk));
        desk.carried_out(&call);
        assert!(told(&desk).contains(WHY), "{}", told(&desk));
        desk.restart(SECOND);
        assert!(told(&desk).contains(WHY), "{}", told(&desk));
        desk.power(0, Power::Off);
        let _ = desk.pass();
        assert!(told(&desk).contains(&format!("Power-on 2 of 3; before: {WHY}.")), "{}", told(&desk));
    }

    #[test]
    fn stands_in_its_history() {
        let mut desk = silent(1);
        let _ = desk.one();
        let last = node(&desk, 0).transitions.last().unwrap().clone();
        assert_eq!((&*last.to, last.reason.as_str()), ("PowerOffGracefullyCalled", reasons::BOOT_TIMEOUT));
    }

    #[test]
    fn and_it_is_counted_as_a_power_cycle() {
        let mut desk = silent(2);
        let _ = desk.report(1, &crate::desk::token());
        let call = desk.one();
        assert_eq!(shown(&desk).counts.power_cycled, 1);
        desk.carried_out(&call);
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.carried_out(&call);
        desk.restart(SECOND);
        let _ = desk.report(0, &crate::desk::token());
        let _ = desk.pass();
        assert!(desk.end(0).is_some());
        assert_eq!(shown(&desk).counts.power_cycled, 1);
    }
}

mod services {
    use super::*;

    #[test]
    fn an_outage_is_shown_only_where_the_service_is_needed() {
        for (operation, shown_for) in [(PlannedOperation::Boot, true), (PlannedOperation::Shutdown, false)] {
            let mut desk = Desk::new(1, plan(operation, 1, "new", ""));
            desk.world.services.failed(Service::Bss, "503", desk.now);
            let services = condition(&shown(&desk), conditions::SERVICES_AVAILABLE);
            assert_eq!(services.status == "False", shown_for, "{operation:?}: {}", services.message);
        }
    }

    #[test]
    fn a_phase_that_somebody_wrote_where_nothing_is_done_goes() {
        let world = Desk::new(1, plan(PlannedOperation::Boot, 0, "new", "")).world;
        let theirs = BootComponentStatus { phase: Some(NodePhase::None), ..BootComponentStatus::default() };
        assert_eq!(component(&world, NodeId(0), &theirs, 1, Timestamp::default()).phase, None);
    }

    /// After a restart nothing is asked of BSS before the node was seen off anew.
    #[test]
    fn a_node_that_waits_for_a_look_at_its_power_does_not_wait_for_bss() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let _ = desk.pass();
        assert_eq!(node(&desk, 0).reason, reasons::BOOT_PARAMETERS_PENDING);
        desk.restart(SECOND);
        assert_eq!(node(&desk, 0).reason, reasons::BOOT_PARAMETERS_PENDING, "the look takes no time");
        desk.world.services.failed(Service::Pcs, "503", desk.now);
        assert_eq!(node(&desk, 0).reason, reasons::SERVICE_UNAVAILABLE);
        assert_eq!(shown(&desk).message, "1 in progress: 1 waits for PCS, which is not available.");
        desk.power(0, Power::Off);
        assert_eq!(node(&desk, 0).reason, reasons::BOOT_PARAMETERS_PENDING);
    }

    #[test]
    fn an_outage_that_outlasts_the_session_is_not_called_waiting() {
        let mut desk = boot(1);
        desk.powered_on();
        desk.world.services.failed(Service::Bss, "503.", desk.now);
        let running = shown(&desk);
        let services = condition(&running, conditions::SERVICES_AVAILABLE);
        assert!(services.message.contains(": 503; tried again at least every 10 s"), "{}", services.message);
        let _ = desk.report(0, &crate::desk::token());
        let _ = desk.pass();
        let ended = session(&desk.world, &desk.world.sessions[&desk.uid], &running, desk.now);
        let services = condition(&ended, conditions::SERVICES_AVAILABLE);
        assert_eq!((services.status.as_str(), services.reason.as_str()), ("Unknown", reasons::COMPLETE));
        assert!(services.message.contains("until its end"), "{}", services.message);
    }

    #[test]
    fn the_end_of_an_outage_is_told_if_its_beginning_was() {
        let mut desk = boot(1);
        let spans = |desk: &Desk| {
            let session = &desk.world.sessions[&desk.uid];
            let lasting: Vec<_> = lasting(&desk.world, session, 2 * SECOND, desk.now).map(|(service, _)| service).collect();
            let over: Vec<_> = recovered(&desk.world, session, 2 * SECOND).map(|(service, ..)| service).collect();
            (lasting, over)
        };
        desk.world.services.failed(Service::Pcs, "503", desk.now);
        desk.wait(SECOND);
        assert_eq!(spans(&desk), (vec![], vec![]), "not yet worth an Event");
        desk.wait(SECOND);
        assert_eq!(spans(&desk), (vec![Service::Pcs], vec![]));
        desk.world.services.answered(Service::Pcs, desk.now);
        assert_eq!(spans(&desk), (vec![], vec![Service::Pcs]));
    }

    #[test]
    fn the_session_and_the_node_name_what_they_wait_for() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.one();
        desk.answer(call.id, Outcome::NotSent { service: Service::Bss, detail: "connection refused".into() });
        assert_eq!(shown(&desk).message, "1 in progress: 1 waits for BSS, which is not available.");
        let told = node(&desk, 0);
        assert_eq!(told.message, "BSS is not available: connection refused.");
        assert_eq!(told.next, "tried again at least every 10 s; no attempt is used");
    }
}

mod held_up {
    use super::*;

    #[test]
    fn by_a_person_is_shown_on_session_and_node() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let _ = desk.pass();
        desk.world.sessions.get_mut(&desk.uid).unwrap().spec.suspend = true;
        let told = node(&desk, 0);
        assert_eq!((told.reason.as_str(), told.next.as_str()), (reasons::SUSPENDED, "nothing is sent until it is resumed"));
        let status = shown(&desk);
        assert!(status.message.starts_with("Suspended: nothing new is sent until spec.suspend is false."), "{}", status.message);
        let reconciling = condition(&status, conditions::RECONCILING);
        assert_eq!((reconciling.status.as_str(), reconciling.reason.as_str()), ("True", reasons::SUSPENDED));
        assert!(condition(&status, conditions::STALLED).message.starts_with("Suspended"), "{status:?}");
    }

    #[test]
    fn by_a_hold_of_one_node_too() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let _ = desk.pass();
        desk.world.nodes[0].suspended = true;
        let told = node(&desk, 0);
        assert_eq!((told.reason.as_str(), told.message.as_str()), (reasons::SUSPENDED, "spec.suspend of this BootComponent is true."));
    }

    #[test]
    fn by_the_stop_switch_names_the_config_map() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        desk.world.emergency_stop = true;
        let _ = desk.pass();
        let told = node(&desk, 0);
        assert_eq!(told.message, "The ConfigMap bos-emergency-stop in namespace bos stops all power actions.");
        assert!(
            shown(&desk).message.contains("ConfigMap bos-emergency-stop in namespace bos; delete it to go on"),
            "{}",
            shown(&desk).message
        );
    }

    #[test]
    fn by_the_stop_switch_quotes_what_people_wrote_into_it() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        desk.world.emergency_stop = true;
        desk.world.stop_note = "alice: cooling".into();
        let _ = desk.pass();
        let switch = "ConfigMap bos-emergency-stop in namespace bos";
        assert_eq!(node(&desk, 0).message, format!("The {switch} stops all power actions: \"alice: cooling\"."));
        let status = shown(&desk);
        assert!(status.message.contains(&format!("({switch}: \"alice: cooling\"; delete it to go on)")), "{}", status.message);
        let told = condition(&status, conditions::STALLED).message;
        assert_eq!(told, format!("The {switch} stops all power actions: \"alice: cooling\"; delete it to go on."));
    }

    #[test]
    fn by_nothing_is_said_as_well() {
        let mut desk = boot(1);
        desk.powered_on();
        let status = shown(&desk);
        assert_eq!(condition(&status, conditions::STALLED).message, "Nothing holds it up.");
        assert_eq!(condition(&status, conditions::SERVICES_AVAILABLE).status, "True");
    }
}

mod what_pcs_says_has_failed {
    use super::*;
    use bos_core::batch::Task;

    /// All attempts but the last were used up within two seconds, and the controller answered again after ten.
    #[test]
    fn is_tried_again_after_a_pause_that_grows() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let mut call = desk.prepared();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        for pause in [15 * SECOND, 30 * SECOND] {
            desk.tasks(&call, Task::Failed { detail: "NodeBMC Communication Error".into() });
            let from = desk.now + pause;
            desk.power(0, Power::Off);
            assert!(desk.leaves().is_empty());
            let told = node(&desk, 0);
            assert_eq!((told.status, told.reason.as_str()), (Some(NodeStatus::PowerOnPending), reasons::AWAITING_RETRY));
            assert!(told.message.starts_with("The last power-on failed.") && told.message.contains("Communication Error"), "{told:?}");
            assert_eq!(told.next, format!("powered on from {} on", from.clock()));
            assert!(
                shown(&desk).message.contains("1 waits before the power action that failed is tried again"),
                "{}",
                shown(&desk).message
            );
            desk.now = from - SECOND;
            desk.power(0, Power::Off);
            assert!(desk.leaves().is_empty());
            desk.now = from;
            desk.power(0, Power::Off);
            call = desk.prepared();
            assert!(is_power(&call));
            desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        }
        desk.tasks(&call, Task::Failed { detail: "NodeBMC Communication Error".into() });
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::POWER_ON_TIMEOUT)), "and after the last attempt nothing is waited for");
    }

    #[test]
    fn is_forced_off_again_after_a_pause() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Shutdown, 1, "", ""));
        let _ = desk.pass();
        desk.power(0, Power::On);
        let call = desk.one();
        desk.carried_out(&call);
        desk.now = desk.drive(0).action.unwrap().power_by;
        desk.power(0, Power::On);
        let call = desk.one();
        assert_eq!(call.order, Order::Power(PowerAction::ForceOff));
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        desk.tasks(&call, Task::Failed { detail: "BMC".into() });
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        let told = node(&desk, 0);
        assert_eq!((told.status, told.reason.as_str()), (Some(NodeStatus::PowerOffForcefullyCalled), reasons::AWAITING_RETRY));
        let from = desk.drive(0).not_before;
        assert!(from > desk.now && told.next == format!("forced off again from {} on if still on", from.clock()), "{told:?}");
        desk.now = from;
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::ForceOff));
    }
}

mod deadlines_that_have_passed {
    use super::*;
    use bos_core::batch::Progress;

    #[test]
    fn are_not_shown_while_pcs_keeps_the_node() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Shutdown, 1, "", ""));
        let _ = desk.pass();
        desk.power(0, Power::On);
        let call = desk.one();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        let by = desk.drive(0).action.unwrap().power_by;
        assert_eq!(node(&desk, 0).next, format!("forced off at {} if still on", by.clock()));
        desk.now = by + SECOND;
        desk.world.touched.clear();
        desk.world.fold_progress(call.id, desk.now, Progress::Tasks { done: false, tasks: vec![] }, desk.now);
        assert!(desk.world.touched.contains(&NodeId(0)));
        assert_eq!(node(&desk, 0).next, "forced off when PCS lets it go, if still on");
    }

    #[test]
    fn and_none_is_for_the_operation_of_somebody_else() {
        let mut desk = boot(1);
        desk.powered_on();
        desk.wait(SECOND);
        let newer = run_plan(&mut desk.world, "newer", plan(PlannedOperation::Shutdown, 1, "", ""), desk.now);
        desk.uid = newer;
        desk.world.nodes[0].agent = Some("older".into());
        let _ = desk.pass();
        let told = node(&desk, 0);
        assert_eq!((told.reason.as_str(), told.next.as_str()), (reasons::PREVIOUS_OPERATION, "goes on when that operation has ended"));
    }
}

mod the_proof_of_a_boot {
    use super::*;
    use bos_core::plan::Evidence;

    #[test]
    fn is_named_as_what_is_waited_for() {
        let cases = [
            (Evidence::NodeReport, reasons::AWAITING_REPORT, "waits for its report"),
            (Evidence::HsmReady, reasons::AWAITING_READY, "waits until HSM says Ready"),
        ];
        for (evidence, reason, words) in cases {
            let mut desk = boot_with(1, |plan| plan.evidence = evidence);
            desk.powered_on();
            desk.power(0, Power::On);
            let _ = desk.pass();
            assert_eq!(node(&desk, 0).reason, reason);
            let by = desk.drive(0).action.unwrap().boot_by;
            assert_eq!(shown(&desk).message, format!("1 in progress: 1 {words} (latest deadline {}).", by.clock()));
        }
    }
}

mod ends {
    use super::*;

    fn ended(desk: &Desk) -> bool {
        matches!(desk.world.sessions[&desk.uid].stage, Stage::Ended(_))
    }

    #[test]
    fn of_a_session_that_left_all_running_have_a_reason_of_their_own() {
        let mut desk = boot_with(2, |plan| plan.running = RunningPolicy::Leave);
        let _ = desk.pass();
        desk.power_of_all(Power::On);
        let _ = desk.pass();
        assert!(ended(&desk));
        let status = shown(&desk);
        assert_eq!(condition(&status, conditions::SUCCEEDED).reason, reasons::NODES_LEFT_RUNNING);
        assert!(status.message.starts_with("0 of 2 nodes succeeded, 2 left running. None failed"), "{}", status.message);
    }

    #[test]
    fn by_cancellation_count_the_nodes_that_are_left_off() {
        let mut desk = boot(2);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        desk.power(1, Power::On);
        let _ = desk.pass();
        desk.world.sessions.get_mut(&desk.uid).unwrap().spec.cancel = true;
        assert!(desk.leaves().is_empty());
        let _ = desk.pass();
        assert_eq!(desk.end(0).map(|(kind, _)| kind), Some(EndKind::Cancelled));
        assert!(ended(&desk));
        let status = shown(&desk);
        assert_eq!((status.counts.cancelled, status.counts.left_off), (1, 1), "{status:?}");
        assert!(status.message.contains(&format!("1 of these is left off: {}.", xname(0))), "{}", status.message);
        desk.power(0, Power::On);
        let later = session(&desk.world, &desk.world.sessions[&desk.uid], &status, desk.now);
        assert_eq!(later.counts.left_off, 1, "what it left is history, whatever somebody does with it afterwards");
    }
}

mod nodes {
    use super::*;

    #[test]
    fn that_somebody_made_up_are_called_unknown_to_hsm() {
        let mut desk = boot(1);
        let made_up = desk.world.intern(&Xname::parse("x9999c0s0b0n0").unwrap());
        let told = component(&desk.world, made_up, &BootComponentStatus::default(), 1, desk.now);
        assert_eq!(told.reason, reasons::NOT_IN_HSM);
        assert!(told.message.starts_with("HSM does not list this node."), "{}", told.message);
    }

    #[test]
    fn that_somebody_made_up_are_looked_at_again_after_the_first_inventory() {
        let mut world = World::default();
        let made_up = world.intern(&Xname::parse("x9999c0s0b0n0").unwrap());
        world.nodes[made_up.0 as usize].recorded = true;
        let told = component(&world, made_up, &BootComponentStatus::default(), 1, START);
        assert_eq!(told.message, "Not looked for in HSM yet; no Session has acted on it.");
        world.touched.clear();
        world.fold_inventory(Ok(snapshot(20)), START);
        assert!(world.touched.contains(&made_up));
        let told = component(&world, made_up, &told, 1, START);
        assert_eq!(told.reason, reasons::NOT_IN_HSM);
    }

    #[test]
    fn keep_the_time_of_their_last_action_over_a_restart() {
        let mut desk = boot(1);
        desk.powered_on();
        let before = node(&desk, 0).last_action_time;
        desk.restart(MINUTE);
        assert_eq!(node(&desk, 0).last_action_time, before);
    }

    #[test]
    fn never_show_more_attempts_than_are_allowed() {
        let mut desk = boot(1);
        desk.powered_on();
        desk.world.options.retry_policy = 0;
        assert_eq!(node(&desk, 0).tries, "1/1");
    }

    #[test]
    fn that_are_powered_on_say_what_comes_if_they_stay_silent() {
        let mut desk = boot(1);
        desk.powered_on();
        desk.power(0, Power::On);
        let by = desk.drive(0).action.unwrap().boot_by.clock();
        assert_eq!(node(&desk, 0).next, format!("power-cycled at {by} without a report"));
        let call = desk.leaves();
        assert!(!call.iter().any(is_power));
    }
}

#[test]
fn nodes_that_two_boot_sets_fit_and_a_provider_without_passthrough_are_warned_of() {
    let mut desk = boot(1);
    let uid = "doubtful".into();
    desk.world.fold_session(seen("doubtful", desk.now, SessionSpec::new(Operation::Boot, "template")), desk.now);
    let _ = desk.pass();
    let mut read = setup(2, "new", "", &[0, 1]);
    let mut second = read.template.boot_sets[0].clone();
    (second.name, second.rootfs_provider) = ("second".into(), Some("sbps".into()));
    read.artifacts.insert("second".into(), read.artifacts["compute"].clone());
    read.template.boot_sets.push(second);
    assert_eq!(desk.world.fold_setup(&uid, Ok(read), desk.now), Some(uid.clone()));
    let Stage::Recording(recording) = &desk.world.sessions[&uid].stage else { panic!("not set up") };
    let warnings = recording.plan.warnings.join("\n");
    assert!(
        warnings
            .contains("More than one boot set fits x1000c0s0b0n[0-1]; the last one is used, but one for arch Unknown before one for X86."),
        "{warnings}"
    );
    assert!(warnings.contains("rootfsProviderPassthrough: is missing; without it nodes do not find their root file system"), "{warnings}");
}

#[test]
fn nodes_that_are_left_out_are_counted_by_reason_and_named() {
    let desk = boot_with(1, |plan| {
        plan.excluded.insert("LockedInHSM".into(), vec![xname(1), xname(2)]);
        plan.excluded.insert("ArchMismatch".into(), vec![xname(3)]);
    });
    let status = shown(&desk);
    assert_eq!((status.counts.nodes, status.counts.excluded), (1, 3));
    let mut said: Vec<_> = status.excluded.iter().map(|group| (group.reason.as_str(), group.count, group.sample.is_empty())).collect();
    said.sort_unstable();
    assert_eq!(said, [("ArchMismatch", 1, false), ("LockedInHSM", 2, false)]);
}

#[test]
fn a_retry_of_a_session_that_nobody_knows_says_so() {
    let mut desk = boot(1);
    let spec = SessionSpec { retry_of: Some("boot-x1".into()), ..SessionSpec::new(Operation::Boot, "template") };
    desk.world.fold_session(seen("retry", desk.now, spec), desk.now);
    let uid = "retry".into();
    let _ = desk.pass();
    assert_eq!(desk.world.fold_setup(&uid, Ok(setup(1, "new", "", &[0])), desk.now), None);
    let Stage::Ended(ended) = &desk.world.sessions[&uid].stage else { panic!("not ended") };
    assert_eq!(&*ended.end.reason, reasons::NO_NODES);
    assert!(ended.end.message.starts_with("spec.retryOf: there is no Session boot-x1 in namespace bos"), "{}", ended.end.message);
    // One that is there, and in which nothing failed, is another matter.
    let second = run_plan(&mut desk.world, "second", plan(PlannedOperation::Shutdown, 1, "", ""), desk.now);
    assert!(desk.world.sessions.contains_key(&second));
}

mod what_is_kept_or_held {
    use super::*;

    #[test]
    fn a_node_that_is_off_waits_for_the_others_of_its_request() {
        let mut desk = Desk::new(2, plan(PlannedOperation::Reboot, 2, "new", ""));
        let _ = desk.pass();
        desk.power_of_all(Power::On);
        let call = desk.one();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        desk.wait(SECOND);
        desk.power(0, Power::Off);
        let (off, on) = (node(&desk, 0), node(&desk, 1));
        assert!(off.message.starts_with("It is off; PCS keeps it until all nodes of the same request are."), "{}", off.message);
        assert_eq!(off.next, "goes on when PCS lets it go");
        assert!(on.next.starts_with("forced off at"), "{}", on.next);
        let by = desk.drive(1).action.unwrap().power_by;
        let kept = "1 off, kept by PCS until all of the same request are";
        let waits = format!("1 waits for its power to change (latest deadline {})", by.clock());
        assert_eq!(shown(&desk).message, format!("2 in progress: {waits}, {kept}."));
        desk.now = by;
        desk.world.touched_sessions.clear();
        desk.world.fold_progress(call.id, by, Progress::Tasks { done: false, tasks: Vec::new() }, by);
        assert!(desk.world.touched_sessions.contains(&desk.uid), "that is shown now");
        assert_eq!(shown(&desk).message, format!("2 in progress: 1 waits for its power to change, {kept}."), "until PCS lets it go");
    }

    #[test]
    fn an_idle_node_that_a_person_holds_says_so() {
        let mut desk = boot(1);
        desk.world.fold_session_gone(&desk.uid.clone());
        let _ = desk.pass();
        desk.world.nodes[0].suspended = true;
        assert!(node(&desk, 0).next.starts_with("Held by spec.suspend"), "{}", node(&desk, 0).next);
    }

    #[test]
    fn a_cancelled_session_says_that_it_is() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Reboot, 1, "new", ""));
        let _ = desk.pass();
        desk.power(0, Power::On);
        let call = desk.one();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        desk.world.sessions.get_mut(&desk.uid).unwrap().spec.cancel = true;
        let _ = desk.pass();
        assert!(shown(&desk).message.starts_with("Cancelled: nothing new is sent. 1 in progress"), "{}", shown(&desk).message);
    }
}

/// A node that may not be tried even once: it says so, is not counted as power-cycled, and is held while a person holds it.
#[test]
fn where_no_attempt_is_allowed_nothing_is_said_to_have_been_tried() {
    let mut desk = Desk::new(1, plan(PlannedOperation::Reboot, 1, "new", ""));
    desk.runs(0, "old");
    desk.world.nodes[0].retry_policy = Some(0);
    desk.world.nodes[0].suspended = true;
    let _ = desk.pass();
    desk.power(0, Power::On);
    let _ = desk.pass();
    desk.wait(MINUTE);
    desk.power(0, Power::On);
    let _ = desk.pass();
    assert_eq!(desk.end(0), None, "it is held");
    desk.world.nodes[0].suspended = false;
    desk.wait(SECOND);
    desk.power(0, Power::On);
    let _ = desk.pass();
    let end = desk.run().slots[0].end.clone().unwrap();
    assert!(end.message.starts_with("No attempt is allowed"), "{}", end.message);
    assert_eq!(desk.run().tally().power_cycled, 0);
}
