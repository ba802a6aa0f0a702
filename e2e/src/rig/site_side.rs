//! The simulated site of a rig, in its own process or in ours, and a client of its admin listener.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{START_LIMIT, SitePlace, site_binary};
use crate::control_plane::{Process, ProcessSpec};
use crate::site::{CallRecord, Faults, NodeView, OutageSpec, PowerRecord, Site, SiteConfig, SiteHandle, Urls};

/// The site, wherever it runs.
pub(super) struct SiteSide {
    place: Place,
    urls: Urls,
    client: SiteClient,
}

enum Place {
    Own(Process),
    Here(Site),
}

impl SiteSide {
    pub(super) async fn start(config: SiteConfig, place: SitePlace, folder: &Path) -> anyhow::Result<Self> {
        let (place, urls) = match place {
            SitePlace::InProcess => {
                let site = Site::start(config).await?;
                let urls = site.urls().clone();
                (Place::Here(site), urls)
            }
            SitePlace::OwnProcess => {
                let (process, urls) = start_process(&config, folder).await?;
                (Place::Own(process), urls)
            }
        };
        let client = SiteClient { admin: urls.admin.clone(), http: http_client()? };
        Ok(Self { place, urls, client })
    }

    pub(super) fn urls(&self) -> &Urls {
        &self.urls
    }

    pub(super) fn client(&self) -> &SiteClient {
        &self.client
    }

    pub(super) fn handle(&self) -> Option<SiteHandle> {
        match &self.place {
            Place::Here(site) => Some(site.handle()),
            Place::Own(_) => None,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        match &self.place {
            Place::Here(_) => std::process::id(),
            Place::Own(process) => process.pid(),
        }
    }
}

async fn start_process(config: &SiteConfig, folder: &Path) -> anyhow::Result<(Process, Urls)> {
    let (file, log) = (folder.join("site.json"), folder.join("bos-site.log"));
    std::fs::write(&file, serde_json::to_vec_pretty(config)?).context("writing the site's configuration")?;
    let spec = ProcessSpec::new("bos-site", site_binary().await?, &log).arg("--ignore-stdin").arg("--config").arg(&file);
    let process = Process::start(&spec)?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        // Only a whole line: the rest of a long one may not have been written yet.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        if let Some(urls) = whole.lines().find_map(|line| serde_json::from_str::<Urls>(line).ok()) {
            return Ok((process, urls));
        }
        if let Some(status) = process.exit_status() {
            anyhow::bail!("the simulated site ended with {status}:\n{}", process.log_tail(20));
        }
        anyhow::ensure!(Instant::now() < deadline, "the simulated site does not start:\n{}", process.log_tail(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A client for loopback addresses, whatever proxy the environment names.
pub(super) fn http_client() -> anyhow::Result<reqwest::Client> {
    crate::control_plane::install_crypto_provider();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().context("making an HTTP client")
}

/// How many virtual nodes are in which state, as the site itself knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteSummary {
    /// All nodes.
    pub nodes: usize,
    /// With power.
    pub on: usize,
    /// With a running operating system.
    pub up: usize,
    /// With a report that the operator answered 200.
    pub reported: usize,
    /// Configured by CFS.
    pub configured: usize,
    /// That lost power and got it back.
    pub cycled: usize,
}

/// Calls by service and by kind.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallCounts {
    /// By service.
    pub services: BTreeMap<String, u64>,
    /// By service and kind of call.
    pub by_call: BTreeMap<String, BTreeMap<String, u64>>,
}

/// A client of a site's admin listener.
#[derive(Debug, Clone)]
pub struct SiteClient {
    admin: String,
    http: reqwest::Client,
}

impl SiteClient {
    /// Base URL of the admin listener.
    pub fn admin_url(&self) -> &str {
        &self.admin
    }

    /// How many nodes are in which state.
    pub async fn summary(&self) -> anyhow::Result<SiteSummary> {
        self.get("/nodes/summary").await
    }

    /// All nodes.
    pub async fn nodes(&self) -> anyhow::Result<Vec<NodeView>> {
        self.get("/nodes").await
    }

    /// What happened to each node.
    pub async fn power_history(&self) -> anyhow::Result<BTreeMap<String, Vec<PowerRecord>>> {
        self.get("/power-history").await
    }

    /// The calls that match a query such as `service=pcs&method=POST`.
    pub async fn calls(&self, query: &str) -> anyhow::Result<Vec<CallRecord>> {
        self.get(&format!("/calls?{query}")).await
    }

    /// How many calls there were.
    pub async fn call_counts(&self) -> anyhow::Result<CallCounts> {
        self.get("/calls/counts").await
    }

    /// Forgets the calls so far.
    pub async fn clear_calls(&self) -> anyhow::Result<()> {
        self.send(reqwest::Method::DELETE, "/calls", None).await.map(drop)
    }

    /// Replaces the faults of these nodes; `["all"]` means every node.
    pub async fn set_faults(&self, xnames: &[impl AsRef<str>], faults: &Faults) -> anyhow::Result<()> {
        let xnames: Vec<&str> = xnames.iter().map(AsRef::as_ref).collect();
        self.post("/faults", &json!({"xnames": xnames, "faults": faults})).await.map(drop)
    }

    /// Makes all nodes well again.
    pub async fn clear_faults(&self) -> anyhow::Result<()> {
        self.send(reqwest::Method::DELETE, "/faults", None).await.map(drop)
    }

    /// Begins an outage.
    pub async fn add_outage(&self, outage: &OutageSpec) -> anyhow::Result<()> {
        self.post("/outages", &serde_json::to_value(outage)?).await.map(drop)
    }

    /// Ends all outages.
    pub async fn clear_outages(&self) -> anyhow::Result<()> {
        self.send(reqwest::Method::DELETE, "/outages", None).await.map(drop)
    }

    /// Merges this into the site's settings.
    pub async fn change_settings(&self, patch: &Value) -> anyhow::Result<()> {
        self.send(reqwest::Method::PATCH, "/settings", Some(patch)).await.map(drop)
    }

    /// Any POST of the admin listener, see [`crate::site::ADMIN_HELP`].
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(reqwest::Method::POST, path, Some(body)).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        serde_json::from_value(self.send(reqwest::Method::GET, path, None).await?).with_context(|| format!("the site's answer to {path}"))
    }

    async fn send(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.admin));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| format!("asking the site for {path}"))?;
        let (status, bytes) = (answer.status(), answer.bytes().await.with_context(|| format!("reading the site's {path}"))?);
        anyhow::ensure!(status.is_success(), "the site answered {status} to {path}: {}", String::from_utf8_lossy(&bytes));
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).with_context(|| format!("the site's answer to {path}"))
    }
}
