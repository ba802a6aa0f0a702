//! Certificates are exchanged while reviews go on, and none is lost.

use bos_e2e::rig::{NAMESPACE, WebhookConfig, template};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};

use crate::bench::{Bench, LIMIT, Result};

/// Every `kubectl apply` must come back with the warning of the webhook: a review that is lost is let through without one. A second
/// replica takes part in the rotation.
pub async fn rotates(bench: &Bench) -> Result {
    let args = ["--certificate-seconds=30".to_owned(), "--overlap-seconds=3".to_owned()].to_vec();
    let replica = bench.rig.start_replica(&WebhookConfig { args, failure_policy: None }).await?;
    let secrets: Api<Secret> = Api::namespaced(bench.rig.client(), NAMESPACE);
    let first = state(&secrets).await?;
    let mut object: Value = serde_json::from_str(&template::simple("rotating"))?;
    object["spec"]["bootSets"][0]["etag"] = json!("another");
    let (began, mut applied) = (std::time::Instant::now(), 0);
    loop {
        object["spec"]["description"] = json!(format!("number {applied}"));
        let said = bench.rig.control_plane().apply(&object.to_string()).await?;
        anyhow::ensure!(said.success() && said.stderr.contains("not another"), "review {applied} was lost: {said:?}");
        applied += 1;
        let now = state(&secrets).await?;
        if now.certificate != first.certificate && now.settled {
            break;
        }
        anyhow::ensure!(began.elapsed() < LIMIT, "there was no rotation: {now:?}");
    }
    println!("{applied} reviews while the certificate was exchanged");
    tokio::task::spawn_blocking(move || replica.stop()).await?;
    Ok(())
}

#[derive(Debug)]
struct State {
    certificate: Vec<u8>,
    settled: bool,
}

async fn state(secrets: &Api<Secret>) -> Result<State> {
    let data = secrets.get("bos-webhook-tls").await?.data.unwrap_or_default();
    let settled = !data.contains_key("previous-ca.crt") && !data.contains_key("next.crt");
    Ok(State { certificate: data.get("tls.crt").map(|text| text.0.clone()).unwrap_or_default(), settled })
}
