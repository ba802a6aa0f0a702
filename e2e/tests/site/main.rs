//! The simulated site answers as the real services do, and its nodes live as real nodes do.

// Helpers outside of test functions may panic as well: a panic is how a test fails.
#![allow(clippy::unwrap_used)]

mod capmc;
mod nodes;
mod program;
mod services;
mod trouble;

use std::time::Duration;

use bos_e2e::site::{PowerEvent, Site, SiteConfig, SiteHandle};
use reqwest::{Client, Response};
use serde_json::{Value, json};

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

async fn body_of(response: Response) -> Value {
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
    body_of(response).await["transitionID"].as_str().unwrap().to_owned()
}

/// Follows a transition until it has ended.
async fn followed(site: &Site, client: &Client, id: &str) -> Value {
    within(async {
        loop {
            let value = body_of(get(client, format!("{}/transitions/{id}", site.urls().pcs)).await).await;
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
    assert_eq!(body_of(response).await, json!({"component_ids": [xname]}));
}

fn events(site: &SiteHandle, xname: &str) -> Vec<PowerEvent> {
    site.history(xname).into_iter().map(|r| r.event).collect()
}
