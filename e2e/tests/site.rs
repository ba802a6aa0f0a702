//! The simulated site answers as the real services do, and its nodes live as real nodes do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::patch;
use bos_e2e::site::{
    CallFilter, CallOutcome, Faults, ImageDefect, ImageSpec, InitialState, Inventory, Match, OutageKind, OutageSpec, PowerEvent, Service,
    Site, SiteConfig, SiteHandle, When,
};
use http::StatusCode;
use reqwest::{Client, Response};
use rusty_s3::actions::S3Action as _;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const NODE: &str = "x1000c0s0b0n0";
const OTHER: &str = "x1000c0s0b0n1";
const IMAGE: &str = "7f0c3a52-1d4f-4c7e-9a51-0b8f6a2d9e10";
/// Only a guard against hanging for ever, far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A site of eight fast nodes and a client.
async fn site() -> (Site, Client) {
    let mut config = SiteConfig::with_nodes(8);
    config.settings.boot_time = Duration::from_millis(60);
    config.settings.script_delay = Duration::from_millis(20);
    config.settings.off_delay = Duration::from_millis(10);
    config.settings.confirm_delay = Duration::from_millis(10);
    config.settings.boot_retry_delay = Duration::from_millis(20);
    config.settings.report_backoff_scale = 0.005;
    start(config).await
}

async fn start(config: SiteConfig) -> (Site, Client) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let site = Site::start(config).await.unwrap();
    (site, Client::builder().no_proxy().build().unwrap())
}

async fn within<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("it never happened")
}

async fn eventually(site: &Site, holds: impl Fn(&SiteHandle) -> bool) {
    within(site.wait_until(holds)).await;
}

async fn json(response: Response) -> Value {
    response.json().await.unwrap()
}

async fn get(client: &Client, url: String) -> Response {
    client.get(url).send().await.unwrap()
}

async fn post(client: &Client, url: String, body: Value) -> Response {
    client.post(url).json(&body).send().await.unwrap()
}

async fn transition(site: &Site, client: &Client, operation: &str, xnames: &[&str]) -> String {
    let location: Vec<Value> = xnames.iter().map(|x| json!({"xname": x})).collect();
    let body = json!({"operation": operation, "taskDeadlineMinutes": 1, "location": location});
    let response = post(client, format!("{}/v1/transitions", site.urls().pcs), body).await;
    assert_eq!(response.status(), 200);
    json(response).await["transitionID"].as_str().unwrap().to_owned()
}

/// Follows a transition until it has ended.
async fn followed(site: &Site, client: &Client, id: &str) -> Value {
    within(async {
        loop {
            let value = json(get(client, format!("{}/transitions/{id}", site.urls().pcs)).await).await;
            if matches!(value["transitionStatus"].as_str(), Some("completed" | "aborted")) {
                return value;
            }
        }
    })
    .await
}

async fn put_parameters(site: &Site, client: &Client, hosts: &[&str]) -> String {
    let base = format!("s3://boot-images/{IMAGE}");
    let body = json!({"hosts": hosts, "kernel": format!("{base}/kernel"), "initrd": format!("{base}/initrd"),
        "params": "console=ttyS0,115200 bos_update_frequency=4h"});
    let response = client.put(format!("{}/bootparameters", site.urls().bss)).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let token = response.headers()["bss-referral-token"].to_str().unwrap().to_owned();
    assert_eq!(response.text().await.unwrap(), "");
    token
}

async fn want_configuration(site: &Site, client: &Client, xname: &str) {
    let body = json!({"patch": {"enabled": false, "desired_config": "cos-3.3.12", "state": [], "tags": {"bos_session": "s1"}}, "filters": {"ids": xname}});
    let response = client.patch(format!("{}/components", site.urls().cfs)).json(&body).send().await.unwrap();
    assert_eq!(json(response).await, json!({"component_ids": [xname]}));
}

/// A report endpoint that refuses the first reports of all nodes.
async fn operator(refusals: usize) -> (String, mpsc::UnboundedReceiver<(String, Value)>) {
    type Shared = Arc<(AtomicUsize, mpsc::UnboundedSender<(String, Value)>)>;
    async fn take(State(shared): State<Shared>, Path(xname): Path<String>, body: String) -> StatusCode {
        let left = shared.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_ok() {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        shared.1.send((xname, serde_json::from_str(&body).unwrap())).unwrap();
        StatusCode::OK
    }
    let (send, receive) = mpsc::unbounded_channel();
    let shared: Shared = Arc::new((AtomicUsize::new(refusals), send));
    let routes = Router::new().route("/apis/bos/v2/components/{xname}", patch(take)).with_state(shared);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (url, receive)
}

fn events(site: &Site, xname: &str) -> Vec<PowerEvent> {
    site.history(xname).into_iter().map(|r| r.event).collect()
}

#[tokio::test]
async fn a_node_boots_reports_and_is_configured() {
    let (site, client) = site().await;
    let (url, mut reports) = operator(3).await;
    site.set_operator_url(url);
    want_configuration(&site, &client, NODE).await;
    let token = put_parameters(&site, &client, &[NODE]).await;
    let id = transition(&site, &client, "On", &[NODE]).await;
    let (xname, body) = within(reports.recv()).await.unwrap();
    assert_eq!((xname.as_str(), body), (NODE, json!({"id": NODE, "actual_state": {"bss_token": token}})));
    eventually(&site, |s| s.node(NODE).is_some_and(|n| n.reports == 1 && n.cfs_status.as_deref() == Some("configured"))).await;
    let node = site.node(NODE).unwrap();
    assert!(node.power && node.up && node.cfs_enabled);
    assert_eq!(node.kernel.unwrap(), format!("s3://boot-images/{IMAGE}/kernel"));
    let params = node.params.unwrap();
    for word in [format!("xname={NODE}"), "nid=1".into(), format!("bss_referral_token={token}"), "ds=nocloud-net".into()] {
        assert!(params.contains(&word), "{word} is not in {params}");
    }
    let events = events(&site, NODE);
    let first = |e: &PowerEvent| events.iter().position(|have| have == e).unwrap_or_else(|| panic!("no {e:?} in {events:?}"));
    let order = [
        first(&PowerEvent::OnRequested { by: id.clone() }),
        first(&PowerEvent::PoweredOn),
        first(&PowerEvent::ScriptFetched { token: Some(token.clone()) }),
        first(&PowerEvent::ReportFailed { status: Some(503) }),
        first(&PowerEvent::ReportAcknowledged { token }),
    ];
    assert!(order.is_sorted(), "{events:?}");
    assert_eq!(site.power_cycles(NODE), 0);
    let ended = followed(&site, &client, &id).await;
    assert_eq!(ended["tasks"][0]["taskStatusDescription"], "Transition confirmed, on");
    let history = json(get(&client, format!("{}/endpoint-history?name={NODE}&endpoint=bootscript", site.urls().bss)).await).await;
    assert!(history[0]["last_epoch"].as_i64().unwrap() > 0, "{history}");
}

#[tokio::test]
async fn a_node_without_parameters_tries_until_there_are_some() {
    let (site, client) = site().await;
    transition(&site, &client, "On", &[NODE]).await;
    eventually(&site, |s| s.history(NODE).iter().any(|r| matches!(r.event, PowerEvent::BootFailed { .. }) && r.repeats > 1)).await;
    put_parameters(&site, &client, &[NODE]).await;
    eventually(&site, |s| s.node(NODE).is_some_and(|n| n.up)).await;
}

#[tokio::test]
async fn a_node_does_not_boot_an_image_that_is_not_there() {
    let (site, client) = site().await;
    assert!(site.remove_object("boot-images", &format!("{IMAGE}/initrd")));
    put_parameters(&site, &client, &[NODE]).await;
    transition(&site, &client, "On", &[NODE]).await;
    eventually(&site, |s| {
        s.history(NODE).iter().any(|r| matches!(&r.event, PowerEvent::BootFailed { reason } if reason.ends_with("initrd: NoSuchKey")))
    })
    .await;
    assert!(!site.node(NODE).unwrap().up);
}

#[tokio::test]
async fn hsm_answers_like_hsm() {
    let (site, client) = site().await;
    let base = site.urls().hsm.clone();
    let all = json(get(&client, format!("{base}/State/Components?type=node&enabled=True&nonsense=1")).await).await;
    let components = all["Components"].as_array().unwrap();
    assert_eq!(components.len(), 8);
    assert_eq!(components[0]["Enabled"], true);
    for absent in ["Locked", "SubRole", "ReservationDisabled"] {
        assert!(components[0].get(absent).is_none(), "{absent}");
    }
    let find = async |query: &str| {
        json(get(&client, format!("{base}/State/Components?{query}")).await).await["Components"].as_array().unwrap().len()
    };
    assert_eq!(find("id=X1000C0S00B0N0").await, 1);
    assert_eq!(find("id=x9c0s0b0n0").await, 0);
    assert_eq!(find("type=Node&group=nobody").await, 0);
    assert_eq!(find("type=Node&role=!Compute").await, 0);
    assert_eq!(get(&client, format!("{base}/State/Components?type=nonsense")).await.status(), 400);
    assert_eq!(get(&client, format!("{base}/State/Components/nonsense")).await.status(), 404);

    let ask = async |body: Value| post(&client, format!("{base}/State/Components/Query"), body).await;
    assert_eq!(
        json(ask(json!({"ComponentIDs": [NODE, NODE, "garbage"], "enabled": ["True"]})).await).await["Components"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(ask(json!({"ComponentIDs": [NODE], "enabled": [true]})).await.status(), 500);
    assert_eq!(ask(json!({"ComponentIDs": []})).await.status(), 400);
    assert!(json(ask(json!({"ComponentIDs": ["all"], "type": ["Node"]})).await).await["Components"].as_array().unwrap().len() == 8);

    assert_eq!(json(get(&client, format!("{base}/groups")).await).await, json!([]));
    site.set_group("blue", &[NODE]);
    assert_eq!(json(get(&client, format!("{base}/groups")).await).await[0]["members"]["ids"], json!([NODE]));
    assert_eq!(get(&client, format!("{base}/groups?partition=p9")).await.status(), 400);
    site.configure(|s| s.missing_groups = vec!["blue".into()]);
    assert_eq!(json(get(&client, format!("{base}/groups")).await).await, json!([]));

    assert_eq!(json(get(&client, format!("{base}/locks/status?type=Node&locked=True")).await).await, json!({"Components": []}));
    site.set_locked(&[NODE], true);
    let locked = json(get(&client, format!("{base}/locks/status?type=Node&locked=True")).await).await;
    assert_eq!(locked["Components"], json!([{"ID": NODE, "Locked": true, "Reserved": false, "ReservationDisabled": false}]));
    assert_eq!(get(&client, format!("{base}/locks/status?locked=maybe")).await.status(), 500);
    site.set_locked(&[NODE], false);
    site.configure(|s| s.old_locks_status = true);
    assert_eq!(get(&client, format!("{base}/locks/status?locked=True")).await.status(), 400);
    let unknown = get(&client, format!("{base}/nonsense")).await;
    assert_eq!((unknown.status().as_u16(), unknown.headers()["content-type"].to_str().unwrap()), (404, "text/plain; charset=utf-8"));
}

#[tokio::test]
async fn hsm_may_show_half_or_nothing() {
    let (site, client) = site().await;
    let count = async || {
        json(get(&client, format!("{}/State/Components?type=Node", site.urls().hsm)).await).await["Components"].as_array().unwrap().len()
    };
    site.configure(|s| s.inventory = Inventory::Half);
    assert_eq!(count().await, 4);
    site.configure(|s| s.inventory = Inventory::Empty);
    assert_eq!(count().await, 0);
    site.configure(|s| s.inventory = Inventory::Full);
    site.set_faults(&[NODE], &Faults { missing_from_hsm: true, ..Faults::default() });
    assert_eq!(count().await, 7);
}

#[tokio::test]
async fn pcs_accepts_everything_and_tells_it_in_the_tasks() {
    let (site, client) = site().await;
    site.set_locked(&[OTHER], true);
    let id = transition(&site, &client, "on", &[NODE, OTHER, "x9c0s0b0n0", "zzz", "x3000"]).await;
    let ended = followed(&site, &client, &id).await;
    let task = |at: usize| (ended["tasks"][at]["taskStatus"].as_str().unwrap(), ended["tasks"][at]["error"].as_str().unwrap_or(""));
    assert_eq!(task(0), ("succeeded", ""));
    assert_eq!(task(1), ("failed", "Unable to reserve component"));
    assert_eq!(task(2), ("failed", "Missing xname"));
    assert_eq!(task(3), ("failed", "Invalid xname"));
    assert_eq!(task(4), ("unsupported", "No power control for component type Cabinet"));
    assert_eq!(ended["taskCounts"], json!({"total": 5, "new": 0, "in-progress": 0, "failed": 3, "succeeded": 1, "un-supported": 1}));
    let again = transition(&site, &client, "On", &[NODE]).await;
    let again = followed(&site, &client, &again).await;
    assert_eq!(again["tasks"][0]["taskStatusDescription"], "Component already in desired state");
    let empty = transition(&site, &client, "On", &[]).await;
    assert!(followed(&site, &client, &empty).await.get("tasks").is_none());

    let url = format!("{}/transitions", site.urls().pcs);
    assert_eq!(post(&client, url.clone(), json!({"operation": "Sideways", "location": []})).await.status(), 400);
    assert_eq!(get(&client, format!("{url}/not-a-uuid")).await.status(), 400);
    assert_eq!(get(&client, format!("{url}/11111111-2222-3333-4444-555555555555")).await.status(), 404);
    let wrong = client.put(url).send().await.unwrap();
    assert_eq!((wrong.status().as_u16(), wrong.text().await.unwrap().as_str()), (405, ""));
}

#[tokio::test]
async fn pcs_holds_its_nodes_until_the_slowest_task_ends() {
    let (site, client) = site().await;
    site.configure(|s| s.task_minute = Duration::from_millis(400));
    site.set_state(&[NODE, OTHER], &InitialState::OnUnknown);
    site.set_faults(&[OTHER], &Faults { ignores_soft_off: true, ..Faults::default() });
    let slow = transition(&site, &client, "Soft-Off", &[NODE, OTHER]).await;
    eventually(&site, |s| s.node(NODE).is_some_and(|n| !n.power)).await;
    assert!(site.node(NODE).unwrap().reserved);
    let early = transition(&site, &client, "On", &[NODE]).await;
    assert_eq!(followed(&site, &client, &early).await["tasks"][0]["error"], "Unable to reserve component");
    let ended = followed(&site, &client, &slow).await;
    assert_eq!(ended["tasks"][0]["taskStatus"], "succeeded");
    assert_eq!(ended["tasks"][1]["error"], "Timeout waiting for transition, gracefulshutdown.");
    assert!(!site.node(NODE).unwrap().reserved);
    let late = transition(&site, &client, "On", &[NODE]).await;
    assert_eq!(followed(&site, &client, &late).await["tasks"][0]["taskStatus"], "succeeded");
    assert_eq!((site.power_cycles(NODE), site.power_cycles(OTHER)), (1, 0));
    let off = transition(&site, &client, "Force-Off", &[OTHER]).await;
    assert_eq!(followed(&site, &client, &off).await["tasks"][0]["taskStatusDescription"], "Transition confirmed, off");
    assert_eq!(site.power_offs(OTHER), 1);
}

#[tokio::test]
async fn power_status_is_lower_case_and_strict_about_names() {
    let (site, client) = site().await;
    site.set_faults(&[OTHER], &Faults { bmc_undefined: true, ..Faults::default() });
    let ask = async |xnames: Value| post(&client, format!("{}/v1/power-status", site.urls().pcs), json!({"xname": xnames})).await;
    let status = json(ask(json!([NODE, NODE, OTHER, "x9c0s0b0n0"])).await).await;
    let list = status["status"].as_array().unwrap();
    let view = |xname: &str| {
        let e = list.iter().find(|e| e["xname"] == xname).unwrap();
        (
            e["powerState"].as_str().unwrap().to_owned(),
            e["managementState"].as_str().unwrap().to_owned(),
            e["error"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(list.len(), 3);
    assert_eq!(view(NODE), ("off".into(), "available".into(), String::new()));
    assert_eq!(view(OTHER), ("undefined".into(), "unavailable".into(), String::new()));
    assert_eq!(view("x9c0s0b0n0"), (String::new(), String::new(), "Component not found in component map.".into()));
    assert_eq!(json(ask(json!([])).await).await["status"].as_array().unwrap().len(), 8);
    for bad in ["garbage", "X1000c0s0b0n0", "x1000c0s00b0n0"] {
        let refused = ask(json!([NODE, bad])).await;
        assert_eq!(refused.status(), 400);
        assert_eq!(json(refused).await["detail"], format!("invalid xnames detected: {bad}"));
    }
}

#[tokio::test]
async fn power_status_lags_behind_when_pcs_samples() {
    let (site, client) = site().await;
    site.configure(|s| s.sample_interval = Duration::from_secs(3600));
    site.power(&[NODE], true);
    let body = json!({"xname": [NODE]});
    let status = json(post(&client, format!("{}/power-status", site.urls().pcs), body).await).await;
    assert_eq!(status["status"][0]["powerState"], "off");
    assert!(site.node(NODE).unwrap().power);
}

#[tokio::test]
async fn bss_answers_like_bss() {
    let (site, client) = site().await;
    let url = format!("{}/bootparameters", site.urls().bss);
    assert_eq!(json(get(&client, url.clone()).await).await, Value::Null);
    assert_eq!(get(&client, format!("{url}?name={NODE}")).await.status(), 404);
    let first = put_parameters(&site, &client, &[NODE, "any-string"]).await;
    let second = put_parameters(&site, &client, &[NODE]).await;
    assert_ne!(first, second);
    assert_eq!(site.bss_token("any-string").as_ref(), Some(&first));
    assert_eq!(site.bss_token(NODE).as_ref(), Some(&second));
    let read = get(&client, format!("{url}?name={NODE},{OTHER}")).await.text().await.unwrap();
    assert!(!read.contains(&second) && read.contains("cloud-init"), "{read}");
    assert_eq!(serde_json::from_str::<Value>(&read).unwrap().as_array().unwrap().len(), 1);
    let nobody = client.put(url.clone()).json(&json!({"hosts": []})).send().await.unwrap();
    assert_eq!((nobody.status().as_u16(), nobody.headers().get("bss-referral-token")), (200, None));
    let merged = client
        .patch(url.clone())
        .json(&json!({"hosts": [NODE], "params": "quiet initrd_x=1 bss_referral_token=mine"}))
        .send()
        .await
        .unwrap();
    assert_eq!((merged.status().as_u16(), merged.headers().get("bss-referral-token")), (200, None));
    let script = get(&client, format!("{}/bootscript?name={NODE}", site.urls().bss)).await.text().await.unwrap();
    assert!(script.starts_with("#!ipxe\n") && script.contains("bss_referral_token=mine"), "{script}");
    assert!(!script.contains(&second) && !script.contains("initrd_x=1"), "{script}");
    assert_eq!(client.put(url.clone()).body("{").send().await.unwrap().status(), 400);
    let exists = post(&client, url.clone(), json!({"hosts": [NODE]})).await;
    assert_eq!(
        (exists.status().as_u16(), json(exists).await["detail"].as_str().unwrap()),
        (400, format!("Already exists: {NODE}").as_str())
    );
    assert_eq!(client.delete(url.clone()).json(&json!({"hosts": [NODE]})).send().await.unwrap().status(), 200);
    assert_eq!(client.delete(url).json(&json!({"hosts": [NODE]})).send().await.unwrap().status(), 400);
    assert_eq!(get(&client, format!("{}/nonsense", site.urls().bss)).await.text().await.unwrap(), "Hello World!");
}

#[tokio::test]
async fn bss_may_stop_in_the_middle() {
    let (site, client) = site().await;
    site.configure(|s| s.bss_put_stops_at = vec![OTHER.into()]);
    let body = json!({"hosts": [NODE, OTHER, "x1000c0s0b1n0"], "kernel": "k", "initrd": "i", "params": "p"});
    let response = client.put(format!("{}/bootparameters", site.urls().bss)).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert!(site.bss_token(NODE).is_some() && site.bss_token(OTHER).is_none() && site.bss_token("x1000c0s0b1n0").is_none());
}

#[tokio::test]
async fn cfs_answers_like_cfs() {
    let (site, client) = site().await;
    let url = format!("{}/components", site.urls().cfs);
    let page = json(get(&client, format!("{url}?limit=3")).await).await;
    assert_eq!((page["components"].as_array().unwrap().len(), &page["next"]["limit"]), (3, &json!(3)));
    let after = page["next"]["after_id"].as_str().unwrap();
    let rest = json(get(&client, format!("{url}?limit=5&after_id={after}")).await).await;
    assert_eq!((rest["components"].as_array().unwrap().len(), &rest["next"]), (5, &Value::Null));
    let one = json(get(&client, format!("{url}?ids={NODE},unknown")).await).await["components"].clone();
    assert_eq!(one, json!([{"id": NODE, "desired_config": "", "configuration_status": "unconfigured", "enabled": true, "error_count": 0}]));
    for bad in ["limit=0", "status=nonsense", "enabled=maybe"] {
        assert_eq!(get(&client, format!("{url}?{bad}")).await.status(), 400, "{bad}");
    }
    let change = async |body: Value| client.patch(&url).json(&body).send().await.unwrap();
    let by_filter = change(json!({"patch": {"desired_config": "cos-3.3.12"}, "filters": {"ids": format!("{NODE},unknown")}})).await;
    assert_eq!(json(by_filter).await, json!({"component_ids": [NODE]}));
    assert_eq!(change(json!([{"id": OTHER, "enabled": false}, {"id": "unknown", "enabled": false}])).await.status(), 404);
    assert!(site.node(OTHER).unwrap().cfs_enabled, "the list form is all or nothing");
    assert_eq!(change(json!([])).await.status(), 500);
    assert_eq!(change(json!({"patch": {}})).await.status(), 400);
    assert_eq!(change(json!({"patch": {"nonsense": 1}, "filters": {"ids": NODE}})).await.status(), 400);
    assert_eq!(change(json!({"patch": {}, "filters": {"ids": [NODE]}})).await.status(), 400);
    let stale = json(client.patch(format!("{url}/{NODE}")).json(&json!({"desired_config": "nowhere"})).send().await.unwrap()).await;
    assert_eq!(stale["configuration_status"], "unconfigured");
    let everyone = json(change(json!({"patch": {"tags": {"a": "b"}}, "filters": {"ids": ""}})).await).await;
    assert_eq!(everyone["component_ids"].as_array().unwrap().len(), 8);
    assert_eq!(get(&client, format!("{}/configurations/cos-3.3.12", site.urls().cfs)).await.status(), 200);
    assert_eq!(get(&client, format!("{}/configurations/nowhere", site.urls().cfs)).await.status(), 404);
    let long = client.get(format!("{url}?ids={}", "x".repeat(17_000))).send().await;
    assert!(long.is_err(), "the request line is too long for this service");
}

#[tokio::test]
async fn cfs_fails_and_waits_as_told() {
    let (site, client) = site().await;
    site.set_state(&[NODE, OTHER], &InitialState::OnUnknown);
    site.set_faults(&[NODE], &Faults { cfs_fails: true, ..Faults::default() });
    site.set_faults(&[OTHER], &Faults { cfs_pending: true, ..Faults::default() });
    let body = json!([{"id": NODE, "desired_config": "cos-3.3.12"}, {"id": OTHER, "desired_config": "cos-3.3.12"}]);
    assert_eq!(client.patch(format!("{}/components", site.urls().cfs)).json(&body).send().await.unwrap().status(), 200);
    eventually(&site, |s| s.node(NODE).is_some_and(|n| n.cfs_status.as_deref() == Some("failed"))).await;
    assert_eq!(site.node(OTHER).unwrap().cfs_status.as_deref(), Some("pending"));
    site.set_faults(&[OTHER], &Faults::default());
    eventually(&site, |s| s.node(OTHER).is_some_and(|n| n.cfs_status.as_deref() == Some("configured"))).await;
    site.set_faults(&[OTHER], &Faults { missing_from_cfs: true, ..Faults::default() });
    assert_eq!(get(&client, format!("{}/components/{OTHER}", site.urls().cfs)).await.status(), 404);
}

#[tokio::test]
async fn ims_keeps_metadata() {
    let (site, client) = site().await;
    let url = format!("{}/images", site.urls().ims);
    let image = json(get(&client, format!("{url}/{IMAGE}")).await).await;
    assert_eq!(
        (image["arch"].as_str(), image["link"]["path"].as_str()),
        (Some("x86_64"), Some(&*format!("s3://boot-images/{IMAGE}/manifest.json")))
    );
    let tag = async |operation: &str| {
        let body = json!({"metadata": {"operation": operation, "key": "sbps-project", "value": "true"}});
        client.patch(format!("{url}/{IMAGE}")).json(&body).send().await.unwrap()
    };
    assert_eq!(tag("set").await.status(), 200);
    assert_eq!(site.image_metadata(IMAGE, "sbps-project").as_deref(), Some("true"));
    assert_eq!(tag("remove").await.status(), 200);
    assert_eq!(tag("remove").await.status(), 200);
    let bad = tag("paint").await;
    assert_eq!(bad.status(), 422);
    let bad = json(bad).await;
    assert!(bad.get("type").is_none() && bad["errors"].is_object(), "{bad}");
    let unknown = get(&client, format!("{url}/nonsense")).await;
    assert_eq!(unknown.status(), 404);
}

fn signed(site: &Site, secret: &str, key: &str) -> reqwest::Url {
    let endpoint = site.urls().s3.parse().unwrap();
    let bucket = Bucket::new(endpoint, UrlStyle::Path, "boot-images", "default").unwrap();
    let credentials = Credentials::new(&site.urls().s3_access_key, secret);
    bucket.get_object(Some(&credentials), key).sign(Duration::from_secs(60))
}

#[tokio::test]
async fn s3_checks_signatures() {
    let (site, client) = site().await;
    let secret = site.urls().s3_secret_key.clone();
    let key = format!("{IMAGE}/manifest.json");
    let good = client.get(signed(&site, &secret, &key)).send().await.unwrap();
    assert_eq!(good.status(), 200);
    assert!(good.headers()["etag"].to_str().unwrap().starts_with('"'));
    assert_eq!(json(good).await["artifacts"].as_array().unwrap().len(), 4);
    let odd = "odd/a key+with=signs&more.json";
    site.put_object("boot-images", odd, "odd");
    assert_eq!(client.get(signed(&site, &secret, odd)).send().await.unwrap().text().await.unwrap(), "odd");
    let missing = client.get(signed(&site, &secret, "nothing")).send().await.unwrap();
    assert_eq!(missing.status(), 404);
    assert!(missing.text().await.unwrap().contains("<Code>NoSuchKey</Code>"));
    let forged = client.get(signed(&site, "other-secret", &key)).send().await.unwrap();
    assert_eq!(forged.status(), 403);
    assert!(forged.text().await.unwrap().contains("<Code>SignatureDoesNotMatch</Code>"));
    let mut moved = signed(&site, &secret, &key);
    moved.set_path(&format!("/boot-images/{IMAGE}/kernel"));
    assert_eq!(client.get(moved).send().await.unwrap().status(), 403);
    let bare = client.get(format!("{}/boot-images/{key}", site.urls().s3)).send().await.unwrap();
    assert_eq!(bare.status(), 403);
    let endpoint = site.urls().s3.parse().unwrap();
    let bucket = Bucket::new(endpoint, UrlStyle::Path, "nowhere", "default").unwrap();
    let credentials = Credentials::new(&site.urls().s3_access_key, &secret);
    let head = bucket.head_object(Some(&credentials), "k").sign(Duration::from_secs(60));
    let head = client.head(head).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.text().await.unwrap().as_str()), (404, ""));
}

#[tokio::test]
async fn images_can_be_broken() {
    let (site, client) = site().await;
    let secret = site.urls().s3_secret_key.clone();
    let read = async |defect: ImageDefect| {
        let id = format!("broken-{defect:?}");
        site.add_image(&ImageSpec { id: id.clone(), defect: Some(defect), ..ImageSpec::default() });
        client.get(signed(&site, &secret, &format!("{id}/manifest.json"))).send().await.unwrap()
    };
    assert_eq!(read(ImageDefect::NoManifest).await.status(), 404);
    assert!(serde_json::from_str::<Value>(&read(ImageDefect::BadJson).await.text().await.unwrap()).is_err());
    assert!(read(ImageDefect::HugeManifest).await.bytes().await.unwrap().len() > 1024 * 1024);
    let kernels = async |defect| {
        let manifest = json(read(defect).await).await;
        manifest["artifacts"].as_array().unwrap().iter().filter(|a| a["type"] == "application/vnd.cray.image.kernel").count()
    };
    assert_eq!(kernels(ImageDefect::NoKernel).await, 0);
    assert_eq!(kernels(ImageDefect::DuplicateKernel).await, 2);
    assert_eq!(kernels(ImageDefect::MissingKernelObject).await, 1);
    assert_eq!(client.get(signed(&site, &secret, "broken-MissingKernelObject/kernel")).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn outages_of_every_kind() {
    let (site, client) = site().await;
    let url = format!("{}/State/Components", site.urls().hsm);
    let during = async |kind: OutageKind| {
        let id = site.add_outage(OutageSpec::new(Service::Hsm, kind));
        let answer = client.get(&url).send().await;
        assert!(site.clear_outage(id));
        answer
    };
    for (kind, status) in
        [(OutageKind::Unavailable, 503), (OutageKind::InternalError, 500), (OutageKind::StoreDown, 500), (OutageKind::Forbidden, 403)]
    {
        assert_eq!(during(kind).await.unwrap().status(), status, "{kind:?}");
    }
    for kind in [OutageKind::Garbage, OutageKind::Html, OutageKind::Empty] {
        let answer = during(kind).await.unwrap();
        assert_eq!(answer.status(), 200, "{kind:?}");
        assert!(answer.json::<Value>().await.is_err(), "{kind:?}");
    }
    assert!(json(during(OutageKind::WrongShape).await.unwrap()).await.get("Components").is_none());
    for kind in [OutageKind::Reset, OutageKind::LostAnswer] {
        assert!(during(kind).await.is_err(), "{kind:?}");
        assert_eq!(get(&client, url.clone()).await.status(), 200, "after {kind:?}");
    }
    let outage = site.add_outage(OutageSpec::new(Service::Hsm, OutageKind::Refuse));
    eventually_refused(&url).await;
    site.clear_outage(outage);
    within(async { while client.get(&url).send().await.is_err() {} }).await;
    let text = async |service: Service, url: String, method: &str| {
        let id = site.add_outage(OutageSpec::new(service, OutageKind::StoreDown));
        let answer = client.request(method.parse().unwrap(), url).json(&json!({"hosts": [NODE]})).send().await.unwrap();
        site.clear_outage(id);
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, body) = text(Service::Bss, format!("{}/bootparameters", site.urls().bss), "PUT").await;
    assert!(status == 400 && body.contains("No data"), "{status} {body}");
    let (status, body) = text(Service::Cfs, format!("{}/components", site.urls().cfs), "GET").await;
    assert!(status == 503 && body.contains("Unable to connect to the Redis database"), "{status} {body}");
    let (status, body) = text(Service::S3, format!("{}/boot-images/x", site.urls().s3), "GET").await;
    assert!(status == 500 && body.contains("<Code>InternalError</Code>"), "{status} {body}");
}

/// New connections are refused, not only reset.
async fn eventually_refused(url: &str) {
    within(async {
        loop {
            let fresh = Client::builder().no_proxy().build().unwrap();
            if fresh.get(url).send().await.is_err_and(|e| e.is_connect()) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn outages_are_limited_by_count_path_and_method() {
    let (site, client) = site().await;
    let url = format!("{}/v1/power-status", site.urls().pcs);
    site.add_outage(OutageSpec::new(Service::Pcs, OutageKind::Unavailable).on_path("/power-status").on_method("POST").times(2));
    let transitions = format!("{}/v1/transitions", site.urls().pcs);
    assert_eq!(get(&client, transitions).await.status(), 200);
    assert_eq!(get(&client, url.clone()).await.status(), 200);
    for expected in [503, 503, 200] {
        assert_eq!(post(&client, url.clone(), json!({})).await.status(), expected);
    }
}

#[tokio::test]
async fn a_hanging_service_lets_go_when_the_outage_ends() {
    let (site, client) = site().await;
    let id = site.add_outage(OutageSpec::new(Service::Hsm, OutageKind::Hang));
    let url = format!("{}/groups", site.urls().hsm);
    let asked = tokio::spawn(client.get(url).send());
    within(async {
        while site.outages()[0].hits == 0 {
            tokio::task::yield_now().await
        }
    })
    .await;
    assert_eq!(site.calls(&CallFilter::service(Service::Hsm))[0].outcome, CallOutcome::Pending);
    site.clear_outage(id);
    assert!(within(asked).await.unwrap().is_err());
    assert_eq!(site.calls(&CallFilter::service(Service::Hsm))[0].outcome, CallOutcome::Dropped);
}

#[tokio::test]
async fn a_hook_holds_a_request_before_it_is_processed() {
    let (site, client) = site().await;
    let mut hook = site.on(Match::new(Service::Pcs, "POST").path("/transitions").body("\"On\""), When::Before);
    transition(&site, &client, "Soft-Off", &[NODE]).await;
    let body = json!({"operation": "On", "location": [{"xname": NODE}]});
    let asked = tokio::spawn(client.post(format!("{}/v1/transitions", site.urls().pcs)).json(&body).send());
    let held = within(hook.reached()).await.unwrap();
    assert_eq!((held.call.operation.as_deref(), held.call.nodes.as_slice()), (Some("On"), &[NODE.to_owned()][..]));
    let seq = held.call.seq;
    held.abandon();
    assert!(within(asked).await.unwrap().is_err());
    let call = site.calls(&CallFilter { since: Some(seq - 1), ..CallFilter::default() }).remove(0);
    assert!(!call.processed && call.outcome == CallOutcome::Dropped, "{call:?}");
    assert!(!events(&site, NODE).iter().any(|e| matches!(e, PowerEvent::OnRequested { .. })));
}

#[tokio::test]
async fn a_hook_withholds_the_answer_of_the_nth_request() {
    let (site, client) = site().await;
    let mut hook = site.on(Match::new(Service::Bss, "PUT").nth(2), When::AnswerWithheld);
    put_parameters(&site, &client, &[NODE]).await;
    let body = json!({"hosts": [OTHER], "kernel": "k"});
    let asked = tokio::spawn(client.put(format!("{}/bootparameters", site.urls().bss)).json(&body).send());
    let held = within(hook.reached()).await.unwrap();
    assert!(held.call.processed && site.bss_token(OTHER).is_some());
    held.release();
    assert_eq!(within(asked).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_client_that_has_gone_does_not_stop_the_service() {
    let (site, client) = site().await;
    site.configure(|s| s.service_mut(Service::Pcs).latency = Duration::from_millis(300));
    let body = json!({"operation": "On", "location": [{"xname": NODE}]});
    let url = format!("{}/v1/transitions", site.urls().pcs);
    let gone = client.post(url).json(&body).timeout(Duration::from_millis(50)).send().await;
    assert!(gone.unwrap_err().is_timeout());
    eventually(&site, |s| s.node(NODE).is_some_and(|n| n.power)).await;
    let call = site.calls(&CallFilter::service(Service::Pcs)).remove(0);
    assert!(call.processed && call.outcome == CallOutcome::Abandoned, "{call:?}");
}

#[tokio::test]
async fn the_log_counts_by_kind_and_names_the_nodes_of_writes() {
    let (site, client) = site().await;
    put_parameters(&site, &client, &[NODE, OTHER]).await;
    let id = transition(&site, &client, "On", &[NODE]).await;
    get(&client, format!("{}/transitions/{id}", site.urls().pcs)).await;
    let counts = site.call_counts();
    assert_eq!((counts[&Service::Bss], counts[&Service::Pcs]), (1, 2));
    assert_eq!(site.call_counts_by_kind()[&Service::Pcs]["GET /transitions/{id}"], 1);
    let writes = site.calls(&CallFilter { node: Some(OTHER.into()), ..CallFilter::default() });
    assert_eq!(writes.len(), 1);
    assert_eq!((writes[0].nodes.len(), writes[0].status), (2, Some(200)));
    site.clear_calls();
    assert!(site.calls(&CallFilter::default()).is_empty());
}

#[tokio::test]
async fn faulty_nodes_do_what_they_are_told() {
    let (site, client) = site().await;
    let (url, mut reports) = operator(0).await;
    site.set_operator_url(url);
    let names = site.xnames();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    site.set_faults(&[names[0]], &Faults { never_reports: true, ..Faults::default() });
    site.set_faults(&[names[1]], &Faults { never_powers_on: true, ..Faults::default() });
    site.set_faults(&[names[2]], &Faults { wrong_token: true, ..Faults::default() });
    site.set_faults(&[names[3]], &Faults { power_on_error: Some("Reservation expired".into()), ..Faults::default() });
    site.set_faults(&[names[4]], &Faults { never_boots: true, ..Faults::default() });
    let token = put_parameters(&site, &client, &names).await;
    site.configure(|s| s.task_minute = Duration::from_millis(200));
    let id = transition(&site, &client, "On", &names).await;
    let ended = followed(&site, &client, &id).await;
    assert_eq!(ended["tasks"][1]["error"], "Timeout waiting for transition, on.");
    assert_eq!(ended["tasks"][3]["error"], "Reservation expired");
    let mut told = Vec::new();
    for _ in 0..4 {
        let (xname, body) = within(reports.recv()).await.unwrap();
        told.push((xname, body["actual_state"]["bss_token"] == json!(token)));
    }
    told.sort();
    let right = |at: usize| (names[at].to_owned(), true);
    assert_eq!(told, [(names[2].to_owned(), false), right(5), right(6), right(7)]);
    eventually(&site, |s| s.node(names[0]).is_some_and(|n| n.up)).await;
    assert!(!site.node(names[1]).unwrap().power && !site.node(names[4]).unwrap().up);
    site.set_faults(&["all"], &Faults::default());
    site.report_now(&[names[0]]);
    assert_eq!(within(reports.recv()).await.unwrap().0, names[0]);
}

#[tokio::test]
async fn nodes_may_start_up_and_running() {
    let mut config = SiteConfig::with_nodes(2);
    config.blocks[0].initial = InitialState::On {
        token: Some("token-1".into()),
        image: IMAGE.into(),
        params: "quiet".into(),
        configuration: Some("cos-3.3.12".into()),
    };
    let (site, _) = start(config).await;
    let node = site.node(NODE).unwrap();
    assert!(node.power && node.up);
    assert_eq!((node.token.as_deref(), node.cfs_status.as_deref()), (Some("token-1"), Some("configured")));
    assert_eq!(site.bss_token(NODE).as_deref(), Some("token-1"));
    assert!(site.history(NODE).is_empty());
}

#[tokio::test]
async fn the_admin_listener_shows_and_changes_the_site() {
    let (site, client) = site().await;
    let admin = site.urls().admin.clone();
    let fault = post(&client, format!("{admin}/faults"), json!({"xnames": [NODE], "faults": {"neverBoots": true}})).await;
    assert_eq!(json(fault).await, json!({"nodes": 1}));
    assert!(site.node(NODE).unwrap().faults.never_boots);
    let bad = post(&client, format!("{admin}/faults"), json!({"xnames": [NODE], "faults": {"neverBoot": true}})).await;
    assert_eq!(bad.status(), 400);
    let outage = post(&client, format!("{admin}/outages"), json!({"service": "hsm", "kind": "unavailable", "for": 3600})).await;
    let id = json(outage).await["id"].clone();
    assert_eq!(get(&client, format!("{}/groups", site.urls().hsm)).await.status(), 503);
    assert_eq!(client.delete(format!("{admin}/outages/{id}")).send().await.unwrap().status(), 204);
    assert_eq!(get(&client, format!("{}/groups", site.urls().hsm)).await.status(), 200);
    let patch = client
        .patch(format!("{admin}/settings"))
        .json(&json!({"bootTime": 7.5, "services": {"bss": {"latency": 0.01}}}))
        .send()
        .await
        .unwrap();
    assert_eq!(patch.status(), 200);
    assert_eq!(site.settings().boot_time, Duration::from_millis(7500));
    let calls = json(get(&client, format!("{admin}/calls?service=hsm&status=503&limit=5")).await).await;
    assert_eq!(calls.as_array().unwrap().len(), 1);
    assert_eq!(json(get(&client, format!("{admin}/calls/counts")).await).await["services"], json!({"hsm": 2}));
    assert_eq!(json(post(&client, format!("{admin}/power"), json!({"xnames": ["all"], "on": true})).await).await, json!({"nodes": 8}));
    assert_eq!(json(get(&client, format!("{admin}/nodes/summary")).await).await["on"], 8);
    let history = json(get(&client, format!("{admin}/power-history?xname={NODE}")).await).await;
    assert_eq!(history[NODE][0]["event"], "on-requested");
    let group = client.put(format!("{admin}/groups/blue")).json(&json!([NODE])).send().await.unwrap();
    assert_eq!(group.status(), 200);
    assert_eq!(json(get(&client, format!("{}/groups/blue", site.urls().hsm)).await).await["members"]["ids"], json!([NODE]));
}

#[test]
fn the_configuration_file_refuses_misspelt_keys_and_round_trips() {
    let text = serde_json::to_string(&SiteConfig::default()).unwrap();
    assert_eq!(
        serde_json::to_value(serde_json::from_str::<SiteConfig>(&text).unwrap()).unwrap(),
        serde_json::from_str::<Value>(&text).unwrap()
    );
    assert!(serde_json::from_str::<SiteConfig>(r#"{"settings":{"bootTimes":1}}"#).is_err());
    let config: SiteConfig =
        serde_json::from_str(r#"{"blocks":[{"count":2,"initial":{"state":"on","image":"i"}},{"count":1,"cabinet":3000,"role":"Application","subRole":"UAN","arch":null}]}"#)
            .unwrap();
    assert_eq!((config.blocks.len(), config.blocks[1].arch.as_ref()), (2, None));
}
