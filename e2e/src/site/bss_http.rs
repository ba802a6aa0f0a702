//! The routes of the boot script service.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answers::{empty, json_ok, problem, text};
use super::bss::BootData;
use super::core::Core;
use super::lock;
use super::query::Query;
use super::world::World;

pub(crate) fn routes(core: Arc<Core>) -> Router {
    let api = Router::new()
        .route("/bootparameters", get(read).put(put).post(create).patch(merge).delete(remove))
        .route("/bootscript", get(script))
        .route("/endpoint-history", get(history))
        .route("/service/status", get(|| async { text(StatusCode::OK, "{\"bss-status\":\"running\"}") }))
        .route(
            "/service/status/all",
            get(|| async { text(StatusCode::OK, "{\"bss-status\":\"running\",\"bss-status-etcd\":\"connected\"}") }),
        )
        // What the real one says to any path it does not know.
        .fallback(|| async { text(StatusCode::OK, "Hello World!") })
        .with_state(core);
    Router::new().nest("/boot/v1", api).fallback(|| async { super::answers::go_not_found() })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Params {
    hosts: Option<Vec<String>>,
    macs: Option<Vec<String>>,
    nids: Option<Vec<i64>>,
    params: String,
    kernel: String,
    initrd: String,
    #[serde(rename = "cloud-init")]
    cloud_init: Option<Value>,
}

fn parse(body: &Bytes) -> Result<Params, Box<Response>> {
    serde_json::from_slice(body).map_err(|e| Box::new(problem(StatusCode::BAD_REQUEST, format!("Bad Request: json: cannot unmarshal {e}"))))
}

impl Params {
    /// The hosts meant: only the first kind of name that is given counts.
    fn targets(&self, world: &World) -> Vec<String> {
        if let Some(hosts) = self.hosts.as_ref().filter(|h| !h.is_empty()) {
            return hosts.clone();
        }
        if let Some(macs) = self.macs.as_ref().filter(|m| !m.is_empty()) {
            return macs.iter().map(|mac| by_mac(world, mac).unwrap_or_else(|| mac.clone())).collect();
        }
        let nids = self.nids.as_deref().unwrap_or_default();
        nids.iter().map(|nid| by_nid(world, &nid.to_string()).unwrap_or_else(|| format!("nid{nid}"))).collect()
    }
}

fn by_mac(world: &World, mac: &str) -> Option<String> {
    world.nodes.iter().find(|n| n.mac().eq_ignore_ascii_case(mac)).map(|n| n.xname.clone())
}

fn by_nid(world: &World, nid: &str) -> Option<String> {
    world.nodes.iter().find(|n| n.nid.to_string() == nid).map(|n| n.xname.clone())
}

fn with_token(mut response: Response, token: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(token) {
        response.headers_mut().insert("bss-referral-token", value);
    }
    response
}

/// Replaces what is stored. One token for the call; a new one each time, changed or not.
async fn put(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let params = match parse(&body) {
        Ok(params) => params,
        Err(answer) => return *answer,
    };
    let settings = core.settings();
    let stops = &settings.bss_put_stops_at;
    let hosts = u32::try_from(params.hosts.as_ref().map_or(0, Vec::len)).unwrap_or(u32::MAX);
    if !settings.bss_host_write.is_zero() {
        tokio::time::sleep(settings.bss_host_write.saturating_mul(hosts)).await;
    }
    let mut world = lock(&core.world);
    let targets = params.targets(&world);
    if targets.is_empty() {
        store_image(&mut world, &params);
        return empty(StatusCode::OK);
    }
    let token = core.uuid().to_string();
    for host in targets {
        // Hosts are written one by one: those before this one keep the new data.
        if stops.contains(&host) {
            return problem(StatusCode::BAD_REQUEST, "No data");
        }
        let data = BootData {
            params: params.params.clone(),
            kernel: params.kernel.clone(),
            initrd: params.initrd.clone(),
            cloud_init: params.cloud_init.clone(),
            token: token.clone(),
        };
        world.bss.hosts.insert(host, data);
    }
    with_token(empty(StatusCode::OK), &token)
}

fn store_image(world: &mut World, params: &Params) {
    if !params.kernel.is_empty() {
        world.bss.kernels.insert(params.kernel.clone(), params.params.clone());
    } else if !params.initrd.is_empty() {
        world.bss.initrds.insert(params.initrd.clone(), params.params.clone());
    }
}

async fn create(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let params = match parse(&body) {
        Ok(params) => params,
        Err(answer) => return *answer,
    };
    let token = core.uuid().to_string();
    let mut world = lock(&core.world);
    let targets = params.targets(&world);
    if let Some(host) = targets.iter().find(|h| world.bss.hosts.contains_key(*h)) {
        return problem(StatusCode::BAD_REQUEST, format!("Already exists: {host}"));
    }
    for host in targets {
        world.bss.seed(&host, &token, &params.kernel, &params.initrd, &params.params);
    }
    with_token(empty(StatusCode::CREATED), &token)
}

/// Changes only what is given; the token stays and is not told.
async fn merge(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let params = match parse(&body) {
        Ok(params) => params,
        Err(answer) => return *answer,
    };
    let mut world = lock(&core.world);
    let targets = params.targets(&world);
    if targets.iter().any(|h| !world.bss.hosts.contains_key(h)) {
        return problem(StatusCode::NOT_FOUND, "Cannot find boot parameters for requested Hosts");
    }
    for host in targets {
        if let Some(data) = world.bss.hosts.get_mut(&host) {
            for (new, old) in [(&params.params, &mut data.params), (&params.kernel, &mut data.kernel), (&params.initrd, &mut data.initrd)] {
                if !new.is_empty() {
                    old.clone_from(new);
                }
            }
            if params.cloud_init.is_some() {
                data.cloud_init.clone_from(&params.cloud_init);
            }
        }
    }
    empty(StatusCode::OK)
}

async fn remove(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let params = match parse(&body) {
        Ok(params) => params,
        Err(answer) => return *answer,
    };
    let mut world = lock(&core.world);
    for host in params.targets(&world) {
        if world.bss.hosts.remove(&host).is_none() {
            return problem(StatusCode::BAD_REQUEST, format!("Cannot find boot parameters for {host}"));
        }
    }
    empty(StatusCode::OK)
}

/// The token is not among what can be read.
fn view(host: &str, data: &BootData) -> Value {
    let mut out = Map::new();
    out.insert("hosts".into(), json!([host]));
    for (key, value) in [("params", &data.params), ("kernel", &data.kernel), ("initrd", &data.initrd)] {
        if !value.is_empty() {
            out.insert(key.into(), json!(value));
        }
    }
    let none = json!({"meta-data": null, "user-data": null, "phone-home": {"pub_key_dsa": "", "pub_key_rsa": "", "pub_key_ecdsa": "", "instance_id": "", "hostname": "", "fqdn": ""}});
    out.insert("cloud-init".into(), data.cloud_init.clone().unwrap_or(none));
    Value::Object(out)
}

async fn read(State(core): State<Arc<Core>>, RawQuery(query): RawQuery, body: Bytes) -> Response {
    let query = Query::parse(query.as_deref());
    let split =
        |key: &str| query.all(key).iter().flat_map(|v| v.split(',')).filter(|v| !v.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let mut params = if body.is_empty() { Params::default() } else { parse(&body).unwrap_or_default() };
    let world = lock(&core.world);
    let mut asked = split("name");
    asked.extend(split("mac").iter().map(|mac| by_mac(&world, mac).unwrap_or_else(|| mac.clone())));
    asked.extend(split("nid").iter().map(|nid| by_nid(&world, nid).unwrap_or_else(|| format!("nid{nid}"))));
    if params.hosts.is_none() && !asked.is_empty() {
        params.hosts = Some(asked);
    }
    let targets = params.targets(&world);
    if targets.is_empty() {
        return read_all(&world);
    }
    let found: Vec<Value> = targets.iter().filter_map(|h| world.bss.hosts.get(h).map(|d| view(h, d))).collect();
    if found.is_empty() {
        return problem(StatusCode::NOT_FOUND, "Cannot find boot parameters for requested Hosts");
    }
    json_ok(&found)
}

fn read_all(world: &World) -> Response {
    let image = |key: &str, path: &String, params: &String| json!({key: path, "params": params});
    let mut all: Vec<Value> = world.bss.kernels.iter().map(|(k, p)| image("kernel", k, p)).collect();
    all.extend(world.bss.initrds.iter().map(|(k, p)| image("initrd", k, p)));
    all.extend(world.bss.hosts.iter().map(|(h, d)| view(h, d)));
    if all.is_empty() { json_ok(&Value::Null) } else { json_ok(&all) }
}

async fn script(State(core): State<Arc<Core>>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(query.as_deref());
    let mut world = lock(&core.world);
    let name = query
        .first("name")
        .or_else(|| query.first("mac").and_then(|mac| by_mac(&world, &mac)))
        .or_else(|| query.first("nid").and_then(|nid| by_nid(&world, &nid)))
        .unwrap_or_default();
    let at = world.index.get(&name).copied().filter(|at| world.in_inventory(&core.settings(), *at));
    match at {
        Some(at) => match world.boot_script(&core, at) {
            Ok(script) => text(StatusCode::OK, script),
            Err(detail) => problem(StatusCode::NOT_FOUND, detail),
        },
        // An unknown node is first told to come back, while the service asks HSM again.
        None if query.first("retry").is_none() => text(
            StatusCode::OK,
            format!("#!ipxe\nsleep 10\nchain https://api-gw-service-nmn.local/apis/bss/boot/v1/bootscript?name={name}&retry=1\n"),
        ),
        None => problem(StatusCode::NOT_FOUND, format!("{name}: this host not configured for booting.")),
    }
}

async fn history(State(core): State<Arc<Core>>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(query.as_deref());
    let (name, endpoint) = (query.first("name"), query.first("endpoint"));
    let world = lock(&core.world);
    let entry = |xname: &str, endpoint: &str, epoch: i64| json!({"name": xname, "endpoint": endpoint, "last_epoch": epoch});
    let list: Vec<Value> = match (name, endpoint.as_deref()) {
        (None, Some(_)) => return problem(StatusCode::INTERNAL_SERVER_ERROR, "endpoint without name"),
        (_, Some(other)) if other != "bootscript" && other != "user-data" => Vec::new(),
        (Some(name), endpoint) => {
            let epoch = world.node(&name).map_or(0, |n| n.script_epoch);
            let kinds = endpoint.map_or(vec!["bootscript", "user-data"], |e| vec![e]);
            kinds.into_iter().map(|e| entry(&name, e, if e == "bootscript" { epoch } else { 0 })).collect()
        }
        (None, None) => world.nodes.iter().filter(|n| n.script_epoch > 0).map(|n| entry(&n.xname, "bootscript", n.script_epoch)).collect(),
    };
    json_ok(&list)
}
