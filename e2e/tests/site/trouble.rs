//! Outages, hooks and the call log.

use std::time::Duration;

use bos_e2e::site::{CallFilter, CallOutcome, Match, OutageKind, OutageSpec, PowerEvent, Service, When};
use reqwest::Client;
use serde_json::{Value, json};

use super::{NODE, OTHER, body_of, events, eventually, get, post, put_parameters, site, transition, within};

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
    assert!(body_of(during(OutageKind::WrongShape).await.unwrap()).await.get("Components").is_none());
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
