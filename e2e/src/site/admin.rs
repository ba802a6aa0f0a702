//! The admin listener: look at the site and change it while it runs.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::answers::{empty, json_ok, json_with, problem};
use super::calls::CallFilter;
use super::config::{ImageSpec, InitialState, Settings};
use super::faults::{Faults, OutageSpec};
use super::handle::SiteHandle;
use super::query::Query;

/// What the admin listener offers, for `GET /` and `--help`.
pub const HELP: &str = "\
GET    /urls                          base URLs and keys of the services
GET    /calls?service=&method=&path=&operation=&node=&status=&since=&limit=
GET    /calls/counts                  {service: number} and by kind of call
DELETE /calls                         forget the calls so far
GET    /nodes?xname=a,b               the nodes now (all without xname)
GET    /nodes/summary                 how many are on, up, reported, configured, cycled
GET    /power-history?xname=a,b       what happened to each node
POST   /faults     {\"xnames\":[..]|[\"all\"],\"faults\":{..}}   merge into their faults
DELETE /faults     all nodes are well again
GET    /outages
POST   /outages    {\"service\":\"pcs\",\"kind\":\"unavailable\",\"for\":60}   answers {\"id\":1}
DELETE /outages, /outages/{id}
GET    /settings
PATCH  /settings   {\"bootTime\":10,\"services\":{\"bss\":{\"latency\":0.2}}}   merge
POST   /power      {\"xnames\":[..],\"on\":true}       out of band
POST   /report-now {\"xnames\":[..]}
POST   /state      {\"xnames\":[..],\"state\":{\"state\":\"on-unknown\"}}
POST   /locks      {\"xnames\":[..],\"locked\":true}
POST   /enabled    {\"xnames\":[..],\"enabled\":false}
PUT    /groups/{label}  [\"x1000c0s0b0n0\"]        DELETE /groups/{label}
PUT    /partitions/{name}  [\"x1000c0s0b0n0\"]
POST   /images     {\"id\":..,\"defect\":\"no-kernel\"}   answers path and etag of the manifest
PUT    /objects/{bucket}/{key}  the body is the object    DELETE /objects/{bucket}/{key}
PUT    /configurations/{name}   DELETE /configurations/{name}
";

type Answer = Result<Response, Box<Response>>;

/// An answer is an answer, good or bad.
fn flat(answer: Answer) -> Response {
    answer.unwrap_or_else(|bad| *bad)
}

pub(crate) fn routes(site: SiteHandle) -> Router {
    Router::new()
        .route("/", get(|| async { super::answers::text(StatusCode::OK, HELP) }))
        .route("/urls", get(|State(site): State<SiteHandle>| async move { json_ok(site.urls()) }))
        .route("/calls", get(calls).delete(clear_calls))
        .route("/calls/counts", get(counts))
        .route("/nodes", get(nodes))
        .route("/nodes/summary", get(summary))
        .route("/power-history", get(history))
        .route("/faults", post(faults).delete(no_faults))
        .route("/outages", get(outages).post(add_outage).delete(clear_outages))
        .route("/outages/{id}", delete(clear_outage))
        .route("/settings", get(settings).patch(change_settings))
        .route("/power", post(power))
        .route("/report-now", post(report_now))
        .route("/state", post(state))
        .route("/locks", post(locks))
        .route("/enabled", post(enabled))
        .route("/groups/{label}", axum::routing::put(put_group).delete(delete_group))
        .route("/partitions/{name}", axum::routing::put(put_partition))
        .route("/images", post(add_image))
        .route("/objects/{bucket}/{*key}", axum::routing::put(put_object).delete(delete_object))
        .route("/configurations/{name}", axum::routing::put(put_configuration).delete(delete_configuration))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "unknown path; GET / lists them all") })
        .with_state(site)
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Box<Response>> {
    serde_json::from_slice(body).map_err(|e| Box::new(problem(StatusCode::BAD_REQUEST, e.to_string())))
}

fn done(nodes: usize) -> Response {
    json_ok(&json!({"nodes": nodes}))
}

fn existed(yes: bool) -> Response {
    empty(if yes { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND })
}

async fn calls(State(site): State<SiteHandle>, RawQuery(query): RawQuery) -> Response {
    let mut fields = Map::new();
    for (key, value) in Query::parse(query.as_deref()).pairs() {
        let number = matches!(key.as_str(), "since" | "limit" | "status").then(|| value.parse::<u64>().ok()).flatten();
        fields.insert(key.clone(), number.map_or_else(|| json!(value), |n| json!(n)));
    }
    match serde_json::from_value::<CallFilter>(Value::Object(fields)) {
        Ok(filter) => json_ok(&site.calls(&filter)),
        Err(error) => problem(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

async fn clear_calls(State(site): State<SiteHandle>) -> Response {
    site.clear_calls();
    empty(StatusCode::NO_CONTENT)
}

async fn counts(State(site): State<SiteHandle>) -> Response {
    json_ok(&json!({"services": site.call_counts(), "byCall": site.call_counts_by_kind()}))
}

fn named(site: &SiteHandle, query: Option<&str>) -> Vec<String> {
    let query = Query::parse(query);
    let asked: Vec<String> = query.all("xname").iter().flat_map(|v| v.split(',')).filter(|v| !v.is_empty()).map(str::to_owned).collect();
    if asked.is_empty() { site.xnames() } else { asked }
}

async fn nodes(State(site): State<SiteHandle>, RawQuery(query): RawQuery) -> Response {
    let list: Vec<_> = match query.as_deref() {
        None | Some("") => site.nodes(),
        Some(query) => named(&site, Some(query)).iter().filter_map(|x| site.node(x)).collect(),
    };
    json_ok(&list)
}

async fn summary(State(site): State<SiteHandle>) -> Response {
    let nodes = site.nodes();
    let count = |f: &dyn Fn(&super::NodeView) -> bool| nodes.iter().filter(|n| f(n)).count();
    json_ok(&json!({
        "nodes": nodes.len(), "on": count(&|n| n.power), "up": count(&|n| n.up), "reported": count(&|n| n.reports > 0),
        "configured": count(&|n| n.cfs_status.as_deref() == Some("configured")), "cycled": count(&|n| n.power_cycles > 0)}))
}

async fn history(State(site): State<SiteHandle>, RawQuery(query): RawQuery) -> Response {
    let by_node: Map<String, Value> = named(&site, query.as_deref()).into_iter().map(|x| (x.clone(), json!(site.history(&x)))).collect();
    json_ok(&by_node)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultOrder {
    xnames: Vec<String>,
    faults: Map<String, Value>,
}

async fn faults(State(site): State<SiteHandle>, body: Bytes) -> Response {
    flat(set_faults(&site, &body))
}

fn set_faults(site: &SiteHandle, body: &Bytes) -> Answer {
    let order: FaultOrder = parse(body)?;
    // Looked at once by itself, so that a bad field is told and not skipped.
    let checked: Result<Faults, _> = serde_json::from_value(Value::Object(order.faults.clone()));
    checked.map_err(|e| Box::new(problem(StatusCode::BAD_REQUEST, e.to_string())))?;
    Ok(done(site.change_faults(&order.xnames, |faults| {
        let mut value = json!(faults);
        merge(&mut value, &Value::Object(order.faults.clone()));
        if let Ok(changed) = serde_json::from_value(value) {
            *faults = changed;
        }
    })))
}

async fn no_faults(State(site): State<SiteHandle>) -> Response {
    done(site.set_faults(&["all"], &Faults::default()))
}

async fn outages(State(site): State<SiteHandle>) -> Response {
    json_ok(&site.outages())
}

async fn add_outage(State(site): State<SiteHandle>, body: Bytes) -> Response {
    let order = parse::<OutageSpec>(&body).map(|spec| json_with(StatusCode::CREATED, &json!({"id": site.add_outage(spec)})));
    flat(order)
}

async fn clear_outages(State(site): State<SiteHandle>) -> Response {
    site.clear_outages();
    empty(StatusCode::NO_CONTENT)
}

async fn clear_outage(State(site): State<SiteHandle>, Path(id): Path<u64>) -> Response {
    existed(site.clear_outage(id))
}

async fn settings(State(site): State<SiteHandle>) -> Response {
    json_ok(&site.settings())
}

/// Merges objects; everything else replaces what was there.
pub(crate) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

async fn change_settings(State(site): State<SiteHandle>, body: Bytes) -> Response {
    let changed = parse::<Value>(&body).and_then(|patch| {
        let mut value = json!(site.settings());
        merge(&mut value, &patch);
        serde_json::from_value::<Settings>(value).map_err(|e| Box::new(problem(StatusCode::BAD_REQUEST, e.to_string())))
    });
    flat(changed.map(|new| {
        site.configure(|s| *s = new);
        json_ok(&site.settings())
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeOrder {
    xnames: Vec<String>,
    on: Option<bool>,
    locked: Option<bool>,
    enabled: Option<bool>,
    state: Option<InitialState>,
}

fn with<T>(body: &Bytes, field: fn(&NodeOrder) -> Option<T>, act: impl FnOnce(&[String], T) -> usize) -> Response {
    flat(parse::<NodeOrder>(body).and_then(|order| match field(&order) {
        Some(value) => Ok(done(act(&order.xnames, value))),
        None => Err(Box::new(problem(StatusCode::BAD_REQUEST, "a field is missing; GET / shows the form"))),
    }))
}

async fn power(State(site): State<SiteHandle>, body: Bytes) -> Response {
    with(&body, |o| o.on, |xnames, on| site.power(xnames, on))
}

async fn report_now(State(site): State<SiteHandle>, body: Bytes) -> Response {
    with(&body, |_| Some(()), |xnames, ()| site.report_now(xnames))
}

async fn state(State(site): State<SiteHandle>, body: Bytes) -> Response {
    with(&body, |o| o.state.clone(), |xnames, state| site.set_state(xnames, &state))
}

async fn locks(State(site): State<SiteHandle>, body: Bytes) -> Response {
    with(&body, |o| o.locked, |xnames, locked| site.set_locked(xnames, locked))
}

async fn enabled(State(site): State<SiteHandle>, body: Bytes) -> Response {
    with(&body, |o| o.enabled, |xnames, enabled| site.set_enabled(xnames, enabled))
}

async fn put_group(State(site): State<SiteHandle>, Path(label): Path<String>, body: Bytes) -> Response {
    flat(parse::<Vec<String>>(&body).map(|members| {
        site.set_group(&label, &members);
        done(members.len())
    }))
}

async fn delete_group(State(site): State<SiteHandle>, Path(label): Path<String>) -> Response {
    existed(site.remove_group(&label))
}

async fn put_partition(State(site): State<SiteHandle>, Path(name): Path<String>, body: Bytes) -> Response {
    flat(parse::<Vec<String>>(&body).map(|members| {
        site.set_partition(&name, &members);
        done(members.len())
    }))
}

async fn add_image(State(site): State<SiteHandle>, body: Bytes) -> Response {
    flat(parse::<ImageSpec>(&body).map(|spec| {
        let (path, etag) = site.add_image(&spec);
        json_with(StatusCode::CREATED, &json!({"path": path, "etag": etag}))
    }))
}

async fn put_object(State(site): State<SiteHandle>, Path((bucket, key)): Path<(String, String)>, body: Bytes) -> Response {
    json_ok(&json!({"etag": site.put_object(&bucket, &key, body)}))
}

async fn delete_object(State(site): State<SiteHandle>, Path((bucket, key)): Path<(String, String)>) -> Response {
    existed(site.remove_object(&bucket, &key))
}

async fn put_configuration(State(site): State<SiteHandle>, Path(name): Path<String>) -> Response {
    site.add_configuration(&name);
    empty(StatusCode::NO_CONTENT)
}

async fn delete_configuration(State(site): State<SiteHandle>, Path(name): Path<String>) -> Response {
    existed(site.remove_configuration(&name))
}
