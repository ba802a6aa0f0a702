//! Sessions of mode v1: the operator and an agent never act on a node at the same time (rule 11), and the records tell who may.

#[path = "agents/told.rs"]
mod told;

use std::time::Duration;

use bos_core::health::{Service, Services};
use bos_core::journal::{Journal, snapshot};
use bos_core::model::{EndKind, NodeId, Power, PowerAction, SessionUid, World};
use bos_core::plan::{Evidence, Plan, PlannedOperation, RunningPolicy};
use bos_core::running::{Dispatch, Order};
use bos_core::session::{SessionOutcome, Stage};
use bos_core::time::Timestamp;
use bos_core::want::Effect;
use bos_crds::reasons;

use crate::SECOND;
use crate::desk::{Desk, is_power};
use crate::fixture::{START, plan, run_plan, world};

/// The operator and the agent of one Session over the same nodes, each with what it knows.
struct Pair {
    operator: Desk,
    agent: Desk,
}

fn v1(operation: PlannedOperation, count: usize) -> Plan {
    Plan { agent: true, running: RunningPolicy::Skip, evidence: Evidence::HsmReady, ..plan(operation, count, "new", "") }
}

fn desk(count: usize, plan: &Plan, is_agent: bool) -> Desk {
    let mut world = world(count, START);
    world.services = Services::without([Service::Cfs]);
    world.is_agent = is_agent;
    let now = START + Duration::from_secs(120);
    let uid = run_plan(&mut world, "first", plan.clone(), now);
    Desk { world, now, uid, plan: plan.clone() }
}

impl Pair {
    /// A Session that was handed over.
    fn new(operation: PlannedOperation, count: usize) -> Self {
        let plan = v1(operation, count);
        let (mut operator, agent) = (desk(count, &plan, false), desk(count, &plan, true));
        assert!(operator.world.is_ready_for_agent(&operator.uid, operator.now));
        let uid = operator.uid.clone();
        operator.world.hand_over(&uid);
        Self { operator, agent }
    }

    /// What the agent has written by now.
    fn journal(&self) -> Journal {
        let session = &self.agent.world.sessions[&self.agent.uid];
        Journal::decode(&snapshot(&self.agent.world, session, self.agent.now).unwrap().encode().unwrap()).unwrap()
    }

    /// The operator reads the journal of the agent.
    fn mirror(&mut self) {
        let (uid, journal, now) = (self.agent.uid.clone(), self.journal(), self.operator.now);
        self.operator.world.mirror(&uid, journal, now).unwrap();
    }

    fn wait(&mut self, span: Duration) {
        self.operator.wait(span);
        self.agent.wait(span);
    }

    /// The agent has sent a power-on, and PCS has accepted it.
    fn powering_on(&mut self) {
        let _ = self.agent.pass();
        self.agent.power_of_all(Power::Off);
        let call = self.agent.prepared();
        assert_eq!(call.order, Order::Power(PowerAction::On));
        self.agent.answer(call.id, bos_core::batch::Outcome::Accepted { transition: "transition".into() });
        self.mirror();
    }

    /// A newer Session of mode v2 takes the nodes, in the operator.
    fn newer(&mut self) -> SessionUid {
        self.wait(SECOND);
        let plan = plan(PlannedOperation::Shutdown, self.operator.world.nodes.len(), "", "");
        run_plan(&mut self.operator.world, "second", plan, self.operator.now)
    }

    fn end(&self, index: usize) -> Option<(EndKind, &str)> {
        self.operator.end(index)
    }
}

fn states(world: &mut World, ready: bool, now: Timestamp) {
    let nodes: Vec<NodeId> = (0..u32::try_from(world.nodes.len()).unwrap()).map(NodeId).collect();
    let read = nodes.iter().map(|id| (*id, ready)).collect();
    world.fold_states(&nodes, now, Ok(read), now);
}

#[test]
fn the_operator_does_nothing_for_a_session_that_is_with_its_agent() {
    let mut pair = Pair::new(PlannedOperation::Boot, 2);
    let asked = pair.operator.pass();
    assert!(!asked.iter().any(|effect| matches!(effect, Effect::ReadPower(_) | Effect::ReadStates(_))), "{asked:?}");
    pair.operator.power_of_all(Power::Off);
    assert_eq!(pair.operator.leaves(), Vec::new());
    assert!(pair.operator.world.is_shown_by_agent(NodeId(0)));
    assert!(!pair.operator.world.drives(&pair.operator.uid), "its journal is the agent's to write");
}

#[test]
fn what_the_agent_has_done_the_operator_shows() {
    let mut pair = Pair::new(PlannedOperation::Boot, 2);
    pair.powering_on();
    assert_eq!(pair.operator.drive(0).attempts.on, 1);
    pair.wait(SECOND);
    states(&mut pair.agent.world, false, pair.agent.now);
    pair.wait(SECOND);
    pair.agent.power_of_all(Power::On);
    states(&mut pair.agent.world, true, pair.agent.now);
    let _ = pair.agent.pass();
    pair.mirror();
    assert_eq!(pair.end(0), Some((EndKind::Succeeded, "")));
    assert!(matches!(pair.operator.world.sessions[&pair.operator.uid].stage, Stage::Ended(_)));
    assert!(pair.operator.world.is_shown_by_agent(NodeId(0)), "until the Session is taken back");
}

#[test]
fn an_agent_begins_when_what_an_older_session_asked_for_has_ended() {
    let mut older = Desk::new(1, plan(PlannedOperation::Boot, 1, "new", ""));
    let _ = older.pass();
    older.power(0, Power::Off);
    let call = older.prepared();
    older.answer(call.id, bos_core::batch::Outcome::Accepted { transition: "transition".into() });
    older.wait(SECOND);
    let uid = run_plan(&mut older.world, "second", v1(PlannedOperation::Boot, 1), older.now);
    assert!(!older.world.is_ready_for_agent(&uid, older.now), "PCS still works on the node");
    older.tasks(&call, bos_core::batch::Task::Succeeded);
    older.wait(SECOND);
    assert!(older.world.is_ready_for_agent(&uid, older.now));
}

#[test]
fn a_newer_session_waits_until_the_agent_has_let_go() {
    let mut pair = Pair::new(PlannedOperation::Boot, 1);
    pair.powering_on();
    let newer = pair.newer();
    assert_eq!(pair.end(0).unwrap().0, EndKind::Superseded);
    pair.operator.power(0, Power::On);
    assert_eq!(pair.operator.leaves(), Vec::new(), "the agent may be about to act");
    // The agent learns of it. What PCS has of it is under way still.
    pair.agent.world.taken_from_agent(NodeId(0), "bos/second", pair.agent.now);
    assert_eq!(pair.agent.leaves(), Vec::new());
    pair.mirror();
    pair.operator.power(0, Power::On);
    assert_eq!(pair.operator.leaves(), Vec::new(), "PCS still works for the agent");
    pair.wait(SECOND);
    let batch = *pair.agent.world.batches.keys().next().unwrap();
    let done = bos_core::batch::Progress::Tasks { done: true, tasks: vec![(NodeId(0), bos_core::batch::Task::Succeeded)] };
    pair.agent.world.fold_progress(batch, pair.agent.now, done, pair.agent.now);
    let _ = pair.agent.pass();
    pair.mirror();
    pair.wait(SECOND);
    let _ = pair.operator.pass();
    pair.operator.power(0, Power::On);
    let calls = pair.operator.leaves();
    assert!(calls.len() == 1 && is_power(&calls[0]) && calls[0].session == newer, "{calls:?}");
    assert_eq!(pair.agent.world.sessions[&pair.agent.uid].run().unwrap().slots[0].end.as_ref().unwrap().kind, EndKind::Superseded);
}

/// The operator knew only that a power-on may have been sent. The agent knows how that went, or waits it out too.
#[test]
fn what_the_agent_says_last_counts() {
    for (answered, free) in [(true, true), (false, false)] {
        let mut pair = Pair::new(PlannedOperation::Boot, 1);
        let _ = pair.agent.pass();
        pair.agent.power_of_all(Power::Off);
        let call = pair.agent.prepared();
        pair.mirror();
        let _newer = pair.newer();
        if answered {
            pair.agent.carried_out(&call);
        } else {
            pair.agent.answer(call.id, bos_core::batch::Outcome::Unknown { detail: "lost".into() });
        }
        pair.agent.world.taken_from_agent(NodeId(0), "bos/second", pair.agent.now);
        pair.mirror();
        pair.wait(SECOND);
        let _ = pair.operator.pass();
        pair.operator.power(0, Power::On);
        assert_eq!(!pair.operator.leaves().is_empty(), free, "answered: {answered}");
    }
}

#[test]
fn a_node_that_was_taken_is_not_acted_on_by_the_agent() {
    let mut pair = Pair::new(PlannedOperation::Boot, 2);
    let _ = pair.agent.pass();
    pair.agent.power_of_all(Power::Off);
    pair.agent.world.taken_from_agent(NodeId(0), "bos/second", pair.agent.now);
    let call = pair.agent.one();
    assert_eq!(call.nodes.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [NodeId(1)]);
}

#[test]
fn what_a_lost_agent_has_not_done_fails_and_is_left_as_it_is() {
    let mut pair = Pair::new(PlannedOperation::Boot, 2);
    pair.powering_on();
    let (uid, journal, now) = (pair.operator.uid.clone(), pair.journal(), pair.operator.now);
    pair.operator.world.take_back(&uid, Some(journal), "The agent ended.", now).unwrap();
    assert_eq!([pair.end(0), pair.end(1)], [Some((EndKind::Failed, reasons::AGENT_LOST)); 2]);
    // What PCS accepted is followed to its end by the operator.
    let effects = pair.operator.pass();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Follow(_))), "{effects:?}");
    pair.operator.power_of_all(Power::Off);
    assert_eq!(pair.operator.leaves(), Vec::new());
    assert!(!pair.operator.world.is_shown_by_agent(NodeId(0)));
}

/// The agent is lost before it learnt that the node is another's, and nobody knows what became of its power-on.
#[test]
fn what_a_lost_agent_may_have_sent_is_waited_out() {
    let mut pair = Pair::new(PlannedOperation::Boot, 1);
    let _ = pair.agent.pass();
    pair.agent.power_of_all(Power::Off);
    let _call = pair.agent.prepared();
    let _newer = pair.newer();
    let (uid, journal, now) = (pair.operator.uid.clone(), pair.journal(), pair.operator.now);
    pair.operator.world.take_back(&uid, Some(journal), "The agent ended.", now).unwrap();
    pair.wait(SECOND);
    let _ = pair.operator.pass();
    pair.operator.power(0, Power::On);
    assert_eq!(pair.operator.leaves(), Vec::new(), "it may be on its way");
    pair.wait(pair.operator.world.options.max_power_on_wait);
    let _ = pair.operator.pass();
    pair.operator.power(0, Power::On);
    assert_eq!(pair.operator.leaves().len(), 1);
}

#[test]
fn a_cancelled_session_that_is_taken_back_ends_cancelled() {
    let mut pair = Pair::new(PlannedOperation::Boot, 1);
    let (uid, now) = (pair.operator.uid.clone(), pair.operator.now);
    pair.operator.world.sessions.get_mut(&uid).unwrap().spec.cancel = true;
    let journal = pair.journal();
    pair.operator.world.take_back(&uid, Some(journal), "The agent ended.", now).unwrap();
    pair.operator.wait(SECOND);
    pair.operator.power(0, Power::Off);
    let _ = pair.operator.pass();
    assert_eq!(pair.end(0), Some((EndKind::Cancelled, reasons::CANCELLED)));
}

#[test]
fn one_that_was_never_launched_is_the_operators_to_end() {
    let mut operator = desk(1, &v1(PlannedOperation::Boot, 1), false);
    let uid = operator.uid.clone();
    operator.world.sessions.get_mut(&uid).unwrap().spec.cancel = true;
    operator.world.keep_from_agent(&uid);
    let _ = operator.pass();
    assert_eq!(operator.end(0), Some((EndKind::Cancelled, reasons::CANCELLED)));
}

#[test]
fn a_boot_of_mode_v1_leaves_what_is_on() {
    let mut pair = Pair::new(PlannedOperation::Boot, 1);
    let _ = pair.agent.pass();
    pair.agent.power(0, Power::On);
    assert_eq!(pair.agent.leaves(), Vec::new());
    assert_eq!(pair.agent.end(0), Some((EndKind::LeftRunning, reasons::ALREADY_ON)));
}

/// So that it can be tried again once more, with runningNodes: Restart.
#[test]
fn what_failed_and_is_on_stays_failed_when_it_is_tried_again() {
    let mut pair = Pair::new(PlannedOperation::Boot, 1);
    let uid = pair.agent.uid.clone();
    pair.agent.world.sessions.get_mut(&uid).unwrap().spec.retry_of = Some("before".to_owned());
    let _ = pair.agent.pass();
    pair.agent.power(0, Power::On);
    assert_eq!(pair.agent.leaves(), Vec::new());
    assert_eq!(pair.agent.end(0), Some((EndKind::Failed, reasons::UNKNOWN_IMAGE_RUNNING)));
}

#[test]
fn an_agent_cycles_nothing_for_its_silence() {
    let mut pair = Pair::new(PlannedOperation::Boot, 1);
    let _ = pair.agent.pass();
    pair.agent.power(0, Power::Off);
    let call = pair.agent.prepared();
    pair.agent.carried_out(&call);
    pair.agent.wait(pair.agent.world.options.v1_boot_wait - 2 * SECOND);
    pair.agent.power(0, Power::On);
    states(&mut pair.agent.world, false, pair.agent.now);
    assert_eq!(pair.agent.leaves(), Vec::new());
    assert_eq!(pair.agent.end(0), None, "it has half an hour");
    pair.wait(2 * SECOND);
    pair.agent.power(0, Power::On);
    states(&mut pair.agent.world, false, pair.agent.now);
    assert_eq!(pair.agent.leaves(), Vec::new());
    assert_eq!(pair.agent.end(0), Some((EndKind::Failed, reasons::BOOT_TIMEOUT)));
}

#[test]
fn an_agent_lets_hsm_tell_of_its_nodes_first() {
    let mut pair = Pair::new(PlannedOperation::Boot, 2);
    pair.agent.world.discovery.complete = false;
    let asked = pair.agent.pass();
    assert!(!asked.iter().any(|effect| matches!(effect, Effect::ReadPower(_))), "{asked:?}");
    pair.agent.power_of_all(Power::Off);
    assert_eq!(pair.agent.leaves(), Vec::new());
    pair.agent.world.discovery.complete = true;
    pair.agent.world.nodes[0].facts = None;
    let call = pair.agent.one();
    assert_eq!(call.nodes.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [NodeId(1)]);
    assert_eq!(pair.agent.end(0), Some((EndKind::LeftRunning, reasons::NOT_IN_HSM)));
}

/// Who is killed right after the power-on finds the node Ready, and nobody has seen it come up.
#[test]
fn what_hsm_called_a_node_that_was_off_makes_its_ready_news() {
    for (before, expected) in [(Some(false), true), (Some(true), false), (None, false)] {
        let mut pair = Pair::new(PlannedOperation::Boot, 1);
        let asked = pair.agent.pass();
        assert!(!asked.iter().any(|effect| matches!(effect, Effect::ReadStates(_))), "{asked:?}");
        pair.agent.power(0, Power::Off);
        let asked = pair.agent.pass();
        assert!(asked.iter().any(|effect| matches!(effect, Effect::ReadStates(_))), "{asked:?}");
        if let Some(ready) = before {
            states(&mut pair.agent.world, ready, pair.agent.now);
        }
        let call = pair.agent.prepared();
        pair.agent.carried_out(&call);
        pair.agent.wait(SECOND);
        states(&mut pair.agent.world, true, pair.agent.now);
        assert_eq!(pair.agent.world.nodes[0].drive.as_ref().is_some_and(|drive| drive.booted.is_some()), expected, "{before:?}");
    }
}

impl Pair {
    /// PCS powers the node on for an agent that is gone, and the operator has taken the Session back. `restart`: it was restarted then.
    fn taken_back(cancelled: bool, restart: bool) -> Self {
        let mut pair = Self::new(PlannedOperation::Boot, 1);
        pair.powering_on();
        let (uid, journal, operator) = (pair.operator.uid.clone(), pair.journal(), &mut pair.operator);
        operator.world.sessions.get_mut(&uid).unwrap().spec.cancel = cancelled;
        operator.world.take_back(&uid, Some(journal), "The agent ended.", operator.now).unwrap();
        let _ = operator.pass();
        if restart {
            operator.crash_with(SECOND, true, |stored| {
                let taken = stored.iter_mut().find(|stored| stored.uid == uid).unwrap();
                taken.taken_back = true;
            });
            // As `Task::load_agent` does.
            operator.world.give_up_agent(&uid, "Its agent ended before the Session was over.", operator.now);
        }
        pair
    }

    /// What the operator sends when it sees the power of the node.
    fn operator_sends(&mut self, seen: Power) -> Vec<Dispatch> {
        self.wait(SECOND);
        let _ = self.operator.pass();
        self.operator.power(0, seen);
        self.operator.leaves()
    }
}

/// The agent is gone, PCS still works on the node for it, and the operator that had taken the Session back is restarted.
#[test]
fn what_was_accepted_is_followed_by_the_next_operator_too() {
    for restart in [false, true] {
        let mut pair = Pair::taken_back(false, restart);
        let newer = pair.newer();
        let calls = pair.operator_sends(Power::On);
        assert!(calls.is_empty(), "restart {restart}: PCS still powers the node on, and {newer} sends {calls:?}");
    }
}

/// The same where a person has cancelled the Session: the part of the node is over when what was accepted is.
#[test]
fn a_cancelled_session_waits_for_what_was_accepted_over_a_restart_too() {
    for restart in [false, true] {
        let mut pair = Pair::taken_back(true, restart);
        pair.wait(SECOND);
        pair.operator.power(0, Power::Off);
        let _ = pair.operator.pass();
        assert_eq!(pair.end(0), None, "restart {restart}: PCS still powers the node on");
    }
}

/// The agent was let begin and has written nothing yet when the operator is restarted; a newer Session had taken the node.
#[test]
fn an_agent_that_has_written_nothing_yet_keeps_a_newer_session_waiting_over_a_restart_too() {
    for restart in [false, true] {
        let mut pair = Pair::new(PlannedOperation::Boot, 1);
        let uid = pair.operator.uid.clone();
        let newer = pair.newer();
        if restart {
            let older = uid.clone();
            pair.operator.crash_with(SECOND, true, |stored| {
                let of_agent = stored.iter_mut().find(|stored| stored.uid == older).unwrap();
                of_agent.journal = bos_core::resume::StoredJournal::Empty;
            });
            // As `Task::load_agent` does: there is no journal to mirror.
            pair.operator.world.may_be_with_agent(&uid);
        }
        let calls = pair.operator_sends(Power::On);
        assert!(calls.is_empty(), "restart {restart}: the agent does not know of {newer}, which sends {calls:?}");
    }
}

/// BSS has not answered the agent when it learns that the node is another's: what it stores last is what the node boots (rule 6).
#[test]
fn a_newer_session_waits_for_boot_parameters_that_the_agent_is_storing() {
    let mut pair = Pair::new(PlannedOperation::Boot, 1);
    let _ = pair.agent.pass();
    pair.agent.power_of_all(Power::Off);
    let call = pair.agent.one();
    assert!(matches!(call.order, Order::BootParameters { .. }), "{call:?}");
    pair.mirror();
    pair.wait(SECOND);
    let newer = run_plan(&mut pair.operator.world, "second", plan(PlannedOperation::Boot, 1, "other", ""), pair.operator.now);
    pair.agent.world.taken_from_agent(NodeId(0), "bos/second", pair.agent.now);
    pair.mirror();
    let calls = pair.operator_sends(Power::Off);
    assert!(calls.is_empty(), "BSS may take the agent's parameters after those of {newer}: {calls:?}");
}

/// In one process it is so.
#[test]
fn a_newer_session_waits_for_boot_parameters_that_an_older_one_is_storing() {
    let mut desk = Desk::new(1, plan(PlannedOperation::Boot, 1, "new", ""));
    let _ = desk.pass();
    desk.power(0, Power::Off);
    let call = desk.one();
    assert!(matches!(call.order, Order::BootParameters { .. }), "{call:?}");
    desk.wait(SECOND);
    let _newer = run_plan(&mut desk.world, "second", plan(PlannedOperation::Boot, 1, "other", ""), desk.now);
    desk.wait(SECOND);
    let _ = desk.pass();
    desk.power(0, Power::Off);
    assert_eq!(desk.leaves(), Vec::new());
}

/// A pod that begins does not see a node that was given to somebody else: it asks whose it is, and acts on it only when that is known.
#[test]
fn an_agent_does_not_act_on_a_node_before_it_knows_whose_it_is() {
    let mut pair = Pair::new(PlannedOperation::Boot, 2);
    pair.agent.world.nodes[0].recorded = false;
    let _ = pair.agent.pass();
    pair.agent.power_of_all(Power::Off);
    let call = pair.agent.one();
    assert_eq!(call.nodes.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [NodeId(1)]);
}

/// Rule 9: half of an inventory is a fault of HSM. An agent has records of its own nodes alone, so that what is left of the site is always
/// more than it knows.
#[test]
fn half_of_an_inventory_takes_no_node_from_an_agent() {
    let site = crate::fixture::snapshot(20);
    let mut pair = Pair::new(PlannedOperation::Boot, 4);
    let world = &mut pair.agent.world;
    world.fold_inventory(Ok(site.clone()), pair.agent.now);
    assert_eq!(world.known_nodes(), 4, "its own; the others are not recorded");
    let _ = pair.agent.pass();
    pair.agent.wait(SECOND);
    let half = bos_core::resolve::Snapshot { nodes: site.nodes.into_iter().skip(10).collect(), ..Default::default() };
    pair.agent.world.fold_inventory(Ok(half), pair.agent.now);
    let _ = pair.agent.pass();
    assert_eq!([pair.agent.end(0), pair.agent.end(3)], [None, None]);
    assert!(pair.agent.world.discovery.fault.is_some());
}

/// S3 does not say yet whether what the nodes are to boot is there: they are left as they are. A person may cancel meanwhile.
#[test]
fn an_agent_touches_no_node_before_it_has_seen_what_that_is_to_boot() {
    let mut pair = Pair::new(PlannedOperation::Reboot, 2);
    let uid = pair.agent.uid.clone();
    pair.agent.world.hold_unverified(&uid, 0);
    let _ = pair.agent.pass();
    pair.agent.power_of_all(Power::On);
    assert_eq!(pair.agent.leaves(), Vec::new());
    pair.agent.world.release_verified(&uid, 0);
    pair.agent.wait(SECOND);
    let _ = pair.agent.pass();
    pair.agent.power_of_all(Power::On);
    assert_eq!(pair.agent.one().order, Order::Power(PowerAction::SoftOff));

    let mut pair = Pair::new(PlannedOperation::Reboot, 1);
    let uid = pair.agent.uid.clone();
    pair.agent.world.hold_unverified(&uid, 0);
    pair.agent.world.sessions.get_mut(&uid).unwrap().spec.cancel = true;
    let _ = pair.agent.pass();
    assert_eq!(pair.agent.end(0).map(|(kind, _)| kind), Some(EndKind::Cancelled));
}

/// All nodes were on: a Boot of mode v1 has done what it was to do (v1 behaviour §8, scenario 2).
#[test]
fn a_boot_of_nodes_that_are_all_on_has_succeeded() {
    let mut pair = Pair::new(PlannedOperation::Boot, 2);
    let _ = pair.agent.pass();
    pair.agent.power_of_all(Power::On);
    let _ = pair.agent.pass();
    pair.mirror();
    let Stage::Ended(ended) = &pair.operator.world.sessions[&pair.operator.uid].stage else { panic!("it has not ended") };
    assert_eq!((ended.end.outcome, &*ended.end.reason), (SessionOutcome::Succeeded, reasons::SESSION_SUCCEEDED));
}

/// Somebody deleted the journal of an agent that has ended: nobody knows what it did last, so what is not over fails and is left as it is.
/// What PCS is known to work on is waited for.
#[test]
fn the_nodes_of_an_agent_whose_journal_was_deleted_are_left_as_they_are() {
    let mut pair = Pair::new(PlannedOperation::Boot, 2);
    pair.powering_on();
    let (uid, last) = (pair.operator.uid.clone(), pair.journal());
    pair.operator.world.take_back_without_journal(&uid, Some(last), pair.operator.now).unwrap();
    let _ = pair.operator.pass();
    assert_eq!([pair.end(0), pair.end(1)], [Some((EndKind::Failed, reasons::RECORDS_LOST)); 2]);
    assert!(!pair.operator.world.is_shown_by_agent(NodeId(0)), "the operator shows it again");
    let newer = pair.newer();
    let calls = pair.operator_sends(Power::On);
    assert!(calls.is_empty(), "PCS still powers the node on, and {newer} sends {calls:?}");
}
