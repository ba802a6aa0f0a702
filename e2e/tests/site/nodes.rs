//! Virtual nodes boot, report and are configured, or fail to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::patch;
use bos_e2e::site::{Faults, InitialState, PowerEvent, SiteConfig};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{IMAGE, NODE, body_of, events, eventually, followed, get, put_parameters, site, start, transition, want_configuration, within};

type Reports = mpsc::UnboundedReceiver<(String, Value)>;

/// A report endpoint that refuses the first reports it gets.
async fn operator(refusals: usize) -> (String, Reports) {
    operator_with(refusals, None).await
}

/// The same, with a `Retry-After` in its refusals.
async fn operator_with(refusals: usize, retry_after: Option<&'static str>) -> (String, Reports) {
    let (send, receive) = mpsc::unbounded_channel();
    let left = Arc::new(AtomicUsize::new(refusals));
    let take = move |Path(xname): Path<String>, body: String| async move {
        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            let headers: HeaderMap = retry_after.map(|s| (http::header::RETRY_AFTER, HeaderValue::from_static(s))).into_iter().collect();
            return (StatusCode::SERVICE_UNAVAILABLE, headers);
        }
        send.send((xname, serde_json::from_str(&body).unwrap())).unwrap();
        (StatusCode::OK, HeaderMap::new())
    };
    let routes = Router::new().route("/apis/bos/v2/components/{xname}", patch(take));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (url, receive)
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
    let history = body_of(get(&client, format!("{}/endpoint-history?name={NODE}&endpoint=bootscript", site.urls().bss)).await).await;
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
async fn reporters_come_again_when_the_operator_says() {
    let (site, client) = site().await;
    // With this scale the reporter's own back-off would take most of an hour.
    site.configure(|s| s.report_backoff_scale = 1000.0);
    let (url, mut reports) = operator_with(2, Some("0")).await;
    site.set_operator_url(url);
    put_parameters(&site, &client, &[NODE]).await;
    transition(&site, &client, "On", &[NODE]).await;
    assert_eq!(within(reports.recv()).await.unwrap().0, NODE);
    eventually(&site, |s| s.node(NODE).is_some_and(|n| n.reports == 1)).await;
    let refused = site.history(NODE).into_iter().find(|r| r.event == PowerEvent::ReportFailed { status: Some(503) }).unwrap();
    assert_eq!(refused.repeats, 2);
}

#[tokio::test]
async fn nodes_that_found_nobody_report_as_soon_as_somebody_listens() {
    let (site, client) = site().await;
    site.configure(|s| s.report_backoff_scale = 1000.0);
    put_parameters(&site, &client, &[NODE]).await;
    transition(&site, &client, "On", &[NODE]).await;
    eventually(&site, |s| events(s, NODE).contains(&PowerEvent::ReportFailed { status: None })).await;
    let (url, mut reports) = operator(0).await;
    site.set_operator_url(url);
    assert_eq!(within(reports.recv()).await.unwrap().0, NODE);
}
