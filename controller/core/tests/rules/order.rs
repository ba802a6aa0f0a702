//! Ownership, calls and ends: rules 11 to 16.

use crate::MINUTE;
use crate::SECOND;
use crate::boot;
use crate::desk::Desk;
use crate::desk::is_power;
use crate::desk::token;
use crate::fixture::at;
use crate::fixture::plan;
use crate::fixture::run_plan;
use crate::fixture::seen;
use crate::fixture::setup;
use bos_core::batch::Outcome;
use bos_core::batch::Progress;
use bos_core::batch::Task;
use bos_core::fold::Fault;
use bos_core::fold::ReportNeeds;
use bos_core::health::Service;
use bos_core::journal::Journal;
use bos_core::journal::snapshot;
use bos_core::model::ConfigStatus;
use bos_core::model::EndKind;
use bos_core::model::HoldReason;
use bos_core::model::NodeId;
use bos_core::model::Owner;
use bos_core::model::Power;
use bos_core::model::PowerAction;
use bos_core::model::SessionUid;
use bos_core::plan::Plan;
use bos_core::plan::PlannedOperation;
use bos_core::resume::Stored;
use bos_core::resume::StoredJournal;
use bos_core::running::Order;
use bos_core::session::SessionOutcome;
use bos_core::session::Stage;
use bos_core::want::Effect;
use bos_crds::Operation;
use bos_crds::SessionSpec;
use bos_crds::reasons;
use std::time::Duration;

mod rule_11_ownership {
    use super::*;

    #[test]
    fn the_newer_session_owns_the_node_and_the_older_one_says_so() {
        let mut desk = boot(2);
        desk.wait(SECOND);
        run_plan(&mut desk.world, "second", plan(PlannedOperation::Boot, 1, "newer", ""), desk.now);
        assert_eq!(desk.end(0), Some((EndKind::Superseded, reasons::SUPERSEDED)));
        assert_eq!(desk.end(1), None);
        assert_eq!(&*desk.drive(0).session.0, "second");
        run_plan(&mut desk.world, "third", plan(PlannedOperation::Boot, 2, "newest", ""), desk.now);
        let _ = desk.pass();
        let Stage::Ended(ended) = &desk.world.sessions[&desk.uid].stage else { panic!() };
        assert_eq!(&*ended.end.message, "0 of 2 nodes succeeded, 2 taken over by name-of-third.");
    }

    #[test]
    fn whoever_took_a_node_and_is_not_known_any_more_is_among_the_others() {
        let mut desk = boot(2);
        desk.wait(SECOND);
        run_plan(&mut desk.world, "second", plan(PlannedOperation::Boot, 2, "newer", ""), desk.now);
        desk.world.nodes[1].owner.as_mut().unwrap().uid = "deleted".into();
        let _ = desk.pass();
        let Stage::Ended(ended) = &desk.world.sessions[&desk.uid].stage else { panic!() };
        assert_eq!(&*ended.end.message, "0 of 2 nodes succeeded, 2 taken over by name-of-second and others.");
    }

    /// Kubernetes tells creation times in whole seconds, and uids say nothing about the order.
    #[test]
    fn of_two_sessions_created_in_the_same_second_the_one_that_appeared_later_is_newer() {
        for (first, second) in [("a", "b"), ("b", "a")] {
            let mut desk = boot(1);
            desk.wait(SECOND);
            run_plan(&mut desk.world, first, plan(PlannedOperation::Boot, 1, "newer", ""), desk.now);
            run_plan(&mut desk.world, second, plan(PlannedOperation::Boot, 1, "newest", ""), desk.now);
            assert_eq!(&*desk.drive(0).session.0, second);
        }
    }

    #[test]
    fn and_it_is_newer_although_the_other_one_starts_last() {
        for (first, second) in [("a", "b"), ("b", "a")] {
            let mut desk = boot(1);
            desk.world.fold_session(seen(first, desk.now, SessionSpec::new(Operation::Boot, "template")), desk.now);
            run_plan(&mut desk.world, second, plan(PlannedOperation::Boot, 1, "newest", ""), desk.now);
            let uid = SessionUid::from(first);
            desk.world.fold_setup(&uid, Ok(setup(1, "newer", "", &[0])), desk.now);
            desk.world.start_session(&uid, desk.now);
            assert_eq!(&*desk.drive(0).session.0, second);
        }
    }

    #[test]
    fn after_a_restart_plans_tell_the_order_of_sessions_created_in_the_same_second() {
        for (first, second, third) in [("a", "b", "c"), ("c", "b", "a")] {
            let desk = boot(1);
            let mut world = crate::fixture::world(1, desk.now);
            let spec = || SessionSpec::new(Operation::Boot, "template");
            let stored = |uid: &str, sequence| Stored {
                uid: uid.into(),
                plan: std::sync::Arc::new(Plan { sequence, ..plan(PlannedOperation::Boot, 1, "new", "") }),
                journal: StoredJournal::Empty,
                taken_back: false,
            };
            let objects = [first, second, third].map(|uid| seen(uid, desk.now, spec()));
            world.take_up(objects.to_vec(), &[], vec![stored(second, 8), stored(first, 7)], desk.now).unwrap();
            assert_eq!(&*world.nodes[0].drive.as_ref().unwrap().session.0, second);
            let uid = SessionUid::from(third);
            world.fold_setup(&uid, Ok(setup(1, "newest", "", &[0])), desk.now);
            world.start_session(&uid, desk.now);
            assert_eq!(&*world.nodes[0].drive.as_ref().unwrap().session.0, third, "what has no plan yet is newer");
        }
    }

    #[test]
    fn a_session_that_is_over_is_older_than_one_created_in_the_same_second() {
        let mut desk = boot(1);
        desk.world = crate::fixture::world(1, desk.now);
        desk.world.nodes[0].owner = Some(Owner { created: desk.now, uid: "z".into() });
        run_plan(&mut desk.world, "a", plan(PlannedOperation::Boot, 1, "newer", ""), desk.now);
        assert_eq!(&*desk.drive(0).session.0, "a");
    }

    #[test]
    fn a_node_never_moves_to_an_older_session() {
        let mut desk = boot(1);
        let older = desk.now - MINUTE;
        run_plan(&mut desk.world, "older", plan(PlannedOperation::Boot, 1, "newer", ""), older);
        assert_eq!(desk.drive(0).session, desk.uid);
    }

    /// An older Session gets its plan only now; says how its part in the first node ended.
    fn late_start(desk: &mut Desk) -> (EndKind, String) {
        let uid: SessionUid = "older".into();
        let planned = desk.world.fold_setup(&uid, Ok(setup(1, "newer", "", &[0])), desk.now);
        assert_eq!(planned, Some(uid.clone()));
        desk.world.start_session(&uid, desk.now);
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        assert!(desk.world.nodes[0].drive.is_none());
        let session = &desk.world.sessions[&uid];
        assert!(matches!(&session.stage, Stage::Ended(ended) if ended.end.outcome == SessionOutcome::Superseded));
        let end = session.run().unwrap().slots[0].end.clone().unwrap();
        assert_eq!(&*end.reason, reasons::SUPERSEDED);
        (end.kind, end.message.to_string())
    }

    #[test]
    fn an_older_session_that_starts_after_a_newer_one_has_finished_gets_none_of_its_nodes() {
        let mut desk = boot(1);
        let older = seen("older", at(60), SessionSpec::new(Operation::Reboot, "template"));
        desk.world.fold_session(older, desk.now);
        desk.powered_on();
        let _ = desk.report(0, &token());
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
        let (kind, message) = late_start(&mut desk);
        assert_eq!(kind, EndKind::Superseded);
        assert!(message.contains("bos/name-of-first"), "{message}");
    }

    #[test]
    fn even_if_only_the_record_of_the_node_remembers_the_newer_one() {
        let mut desk = boot(1);
        desk.world = crate::fixture::world(1, desk.now);
        desk.world.nodes[0].owner = Some(Owner { created: at(120), uid: desk.uid.clone() });
        let older = seen("older", at(60), SessionSpec::new(Operation::Reboot, "template"));
        desk.world.fold_session(older, desk.now);
        let (kind, message) = late_start(&mut desk);
        assert_eq!(kind, EndKind::Superseded);
        assert!(message.contains("uid first"), "{message}");
    }

    #[test]
    fn a_recorded_power_on_of_a_session_that_has_lost_the_node_does_not_leave() {
        let mut desk = boot(1);
        desk.parameters_stored();
        let _ = desk.pass();
        desk.wait(SECOND);
        let second = run_plan(&mut desk.world, "second", plan(PlannedOperation::Boot, 1, "newer", ""), desk.now);
        let mut left = Vec::new();
        for _ in 0..3 {
            left.extend(desk.leaves());
            desk.wait(MINUTE);
            desk.power(0, Power::Off);
        }
        assert!(left.len() == 1 && left[0].session == second, "{left:?}");
        assert!(matches!(left[0].order, Order::BootParameters { .. }), "{left:?}");
    }

    #[test]
    fn a_new_operation_waits_for_the_end_of_the_old_transition() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        desk.wait(SECOND);
        run_plan(&mut desk.world, "second", plan(PlannedOperation::Reboot, 1, "newer", ""), desk.now);
        assert!(desk.leaves().is_empty());
        assert_eq!(desk.drive(0).hold.map(|hold| hold.reason), Some(HoldReason::PreviousOperation));
        desk.tasks(&call, Task::Succeeded);
        let _ = desk.pass();
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
    }

    #[test]
    fn and_for_the_deadline_of_a_call_whose_answer_was_lost() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::Unknown { detail: "reset".into() });
        let until = desk.drive(0).action.unwrap().power_by;
        desk.wait(SECOND);
        run_plan(&mut desk.world, "second", plan(PlannedOperation::Reboot, 1, "newer", ""), desk.now);
        desk.power(0, Power::On);
        assert!(desk.leaves().is_empty());
        desk.now = until;
        desk.power(0, Power::On);
        assert_eq!(desk.one().order, Order::Power(PowerAction::SoftOff));
    }
}

mod rule_11_after_a_restart {
    use super::*;

    #[test]
    fn a_call_of_the_older_session_that_may_be_on_its_way_is_waited_out() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let _sent = desk.prepared();
        let journal = snapshot(&desk.world, &desk.world.sessions[&desk.uid], desk.now).unwrap().encode().unwrap();
        let until = desk.drive(0).action.unwrap().power_by;
        desk.world = crate::fixture::world(1, desk.now);
        let uid = run_plan(&mut desk.world, "first", plan(PlannedOperation::Boot, 1, "new", ""), desk.now);
        desk.world.resume(&uid, Journal::decode(&journal).unwrap(), desk.now).unwrap();
        run_plan(&mut desk.world, "second", plan(PlannedOperation::Reboot, 1, "newer", ""), desk.now);
        desk.wait(SECOND);
        desk.power(0, Power::Off);
        assert!(desk.leaves().is_empty());
        desk.now = until;
        desk.power(0, Power::Off);
        assert_eq!(desk.leaves().len(), 1);
    }
}

mod rule_13_one_bad_member {
    use super::*;

    #[test]
    fn a_refused_batch_is_halved_until_the_bad_node_fails_alone() {
        let mut desk = boot(8);
        let _ = desk.pass();
        desk.power_of_all(Power::Off);
        let mut stored = 0;
        for _ in 0..6 {
            for call in desk.leaves().into_iter().filter(|call| !is_power(call)) {
                if call.nodes.iter().any(|(node, _)| *node == NodeId(5)) {
                    desk.answer(call.id, Outcome::Rejected { detail: "bad host".into() });
                } else {
                    stored += call.nodes.len();
                    desk.answer(call.id, Outcome::Stored { token: token() });
                }
            }
        }
        assert_eq!(stored, 7);
        assert_eq!(desk.end(5), Some((EndKind::Failed, reasons::BOOT_PARAMETERS_REFUSED)));
    }

    #[test]
    fn a_task_counts_for_its_own_node() {
        let mut desk = boot(2);
        let _ = desk.pass();
        desk.power_of_all(Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        desk.wait(SECOND);
        let tasks = vec![(NodeId(0), Task::Succeeded), (NodeId(1), Task::Failed { detail: "BMC".into() })];
        desk.world.fold_progress(call.id, desk.now, bos_core::batch::Progress::Tasks { done: true, tasks }, desk.now);
        assert!(!desk.drive(0).action.unwrap().failed);
        assert!(desk.drive(1).action.unwrap().failed);
    }
}

mod rule_14_attempts {
    use super::*;

    #[test]
    fn a_call_that_did_not_reach_its_service_is_no_attempt() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::NotSent { service: Service::Pcs, detail: "refused".into() });
        assert_eq!((desk.drive(0).attempts.on, desk.drive(0).action), (0, None));
        assert!(desk.leaves().is_empty(), "not before the pause is over");
        desk.wait(SECOND);
        assert!(is_power(&desk.one()));
    }

    #[test]
    fn a_call_that_may_have_been_carried_out_is_waited_out() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::Unknown { detail: "reset".into() });
        assert_eq!(desk.drive(0).attempts.on, 1);
        desk.wait(MINUTE);
        desk.power(0, Power::Off);
        assert!(desk.leaves().is_empty());
        desk.power(0, Power::On);
        let _ = desk.report(0, &token());
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Succeeded, "")));
    }

    #[test]
    fn a_shutdown_needs_no_bss_no_cfs_and_no_s3() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Shutdown, 1, "", ""));
        for service in [Service::Bss, Service::Cfs, Service::S3, Service::Ims] {
            desk.world.fold_fault(&Fault { service, detail: "503".into() }, desk.now);
        }
        let _ = desk.pass();
        desk.power(0, Power::On);
        assert!(is_power(&desk.one()));
    }

    #[test]
    fn an_answer_of_bss_ends_the_outage_of_what_it_needed() {
        let mut desk = boot(1);
        desk.world.fold_fault(&Fault { service: Service::Ims, detail: "503".into() }, desk.now);
        desk.wait(SECOND);
        desk.parameters_stored();
        assert!(desk.world.services.down(Service::Ims).is_none());
    }
}

mod rule_15_every_session_ends {
    use super::*;

    #[test]
    fn a_node_that_stays_reserved_by_somebody_else_fails_at_last() {
        let mut desk = boot(1);
        for _ in 0..2000 {
            let _ = desk.pass();
            desk.power(0, Power::Off);
            for call in desk.leaves() {
                match call.order {
                    Order::Power(_) => {
                        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
                        desk.tasks(&call, Task::Untouched { detail: "reserved".into(), permanent: false });
                    }
                    _ => desk.answer(call.id, Outcome::Stored { token: token() }),
                }
            }
            desk.wait(5 * SECOND);
            if desk.world.nodes[0].drive.is_none() {
                break;
            }
        }
        assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::POWER_ON_TIMEOUT)));
        assert!(desk.run().slots[0].end.as_ref().unwrap().message.contains("reserved"));
    }

    #[test]
    fn a_transition_that_never_ends_is_given_up_and_its_nodes_are_judged_again() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        let goes_on = || Progress::Tasks { done: false, tasks: vec![(NodeId(0), Task::Open)] };
        desk.wait(desk.world.options.max_power_off_wait + 10 * MINUTE);
        desk.world.fold_progress(call.id, desk.now, goes_on(), desk.now);
        desk.power(0, Power::Off);
        assert!(desk.leaves().is_empty());
        assert!(!desk.drive(0).action.unwrap().failed, "it is followed, whatever the deadline of the action");
        desk.wait(SECOND);
        desk.world.fold_progress(call.id, desk.now, goes_on(), desk.now);
        desk.power(0, Power::Off);
        let again = desk.prepared();
        assert_eq!(again.order, Order::Power(PowerAction::On));
        assert_eq!(desk.drive(0).attempts.on, 2);
    }

    /// All that a journal keeps of a node, but for the texts.
    fn kept(desk: &Desk, index: usize) -> String {
        let node = &desk.world.nodes[index];
        let drive = node.drive.clone().map(|drive| bos_core::model::Drive { error: "".into(), ..drive });
        format!("{drive:?} {:?} {:?}", desk.end(index), node.last.as_ref().map(|last| (last.attempts, last.action, last.phase)))
    }

    #[test]
    fn thousands_of_texts_do_not_make_a_journal_too_long_to_be_written() {
        const NODES: u32 = 6000;
        const LIMIT: usize = 100_000;
        let mut desk = boot(NODES as usize);
        desk.world.options.batch_size = NODES as usize;
        desk.powered_on();
        for id in (0..NODES).map(NodeId) {
            let text = format!("{id:?}: {}", "the controller said something long. ".repeat(8));
            let drive = desk.world.nodes[id.0 as usize].drive.as_mut().unwrap();
            drive.error = text.as_str().into();
            drive.attempts.on = 1 + u16::from(id.0 % 3 == 0);
        }
        // Every other node has ended, with a text of its own as well.
        let uid = desk.uid.clone();
        for index in (0..NODES as usize).step_by(2) {
            let _ = desk.world.nodes[index].drive.take();
            let session = desk.world.sessions.get_mut(&uid).unwrap();
            let end = bos_core::model::End {
                kind: EndKind::Failed,
                reason: reasons::POWER_REFUSED.into(),
                message: format!("{index}: {}", "refused, and here is why. ".repeat(8)).as_str().into(),
                at: desk.now,
            };
            session.running_mut().unwrap().slots[index].end = Some(Box::new(end));
        }
        let journal = snapshot(&desk.world, &desk.world.sessions[&uid], desk.now).unwrap();
        let whole = journal.encode().unwrap();
        assert!(whole.len() > LIMIT);
        let short = journal.clone().encode_within(LIMIT).unwrap();
        assert!(short.len() <= LIMIT, "{} bytes", short.len());
        let resumed = |bytes: &[u8]| {
            let world = crate::fixture::world(NODES as usize, desk.now);
            let mut other = Desk { world, now: desk.now, uid: uid.clone(), plan: desk.plan.clone() };
            run_plan(&mut other.world, "first", desk.plan.clone(), desk.now);
            other.world.resume(&uid, Journal::decode(bytes).unwrap(), desk.now).unwrap();
            (0..NODES as usize).map(|index| kept(&other, index)).collect::<Vec<_>>()
        };
        assert!(resumed(&short) == resumed(&whole), "it decides as the whole one would");
        assert_eq!(journal.clone().encode_within(whole.len()).unwrap(), whole, "one that fits keeps its texts");
    }

    #[test]
    fn nor_do_nodes_that_are_powered_on_one_after_the_other() {
        const NODES: u32 = 6000;
        const LIMIT: usize = 200_000;
        let mut desk = Desk::new(NODES as usize, plan(PlannedOperation::Boot, NODES as usize, "new", "conf"));
        desk.world.options.batch_size = NODES as usize;
        desk.powered_on();
        desk.wait(10 * MINUTE);
        for id in (0..NODES).map(NodeId) {
            let later = |at| at + Duration::from_millis(50) * id.0;
            let drive = desk.world.nodes[id.0 as usize].drive.as_mut().unwrap();
            let issued = drive.action.as_mut().unwrap();
            (issued.at, issued.decided) = (later(issued.at), later(issued.decided));
            (issued.power_by, issued.boot_by) = (later(issued.power_by), later(issued.boot_by));
            drive.last_on = drive.last_on.map(later);
            // The last ones are not up yet.
            if id.0 < NODES - 200 {
                let _ = desk.report(id.0, &token());
            }
        }
        let _ = desk.pass();
        let journal = snapshot(&desk.world, &desk.world.sessions[&desk.uid], desk.now).unwrap();
        assert!(journal.encode().unwrap().len() > 5 * LIMIT);
        let short = journal.encode_within(LIMIT).unwrap();
        assert!(short.len() <= LIMIT, "{} bytes", short.len());
        let mut other =
            Desk { world: crate::fixture::world(NODES as usize, desk.now), plan: desk.plan.clone(), uid: desk.uid.clone(), ..desk };
        run_plan(&mut other.world, "first", desk.plan.clone(), desk.now);
        other.world.resume(&desk.uid, Journal::decode(&short).unwrap(), desk.now).unwrap();
        for index in 0..NODES as usize {
            let (before, after) = (desk.world.nodes[index].drive.as_ref().unwrap(), other.drive(index));
            assert_eq!((before.phase, before.attempts, before.booted.is_some()), (after.phase, after.attempts, after.booted.is_some()));
            let (before, late) = (before.action.unwrap(), if before.booted.is_some() { MINUTE } else { SECOND });
            let after = after.action.unwrap();
            let later = |exact, rounded| (exact..exact + late).contains(&rounded);
            assert!(later(before.boot_by, after.boot_by) && later(before.power_by, after.power_by), "{before:?} {after:?}");
        }
    }

    #[test]
    fn configuration_has_a_deadline() {
        let mut desk = Desk::new(1, plan(PlannedOperation::Boot, 1, "new", "conf"));
        desk.powered_on();
        let _ = desk.report(0, &token());
        let _ = desk.pass();
        desk.configuration(0, "conf", ConfigStatus::Pending);
        let _ = desk.pass();
        assert_eq!(desk.end(0), None);
        desk.wait(desk.world.options.configuration_wait);
        desk.configuration(0, "conf", ConfigStatus::Pending);
        let _ = desk.pass();
        assert_eq!(desk.end(0), Some((EndKind::Failed, reasons::CONFIGURATION_TIMEOUT)));
    }

    #[test]
    fn nodes_that_have_reported_need_not_wait_until_their_power_on_is_confirmed() {
        let mut desk = boot(1);
        let _ = desk.pass();
        desk.power(0, Power::Off);
        let call = desk.prepared();
        desk.answer(call.id, Outcome::Accepted { transition: "t".into() });
        let _ = desk.report(0, &token());
        let _ = desk.pass();
        assert!(matches!(desk.world.sessions[&desk.uid].stage, Stage::Ended(_)));
        desk.wait(SECOND);
        assert!(desk.pass().contains(&Effect::Follow(call.id)), "a newer session has to wait for it");
    }

    #[test]
    fn a_session_is_over_with_its_last_node() {
        let mut desk = boot(2);
        desk.powered_on();
        let _ = desk.report(0, &token());
        let _ = desk.pass();
        assert!(matches!(desk.world.sessions[&desk.uid].stage, Stage::Running(_)));
        let _ = desk.report(1, &token());
        let _ = desk.pass();
        assert!(matches!(&desk.world.sessions[&desk.uid].stage, Stage::Ended(ended) if ended.end.outcome == SessionOutcome::Succeeded));
    }
}

#[path = "needless.rs"]
mod rule_16_no_needless_work;

mod rule_12_statuses_may_lag {
    use super::*;
    use bos_core::model::{Reported, Token};

    fn stale(desk: &mut Desk, token: &Token, artifacts: &str) {
        let since = crate::fixture::START;
        let artifacts = Some(crate::fixture::digest(artifacts));
        desk.world.nodes[0].reported = Some(Reported { token: token.clone(), artifacts, since, at: desk.now, expired: false });
    }

    #[test]
    fn an_image_from_before_our_power_on_is_forgotten_when_we_start_again() {
        let mut desk = boot(1);
        desk.powered_on();
        let journal = snapshot(&desk.world, &desk.world.sessions[&desk.uid], desk.now).unwrap();
        desk.restart(SECOND);
        stale(&mut desk, &Token("old".into()), "old");
        let uid = desk.uid.clone();
        desk.world.resume(&uid, journal, desk.now).unwrap();
        assert_eq!(desk.world.nodes[0].reported, None);
    }

    #[test]
    fn a_report_in_a_status_neither_contradicts_power_nor_proves_a_boot() {
        let mut desk = boot(1);
        desk.powered_on();
        desk.restart(SECOND);
        stale(&mut desk, &token(), "new");
        desk.power(0, Power::On);
        let _ = desk.pass();
        assert_eq!(desk.drive(0).booted, None);
        desk.wait(desk.world.options.max_power_on_wait);
        desk.power(0, Power::Off);
        let _ = desk.pass();
        assert!(desk.drive(0).action.unwrap().failed, "off is off");
    }
}
