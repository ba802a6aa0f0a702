//! PCS, the Power Control Service: what the power of a node is, and changing it.
//!
//! PCS accepts every request with 200, even for nodes that are locked, unknown or cannot do it; only the tasks of the
//! transition tell what became of each node.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bos_core::health::PowerService;
use bos_core::xname::Xname;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::answer::{Malformed, json, or_default};
use crate::error::ServiceError;
use crate::http::{LARGE, Transport};

/// What a power service says about the power of one node. Only `On` and `Off` are knowledge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Powered on.
    On,
    /// Powered off.
    Off,
    /// The service cannot tell: its hardware controller is silent, or the service does not know the node.
    Undefined {
        /// Why, in the service's words; never empty.
        detail: String,
    },
    /// The answer has no entry for this node.
    Missing,
}

/// One reading for every node that was asked for.
pub type PowerReadings = HashMap<Xname, Reading>;

/// A change of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerOperation {
    /// Power on.
    On,
    /// Ask the operating system to shut down; fails at its deadline where it does not.
    SoftOff,
    /// Cut the power.
    ForceOff,
}

/// The name a power service gave to an accepted request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransitionId(String);

impl TransitionId {
    /// An id as it was answered or kept in a journal.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TransitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the power of a node was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskFailure {
    /// The node is locked, or another transition still holds it. The hardware was not touched.
    Reservation,
    /// The service does not know the node, or not as one it may switch. The hardware was not touched.
    Missing,
    /// The hardware cannot do this. It was not touched.
    Unsupported,
    /// Sent to the hardware, not confirmed within the deadline; it may still happen.
    Timeout,
    /// Anything else.
    Other,
}

/// What became of one node in a transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// Not decided yet.
    Open,
    /// Done, or there was nothing to do.
    Succeeded,
    /// Not done.
    Failed {
        /// In the service's words.
        error: String,
        /// What kind of failure this is.
        kind: TaskFailure,
    },
}

/// What a power service made of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// Accepted; this transition tells what becomes of each node.
    Transition(TransitionId),
    /// Carried out as far as it goes, and there is nothing to follow: only the nodes themselves show what became of them.
    Taken {
        /// Nodes that were named as not done; `Failed` all of them.
        failed: Vec<(Xname, TaskState)>,
        /// What was said of all nodes together, for people; empty when nothing.
        note: String,
    },
    /// Refused as a whole because of some of the nodes; nothing was done to any.
    Refused {
        /// Those nodes, `Failed` all of them; none where the service does not say.
        because: Vec<(Xname, TaskState)>,
        /// In the service's words.
        detail: String,
    },
}

/// A transition and its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Nothing will change any more; then no task is `Open`. Success is a matter of each task.
    pub done: bool,
    /// Each node once, as far as its name is the name of a node.
    pub tasks: Vec<(Xname, TaskState)>,
}

/// Power of nodes.
#[async_trait]
pub trait Power: Send + Sync {
    /// Which service this is.
    fn service(&self) -> PowerService;

    /// How long a node that was seen to go off rests before it is powered on; zero where each request is followed to its end.
    fn rest(&self) -> Duration;

    /// The power of each of these nodes. An empty list is refused, because to the services it means every node of the system.
    ///
    /// # Errors
    /// When the service cannot be asked or refuses.
    async fn status(&self, nodes: &[Xname]) -> Result<PowerReadings, ServiceError>;

    /// Starts a change of power. An empty list is refused.
    ///
    /// # Errors
    /// [`ServiceError::reached`] says whether it may have started nevertheless.
    async fn request(&self, operation: PowerOperation, nodes: &[Xname]) -> Result<Requested, ServiceError>;

    /// How far a transition is; `None` when the service does not know it (PCS forgets after a day, CAPMC knows none).
    ///
    /// # Errors
    /// When the service cannot be asked.
    async fn transition(&self, id: &TransitionId) -> Result<Option<Transition>, ServiceError>;
}

/// [`Power`] by PCS v1.
pub struct PcsClient {
    http: Transport,
    deadline_minutes: u32,
}

impl PcsClient {
    pub(crate) const fn new(http: Transport, deadline_minutes: u32) -> Self {
        Self { http, deadline_minutes }
    }
}

#[async_trait]
impl Power for PcsClient {
    fn service(&self) -> PowerService {
        PowerService::Pcs
    }

    fn rest(&self) -> Duration {
        Duration::ZERO
    }

    async fn status(&self, nodes: &[Xname]) -> Result<PowerReadings, ServiceError> {
        const CALL: &str = "post power-status";
        if nodes.is_empty() {
            return Err(ServiceError::refused(self.http.service(), CALL, "an empty list would ask for every node of the system"));
        }
        let request = self.http.read(CALL, Method::POST, &["power-status"]).json(&StatusQuery { xname: nodes }).largest(LARGE);
        request.parsed(|body| parse_status(body, nodes)).await
    }

    async fn request(&self, operation: PowerOperation, nodes: &[Xname]) -> Result<Requested, ServiceError> {
        const CALL: &str = "post transitions";
        if nodes.is_empty() {
            return Err(ServiceError::refused(self.http.service(), CALL, "no nodes"));
        }
        let body = TransitionOrder {
            operation: operation.wire(),
            task_deadline_minutes: self.deadline_minutes,
            location: nodes.iter().map(|xname| Location { xname }).collect(),
        };
        self.http.write(CALL, Method::POST, &["transitions"]).json(&body).parsed(parse_accepted).await.map(Requested::Transition)
    }

    async fn transition(&self, id: &TransitionId) -> Result<Option<Transition>, ServiceError> {
        const CALL: &str = "get transition";
        if !plausible(id.as_str()) {
            return Err(ServiceError::refused(self.http.service(), CALL, format!("{:?} is not the id of a transition", id.as_str())));
        }
        let request = self.http.read(CALL, Method::GET, &["transitions", id.as_str()]).largest(LARGE);
        request.answer(|answer| answer.parse_or_unknown(parse_transition)).await
    }
}

impl PowerOperation {
    /// The name that PCS uses.
    #[must_use]
    pub const fn wire(self) -> &'static str {
        match self {
            Self::On => "On",
            Self::SoftOff => "Soft-Off",
            Self::ForceOff => "Force-Off",
        }
    }
}

#[derive(Serialize)]
struct StatusQuery<'a> {
    xname: &'a [Xname],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TransitionOrder<'a> {
    operation: &'static str,
    task_deadline_minutes: u32,
    location: Vec<Location<'a>>,
}

#[derive(Serialize)]
struct Location<'a> {
    xname: &'a Xname,
}

#[derive(Deserialize)]
struct StatusWire {
    status: Vec<NodeWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeWire {
    xname: String,
    #[serde(default, deserialize_with = "or_default")]
    power_state: String,
    #[serde(default, deserialize_with = "or_default")]
    management_state: String,
    #[serde(default, deserialize_with = "or_default")]
    error: String,
}

#[derive(Deserialize)]
struct AcceptedWire {
    #[serde(rename = "transitionID")]
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TransitionWire {
    transition_status: String,
    #[serde(default, deserialize_with = "or_default")]
    tasks: Vec<TaskWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TaskWire {
    xname: String,
    task_status: String,
    #[serde(default, deserialize_with = "or_default")]
    task_status_description: String,
    #[serde(default, deserialize_with = "or_default")]
    error: String,
}

fn parse_status(body: &[u8], asked: &[Xname]) -> Result<PowerReadings, Malformed> {
    let wire: StatusWire = json(body)?;
    let mut readings: PowerReadings = asked.iter().map(|node| (node.clone(), Reading::Missing)).collect();
    for entry in wire.status {
        let Ok(xname) = Xname::parse(&entry.xname) else { continue };
        let Some(slot) = readings.get_mut(&xname) else { continue };
        let reading = reading(entry);
        if *slot == Reading::Missing {
            *slot = reading;
        } else if *slot != reading {
            *slot = Reading::Undefined { detail: "two entries that contradict each other".to_owned() };
        }
    }
    Ok(readings)
}

/// Knowledge only where nothing speaks against it: an error text or a silent controller makes any state a guess.
fn reading(entry: NodeWire) -> Reading {
    if !entry.error.is_empty() {
        return Reading::Undefined { detail: crate::error::tidy(&entry.error) };
    }
    if entry.management_state.eq_ignore_ascii_case("unavailable") {
        return Reading::Undefined { detail: "the hardware controller does not answer".to_owned() };
    }
    match entry.power_state.to_ascii_lowercase().as_str() {
        "on" => Reading::On,
        "off" => Reading::Off,
        "" | "undefined" => Reading::Undefined { detail: "power state undefined".to_owned() },
        other => Reading::Undefined { detail: crate::error::tidy(&format!("power state {other:?}")) },
    }
}

fn parse_accepted(body: &[u8]) -> Result<TransitionId, Malformed> {
    let wire: AcceptedWire = json(body)?;
    if plausible(&wire.id) { Ok(TransitionId(wire.id)) } else { Err(Malformed::new("an answer with an unusable transitionID")) }
}

/// Ids travel in URLs and journals; PCS uses UUIDs.
fn plausible(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn parse_transition(body: &[u8]) -> Result<Transition, Malformed> {
    let wire: TransitionWire = json(body)?;
    let (done, ending) = match wire.transition_status.to_ascii_lowercase().as_str() {
        "new" | "in-progress" | "abort-signaled" => (false, ""),
        "completed" => (true, "the transition ended without a word on this node"),
        "aborted" => (true, "Transition aborted"),
        other => return Err(Malformed(format!("unknown transitionStatus {other:?}"))),
    };
    let mut tasks = Vec::with_capacity(wire.tasks.len());
    for task in wire.tasks {
        let Ok(xname) = Xname::parse(&task.xname) else { continue };
        let state = match task_state(task) {
            TaskState::Open if done => TaskState::Failed { error: ending.to_owned(), kind: TaskFailure::Other },
            state => state,
        };
        tasks.push((xname, state));
    }
    // Each node once; of two entries for one node the one that is not a success counts.
    tasks.sort_by(|(a, a_state), (b, b_state)| a.cmp(b).then_with(|| rank(b_state).cmp(&rank(a_state))));
    tasks.dedup_by(|(later, _), (earlier, _)| later == earlier);
    Ok(Transition { done, tasks })
}

const fn rank(state: &TaskState) -> u8 {
    match state {
        TaskState::Succeeded => 0,
        TaskState::Failed { .. } => 1,
        TaskState::Open => 2,
    }
}

/// A word that PCS may learn one day says nothing yet: the node is open, and the others are read (rule 13).
fn task_state(task: TaskWire) -> TaskState {
    let status = task.task_status.to_ascii_lowercase();
    let unsupported = match status.as_str() {
        "new" | "in-progress" => return TaskState::Open,
        "succeeded" => return TaskState::Succeeded,
        "failed" => false,
        // The tasks say it in one word, the counts in two.
        "unsupported" | "un-supported" => true,
        _ => return TaskState::Open,
    };
    let said = [task.error, task.task_status_description].into_iter().find(|text| !text.is_empty()).unwrap_or(status);
    let kind = if unsupported { TaskFailure::Unsupported } else { task_failure(&said) };
    TaskState::Failed { error: crate::error::tidy(&said), kind }
}

/// PCS tells failures apart by their texts only.
fn task_failure(error: &str) -> TaskFailure {
    let error = error.to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| error.contains(text));
    if says(&["reserve component", "reservation"]) {
        TaskFailure::Reservation
    } else if says(&["missing xname", "invalid xname", "not found"]) {
        TaskFailure::Missing
    } else if says(&["no power control", "unsupported"]) {
        TaskFailure::Unsupported
    } else if says(&["timeout", "timed out"]) {
        TaskFailure::Timeout
    } else {
        TaskFailure::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x(name: &str) -> Xname {
        Xname::parse(name).unwrap()
    }

    fn undefined(detail: &str) -> Reading {
        Reading::Undefined { detail: detail.to_owned() }
    }

    #[test]
    fn every_asked_node_has_a_reading() {
        let asked =
            ["x3000c0s1b0n0", "x3000c0s2b0n0", "x3000c0s3b0n0", "x9c0s0b0n0", "x8c0s0b0n0", "x7c0s0b0n0", "x6c0s0b0n0", "x5c0s0b0n0"]
                .map(x);
        let readings = parse_status(
            br#"{"status":[
              {"xname":"x3000c0s1b0n0","powerState":"on","managementState":"available","error":"","supportedPowerTransitions":["On"],"lastUpdated":"2026-11-22T11:08:06.98Z"},
              {"xname":"X3000C0S02B0N0","powerState":"OFF","managementState":"available","error":""},
              {"xname":"x3000c0s3b0n0","powerState":"undefined","managementState":"unavailable","error":""},
              {"xname":"x9c0s0b0n0","powerState":"","managementState":"","error":"Component not found in component map.","supportedPowerTransitions":null,"lastUpdated":""},
              {"xname":"x7c0s0b0n0","powerState":"off","managementState":"available","error":"stale"},
              {"xname":"x6c0s0b0n0","powerState":"off","managementState":"available","error":null},
              {"xname":"x6c0s0b0n0","powerState":"on","managementState":"available"},
              {"xname":"x5c0s0b0n0","powerState":"off"},
              {"xname":"x5c0s0b0n0","powerState":"off"},
              {"xname":"x1c0s0b0n0","powerState":"on"},
              {"xname":"garbage","powerState":"on"}]}"#,
            &asked,
        )
        .unwrap();
        let expected = [
            ("x3000c0s1b0n0", Reading::On),
            ("x3000c0s2b0n0", Reading::Off),
            ("x3000c0s3b0n0", undefined("the hardware controller does not answer")),
            ("x9c0s0b0n0", undefined("Component not found in component map.")),
            ("x8c0s0b0n0", Reading::Missing),
            ("x7c0s0b0n0", undefined("stale")),
            ("x6c0s0b0n0", undefined("two entries that contradict each other")),
            ("x5c0s0b0n0", Reading::Off),
        ];
        assert_eq!(readings, expected.into_iter().map(|(name, reading)| (x(name), reading)).collect());
    }

    #[test]
    fn a_wrong_answer_is_no_reading() {
        for body in [&b""[..], b"{}", br#"{"status":null}"#, br#"{"status":[{"powerState":"on"}]}"#, b"<html>", b"[]"] {
            assert!(parse_status(body, &[x("x1c0s0b0n0")]).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_silent_controller_is_never_off() {
        let body = br#"{"status":[{"xname":"x1c0s0b0n0","powerState":"off","managementState":"unavailable","error":""}]}"#;
        let readings = parse_status(body, &[x("x1c0s0b0n0")]).unwrap();
        assert!(matches!(readings.get("x1c0s0b0n0"), Some(Reading::Undefined { .. })));
    }

    #[test]
    fn nor_is_a_state_that_says_nothing() {
        for state in ["", "undefined", "Undefined", "paused"] {
            let body =
                format!(r#"{{"status":[{{"xname":"x1c0s0b0n0","powerState":"{state}","managementState":"available","error":""}}]}}"#);
            let readings = parse_status(body.as_bytes(), &[x("x1c0s0b0n0")]).unwrap();
            assert!(matches!(readings.get("x1c0s0b0n0"), Some(Reading::Undefined { .. })), "{state:?}: {readings:?}");
        }
    }

    #[test]
    fn reads_the_id() {
        let id = parse_accepted(br#"{"transitionID":"8f0c4a6e-0000-4000-8000-000000000001","operation":"Soft-Off"}"#).unwrap();
        assert_eq!(id.as_str(), "8f0c4a6e-0000-4000-8000-000000000001");
        for body in [&b""[..], b"{}", br#"{"transitionID":""}"#, br#"{"transitionID":"../x"}"#, b"Hello World!"] {
            assert!(parse_accepted(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn follows_a_transition_to_its_tasks() {
        let transition = parse_transition(
            br#"{"transitionID":"8f0c","operation":"On","createTime":"2026-11-22T11:08:43.86Z","automaticExpirationTime":"2026-11-23T11:08:43.86Z",
              "transitionStatus":"completed","taskCounts":{"total":4,"new":0,"in-progress":0,"failed":2,"succeeded":1,"un-supported":1},
              "tasks":[
               {"xname":"x3000c0s1b0n0","taskStatus":"succeeded","taskStatusDescription":"Transition confirmed, on"},
               {"xname":"x9c0s0b0n0","taskStatus":"failed","taskStatusDescription":"Failed to achieve transition","error":"Missing xname"},
               {"xname":"zzz","taskStatus":"failed","taskStatusDescription":"Failed to achieve transition","error":"Invalid xname"},
               {"xname":"x8c0s0b0n0","taskStatus":"un-supported","taskStatusDescription":"Failed to achieve transition"},
               {"xname":"x7c0s0b0n0","taskStatus":"in-progress"},
               {"xname":"x3000","taskStatus":"unsupported","error":"No power control for component type Cabinet"}]}"#,
        )
        .unwrap();
        let failed = |error: &str, kind| TaskState::Failed { error: error.to_owned(), kind };
        assert!(transition.done);
        assert_eq!(
            transition.tasks,
            [
                (x("x3000c0s1b0n0"), TaskState::Succeeded),
                (x("x7c0s0b0n0"), failed("the transition ended without a word on this node", TaskFailure::Other)),
                (x("x8c0s0b0n0"), failed("Failed to achieve transition", TaskFailure::Unsupported)),
                (x("x9c0s0b0n0"), failed("Missing xname", TaskFailure::Missing)),
            ]
        );
    }

    #[test]
    fn a_running_transition_has_open_tasks_and_may_have_none() {
        let transition =
            parse_transition(br#"{"transitionStatus":"in-progress","tasks":[{"xname":"x1c0s0b0n0","taskStatus":"new"}]}"#).unwrap();
        assert_eq!(transition, Transition { done: false, tasks: vec![(x("x1c0s0b0n0"), TaskState::Open)] });
        for status in ["new", "abort-signaled"] {
            let body = format!(r#"{{"transitionStatus":"{status}","tasks":null}}"#);
            assert_eq!(parse_transition(body.as_bytes()).unwrap(), Transition { done: false, tasks: vec![] });
        }
        assert!(parse_transition(br#"{"transitionStatus":"aborted"}"#).unwrap().done);
    }

    #[test]
    fn an_answer_that_we_do_not_understand_is_an_error() {
        for body in [&b"{}"[..], br#"{"transitionStatus":"paused"}"#, br#"{"transitions":[]}"#] {
            assert!(parse_transition(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_task_that_we_do_not_understand_is_that_node_s_alone() {
        for (transition, open) in [("in-progress", true), ("completed", false)] {
            let body = format!(
                r#"{{"transitionStatus":"{transition}","tasks":[{{"xname":"x1c0s0b0n0","taskStatus":"maybe"}},{{"xname":"x1c0s0b0n1","taskStatus":"succeeded"}}]}}"#
            );
            let tasks = parse_transition(body.as_bytes()).unwrap().tasks;
            let [(_, odd), (_, good)] = tasks.as_slice() else { panic!("{tasks:?}") };
            assert_eq!(matches!(odd, TaskState::Open), open, "never a success: {odd:?}");
            assert_eq!(*good, TaskState::Succeeded);
        }
    }

    #[test]
    fn of_two_tasks_for_one_node_the_worse_counts() {
        let body = br#"{"transitionStatus":"completed","tasks":[{"xname":"x1c0s0b0n0","taskStatus":"succeeded"},
            {"xname":"X1c0s0b0n0","taskStatus":"failed","error":"Reservation expired"}]}"#;
        let tasks = parse_transition(body).unwrap().tasks;
        assert!(matches!(tasks.as_slice(), [(_, TaskState::Failed { kind: TaskFailure::Reservation, .. })]), "{tasks:?}");
    }

    #[test]
    fn tells_failures_apart_by_their_texts() {
        for (text, kind) in [
            ("Unable to reserve component", TaskFailure::Reservation),
            ("Invalid deputy key and unable to reserve component", TaskFailure::Reservation),
            ("Reservation expired", TaskFailure::Reservation),
            ("Missing xname", TaskFailure::Missing),
            ("Invalid xname", TaskFailure::Missing),
            ("Xname not found in HSM", TaskFailure::Missing),
            ("No power control for component type Cabinet", TaskFailure::Unsupported),
            ("Unsupported for transition operation", TaskFailure::Unsupported),
            ("Timeout waiting for transition, gracefulshutdown.", TaskFailure::Timeout),
            ("Error retrieving HSM data", TaskFailure::Other),
            ("Component is in the wrong power state", TaskFailure::Other),
            ("Transition aborted", TaskFailure::Other),
        ] {
            assert_eq!(task_failure(text), kind, "{text}");
        }
    }
}
