//! BOS's clean-up of the actual state. We have no such operator: what was reported too long ago is unknown where it is looked at.

use std::time::Duration;

use bos_core::model::{EndKind, NodeId, Power, Token};
use bos_core::plan::PlannedOperation;
use bos_core::time::Timestamp;
use bos_core::want::{Decision, Want};
use bos_core::{pass, project};
use bos_crds::{BootComponentStatus, reasons};
use serde_json::Value;

use super::defaults;
use crate::decision::record::Artifacts;
use crate::desk::Desk;
use crate::fixture::{START, plan, reported};
use crate::support::{Tally, lines};

/// A difference from BOS that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// A deadline is over when it is reached (rule 4). BOS waits until it is past.
    DeadlineReached,
    /// An option is read once, when it is set (§21.2 no. 22). A unit in upper case stops BOS's operator.
    OptionsReadOnce,
    /// What expires takes nothing else with it (§21.2 no. 24). BOS drops the last action and its error.
    NothingElseIsLost,
}

struct Case {
    artifacts: Option<Artifacts>,
    /// None where the record has no time.
    age: Option<Duration>,
    ttl: Duration,
    upper_case: bool,
}

impl Case {
    fn parse(line: &Value) -> Self {
        let defaults = defaults();
        let field = |key: &str| line["in"].get(key).unwrap_or(&defaults[key]);
        let text = line["situation"].as_str().and_then(|situation| situation.strip_prefix("ttl ")).unwrap_or("4h");
        let (number, unit) = text.split(' ').next().unwrap().split_at(text.find(char::is_alphabetic).unwrap());
        let hours = match unit.to_lowercase().as_str() {
            "h" => 1,
            "d" => 24,
            "w" => 168,
            other => panic!("unit {other}"),
        };
        let kind = Artifacts::named(field("actual").as_str().unwrap());
        Self {
            artifacts: kind.filter(|artifacts| !artifacts.is_empty()),
            age: field("actual_age").as_f64().map(Duration::from_secs_f64),
            ttl: Duration::from_secs(number.parse::<u64>().unwrap() * hours * 3600),
            upper_case: unit.chars().any(char::is_uppercase),
        }
    }

    /// BOS: whether something is known afterwards.
    fn known_to_bos(&self) -> bool {
        let old = self.age.is_none_or(|age| age > self.ttl);
        self.artifacts.is_some() && (!old || self.upper_case)
    }

    /// By the rules we know it for exactly the time to live, and not for a moment longer.
    fn predicted(&self) -> bool {
        self.artifacts.is_some() && self.age.is_some_and(|age| age < self.ttl)
    }

    /// Whether a boot knows what the node runs.
    fn known_to_us(&self, now: Timestamp) -> bool {
        let mut desk = self.desk(now);
        let _ = desk.pass();
        desk.power(0, Power::On);
        let _ = desk.pass();
        desk.end(0) != Some((EndKind::LeftRunning, reasons::UNKNOWN_IMAGE_RUNNING))
    }

    /// Whether a node that failed shows the same when its report expires.
    fn keeps_the_rest(&self, now: Timestamp) -> bool {
        let mut desk = self.desk(now);
        let end = Decision::End(EndKind::Failed, reasons::BOOT_TIMEOUT.into(), "old text".into());
        let _ = desk.world.accept(Want::Decide(NodeId(0), end), desk.now);
        let mut last = desk.world.nodes[0].last.clone().unwrap();
        last.attempts.on = 1;
        desk.world.nodes[0].last = Some(last);
        let show = |desk: &Desk| project::component(&desk.world, NodeId(0), &BootComponentStatus::default(), 1, desk.now);
        desk.now = now - self.age.unwrap_or_default();
        let before = show(&desk);
        desk.now = now + self.ttl;
        let _ = pass::run(&mut desk.world, desk.now);
        let after = show(&desk);
        assert_eq!(before.message, "old text");
        (before.message, before.reason, before.attempts, before.last_action)
            == (after.message, after.reason, after.attempts, after.last_action)
    }

    fn desk(&self, now: Timestamp) -> Desk {
        let mut desk = Desk::new(1, plan(PlannedOperation::Boot, 1, "new", ""));
        desk.world.options.actual_state_ttl = self.ttl;
        desk.now = now;
        let at = now - self.age.unwrap_or(Duration::from_secs(3600 * 24 * 365));
        let report = |artifacts: &Artifacts| reported(Token("old".into()), Some(artifacts.digest()), at);
        desk.world.nodes[0].reported = self.artifacts.as_ref().map(report);
        // A report may be younger than the session here; nobody booted the node meanwhile.
        let uid = desk.uid.clone();
        desk.world.sessions.get_mut(&uid).and_then(|session| session.running_mut()).unwrap().started = now;
        desk.world.nodes[0].drive.as_mut().unwrap().held_since = now;
        desk
    }
}

#[test]
fn actual_states_expire_as_in_bos_or_deviate_by_rule() {
    let now = START + Duration::from_secs(60 * 24 * 3600);
    let mut tally = Tally::default();
    for line in lines("power-filters.jsonl").iter().filter(|line| line["operator"] == "actual_state_cleanup") {
        let case = Case::parse(line);
        let theirs = line["out"]["actual_set"].as_bool().unwrap();
        assert_eq!(case.known_to_bos(), theirs, "the model of BOS is wrong for {line}");
        let ours = case.known_to_us(now);
        if ours != case.predicted() || !case.keeps_the_rest(now) {
            tally.unexplained(format!("known to BOS {theirs}, to us {ours}: {line}"));
        } else if ours != theirs {
            tally.deviates([if case.upper_case { Rule::OptionsReadOnce } else { Rule::DeadlineReached }]);
        } else if line["out"]["last_action"] == "actual_state_cleanup" {
            tally.deviates([Rule::NothingElseIsLost]);
        } else {
            tally.agreed += 1;
        }
    }
    tally.check("expiry of actual states", 38, &[(Rule::DeadlineReached, 4), (Rule::NothingElseIsLost, 36)]);
}
