//! The hardware state manager: components, groups, partitions, locks. Read-only for clients.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::answers::{go_not_found, json_ok, problem};
use super::config::Settings;
use super::core::Core;
use super::query::Query;
use super::world::World;
use super::{lock, names, stamp};

pub(crate) fn routes(core: Arc<Core>) -> Router {
    let api = Router::new()
        .route("/State/Components", get(components))
        .route("/State/Components/Query", post(query_components))
        .route("/State/Components/{xname}", get(component))
        .route("/groups", get(groups))
        .route("/groups/{label}", get(group))
        .route("/Inventory/EthernetInterfaces", get(interfaces))
        .route("/partitions", get(partitions))
        .route("/memberships", get(memberships))
        .route("/locks/status", get(locks).post(locks_by_id))
        .route("/service/ready", get(ready))
        .route("/service/liveness", get(|| async { super::answers::empty(StatusCode::NO_CONTENT) }))
        .method_not_allowed_fallback(|| async { problem(StatusCode::METHOD_NOT_ALLOWED, "allow GET,POST,DELETE") })
        .with_state(core);
    Router::new().nest("/hsm/v2", api).fallback(|| async { go_not_found() })
}

async fn ready() -> Response {
    json_ok(&json!({"code": 0, "message": "HSM is healthy"}))
}

/// A component as HSM prints it: empty and false values are left out, except `Enabled`.
#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Component<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "Type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_role: Option<&'a str>,
    #[serde(rename = "NID", skip_serializing_if = "Option::is_none")]
    nid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    net_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    locked: bool,
}

fn node_view(world: &World, at: usize) -> Component<'_> {
    let node = &world.nodes[at];
    Component {
        id: &node.xname,
        kind: "Node",
        state: Some(node.state),
        flag: Some("OK"),
        enabled: Some(node.enabled),
        role: Some(&node.role),
        sub_role: node.sub_role.as_deref(),
        nid: Some(node.nid),
        net_type: Some("Sling"),
        arch: node.arch.as_deref(),
        class: Some(&node.class),
        locked: node.locked,
    }
}

fn bmc_view<'a>(id: &'a str, class: &'a str) -> Component<'a> {
    Component {
        id,
        kind: "NodeBMC",
        state: Some("Ready"),
        flag: Some("OK"),
        enabled: Some(true),
        role: None,
        sub_role: None,
        nid: None,
        net_type: Some("Sling"),
        arch: Some("X86"),
        class: Some(class),
        locked: false,
    }
}

/// All components HSM shows at present: the nodes and their BMCs.
fn inventory<'a>(world: &'a World, settings: &Settings) -> Vec<Component<'a>> {
    let mut list = Vec::with_capacity(world.nodes.len() * 2);
    let mut bmcs = HashSet::new();
    for at in (0..world.nodes.len()).filter(|at| world.in_inventory(settings, *at)) {
        let node = &world.nodes[at];
        list.push(node_view(world, at));
        let bmc = names::bmc_of(&node.xname);
        if bmcs.insert(bmc) {
            list.push(bmc_view(bmc, &node.class));
        }
    }
    list
}

const KNOWN_TYPES: [&str; 9] =
    ["node", "nodebmc", "cabinet", "chassis", "chassisbmc", "computemodule", "routermodule", "routerbmc", "processor"];

/// Filters over components: OR within a name, AND across names; `!` negates.
struct Filters {
    by: BTreeMap<String, Vec<String>>,
    members: Option<BTreeSet<String>>,
    select: Option<&'static str>,
}

impl Filters {
    fn new(world: &World, settings: &Settings, pairs: &[(String, String)]) -> Result<Self, String> {
        let mut by: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut select = None;
        for (key, value) in pairs {
            let key = key.to_ascii_lowercase();
            match key.as_str() {
                "stateonly" | "flagonly" | "roleonly" | "nidonly" if matches!(value.to_ascii_lowercase().as_str(), "1" | "true") => {
                    select = ["stateonly", "flagonly", "roleonly", "nidonly"].into_iter().find(|k| *k == key);
                }
                "id" | "type" | "state" | "flag" | "role" | "subrole" | "enabled" | "arch" | "class" | "nid" | "group" | "partition" => {
                    by.entry(key).or_default().push(value.clone());
                }
                _ => {}
            }
        }
        for kind in by.get("type").into_iter().flatten() {
            if !KNOWN_TYPES.contains(&kind.trim_start_matches('!').to_ascii_lowercase().as_str()) {
                return Err("bad query param: Argument was not a valid HMS Type".into());
            }
        }
        let members = Self::members(world, settings, &mut by);
        Ok(Self { by, members, select })
    }

    fn members(world: &World, settings: &Settings, by: &mut BTreeMap<String, Vec<String>>) -> Option<BTreeSet<String>> {
        let mut found: Option<BTreeSet<String>> = None;
        for (key, is_group) in [("group", true), ("partition", false)] {
            let Some(values) = by.remove(key) else { continue };
            let ids: BTreeSet<String> = values
                .iter()
                .flat_map(|label| {
                    let label = label.to_ascii_lowercase();
                    if is_group {
                        group_members(world, settings, &label)
                    } else {
                        world.partitions.get(&label).cloned().unwrap_or_default()
                    }
                })
                .collect();
            found = Some(match found {
                Some(have) => have.intersection(&ids).cloned().collect(),
                None => ids,
            });
        }
        found
    }

    fn admits(&self, c: &Component<'_>) -> bool {
        self.members.as_ref().is_none_or(|m| m.contains(c.id))
            && self.by.iter().all(|(key, values)| {
                let have = match key.as_str() {
                    "id" => Some(c.id.to_owned()),
                    "type" => Some(c.kind.to_owned()),
                    "state" => c.state.map(str::to_owned),
                    "flag" => c.flag.map(str::to_owned),
                    "role" => c.role.map(str::to_owned),
                    "subrole" => c.sub_role.map(str::to_owned),
                    "enabled" => c.enabled.map(|e| e.to_string()),
                    "arch" => c.arch.map(str::to_owned),
                    "class" => c.class.map(str::to_owned),
                    _ => c.nid.map(|n| n.to_string()),
                };
                one_of(key, have.as_deref(), values)
            })
    }

    fn print(&self, list: &[Component<'_>]) -> Value {
        let Some(select) = self.select else { return json!(list) };
        let keep: &[&str] = match select {
            "stateonly" => &["ID", "Type", "State", "Flag"],
            "flagonly" => &["ID", "Type", "Flag"],
            "roleonly" => &["ID", "Type", "Role", "SubRole"],
            _ => &["ID", "Type", "NID"],
        };
        let mut value = json!(list);
        for entry in value.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            entry.retain(|k, _| keep.contains(&k.as_str()));
        }
        value
    }
}

fn one_of(key: &str, have: Option<&str>, values: &[String]) -> bool {
    let same = |want: &str| match (key, have) {
        (_, None) => false,
        ("id", Some(have)) => names::normalise(want) == have,
        ("enabled", Some(have)) => have == if matches!(want.to_ascii_lowercase().as_str(), "1" | "true") { "true" } else { "false" },
        (_, Some(have)) => have.eq_ignore_ascii_case(want),
    };
    let (not, yes): (Vec<&String>, Vec<&String>) = values.iter().partition(|v| v.starts_with('!'));
    (yes.is_empty() || yes.iter().any(|v| same(v))) && !not.iter().any(|v| same(&v[1..]))
}

fn listing(core: &Core, pairs: &[(String, String)], ids: Option<&BTreeSet<String>>) -> Response {
    let settings = core.settings();
    let world = lock(&core.world);
    let filters = match Filters::new(&world, &settings, pairs) {
        Ok(filters) => filters,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, detail),
    };
    let mut list = inventory(&world, &settings);
    list.retain(|c| ids.is_none_or(|ids| ids.contains(c.id)) && filters.admits(c));
    json_ok(&json!({"Components": filters.print(&list)}))
}

async fn components(State(core): State<Arc<Core>>, RawQuery(query): RawQuery) -> Response {
    listing(&core, Query::parse(query.as_deref()).pairs(), None)
}

async fn component(State(core): State<Arc<Core>>, Path(xname): Path<String>) -> Response {
    let id = names::normalise(&xname);
    let settings = core.settings();
    let world = lock(&core.world);
    match inventory(&world, &settings).into_iter().find(|c| c.id == id) {
        Some(component) => json_ok(&component),
        None => problem(StatusCode::NOT_FOUND, "no such xname."),
    }
}

/// A bad body looks like a fault of the service: this one answers 500 to it.
async fn query_components(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let decode_error = |text: String| problem(StatusCode::INTERNAL_SERVER_ERROR, format!("error decoding JSON {text}"));
    let value: Value = match serde_json::from_slice(&body) {
        Ok(value) => value,
        Err(error) => return decode_error(error.to_string()),
    };
    let Some(object) = value.as_object() else {
        return decode_error("json: cannot unmarshal into Go value of type sm.ComponentQuery".into());
    };
    let mut pairs = Vec::new();
    let mut ids = Vec::new();
    for (key, value) in object {
        if value.is_boolean() && key.to_ascii_lowercase().ends_with("only") {
            pairs.push((key.clone(), value.to_string()));
            continue;
        }
        let strings: Option<Vec<&str>> = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        let Some(strings) = strings else {
            return decode_error(format!("json: cannot unmarshal into Go struct field ComponentQuery.{key} of type []string"));
        };
        if key.eq_ignore_ascii_case("ComponentIDs") {
            ids.extend(strings.into_iter().map(str::to_owned));
        } else {
            pairs.extend(strings.into_iter().map(|v| (key.clone(), v.to_owned())));
        }
    }
    if ids.is_empty() {
        return problem(StatusCode::BAD_REQUEST, "Missing IDs");
    }
    let whole = ids.iter().any(|id| id == "s0" || id == "all");
    let ids: BTreeSet<String> = ids.iter().map(|id| names::normalise(id)).collect();
    listing(&core, &pairs, (!whole).then_some(&ids))
}

fn is_missing(settings: &Settings, label: &str) -> bool {
    settings.missing_groups.iter().any(|m| m == label || m == "*")
}

fn group_members(world: &World, settings: &Settings, label: &str) -> Vec<String> {
    match world.groups.get(label) {
        Some(group) if !is_missing(settings, label) => group.members.clone(),
        _ => Vec::new(),
    }
}

/// Members that HSM shows: a component that has gone has also left its groups.
fn shown(world: &World, settings: &Settings, members: &[String]) -> Vec<String> {
    let here = |m: &&String| world.index.get(*m).is_none_or(|at| world.in_inventory(settings, *at));
    members.iter().filter(here).cloned().collect()
}

fn group_view(world: &World, settings: &Settings, label: &str, within: Option<&[String]>) -> Option<Value> {
    let group = world.groups.get(label).filter(|_| !is_missing(settings, label))?;
    let mut ids = shown(world, settings, &group.members);
    if let Some(within) = within {
        ids.retain(|id| within.contains(id));
    }
    Some(json!({"label": label, "description": group.description, "members": {"ids": ids}}))
}

async fn groups(State(core): State<Arc<Core>>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(query.as_deref());
    let settings = core.settings();
    let world = lock(&core.world);
    let within = match query.first("partition") {
        None => None,
        Some(name) => match world.partitions.get(&name.to_ascii_lowercase()) {
            Some(members) => Some(members.as_slice()),
            None => return problem(StatusCode::BAD_REQUEST, "no such partition"),
        },
    };
    let wanted = query.all("group");
    let list: Vec<Value> = world
        .groups
        .keys()
        .filter(|label| wanted.is_empty() || wanted.iter().any(|w| w.eq_ignore_ascii_case(label)))
        .filter_map(|label| group_view(&world, &settings, label, within))
        .collect();
    json_ok(&list)
}

async fn group(State(core): State<Arc<Core>>, Path(label): Path<String>) -> Response {
    let world = lock(&core.world);
    match group_view(&world, &core.settings(), &label.to_ascii_lowercase(), None) {
        Some(view) => json_ok(&view),
        None => problem(StatusCode::NOT_FOUND, format!("No such group: {label}")),
    }
}

async fn interfaces(State(core): State<Arc<Core>>) -> Response {
    let settings = core.settings();
    let world = lock(&core.world);
    let view = |at: usize| {
        let node = &world.nodes[at];
        let mac = node.mac();
        json!({"ID": mac.replace(':', ""), "Description": "", "MACAddress": mac, "IPAddresses": [], "ComponentID": node.xname, "Type": "Node"})
    };
    let listed = (0..world.nodes.len()).filter(|at| world.in_inventory(&settings, *at));
    json_ok(&listed.map(view).collect::<Vec<_>>())
}

async fn partitions(State(core): State<Arc<Core>>) -> Response {
    let settings = core.settings();
    let world = lock(&core.world);
    let view = |(name, members): (&String, &Vec<String>)| json!({"name": name, "description": "", "members": {"ids": shown(&world, &settings, members)}});
    json_ok(&world.partitions.iter().map(view).collect::<Vec<_>>())
}

async fn memberships(State(core): State<Arc<Core>>) -> Response {
    let settings = core.settings();
    let world = lock(&core.world);
    let mut labels: BTreeMap<&str, (Vec<&str>, &str)> = BTreeMap::new();
    for at in (0..world.nodes.len()).filter(|at| world.in_inventory(&settings, *at)) {
        labels.insert(&world.nodes[at].xname, (Vec::new(), ""));
    }
    for (label, group) in &world.groups {
        for member in &group.members {
            if let Some(entry) = labels.get_mut(member.as_str()) {
                entry.0.push(label);
            }
        }
    }
    for (name, members) in &world.partitions {
        for member in members {
            if let Some(entry) = labels.get_mut(member.as_str()) {
                entry.1 = name;
            }
        }
    }
    let list: Vec<Value> =
        labels.iter().map(|(id, (groups, partition))| json!({"id": id, "groupLabels": groups, "partitionName": partition})).collect();
    json_ok(&list)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LockView<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    locked: bool,
    reserved: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_time: Option<String>,
    reservation_disabled: bool,
}

fn lock_view(world: &World, at: usize) -> LockView<'_> {
    let node = &world.nodes[at];
    LockView {
        id: &node.xname,
        locked: node.locked,
        reserved: node.reserved.is_some(),
        creation_time: node.reserved.as_ref().map(|r| stamp(r.created)),
        expiration_time: node.reserved.as_ref().map(|r| stamp(r.expires)),
        reservation_disabled: false,
    }
}

fn truth(text: Option<String>) -> Result<Option<bool>, ()> {
    match text.map(|t| t.to_ascii_lowercase()).as_deref() {
        None => Ok(None),
        Some("true" | "1" | "t") => Ok(Some(true)),
        Some("false" | "0" | "f") => Ok(Some(false)),
        Some(_) => Err(()),
    }
}

async fn locks(State(core): State<Arc<Core>>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(query.as_deref());
    let settings = core.settings();
    let (Ok(locked), Ok(reserved)) = (truth(query.first("locked")), truth(query.first("reserved"))) else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "strconv.ParseBool: invalid syntax");
    };
    // Only these filters exist here; `ids` and `group` are ignored.
    let pairs: Vec<_> =
        query.pairs().iter().filter(|(k, _)| matches!(k.as_str(), "type" | "state" | "role" | "subrole")).cloned().collect();
    let world = lock(&core.world);
    let filters = match Filters::new(&world, &settings, &pairs) {
        Ok(filters) => filters,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, detail),
    };
    let list: Vec<LockView<'_>> = (0..world.nodes.len())
        .filter(|at| world.in_inventory(&settings, *at) && filters.admits(&node_view(&world, *at)))
        .map(|at| lock_view(&world, at))
        .filter(|l| locked.is_none_or(|want| want == l.locked) && reserved.is_none_or(|want| want == l.reserved))
        .collect();
    if list.is_empty() && settings.old_locks_status {
        return problem(StatusCode::BAD_REQUEST, "Component not found");
    }
    json_ok(&json!({"Components": list}))
}

async fn locks_by_id(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let ids: Vec<&str> = value.get("ComponentIDs").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let settings = core.settings();
    let world = lock(&core.world);
    let place = |id: &str| world.index.get(&names::normalise(id)).copied().filter(|at| world.in_inventory(&settings, *at));
    let (found, missing): (Vec<&str>, Vec<&str>) = ids.iter().partition(|id| place(id).is_some());
    if found.is_empty() {
        return problem(StatusCode::BAD_REQUEST, "Component not found");
    }
    let list: Vec<LockView<'_>> = found.iter().filter_map(|id| place(id)).map(|at| lock_view(&world, at)).collect();
    let mut answer = json!({"Components": list});
    if !missing.is_empty() {
        answer["NotFound"] = json!(missing);
    }
    json_ok(&answer)
}
