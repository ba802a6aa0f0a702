//! What is said of many nodes that are silent together (rule 8).

use super::*;
use bos_core::model::Phase;

#[test]
fn are_named_with_their_deadline_and_it_is_over_with_the_session() {
    let mut desk = silent(9);
    assert!(desk.leaves().is_empty());
    let until = desk.drive(0).hold.unwrap().until.clock();
    let told = condition(&shown(&desk), conditions::MASS_BOOT_TIMEOUT);
    assert_eq!(told.status, "True");
    assert!(told.message.contains("Silent now: 9: ") && told.message.contains(&format!("until {until} fails")), "{}", told.message);
    desk.wait(desk.world.options.max_boot_wait);
    desk.power_of_all(Power::On);
    let _ = desk.pass();
    let told = condition(&shown(&desk), conditions::MASS_BOOT_TIMEOUT);
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", reasons::COMPLETE));
    let names = "x[1000-1003]c0s0b0n[0-1],x1004c0s0b0n0";
    assert!(told.message.ends_with(&format!(" 9 failed for it and were left on: {names}.")), "{}", told.message);
}

/// They are to be restarted by name, for what was cancelled has not failed.
#[test]
fn are_named_also_where_their_session_was_cancelled() {
    let mut desk = silent(11);
    let uid = desk.uid.clone();
    let _ = desk.pass();
    desk.world.nodes[8].drive.as_mut().unwrap().phase = Phase::PoweringOff;
    desk.world.nodes[9].drive.as_mut().unwrap().phase = Phase::Configuring;
    desk.world.nodes[10].drive.as_mut().unwrap().phase = Phase::None;
    desk.world.sessions.get_mut(&uid).unwrap().spec.cancel = true;
    let _ = desk.pass();
    let told = condition(&shown(&desk), conditions::MASS_BOOT_TIMEOUT);
    assert!(told.message.ends_with("9 were cancelled before they had booted: x[1000-1003]c0s0b0n[0-1],x1004c0s0b0n0."), "{}", told.message);
}
