//! The routes of the power control service.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::answers::{empty, go_not_found, json_ok, json_with, problem};
use super::core::Core;
use super::names::{self, XnameKind};
use super::pcs::{Operation, Reading, TaskStatus, Transition, TransitionStatus};
use super::query::Query;
use super::world::World;
use super::{lock, stamp};

const ACTIONS: [&str; 7] = ["On", "Force-Off", "Soft-Off", "Off", "Soft-Restart", "Init", "Hard-Restart"];

pub(crate) fn routes(core: Arc<Core>) -> Router {
    let api = Router::new()
        .route("/transitions", post(start).get(list))
        .route("/transitions/{id}", get(show).delete(abort))
        .route("/power-status", post(status_post).get(status_get))
        .route("/readiness", get(|| async { empty(StatusCode::NO_CONTENT) }))
        .route("/liveness", get(|| async { empty(StatusCode::NO_CONTENT) }))
        .route("/health", get(health));
    Router::new().merge(api.clone()).nest("/v1", api).fallback(|| async { go_not_found() }).with_state(core)
}

async fn health() -> Response {
    let parts = json!({"KvStore": "connected, responsive", "DistLocking": "connected, responsive", "StateManager": "connected, responsive",
        "Vault": "disabled", "TaskRunner": "connected, responsive, local mode"});
    json_ok(&parts)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    #[serde(default)]
    xname: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    #[serde(default)]
    operation: String,
    task_deadline_minutes: Option<i64>,
    location: Option<Vec<Place>>,
}

async fn start(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let order: Order = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return problem(StatusCode::BAD_REQUEST, format!("json: cannot unmarshal: {error}")),
    };
    let Some(operation) = Operation::parse(&order.operation) else {
        return problem(StatusCode::BAD_REQUEST, format!("invalid Operation type {}", order.operation));
    };
    let xnames = order.location.unwrap_or_default().into_iter().map(|p| p.xname).collect();
    let id = lock(&core.world).transition_accept(&core, operation, xnames, order.task_deadline_minutes.unwrap_or(5));
    let mut response = json_ok(&json!({"transitionID": id, "operation": operation}));
    if let Ok(place) = HeaderValue::from_str(&format!("../transitions/{id}")) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

fn view(transition: &Transition, with_tasks: bool) -> Value {
    let count = |status| transition.count(status);
    let mut value = json!({
        "transitionID": transition.id, "operation": transition.operation, "createTime": stamp(transition.created),
        "automaticExpirationTime": stamp(transition.expires()), "transitionStatus": transition.status,
        "taskCounts": {"total": transition.tasks.len(), "new": count(TaskStatus::New), "in-progress": count(TaskStatus::InProgress),
            "failed": count(TaskStatus::Failed), "succeeded": count(TaskStatus::Succeeded), "un-supported": count(TaskStatus::Unsupported)}});
    if with_tasks && !transition.tasks.is_empty() {
        value["tasks"] = json!(transition.tasks);
    }
    value
}

async fn list(State(core): State<Arc<Core>>) -> Response {
    let world = lock(&core.world);
    let all: Vec<_> = world.pcs.transitions.values().map(|t| view(t, false)).collect();
    json_ok(&json!({"transitions": all}))
}

fn find(id: &str) -> Result<Uuid, Box<Response>> {
    if id.len() != 36 {
        return Err(Box::new(problem(StatusCode::BAD_REQUEST, format!("invalid UUID length: {}", id.len()))));
    }
    Uuid::parse_str(id).map_err(|_| Box::new(problem(StatusCode::BAD_REQUEST, "invalid UUID format")))
}

fn unknown(id: Uuid) -> Response {
    problem(StatusCode::NOT_FOUND, format!("Key /transition/{id} does not exist"))
}

async fn show(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Response {
    let id = match find(&id) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    match lock(&core.world).pcs.transitions.get(&id) {
        Some(transition) => json_ok(&view(transition, true)),
        None => unknown(id),
    }
}

async fn abort(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Response {
    let id = match find(&id) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    match lock(&core.world).pcs.transitions.get_mut(&id) {
        None => unknown(id),
        Some(transition) if transition.is_over() => problem(StatusCode::BAD_REQUEST, "Cannot abort transition, it has already ended"),
        Some(transition) => {
            transition.status = TransitionStatus::AbortSignaled;
            json_with(StatusCode::ACCEPTED, &json!({"abortStatus": "Accepted - abort initiated"}))
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ask {
    #[serde(default)]
    xname: Option<Vec<String>>,
    #[serde(default)]
    power_state_filter: Option<String>,
    #[serde(default)]
    management_state_filter: Option<String>,
}

async fn status_post(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    if body.is_empty() {
        return status(&core, Ask::default());
    }
    match serde_json::from_slice(&body) {
        Ok(ask) => status(&core, ask),
        Err(error) => problem(StatusCode::BAD_REQUEST, format!("json: cannot unmarshal: {error}")),
    }
}

async fn status_get(State(core): State<Arc<Core>>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(query.as_deref());
    let ask = Ask {
        xname: Some(query.all("xname")),
        power_state_filter: query.first("powerStateFilter"),
        management_state_filter: query.first("managementStateFilter"),
    };
    status(&core, ask)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    xname: &'a str,
    power_state: &'a str,
    management_state: &'a str,
    error: &'a str,
    supported_power_transitions: Option<&'a [&'a str]>,
    last_updated: String,
}

fn status(core: &Core, ask: Ask) -> Response {
    let asked: BTreeSet<String> = ask.xname.unwrap_or_default().into_iter().collect();
    let bad: Vec<&str> = asked.iter().map(String::as_str).filter(|x| names::kind(x).is_none()).collect();
    if !bad.is_empty() {
        return problem(StatusCode::BAD_REQUEST, format!("invalid xnames detected: {}", bad.join(" ")));
    }
    let (power, management) =
        (ask.power_state_filter.map(|f| f.to_ascii_lowercase()), ask.management_state_filter.map(|f| f.to_ascii_lowercase()));
    if power.as_deref().is_some_and(|f| !matches!(f, "on" | "off" | "undefined"))
        || management.as_deref().is_some_and(|f| !matches!(f, "available" | "unavailable"))
    {
        return problem(StatusCode::BAD_REQUEST, "invalid state filter");
    }
    let world = lock(&core.world);
    let all = asked.is_empty();
    let mut list: Vec<Entry<'_>> = if all {
        world
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, n)| !n.faults.missing_from_pcs && !n.faults.omitted_from_pcs)
            .map(|(at, _)| known(&world, at))
            .collect()
    } else {
        asked.iter().filter(|x| world.node(x).is_none_or(|n| !n.faults.omitted_from_pcs)).map(|x| entry(&world, x)).collect()
    };
    list.retain(|e| power.as_ref().is_none_or(|f| f == e.power_state) && management.as_ref().is_none_or(|f| f == e.management_state));
    json_ok(&json!({"status": list}))
}

fn entry<'a>(world: &'a World, xname: &'a str) -> Entry<'a> {
    let error = match names::kind(xname) {
        Some(XnameKind::Node) => match world.index.get(xname) {
            Some(at) if !world.nodes[*at].faults.missing_from_pcs => return known(world, *at),
            _ => "Component not found in component map.",
        },
        _ => "Component can not have power state and managment state data",
    };
    Entry { xname, power_state: "", management_state: "", error, supported_power_transitions: None, last_updated: String::new() }
}

fn known(world: &World, at: usize) -> Entry<'_> {
    let node = &world.nodes[at];
    let (power_state, management_state) = match world.reading(at) {
        Reading::On => ("on", "available"),
        Reading::Off => ("off", "available"),
        Reading::Undefined => ("undefined", "unavailable"),
    };
    Entry {
        xname: &node.xname,
        power_state,
        management_state,
        error: "",
        supported_power_transitions: Some(&ACTIONS),
        last_updated: stamp(node.power_changed),
    }
}
