//! Clients that send rubbish, too much, or nothing: all are refused, others are served meanwhile, and memory stays bounded.

use bos_e2e::rig::{Webhook, template};
use futures::future::join_all;
use futures::stream;
use reqwest::{Body, Client, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::bench::{Bench, LIMIT, Result};

/// What all of it may cost in memory.
const MEMORY: u64 = 20 * 1024 * 1024;
/// Connections that say nothing.
const SILENT: usize = 24;
/// Requests whose body never ends.
const ENDLESS: usize = 12;

pub async fn clients(bench: &Bench, webhook: &Webhook) -> Result {
    let client = Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().timeout(LIMIT).build()?;
    let post = async |path: &str, body: Vec<u8>| -> Result<(StatusCode, String)> {
        let answer = client.post(format!("{}{path}", webhook.url())).body(body).send().await?;
        Ok((answer.status(), answer.text().await?))
    };
    // What a review costs is not what is measured.
    assert_eq!(post("/validate", review().to_string().into_bytes()).await?.0, StatusCode::OK);
    let before = webhook.stats()?.peak_rss_bytes;

    for (body, words) in malformed() {
        let (status, said) = post("/validate", body).await?;
        assert!(status == StatusCode::BAD_REQUEST && said.contains(words), "{status} {said:?} has not {words:?}");
    }
    for (body, words) in of_the_right_types() {
        let (status, said) = post("/validate", body).await?;
        assert!(status == StatusCode::BAD_REQUEST && said.contains(words), "{status} {said:?} has not {words:?}");
    }
    for body in mutated(400) {
        for path in ["/validate", "/mutate"] {
            let (status, said) = post(path, body.clone()).await?;
            let answered = status == StatusCode::OK && said.contains("AdmissionReview");
            assert!(answered || status == StatusCode::BAD_REQUEST, "{status} {said}: {}", String::from_utf8_lossy(&body));
        }
    }
    let large = join_all((0..8).map(|_| too_large(&client, webhook)));
    let endless = join_all((0..ENDLESS).map(|_| endless(&client, webhook)));
    let silent = join_all((0..SILENT).map(|_| silent(webhook)));
    let served = served_meanwhile(bench);
    let (large, endless, silent, served) = futures::join!(large, endless, silent, served);
    served?;
    large.into_iter().chain(endless).chain(silent).collect::<Result<Vec<()>>>()?;

    let more = webhook.stats()?.peak_rss_bytes.saturating_sub(before);
    println!("{} KiB more memory at most", more / 1024);
    assert!(more <= MEMORY, "{} KiB more memory\n{}", more / 1024, webhook.log_tail(5));
    Ok(())
}

fn review() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "u-1", "kind": {"group": "bos.hpe.com", "version": "v1alpha1", "kind": "Session"}, "name": "hostile",
                    "namespace": "bos", "operation": "CREATE", "userInfo": {"username": "alice"}, "dryRun": true,
                    "object": serde_json::from_str::<Value>(&template::session("hostile", "cos", "Boot")).unwrap()}
    })
}

/// Documents that any template or Session might be, and that would take many times their size once they are read.
fn of_the_right_types() -> Vec<(Vec<u8>, &'static str)> {
    let with = |kind: &str, object: String| {
        let mut review = review();
        review["request"]["kind"]["kind"] = kind.into();
        review["request"]["object"] = Value::Null;
        review.to_string().replace("\"object\":null", &format!("\"object\":{object}")).into_bytes()
    };
    let boot_sets = vec![r#"{"name":"","path":""}"#; 150_000].join(",");
    let annotations: Vec<String> = (0..300_000).map(|number| format!("\"{number:x}\":\"\"")).collect();
    vec![
        (with("SessionTemplate", format!(r#"{{"metadata":{{"name":"t"}},"spec":{{"bootSets":[{boot_sets}]}}}}"#)), "has more than"),
        (
            with("Session", format!(r#"{{"metadata":{{"name":"s","annotations":{{{}}}}},"spec":{{}}}}"#, annotations.join(","))),
            "has more than",
        ),
    ]
}

fn malformed() -> Vec<(Vec<u8>, &'static str)> {
    let changed = |change: fn(&mut Value)| {
        let mut review = review();
        change(&mut review);
        review.to_string().into_bytes()
    };
    vec![
        (Vec::new(), "EOF while parsing"),
        (b"{\"kind\":".to_vec(), "EOF while parsing"),
        (vec![0xFF; 100_000], "expected value"),
        ([vec![b'['; 1_000_000], vec![b']'; 1_000_000]].concat(), "no AdmissionReview"),
        (
            format!(
                "{{\"apiVersion\": \"admission.k8s.io/v1\", \"kind\": \"AdmissionReview\", \"request\": [{}0]}}",
                "0,".repeat(1_500_000)
            )
            .into_bytes(),
            "no AdmissionReview",
        ),
        (changed(|review| review["request"]["object"] = json!([0])), "request.object"),
        (changed(|review| review["request"]["object"] = Value::Null), "request.object: is missing"),
        (changed(|review| review["request"]["object"]["spec"]["operation"] = json!("Explode")), "unknown variant `Explode`"),
        (changed(|review| review["request"]["kind"]["group"] = json!("apps")), "is not judged here"),
        (changed(|review| review["apiVersion"] = json!("v1")), "not admission.k8s.io/v1"),
        (changed(|review| review["request"] = Value::Null), "has no request"),
    ]
}

/// Good reviews with bytes changed, cut out or doubled, always the same ones.
fn mutated(count: usize) -> Vec<Vec<u8>> {
    let good = review().to_string().into_bytes();
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = move |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % bound as u64).unwrap()
    };
    let mut bodies = Vec::with_capacity(count);
    for _ in 0..count {
        let mut body = good.clone();
        for _ in 0..=next(4) {
            let at = next(body.len());
            match next(3) {
                0 => body[at] = u8::try_from(next(256)).unwrap(),
                1 => drop(body.drain(at..(at + next(20)).min(body.len()))),
                _ => {
                    let piece = body[at..(at + next(40)).min(body.len())].to_vec();
                    body.splice(at..at, piece);
                }
            }
            if body.is_empty() {
                break;
            }
        }
        bodies.push(body);
    }
    bodies
}

/// 10 MB with and without their length. The server may close before it has taken all, which the client may see as an error.
async fn too_large(client: &Client, webhook: &Webhook) -> Result {
    let block = || stream::iter((0..160).map(|_| Ok::<_, std::io::Error>(vec![b' '; 65536])));
    for body in [Body::from(vec![b' '; 10 << 20]), Body::wrap_stream(block())] {
        match client.post(format!("{}/validate", webhook.url())).body(body).send().await {
            // Large bodies are read one after the other, so one may have waited for too long.
            Ok(answer) => anyhow::ensure!(
                [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::REQUEST_TIMEOUT].contains(&answer.status()),
                "{}",
                answer.status()
            ),
            Err(error) => anyhow::ensure!(error.is_request() || error.is_body(), "{error:#}"),
        }
    }
    Ok(())
}

/// A body that begins and never goes on.
async fn endless(client: &Client, webhook: &Webhook) -> Result {
    let begun = stream::iter([Ok::<_, std::io::Error>(vec![b'{'; 1000])]);
    let body = Body::wrap_stream(futures::StreamExt::chain(begun, stream::pending()));
    let answer = client.post(format!("{}/validate", webhook.url())).body(body).send().await?;
    anyhow::ensure!(answer.status() == StatusCode::REQUEST_TIMEOUT, "{}", answer.status());
    Ok(())
}

/// A connection that never says anything is closed by the server.
async fn silent(webhook: &Webhook) -> Result {
    let mut stream = TcpStream::connect(("127.0.0.1", webhook.port())).await?;
    let read = tokio::time::timeout(LIMIT, stream.read(&mut [0; 1])).await?;
    anyhow::ensure!(!matches!(read, Ok(count) if count > 0), "the server spoke first");
    Ok(())
}

/// The API server is answered while others hold connections open.
async fn served_meanwhile(bench: &Bench) -> Result {
    let mut object: Value = serde_json::from_str(&template::simple("meanwhile"))?;
    object["spec"]["bootSets"][0]["etag"] = json!("another");
    for _ in 0..5 {
        let command = bench.rig.control_plane().kubectl_command();
        let said = command.run_with_input(&["apply", "--dry-run=server", "-f", "-"], &object.to_string()).await?;
        anyhow::ensure!(said.success() && said.stderr.contains("not another"), "not served: {said:?}");
    }
    Ok(())
}
