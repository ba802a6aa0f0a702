//! The routes of the configuration service, version 3.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{empty, json_ok, problem};
use super::cfs::{Cfs, Component, Configuration, Layer, LayerState, now};
use super::config::Settings;
use super::core::Core;
use super::lock;
use super::query::Query;
use super::world::World;

pub(crate) fn routes(core: Arc<Core>) -> Router {
    Router::new()
        .route("/v3/components", get(list).patch(patch_many).put(put_many))
        .route("/v3/components/{id}", get(show).patch(patch_one))
        .route("/v3/configurations", get(configurations))
        .route("/v3/configurations/{name}", get(configuration).put(put_configuration).delete(delete_configuration))
        .route("/v3/options", get(options))
        .route("/healthz", get(|| async { json_ok(&json!({"db_status": "ok", "kafka_status": "ok"})) }))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "The requested URL was not found on the server.") })
        .with_state(core)
}

async fn options(State(core): State<Arc<Core>>) -> Response {
    let settings = core.settings();
    json_ok(&json!({"default_page_size": settings.cfs_page_size, "batch_size": 25, "batch_window": 60,
        "default_batcher_retry_policy": settings.cfs_retries, "hardware_sync_interval": 10, "batcher_check_interval": 10, "default_playbook": "site.yml"}))
}

fn no_component(id: &str) -> Response {
    problem(StatusCode::NOT_FOUND, format!("Component {id} could not be found"))
}

fn view(cfs: &Cfs, id: &str, c: &Component, status: &str, details: (bool, bool)) -> Value {
    let mut out = json!({"id": id, "desired_config": c.desired_config, "configuration_status": status, "enabled": c.enabled, "error_count": c.error_count});
    if let Some(retries) = c.retry_policy {
        out["retry_policy"] = json!(retries);
    }
    if !c.tags.is_empty() {
        out["tags"] = json!(c.tags);
    }
    if details.0 {
        out["state"] = json!(c.state);
    }
    if details.1 {
        out["desired_state"] = json!(cfs.configurations.get(&c.desired_config).map_or(&[][..], |c| &c.layers));
    }
    out
}

/// Whether the node of a record is one that this service does not know.
fn hidden(world: &World, id: &str) -> bool {
    world.node(id).is_some_and(|n| n.faults.missing_from_cfs)
}

fn flag(query: &Query, key: &str) -> Result<Option<bool>, Box<Response>> {
    match query.first(key).map(|v| v.to_ascii_lowercase()).as_deref() {
        None | Some("") => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => {
            Err(Box::new(problem(StatusCode::BAD_REQUEST, format!("Wrong type, expected 'boolean' for query parameter '{key}': {other}"))))
        }
    }
}

/// What a list call asks for.
struct Ask {
    query: Query,
    filter: Filter,
    limit: usize,
    after: Option<String>,
    details: (bool, bool),
}

#[derive(Default)]
struct Filter {
    ids: Option<BTreeSet<String>>,
    status: Option<String>,
    enabled: Option<bool>,
    config_name: Option<String>,
    tags: Vec<(String, String)>,
}

impl Filter {
    fn admits(&self, cfs: &Cfs, settings: &Settings, id: &str, c: &Component) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(id))
            && self.enabled.is_none_or(|e| e == c.enabled)
            && self.config_name.as_ref().is_none_or(|n| *n == c.desired_config)
            && self.tags.iter().all(|(k, v)| c.tags.get(k) == Some(v))
            && self.status.as_ref().is_none_or(|s| s.split(',').any(|s| s == cfs.status(c, settings.cfs_retries)))
    }
}

fn ids(text: &str) -> Option<BTreeSet<String>> {
    (!text.is_empty()).then(|| text.split(',').map(str::to_owned).collect())
}

fn tags(text: &str) -> Vec<(String, String)> {
    text.split(',').filter_map(|t| t.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

impl Ask {
    fn parse(raw: Option<&str>, settings: &Settings) -> Result<Self, Box<Response>> {
        let query = Query::parse(raw);
        let bad = |detail: String| Box::new(problem(StatusCode::BAD_REQUEST, detail));
        let text = |key: &str| query.first(key).filter(|v| !v.is_empty());
        let status = text("status");
        if let Some(status) = &status
            && !status.split(',').all(|s| matches!(s, "unconfigured" | "pending" | "failed" | "configured"))
        {
            return Err(bad(format!("'{status}' is not one of ['unconfigured', 'pending', 'failed', 'configured']")));
        }
        let limit = match text("limit") {
            None => settings.cfs_page_size,
            Some(limit) => match limit.parse() {
                Ok(limit) if limit >= 1 => limit,
                _ => return Err(bad(format!("{limit} is less than the minimum of 1"))),
            },
        };
        let filter = Filter {
            ids: text("ids").and_then(|t| ids(&t)),
            status,
            enabled: flag(&query, "enabled")?,
            config_name: text("config_name"),
            tags: text("tags").map(|t| tags(&t)).unwrap_or_default(),
        };
        let details = (flag(&query, "state_details")?.unwrap_or(false), flag(&query, "config_details")?.unwrap_or(false));
        let after = text("after_id");
        Ok(Self { filter, limit: limit.max(1), after, details, query })
    }

    fn next(&self, last: &str) -> Value {
        let text = |key: &str| self.query.first(key).unwrap_or_default();
        json!({"after_id": last, "limit": self.limit, "ids": text("ids"), "status": text("status"), "enabled": self.filter.enabled,
            "config_name": text("config_name"), "tags": text("tags"), "state_details": self.details.0, "config_details": self.details.1})
    }
}

async fn list(State(core): State<Arc<Core>>, RawQuery(query): RawQuery) -> Response {
    let settings = core.settings();
    let ask = match Ask::parse(query.as_deref(), &settings) {
        Ok(ask) => ask,
        Err(answer) => return *answer,
    };
    let mut world = lock(&core.world);
    let mut page = Vec::new();
    let mut last = None;
    let mut more = false;
    for (id, c) in &world.cfs.components {
        let wanted = ask.after.as_ref().is_none_or(|a| id > a) && !hidden(&world, id) && ask.filter.admits(&world.cfs, &settings, id, c);
        if wanted && page.len() == ask.limit {
            more = true;
            break;
        }
        if wanted {
            page.push((id.clone(), world.cfs.status(c, settings.cfs_retries)));
            last = Some(id.clone());
        }
    }
    let components: Vec<Value> =
        page.iter().map(|(id, status)| view(&world.cfs, id, &world.cfs.components[id], status, ask.details)).collect();
    let next = last.filter(|_| more).map(|last| ask.next(&last));
    for (id, status) in page {
        if let Some(c) = world.cfs.components.get_mut(&id) {
            c.stale_status = status;
        }
    }
    json_ok(&json!({"components": components, "next": next}))
}

async fn show(State(core): State<Arc<Core>>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Response {
    let settings = core.settings();
    let ask = match Ask::parse(query.as_deref(), &settings) {
        Ok(ask) => ask,
        Err(answer) => return *answer,
    };
    let world = lock(&core.world);
    match world.cfs.components.get(&id).filter(|_| !hidden(&world, &id)) {
        Some(c) => json_ok(&view(&world.cfs, &id, c, world.cfs.status(c, settings.cfs_retries), ask.details)),
        None => no_component(&id),
    }
}

/// What a client may change in a record.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Change {
    id: Option<String>,
    desired_config: Option<String>,
    state: Option<Vec<LayerInput>>,
    state_append: Option<LayerInput>,
    enabled: Option<bool>,
    error_count: Option<u32>,
    retry_policy: Option<u32>,
    tags: Option<BTreeMap<String, String>>,
    // Accepted and ignored, as clients send records back that they have read.
    #[serde(rename = "configuration_status")]
    _status: Option<String>,
    #[serde(rename = "desired_state")]
    _desired: Option<Value>,
    #[serde(rename = "logs")]
    _logs: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LayerInput {
    clone_url: String,
    playbook: String,
    commit: String,
    status: String,
    last_updated: String,
    session_name: String,
}

impl From<LayerInput> for LayerState {
    fn from(l: LayerInput) -> Self {
        let status = if l.status.is_empty() { "applied".into() } else { l.status };
        Self { clone_url: l.clone_url, playbook: l.playbook, commit: l.commit, status, last_updated: now(), session_name: l.session_name }
    }
}

impl Change {
    fn apply(&self, c: &mut Component) {
        if self.desired_config.is_some() || self.state.as_ref().is_some_and(Vec::is_empty) {
            c.error_count = 0;
        }
        if let Some(config) = &self.desired_config {
            c.desired_config.clone_from(config);
        }
        if let Some(state) = &self.state {
            c.state = state.iter().cloned().map(Into::into).collect();
        }
        if let Some(layer) = self.state_append.clone().map(LayerState::from) {
            c.state.retain(|s| s.clone_url != layer.clone_url || s.playbook != layer.playbook);
            c.state.push(layer);
        }
        c.enabled = self.enabled.unwrap_or(c.enabled);
        c.error_count = self.error_count.unwrap_or(c.error_count);
        c.retry_policy = self.retry_policy.or(c.retry_policy);
        for (key, value) in self.tags.iter().flatten() {
            if value.is_empty() {
                c.tags.remove(key);
            } else {
                c.tags.insert(key.clone(), value.clone());
            }
        }
        c.generation += 1;
    }
}

fn not_valid() -> Response {
    problem(StatusCode::BAD_REQUEST, "The request body is not valid under any of the given schemas")
}

fn change(core: &Core, world: &mut World, id: &str, change: &Change) {
    if let Some(c) = world.cfs.components.get_mut(id) {
        change.apply(c);
    }
    if let Some(at) = world.index.get(id).copied() {
        world.cfs_kick(core, at);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByFilter {
    patch: Change,
    filters: Filters,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Filters {
    ids: Option<String>,
    status: Option<String>,
    enabled: Option<bool>,
    config_name: Option<String>,
    tags: Option<String>,
}

async fn patch_many(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    match serde_json::from_slice::<Value>(&body) {
        Ok(value) if value.is_array() => patch_list(&core, value),
        Ok(value) => patch_filter(&core, value),
        Err(_) => not_valid(),
    }
}

/// The list form: all or nothing.
fn patch_list(core: &Core, value: Value) -> Response {
    let Ok(changes) = serde_json::from_value::<Vec<Change>>(value) else { return not_valid() };
    if changes.is_empty() {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "list index out of range");
    }
    if changes.iter().any(|c| c.id.is_none()) {
        return not_valid();
    }
    let ids: Vec<String> = changes.iter().filter_map(|c| c.id.clone()).collect();
    let mut world = lock(&core.world);
    if let Some(unknown) = ids.iter().find(|id| !world.cfs.components.contains_key(*id) || hidden(&world, id)) {
        return no_component(unknown);
    }
    for (id, what) in ids.iter().zip(&changes) {
        change(core, &mut world, id, what);
    }
    json_ok(&json!({"component_ids": ids}))
}

/// The filter form: an empty filter means every component there is.
fn patch_filter(core: &Core, value: Value) -> Response {
    let Ok(ByFilter { patch, filters }) = serde_json::from_value::<ByFilter>(value) else { return not_valid() };
    let settings = core.settings();
    let filter = Filter {
        ids: filters.ids.as_deref().and_then(ids),
        status: filters.status.filter(|s| !s.is_empty()),
        enabled: filters.enabled,
        config_name: filters.config_name.filter(|s| !s.is_empty()),
        tags: filters.tags.as_deref().map(tags).unwrap_or_default(),
    };
    let mut world = lock(&core.world);
    let found: Vec<String> = world
        .cfs
        .components
        .iter()
        .filter(|(id, c)| !hidden(&world, id) && filter.admits(&world.cfs, &settings, id, c))
        .map(|(id, _)| id.clone())
        .collect();
    for id in &found {
        change(core, &mut world, id, &patch);
    }
    json_ok(&json!({"component_ids": found}))
}

async fn patch_one(State(core): State<Arc<Core>>, Path(id): Path<String>, body: Bytes) -> Response {
    let Ok(what) = serde_json::from_slice::<Change>(&body) else { return not_valid() };
    let mut world = lock(&core.world);
    if !world.cfs.components.contains_key(&id) || hidden(&world, &id) {
        return no_component(&id);
    }
    change(&core, &mut world, &id, &what);
    let c = &world.cfs.components[&id];
    // The status in the answer is the stored one, not one computed after the change.
    json_ok(&view(&world.cfs, &id, c, c.stale_status, (true, false)))
}

async fn put_many(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let Ok(changes) = serde_json::from_slice::<Vec<Change>>(&body) else { return not_valid() };
    if changes.iter().any(|c| c.id.is_none()) {
        return not_valid();
    }
    let mut world = lock(&core.world);
    let ids: Vec<String> = changes.iter().filter_map(|c| c.id.clone()).collect();
    for (id, what) in ids.iter().zip(&changes) {
        let generation = world.cfs.components.get(id).map_or(0, |c| c.generation);
        world.cfs.components.insert(id.clone(), Component { generation, stale_status: "unconfigured", ..Component::default() });
        change(&core, &mut world, id, what);
    }
    json_ok(&json!({"component_ids": ids}))
}

async fn configurations(State(core): State<Arc<Core>>) -> Response {
    let world = lock(&core.world);
    json_ok(&json!({"configurations": world.cfs.configurations.values().collect::<Vec<_>>(), "next": null}))
}

async fn configuration(State(core): State<Arc<Core>>, Path(name): Path<String>) -> Response {
    match lock(&core.world).cfs.configurations.get(&name) {
        Some(configuration) => json_ok(configuration),
        None => problem(StatusCode::NOT_FOUND, "Configuration not found"),
    }
}

async fn put_configuration(State(core): State<Arc<Core>>, Path(name): Path<String>, body: Bytes) -> Response {
    #[derive(Deserialize)]
    struct Input {
        layers: Vec<Layer>,
    }
    let Ok(Input { layers }) = serde_json::from_slice(&body) else { return not_valid() };
    if layers.iter().any(|l| l.playbook.is_empty() || l.clone_url.is_empty() || l.commit.is_empty()) {
        return not_valid();
    }
    let configuration = Configuration { name: name.clone(), last_updated: now(), layers };
    let answer = json_ok(&configuration);
    let mut world = lock(&core.world);
    world.cfs.configurations.insert(name, configuration);
    for at in 0..world.nodes.len() {
        world.cfs_kick(&core, at);
    }
    answer
}

async fn delete_configuration(State(core): State<Arc<Core>>, Path(name): Path<String>) -> Response {
    match lock(&core.world).cfs.configurations.remove(&name) {
        Some(_) => empty(StatusCode::NO_CONTENT),
        None => problem(StatusCode::NOT_FOUND, "Configuration not found"),
    }
}
