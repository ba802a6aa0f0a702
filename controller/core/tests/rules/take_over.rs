//! A newer session takes a node that an older one is booting (rule 11).

use bos_core::health::Services;
use bos_core::model::{ConfigStatus, EndKind, Phase, Power, PowerAction, SessionUid, Token};
use bos_core::plan::{PlannedOperation, RunningPolicy};
use bos_core::running::Order;
use bos_core::want::Effect;
use bos_crds::reasons;

use crate::desk::{Desk, token};
use crate::fixture::{digest, plan, run_plan};
use crate::{MINUTE, SECOND, boot, booting, seen_on_at_the_deadline};

/// One node, powered on by the first session, which the second one has taken before it reported.
fn taken(operation: PlannedOperation, image: &str, configuration: &str, running: RunningPolicy) -> Desk {
    let mut desk = boot(1);
    if !configuration.is_empty() {
        desk.world.services = Services::default();
    }
    desk.powered_on();
    desk.wait(MINUTE);
    desk.plan = plan(operation, 1, image, configuration);
    desk.plan.running = running;
    desk.uid = run_plan(&mut desk.world, "second", desk.plan.clone(), desk.now);
    assert_eq!(desk.leaves(), Vec::new(), "nothing is known of its power yet");
    assert_eq!(desk.drive(0).session, desk.uid);
    desk
}

mod a_boot_of_the_same_image {
    use super::*;

    fn same(configuration: &str) -> Desk {
        taken(PlannedOperation::Boot, "new", configuration, RunningPolicy::RestartIfDifferent)
    }

    #[test]
    fn waits_for_the_report_and_is_done() {
        let mut desk = same("");
        assert_eq!(desk.drive(0).phase, Phase::PoweringOn);
        desk.wait(15 * MINUTE);
        desk.power(0, Power::On);
        assert_eq!(desk.leaves(), Vec::new(), "its deadline is not over");
        desk.report(0, &token());
        let _ = desk.pass();
        assert_eq!(desk.end(0).unwrap().0, EndKind::Succeeded);
    }

    #[test]
    fn does_so_whatever_the_policy_for_running_nodes() {
        for running in [RunningPolicy::Restart, RunningPolicy::Leave] {
            let mut desk = taken(PlannedOperation::Boot, "new", "", running);
            desk.power(0, Power::On);
            assert_eq!(desk.leaves(), Vec::new(), "{running:?}");
            desk.report(0, &token());
            let _ = desk.pass();
            assert_eq!(desk.end(0).unwrap().0, EndKind::Succeeded, "{running:?}");
        }
    }

    #[test]
    fn keeps_the_deadline_that_began_with_the_power_on() {
        let mut desk = same("");
        desk.wait(desk.world.options.max_boot_wait - MINUTE);
        desk.power(0, Power::On);
        let _ = desk.pass();
        desk.wait(SECOND);
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
        assert_eq!(desk.drive(0).attempts.on, 1, "the power-on of the older session counts");
    }

    #[test]
    fn applies_its_own_configuration_once_the_node_is_up() {
        let mut desk = same("mine");
        desk.report(0, &token());
        let _ = desk.pass();
        desk.wait(SECOND);
        desk.configuration(0, "", ConfigStatus::Unconfigured);
        let call = desk.one();
        assert!(matches!(&call.order, Order::Configuration { name, enabled: true, .. } if **name == *"mine"), "{call:?}");
    }

    #[test]
    fn goes_on_after_a_restart_of_the_operator() {
        let mut desk = same("");
        desk.restart(MINUTE);
        desk.power(0, Power::On);
        assert_eq!(desk.leaves(), Vec::new());
        desk.report(0, &token());
        let _ = desk.pass();
        assert_eq!(desk.end(0).unwrap().0, EndKind::Succeeded);
    }
}

/// What was asked for nodes that are on holds for one that an older Session was booting, too.
#[test]
fn a_silent_boot_that_was_found_is_left_where_running_nodes_are() {
    for (running, most, reason) in [
        (RunningPolicy::Leave, None, Some(reasons::LEFT_RUNNING)),
        (RunningPolicy::RestartIfDifferent, Some(0), Some(reasons::MAX_POWER_CYCLED)),
        (RunningPolicy::RestartIfDifferent, Some(1), None),
    ] {
        let mut desk = booting();
        desk.plan = plan(PlannedOperation::Boot, 1, "new", "");
        (desk.plan.running, desk.plan.max_power_cycled) = (running, most);
        desk.uid = run_plan(&mut desk.world, "second", desk.plan.clone(), desk.now);
        let _ = desk.pass();
        seen_on_at_the_deadline(&mut desk);
        match reason {
            Some(reason) => {
                assert_eq!(desk.leaves(), Vec::new());
                assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reason)));
            }
            None => assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff)),
        }
    }
}

/// Those that are overdue are judged after the others, so that a node which is to boot another image is counted before one that is
/// to be cycled for its silence, wherever they stand in the plan.
#[test]
fn a_silent_boot_that_was_found_comes_after_others_where_few_may_be_cycled() {
    let mut desk = Desk::new(2, plan(PlannedOperation::Boot, 1, "new", ""));
    desk.powered_on();
    desk.runs(1, "old");
    desk.plan = plan(PlannedOperation::Boot, 2, "new", "");
    (desk.plan.running, desk.plan.max_power_cycled) = (RunningPolicy::RestartIfDifferent, Some(1));
    desk.uid = run_plan(&mut desk.world, "second", desk.plan.clone(), desk.now);
    seen_on_at_the_deadline(&mut desk);
    let _ = desk.pass();
    assert_eq!((desk.end(0).map(|(_, reason)| reason), desk.drive(1).phase), (Some(reasons::MAX_POWER_CYCLED), Phase::PoweringOff));
}

mod a_boot_of_another_image {
    use super::*;

    fn other(running: RunningPolicy) -> Desk {
        taken(PlannedOperation::Boot, "newer", "", running)
    }

    #[test]
    fn cycles_it_because_what_it_boots_is_known() {
        let mut desk = other(RunningPolicy::RestartIfDifferent);
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
    }

    #[test]
    fn and_after_a_restart_of_the_operator_too() {
        let mut desk = other(RunningPolicy::RestartIfDifferent);
        desk.restart(MINUTE);
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
    }

    #[test]
    fn is_not_done_by_the_report_of_the_older_boot() {
        let mut desk = other(RunningPolicy::RestartIfDifferent);
        desk.report(0, &token());
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
        assert_eq!(desk.end(0), None);
    }

    #[test]
    fn leaves_it_if_it_is_to_leave_running_nodes() {
        let mut desk = other(RunningPolicy::Leave);
        desk.power(0, Power::On);
        assert_eq!(desk.leaves(), Vec::new());
        assert!(desk.end(0).is_some());
    }
}

#[test]
fn a_reboot_cycles_it_even_with_the_same_image() {
    let mut desk = taken(PlannedOperation::Reboot, "new", "", RunningPolicy::Restart);
    desk.power(0, Power::On);
    assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
}

#[test]
fn a_boot_that_was_configured_already_is_no_boot_under_way() {
    let mut desk = Desk::new(1, plan(PlannedOperation::Boot, 1, "new", "first"));
    desk.powered_on();
    desk.report(0, &token());
    let _ = desk.pass();
    assert_eq!(desk.drive(0).phase, Phase::Configuring);
    desk.plan = plan(PlannedOperation::Boot, 1, "new", "second");
    desk.uid = run_plan(&mut desk.world, "second", desk.plan.clone(), desk.now);
    desk.wait(SECOND);
    let _ = desk.pass();
    desk.power(0, Power::On);
    desk.configuration(0, "first", ConfigStatus::Pending);
    let orders: Vec<_> = desk.leaves().into_iter().map(|call| call.order).collect();
    assert!(matches!(&orders[..], [Order::Configuration { name, .. }] if **name == *"second"), "{orders:?}");
}

/// Somebody wants another image for a moment, and the next one again what is booting.
#[test]
fn a_boot_is_gone_on_with_also_by_the_one_after_the_next() {
    for crash in [false, true] {
        let mut desk = taken(PlannedOperation::Boot, "other", "", RunningPolicy::RestartIfDifferent);
        if crash {
            desk.crash(SECOND, true);
        }
        desk.plan = plan(PlannedOperation::Boot, 1, "new", "");
        desk.plan.running = RunningPolicy::Restart;
        desk.wait(SECOND);
        desk.uid = run_plan(&mut desk.world, "third", desk.plan.clone(), desk.now);
        let _ = desk.pass();
        desk.wait(SECOND);
        desk.power(0, Power::On);
        assert_eq!(desk.leaves(), Vec::new(), "its deadline is not over");
        desk.report(0, &token());
        let _ = desk.pass();
        assert_eq!(desk.end(0).unwrap().0, EndKind::Succeeded);
    }
}

/// The second session takes the node that boots "new" by the first, finds it off, and powers it on with "other".
fn booted_by_the_second() -> (Desk, Token) {
    let mut desk = taken(PlannedOperation::Boot, "other", "", RunningPolicy::RestartIfDifferent);
    let theirs = Token("second".into());
    desk.wait(desk.world.options.max_power_on_wait);
    desk.power(0, Power::Off);
    let call = desk.prepared_with(&theirs);
    desk.carried_out(&call);
    let _ = desk.pass();
    (desk, theirs)
}

fn third(desk: &mut Desk, image: &str) {
    desk.plan = plan(PlannedOperation::Boot, 1, image, "");
    desk.plan.running = RunningPolicy::RestartIfDifferent;
    desk.uid = run_plan(&mut desk.world, "third", desk.plan.clone(), desk.now);
    let _ = desk.pass();
    desk.wait(SECOND);
}

/// Rule 3: the power-on of the first had reached it, and its session is over and forgotten when the node says so.
#[test]
fn a_token_of_a_session_that_is_gone_still_tells_the_image() {
    let (mut desk, _) = booted_by_the_second();
    desk.world.settle(&SessionUid::from("uid-first"));
    desk.world.sessions.retain(|uid, _| *uid == desk.uid);
    desk.report(0, &token());
    assert_eq!(desk.world.nodes[0].reported.as_ref().unwrap().artifacts, Some(digest("new")));
    third(&mut desk, "new");
    desk.power(0, Power::On);
    assert_eq!(desk.leaves(), Vec::new(), "it runs what is wanted");
    assert_eq!(desk.end(0).unwrap().0, EndKind::Succeeded);
}

/// Rule 3: it came up with something nobody knows, not with what was on its way to it.
#[test]
fn what_was_in_flight_says_nothing_of_a_node_that_has_spoken_since() {
    let (mut desk, _) = booted_by_the_second();
    desk.report(0, &Token("somebody's".into()));
    third(&mut desk, "new");
    desk.power(0, Power::On);
    assert_eq!(desk.leaves(), Vec::new());
    assert_eq!(desk.end(0), Some((EndKind::LeftRunning, reasons::UNKNOWN_IMAGE_RUNNING)));
}

/// Rule 6: the third goes on with the boot of the second; what the first was booting is another image.
#[test]
fn a_token_of_another_image_proves_no_boot_to_the_one_after_the_next() {
    let (mut desk, theirs) = booted_by_the_second();
    third(&mut desk, "other");
    desk.report(0, &token());
    let _ = desk.pass();
    assert_eq!(desk.end(0), None, "it runs another image");
    desk.report(0, &theirs);
    let _ = desk.pass();
    assert_eq!(desk.end(0).unwrap().0, EndKind::Succeeded);
}

/// Rule 11: what has not left is withdrawn, so nothing is waited for.
#[test]
fn a_call_that_was_never_sent_is_not_waited_out() {
    let mut desk = boot(1);
    desk.parameters_stored();
    let recorded = desk.pass();
    assert!(recorded.iter().any(|effect| matches!(effect, Effect::Record(_))), "{recorded:?}");
    assert_eq!(desk.drive(0).action.map(|issued| issued.action), Some(PowerAction::On));
    desk.plan = plan(PlannedOperation::Shutdown, 1, "", "");
    desk.uid = run_plan(&mut desk.world, "second", desk.plan.clone(), desk.now);
    assert_eq!(desk.drive(0).held_since, desk.now);
}
