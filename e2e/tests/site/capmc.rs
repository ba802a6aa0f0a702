//! CAPMC answers as the real one does: about a list as a whole.

use bos_e2e::site::{CallFilter, Faults, InitialState, OutageKind, OutageSpec, Service, Site};
use reqwest::{Client, Response};
use serde_json::{Value, json};

use super::{NODE, OTHER, body_of, eventually, get, post, site};

const THIRD: &str = "x1000c0s0b1n0";

async fn ask(site: &Site, client: &Client, body: Value) -> Response {
    post(client, format!("{}/get_xname_status", site.urls().capmc), body).await
}

async fn order(site: &Site, client: &Client, path: &str, xnames: &[&str], more: Value) -> (u16, Value) {
    let mut body = json!({"reason": "test", "xnames": xnames, "force": false, "recurse": false, "prereq": false});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = post(client, format!("{}/{path}", site.urls().capmc), body).await;
    (answer.status().as_u16(), body_of(answer).await)
}

fn refusal(code: u16, said: &str) -> (u16, Value) {
    (code, json!({"e": code, "err_msg": said}))
}

#[tokio::test]
async fn states_come_in_lists_and_one_bad_name_spoils_all() {
    let (site, client) = site().await;
    site.set_state(&[NODE], &InitialState::OnUnknown);
    site.set_faults(&[THIRD], &Faults { bmc_undefined: true, ..Faults::default() });
    let read = async |body: Value| {
        let answer = ask(&site, &client, body).await;
        (answer.status().as_u16(), body_of(answer).await)
    };
    let whole = json!({"filter": "show_all", "xnames": [NODE, OTHER, THIRD]});
    assert_eq!(read(whole).await, (200, json!({"e": 0, "err_msg": "", "on": [NODE], "off": [OTHER], "undefined": [THIRD]})));
    let on = read(json!({"filter": "show_on", "xnames": [NODE, OTHER]})).await;
    assert_eq!(on, (200, json!({"e": 0, "err_msg": "", "on": [NODE]})), "an empty list is left out");
    let by_hsm = read(json!({"filter": "show_all", "source": "hsm", "xnames": [NODE, OTHER]})).await;
    assert_eq!(by_hsm, (200, json!({"e": 0, "err_msg": "", "ready": [NODE], "off": [OTHER]})));
    assert_eq!(read(json!({"xnames": []})).await.1["off"].as_array().unwrap().len(), 6, "no name means all");
    site.set_faults(&[OTHER], &Faults { missing_from_pcs: true, ..Faults::default() });
    let odd = read(json!({"xnames": [NODE, OTHER]})).await.1;
    assert_eq!(odd, json!({"e": -1, "err_msg": "Errors encountered with 1/2 Xnames for Status", "on": [NODE], "undefined": [OTHER]}));

    site.set_enabled(&[OTHER], false);
    let spoilt = read(json!({"filter": "show_all", "xnames": [NODE, OTHER, "x9c0s0b0n0"]})).await;
    assert_eq!(spoilt, refusal(400, &format!("disabled or not found: [{OTHER} x9c0s0b0n0]")));
    let invalid = read(json!({"xnames": [NODE, NODE, "garbage"]})).await;
    assert_eq!(invalid, refusal(400, &format!("invalid/duplicate xnames: [{NODE} garbage]")));
    assert_eq!(read(json!({"filter": "show_some", "xnames": [NODE]})).await, refusal(400, "invalid filter string: show_some"));
    assert_eq!(read(json!({"source": "smell", "xnames": [NODE]})).await, refusal(400, "unknown status source 'smell'"));
    site.set_enabled(&["all"], false);
    assert_eq!(read(json!({})).await, refusal(404, "No matching components found"));
    let wrong = get(&client, format!("{}/get_xname_status", site.urls().capmc)).await;
    assert_eq!((wrong.status().as_u16(), body_of(wrong).await), refusal(405, "(GET) Not Allowed"));
    let gone = post(&client, format!("{}/node_on", site.urls().capmc), json!({})).await;
    assert_eq!((gone.status().as_u16(), gone.text().await.unwrap().as_str()), (404, "404 page not found\n"));
    let health = get(&client, format!("{}/health", site.urls().capmc)).await;
    assert!(health.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
}

#[tokio::test]
async fn orders_are_judged_as_a_whole() {
    let (site, client) = site().await;
    let bad = json!({"xname": "x9c0s0b0n0", "e": 22, "err_msg": "disabled or not found"});
    let with_bad = [NODE, "x9c0s0b0n0"];
    let refused = order(&site, &client, "xname_on", &with_bad, json!({})).await;
    assert_eq!(refused, (400, json!({"e": 22, "err_msg": "invalid argument", "xnames": [bad]})));
    assert!(!site.node(NODE).unwrap().power);
    let continued = order(&site, &client, "xname_on", &with_bad, json!({"continue": true})).await;
    assert_eq!(continued, (200, json!({"e": 0, "err_msg": "Errors encountered with 1/2 Xnames for On", "xnames": [bad]})));
    eventually(&site, |s| s.node(NODE).is_some_and(|n| n.power)).await;
    assert!(!site.node(NODE).unwrap().reserved, "CAPMC has given its reservation back");

    site.set_locked(&[OTHER], true);
    let held = order(&site, &client, "xname_off", &[NODE, OTHER], json!({"continue": true})).await;
    assert_eq!(held, (200, json!({"e": 37, "err_msg": "Error: Failed to reserve components while performing a Off."})));
    assert_eq!(site.power_offs(NODE), 0);
    site.set_locked(&[OTHER], false);
    site.set_enabled(&[OTHER], false);
    assert_eq!(
        order(&site, &client, "xname_off", &[NODE, OTHER], json!({})).await,
        refusal(400, &format!("components disabled: [{OTHER}]"))
    );
    assert_eq!(order(&site, &client, "xname_on", &[OTHER], json!({"continue": true})).await, refusal(404, "No nodes found to operate on"));
    site.set_enabled(&[OTHER], true);
    assert_eq!(order(&site, &client, "xname_on", &[], json!({})).await, refusal(400, "Bad Request: Required xnames list is empty"));
    let forced = json!({"force": true});
    assert_eq!(order(&site, &client, "xname_on", &[NODE], forced.clone()).await, refusal(400, "Cannot force the On operation"));
    assert_eq!(order(&site, &client, "xname_off", &[NODE], forced).await, (200, json!({"e": 0, "err_msg": ""})));
    eventually(&site, |s| s.power_offs(NODE) == 1).await;
    let operations: Vec<_> = site.calls(&CallFilter::service(Service::Capmc)).into_iter().filter_map(|call| call.operation).collect();
    assert_eq!((operations[0].as_str(), operations[2].as_str(), operations.last().unwrap().as_str()), ("On", "Soft-Off", "Force-Off"));
}

#[tokio::test]
async fn failures_at_pcs_are_counted_and_an_old_capmc_names_them() {
    let (site, client) = site().await;
    site.set_faults(&[OTHER], &Faults { power_on_error: Some("BMC says no".into()), ..Faults::default() });
    site.set_faults(&[THIRD], &Faults { bmc_undefined: true, ..Faults::default() });
    let all = [NODE, OTHER, THIRD];
    let on = async || order(&site, &client, "xname_on", &all, json!({"continue": true})).await;
    assert_eq!(on().await, (200, json!({"e": -1, "err_msg": "Errors encountered with 1/3 Xnames issued On"})));
    site.configure(|s| s.old_capmc = true);
    let named =
        json!([{"xname": THIRD, "e": -1, "err_msg": "NodeBMC Communication Error"}, {"xname": OTHER, "e": -1, "err_msg": "BMC says no"}]);
    let expected = json!({"e": -1, "err_msg": "Errors encountered with 2/3 Xnames issued On", "xnames": named});
    assert_eq!(on().await, (200, expected));
    site.set_enabled(&[NODE], false);
    assert_eq!(on().await, refusal(400, &format!("components disabled: [{NODE}]")), "even with continue");
}

#[tokio::test]
async fn it_says_with_a_good_status_that_pcs_is_away() {
    let (site, client) = site().await;
    site.add_outage(OutageSpec::new(Service::Capmc, OutageKind::StoreDown));
    let answer = ask(&site, &client, json!({"xnames": [NODE]})).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(body_of(answer).await, json!({"e": 500, "err_msg": "Error: Failed to send power request to PCS."}));
}
