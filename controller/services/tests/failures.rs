//! What the clients make of services that are away, broken, or not what they should be.
#![allow(clippy::unwrap_used)] // helpers of tests may panic too

mod common;

use std::io::Write;
use std::sync::Arc;

use axum::response::IntoResponse;
use bos_services::{
    BootParams, CallOutcome, Clients, ConfigPatch, ErrorKind, PowerOperation, Reached, Requested, S3ErrorKind, Service, ServiceError,
    TransitionId,
};
use common::{Recorder, Told, answer, answer_raw, clients, config, hasty_clients, json, nobody, nodes, problem, serve_raw};

fn params() -> BootParams {
    BootParams { kernel: "s3://b/k".to_owned(), initrd: "s3://b/i".to_owned(), params: "quiet".to_owned() }
}

async fn power_on(clients: &Clients) -> ServiceError {
    clients.power.request(PowerOperation::On, &nodes(2)).await.expect_err("this service cannot be asked")
}

fn facts(error: &ServiceError) -> (Reached, ErrorKind, bool) {
    (error.reached, error.kind, error.is_transient())
}

#[tokio::test]
async fn nobody_listens() {
    let clients = clients(&nobody().await);
    let error = power_on(&clients).await;
    assert_eq!(facts(&error), (Reached::No, ErrorKind::Connect, true));
    assert_eq!((error.service, error.call), (Service::Pcs, "post transitions"));
    assert!(error.detail.contains("refused"), "{error}");
    assert_eq!(clients.objects.get("b", "k", 10).await.unwrap_err().kind, S3ErrorKind::Unavailable);
}

#[tokio::test]
async fn no_answer_comes() {
    let server = serve_raw(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let clients = hasty_clients(&server.url);
    assert_eq!(facts(&power_on(&clients).await), (Reached::Unknown, ErrorKind::Timeout, true));
    let error = clients.objects.head("b", "k").await.unwrap_err();
    assert!(error.is_transient() && error.detail.contains("no answer in time"), "{error}");
}

#[tokio::test]
async fn the_answer_stops_in_the_middle() {
    let server = serve_raw(|mut stream| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"trans").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    assert_eq!(facts(&power_on(&hasty_clients(&server.url)).await), (Reached::Unknown, ErrorKind::Timeout, true));
}

#[tokio::test]
async fn the_connection_breaks() {
    for beginning in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"trans", b"not HTTP at all\r\n\r\n"] {
        let server = serve_raw(move |stream| answer_raw(stream, beginning)).await;
        let error = power_on(&clients(&server.url)).await;
        assert_eq!(facts(&error), (Reached::Unknown, ErrorKind::Interrupted, true), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_says_503() {
    let (_, server) = Recorder::start(|_| answer(503, "text/plain", "upstream connect error or disconnect/reset before headers")).await;
    let error = power_on(&clients(&server.url)).await;
    assert_eq!(facts(&error), (Reached::Unknown, ErrorKind::Server(503), true));
    assert!(error.detail.starts_with("upstream connect error"), "{error}");
}

#[tokio::test]
async fn a_good_status_with_a_wrong_body_is_an_outage() {
    for body in ["<!DOCTYPE html><title>Log in</title>", "Hello World!", "", "[]", "{\"status\":\"ok\"}"] {
        let (_, server) = Recorder::start(move |_| answer(200, "text/html", body)).await;
        let clients = clients(&server.url);
        let nodes = nodes(2);
        let patch = ConfigPatch { enabled: Some(true), ..ConfigPatch::default() };
        let id = TransitionId::new("8f0c");
        let errors = [
            power_on(&clients).await,
            clients.power.status(&nodes).await.unwrap_err(),
            clients.power.transition(&id).await.unwrap_err(),
            clients.inventory.components().await.unwrap_err(),
            clients.inventory.locked().await.unwrap_err(),
            clients.boot_parameters.put(&params(), &nodes).await.unwrap_err(),
            clients.configuration.configuration_exists("c").await.unwrap_err(),
            clients.configuration.components(&nodes).await.unwrap_err(),
            clients.configuration.patch(&nodes, &patch).await.unwrap_err(),
            clients.images.image("i").await.unwrap_err(),
            clients.images.tag_sbps("i").await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(facts(&error), (Reached::Unknown, ErrorKind::Malformed, true), "{body:?}: {error}");
        }
        // S3 content may be anything, but an object has an etag.
        assert_eq!(clients.objects.get("b", "k", 100).await.unwrap_err().kind, S3ErrorKind::Unavailable);
        assert_eq!(clients.objects.head("b", "k").await.unwrap_err().kind, S3ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn only_the_service_itself_can_say_that_there_is_no_such_thing() {
    let (_, server) = Recorder::start(|_| problem(404, "no such thing")).await;
    let there = clients(&server.url);
    assert_eq!(there.power.transition(&TransitionId::new("8f0c")).await.unwrap(), None);
    assert!(!there.configuration.configuration_exists("c").await.unwrap());
    assert_eq!(there.images.image("i").await.unwrap(), None);
    assert_eq!(facts(&there.images.tag_sbps("i").await.unwrap_err()), (Reached::Yes, ErrorKind::Rejected(404), false));

    let (_, server) = Recorder::start(|_| answer(404, "text/plain", "404 page not found")).await;
    let elsewhere = clients(&server.url);
    assert!(elsewhere.power.transition(&TransitionId::new("8f0c")).await.unwrap_err().is_transient());
    assert!(elsewhere.configuration.configuration_exists("c").await.unwrap_err().is_transient());
    assert!(elsewhere.images.image("i").await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_verdict_is_final() {
    let (_, server) = Recorder::start(|_| problem(400, "invalid xnames detected: garbage")).await;
    let error = clients(&server.url).power.status(&nodes(1)).await.unwrap_err();
    assert_eq!(facts(&error), (Reached::Yes, ErrorKind::Rejected(400), false));
    assert_eq!(error.to_string(), "PCS post power-status: rejected (HTTP 400): invalid xnames detected: garbage");
}

#[tokio::test]
async fn bss_without_its_store_is_an_outage() {
    let (_, server) = Recorder::start(|_| problem(400, "No data")).await;
    let error = clients(&server.url).boot_parameters.put(&params(), &nodes(1)).await.unwrap_err();
    assert_eq!(facts(&error), (Reached::Yes, ErrorKind::Server(400), true));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (recorder, server) = Recorder::start(|_| (axum::http::StatusCode::FOUND, [("location", "/login")]).into_response()).await;
    let error = power_on(&clients(&server.url)).await;
    assert_eq!(facts(&error), (Reached::Unknown, ErrorKind::Malformed, true));
    assert_eq!(recorder.only().path, "/transitions");
}

#[tokio::test]
async fn an_oversized_answer_is_not_read() {
    let (_, server) = Recorder::start(|_| json(format!(r#"{{"id":"i","name":"{}"}}"#, "x".repeat(1024 * 1024)))).await;
    let error = clients(&server.url).images.image("i").await.unwrap_err();
    assert_eq!(facts(&error), (Reached::Unknown, ErrorKind::TooLarge, true));
}

#[tokio::test]
async fn an_answer_of_unknown_length_is_cut_off() {
    // Without a length, and without an end: only the limit stops it.
    let server = serve_raw(|mut stream| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\netag: \"e\"\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
    })
    .await;
    let clients = clients(&server.url);
    assert_eq!(clients.images.image("i").await.unwrap_err().kind, ErrorKind::TooLarge);
    let error = clients.objects.get("b", "k", 100_000).await.unwrap_err();
    assert_eq!((error.kind, error.is_transient()), (S3ErrorKind::TooLarge, false));
}

#[tokio::test]
async fn dangerous_requests_never_leave() {
    let (recorder, server) = Recorder::start(|_| json("{}")).await;
    let clients = clients(&server.url);
    let patch = ConfigPatch { enabled: Some(true), ..ConfigPatch::default() };
    let without_kernel = BootParams { kernel: String::new(), ..params() };
    let errors = [
        clients.power.status(&[]).await.unwrap_err(),
        clients.power.request(PowerOperation::ForceOff, &[]).await.unwrap_err(),
        clients.power.transition(&TransitionId::new("")).await.unwrap_err(),
        clients.power.transition(&TransitionId::new("../transitions")).await.unwrap_err(),
        clients.boot_parameters.put(&params(), &[]).await.unwrap_err(),
        clients.boot_parameters.put(&without_kernel, &nodes(1)).await.unwrap_err(),
        clients.configuration.components(&[]).await.unwrap_err(),
        clients.configuration.patch(&[], &patch).await.unwrap_err(),
        clients.configuration.patch(&nodes(1), &ConfigPatch::default()).await.unwrap_err(),
        clients.configuration.configuration_exists("").await.unwrap_err(),
        clients.configuration.configuration_exists("..").await.unwrap_err(),
        clients.images.tag_sbps("").await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(facts(&error), (Reached::No, ErrorKind::Refused, false), "{error}");
    }
    assert_eq!(clients.objects.get("b", "../other/key", 10).await.unwrap_err().kind, S3ErrorKind::InvalidName);
    assert_eq!(recorder.seen(), []);
}

#[tokio::test]
async fn a_token_is_read_at_every_call() {
    let (recorder, server) = Recorder::start(|seen| {
        if seen.headers.get("authorization").is_some_and(|value| value == "Bearer second") { json("[]") } else { problem(401, "no") }
    })
    .await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut config = config(&server.url);
    config.hsm.token_file = Some(file.path().to_owned());
    let clients = Clients::new(&config, Arc::new(bos_services::NoObserver)).unwrap();

    let error = clients.inventory.groups().await.unwrap_err();
    assert_eq!(facts(&error), (Reached::No, ErrorKind::Credentials, true));
    assert_eq!(recorder.seen(), []);

    file.write_all(b"first\n").unwrap();
    let error = clients.inventory.groups().await.unwrap_err();
    assert_eq!(facts(&error), (Reached::No, ErrorKind::Denied(401), true));

    std::fs::write(file.path(), "second\n").unwrap();
    assert_eq!(clients.inventory.groups().await.unwrap(), []);
}

#[tokio::test]
async fn every_call_is_told_and_has_an_id() {
    let (recorder, server) = Recorder::start(|seen| match seen.path.as_str() {
        "/groups" => json("[]"),
        "/partitions" => problem(400, "no"),
        _ => answer(502, "text/html", ""),
    })
    .await;
    let told = Arc::new(Told::default());
    let clients = Clients::new(&config(&server.url), told.clone()).unwrap();
    clients.inventory.groups().await.unwrap();
    clients.inventory.partitions().await.unwrap_err();
    clients.inventory.components().await.unwrap_err();
    assert_eq!(
        *told.0.lock().unwrap(),
        [
            (Service::Hsm, "get groups", CallOutcome::Ok),
            (Service::Hsm, "get partitions", CallOutcome::Rejected),
            (Service::Hsm, "get components", CallOutcome::Unavailable),
        ]
    );
    let ids: std::collections::HashSet<_> = recorder.seen().iter().map(|seen| seen.headers.get("x-request-id").cloned()).collect();
    assert_eq!((ids.len(), ids.contains(&None)), (3, false));
}

/// A kept connection may close under a call; then nobody knows whether it was heard. So effects never use one.
#[tokio::test]
async fn effects_travel_on_connections_of_their_own() {
    // Answers one request, keeps the connection, and breaks it at the second.
    let server = serve_raw(|mut stream| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 27\r\n\r\n{\"transitionID\": \"8f0c-01\"}").await.unwrap();
        let _ = stream.read(&mut buffer).await;
    })
    .await;
    let clients = clients(&server.url);
    for _ in 0..10 {
        clients.power.request(PowerOperation::On, &nodes(1)).await.unwrap();
    }
}

#[tokio::test]
async fn no_more_calls_at_a_time_than_allowed() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let handler = || async {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        NOW.fetch_sub(1, Ordering::SeqCst);
        "[]"
    };
    let server = common::serve(axum::Router::new().fallback(handler)).await;
    let mut config = config(&server.url);
    config.hsm.max_in_flight = 2;
    let clients = Clients::new(&config, Arc::new(bos_services::NoObserver)).unwrap();
    let calls = futures::future::join_all((0..12).map(|_| clients.inventory.groups())).await;
    assert!(calls.iter().all(Result::is_ok));
    assert_eq!(MOST.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_stop_switch_holds_power_actions_back_even_those_that_wait_for_their_turn() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Semaphore;
    let (calls, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (heard, opened) = (Arc::clone(&calls), Arc::clone(&gate));
    let server = serve_raw(move |mut stream| {
        let (heard, opened) = (Arc::clone(&heard), Arc::clone(&opened));
        async move {
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
            heard.fetch_add(1, Ordering::SeqCst);
            drop(opened.acquire().await);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 22\r\n\r\n{\"transitionID\":\"t-1\"}";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let mut config = config(&server.url);
    config.pcs.max_in_flight = 1;
    let clients = Clients::new(&config, Arc::new(bos_services::NoObserver)).unwrap();
    let nodes = nodes(1);
    let first = clients.power.request(PowerOperation::On, &nodes);
    let second = async {
        while calls.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // The first was heard; this one has to wait for its end, and meanwhile somebody says stop.
        let waiting = clients.power.request(PowerOperation::On, &nodes);
        let stop = async {
            clients.stop.set(true);
            gate.add_permits(1);
        };
        tokio::join!(waiting, stop).0
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.unwrap(), Requested::Transition(TransitionId::new("t-1")));
    let held = second.unwrap_err();
    assert_eq!(facts(&held), (Reached::No, ErrorKind::Stopped, true), "{held}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    clients.stop.set(false);
    clients.power.request(PowerOperation::On, &nodes).await.unwrap();
    let leads = Arc::new(AtomicBool::new(true));
    clients.stop.only_while({
        let leads = Arc::clone(&leads);
        move || leads.load(Ordering::SeqCst)
    });
    clients.power.request(PowerOperation::On, &nodes).await.unwrap();
    leads.store(false, Ordering::SeqCst);
    let held = clients.power.request(PowerOperation::On, &nodes).await.unwrap_err();
    assert_eq!(facts(&held), (Reached::No, ErrorKind::Stopped, true), "{held}");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}
