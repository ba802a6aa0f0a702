//! Operation Configure: it gives running nodes another configuration and never touches their power.

use crate::SECOND;
use crate::desk::{Desk, is_power, token};
use crate::fixture::plan;
use bos_core::batch::Outcome;
use bos_core::health::Services;
use bos_core::model::{ConfigRecord, ConfigStatus, EndKind, NodeId, Phase, Power, PowerAction};
use bos_core::plan::PlannedOperation;
use bos_core::running::Order;
use bos_core::want::Effect;
use bos_crds::reasons;

fn configure(count: usize) -> Desk {
    Desk::new(count, plan(PlannedOperation::Configure, count, "", "conf"))
}

#[test]
fn a_running_node_is_told_once_and_is_done_when_cfs_says_so_afterwards() {
    let mut desk = configure(1);
    let _ = desk.pass();
    desk.power(0, Power::On);
    let _ = desk.pass();
    // What CFS says before it was asked counts for nothing.
    desk.configuration(0, "conf", ConfigStatus::Configured);
    let call = desk.one();
    assert_eq!(call.order, Order::Configuration { name: "conf".into(), enabled: true, clear_state: false });
    assert_eq!(desk.end(0), None);
    desk.answer(call.id, Outcome::Configured { changed: vec![NodeId(0)] });
    desk.wait(SECOND);
    desk.configuration(0, "conf", ConfigStatus::Pending);
    assert!(desk.leaves().is_empty(), "it is told once");
    desk.configuration(0, "conf", ConfigStatus::Configured);
    let _ = desk.pass();
    assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
}

/// Kept from seed 975: CFS was asked before it was told, and its answer came after that.
#[test]
fn an_answer_that_overtook_nothing_but_came_late_is_not_believed() {
    let mut desk = configure(1);
    let _ = desk.pass();
    desk.power(0, Power::On);
    let _ = desk.pass();
    desk.configuration(0, "conf", ConfigStatus::Configured);
    let call = desk.one();
    let asked = desk.now;
    desk.wait(SECOND);
    desk.answer(call.id, Outcome::Configured { changed: vec![NodeId(0)] });
    let record = ConfigRecord { desired: "conf".into(), status: ConfigStatus::Configured };
    desk.world.fold_config(&[NodeId(0)], asked, Ok(vec![(NodeId(0), record)]), desk.now);
    let _ = desk.pass();
    assert_eq!(desk.end(0), None);
}

#[test]
fn a_node_that_is_off_fails_and_is_not_powered_on() {
    let mut desk = configure(2);
    let _ = desk.pass();
    desk.power(0, Power::Off);
    desk.power(1, Power::On);
    assert!(desk.leaves().is_empty());
    assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::POWERED_OFF)));
    assert_eq!(desk.end(1), None);
}

#[test]
fn unknown_power_holds_it() {
    let mut desk = configure(1);
    let _ = desk.pass();
    desk.power(0, Power::Unknown);
    assert!(desk.leaves().is_empty());
    assert!(desk.drive(0).hold.is_some());
    desk.power(0, Power::On);
    let _ = desk.pass();
    assert!(desk.drive(0).booted.is_some());
}

#[test]
fn no_power_action_leaves_whatever_comes_in() {
    for power in [Power::On, Power::Off, Power::Unknown] {
        let mut desk = configure(1);
        for _ in 0..40 {
            desk.wait(60 * SECOND);
            desk.power(0, power);
            desk.configuration(0, "other", ConfigStatus::Failed);
            let _ = desk.report(0, &token());
            for call in desk.leaves() {
                assert!(!is_power(&call));
                desk.answer(call.id, Outcome::Unknown { detail: "lost".into() });
            }
        }
    }
}

mod where_none_is_wanted {
    use super::*;

    fn boot() -> Desk {
        Desk::at_a_site(1, plan(PlannedOperation::Boot, 1, "new", ""), Services::default())
    }

    #[test]
    fn cfs_is_told_so_before_power_on_and_needs_not_know_the_node() {
        for known in [true, false] {
            let mut desk = boot();
            let _ = desk.pass();
            desk.power(0, Power::Off);
            let call = desk.one();
            desk.answer(call.id, Outcome::Stored { token: token() });
            let call = desk.one();
            assert_eq!(call.order, Order::Configuration { name: "".into(), enabled: false, clear_state: true });
            desk.answer(call.id, Outcome::Configured { changed: known.then_some(NodeId(0)).into_iter().collect() });
            let call = desk.one();
            assert!(is_power(&call), "{call:?}");
            desk.carried_out(&call);
            let _ = desk.pass();
            let _ = desk.report(0, &token());
            let _ = desk.pass();
            assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
        }
    }

    #[test]
    fn a_node_that_runs_the_image_already_gets_rid_of_its_configuration() {
        let mut desk = boot();
        desk.runs(0, "new");
        let _ = desk.pass();
        desk.power(0, Power::On);
        let _ = desk.pass();
        assert_eq!(desk.end(0), None, "CFS has not been asked");
        desk.configuration(0, "conf", ConfigStatus::Configured);
        let call = desk.one();
        assert_eq!(call.order, Order::Configuration { name: "".into(), enabled: true, clear_state: false });
        desk.answer(call.id, Outcome::Configured { changed: vec![NodeId(0)] });
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
    }
}

/// A look now and then is enough to see it: nothing is expected to change.
#[test]
fn a_node_that_goes_off_while_it_is_configured_is_powered_on_anew() {
    let mut desk = Desk::new(1, plan(PlannedOperation::Boot, 1, "new", "conf"));
    desk.powered_on();
    let _ = desk.report(0, &token());
    let _ = desk.pass();
    assert_eq!(desk.drive(0).phase, Phase::Configuring);
    let asked = |effects: Vec<Effect>| effects.contains(&Effect::ReadPower(vec![NodeId(0)]));
    desk.wait(30 * SECOND);
    assert!(!asked(desk.pass()));
    desk.wait(60 * SECOND);
    assert!(asked(desk.pass()));
    desk.power(0, Power::Off);
    let call = desk.prepared();
    assert_eq!(call.order, Order::Power(PowerAction::On));
}
