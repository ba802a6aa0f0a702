//! The webhook as a child process on a loopback port, with the roles and configurations of our own manifests.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{NAMESPACE, Rig, START_LIMIT, install, site_side, webhook_binary};
use crate::control_plane::{ProcStat, Process, ProcessSpec, free_port};

/// The webhook's service account, and the name of its configurations.
const NAME: &str = "bos-webhook";
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// How the webhook is started.
#[derive(Debug, Clone, Default)]
pub struct WebhookConfig {
    /// Further flags.
    pub args: Vec<String>,
    /// The `failurePolicy` of every rule, instead of those of the manifests.
    pub failure_policy: Option<String>,
}

/// A running webhook. Dropping it ends the process; its configurations stay, as when its pods are gone.
pub struct Webhook {
    process: Process,
    port: u16,
    health: String,
}

impl Rig {
    /// Applies the manifests of the webhook, starts it, and waits until the API server trusts it.
    pub async fn start_webhook(&self, config: &WebhookConfig) -> anyhow::Result<Webhook> {
        let port = free_port()?;
        self.apply_webhook_manifests(port, config).await.context("applying manifests/webhook")?;
        let webhook = self.start_webhook_process("bos-webhook", port, config).await?;
        self.wait_trusted().await?;
        Ok(webhook)
    }

    /// Starts a process that the API server is not told of, beside the one that it asks: another replica.
    pub async fn start_replica(&self, config: &WebhookConfig) -> anyhow::Result<Webhook> {
        self.start_webhook_process("bos-webhook-replica", free_port()?, config).await
    }

    async fn start_webhook_process(&self, name: &str, port: u16, config: &WebhookConfig) -> anyhow::Result<Webhook> {
        let health_port = free_port()?;
        let urls = self.site_urls();
        let kubeconfig = self.control_plane().kubeconfig_for_service_account(NAMESPACE, NAME, None).await?;
        let log: PathBuf = self.folder().join(format!("{name}.log"));
        let spec = ProcessSpec::new(name, webhook_binary().await?, &log)
            .args([
                format!("--namespace={NAMESPACE}"),
                format!("--listen=127.0.0.1:{port}"),
                format!("--health-listen=127.0.0.1:{health_port}"),
                "--names=127.0.0.1".to_owned(),
                "--log=info,bos_webhook=debug".to_owned(),
                "--log-format=json".to_owned(),
                format!("--hsm-base-url={}", urls.hsm),
                format!("--pcs-base-url={}", urls.pcs),
                format!("--cfs-base-url={}", urls.cfs),
                format!("--ims-base-url={}", urls.ims),
                format!("--s3-endpoint={}", urls.s3),
            ])
            .args(config.args.clone())
            .env("S3_ACCESS_KEY", &urls.s3_access_key)
            .env("S3_SECRET_KEY", &urls.s3_secret_key)
            .env("KUBECONFIG", &kubeconfig)
            .env("RUST_BACKTRACE", "1");
        let webhook = Webhook { process: Process::start(&spec)?, port, health: format!("http://127.0.0.1:{health_port}") };
        webhook.wait_ready().await?;
        Ok(webhook)
    }

    /// The manifests but the pods, with the address of our process in the place of the Service.
    async fn apply_webhook_manifests(&self, port: u16, config: &WebhookConfig) -> anyhow::Result<()> {
        let folder = install::manifests().join("webhook");
        let built = self.control_plane().kubectl(&["kustomize", &folder.to_string_lossy()]).await?.ok()?;
        let mut objects = Vec::new();
        for document in built.split("\n---\n") {
            let mut object: Value = serde_saphyr::from_str(document).context("a manifest of the webhook")?;
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            if ["Deployment", "Service", "PodDisruptionBudget", "ConfigMap"].contains(&kind.as_str()) {
                continue;
            }
            for hook in object["webhooks"].as_array_mut().into_iter().flatten() {
                let path = hook["clientConfig"]["service"]["path"].as_str().unwrap_or_default().to_owned();
                hook["clientConfig"] = json!({"url": format!("https://127.0.0.1:{port}{path}")});
                if let Some(policy) = &config.failure_policy {
                    hook["failurePolicy"] = json!(policy);
                }
            }
            objects.push(object);
        }
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).await.map(drop)
    }

    /// Waits until both configurations have the authority of the certificate that is served.
    async fn wait_trusted(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !self.is_trusted().await? {
            anyhow::ensure!(Instant::now() < deadline, "the API servers were not told whom to trust");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn is_trusted(&self) -> anyhow::Result<bool> {
        let validating: Api<ValidatingWebhookConfiguration> = Api::all(self.client());
        let mutating: Api<MutatingWebhookConfiguration> = Api::all(self.client());
        let secrets: Api<Secret> = Api::namespaced(self.client(), NAMESPACE);
        let (one, other) = (validating.get(NAME).await?, mutating.get(NAME).await?);
        let data = secrets.get_opt("bos-webhook-tls").await?.and_then(|secret| secret.data).unwrap_or_default();
        let Some(authority) = data.get("ca.crt") else { return Ok(false) };
        let authority = String::from_utf8_lossy(&authority.0).into_owned();
        let trusts = |config: &WebhookClientConfig| {
            config.ca_bundle.as_ref().is_some_and(|bundle| String::from_utf8_lossy(&bundle.0).contains(&authority))
        };
        let mut configs = one.webhooks.iter().flatten().map(|hook| &hook.client_config);
        let mut others = other.webhooks.iter().flatten().map(|hook| &hook.client_config);
        Ok(configs.all(trusts) && others.all(trusts))
    }
}

impl Webhook {
    /// Waits until it says that it is ready.
    pub async fn wait_ready(&self) -> anyhow::Result<()> {
        let (http, deadline) = (site_side::http_client()?, Instant::now() + START_LIMIT);
        loop {
            let answer = match http.get(format!("{}/readyz", self.health)).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => format!("{error:#}"),
            };
            let ended = self.process.exit_status();
            anyhow::ensure!(
                ended.is_none() && Instant::now() < deadline,
                "the webhook is not ready: {answer} {ended:?}\n{}",
                self.process.log_tail(30)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Where it listens for reviews.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The port of reviews.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// CPU time and memory.
    pub fn stats(&self) -> anyhow::Result<ProcStat> {
        self.process.stats()
    }

    /// Sends it a signal, such as STOP and CONT to freeze it for a while.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.log_tail(lines)
    }

    /// Ends it with SIGTERM; the way in which it ended.
    pub fn stop(self) -> Option<std::process::ExitStatus> {
        self.process.terminate(GRACE)
    }
}
