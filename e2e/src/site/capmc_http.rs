//! CAPMC: judges a list of nodes as a whole, and has PCS do the work. Like the real one from 3.0 on it tells no transition and
//! looks for failures by words that PCS does not use; an older one named what failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::answers::{go_not_found, json_ok, json_with, text};
use super::core::Core;
use super::names;
use super::pcs::{Operation, Reading, TaskStatus, TransitionStatus};
use super::world::{Reservation, World};
use super::{lock, stamp};

/// No such node, or a disabled one.
const EINVAL: i64 = 22;
/// A lock could not be had.
const ENOLCK: i64 = 37;
/// Minutes that PCS gives a task when its client says nothing.
const MINUTES: i64 = 5;

pub(crate) fn routes(core: Arc<Core>) -> Router {
    let api = Router::new()
        .route("/get_xname_status", post(status))
        .route("/xname_on", post(xname_on))
        .route("/xname_off", post(xname_off))
        .route("/health", get(health))
        .method_not_allowed_fallback(|method: http::Method| async move {
            refusal(StatusCode::METHOD_NOT_ALLOWED, format!("({method}) Not Allowed"))
        })
        .with_state(core);
    Router::new().nest("/capmc/v1", api).fallback(|| async { go_not_found() })
}

async fn health() -> Response {
    let parts = json!({"readiness": "Service Ready", "vault": "connected", "hsm": "connected", "at": stamp(Timestamp::now())});
    text(StatusCode::OK, parts.to_string())
}

/// A refusal of the whole call.
fn refusal(status: StatusCode, said: impl Into<String>) -> Response {
    json_with(status, &json!({"e": status.as_u16(), "err_msg": said.into()}))
}

fn bad_request(said: impl Into<String>) -> Response {
    refusal(StatusCode::BAD_REQUEST, said)
}

/// A list as Go prints it.
fn listed(what: &str, names: &[String]) -> String {
    format!("{what}: [{}]", names.join(" "))
}

/// What one name of a request is.
enum Named {
    Node(usize),
    Disabled,
    Unknown,
    /// Malformed, or there for the second time.
    Invalid,
}

/// Every name of a request with what it is; one that came before is invalid, unless that does not matter.
fn find(core: &Core, world: &World, xnames: &[String], twice_is_fine: bool) -> Vec<(String, Named)> {
    let settings = core.settings();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for xname in xnames {
        let first = seen.insert(xname.clone());
        if !first && twice_is_fine {
            continue;
        }
        let here = world.index.get(xname).copied().filter(|at| world.in_inventory(&settings, *at));
        let named = match here {
            _ if !first || names::kind(xname).is_none() => Named::Invalid,
            Some(at) if world.nodes[at].enabled => Named::Node(at),
            Some(_) => Named::Disabled,
            None => Named::Unknown,
        };
        found.push((xname.clone(), named));
    }
    found
}

fn pick(found: &[(String, Named)], is: impl Fn(&Named) -> bool) -> Vec<String> {
    found.iter().filter(|(_, named)| is(named)).map(|(xname, _)| xname.clone()).collect()
}

fn nodes(found: &[(String, Named)]) -> Vec<usize> {
    found.iter().filter_map(|(_, named)| if let Named::Node(at) = named { Some(*at) } else { None }).collect()
}

fn every_node(core: &Core, world: &World) -> Vec<usize> {
    let settings = core.settings();
    (0..world.nodes.len()).filter(|at| world.nodes[*at].enabled && world.in_inventory(&settings, *at)).collect()
}

#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    filter: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    xnames: Option<Vec<String>>,
}

const STATES: [&str; 6] = ["on", "off", "ready", "standby", "halt", "undefined"];
const OTHER_FILTERS: [&str; 8] = ["all", "disabled", "alert", "resvd", "reserved", "warn", "warning", "empty"];

/// The states that a filter lets through.
fn states(filter: &str) -> Result<Vec<&'static str>, String> {
    let filter = if filter.is_empty() { "show_all" } else { filter };
    let mut wanted = Vec::new();
    for token in filter.split('|') {
        match token.trim().strip_prefix("show_") {
            Some("all") => wanted.extend(STATES),
            Some(word) if STATES.contains(&word) => wanted.extend(STATES.iter().filter(|state| **state == word)),
            Some(word) if OTHER_FILTERS.contains(&word) => {}
            _ => return Err(format!("invalid filter string: {token}")),
        }
    }
    Ok(wanted)
}

async fn status(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    if body.is_empty() {
        return bad_request("no request");
    }
    let ask: Ask = match serde_json::from_slice(&body) {
        Ok(ask) => ask,
        Err(error) => return bad_request(error.to_string()),
    };
    let wanted = match states(&ask.filter) {
        Ok(wanted) => wanted,
        Err(error) => return bad_request(error),
    };
    let from_hsm = match ask.source.to_ascii_lowercase().as_str() {
        "" | "redfish" | "hardware" => false,
        "hsm" | "hms" | "sm" | "smd" | "software" => true,
        other => return bad_request(format!("unknown status source '{other}'")),
    };
    let world = lock(&core.world);
    let asked = match ask.xnames.filter(|list| !list.is_empty()) {
        None => every_node(&core, &world),
        Some(xnames) => {
            let found = find(&core, &world, &xnames, false);
            let invalid = pick(&found, |named| matches!(named, Named::Invalid));
            if !invalid.is_empty() {
                return bad_request(listed("invalid/duplicate xnames", &invalid));
            }
            let missing = pick(&found, |named| matches!(named, Named::Disabled | Named::Unknown));
            if !missing.is_empty() {
                return bad_request(listed("disabled or not found", &missing));
            }
            nodes(&found)
        }
    };
    if asked.is_empty() {
        return refusal(StatusCode::NOT_FOUND, "No matching components found");
    }
    json_ok(&lists(&world, &asked, &wanted, from_hsm))
}

/// The answer to a status request; lists without nodes are left out.
fn lists(world: &World, asked: &[usize], wanted: &[&str], from_hsm: bool) -> Value {
    let mut lists: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut failures = 0;
    for at in asked {
        let node = &world.nodes[*at];
        if node.faults.omitted_from_pcs && !from_hsm {
            continue;
        }
        let unknown = node.faults.missing_from_pcs && !from_hsm;
        failures += usize::from(unknown);
        let state = match (from_hsm, world.reading(*at)) {
            (true, _) => node.state.to_ascii_lowercase(),
            (false, _) if unknown => "undefined".to_owned(),
            (false, Reading::On) => "on".to_owned(),
            (false, Reading::Off) => "off".to_owned(),
            (false, Reading::Undefined) => "undefined".to_owned(),
        };
        if state == "undefined" || wanted.contains(&state.as_str()) {
            lists.entry(state).or_default().push(&node.xname);
        }
    }
    let mut answer = json!(lists);
    answer["e"] = json!(if failures > 0 { -1 } else { 0 });
    let said = if failures > 0 { format!("Errors encountered with {failures}/{} Xnames for Status", asked.len()) } else { String::new() };
    answer["err_msg"] = json!(said);
    answer
}

#[derive(Deserialize)]
struct Order {
    xnames: Option<Vec<String>>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    recurse: bool,
    #[serde(default)]
    prereq: bool,
    #[serde(default, rename = "continue")]
    proceed: bool,
}

/// A failure of one node.
#[derive(Serialize)]
struct NodeError {
    xname: String,
    e: i64,
    err_msg: String,
}

impl NodeError {
    fn all(xnames: Vec<String>, e: i64, said: &str) -> impl Iterator<Item = Self> {
        xnames.into_iter().map(move |xname| Self { xname, e, err_msg: said.to_owned() })
    }
}

async fn xname_on(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    control(core, &body, true).await
}

async fn xname_off(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    control(core, &body, false).await
}

/// An order that PCS works on.
struct Begun {
    id: Uuid,
    command: &'static str,
    total: usize,
    nodes: Vec<usize>,
    /// Told at the end: what was left out at the beginning, and what an old CAPMC could not reach.
    ignored: Vec<NodeError>,
    unreachable: Vec<NodeError>,
}

async fn control(core: Arc<Core>, body: &[u8], on: bool) -> Response {
    let order: Order = match serde_json::from_slice(body) {
        Ok(order) => order,
        Err(error) => return bad_request(format!("Bad Request: {error}")),
    };
    let begun = begin(&core, &order, on);
    match begun {
        Ok(begun) => end(&core, begun).await,
        Err(answer) => *answer,
    }
}

/// Judges an order and, where it stands, hands it to PCS.
fn begin(core: &Core, order: &Order, on: bool) -> Result<Begun, Box<Response>> {
    if order.recurse && order.prereq {
        return Err(Box::new(bad_request("Bad Request: recursive and prereq options are mutually exclusive")));
    }
    let xnames = match &order.xnames {
        None => return Err(Box::new(bad_request("Bad Request: Missing required xnames parameter"))),
        Some(list) if list.is_empty() => return Err(Box::new(bad_request("Bad Request: Required xnames list is empty"))),
        Some(list) => list,
    };
    let (command, operation) = match (on, order.force) {
        (true, true) => return Err(Box::new(bad_request("Cannot force the On operation"))),
        (true, false) => ("On", Operation::On),
        (false, false) => ("Off", Operation::Off),
        (false, true) => ("ForceOff", Operation::ForceOff),
    };
    let old = core.settings().old_capmc;
    let mut world = lock(&core.world);
    let everything = xnames.iter().any(|xname| xname == "s0" || xname == "all");
    let found = if everything { Vec::new() } else { find(core, &world, xnames, order.force || order.proceed) };
    let mut ignored: Vec<NodeError> =
        NodeError::all(pick(&found, |named| matches!(named, Named::Invalid)), EINVAL, "invalid/duplicate xname").collect();
    let left_out = |named: &Named| matches!(named, Named::Unknown) || matches!(named, Named::Disabled) && order.proceed && !old;
    ignored.extend(NodeError::all(pick(&found, left_out), EINVAL, "disabled or not found"));
    if !order.proceed && !ignored.is_empty() {
        let answer = json!({"e": EINVAL, "err_msg": "invalid argument", "xnames": ignored});
        return Err(Box::new(json_with(StatusCode::BAD_REQUEST, &answer)));
    }
    let disabled = pick(&found, |named| matches!(named, Named::Disabled) && !left_out(named));
    let mut targets = if everything { every_node(core, &world) } else { nodes(&found) };
    if targets.is_empty() && disabled.is_empty() {
        return Err(Box::new(refusal(StatusCode::NOT_FOUND, "No nodes found to operate on")));
    }
    if !disabled.is_empty() {
        return Err(Box::new(bad_request(listed("components disabled", &disabled))));
    }
    if targets.iter().any(|at| world.nodes[*at].locked || world.nodes[*at].reserved.is_some()) {
        let said = format!("Error: Failed to reserve components while performing a {command}.");
        return Err(Box::new(json_ok(&answer(ENOLCK, said, Vec::new(), ignored, xnames.len(), command))));
    }
    let total = targets.len();
    let mut unreachable = Vec::new();
    if old {
        // It talks to the controllers itself.
        let dead: Vec<String> =
            targets.iter().map(|at| &world.nodes[*at]).filter(|n| n.faults.bmc_undefined).map(|n| n.xname.clone()).collect();
        targets.retain(|at| !world.nodes[*at].faults.bmc_undefined);
        unreachable.extend(NodeError::all(dead, -1, "NodeBMC Communication Error"));
    }
    let names = targets.iter().map(|at| world.nodes[*at].xname.clone()).collect();
    let id = world.transition_accept(core, operation, names, MINUTES);
    for at in &targets {
        let created = Timestamp::now();
        world.nodes[*at].reserved = Some(Reservation { by: id, created, expires: created });
    }
    Ok(Begun { id, command, total, nodes: targets, ignored, unreachable })
}

/// Waits until PCS has begun, gives the reservations back and tells what came of it so far.
async fn end(core: &Core, begun: Begun) -> Response {
    let settings = core.settings();
    let failed = loop {
        tokio::time::sleep(settings.capmc_wait.max(Duration::from_millis(1))).await;
        let mut world = lock(&core.world);
        let Some(transition) = world.pcs.transitions.get(&begun.id) else { continue };
        if transition.status == TransitionStatus::New || transition.count(TaskStatus::New) > 0 {
            continue;
        }
        let tasks = transition.tasks.iter().filter(|t| matches!(t.task_status, TaskStatus::Failed | TaskStatus::Unsupported));
        let failed: Vec<(String, String)> = tasks.map(|t| (t.xname.clone(), t.error.clone().unwrap_or_default())).collect();
        for at in &begun.nodes {
            let node = &mut world.nodes[*at];
            if node.reserved.as_ref().is_some_and(|held| held.by == begun.id) {
                node.reserved = None;
            }
        }
        break failed;
    };
    let failures = failed.len() + begun.unreachable.len();
    let mut named = begun.unreachable;
    if settings.old_capmc {
        named.extend(failed.into_iter().map(|(xname, err_msg)| NodeError { xname, e: -1, err_msg }));
    }
    let (e, said) = match failures {
        0 => (0, String::new()),
        _ => (-1, format!("Errors encountered with {failures}/{} Xnames issued {}", begun.total, begun.command)),
    };
    let asked = begun.total + begun.ignored.len();
    json_ok(&answer(e, said, named, begun.ignored, asked, begun.command))
}

/// An answer to an order. What was left out at the beginning is told at the end, and changes no code.
fn answer(e: i64, mut said: String, mut named: Vec<NodeError>, ignored: Vec<NodeError>, asked: usize, command: &str) -> Value {
    let left_out = !ignored.is_empty();
    named.extend(ignored);
    if left_out {
        let more = format!("Errors encountered with {}/{asked} Xnames for {command}", named.len());
        said = if said.is_empty() { more } else { format!("{said}; {more}") };
    }
    let mut answer = json!({"e": e, "err_msg": said});
    if !named.is_empty() {
        answer["xnames"] = json!(named);
    }
    answer
}
