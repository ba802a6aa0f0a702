//! What a Session says of its agent, and of what that meets.

use bos_core::project_session::{lasting, session};
use bos_core::session::AgentSeen;
use bos_crds::{SessionStatus, conditions};

use super::*;

fn shown(desk: &Desk) -> SessionStatus {
    session(&desk.world, &desk.world.sessions[&desk.uid], &SessionStatus::default(), desk.now)
}

fn condition(desk: &Desk, type_: &str) -> (String, String, String) {
    let found = conditions::find(&shown(desk).conditions, type_).cloned().unwrap();
    (found.status, found.reason, found.message)
}

/// It cannot see whether they are on: it said until the end that they wait for their power, with a deadline that was over.
#[test]
fn the_operator_says_that_nodes_of_an_agent_wait_for_their_boot() {
    let mut pair = Pair::new(PlannedOperation::Boot, 2);
    pair.powering_on();
    pair.wait(SECOND);
    pair.agent.power_of_all(Power::On);
    pair.mirror();
    let (message, by) = (shown(&pair.operator).message, pair.operator.drive(0).action.unwrap().boot_by.clock());
    assert!(message.contains(&format!("2 wait until HSM says Ready (latest deadline {by})")), "{message}");
}

#[test]
fn an_outage_that_the_agent_meets_is_said_by_the_session() {
    let mut pair = Pair::new(PlannedOperation::Boot, 1);
    let condition = |desk: &Desk| condition(desk, conditions::SERVICES_AVAILABLE);
    pair.mirror();
    assert_eq!(condition(&pair.operator).0, "True");
    let _ = pair.agent.pass();
    pair.agent.world.services.failed(Service::Pcs, "503", pair.agent.now);
    pair.wait(SECOND);
    pair.mirror();
    let (status, reason, message) = condition(&pair.operator);
    assert_eq!((status.as_str(), reason.as_str()), ("False", reasons::PCS_UNAVAILABLE), "{message}");
    pair.agent.world.services.answered(Service::Pcs, pair.agent.now);
    pair.mirror();
    assert_eq!(condition(&pair.operator).0, "True");
}

/// What people are told of an outage names its beginning, which must not change with each journal that is read a little later.
#[test]
fn an_outage_of_an_agent_keeps_its_beginning() {
    let mut pair = Pair::new(PlannedOperation::Boot, 1);
    let _ = pair.agent.pass();
    pair.agent.world.services.failed(Service::Pcs, "503", pair.agent.now);
    pair.mirror();
    let outage = |desk: &Desk| {
        let session = &desk.world.sessions[&desk.uid];
        let found = lasting(&desk.world, session, Duration::ZERO, desk.now);
        found.map(|(service, outage)| (service, outage.since)).collect::<Vec<_>>()
    };
    let first = outage(&pair.operator);
    assert_eq!(first.len(), 1);
    for _ in 0..3 {
        pair.agent.wait(SECOND);
        // The journal is on its way for longer.
        pair.operator.wait(SECOND + Duration::from_millis(40));
        pair.mirror();
        assert_eq!(outage(&pair.operator), first);
    }
    // Another one begins when it does.
    pair.agent.world.services.answered(Service::Pcs, pair.agent.now);
    pair.wait(Duration::from_secs(60));
    pair.agent.world.services.failed(Service::Pcs, "503", pair.agent.now);
    pair.mirror();
    assert!(outage(&pair.operator)[0].1 >= first[0].1 + Duration::from_secs(60));
}

/// A Session whose agent cannot begin shows what it waits for as one does whose service is away: it goes on, and is not stalled.
#[test]
fn a_session_whose_agent_cannot_begin_says_so_in_its_conditions() {
    let mut pair = Pair::new(PlannedOperation::Boot, 1);
    let uid = pair.operator.uid.clone();
    for reason in [reasons::AGENT_WAITING, reasons::AGENT_STARTING] {
        let message = "Job boa: pod p Pending (ImagePullBackOff).";
        pair.operator.world.see_agent(&uid, AgentSeen { running: false, reason, message: message.into() });
        for (type_, status) in [("Reconciling", "True"), ("Stalled", "False")] {
            assert_eq!(condition(&pair.operator, type_), (status.to_owned(), reason.to_owned(), message.to_owned()));
        }
        assert_eq!(condition(&pair.operator, "Ready").0, "False");
    }
    let running = AgentSeen { running: true, reason: reasons::AGENT_RUNNING, message: "Job boa: pod p Running.".into() };
    pair.operator.world.see_agent(&uid, running);
    assert_eq!(condition(&pair.operator, "Stalled").1, reasons::RUNNING);
}
