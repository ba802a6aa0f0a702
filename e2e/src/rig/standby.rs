//! A second operator, which stands by until the first one is gone.

use std::time::{Duration, Instant};

use super::operator::{Launch, Operator, Ports, SECOND};
use super::{NAMESPACE, START_LIMIT, install};
use crate::control_plane::ControlPlane;
use crate::proxy::Proxy;

/// The second operator. Dropping it ends the process.
pub struct Standby {
    operator: Operator,
    // Its way to the API server.
    _proxy: Option<Proxy>,
    ports: Ports,
}

impl Standby {
    /// Not started yet.
    pub(super) async fn new(control_plane: &ControlPlane, first: &mut Launch<'_>, ports: Ports) -> anyhow::Result<Self> {
        let proxy = if first.config.proxy { Some(Proxy::start(control_plane).await?) } else { None };
        let via = proxy.as_ref().map(Proxy::addr);
        first.kubeconfig = control_plane.kubeconfig_for_service_account(NAMESPACE, install::SERVICE_ACCOUNT, via).await?;
        (first.identity, first.ports) = (SECOND, ports);
        Ok(Self { operator: Operator::new(first.spec(), first.config.supervise), _proxy: proxy, ports })
    }

    /// Starts it and waits until it can take what nodes report.
    pub(super) async fn start(&self, http: &reqwest::Client) -> anyhow::Result<()> {
        self.operator.start()?;
        wait_until_ready(&self.operator, http, &self.ports.health_url(), "ok: standing by", START_LIMIT).await
    }

    /// Its process.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// What it says of its readiness.
    pub async fn readiness(&self, http: &reqwest::Client) -> String {
        readiness(http, &self.ports.health_url()).await
    }

    /// Its metrics.
    pub async fn metrics(&self, http: &reqwest::Client) -> anyhow::Result<String> {
        Ok(http.get(format!("{}/metrics", self.ports.health_url())).send().await?.text().await?)
    }
}

/// Waits until an operator says that it is ready in this way. An error shows the end of its log.
pub(super) async fn wait_until_ready(
    operator: &Operator,
    http: &reqwest::Client,
    health: &str,
    wanted: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let answer = readiness(http, health).await;
        if answer.starts_with(wanted) {
            return Ok(());
        }
        let log = || format!("\nThe end of {}:\n{}", operator.log().display(), operator.log_tail(30));
        anyhow::ensure!(!operator.has_given_up(), "the operator ended with {:?}{}", operator.exits().last(), log());
        anyhow::ensure!(Instant::now() < deadline, "the operator is not ready after {} s: {answer}{}", limit.as_secs(), log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The answer of `/readyz`, or why there is none.
pub(super) async fn readiness(http: &reqwest::Client, health: &str) -> String {
    match http.get(format!("{health}/readyz")).send().await {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(error) => format!("{error:#}"),
    }
}
