//! The whole thing on one machine: control plane, our manifests, simulated site and the operator, for scenarios, demo and benchmarks.
//!
//! Everything that is not this process's own runs as a child that ends with it. The operator gets a token of its own service account,
//! so it has the rights it has in a cluster and no more.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use bos_e2e::rig::{Rig, RigConfig, template};
//! use std::time::Duration;
//!
//! let rig = Rig::start(RigConfig::with_nodes(10)).await?;
//! rig.wait_discovered(10, Duration::from_secs(60)).await?;
//! rig.apply(&template::simple("cos")).await?;
//! rig.apply(&template::session("boot-1", "cos", "Boot")).await?;
//! let ended = rig.wait_session("boot-1", Rig::is_complete, Duration::from_secs(120)).await?;
//! assert_eq!(rig.site().summary().await?.up, 10, "{:?}", ended.status);
//! rig.stop().await;
//! # Ok(()) }
//! ```

mod agent;
mod binaries;
mod config;
mod install;
mod operator;
mod site_side;
mod standby;
pub mod template;
mod truth;
mod wait;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bos_crds::{Session, SessionPhase};
use serde_json::json;

pub use binaries::{Profile, boa_binary, operator_binary, site_binary, webhook_binary};
pub use config::{PowerBy, RigConfig, SitePlace};
pub use operator::{Exit, Killer, Operator};
pub use site_side::{CallCounts, SiteClient, SiteSummary};
pub use standby::Standby;
pub use truth::{Truth, Wanted};
pub use wait::watch_until;
pub use webhook::{Webhook, WebhookConfig};

use operator::Ports;

use crate::control_plane::ControlPlane;
use crate::node_agent::{NodeAgent, NodeAgentConfig};
use crate::proxy::Proxy;
use crate::site::{SiteHandle, Urls};

/// Where the operator's own objects are, and where the rig puts templates and Sessions.
pub const NAMESPACE: &str = "bos";
/// How long parts may take to start.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Control plane, manifests, site and operator, running. Dropping it ends them all.
// Dropped in this order: whoever calls others goes first.
pub struct Rig {
    standby: Option<Standby>,
    operator: Operator,
    node_agent: Option<NodeAgent>,
    site: site_side::SiteSide,
    proxy: Option<Proxy>,
    client: kube::Client,
    http: reqwest::Client,
    health: String,
    reports: String,
    // Shared, so that helpers may hold on to it; last, so that it goes last.
    control_plane: Arc<ControlPlane>,
}

impl Rig {
    /// Starts everything and waits until the operator leads, unless the configuration says not to start it.
    pub async fn start(config: RigConfig) -> anyhow::Result<Self> {
        Self::start_with(config, |_| {}).await
    }

    /// The same, telling of each step as it begins.
    pub async fn start_with(config: RigConfig, mut say: impl FnMut(&str)) -> anyhow::Result<Self> {
        crate::control_plane::install_crypto_provider();
        let operator_binary = match &config.operator_binary {
            Some(path) => path.clone(),
            None => operator_binary(config.profile).await?,
        };
        say("starting etcd and kube-apiserver");
        let controller_manager = config.controller_manager || config.node_agent.is_some();
        let builder = ControlPlane::builder().controller_manager(controller_manager).audit_log(config.audit_log);
        let control_plane = Arc::new(builder.start().await?);
        say("applying our manifests with kubectl");
        let manifests = config.manifests.clone().unwrap_or_else(install::manifests);
        install::apply(&control_plane, &manifests, &config.options).await?;
        let client = control_plane.client().await?;
        let proxy = if config.proxy { Some(Proxy::start(&control_plane).await?) } else { None };
        let node_agent = start_node_agent(&control_plane, agent::node(&config).await?, proxy.as_ref()).await?;
        say("starting the simulated site");
        let (ports, second) = (Ports::free()?, Ports::free()?);
        let mut site_config = config.site.clone();
        let reported_to = if config.standby { second } else { ports };
        site_config.settings.operator_url.get_or_insert_with(|| reported_to.reports_url());
        let site = site_side::SiteSide::start(site_config, config.site_place, control_plane.folder()).await?;
        let via = proxy.as_ref().map(Proxy::addr);
        let kubeconfig = control_plane.kubeconfig_for_service_account(NAMESPACE, install::SERVICE_ACCOUNT, via).await?;
        let agent_template = agent::install(&control_plane, &config, site.urls()).await?;
        let mut launch = operator::Launch {
            identity: operator::FIRST,
            binary: operator_binary,
            kubeconfig,
            folder: control_plane.folder(),
            ports,
            urls: site.urls().clone(),
            agent_template,
            config: &config,
        };
        let operator = Operator::new(launch.spec(), config.supervise);
        let standby = match config.standby {
            true => Some(Standby::new(&control_plane, &mut launch, second).await?),
            false => None,
        };
        let http = site_side::http_client()?;
        let (health, reports) = (ports.health_url(), ports.reports_url());
        let rig = Self { standby, operator, node_agent, site, proxy, client, http, health, reports, control_plane };
        if config.start_operator {
            say("starting the operator");
            rig.operator.start()?;
            rig.wait_ready(START_LIMIT).await?;
            if let Some(standby) = &rig.standby {
                standby.start(&rig.http).await?;
            }
        }
        Ok(rig)
    }

    /// The control plane: kubectl, kubeconfigs, metrics, outages.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// A client of the cluster administrator.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The proxy before the API server, if one was asked for.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// The node that runs Jobs, if one was asked for.
    pub fn node_agent(&self) -> Option<&NodeAgent> {
        self.node_agent.as_ref()
    }

    /// The operator's process.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The second operator, if one was asked for.
    pub fn standby(&self) -> Option<&Standby> {
        self.standby.as_ref()
    }

    /// What the operator says of its readiness.
    pub async fn readiness(&self) -> String {
        standby::readiness(&self.http, &self.health).await
    }

    /// The site, through its admin listener; works wherever it runs.
    pub fn site(&self) -> &SiteClient {
        self.site.client()
    }

    /// The site itself, with hooks, if it runs in this process ([`SitePlace::InProcess`]).
    pub fn site_handle(&self) -> Option<SiteHandle> {
        self.site.handle()
    }

    /// Process id of the site; this process's own if it runs here.
    pub fn site_pid(&self) -> u32 {
        self.site.pid()
    }

    /// Base URLs of the site's services.
    pub fn site_urls(&self) -> &Urls {
        self.site.urls()
    }

    /// The manifests that the rig applied, samples among them.
    pub fn manifests() -> PathBuf {
        install::manifests()
    }

    /// Base URL of the operator's listener for nodes and workload managers.
    pub fn report_url(&self) -> &str {
        &self.reports
    }

    /// Folder with all logs.
    pub fn folder(&self) -> PathBuf {
        self.control_plane.folder().to_owned()
    }

    /// Applies YAML or JSON with kubectl; a refusal is an error.
    pub async fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        self.control_plane.apply(manifest).await?.ok()
    }

    /// Runs kubectl as the cluster administrator in our namespace; a failure is an error.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["-n", NAMESPACE];
        all.extend(args);
        self.control_plane.kubectl(&all).await?.ok()
    }

    /// Changes options of the boot service, as `kubectl patch bootoptions default` does.
    pub async fn set_options(&self, spec: &serde_json::Value) -> anyhow::Result<()> {
        install::patch_options(&self.control_plane, spec).await
    }

    /// Waits until a quota counts: until its controller has looked it refuses nothing, or everything.
    pub async fn wait_quota(&self, name: &str) -> anyhow::Result<()> {
        let counted = "--for=jsonpath={.status.hard}";
        self.kubectl(&["wait", counted, &format!("resourcequota/{name}"), "--timeout=60s"]).await.map(drop)
    }

    /// The emergency stop: while it is on, no power action leaves.
    pub async fn emergency_stop(&self, on: bool) -> anyhow::Result<()> {
        let name = bos_crds::labels::EMERGENCY_STOP;
        let args: &[&str] = if on { &["create", "configmap", name] } else { &["delete", "configmap", name, "--ignore-not-found"] };
        self.kubectl(args).await.map(drop)
    }

    /// SIGKILL, like a power cut. With [`RigConfig::supervise`] it comes back by itself.
    pub fn kill_operator(&self) {
        self.operator.kill();
    }

    /// Ends the operator as a kubelet does (SIGTERM), starts it again and waits until it leads.
    pub async fn restart_operator(&self) -> anyhow::Result<()> {
        self.operator.stop().await;
        self.operator.start()?;
        self.wait_ready(START_LIMIT).await
    }

    /// Starts a stopped or killed operator and waits until it leads. With [`RigConfig::supervise`] it may have come back already.
    pub async fn start_operator(&self) -> anyhow::Result<()> {
        self.operator.start()?;
        self.wait_ready(START_LIMIT).await
    }

    /// Installs again what was removed, as an administrator does who has changed his mind, and gives the operator its new token.
    pub async fn install_again(&self, config: &RigConfig) -> anyhow::Result<()> {
        let control_plane = self.control_plane();
        install::apply(control_plane, &install::manifests(), &config.options).await?;
        agent::install(control_plane, config, self.site.urls()).await?;
        let via = self.proxy.as_ref().map(Proxy::addr);
        // The operator finds it where the former was.
        control_plane.kubeconfig_for_service_account(NAMESPACE, install::SERVICE_ACCOUNT, via).await.map(drop)
    }

    /// Applies the manifests of another release over those that are there.
    pub async fn apply_release(&self, manifests: &std::path::Path) -> anyhow::Result<()> {
        install::apply(self.control_plane(), manifests, &json!({})).await
    }

    /// Waits until the operator says that it leads. An error shows the end of its log.
    pub async fn wait_ready(&self, limit: Duration) -> anyhow::Result<()> {
        standby::wait_until_ready(&self.operator, &self.http, &self.health, "ok: leading", limit).await
    }

    /// The operator's metrics.
    pub async fn operator_metrics(&self) -> anyhow::Result<String> {
        let answer = self.http.get(format!("{}/metrics", self.health)).send().await.context("asking the operator for metrics")?;
        answer.error_for_status().context("the operator's metrics")?.text().await.context("reading the operator's metrics")
    }

    /// Whether a Session has ended.
    pub fn is_complete(session: &Session) -> bool {
        session.status.as_ref().is_some_and(|status| status.phase == Some(SessionPhase::Complete))
    }

    /// Sets `suspend` of a Session.
    pub async fn suspend(&self, session: &str, suspend: bool) -> anyhow::Result<()> {
        self.patch_session(session, &json!({ "spec": { "suspend": suspend } })).await
    }

    /// Cancels a Session.
    pub async fn cancel(&self, session: &str) -> anyhow::Result<()> {
        self.patch_session(session, &json!({ "spec": { "cancel": true } })).await
    }

    async fn patch_session(&self, session: &str, patch: &serde_json::Value) -> anyhow::Result<()> {
        self.kubectl(&["patch", "sessions.bos.hpe.com", session, "--type=merge", "-p", &patch.to_string()]).await.map(drop)
    }

    /// Ends everything; like dropping it, but without blocking the runtime.
    pub async fn stop(self) {
        self.operator.stop().await;
        // It can only fail when dropping panicked, and then it has said so.
        let _stopped = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

async fn start_node_agent(
    control_plane: &ControlPlane,
    config: Option<NodeAgentConfig>,
    proxy: Option<&Proxy>,
) -> anyhow::Result<Option<NodeAgent>> {
    let Some(mut config) = config else { return Ok(None) };
    config.pods_reach = config.pods_reach.or(proxy.map(Proxy::addr));
    NodeAgent::start(control_plane, config).await.map(Some)
}
