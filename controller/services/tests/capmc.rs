//! CAPMC: what is sent, and what is read from its answers, which judge a list of nodes as a whole.
#![allow(clippy::unwrap_used)] // helpers of tests may panic too

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::response::Response;
use bos_core::xname::Xname;
use bos_services::config::ServicesConfig;
use bos_services::{
    Clients, ErrorKind, NoObserver, Power, PowerOperation, PowerService, PowerStateSource, Reached, Reading, Requested, Service,
    TaskFailure, TaskState, TransitionId,
};
use common::{Recorder, Seen, answer, json, nobody, nodes, problem};

/// Every service is at this address, and power is switched by CAPMC.
fn config(url: &str) -> ServicesConfig {
    let mut config = common::config(url);
    config.power_service = PowerService::Capmc;
    config
}

fn capmc(url: &str) -> Arc<dyn Power> {
    Clients::new(&config(url), Arc::new(NoObserver)).unwrap().power
}

/// An answer of CAPMC.
fn said(status: u16, body: &str) -> Response {
    answer(status, "application/json", body)
}

fn body(seen: &Seen) -> serde_json::Value {
    serde_json::from_str(&seen.body).unwrap()
}

fn asked(seen: &Seen) -> Vec<Xname> {
    body(seen)["xnames"].as_array().unwrap().iter().map(|name| Xname::parse(name.as_str().unwrap()).unwrap()).collect()
}

fn undefined(detail: &str) -> Reading {
    Reading::Undefined { detail: detail.to_owned() }
}

fn failed(node: &Xname, error: &str, kind: TaskFailure) -> (Xname, TaskState) {
    (node.clone(), TaskState::Failed { error: error.to_owned(), kind })
}

fn taken() -> Requested {
    Requested::Taken { failed: vec![], note: String::new() }
}

/// What becomes of a power-on of three nodes that is answered so.
async fn power_on(status: u16, body: &'static str) -> (Vec<Xname>, Result<Requested, bos_services::ServiceError>) {
    let (_, server) = Recorder::start(move |seen| match seen.path.as_str() {
        "/xname_on" => said(status, body),
        _ => problem(500, "not asked for"),
    })
    .await;
    let nodes = nodes(3);
    let result = capmc(&server.url).request(PowerOperation::On, &nodes).await;
    (nodes, result)
}

#[tokio::test]
async fn the_orders_name_their_nodes_and_nothing_around_them() {
    let (recorder, server) = Recorder::start(|_| said(200, r#"{"e":0,"err_msg":""}"#)).await;
    let power = capmc(&format!("{}/capmc/v1/", server.url));
    assert_eq!((power.service(), power.rest()), (PowerService::Capmc, Duration::from_secs(45)));
    let nodes = nodes(2);
    for operation in [PowerOperation::On, PowerOperation::SoftOff, PowerOperation::ForceOff] {
        assert_eq!(power.request(operation, &nodes).await.unwrap(), taken());
    }
    let seen = recorder.seen();
    let orders: Vec<_> = seen.iter().map(|seen| (seen.path.as_str(), body(seen)["force"].as_bool().unwrap())).collect();
    assert_eq!(orders, [("/capmc/v1/xname_on", false), ("/capmc/v1/xname_off", false), ("/capmc/v1/xname_off", true)]);
    for seen in &seen {
        let sent = body(seen);
        assert!(sent["reason"].as_str().unwrap().starts_with("bos-operator "), "{sent}");
        assert_eq!((&sent["continue"], &sent["recurse"], &sent["prereq"]), (&true.into(), &false.into(), &false.into()));
        assert_eq!(asked(seen), nodes);
    }
}

#[tokio::test]
async fn states_are_read_node_by_node() {
    let (recorder, server) = Recorder::start(|_| {
        said(
            200,
            r#"{"e":-1,"err_msg":"Errors encountered with 1/9 Xnames for Status","on":["x1000c0s0b0n0","x1000c0s5b0n0","x9c0s0b0n0"],
                "off":["X1000C0S01B0N0","x1000c0s5b0n0"],"undefined":["x1000c0s2b0n0"],"ready":["x1000c0s3b0n0"],
                "populated":["x1000c0s4b0n0"],"unresponsive":["x1000c0s6b0n0"],
                "flags":{"alert":["x1000c0s0b0n0"],"disabled":["x1000c0s7b0n0"]}}"#,
        )
    })
    .await;
    let nodes = nodes(8);
    let read = async |source| {
        let mut config = config(&server.url);
        config.power_state_source = source;
        Clients::new(&config, Arc::new(NoObserver)).unwrap().power.status(&nodes).await.unwrap()
    };
    let expected = |ready: Reading| {
        let rest = [
            Reading::On,
            Reading::Off,
            undefined("power state undefined"),
            ready,
            undefined("listed as populated, which is not on or off"),
            undefined("in lists that contradict each other"),
            undefined("listed as unresponsive, which is not on or off"),
            // A flag is no state.
            Reading::Missing,
        ];
        nodes.iter().cloned().zip(rest).collect::<HashMap<_, _>>()
    };
    assert_eq!(read(PowerStateSource::Redfish).await, expected(undefined("listed as ready, which is not on or off")));
    assert_eq!(read(PowerStateSource::Hsm).await, expected(Reading::On));
    let seen = recorder.seen();
    assert!(seen.iter().all(|seen| seen.path == "/get_xname_status" && body(seen)["filter"] == "show_all" && asked(seen) == nodes));
    assert_eq!((body(&seen[0]).get("source"), body(&seen[1])["source"].as_str()), (None, Some("hsm")));
}

#[tokio::test]
async fn hsm_has_three_more_states_with_power() {
    let text =
        r#"{"e":0,"err_msg":"","ready":["x1000c0s0b0n0"],"standby":["x1000c0s1b0n0"],"halt":["x1000c0s2b0n0"],"off":["x1000c0s3b0n0"]}"#;
    let (_, server) = Recorder::start(move |_| said(200, text)).await;
    let mut config = config(&server.url);
    config.power_state_source = PowerStateSource::Hsm;
    let nodes = nodes(4);
    let readings = Clients::new(&config, Arc::new(NoObserver)).unwrap().power.status(&nodes).await.unwrap();
    let states: Vec<_> = nodes.iter().map(|node| readings[node].clone()).collect();
    assert_eq!(states, [Reading::On, Reading::On, Reading::On, Reading::Off]);
}

#[tokio::test]
async fn nodes_that_spoil_a_read_are_taken_out_of_it() {
    let (recorder, server) = Recorder::start(|seen| {
        let asked = asked(seen);
        if asked.iter().any(|node| node.as_str() == "x1000c0s3b0n0") {
            return said(400, r#"{"e":400,"err_msg":"disabled or not found: [x1000c0s1b0n0 x1000c0s3b0n0]"}"#);
        }
        if asked.iter().any(|node| node.as_str() == "x1000c0s4b0n0") {
            return said(400, r#"{"e":400,"err_msg":"invalid/duplicate xnames: [x1000c0s4b0n0]"}"#);
        }
        said(200, r#"{"e":0,"err_msg":"","on":["x1000c0s0b0n0"],"off":["x1000c0s2b0n0"]}"#)
    })
    .await;
    let nodes = nodes(5);
    let readings = capmc(&server.url).status(&nodes).await.unwrap();
    let states: Vec<_> = nodes.iter().map(|node| readings[node].clone()).collect();
    let gone = || undefined("disabled or not found");
    assert_eq!(states, [Reading::On, gone(), Reading::Off, gone(), undefined("invalid/duplicate xnames")]);
    assert_eq!(recorder.seen().len(), 3);
}

#[tokio::test]
async fn one_bad_node_that_is_not_named_never_hides_the_others() {
    let (recorder, server) = Recorder::start(|seen| {
        let asked = asked(seen);
        if asked.iter().any(|node| node.as_str() == "x1000c0s777b0n0") {
            return said(400, r#"{"e":400,"err_msg":"something is wrong"}"#);
        }
        let names: Vec<String> = asked.iter().map(|node| format!("\"{node}\"")).collect();
        said(200, &format!(r#"{{"e":0,"err_msg":"","off":[{}]}}"#, names.join(",")))
    })
    .await;
    let nodes = nodes(2800);
    let readings = capmc(&server.url).status(&nodes).await.unwrap();
    let off = readings.values().filter(|reading| **reading == Reading::Off).count();
    assert_eq!((readings.len(), off, &readings[&nodes[777]]), (2800, 2799, &undefined("something is wrong")));
    assert!(recorder.seen().len() <= 25, "{} calls", recorder.seen().len());
}

#[tokio::test]
async fn a_read_that_is_refused_again_and_again_ends() {
    let (recorder, server) = Recorder::start(|_| said(400, r#"{"e":400,"err_msg":"unknown status source"}"#)).await;
    let readings = capmc(&server.url).status(&nodes(2800)).await.unwrap();
    assert!(readings.len() == 2800 && readings.values().all(|reading| *reading == undefined("unknown status source")));
    assert_eq!(recorder.seen().len(), 64);
}

#[tokio::test]
async fn a_long_list_of_bad_nodes_is_read_whole() {
    let bad = nodes(2799);
    let names: Vec<&str> = bad.iter().map(Xname::as_str).collect();
    let text = format!(r#"{{"e":400,"err_msg":"disabled or not found: [{}]"}}"#, names.join(" "));
    let (_, server) = Recorder::start(move |seen| match asked(seen).len() {
        1 => said(200, r#"{"e":0,"err_msg":"","on":["x1000c0s2799b0n0"]}"#),
        _ => said(400, &text),
    })
    .await;
    let all = nodes(2800);
    let readings = capmc(&server.url).status(&all).await.unwrap();
    assert_eq!(readings[&all[2799]], Reading::On);
    assert!(bad.iter().all(|node| readings[node] == undefined("disabled or not found")));
}

#[tokio::test]
async fn only_capmc_itself_can_say_that_it_knows_no_node() {
    let (_, server) = Recorder::start(|_| said(404, r#"{"e":404,"err_msg":"No matching components found"}"#)).await;
    let readings = capmc(&server.url).status(&nodes(2)).await.unwrap();
    assert!(readings.values().all(|reading| *reading == Reading::Missing));
    let (_, server) = Recorder::start(|_| answer(404, "text/plain", "404 page not found")).await;
    assert!(capmc(&server.url).status(&nodes(2)).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_good_status_with_a_bad_word_is_an_outage() {
    let text = r#"{"e":500,"err_msg":"Error: Failed to get status from PCS."}"#;
    let (_, server) = Recorder::start(move |_| said(200, text)).await;
    let power = capmc(&server.url);
    for error in [power.status(&nodes(2)).await.unwrap_err(), power.request(PowerOperation::On, &nodes(2)).await.unwrap_err()] {
        // Whether PCS got the order nobody knows.
        assert_eq!((error.service, error.reached, error.kind), (Service::Capmc, Reached::Unknown, ErrorKind::Server(500)), "{error}");
        assert!(error.is_transient() && error.to_string().contains("from PCS"), "{error}");
    }
    for text in ["<!DOCTYPE html>", "", "[]", r#"{"status":"ok"}"#, r#"{"e":"0"}"#] {
        let (_, server) = Recorder::start(move |_| said(200, text)).await;
        let power = capmc(&server.url);
        for error in [power.status(&nodes(2)).await.unwrap_err(), power.request(PowerOperation::On, &nodes(2)).await.unwrap_err()] {
            assert_eq!((error.reached, error.kind), (Reached::Unknown, ErrorKind::Malformed), "{text:?}: {error}");
        }
    }
}

#[tokio::test]
async fn bad_nodes_of_an_order_are_named_and_the_others_are_switched() {
    let (nodes, result) = power_on(
        200,
        r#"{"e":0,"err_msg":"Errors encountered with 1/3 Xnames for On","xnames":[{"xname":"x1000c0s1b0n0","e":22,"err_msg":"disabled or not found"}]}"#,
    )
    .await;
    let failed_one = failed(&nodes[1], "disabled or not found", TaskFailure::Missing);
    assert_eq!(result.unwrap(), Requested::Taken { failed: vec![failed_one], note: String::new() });

    let (nodes, result) = power_on(
        200,
        r#"{"e":-1,"err_msg":"Errors encountered with 1/3 Xnames issued On","xnames":[{"xname":"x1000c0s2b0n0","e":-1,"err_msg":"NodeBMC Communication Error"},
            {"xname":"x1000c0s0b0n0","e":0,"err_msg":"Ignored: x1000c0s0b0"},{"xname":"x9c0s0b0n0","e":-1,"err_msg":"not ours"}]}"#,
    )
    .await;
    let failed_one = failed(&nodes[2], "NodeBMC Communication Error", TaskFailure::Other);
    assert_eq!(result.unwrap(), Requested::Taken { failed: vec![failed_one], note: String::new() });
}

#[tokio::test]
async fn failures_without_names_leave_every_node_to_be_looked_at() {
    let (_, result) = power_on(200, r#"{"e":-1,"err_msg":"Errors encountered with 1/3 Xnames issued On"}"#).await;
    let note = "Errors encountered with 1/3 Xnames issued On".to_owned();
    assert_eq!(result.unwrap(), Requested::Taken { failed: vec![], note });
}

#[tokio::test]
async fn a_refusal_of_the_whole_names_its_nodes_in_one_way_or_another() {
    let refused = |because, detail: &str| Requested::Refused { because, detail: detail.to_owned() };
    let (nodes, result) = power_on(
        400,
        r#"{"e":22,"err_msg":"invalid argument","xnames":[{"xname":"x1000c0s1b0n0","e":22,"err_msg":"disabled or not found"}]}"#,
    )
    .await;
    let because = vec![failed(&nodes[1], "disabled or not found", TaskFailure::Missing)];
    assert_eq!(result.unwrap(), refused(because, "invalid argument"));

    let (nodes, result) = power_on(400, r#"{"e":400,"err_msg":"components disabled: [x1000c0s0b0n0 x1000c0s2b0n0]"}"#).await;
    let because = [0, 2].map(|index| failed(&nodes[index], "components disabled", TaskFailure::Missing)).to_vec();
    assert_eq!(result.unwrap(), refused(because, "components disabled: [x1000c0s0b0n0 x1000c0s2b0n0]"));

    let (nodes, result) = power_on(404, r#"{"e":404,"err_msg":"No nodes found to operate on"}"#).await;
    let because = nodes.iter().map(|node| failed(node, "No nodes found to operate on", TaskFailure::Missing)).collect();
    assert_eq!(result.unwrap(), refused(because, "No nodes found to operate on"));

    // Nobody is named: a verdict on the list, which the engine halves.
    let (_, result) = power_on(400, r#"{"e":400,"err_msg":"Bad Request: something"}"#).await;
    assert_eq!(result.unwrap_err().kind, ErrorKind::Rejected(400));
}

const HELD: &str = r#"{"e":37,"err_msg":"Error: Failed to reserve components while performing a On."}"#;
const HELD_SAYS: &str = "Error: Failed to reserve components while performing a On.";

/// What becomes of a power-on of so many nodes that CAPMC refuses for a lock, where HSM says this of locks.
async fn held(count: usize, answer: &'static str, locks: impl Fn() -> Response + Send + Sync + 'static) -> (Recorder, Requested) {
    let (recorder, server) = Recorder::start(move |seen| match seen.path.as_str() {
        "/xname_on" => said(200, answer),
        "/locks/status" => locks(),
        _ => problem(404, "no"),
    })
    .await;
    let requested = capmc(&server.url).request(PowerOperation::On, &nodes(count)).await.unwrap();
    (recorder, requested)
}

#[tokio::test]
async fn hsm_says_which_node_is_locked_or_reserved() {
    let locks = || {
        json(
            r#"{"Components":[{"ID":"x1000c0s0b0n0","Locked":false,"Reserved":true,"ReservationDisabled":false},
                {"ID":"x1000c0s1b0n0","Locked":false,"Reserved":false,"ReservationDisabled":false},
                {"ID":"x1000c0s2b0n0","Locked":true,"Reserved":false,"ReservationDisabled":false}]}"#,
        )
    };
    let (recorder, requested) = held(3, HELD, locks).await;
    let nodes = nodes(3);
    let because = [0, 2].map(|index| failed(&nodes[index], HELD_SAYS, TaskFailure::Reservation)).to_vec();
    assert_eq!(requested, Requested::Refused { because, detail: HELD_SAYS.to_owned() });
    let seen = recorder.seen();
    assert_eq!((seen.len(), seen[1].method.as_str()), (2, "POST"));
    assert_eq!(seen[1].body, r#"{"ComponentIDs":["x1000c0s0b0n0","x1000c0s1b0n0","x1000c0s2b0n0"]}"#);
}

#[tokio::test]
async fn what_capmc_leaves_out_anyway_is_told_with_the_lock() {
    let text = r#"{"e":37,"err_msg":"Error: Failed to reserve components while performing a On.","xnames":[{"xname":"x1000c0s0b0n0","e":22,"err_msg":"disabled or not found"}]}"#;
    let (recorder, requested) = held(2, text, || problem(500, "not asked")).await;
    let nodes = nodes(2);
    // Of two nodes the one that is not named must be the one.
    let because =
        vec![failed(&nodes[0], "disabled or not found", TaskFailure::Missing), failed(&nodes[1], HELD_SAYS, TaskFailure::Reservation)];
    assert_eq!(requested, Requested::Refused { because, detail: HELD_SAYS.to_owned() });
    assert_eq!(recorder.seen().len(), 1);
}

#[tokio::test]
async fn where_hsm_cannot_say_nobody_is_blamed() {
    let nobody = Requested::Refused { because: vec![], detail: HELD_SAYS.to_owned() };
    assert_eq!(held(3, HELD, || problem(500, "failed to query DB.")).await.1, nobody);
    assert_eq!(held(3, HELD, || json(r#"{"Components":[]}"#)).await.1, nobody);
    // A single node needs no asking.
    let (recorder, requested) = held(1, HELD, || problem(500, "not asked")).await;
    let because = vec![failed(&nodes(1)[0], HELD_SAYS, TaskFailure::Reservation)];
    assert_eq!((requested, recorder.seen().len()), (Requested::Refused { because, detail: HELD_SAYS.to_owned() }, 1));
}

#[tokio::test]
async fn an_error_of_capmc_names_capmc() {
    let error = capmc(&nobody().await).request(PowerOperation::On, &nodes(2)).await.unwrap_err();
    assert_eq!((error.service, error.reached, error.kind), (Service::Capmc, Reached::No, ErrorKind::Connect));
    assert!(error.to_string().starts_with("CAPMC post xname_on: cannot connect"), "{error}");
    let (_, server) = Recorder::start(|_| said(500, r#"{"e":500,"err_msg":"Connection to the secure store isn't ready."}"#)).await;
    let error = capmc(&server.url).request(PowerOperation::SoftOff, &nodes(2)).await.unwrap_err();
    assert_eq!((error.reached, error.kind, error.is_transient()), (Reached::Yes, ErrorKind::Server(500), true));
}

#[tokio::test]
async fn a_transition_of_another_time_is_over() {
    let (recorder, server) = Recorder::start(|_| problem(500, "not asked")).await;
    assert_eq!(capmc(&server.url).transition(&TransitionId::new("8f0c")).await.unwrap(), None);
    assert_eq!(recorder.seen(), []);
}

#[tokio::test]
async fn an_empty_list_never_leaves() {
    let (recorder, server) = Recorder::start(|_| said(200, r#"{"e":0,"err_msg":""}"#)).await;
    let power = capmc(&server.url);
    for error in [power.status(&[]).await.unwrap_err(), power.request(PowerOperation::ForceOff, &[]).await.unwrap_err()] {
        assert_eq!((error.reached, error.kind), (Reached::No, ErrorKind::Refused), "{error}");
    }
    assert_eq!(recorder.seen(), []);
}

#[tokio::test]
async fn the_stop_switch_holds_orders_back_and_lets_questions_through() {
    static ORDERS: AtomicUsize = AtomicUsize::new(0);
    let (_, server) = Recorder::start(|seen| {
        ORDERS.fetch_add(usize::from(seen.path != "/get_xname_status"), Ordering::SeqCst);
        said(200, r#"{"e":0,"err_msg":""}"#)
    })
    .await;
    let clients = Clients::new(&config(&server.url), Arc::new(NoObserver)).unwrap();
    clients.stop.set(true);
    for operation in [PowerOperation::On, PowerOperation::SoftOff, PowerOperation::ForceOff] {
        let error = clients.power.request(operation, &nodes(1)).await.unwrap_err();
        assert_eq!((error.reached, error.kind), (Reached::No, ErrorKind::Stopped), "{error}");
    }
    clients.power.status(&nodes(1)).await.unwrap();
    assert_eq!(ORDERS.load(Ordering::SeqCst), 0);
    clients.stop.set(false);
    assert_eq!(clients.power.request(PowerOperation::On, &nodes(1)).await.unwrap(), taken());
}
