use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::routing::patch;
use bytes::Bytes;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::jwks::{Jwks, Published};
use super::*;

const NODE_0: &str = "x1000c0s0b0n0";
const ISSUER: &str = "http://spire.local/shasta/vshastaio";

/// Signs as SPIRE does.
struct Signer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        text.extend((0..=chunk.len()).map(|n| char::from(LETTERS[(bits >> (18 - 6 * n)) as usize & 63])));
    }
    text
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self { id, pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap() }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "use": "jwt-svid", "kid": self.id, "x": base64(&point[1..33]), "y": base64(&point[33..])})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", base64(signature.as_ref()))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "kid": self.id, "typ": "JWT"}), claims)
    }
}

/// What SPIRE says of the reporter of a node, with changes.
fn claims(node: &str, changes: Value) -> Value {
    let now = jiff::Timestamp::now().as_second();
    let mut claims = json!({
        "iss": ISSUER, "aud": ["system-compute"], "exp": now + 3600, "iat": now,
        "sub": format!("spiffe://shasta/compute/{node}/workload/bos-reporter"),
    });
    for (key, value) in changes.as_object().unwrap() {
        claims[key] = value.clone();
    }
    claims
}

/// Keys as an issuer publishes them; an error while it is down.
#[derive(Clone)]
struct Issuer(Arc<Mutex<Result<Vec<Value>, String>>>, Arc<AtomicUsize>);

impl Default for Issuer {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Err("not yet".to_owned()))), Arc::default())
    }
}

impl Issuer {
    fn publish(&self, keys: Result<Vec<Value>, String>) {
        *self.0.lock().unwrap() = keys;
    }

    fn reads(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Published for Issuer {
    async fn read(&self) -> Result<Bytes, String> {
        self.1.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.0.lock().unwrap().clone().map(|keys| Bytes::from(json!({"keys": keys}).to_string()))
    }
}

fn settings() -> Settings {
    Settings {
        authentication: Some(ReportAuthentication::Jwks),
        audience: "system-compute".to_owned(),
        subjects: CSM_SUBJECTS.map(str::to_owned).to_vec(),
        issuers: vec![ISSUER.to_owned()],
        jwks_url: Some("https://localhost:1/keys".to_owned()),
        jwks_ca_file: None,
    }
}

struct Fixture {
    router: Router,
    /// The nodes whose reports came through.
    heard: Arc<Mutex<Vec<String>>>,
    telemetry: Arc<Telemetry>,
    metrics: Arc<Metrics>,
}

fn fixture(verifier: Verifier, settings: &Settings) -> Fixture {
    let telemetry = Telemetry::shared();
    let metrics = Arc::new(Metrics::new(Arc::clone(&telemetry)));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let endpoint = {
        let heard = Arc::clone(&heard);
        patch(move |Path(path): Path<String>| {
            heard.lock().unwrap().push(path);
            async { "stored" }
        })
    };
    let router = Router::new().route("/v2/components/{xname}", endpoint);
    let router = behind(router, verifier, settings.patterns().unwrap(), &telemetry, &metrics);
    Fixture { router, heard, telemetry, metrics }
}

fn with_keys(issuer: &Issuer) -> Fixture {
    let settings = settings();
    fixture(Verifier::Jwks(Jwks::of(&settings, Box::new(issuer.clone()))), &settings)
}

impl Fixture {
    async fn send(&self, node: &str, authorization: &str) -> (StatusCode, String, HeaderMap) {
        let mut request = axum::http::Request::patch(format!("/v2/components/{node}"));
        if !authorization.is_empty() {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let detail = serde_json::from_slice::<Value>(&body).ok().and_then(|body| body["detail"].as_str().map(str::to_owned));
        (status, detail.unwrap_or_default(), headers)
    }

    async fn show(&self, node: &str, token: &str) -> (StatusCode, String) {
        let (status, detail, _) = self.send(node, &format!("Bearer {token}")).await;
        (status, detail)
    }

    fn heard(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    fn put_off(&self) -> u64 {
        self.telemetry.reports_put_off.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_node_reports_for_itself_and_for_no_other() {
    let (issuer, signer) = (Issuer::default(), Signer::new("k1"));
    issuer.publish(Ok(vec![json!({"kty": "new", "kid": "k0"}), signer.jwk()]));
    let fixture = with_keys(&issuer);
    let token = signer.token(&claims(NODE_0, json!({})));
    assert_eq!(fixture.show(NODE_0, &token).await.0, StatusCode::OK);
    assert_eq!(fixture.show("X1000C0S0B0N00", &token).await.0, StatusCode::OK, "the same node, written otherwise");
    let ncn = json!({"sub": "spiffe://shasta/ncn/x3000c0s2b0n0/workload/bos-reporter"});
    assert_eq!(fixture.show("x3000c0s2b0n0", &signer.token(&claims(NODE_0, ncn))).await.0, StatusCode::OK);
    assert_eq!(fixture.heard(), 3);

    let (status, detail) = fixture.show("x1000c0s0b0n1", &token).await;
    assert_eq!(
        (status, detail.as_str()),
        (StatusCode::FORBIDDEN, "this is the token of x1000c0s0b0n0; it cannot report for x1000c0s0b0n1")
    );
    for sub in ["spiffe://shasta/compute/workload/bos-reporter", "spiffe://shasta/compute/x1000c0s0b0n0/workload/cfs-state-reporter"] {
        let (status, detail) = fixture.show(NODE_0, &signer.token(&claims(NODE_0, json!({"sub": sub})))).await;
        assert!(status == StatusCode::FORBIDDEN && detail.contains(sub), "{detail}");
    }
    assert_eq!(fixture.heard(), 3);
    let text = fixture.metrics.text().unwrap();
    assert!(text.contains(r#"bos_reports_total{outcome="forbidden"} 3"#), "{text}");
    assert_eq!(issuer.reads(), 1);
    // A path that names no node is refused by the endpoint, which has nothing to store of it.
    assert_eq!(fixture.send("nid1", "").await.0, StatusCode::OK);
}

#[tokio::test]
async fn who_cannot_be_known_is_told_why() {
    let (issuer, signer) = (Issuer::default(), Signer::new("k1"));
    issuer.publish(Ok(vec![signer.jwk()]));
    let fixture = with_keys(&issuer);
    let now = jiff::Timestamp::now().as_second();
    let with = |changes| signer.token(&claims(NODE_0, changes));
    let mut unnamed = claims(NODE_0, json!({}));
    unnamed.as_object_mut().unwrap().remove("exp");
    let shared = {
        // Signed with what everybody knows, as if it were a secret.
        let message = format!("{}.{}", base64(br#"{"alg":"HS256","kid":"k1"}"#), base64(claims(NODE_0, json!({})).to_string().as_bytes()));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, signer.pair.public_key().as_ref());
        format!("{message}.{}", base64(ring::hmac::sign(&key, message.as_bytes()).as_ref()))
    };
    let good = with(json!({}));
    for (token, says) in [
        (with(json!({"exp": now - 120})), "has expired"),
        (with(json!({"nbf": now + 120})), "not valid yet"),
        (with(json!({"nbf": "soon"})), "cannot be read"),
        (with(json!({"aud": "other"})), r#"not for audience "system-compute""#),
        (with(json!({"iss": "http://other"})), "not of issuer \"http://spire.local"),
        (signer.token(&unnamed), "does not say exp"),
        (Signer::new("k1").token(&claims(NODE_0, json!({}))), "signature of the token is wrong"),
        (Signer::new("k2").token(&claims(NODE_0, json!({}))), r#"no key "k2""#),
        (shared, "lists no key"),
        (signer.sign(&json!({"alg": "RS256", "kid": "k1"}), &claims(NODE_0, json!({}))), "lists no key"),
        (signer.sign(&json!({"alg": "none", "kid": "k1"}), &claims(NODE_0, json!({}))), "not a signed token"),
        (format!("{}A", &good[..good.len() - 4]), "signature of the token is wrong"),
        ("abc".to_owned(), "not a signed token"),
        ("x".repeat(MAX_TOKEN + 1), "at most"),
    ] {
        let (status, detail) = fixture.show(NODE_0, &token).await;
        assert!(status == StatusCode::UNAUTHORIZED && detail.contains(says), "{says}: {status} {detail}");
    }
    for authorization in ["", "Basic YTpi", "Bearer ", "Bearer"] {
        let (status, detail, headers) = fixture.send(NODE_0, authorization).await;
        assert!(status == StatusCode::UNAUTHORIZED && detail.contains("Authorization: Bearer"), "{authorization}: {detail}");
        assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer");
    }
    assert_eq!(fixture.heard(), 0);
    assert!(fixture.metrics.text().unwrap().contains(r#"bos_reports_total{outcome="unauthenticated"} 18"#));
    // Clocks may differ by a minute.
    for changes in [json!({"exp": now - 30}), json!({"nbf": now + 30})] {
        assert_eq!(fixture.show(NODE_0, &with(changes)).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn rsa_is_understood() {
    let issuer = Issuer::default();
    issuer.publish(Ok(vec![json!({"kty": "RSA", "alg": "RS256", "kid": "rsa-1", "e": "AQAB", "n": RSA_MODULUS})]));
    let fixture = with_keys(&issuer);
    assert_eq!(fixture.show(NODE_0, RSA_TOKEN).await.0, StatusCode::OK);
    let other = RSA_TOKEN.replacen("eyJpc3Mi", "eyJpc3Mj", 1);
    assert_eq!(fixture.show(NODE_0, &other).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_read_once_however_many_ask_and_not_too_often() {
    let (issuer, old, new) = (Issuer::default(), Signer::new("k1"), Signer::new("k2"));
    issuer.publish(Ok(vec![old.jwk()]));
    let fixture = with_keys(&issuer);
    let (old_token, new_token) = (old.token(&claims(NODE_0, json!({}))), new.token(&claims(NODE_0, json!({}))));
    let all = futures::future::join_all((0..100).map(|_| fixture.show(NODE_0, &old_token))).await;
    assert!(all.iter().all(|(status, _)| *status == StatusCode::OK));
    assert_eq!(issuer.reads(), 1);
    // What was read a moment ago is the word of the issuer; a caller with made-up keys cannot have it asked again and again.
    issuer.publish(Ok(vec![old.jwk(), new.jwk()]));
    assert_eq!(fixture.show(NODE_0, &new_token).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(issuer.reads(), 1);
    tokio::time::advance(Duration::from_secs(10)).await;
    let all = futures::future::join_all((0..100).map(|_| fixture.show(NODE_0, &new_token))).await;
    assert!(all.iter().all(|(status, _)| *status == StatusCode::OK));
    assert_eq!(issuer.reads(), 2);
    // A key that was taken back is good no longer than what was read is fresh.
    issuer.publish(Ok(vec![new.jwk()]));
    tokio::time::advance(Duration::from_secs(301)).await;
    fixture.show(NODE_0, &old_token).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.show(NODE_0, &old_token).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(issuer.reads(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_down_is_neither_a_yes_nor_a_no() {
    let (issuer, signer) = (Issuer::default(), Signer::new("k1"));
    issuer.publish(Err("connection refused".to_owned()));
    let fixture = with_keys(&issuer);
    let token = format!("Bearer {}", signer.token(&claims(NODE_0, json!({}))));
    for reads in [1, 1] {
        let (status, detail, headers) = fixture.send(NODE_0, &token).await;
        assert_eq!((status, &headers[header::RETRY_AFTER]), (StatusCode::SERVICE_UNAVAILABLE, &HeaderValue::from_static("5")));
        assert!(detail.contains("connection refused"), "{detail}");
        assert_eq!(issuer.reads(), reads);
    }
    assert_eq!((fixture.put_off(), fixture.heard()), (2, 0), "silence proves nothing meanwhile");
    issuer.publish(Ok(vec![signer.jwk()]));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(fixture.send(NODE_0, &token).await.0, StatusCode::OK);
    // Down again: what is known stays good for hours, not for ever.
    issuer.publish(Err("connection refused".to_owned()));
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(fixture.send(NODE_0, &token).await.0, StatusCode::OK);
    tokio::time::advance(Duration::from_secs(6 * 3600)).await;
    assert_eq!(fixture.send(NODE_0, &token).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn refusals_prove_nothing_until_one_node_was_known() {
    let (issuer, signer) = (Issuer::default(), Signer::new("k1"));
    issuer.publish(Ok(vec![signer.jwk()]));
    let fixture = with_keys(&issuer);
    // As with a wrong audience in the settings: every node is refused, and none of them is silent.
    let wrong = signer.token(&claims(NODE_0, json!({"aud": "other"})));
    fixture.show(NODE_0, &wrong).await;
    assert_eq!(fixture.put_off(), 1);
    fixture.show(NODE_0, &signer.token(&claims(NODE_0, json!({})))).await;
    fixture.show(NODE_0, &wrong).await;
    fixture.send(NODE_0, "").await;
    assert_eq!(fixture.put_off(), 1, "a stranger cannot hold time-outs back");
}

/// An API server that knows tokens which are names of users.
struct ApiServer {
    reviews: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
    down: AtomicBool,
    asked: Mutex<BTreeSet<String>>,
}

fn api_server() -> (Arc<ApiServer>, kube::Client) {
    let server = Arc::new(ApiServer {
        reviews: AtomicUsize::new(0),
        under_way: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        down: AtomicBool::new(false),
        asked: Mutex::default(),
    });
    let shared = Arc::clone(&server);
    let answer = tower::service_fn(move |request: axum::http::Request<kube::client::Body>| {
        let server = Arc::clone(&shared);
        async move {
            let body = request.into_body().collect_bytes().await.unwrap();
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            server.reviews.fetch_add(1, Ordering::SeqCst);
            server.most.fetch_max(server.under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            server.under_way.fetch_sub(1, Ordering::SeqCst);
            if server.down.load(Ordering::SeqCst) {
                let refusal =
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "down", "reason": "x", "code": 500});
                let response = axum::http::Response::builder().status(500).body(kube::client::Body::from(refusal.to_string().into_bytes()));
                return Ok::<_, Infallible>(response.unwrap());
            }
            let token = review["spec"]["token"].as_str().unwrap().to_owned();
            let known = token.starts_with("system:");
            review["status"] = json!({"authenticated": known, "user": {"username": token}, "audiences": review["spec"]["audiences"]});
            server.asked.lock().unwrap().insert(token);
            Ok(axum::http::Response::new(kube::client::Body::from(review.to_string().into_bytes())))
        }
    });
    (server, kube::Client::new(answer, "bos"))
}

fn with_reviews(client: kube::Client) -> Fixture {
    let settings = Settings {
        authentication: Some(ReportAuthentication::TokenReview),
        audience: "bos-operator".to_owned(),
        subjects: vec!["system:serviceaccount:nodes:{xname}".to_owned()],
        ..settings()
    };
    fixture(Verifier::Review(Box::new(review::Reviews::new(client, settings.audience.clone()))), &settings)
}

#[tokio::test(start_paused = true)]
async fn each_token_is_reviewed_once_and_few_at_a_time() {
    let (server, client) = api_server();
    let fixture = with_reviews(client);
    let nodes: Vec<String> = (0..500).map(|n| format!("x1000c0s{n}b0n0")).collect();
    for _ in 0..2 {
        let shown = nodes.iter().map(|node| {
            let (fixture, token) = (&fixture, format!("system:serviceaccount:nodes:{node}"));
            async move { fixture.show(node, &token).await }
        });
        let all = futures::future::join_all(shown).await;
        assert!(all.iter().all(|(status, _)| *status == StatusCode::OK));
        assert_eq!(server.reviews.load(Ordering::SeqCst), 500);
    }
    assert_eq!(server.most.load(Ordering::SeqCst), 16);
    let (status, _) = fixture.show("x1000c0s1b0n0", "system:serviceaccount:nodes:x1000c0s0b0n0").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    for _ in 0..2 {
        let (status, detail) = fixture.show("x1000c0s1b0n0", "made-up").await;
        assert!(status == StatusCode::UNAUTHORIZED && detail.contains("bos-operator"), "{detail}");
    }
    assert_eq!(server.reviews.load(Ordering::SeqCst), 501);
    // Somebody may have taken the token back.
    tokio::time::advance(Duration::from_secs(300)).await;
    fixture.show("x1000c0s0b0n0", "system:serviceaccount:nodes:x1000c0s0b0n0").await;
    assert_eq!(server.reviews.load(Ordering::SeqCst), 502);
}

#[tokio::test]
async fn an_api_server_that_does_not_say_is_neither_a_yes_nor_a_no() {
    let (server, client) = api_server();
    server.down.store(true, Ordering::SeqCst);
    let fixture = with_reviews(client);
    let token = "system:serviceaccount:nodes:x1000c0s0b0n0";
    let (status, detail) = fixture.show(NODE_0, token).await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && detail.contains("does not say"), "{detail}");
    assert_eq!((fixture.put_off(), fixture.heard()), (1, 0));
    server.down.store(false, Ordering::SeqCst);
    assert_eq!(fixture.show(NODE_0, token).await.0, StatusCode::OK);
}

#[test]
fn keys_come_by_https_only() {
    let with_url = |url: &str| Settings { jwks_url: Some(url.to_owned()), ..settings() };
    let error = Jwks::new(&with_url("http://spire-jwks/keys")).err().unwrap().to_string();
    assert!(error.contains("reportJwksUrl") && error.contains("https://"), "{error}");
    Jwks::new(&with_url("https://spire-jwks/keys")).unwrap();
}

/// A token that `openssl dgst -sha256 -sign` signed; its private key is nowhere.
const RSA_TOKEN: &str = "eyJhbGciOiAiUlMyNTYiLCAia2lkIjogInJzYS0xIiwgInR5cCI6ICJKV1QifQ.eyJpc3MiOiAiaHR0cDovL3NwaXJlLmxvY2FsL3NoYXN0YS92c2hhc3Rha\
    W8iLCAiYXVkIjogWyJzeXN0ZW0tY29tcHV0ZSJdLCAic3ViIjogInNwaWZmZTovL3NoYXN0YS9jb21wdXRlL3gxMDAwYzBzMGIwbjAvd29ya2xvYWQvYm9zL\
    XJlcG9ydGVyIiwgImV4cCI6IDQxMDI0NDQ4MDB9.bNdffT4t7NiHuxBq85qgzUdCKISQlAVtPfmCYS4rhvkLlLGWTjLiUmhbpY4TodKyy0_hbxu7cD9JQv2L\
    fSUqHYRUht87jWra1fseQWUB6zBit1oQuLMMYwvdCg-hOKtKRHNciPyE2YO7G0oYH_pVm7mp74OmZb_mjN2evHeMLcctlK83VoBNLprNy8zkOQ8X1QKQiJBZ\
    JVIGJbeGV_YqBnTpOUQ1b-OLasRbTlb3wgpTvy5Z3_IDv4wpbdxuYJtKf7TqVcFcVylu5-lBgbTdH-\
    038rCrCo7RYj8y3xZ_kE3LI_vq6RpRP5DPWhpRZYM8-gwrEuyffX9cIK0vf4ervg";
const RSA_MODULUS: &str = "x7hicroTVjrE_eecrBDYWLkqbBU5WhzJZOZJmzX8jP5BvKdu1iP49y0GrjtUDFwyAcXEVCxh3rV7wqiOfy1m6qeWg29htXTRUMWTzkcHYhO_QUfmn6VQv69O\
    qNDWetgHLvXoUHfzQNKQlToX1HKRN5QFen3leDE_AYZzxjpNiYhjhKQadxDTt92lVdB0CzBDIEA7oShajwVZdJe-fTmeoIuK4cthiRaws4Xt6Tt2WvKDmiil\
    mktq4xnI9EmtOyQ9O1a6bY_zsarUOcMupEP6SEE7LL0-q1ODAyCV7MGirzkHiRjkoTzhoem2ak3WdXGF69pfvs-75jWDNRh6Mds79w";
