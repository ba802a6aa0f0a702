//! One rig for many cases: what the site saw of a node, Sessions by one line, and a runner that reports all failures together.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use bos_crds::{BootComponent, Session};
use bos_e2e::rig::{Rig, RigConfig, template};
use bos_e2e::site::{CallFilter, CallRecord, ImageSpec, PowerEvent, SiteHandle};
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use serde_json::{Value, json};

pub type Result<T = ()> = anyhow::Result<T>;

/// After this a wait is given up. It is no measure of anything: a busy machine may take long.
pub const LIMIT: Duration = Duration::from_secs(150);
/// With this set, only cases whose name contains its value are run.
const ONLY: &str = "BOS_CASE";
/// The file that gets a line for each case that was ok, as libtest does not show what a test prints that passes.
const RECORD: &str = "BOS_CASES";

/// A rig whose site runs in this process.
pub struct Bench {
    pub rig: Rig,
    pub site: SiteHandle,
}

/// Power commands that reached one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Commands {
    pub on: usize,
    pub soft_off: usize,
    pub force_off: usize,
}

impl Commands {
    pub const NONE: Self = Self { on: 0, soft_off: 0, force_off: 0 };
    pub const ONE_ON: Self = Self { on: 1, soft_off: 0, force_off: 0 };
    pub const ONE_CYCLE: Self = Self { on: 1, soft_off: 1, force_off: 0 };
}

/// A point in the site's history.
pub struct Mark {
    histories: BTreeMap<String, usize>,
    seq: u64,
}

impl Bench {
    /// Starts everything and waits for discovery.
    pub async fn start(config: RigConfig) -> Result<Self> {
        let rig = Rig::start(config.in_process_site()).await?;
        let site = rig.site_handle().expect("the site runs in this process");
        let bench = Self { rig, site };
        bench.rig.wait_discovered(bench.site.xnames().len(), LIMIT).await?;
        Ok(bench)
    }

    /// Some of the nodes, by number.
    pub fn nodes(&self, range: std::ops::Range<usize>) -> Vec<String> {
        self.site.xnames()[range].to_vec()
    }

    /// Applies a template of one boot set with these nodes and the default image, changed as asked.
    pub async fn template(&self, name: &str, nodes: &[String], change: impl FnOnce(&mut Value)) -> Result {
        let mut boot_set = template::compute(&ImageSpec::default());
        boot_set["nodeList"] = json!(nodes);
        if let Some(fields) = boot_set.as_object_mut() {
            fields.remove("nodeRolesGroups");
        }
        let mut object = template::with_boot_sets(name, &json!([boot_set]));
        change(&mut object);
        self.rig.apply(&object.to_string()).await.map(drop)
    }

    /// Applies a Boot Session and waits for its end.
    pub async fn boot(&self, name: &str, template: &str) -> Result<Session> {
        self.rig.apply(&template::session(name, template, "Boot")).await?;
        self.ended(name).await
    }

    /// Waits for the end of a Session.
    pub async fn ended(&self, name: &str) -> Result<Session> {
        self.rig.wait_session(name, Rig::is_complete, LIMIT).await
    }

    /// Now, as far as the site goes.
    pub fn mark(&self) -> Mark {
        let histories = self.site.xnames().into_iter().map(|xname| (xname.clone(), self.site.history(&xname).len())).collect();
        let newest = self.site.calls(&CallFilter { limit: Some(1), ..CallFilter::default() });
        Mark { histories, seq: newest.last().map_or(0, |call| call.seq) }
    }

    /// What reached a node since then.
    pub fn commands(&self, mark: &Mark, xname: &str) -> Commands {
        let mut commands = Commands::default();
        for record in self.site.history(xname).iter().skip(mark.histories.get(xname).copied().unwrap_or(0)) {
            match record.event {
                PowerEvent::OnRequested { .. } => commands.on += 1,
                PowerEvent::SoftOffRequested { .. } => commands.soft_off += 1,
                PowerEvent::ForceOffRequested { .. } => commands.force_off += 1,
                _ => {}
            }
        }
        commands
    }

    /// Every one of these nodes got exactly these commands since then.
    pub fn assert_commands(&self, mark: &Mark, nodes: &[String], expected: Commands) {
        let others: Vec<_> = nodes.iter().map(|node| (node, self.commands(mark, node))).filter(|(_, got)| *got != expected).collect();
        assert!(others.is_empty(), "expected {expected:?}, but {others:?}");
    }

    /// All calls since then.
    pub fn calls_since(&self, mark: &Mark) -> Vec<CallRecord> {
        self.site.calls(&CallFilter { since: Some(mark.seq), ..CallFilter::default() })
    }

    /// Calls since then that change something of these nodes.
    pub fn changing_calls_to(&self, mark: &Mark, nodes: &[String]) -> Vec<CallRecord> {
        let mut calls = self.changing_calls(mark);
        calls.retain(|call| call.nodes.iter().any(|node| nodes.contains(node)));
        calls
    }

    /// Calls since then that change something at a service.
    pub fn changing_calls(&self, mark: &Mark) -> Vec<CallRecord> {
        let mut calls = self.calls_since(mark);
        // The state of many nodes is asked for with a POST.
        let asks = |call: &CallRecord| ["power-status", "get_xname_status", "locks/status"].iter().any(|part| call.path.contains(part));
        calls.retain(|call| !matches!(call.method.as_str(), "GET" | "HEAD") && !asks(call));
        calls
    }

    /// Waits until something holds at the site.
    pub async fn at_site(&self, what: &str, holds: impl Fn(&SiteHandle) -> bool) -> Result {
        let waited = tokio::time::timeout(LIMIT, self.site.wait_until(holds)).await;
        waited.map_err(|_| anyhow::anyhow!("the site never saw that {what}"))
    }

    /// The BootComponents of these nodes.
    pub async fn components(&self, nodes: &[String]) -> Result<Vec<BootComponent>> {
        let named = |component: &BootComponent| component.metadata.name.as_ref().is_some_and(|name| nodes.contains(name));
        Ok(self.rig.components().await?.into_iter().filter(named).collect())
    }
}

/// Outcome and reason of an ended Session, as words.
pub fn outcome(session: &Session) -> String {
    let status = session.status.clone().unwrap_or_default();
    format!("{:?}/{}", status.outcome.expect("the Session has ended"), condition(session, "Succeeded").1)
}

/// Status and reason of a condition; empty where it is not set.
pub fn condition(session: &Session, type_: &str) -> (String, String) {
    let status = serde_json::to_value(&session.status).expect("a status is JSON");
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == type_);
    let text = |key: &str| found.and_then(|condition| condition[key].as_str()).unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

/// What a Session says.
pub fn message(session: &Session) -> &str {
    session.status.as_ref().map_or("", |status| &status.message)
}

/// Runs cases and remembers which failed.
#[derive(Default)]
pub struct Cases {
    failed: Vec<String>,
}

impl Cases {
    /// Runs one case.
    pub async fn run(&mut self, name: &str, case: impl Future<Output = Result>) {
        if let Err(error) = judged(name, case).await {
            self.failed.push(error);
        }
    }

    /// Runs cases that do not disturb each other at the same time.
    pub async fn together(&mut self, cases: Vec<(&str, BoxFuture<'_, Result>)>) {
        let ended = join_all(cases.into_iter().map(|(name, case)| judged(name, case))).await;
        self.failed.extend(ended.into_iter().filter_map(std::result::Result::err));
    }

    /// Fails if a case did.
    pub fn verdict(self) -> Result {
        anyhow::ensure!(self.failed.is_empty(), "{} cases failed:\n{}", self.failed.len(), self.failed.join("\n"));
        Ok(())
    }
}

async fn judged(name: &str, case: impl Future<Output = Result>) -> std::result::Result<(), String> {
    if std::env::var(ONLY).is_ok_and(|only| !name.contains(&only)) {
        return Ok(());
    }
    let began = Instant::now();
    let result = match AssertUnwindSafe(case).catch_unwind().await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{name}: {error:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("{name}: {}", text.unwrap_or_default()))
        }
    };
    let said = result.as_ref().err().map_or("", String::as_str);
    println!("{} {name} after {:.1} s {said}", if result.is_ok() { "ok" } else { "FAILED" }, began.elapsed().as_secs_f64());
    result.and_then(|()| record(name))
}

/// Writes down that a case was ok: the name of the target and its own (`hack/conformance.sh` reads it).
fn record(name: &str) -> std::result::Result<(), String> {
    let Some(file) = std::env::var_os(RECORD) else { return Ok(()) };
    let line = format!("{} {name}\n", env!("CARGO_CRATE_NAME"));
    // One write, so that tests that run at the same time do not mix their lines.
    let written = std::fs::OpenOptions::new().create(true).append(true).open(&file).and_then(|mut file| file.write_all(line.as_bytes()));
    written.map_err(|error| format!("{name}: {RECORD} {} cannot be written: {error}", file.display()))
}
