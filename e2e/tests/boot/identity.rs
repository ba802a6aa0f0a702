//! Who reports: an issuer of tokens as SPIRE is one, and nodes that show what it signed.

use std::ops::Range;
use std::sync::Arc;

use bos_e2e::rig::template;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::bench::{Bench, Commands, LIMIT, Result, outcome};

const NAME: &str = "http://spire.local/shasta/vshastaio";

/// Signs tokens, and publishes its key over HTTPS until it is dropped.
pub struct Issuer {
    pair: EcdsaKeyPair,
    url: String,
    authority: tempfile::NamedTempFile,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
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

impl Issuer {
    pub async fn start() -> Result<Self> {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "x": base64(&point[1..33]), "y": base64(&point[33..])}]});

        let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let authority = tempfile::NamedTempFile::new()?;
        std::fs::write(authority.path(), certificate.cert.pem())?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der()));
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)?;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://localhost:{}/keys", listener.local_addr()?.port());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, body) = (acceptor.clone(), keys.to_string());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = [0; 4096];
                    if stream.read(&mut request).await.is_ok() {
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                        let _ = stream.write_all((head + &body).as_bytes()).await;
                        let _ = stream.shutdown().await;
                    }
                });
            }
        });
        Ok(Self { pair, url, authority, task })
    }

    /// With which the operator knows its tokens.
    pub fn operator_args(&self) -> Vec<String> {
        vec![
            "--report-authentication=jwks".to_owned(),
            format!("--report-issuers={NAME}"),
            format!("--report-jwks-url={}", self.url),
            format!("--report-jwks-ca-file={}", self.authority.path().display()),
        ]
    }

    /// What SPIRE gives the reporter of a node.
    fn token(&self, node: &str) -> String {
        let claims = json!({
            "iss": NAME, "aud": ["system-compute"], "exp": jiff::Timestamp::now().as_second() + 3600,
            "sub": format!("spiffe://shasta/compute/{node}/workload/bos-reporter"),
        });
        let message = format!("{}.{}", base64(br#"{"alg":"ES256","kid":"k1","typ":"JWT"}"#), base64(claims.to_string().as_bytes()));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", base64(signature.as_ref()))
    }
}

/// Nodes boot by reports that they sign; one that shows nothing, or the token of another, is not heard until it shows its own.
pub async fn reports_with_tokens(bench: &Bench, issuer: &Issuer, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let mut tokens: std::collections::BTreeMap<String, String> = nodes.iter().map(|node| (node.clone(), issuer.token(node))).collect();
    tokens.remove(&nodes[2]);
    tokens.insert(nodes[3].clone(), issuer.token(&nodes[0]));
    bench.site.configure(|settings| {
        settings.report_tokens = tokens.clone();
        settings.report_backoff_scale = 0.05;
    });
    bench.template("tokens", &nodes, |_| {}).await?;
    let mark = bench.mark();
    bench.rig.apply(&template::session("tokens", "tokens", "Boot")).await?;
    let heard = |component: &bos_crds::BootComponent| {
        component.status.as_ref().is_some_and(|status| status.actual_state.as_ref().is_some_and(|actual| actual.image.is_some()))
    };
    bench.rig.wait_components(|all| nodes[..2].iter().all(|node| heard(&all[node])), LIMIT).await?;

    // By now the others have tried too; what they were told is what curl would show.
    let told = async |node: &str, token: Option<&String>| -> Result<(u16, Value)> {
        let url = format!("{}/apis/bos/v2/components/{node}", bench.rig.report_url());
        let mut request = reqwest::Client::builder().no_proxy().build()?.patch(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let body = json!({"id": node, "actual_state": {"bss_token": "made-up"}});
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await?;
        Ok((answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await?)?))
    };
    let (status, body) = told(&nodes[2], None).await?;
    assert!(status == 401 && body["detail"].as_str().unwrap().contains("Authorization: Bearer"), "{status} {body}");
    let (status, body) = told(&nodes[3], tokens.get(&nodes[0])).await?;
    assert!(status == 403 && body["detail"].as_str().unwrap().contains(&nodes[0]), "{status} {body}");
    let all = bench.components(&nodes).await?;
    assert_eq!(all.iter().filter(|component| heard(component)).count(), 2, "{all:?}");

    bench.site.configure(|settings| settings.report_tokens = nodes.iter().map(|node| (node.clone(), issuer.token(node))).collect());
    assert_eq!(outcome(&bench.ended("tokens").await?), "Succeeded/Succeeded");
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}
