//! A second operator, which stands by until the first one is gone.

use std::time::{Duration, Instant};

use super::operator::{Launch, Operator, Ports, SECOND};
use super::{NAMESPACE, START_LIMIT, install};
use crate::control_plane::ControlPlane;
use crate::proxy::Proxy;

/// The second operator. Dropping it ends the process.
pub struct Standby {
    operator: Operator,
    proxy: Option<Proxy>,
    ports: Ports,
}

impl Standby {
    /// Not started yet.
    pub(super) async fn new(control_plane: &ControlPlane, first: &mut Launch<'_>, ports: Ports) -> anyhow::Result<Self> {
        let proxy = if first.config.proxy { Some(Proxy::start(control_plane).await?) } else { None };
        let via = proxy.as_ref().map(Proxy::addr);
        first.kubeconfig = control_plane.kubeconfig_for_service_account(NAMESPACE, install::SERVICE_ACCOUNT, via).await?;
        (first.identity, first.ports) = (SECOND, ports);
        Ok(Self { operator: Operator::new(first.spec(), first.config.supervise), proxy, ports })
    }

    /// Starts it and waits until it can take what nodes report.
    pub(super) async fn start(&self, http: &reqwest::Client) -> anyhow::Result<()> {
        self.operator.start()?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let said = self.readiness(http).await;
            if said.starts_with("ok: standing by") {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "the second operator does not stand by: {said}\n{}", self.operator.log_tail(30));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its process.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The proxy between it and the API server, if one was asked for.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// What it says of its readiness.
    pub async fn readiness(&self, http: &reqwest::Client) -> String {
        readiness(http, &self.ports.health_url()).await
    }

    /// Base URL of its listener for nodes.
    pub fn report_url(&self) -> String {
        self.ports.reports_url()
    }

    /// Its metrics.
    pub async fn metrics(&self, http: &reqwest::Client) -> anyhow::Result<String> {
        Ok(http.get(format!("{}/metrics", self.ports.health_url())).send().await?.text().await?)
    }
}

/// The answer of `/readyz`, or why there is none.
pub(super) async fn readiness(http: &reqwest::Client, health: &str) -> String {
    match http.get(format!("{health}/readyz")).send().await {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(error) => format!("{error:#}"),
    }
}
