//! Tokens of the grant client_credentials, as services behind a gateway want them.
#![allow(clippy::unwrap_used)] // helpers of tests may panic too

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bos_services::auth::{AuthConfig, ServiceAuth};
use bos_services::{Clients, ErrorKind, NoObserver, Reached, ServicesConfig};
use common::{Recorder, Seen, Server, answer, config, json, nobody, problem, serve_raw};

const GIVEN: &str = r#"{"access_token":"tok-1","expires_in":3600,"token_type":"Bearer"}"#;

/// The Secret as a pod sees it.
struct Mount {
    _folder: tempfile::TempDir,
    id: PathBuf,
    secret: PathBuf,
}

fn mount() -> Mount {
    let folder = tempfile::tempdir().unwrap();
    let (id, secret) = (folder.path().join("client-id"), folder.path().join("client-secret"));
    std::fs::write(&id, "bos operator\n").unwrap();
    std::fs::write(&secret, "s3cr:et\n").unwrap();
    Mount { _folder: folder, id, secret }
}

/// Services that want the token of this token endpoint.
fn with_tokens(services: &str, token_url: &str, mount: &Mount) -> ServicesConfig {
    let mut config = config(services);
    config.auth = AuthConfig {
        token_url: Some(token_url.to_owned()),
        client_id_file: Some(mount.id.clone()),
        client_secret_file: Some(mount.secret.clone()),
        timeout_seconds: 1,
        ..AuthConfig::default()
    };
    config.hsm.auth = Some(ServiceAuth::Oauth);
    config.pcs.auth = Some(ServiceAuth::Oauth);
    config
}

fn clients(config: &ServicesConfig) -> Clients {
    Clients::new(config, Arc::new(NoObserver)).unwrap()
}

fn shown(seen: &Seen) -> &str {
    seen.headers.get("authorization").map_or("", |value| value.to_str().unwrap())
}

/// An issuer whose n-th token is `tok-n`.
async fn issuer() -> (Recorder, Server) {
    let count = AtomicUsize::new(0);
    Recorder::start(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        json(GIVEN.replace("tok-1", &format!("tok-{number}")))
    })
    .await
}

#[tokio::test]
async fn a_hundred_calls_fetch_one_token_and_show_it() {
    let (asked, issuer) = issuer().await;
    let (called, services) = Recorder::start(|_| json("[]")).await;
    let mount = mount();
    let mut config = with_tokens(&services.url, &format!("{}/token", issuer.url), &mount);
    config.auth.scope = Some("hsm read".to_owned());
    config.hsm.max_in_flight = 100;
    let clients = clients(&config);
    let calls = (0..100).map(|_| clients.inventory.groups());
    for result in futures::future::join_all(calls).await {
        assert_eq!(result.unwrap(), []);
    }
    let request = asked.only();
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/token"));
    assert_eq!(request.body, "grant_type=client_credentials&scope=hsm+read");
    // "bos+operator:s3cr%3Aet": each part is encoded before they are joined.
    assert_eq!(shown(&request), "Basic Ym9zK29wZXJhdG9yOnMzY3IlM0FldA==");
    let seen = called.seen();
    assert!(seen.len() == 100 && seen.iter().all(|seen| shown(seen) == "Bearer tok-1"));
}

#[tokio::test]
async fn a_token_goes_where_it_is_wanted_and_not_out_in_the_clear() {
    let (asked, issuer) = issuer().await;
    let (called, services) = Recorder::start(|_| json("[]")).await;
    let mount = mount();
    let mut config = with_tokens(&services.url, &issuer.url, &mount);
    for auth in [None, Some(ServiceAuth::None)] {
        config.hsm.auth = auth;
        clients(&config).inventory.groups().await.unwrap();
        assert_eq!(asked.seen(), [], "{auth:?}");
    }
    assert!(called.seen().iter().all(|seen| shown(seen).is_empty()));

    config.hsm.token_file = Some(mount.secret.clone());
    config.hsm.auth = Some(ServiceAuth::Oauth);
    assert!(config.validate().unwrap_err().to_string().contains("hsm.auth: contradicts hsm.tokenFile"));
    config.hsm.token_file = None;
    config.auth = AuthConfig::default();
    assert!(config.validate().unwrap_err().to_string().contains("hsm.auth: oauth needs auth.tokenUrl"));
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_the_call_made_once_more() {
    let (asked, issuer) = issuer().await;
    let (called, services) = Recorder::start(|seen| {
        if shown(seen) == "Bearer tok-2" {
            json(r#"{"transitionID":"7dc3f7a5-4d2b-4b1e-9f7d-0b8f6a2d9e12"}"#)
        } else {
            problem(401, "expired")
        }
    })
    .await;
    let mount = mount();
    let clients = clients(&with_tokens(&services.url, &issuer.url, &mount));
    let nodes = common::nodes(2);
    clients.power.request(bos_services::PowerOperation::On, &nodes).await.unwrap();
    let seen = called.seen();
    assert_eq!(seen.iter().map(shown).collect::<Vec<_>>(), ["Bearer tok-1", "Bearer tok-2"]);
    assert!(seen[0].body == seen[1].body && !seen[0].body.is_empty(), "the same call: {seen:?}");
    assert_eq!(asked.seen().len(), 2);
}

#[tokio::test]
async fn a_token_that_is_refused_again_is_said_and_costs_no_attempt() {
    let (asked, issuer) = issuer().await;
    let (called, services) = Recorder::start(|_| problem(401, "no role for this")).await;
    let mount = mount();
    let clients = clients(&with_tokens(&services.url, &issuer.url, &mount));
    let error = clients.inventory.groups().await.unwrap_err();
    assert_eq!((error.reached, error.kind), (Reached::No, ErrorKind::Denied(401)), "{error}");
    assert!(error.detail.contains(&issuer.url) && error.detail.contains("no role for this"), "{error}");
    assert_eq!((called.seen().len(), asked.seen().len()), (2, 2), "never more");
}

#[tokio::test]
async fn other_answers_are_not_tried_again() {
    let (asked, issuer) = issuer().await;
    let (called, services) = Recorder::start(|_| problem(403, "not you")).await;
    let mount = mount();
    let clients = clients(&with_tokens(&services.url, &issuer.url, &mount));
    assert_eq!(clients.inventory.groups().await.unwrap_err().kind, ErrorKind::Denied(403));
    assert_eq!((called.seen().len(), asked.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_secret_that_was_rotated_is_read_anew() {
    let (_, services) = Recorder::start(|seen| if shown(seen) == "Bearer tok-1" { problem(401, "revoked") } else { json("[]") }).await;
    // "bos+operator:second"
    let second = "Basic Ym9zK29wZXJhdG9yOnNlY29uZA==";
    let (_, issuer) =
        Recorder::start(move |seen| json(if shown(seen) == second { GIVEN.replace("tok-1", "tok-2") } else { GIVEN.to_owned() })).await;
    let mount = mount();
    let clients = clients(&with_tokens(&services.url, &issuer.url, &mount));
    clients.inventory.groups().await.unwrap_err();
    std::fs::write(&mount.secret, "second").unwrap();
    assert_eq!(clients.inventory.groups().await.unwrap(), []);
}

/// What is said of a token endpoint that gives no token, and that nothing was sent to the service.
async fn without_token(token_url: &str) -> String {
    let (called, services) = Recorder::start(|_| json("[]")).await;
    let mount = mount();
    let error = clients(&with_tokens(&services.url, token_url, &mount)).inventory.groups().await.unwrap_err();
    assert_eq!((error.reached, error.kind), (Reached::No, ErrorKind::Credentials), "{error}");
    assert!(error.is_transient() && error.detail.contains(token_url), "{error}");
    assert!(!error.to_string().contains("s3cr:et") && !error.to_string().contains("tok-1"), "{error}");
    assert_eq!(called.seen(), []);
    error.detail
}

#[tokio::test]
async fn a_token_endpoint_in_trouble_is_named_with_what_it_answered() {
    let refusal = r#"{"error":"invalid_client","error_description":"s3cr:et is not the secret"}"#;
    for (status, body, says) in [
        (401, refusal, "answered 401 invalid_client: (hidden) is not the secret"),
        (503, "<html>s3cr:et</html>", "answered 503"),
        (200, "<html>tok-1</html>", "answered 200 but without an access_token"),
        (200, r#"{"access_token":"tok-1","expires_in":0}"#, "good for 0 seconds"),
        (302, "", "answered 302"),
    ] {
        let (_, issuer) = Recorder::start(move |_| answer(status, "application/json", body)).await;
        let detail = without_token(&format!("{}/token", issuer.url)).await;
        assert!(detail.contains(says), "{detail}");
    }
    let silent = serve_raw(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let detail = without_token(&format!("{}/token", silent.url)).await;
    assert!(detail.contains("timed out") || detail.contains("timeout"), "{detail}");
    without_token(&format!("{}/token", nobody().await)).await;
}

#[tokio::test]
async fn a_missing_secret_is_named() {
    let (asked, issuer) = issuer().await;
    let mount = mount();
    let config = with_tokens("http://localhost:1", &issuer.url, &mount);
    std::fs::write(&mount.secret, " \n").unwrap();
    let error = clients(&config).inventory.groups().await.unwrap_err();
    assert!(error.kind == ErrorKind::Credentials && error.detail.contains("auth.clientSecretFile"), "{error}");
    std::fs::remove_file(&mount.id).unwrap();
    let error = clients(&config).inventory.groups().await.unwrap_err();
    assert!(error.detail.contains("auth.clientIdFile"), "{error}");
    assert_eq!(asked.seen(), []);
}
