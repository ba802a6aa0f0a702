//! Rule 16: no call, write or list grows without need.

use super::*;
use bos_core::batch::BatchId;
use bos_core::by_phase::ByPhase;
use bos_core::model::{Node, Phase};
use bos_core::power_on;

#[test]
fn a_repeated_report_changes_nothing() {
    let mut desk = boot(2);
    desk.powered_on();
    let _ = desk.report(0, &token());
    let _ = desk.pass();
    desk.world.journal_due.clear();
    desk.world.touched.clear();
    assert_eq!(desk.report(0, &token()), ReportNeeds::Status(NodeId(0)), "which is written");
    assert!(desk.world.touched.is_empty() && desk.world.journal_due.is_empty());
}

#[test]
fn a_pass_in_which_nothing_is_new_changes_nothing() {
    let mut desk = boot(3);
    desk.powered_on();
    desk.world.touched.clear();
    desk.world.touched_sessions.clear();
    desk.world.journal_due.clear();
    assert_eq!(desk.pass(), []);
    assert!(desk.world.touched.is_empty() && desk.world.touched_sessions.is_empty() && desk.world.journal_due.is_empty());
}

/// One is in the phase already, where a person holds it, when the other comes to it.
#[test]
fn nodes_that_come_to_a_phase_one_after_the_other_share_a_call() {
    let mut desk = boot(2);
    let _ = desk.pass();
    desk.world.nodes[0].suspended = true;
    desk.power(0, Power::Off);
    assert_eq!(desk.leaves().len(), 0);
    assert_eq!(desk.drive(0).phase, Phase::PoweringOn);
    desk.world.nodes[0].suspended = false;
    desk.power_of_all(Power::Off);
    assert_eq!(desk.one().nodes.len(), 2);
}

/// Whatever an operator was told before.
#[test]
fn nothing_is_done_to_a_node_for_what_it_was() {
    let mut desk = boot(1);
    let _ = desk.pass();
    desk.world.nodes[0].suspended = true;
    desk.power(0, Power::Off);
    let _ = desk.pass();
    desk.world.nodes[0].suspended = false;
    let before = ByPhase::default().completed(&desk.world, desk.now);
    let opens = |desk: &Desk| power_on::reconcile(&desk.world, &before, desk.now).len();
    assert_eq!(opens(&desk), 1);
    let (free, later) = (desk.world.nodes[0].clone(), desk.now + MINUTE);
    let changes: [&dyn Fn(&mut Node); 5] = [
        &|node| node.drive.as_mut().unwrap().phase = Phase::PoweringOff,
        &|node| node.drive.as_mut().unwrap().session = "another".into(),
        &|node| node.drive.as_mut().unwrap().not_before = later,
        &|node| node.suspended = true,
        &|node| node.batch = Some(BatchId(1)),
    ];
    for (index, change) in changes.iter().enumerate() {
        desk.world.nodes[0] = free.clone();
        change(&mut desk.world.nodes[0]);
        assert_eq!(opens(&desk), 0, "change {index}");
    }
}

#[test]
fn what_an_idle_operator_asks_for_does_not_grow_with_its_nodes() {
    let asked = |count| {
        let mut desk = boot(1);
        desk.world = crate::fixture::world(count, desk.now);
        let mut effects = Vec::new();
        for _ in 0..60 {
            desk.wait(MINUTE);
            effects.extend(desk.pass());
        }
        effects
    };
    let few = asked(1);
    assert!(!few.is_empty(), "it asks for the inventory");
    assert_eq!(few, asked(1000));
}

#[test]
fn nor_does_one_while_a_power_off_is_held_up() {
    let mut desk = Desk::new(1, plan(PlannedOperation::Shutdown, 1, "", ""));
    desk.world.emergency_stop = true;
    let _ = desk.pass();
    desk.power(0, Power::On);
    let _ = desk.pass();
    desk.world.touched.clear();
    desk.world.journal_due.clear();
    let _ = desk.pass();
    assert!(desk.world.touched.is_empty() && desk.world.journal_due.is_empty());
}

#[test]
fn what_is_remembered_of_power_ons_is_bounded() {
    let mut desk = boot(300);
    let _ = desk.pass();
    for index in 0..300 {
        desk.power(index, Power::Off);
        let call = desk.prepared();
        desk.carried_out(&call);
    }
    assert!(desk.run().paced.len() <= 256, "{}", desk.run().paced.len());
}

#[test]
fn every_end_is_written_to_the_journal() {
    let mut desk = boot(2);
    desk.world.journal_due.clear();
    let _ = desk.pass();
    desk.power(0, Power::On);
    let _ = desk.pass();
    assert!(desk.end(0).is_some() && desk.world.journal_due.contains(&desk.uid));
}

#[test]
fn the_journal_stays_small_although_nodes_come_up_one_by_one() {
    let mut desk = Desk::new(4000, plan(PlannedOperation::Boot, 4000, "new", "conf"));
    let _ = desk.pass();
    let nodes: Vec<NodeId> = (0..4000).map(NodeId).collect();
    let off = nodes.iter().map(|node| (*node, Power::Off, "".into())).collect();
    desk.world.fold_power(&nodes, desk.now, Ok(off), desk.now);
    for _ in 0..3 {
        for call in desk.leaves() {
            let changed = call.nodes.iter().map(|(node, _)| *node).collect();
            let outcome = match call.order {
                Order::BootParameters { .. } => Outcome::Stored { token: token() },
                Order::Configuration { .. } => Outcome::Configured { changed },
                Order::Power(_) => Outcome::Accepted { transition: "t".into() },
            };
            desk.answer(call.id, outcome);
        }
    }
    for index in 0..4000 {
        desk.wait(Duration::from_millis(73));
        let _ = desk.report(index, &token());
        let _ = index % 50 == 0 && desk.pass().is_empty();
        if index % 2 == 0 {
            desk.wait(Duration::from_millis(1));
            desk.configuration(index, "conf", ConfigStatus::Configured);
        }
    }
    let _ = desk.pass();
    let size = snapshot(&desk.world, &desk.world.sessions[&desk.uid], desk.now).unwrap().encode().unwrap().len();
    assert!(size < 60_000, "{size} bytes");
}
