//! What the clients send, and what they read from answers as the real services give them.
#![allow(clippy::unwrap_used)] // helpers of tests may panic too

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::response::{IntoResponse, Response};
use bos_core::xname::Xname;
use bos_services::{
    BootParams, ConfigPatch, ConfigStatus, ErrorKind, PowerOperation, Reading, Requested, S3ErrorKind, TaskFailure, TaskState, TransitionId,
};
use common::{Recorder, Seen, answer, clients, json, nodes, problem};

fn x(name: &str) -> Xname {
    Xname::parse(name).unwrap()
}

fn query(seen: &Seen) -> HashMap<String, String> {
    url::form_urlencoded::parse(seen.query.as_bytes()).into_owned().collect()
}

#[tokio::test]
async fn hsm_reads_the_inventory() {
    let (recorder, server) = Recorder::start(|seen| match seen.path.as_str() {
        "/hsm/v2/State/Components" => json(r#"{"Components":[{"ID":"x1000c0s0b0n0","Type":"Node","Enabled":true,"NID":1}]}"#),
        "/hsm/v2/groups" => json(r#"[{"label":"blue","members":{"ids":["x1000c0s0b0n0"]}}]"#),
        "/hsm/v2/partitions" => json(r#"[{"name":"p1","members":{"ids":["x1000c0s0b0n0"]}}]"#),
        "/hsm/v2/locks/status" => {
            json(r#"{"Components":[{"ID":"x1000c0s0b0n0","Locked":true,"Reserved":false,"ReservationDisabled":false}]}"#)
        }
        _ => problem(404, "no"),
    })
    .await;
    let clients = clients(&format!("{}/hsm/v2", server.url));
    let found = clients.inventory.components().await.unwrap();
    assert_eq!((found.nodes.len(), found.skipped), (1, 0));
    assert_eq!(clients.inventory.groups().await.unwrap().len(), 1);
    assert_eq!(clients.inventory.partitions().await.unwrap().len(), 1);
    assert!(clients.inventory.locked().await.unwrap().contains("x1000c0s0b0n0"));
    let queries: Vec<_> = recorder.seen().iter().map(|seen| seen.query.clone()).collect();
    assert_eq!(queries, ["type=Node", "", "", "type=Node&locked=True"]);
}

#[tokio::test]
async fn hsm_is_asked_for_the_states_of_some_nodes() {
    let (recorder, server) = Recorder::start(|_| {
        json(r#"{"Components":[{"ID":"x1000c0s0b0n0","Type":"Node","State":"Ready"},{"ID":"x1000c0s1b0n0","Type":"Node"}]}"#)
    })
    .await;
    let states = clients(&server.url).inventory.states(&nodes(3)).await.unwrap();
    let of = |node: usize| states.get(&nodes(3)[node]).map(String::as_str);
    assert_eq!((of(0), of(1), of(2)), (Some("Ready"), Some(""), None));
    let seen = recorder.only();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/State/Components/Query"));
    assert_eq!(seen.body, r#"{"ComponentIDs":["x1000c0s0b0n0","x1000c0s1b0n0","x1000c0s2b0n0"]}"#);
    assert_eq!(clients(&server.url).inventory.states(&[]).await.unwrap_err().kind, ErrorKind::Refused);
}

#[tokio::test]
async fn bss_is_there_unless_it_does_not_answer_or_is_not_well() {
    for (status, there) in [(200, true), (403, true), (404, true), (500, false), (503, false)] {
        let (recorder, server) = Recorder::start(move |_| if status == 200 { json("{}") } else { problem(status, "no") }).await;
        assert_eq!(clients(&server.url).boot_parameters.is_there().await.is_ok(), there, "{status}");
        assert_eq!(recorder.only().path, "/service/status");
    }
    assert!(clients("http://127.0.0.1:1").boot_parameters.is_there().await.is_err());
}

#[tokio::test]
async fn bss_tells_who_fetched_a_boot_script() {
    let (recorder, server) = Recorder::start(|_| {
        json(
            r#"[{"name":"x1000c0s0b0n0","endpoint":"bootscript","last_epoch":1795345819},{"name":"x1000c0s1b0n0","endpoint":"bootscript","last_epoch":0},
                {"name":"x1000c0s2b0n0","endpoint":"user-data","last_epoch":1795345819},{"name":"Default","endpoint":"bootscript","last_epoch":5}]"#,
        )
    })
    .await;
    let fetched = clients(&server.url).boot_parameters.scripts_fetched().await.unwrap();
    assert_eq!(fetched, [(nodes(1)[0].clone(), 1_795_345_819)].into());
    assert_eq!((recorder.only().path.as_str(), recorder.only().query.as_str()), ("/endpoint-history", ""));
    let (_, server) = Recorder::start(|_| json("null")).await;
    assert!(clients(&server.url).boot_parameters.scripts_fetched().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_old_hsm_says_that_nothing_is_locked_with_a_400() {
    let (_, server) = Recorder::start(|_| problem(400, "Component not found")).await;
    assert!(clients(&server.url).inventory.locked().await.unwrap().is_empty());
    let (_, server) = Recorder::start(|_| problem(400, "bad query param: Argument was not a valid HMS Type")).await;
    assert_eq!(clients(&server.url).inventory.locked().await.unwrap_err().kind, ErrorKind::Rejected(400));
}

#[tokio::test]
async fn pcs_is_asked_and_followed() {
    let (recorder, server) = Recorder::start(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/v1/power-status") => {
            json(r#"{"status":[{"xname":"x1000c0s0b0n0","powerState":"on","managementState":"available","error":""}]}"#)
        }
        ("POST", "/v1/transitions") => json(r#"{"transitionID":"8f0c-1","operation":"Soft-Off"}"#),
        ("GET", "/v1/transitions/8f0c-1") => json(
            r#"{"transitionID":"8f0c-1","operation":"Soft-Off","transitionStatus":"completed","taskCounts":{"total":2},
                "tasks":[{"xname":"x1000c0s0b0n0","taskStatus":"succeeded"},
                         {"xname":"x1000c0s1b0n0","taskStatus":"failed","error":"Unable to reserve component"}]}"#,
        ),
        ("GET", "/v1/transitions/gone") => problem(404, "Key /transition/gone does not exist"),
        _ => answer(405, "text/plain", ""),
    })
    .await;
    let mut config = common::config(&format!("{}/v1/", server.url));
    config.power_task_deadline_minutes = 2;
    let power = bos_services::Clients::new(&config, std::sync::Arc::new(bos_services::NoObserver)).unwrap().power;
    let nodes = nodes(2);
    let readings = power.status(&nodes).await.unwrap();
    assert_eq!(readings, HashMap::from([(x("x1000c0s0b0n0"), Reading::On), (x("x1000c0s1b0n0"), Reading::Missing)]));
    let accepted = power.request(PowerOperation::SoftOff, &nodes).await.unwrap();
    let Requested::Transition(id) = accepted else { panic!("{accepted:?}") };
    let transition = power.transition(&id).await.unwrap().unwrap();
    assert!(transition.done);
    assert_eq!(transition.tasks[0], (x("x1000c0s0b0n0"), TaskState::Succeeded));
    assert!(matches!(transition.tasks[1].1, TaskState::Failed { kind: TaskFailure::Reservation, .. }));
    assert_eq!(power.transition(&TransitionId::new("gone")).await.unwrap(), None);

    let seen = recorder.seen();
    assert_eq!(seen[0].body, r#"{"xname":["x1000c0s0b0n0","x1000c0s1b0n0"]}"#);
    assert_eq!(
        seen[1].body,
        r#"{"operation":"Soft-Off","taskDeadlineMinutes":2,"location":[{"xname":"x1000c0s0b0n0"},{"xname":"x1000c0s1b0n0"}]}"#
    );
    for (operation, name) in [(PowerOperation::On, "On"), (PowerOperation::ForceOff, "Force-Off")] {
        power.request(operation, &nodes).await.unwrap();
        assert!(recorder.seen().last().unwrap().body.starts_with(&format!(r#"{{"operation":"{name}""#)));
    }
}

#[tokio::test]
async fn bss_gives_a_token_in_a_header_of_an_empty_answer() {
    let (recorder, server) = Recorder::start(|_| ([("Bss-Referral-Token", "5d3e")], "").into_response()).await;
    let params =
        BootParams { kernel: "s3://b/kernel".to_owned(), initrd: "s3://b/initrd".to_owned(), params: "console=ttyS0 \"a b\"".to_owned() };
    let token = clients(&server.url).boot_parameters.put(&params, &nodes(1)).await.unwrap();
    assert_eq!(token.as_str(), "5d3e");
    let seen = recorder.only();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("PUT", "/bootparameters"));
    assert_eq!(
        seen.body,
        r#"{"hosts":["x1000c0s0b0n0"],"params":"console=ttyS0 \"a b\"","kernel":"s3://b/kernel","initrd":"s3://b/initrd"}"#
    );
}

#[tokio::test]
async fn bss_without_a_token_did_nothing_that_we_can_use() {
    let (_, server) = Recorder::start(|_| answer(200, "text/plain", "")).await;
    let params = BootParams { kernel: "k".to_owned(), initrd: "i".to_owned(), params: String::new() };
    let error = clients(&server.url).boot_parameters.put(&params, &nodes(1)).await.unwrap_err();
    assert_eq!((error.kind, error.detail.contains("BSS-Referral-Token")), (ErrorKind::Malformed, true));
}

/// CFS as far as the reading of components goes: honours `ids`, `after_id` and `limit`, pages of 60 by itself, and does not
/// know nodes whose slot ends in 7.
fn cfs_page(seen: &Seen) -> Response {
    let query = query(seen);
    let mut ids: Vec<&str> = query["ids"].split(',').filter(|id| !id.ends_with("7b0n0")).collect();
    ids.sort_unstable();
    if let Some(after) = query.get("after_id") {
        ids.retain(|id| *id > after.as_str());
    }
    let limit = query.get("limit").map_or(60, |limit| limit.parse().unwrap());
    let next = if ids.len() > limit {
        ids.truncate(limit);
        format!(r#"{{"after_id":"{}","limit":{limit},"ids":"","status":"","enabled":null}}"#, ids.last().unwrap())
    } else {
        "null".to_owned()
    };
    let component =
        |id: &&str| format!(r#"{{"id":"{id}","desired_config":"cfg","configuration_status":"pending","enabled":true,"error_count":0}}"#);
    let components: Vec<String> = ids.iter().map(component).collect();
    json(format!(r#"{{"components":[{}],"next":{next}}}"#, components.join(",")))
}

#[tokio::test]
async fn cfs_is_read_in_batches_and_pages() {
    let (recorder, server) = Recorder::start(cfs_page).await;
    let nodes = nodes(450);
    let found = clients(&server.url).configuration.components(&nodes).await.unwrap();
    let known: Vec<_> = nodes.iter().filter(|node| !node.as_str().ends_with("7b0n0")).collect();
    assert_eq!(found.len(), known.len());
    assert!(known.iter().all(|node| found[*node].status == ConfigStatus::Pending));
    for seen in recorder.seen() {
        let asked = query(&seen)["ids"].split(',').count();
        assert!((1..=200).contains(&asked) && seen.query.len() < 8_000, "{}", seen.query);
    }
    // 180 known nodes in each of two batches and 45 in the last, 60 a page.
    assert_eq!(recorder.seen().len(), 3 + 3 + 1);
}

#[tokio::test]
async fn a_lost_page_is_read_again() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let (_, server) = Recorder::start(|seen| {
        if CALLS.fetch_add(1, Ordering::SeqCst) == 1 { answer(503, "text/plain", "no healthy upstream") } else { cfs_page(seen) }
    })
    .await;
    assert_eq!(clients(&server.url).configuration.components(&nodes(100)).await.unwrap().len(), 90);
    assert_eq!(CALLS.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn pages_without_an_end_are_an_error() {
    let (_, server) = Recorder::start(|_| json(r#"{"components":[],"next":{"after_id":"x1","limit":2}}"#)).await;
    let error = clients(&server.url).configuration.components(&nodes(100)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Malformed);
}

#[tokio::test]
async fn cfs_is_changed_by_name_in_groups() {
    let (recorder, server) = Recorder::start(|seen| {
        let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
        let ids: Vec<_> = body["filters"]["ids"].as_str().unwrap().split(',').filter(|id| !id.ends_with("7b0n0")).collect();
        json(serde_json::json!({ "component_ids": ids }).to_string())
    })
    .await;
    let nodes = nodes(2_500);
    let patch = ConfigPatch {
        enabled: Some(false),
        desired_config: Some("cfg1".to_owned()),
        session_tag: Some("s1".to_owned()),
        clear_state: true,
    };
    let changed = clients(&server.url).configuration.patch(&nodes, &patch).await.unwrap();
    assert_eq!(changed.len(), 2_250);
    let mut sizes = Vec::new();
    for seen in recorder.seen() {
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("PATCH", "/components"));
        let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
        let expected = serde_json::json!({"enabled": false, "desired_config": "cfg1", "tags": {"bos_session": "s1"}, "state": []});
        assert_eq!(body["patch"], expected);
        sizes.push(body["filters"]["ids"].as_str().unwrap().split(',').count());
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [500, 1000, 1000]);
}

#[tokio::test]
async fn cfs_knows_a_configuration_by_its_escaped_name() {
    let (recorder, server) = Recorder::start(|_| json(r#"{"name":"a/b c","layers":[],"last_updated":"2026-11-22"}"#)).await;
    assert!(clients(&server.url).configuration.configuration_exists("a/b c").await.unwrap());
    assert_eq!(recorder.only().path, "/configurations/a%2Fb%20c");
}

#[tokio::test]
async fn ims_reads_and_tags() {
    let (recorder, server) = Recorder::start(|_| json(r#"{"id":"0b1c","name":"img","arch":"aarch64","metadata":{},"link":null}"#)).await;
    let images = clients(&server.url).images;
    assert_eq!(images.image("0b1c").await.unwrap().unwrap().arch, "aarch64");
    images.tag_sbps("0b1c").await.unwrap();
    let seen = recorder.seen();
    assert_eq!((seen[1].method.as_str(), seen[1].path.as_str()), ("PATCH", "/images/0b1c"));
    assert_eq!(seen[1].body, r#"{"metadata":{"operation":"set","key":"sbps-project","value":"true"}}"#);
}

#[tokio::test]
async fn s3_is_read_by_path_with_a_signature() {
    let (recorder, server) = Recorder::start(|_| ([("etag", "\"f04a-131\"")], "{}").into_response()).await;
    let objects = clients(&server.url).objects;
    let object = objects.get("boot-images", "0b1c/a b+c.json", 100).await.unwrap();
    assert_eq!((object.bytes.as_ref(), object.etag.as_str()), (&b"{}"[..], "f04a-131"));
    let head = objects.head("boot-images", "0b1c/kernel").await.unwrap();
    assert_eq!((head.etag.as_str(), head.size), ("f04a-131", Some(2)));
    let seen = recorder.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("GET", "/boot-images/0b1c/a%20b%2Bc.json"));
    assert_eq!((seen[1].method.as_str(), seen[1].path.as_str()), ("HEAD", "/boot-images/0b1c/kernel"));
    let query = query(&seen[0]);
    assert_eq!(query["X-Amz-Algorithm"], "AWS4-HMAC-SHA256");
    assert!(query["X-Amz-Credential"].starts_with("access/") && query["X-Amz-Credential"].ends_with("/us-east-1/s3/aws4_request"));
    assert!(!format!("{seen:?}").contains("secret"));
}

#[tokio::test]
async fn s3_says_why_there_is_no_object() {
    let (_, server) = Recorder::start(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("HEAD", _) => answer(404, "application/xml", ""),
        (_, "/b/denied") => answer(403, "application/xml", "<Error><Code>AccessDenied</Code></Error>"),
        (_, "/b/large") => ([("etag", "\"e\"")], "x".repeat(101)).into_response(),
        _ => answer(404, "application/xml", "<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"),
    })
    .await;
    let objects = clients(&server.url).objects;
    let kind = async |key: &str| objects.get("b", key, 100).await.unwrap_err().kind;
    assert_eq!(kind("missing").await, S3ErrorKind::NotFound);
    assert_eq!(kind("denied").await, S3ErrorKind::AccessDenied);
    assert_eq!(kind("large").await, S3ErrorKind::TooLarge);
    let error = objects.head("b", "missing").await.unwrap_err();
    assert_eq!((error.kind, error.is_transient()), (S3ErrorKind::NotFound, false));
    assert!(error.to_string().starts_with("S3 head object s3://b/missing: HTTP 404"), "{error}");
}
