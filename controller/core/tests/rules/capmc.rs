//! Power by CAPMC, which tells no transition: what the rules make of it.

use std::time::Duration;

use bos_core::batch::{Outcome, Task};
use bos_core::health::{PowerService, Service};
use bos_core::journal::{Journal, snapshot};
use bos_core::model::{EndKind, NodeId, Power, PowerAction};
use bos_core::plan::PlannedOperation;
use bos_core::project::standing;
use bos_core::running::{Dispatch, Order};
use bos_core::want::Effect;
use bos_crds::{SessionStatus, reasons};

use crate::desk::{Desk, is_power, token};
use crate::fixture::{plan, run_plan};
use crate::{MINUTE, SECOND, boot};

const REST: Duration = Duration::from_secs(45);

fn by_capmc(mut desk: Desk) -> Desk {
    desk.world.power_service = PowerService::Capmc;
    desk.world.power_rest = REST;
    desk
}

fn taken() -> Outcome {
    Outcome::Taken { failed: vec![], note: "".into() }
}

fn locked() -> Task {
    Task::Untouched { detail: "locked".into(), permanent: false }
}

/// A Boot of so many nodes whose power-on is about to be answered.
fn power_on(count: usize) -> (Desk, Dispatch) {
    let mut desk = by_capmc(boot(count));
    let _ = desk.pass();
    desk.power_of_all(Power::Off);
    let call = desk.prepared();
    assert_eq!((&call.order, call.nodes.len()), (&Order::Power(PowerAction::On), count));
    (desk, call)
}

/// A Reboot or a Shutdown of one node whose graceful power-off was taken.
fn power_off_taken(operation: PlannedOperation) -> Desk {
    let mut desk = by_capmc(Desk::new(1, plan(operation, 1, "new", "")));
    let _ = desk.pass();
    desk.power(0, Power::On);
    let call = desk.one();
    assert_eq!(call.order, Order::Power(PowerAction::SoftOff));
    desk.answer(call.id, taken());
    desk
}

mod taken {
    use super::*;

    #[test]
    fn a_power_on_counts_once_and_its_nodes_are_looked_at_until_the_deadline() {
        let (mut desk, call) = power_on(1);
        desk.answer(call.id, taken());
        let issued = desk.drive(0).action.unwrap();
        assert_eq!((issued.accepted, desk.drive(0).attempts.on, desk.world.nodes[0].batch), (true, 1, None));
        desk.wait(SECOND);
        assert_eq!(desk.pass(), [Effect::ReadPower(vec![NodeId(0)])]);
        // CAPMC answers when PCS has begun: this look may be an old one.
        desk.power(0, Power::Off);
        assert!(desk.leaves().is_empty());
        desk.now = issued.power_by - SECOND;
        desk.power(0, Power::Off);
        assert!(desk.leaves().is_empty() && !desk.drive(0).action.unwrap().failed);
        desk.now = issued.power_by;
        let _ = desk.pass();
        assert!(!desk.drive(0).action.unwrap().failed, "not on a look from before the deadline");
        desk.power(0, Power::Off);
        assert!(is_power(&desk.prepared()));
        assert_eq!(desk.drive(0).attempts.on, 2, "what was accepted and had no effect is not given back");
    }

    #[test]
    fn nodes_that_it_names_are_judged_alone() {
        let (mut desk, call) = power_on(4);
        let failed = vec![
            (NodeId(1), Task::Untouched { detail: "disabled or not found".into(), permanent: true }),
            (NodeId(2), Task::Failed { detail: "NodeBMC Communication Error".into() }),
            (NodeId(3), locked()),
        ];
        desk.answer(call.id, Outcome::Taken { failed, note: "".into() });
        assert!(desk.drive(0).action.is_some_and(|issued| issued.accepted && !issued.failed));
        assert_eq!(desk.end(1), Some((EndKind::Failed, reasons::POWER_REFUSED)));
        let message = desk.run().slots[1].end.clone().unwrap().message;
        assert_eq!(&*message, "CAPMC: disabled or not found. Not touched; see HSM and CAPMC.");
        assert!(desk.drive(2).action.unwrap().failed);
        assert_eq!((desk.drive(3).attempts.on, desk.drive(3).action), (0, None));
        assert!(desk.world.batches.is_empty());
    }

    #[test]
    fn what_it_says_of_all_is_shown_with_each() {
        let (mut desk, call) = power_on(2);
        desk.answer(call.id, Outcome::Taken { failed: vec![], note: "Errors encountered with 1/2 Xnames issued On".into() });
        assert!((0..2).all(|index| desk.drive(index).error.contains("1/2 Xnames") && desk.drive(index).action.unwrap().accepted));
        desk.now = desk.drive(0).action.unwrap().power_by;
        desk.power(0, Power::On);
        desk.power(1, Power::Off);
        let again = desk.one();
        assert_eq!(again.nodes.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [NodeId(1)]);
    }

    #[test]
    fn a_power_off_without_effect_is_forced_at_its_deadline_also_after_a_crash() {
        for crash in [false, true] {
            let mut desk = power_off_taken(PlannedOperation::Shutdown);
            if crash {
                desk.restart(MINUTE);
                assert!(desk.drive(0).action.unwrap().accepted && desk.world.batches.is_empty());
            }
            desk.now = desk.drive(0).action.unwrap().power_by - SECOND;
            desk.power(0, Power::On);
            assert!(desk.leaves().is_empty());
            desk.wait(SECOND);
            desk.power(0, Power::On);
            assert_eq!(desk.one().order, Order::Power(PowerAction::ForceOff), "crash {crash}");
        }
    }
}

mod refused {
    use super::*;

    #[test]
    fn the_others_are_asked_again_at_once_and_no_attempt_is_used() {
        let (mut desk, call) = power_on(4);
        desk.answer(call.id, Outcome::Refused { because: vec![(NodeId(2), locked())], detail: "locked".into() });
        assert!((0..4).all(|index| desk.drive(index).attempts.on == 0 && desk.drive(index).action.is_none()));
        let again = desk.one();
        assert_eq!(again.nodes.iter().map(|(node, _)| node.0).collect::<Vec<_>>(), [0, 1, 3]);
        desk.answer(again.id, taken());
        // The one that is held comes again after a pause, and alone: it spoils nobody's call.
        assert!(desk.leaves().is_empty());
        desk.wait(3 * SECOND);
        desk.power(2, Power::Off);
        assert_eq!(desk.one().nodes.len(), 1);
        assert_eq!(desk.drive(2).attempts.on, 1);
    }

    #[test]
    fn a_node_that_never_can_fails_and_the_others_do_not() {
        let (mut desk, call) = power_on(3);
        let never = Task::Untouched { detail: "components disabled".into(), permanent: true };
        desk.answer(call.id, Outcome::Refused { because: vec![(NodeId(0), never)], detail: "components disabled: [x]".into() });
        assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::POWER_REFUSED)));
        assert_eq!(desk.one().nodes.len(), 2);
    }

    #[test]
    fn where_it_names_nobody_the_call_is_halved_and_the_one_that_is_left_is_not_given_up() {
        let (mut desk, first) = power_on(8);
        let refusal = || Outcome::Refused { because: vec![], detail: "Failed to reserve components".into() };
        let mut switched = 0;
        desk.answer(first.id, refusal());
        for _ in 0..6 {
            desk.wait(3 * SECOND);
            desk.power_of_all(Power::Off);
            for call in desk.leaves() {
                if call.nodes.iter().any(|(node, _)| *node == NodeId(5)) {
                    desk.answer(call.id, refusal());
                } else {
                    switched += call.nodes.len();
                    desk.answer(call.id, taken());
                }
            }
        }
        assert_eq!((switched, desk.end(5), desk.drive(5).attempts.on), (7, None, 0));
        assert!(desk.drive(5).refunds > 0 && &*desk.drive(5).error == "Failed to reserve components");
        // Whoever held it lets it go.
        desk.wait(MINUTE);
        desk.power(5, Power::Off);
        let call = desk.one();
        desk.answer(call.id, taken());
        desk.wait(SECOND);
        desk.power(5, Power::On);
        let _ = desk.report(5, &token());
        let _ = desk.pass();
        assert_eq!(desk.end(5), Some((EndKind::Succeeded, "")));
    }

    #[test]
    fn a_node_that_stays_locked_fails_at_last_with_the_reason() {
        let (mut desk, call) = power_on(2);
        desk.answer(call.id, Outcome::Refused { because: vec![(NodeId(1), locked())], detail: "locked".into() });
        for _ in 0..2000 {
            desk.wait(SECOND);
            desk.power_of_all(Power::Off);
            for call in desk.leaves() {
                match call.order {
                    Order::Power(_) if call.nodes.iter().any(|(node, _)| *node == NodeId(1)) => {
                        desk.answer(call.id, Outcome::Refused { because: vec![(NodeId(1), locked())], detail: "locked".into() });
                    }
                    Order::Power(_) => desk.answer(call.id, taken()),
                    _ => desk.answer(call.id, Outcome::Stored { token: token() }),
                }
            }
            if desk.end(1).is_some() {
                break;
            }
        }
        assert_eq!(desk.end(1), Some((EndKind::Failed, reasons::POWER_ON_TIMEOUT)));
        let message = desk.run().slots[1].end.clone().unwrap().message;
        assert!(message.contains("locked") && message.ends_with("see its controller and CAPMC."), "{message}");
    }
}

mod the_end_of_an_operation {
    use super::*;

    /// PCS behind CAPMC, which still waits for the node to be off, would take an early power-on for that wait's failure.
    #[test]
    fn a_node_rests_between_off_and_on_while_it_is_prepared() {
        let mut desk = power_off_taken(PlannedOperation::Reboot);
        desk.wait(SECOND);
        desk.power(0, Power::Off);
        let seen = desk.now;
        let call = desk.one();
        desk.answer(call.id, Outcome::Stored { token: token() });
        assert!(desk.leaves().is_empty());
        let (session, drive) = desk.world.driver(NodeId(0)).unwrap();
        assert_eq!(standing(&desk.world, &desk.world.nodes[0], drive, session, desk.now).1, reasons::PREVIOUS_OPERATION);
        desk.now = seen + REST - SECOND;
        desk.power(0, Power::Off);
        assert!(desk.leaves().is_empty());
        desk.now = seen + REST;
        assert!(is_power(&desk.one()));
    }

    #[test]
    fn the_next_session_lets_it_rest_too() {
        let mut desk = power_off_taken(PlannedOperation::Shutdown);
        desk.wait(SECOND);
        desk.power(0, Power::Off);
        let seen = desk.now;
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
        run_plan(&mut desk.world, "second", plan(PlannedOperation::Boot, 1, "new", ""), desk.now);
        desk.wait(SECOND);
        desk.power(0, Power::Off);
        let call = desk.one();
        desk.answer(call.id, Outcome::Stored { token: token() });
        assert!(desk.leaves().is_empty());
        desk.now = seen + REST;
        assert!(is_power(&desk.one()));
    }

    #[test]
    fn a_newer_session_waits_for_what_was_taken_until_it_is_seen_or_its_deadline() {
        for seen in [false, true] {
            let mut desk = power_off_taken(PlannedOperation::Reboot);
            let until = desk.drive(0).action.unwrap().power_by + REST;
            desk.wait(SECOND);
            desk.power(0, if seen { Power::Off } else { Power::On });
            run_plan(&mut desk.world, "second", plan(PlannedOperation::Boot, 1, "newer", ""), desk.now);
            assert_eq!(desk.end(0), Some((EndKind::Superseded, reasons::SUPERSEDED)));
            desk.wait(SECOND);
            desk.power(0, if seen { Power::Off } else { Power::On });
            let _ = desk.pass();
            let second = desk.world.sessions.values().find(|session| &*session.uid.0 == "second").unwrap();
            let open = second.running().unwrap().slots[0].end.is_none();
            // On, and about to go off: a Boot must not take that for a node that runs and is left alone.
            assert!(open, "seen {seen}");
            assert_eq!(desk.drive(0).held_since == until, !seen);
        }
    }

    #[test]
    fn and_so_it_does_after_a_crash() {
        let mut desk = power_off_taken(PlannedOperation::Reboot);
        let until = desk.drive(0).action.unwrap().power_by + REST;
        let older = desk.uid.clone();
        desk.wait(SECOND);
        run_plan(&mut desk.world, "second", plan(PlannedOperation::Boot, 1, "newer", ""), desk.now);
        let stored = |uid| snapshot(&desk.world, &desk.world.sessions[uid], desk.now).unwrap().encode().unwrap();
        let older_journal = Journal::decode(&stored(&older)).unwrap();
        let mut world = crate::fixture::world(1, desk.now);
        (world.power_service, world.power_rest) = (PowerService::Capmc, REST);
        run_plan(&mut world, "first", plan(PlannedOperation::Reboot, 1, "new", ""), desk.now);
        world.resume(&older, older_journal, desk.now).unwrap();
        // The newer one's own journal was not written yet.
        run_plan(&mut world, "second", plan(PlannedOperation::Boot, 1, "newer", ""), desk.now);
        assert_eq!(world.nodes[0].drive.as_ref().unwrap().held_since, until);
    }

    #[test]
    fn even_where_the_records_of_the_older_session_are_gone_by_then() {
        let mut desk = power_off_taken(PlannedOperation::Reboot);
        let until = desk.drive(0).action.unwrap().power_by + REST;
        desk.wait(SECOND);
        let second = plan(PlannedOperation::Boot, 1, "newer", "");
        let uid = run_plan(&mut desk.world, "second", second.clone(), desk.now);
        let journal = Journal::decode(&snapshot(&desk.world, &desk.world.sessions[&uid], desk.now).unwrap().encode().unwrap()).unwrap();
        let mut world = crate::fixture::world(1, desk.now);
        run_plan(&mut world, "second", second, desk.now);
        world.resume(&uid, journal, desk.now).unwrap();
        assert_eq!(world.nodes[0].drive.as_ref().unwrap().held_since, until);
    }

    #[test]
    fn cancel_gives_a_node_away_only_when_what_was_taken_is_seen_or_over() {
        for seen in [false, true] {
            let mut desk = power_off_taken(PlannedOperation::Shutdown);
            let until = desk.drive(0).action.unwrap().power_by + REST;
            let uid = desk.uid.clone();
            desk.world.sessions.get_mut(&uid).unwrap().spec.cancel = true;
            desk.wait(SECOND);
            desk.power(0, Power::On);
            let _ = desk.pass();
            assert_eq!(desk.end(0), None, "the node is on and about to go off");
            desk.now = if seen { desk.now + SECOND } else { until };
            desk.power(0, if seen { Power::Off } else { Power::On });
            let _ = desk.pass();
            assert_eq!(desk.end(0), Some((EndKind::Cancelled, reasons::CANCELLED)));
            let message = desk.run().slots[0].end.clone().unwrap().message;
            assert!(message.contains(if seen { "the node is left off" } else { "the node is left on" }), "{message}");
        }
    }

    #[test]
    fn a_transition_of_the_time_before_capmc_is_followed_to_where_it_is_not_known() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        let mut desk = by_capmc(desk);
        desk.restart(SECOND);
        let effects = desk.pass();
        let [Effect::Follow(batch)] = effects[..] else { panic!("{effects:?}") };
        desk.world.fold_progress(batch, desk.now, bos_core::batch::Progress::Gone, desk.now);
        assert_eq!((desk.world.nodes[0].batch, desk.drive(0).attempts.on), (None, 1));
    }
}

mod names {
    use super::*;

    #[test]
    fn an_outage_names_capmc_and_uses_no_attempt() {
        let (mut desk, call) = power_on(1);
        desk.answer(call.id, Outcome::NotSent { service: Service::Capmc, detail: "connection refused".into() });
        assert_eq!(desk.drive(0).attempts.on, 0);
        assert!(desk.leaves().is_empty(), "not before the pause is over");
        let session = &desk.world.sessions[&desk.uid];
        let status = bos_core::project_session::session(&desk.world, session, &SessionStatus::default(), desk.now);
        let condition = status.conditions.iter().find(|condition| condition.type_ == "ServicesAvailable").unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", reasons::CAPMC_UNAVAILABLE));
        assert!(condition.message.starts_with("CAPMC is not available since"), "{}", condition.message);
        desk.wait(SECOND);
        assert!(is_power(&desk.one()));
    }

    #[test]
    fn an_unknown_power_names_capmc() {
        let mut desk = by_capmc(boot(1));
        let _ = desk.pass();
        for _ in 0..200 {
            let read = Ok(vec![(NodeId(0), Power::Unknown, "disabled or not found".into())]);
            desk.world.fold_power(&[NodeId(0)], desk.now, read, desk.now);
            let _ = desk.pass();
            desk.wait(10 * SECOND);
        }
        assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::POWER_UNKNOWN)));
        let message = desk.run().slots[0].end.clone().unwrap().message;
        assert!(message.starts_with("CAPMC for 15 min: disabled or not found; not touched."), "{message}");
    }
}
