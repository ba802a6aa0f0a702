//! CAPMC, Cray Advanced Platform Monitoring and Control: the power service of a CSM that has no PCS.
//!
//! It judges a list of nodes as a whole: one node that is disabled, unknown or locked spoils a call for all. Here each answer
//! is read for the nodes it names, and a read is made again without them. From 3.0 on CAPMC is itself a client of PCS: it
//! answers when PCS has begun, tells no transition, and names no node that failed there.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bos_core::health::PowerService;
use bos_core::xname::Xname;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::answer::{Answer, json, or_default};
use crate::config::PowerStateSource;
use crate::error::{ErrorKind, Reached, ServiceError, tidy};
use crate::hsm::Inventory;
use crate::http::{LARGE, Transport};
use crate::pcs::{Power, PowerOperation, PowerReadings, Reading, Requested, TaskFailure, TaskState, Transition, TransitionId};

/// Calls that one read of power states is worth, where CAPMC goes on refusing what is left. Enough to find one bad node among
/// thousands that CAPMC does not name; the rest stays unknown until the next read.
const MAX_CALLS: usize = 64;

/// What we call ourselves in CAPMC's log.
const REASON: &str = concat!("bos-operator ", env!("CARGO_PKG_VERSION"));

/// [`Power`] by CAPMC v1.
pub struct CapmcClient {
    http: Transport,
    /// CAPMC does not say which node is locked; HSM does.
    inventory: Arc<dyn Inventory>,
    source: PowerStateSource,
    rest: Duration,
}

impl CapmcClient {
    pub(crate) const fn new(http: Transport, inventory: Arc<dyn Inventory>, source: PowerStateSource, rest: Duration) -> Self {
        Self { http, inventory, source, rest }
    }

    /// Asks for the power states of a list. A refusal of the list is an answer.
    async fn ask(&self, nodes: &[Xname]) -> Result<Asked, ServiceError> {
        let source = (self.source == PowerStateSource::Hsm).then_some("hsm");
        let query = StatusQuery { filter: "show_all", source, xnames: nodes };
        let request = self.http.read("post get_xname_status", Method::POST, &["get_xname_status"]).json(&query).largest(LARGE);
        request.answer(|answer| read_status(&answer, nodes, self.source)).await
    }

    /// A call was refused because one of its nodes is locked or reserved, and CAPMC does not say which. The words of HSM are
    /// only a help: where it does not answer, or names none, the engine finds the node by halving.
    async fn held(&self, nodes: &[Xname], mut because: Vec<(Xname, TaskState)>, detail: String) -> Requested {
        let known: BTreeSet<&Xname> = because.iter().map(|(node, _)| node).collect();
        let left: Vec<Xname> = nodes.iter().filter(|node| !known.contains(node)).cloned().collect();
        let held = match left.as_slice() {
            [alone] => BTreeSet::from([alone.clone()]),
            _ => self.inventory.held(&left).await.unwrap_or_default(),
        };
        let failed = || TaskState::Failed { error: detail.clone(), kind: TaskFailure::Reservation };
        because.extend(left.into_iter().filter(|node| held.contains(node)).map(|node| (node, failed())));
        Requested::Refused { because, detail }
    }
}

#[async_trait]
impl Power for CapmcClient {
    fn service(&self) -> PowerService {
        PowerService::Capmc
    }

    fn rest(&self) -> Duration {
        self.rest
    }

    async fn status(&self, nodes: &[Xname]) -> Result<PowerReadings, ServiceError> {
        if nodes.is_empty() {
            let why = "an empty list would ask for every node of the system";
            return Err(ServiceError::refused(self.http.service(), "post get_xname_status", why));
        }
        let mut readings: PowerReadings = nodes.iter().map(|node| (node.clone(), Reading::Missing)).collect();
        let mut lists = VecDeque::from([nodes.to_vec()]);
        let mut refusal = String::new();
        for _ in 0..MAX_CALLS {
            let Some(list) = lists.pop_front() else { break };
            match self.ask(&list).await? {
                Asked::Read(found) => readings.extend(found),
                Asked::Nothing => {}
                Asked::Refused { named, detail } => {
                    let (bad, rest) = split(list, &named);
                    readings.extend(bad.into_iter().map(|node| (node, Reading::Undefined { detail: detail.clone() })));
                    lists.extend(rest);
                    refusal = detail;
                }
            }
        }
        let unasked = lists.into_iter().flatten();
        readings.extend(unasked.map(|node| (node, Reading::Undefined { detail: refusal.clone() })));
        Ok(readings)
    }

    async fn request(&self, operation: PowerOperation, nodes: &[Xname]) -> Result<Requested, ServiceError> {
        let (call, path) = match operation {
            PowerOperation::On => ("post xname_on", "xname_on"),
            PowerOperation::SoftOff | PowerOperation::ForceOff => ("post xname_off", "xname_off"),
        };
        if nodes.is_empty() {
            return Err(ServiceError::refused(self.http.service(), call, "no nodes"));
        }
        let body = Order {
            reason: REASON,
            xnames: nodes,
            force: operation == PowerOperation::ForceOff,
            recurse: false,
            prereq: false,
            // The good nodes are switched, whatever is wrong with others.
            proceed: true,
        };
        let request = self.http.write(call, Method::POST, &[path]).json(&body).largest(LARGE);
        match request.answer(|answer| read_control(&answer, nodes)).await? {
            Control::Held { failed, detail } => Ok(self.held(nodes, failed, detail).await),
            Control::Judged(requested) => Ok(requested),
        }
    }

    async fn transition(&self, _: &TransitionId) -> Result<Option<Transition>, ServiceError> {
        // One that PCS accepted, before the site changed its power service: over, as far as CAPMC goes.
        Ok(None)
    }
}

/// What came of a question for power states.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// The states of the nodes it named.
    Read(HashMap<Xname, Reading>),
    /// It knows none of the nodes.
    Nothing,
    /// The list was refused because of these nodes; none where it does not say.
    Refused { named: BTreeSet<Xname>, detail: String },
}

/// What came of an order.
#[derive(Debug, PartialEq, Eq)]
enum Control {
    Judged(Requested),
    /// Refused as a whole because something is locked or reserved; what it would have left out anyway is named.
    Held {
        failed: Vec<(Xname, TaskState)>,
        detail: String,
    },
}

#[derive(Serialize)]
struct StatusQuery<'a> {
    filter: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    xnames: &'a [Xname],
}

#[derive(Serialize)]
struct Order<'a> {
    reason: &'static str,
    xnames: &'a [Xname],
    force: bool,
    recurse: bool,
    prereq: bool,
    #[serde(rename = "continue")]
    proceed: bool,
}

/// Power states by list. An empty list is left out; there are others beside those below, and objects.
#[derive(Deserialize)]
struct StatusWire {
    e: i64,
    #[serde(default, deserialize_with = "or_default")]
    err_msg: String,
    #[serde(flatten)]
    lists: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct ControlWire {
    e: i64,
    #[serde(default, deserialize_with = "or_default")]
    err_msg: String,
    #[serde(default, deserialize_with = "or_default")]
    xnames: Vec<NodeWire>,
}

#[derive(Deserialize)]
struct NodeWire {
    xname: String,
    e: i64,
    #[serde(default, deserialize_with = "or_default")]
    err_msg: String,
}

/// Some node failed; 0 is success.
const SOME_FAILED: i64 = -1;
/// EINVAL: no such node, or a disabled one. Not touched.
const INVALID: i64 = 22;
/// ENOLCK: something could not be reserved, and nothing was done.
const NO_LOCK: i64 = 37;

/// Takes the named nodes out of a list. Where none of the list is named, it is halved, down to the one that is refused alone.
fn split(list: Vec<Xname>, named: &BTreeSet<Xname>) -> (Vec<Xname>, Vec<Vec<Xname>>) {
    let (bad, mut rest): (Vec<_>, Vec<_>) = list.into_iter().partition(|node| named.contains(node));
    match (bad.is_empty(), rest.len()) {
        (true, 1) => (rest, Vec::new()),
        (true, length) => {
            let half = rest.split_off(length / 2);
            (bad, vec![rest, half])
        }
        (false, 0) => (bad, Vec::new()),
        (false, _) => (bad, vec![rest]),
    }
}

fn read_status(answer: &Answer, asked: &[Xname], source: PowerStateSource) -> Result<Asked, ServiceError> {
    let error = match answer.parse(|body| json::<StatusWire>(body)) {
        Ok(wire) if matches!(wire.e, 0 | SOME_FAILED) => return Ok(Asked::Read(readings(wire, asked, source))),
        // It could not ask PCS, which it says with a good status.
        Ok(wire) => return Err(unwell(answer, wire.e, &wire.err_msg)),
        Err(error) => error,
    };
    match error.kind {
        ErrorKind::Rejected(404) => Ok(Asked::Nothing),
        ErrorKind::Rejected(_) => {
            let named = named_in(&answer.body, asked);
            let detail = if named.is_empty() { error.detail } else { head(&error.detail) };
            Ok(Asked::Refused { named, detail })
        }
        _ => Err(error),
    }
}

/// CAPMC answered with a good status that it could not do its work: whether anything was done, nobody knows.
fn unwell(answer: &Answer, code: i64, said: &str) -> ServiceError {
    let status = u16::try_from(code).unwrap_or(500);
    ServiceError::new(answer.service, answer.call, Reached::Unknown, ErrorKind::Server(status), said)
}

/// Knowledge is a node in a list of on or off alone. HSM has more states; a node in one of those below has power.
fn readings(wire: StatusWire, asked: &[Xname], source: PowerStateSource) -> HashMap<Xname, Reading> {
    let asked: BTreeSet<&Xname> = asked.iter().collect();
    let mut found: HashMap<Xname, Reading> = HashMap::new();
    let mut hints: Vec<(Xname, String)> = Vec::new();
    for (list, names) in wire.lists {
        let reading = match (list.as_str(), source) {
            ("on", _) | ("ready" | "standby" | "halt", PowerStateSource::Hsm) => Some(Reading::On),
            ("off", _) => Some(Reading::Off),
            ("undefined", _) => Some(Reading::Undefined { detail: "power state undefined".to_owned() }),
            _ => None,
        };
        let names = names.as_array().into_iter().flatten().filter_map(Value::as_str).filter_map(|name| Xname::parse(name).ok());
        for node in names.filter(|node| asked.contains(node)) {
            match &reading {
                Some(reading) if found.get(&node).is_none_or(|known| known == reading) => drop(found.insert(node, reading.clone())),
                Some(_) => drop(found.insert(node, Reading::Undefined { detail: "in lists that contradict each other".to_owned() })),
                None => hints.push((node, list.clone())),
            }
        }
    }
    for (node, list) in hints {
        found.entry(node).or_insert_with(|| Reading::Undefined { detail: tidy(&format!("listed as {list}, which is not on or off")) });
    }
    found
}

fn read_control(answer: &Answer, asked: &[Xname]) -> Result<Control, ServiceError> {
    let error = match answer.parse(|body| json::<ControlWire>(body)) {
        Ok(wire) => return judged(answer, wire, asked),
        Err(error) => error,
    };
    let ErrorKind::Rejected(status) = error.kind else { return Err(error) };
    let because = match status {
        404 => asked.iter().map(|node| (node.clone(), untouched(&error.detail))).collect(),
        _ => blamed(&answer.body, asked),
    };
    if because.is_empty() {
        // A verdict on the whole that names nobody: the engine finds the node.
        return Err(error);
    }
    Ok(Control::Judged(Requested::Refused { because, detail: error.detail }))
}

fn judged(answer: &Answer, wire: ControlWire, asked: &[Xname]) -> Result<Control, ServiceError> {
    match wire.e {
        0 | SOME_FAILED => {
            let failed = named(wire.xnames, asked, false);
            // Where nodes are named, the sum of them says no more.
            let note = if wire.e == SOME_FAILED && failed.is_empty() { tidy(&wire.err_msg) } else { String::new() };
            Ok(Control::Judged(Requested::Taken { failed, note }))
        }
        NO_LOCK => Ok(Control::Held { failed: named(wire.xnames, asked, true), detail: tidy(&wire.err_msg) }),
        other => Err(unwell(answer, other, &wire.err_msg)),
    }
}

/// The nodes that a refusal of the whole call is about, in its list or in its text.
fn blamed(body: &[u8], asked: &[Xname]) -> Vec<(Xname, TaskState)> {
    let Ok(wire) = json::<ControlWire>(body) else { return Vec::new() };
    if !wire.xnames.is_empty() {
        return named(wire.xnames, asked, true);
    }
    let why = head(&wire.err_msg);
    named_in(body, asked).into_iter().map(|node| (node, untouched(&why))).collect()
}

/// The nodes of a list of failures. After a refusal of the whole call none was touched.
fn named(list: Vec<NodeWire>, asked: &[Xname], refused: bool) -> Vec<(Xname, TaskState)> {
    let asked: BTreeSet<&Xname> = asked.iter().collect();
    let mut failed: BTreeMap<Xname, TaskState> = BTreeMap::new();
    for entry in list {
        let Ok(node) = Xname::parse(&entry.xname) else { continue };
        // With 0 it is only told of.
        if entry.e == 0 || !asked.contains(&node) {
            continue;
        }
        let kind = match entry.e {
            INVALID => TaskFailure::Missing,
            NO_LOCK => TaskFailure::Reservation,
            _ if refused => TaskFailure::Unsupported,
            _ => TaskFailure::Other,
        };
        failed.entry(node).or_insert_with(|| TaskState::Failed { error: tidy(&entry.err_msg), kind });
    }
    failed.into_iter().collect()
}

/// What is said of the nodes, without their list.
fn head(text: &str) -> String {
    text.split(": [").next().unwrap_or_default().to_owned()
}

fn untouched(why: &str) -> TaskState {
    TaskState::Failed { error: tidy(why), kind: TaskFailure::Missing }
}

/// The nodes named in a text such as `disabled or not found: [x9c0s0b0n0 x9c0s0b0n1]`.
fn named_in(body: &[u8], asked: &[Xname]) -> BTreeSet<Xname> {
    let asked: BTreeSet<&Xname> = asked.iter().collect();
    let Ok(wire) = serde_json::from_slice::<ControlWire>(body) else { return BTreeSet::new() };
    let list = wire.err_msg.split_once('[').map_or("", |(_, list)| list);
    let words = list.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.filter_map(|word| Xname::parse(word).ok()).filter(|node| asked.contains(node)).collect()
}
