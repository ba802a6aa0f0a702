//! Whom the clients trust.
#![allow(clippy::unwrap_used)] // helpers of tests may panic too

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use bos_services::auth::{AuthConfig, ServiceAuth};
use bos_services::{Clients, ErrorKind, NoObserver, Reached};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Serves one empty list of groups over TLS to each connection, until the test process ends; returns address and certificate.
fn serve_tls() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let (tls, listener) = (Arc::new(tls), TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).unwrap(), stream.unwrap());
            // A client that does not trust us breaks off here.
            if stream.read(&mut [0; 4096]).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (url, made.cert.pem())
}

#[tokio::test]
async fn only_a_known_authority_is_trusted() {
    let (url, pem) = serve_tls();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();

    let mut config = common::config("http://localhost:1");
    config.hsm.base_url = Some(url);
    config.hsm.ca_file = Some(file.path().to_owned());
    let clients = Clients::new(&config, Arc::new(NoObserver)).unwrap();
    assert_eq!(clients.inventory.groups().await.unwrap(), []);

    // Another authority than the one that signed.
    let (other_url, _) = serve_tls();
    config.hsm.base_url = Some(other_url);
    let clients = Clients::new(&config, Arc::new(NoObserver)).unwrap();
    let error = clients.inventory.groups().await.unwrap_err();
    assert_eq!((error.reached, error.kind), (Reached::No, ErrorKind::Connect), "{error}");
    assert!(error.detail.contains("certificate"), "{error}");

    config.hsm.ca_file = None;
    config.hsm.insecure = true;
    let clients = Clients::new(&config, Arc::new(NoObserver)).unwrap();
    assert_eq!(clients.inventory.groups().await.unwrap(), []);
}

#[tokio::test]
async fn a_file_of_authorities_that_changes_is_read_anew() {
    let (_, other) = serve_tls();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), other).unwrap();
    let (url, pem) = serve_tls();
    let mut config = common::config("http://localhost:1");
    config.hsm.base_url = Some(url);
    config.hsm.ca_file = Some(file.path().to_owned());
    let clients = Clients::new(&config, Arc::new(NoObserver)).unwrap();
    assert_eq!(clients.inventory.groups().await.unwrap_err().kind, ErrorKind::Connect);
    std::fs::write(file.path(), &pem).unwrap();
    assert_eq!(clients.inventory.groups().await.unwrap(), []);
    // One that is half written, or gone, changes nothing.
    std::fs::write(file.path(), "hello").unwrap();
    assert_eq!(clients.inventory.groups().await.unwrap(), []);
}

#[tokio::test]
async fn the_token_endpoint_is_trusted_by_its_own_authority() {
    let (url, pem) = serve_tls();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (_, other) = serve_tls();
    for (name, text) in [("id", "bos"), ("secret", "s"), ("ca", pem.as_str()), ("other", other.as_str())] {
        std::fs::write(path(name), text).unwrap();
    }
    let mut config = common::config("http://localhost:1");
    config.hsm.auth = Some(ServiceAuth::Oauth);
    let with_ca = |name: &str| AuthConfig {
        token_url: Some(url.clone()),
        client_id_file: Some(path("id")),
        client_secret_file: Some(path("secret")),
        ca_file: Some(path(name)),
        ..AuthConfig::default()
    };
    for (name, says) in [("ca", "answered 200 but without an access_token"), ("other", "certificate")] {
        config.auth = with_ca(name);
        let error = Clients::new(&config, Arc::new(NoObserver)).unwrap().inventory.groups().await.unwrap_err();
        assert!(error.kind == ErrorKind::Credentials && error.detail.contains(says), "{error}");
    }
}

#[test]
fn a_bad_file_of_authorities_is_named() {
    let problem = |path: &std::path::Path| {
        let mut config = common::config("http://localhost:1");
        config.hsm.ca_file = Some(path.to_owned());
        Clients::new(&config, Arc::new(NoObserver)).err().unwrap().to_string()
    };
    let missing = problem(std::path::Path::new("/nowhere/ca.pem"));
    assert!(missing.contains("hsm.caFile /nowhere/ca.pem"), "{missing}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hello").unwrap();
    assert!(problem(file.path()).contains("holds no certificate"));
}
