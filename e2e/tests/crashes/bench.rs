//! One rig for many cases: each begins with all nodes off, boots them by a Session of its own and kills the operator on the way.

use std::time::Duration;

use anyhow::Context as _;
use bos_crds::{Session, SessionTemplate, labels};
use bos_e2e::proxy::Rule;
use bos_e2e::rig::{NAMESPACE, Rig, RigConfig, template};
use bos_e2e::site::{CallFilter, CallRecord, Held, ImageSpec, InitialState, Match, SiteHandle, When};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

/// Only a guard against hanging for ever, far above what anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// How a case ends: with what was wrong, each in words.
pub type Problems = Vec<String>;

/// A rig whose operator stays dead when it is killed.
pub struct Bench {
    pub rig: Rig,
    pub site: SiteHandle,
}

/// A Session under way, and where the site's history and call log stood before it.
pub struct Run {
    pub name: String,
    pub uid: String,
    pub since: f64,
    pub seq: u64,
}

impl Bench {
    /// Fast nodes, short deadlines.
    pub fn config(nodes: usize) -> RigConfig {
        let mut config =
            RigConfig::with_nodes(nodes).boot_time(Duration::from_millis(600)).in_process_site().through_proxy().unsupervised();
        config.site.settings.script_delay = Duration::from_millis(50);
        config.site.settings.off_delay = Duration::from_millis(50);
        config.site.settings.boot_retry_delay = Duration::from_millis(50);
        config.site.settings.confirm_delay = Duration::from_millis(20);
        config.site.settings.report_backoff_scale = 0.05;
        config.options(json!({"maxPowerOnWaitTimeSeconds": 3}))
    }

    pub async fn start(config: RigConfig) -> Self {
        let nodes = config.site.blocks.iter().map(|block| block.count).sum();
        let rig = Rig::start(config).await.unwrap();
        rig.wait_discovered(nodes, PATIENCE).await.unwrap();
        let site = rig.site_handle().unwrap();
        Self { rig, site }
    }

    /// All nodes off, nobody having switched them off; and a template of the case's own, which the operator has looked at.
    pub async fn begin(&self, name: &str) -> anyhow::Result<()> {
        // An operator that has heard a node lately rightly doubts that it is off; one that has just started has heard nobody.
        self.kill();
        self.site.set_state(&["all"], &InitialState::Off);
        self.rig.start_operator().await?;
        let mut set = template::compute(&ImageSpec::default());
        set["kernelParameters"] = json!(marker(name));
        let object = serde_json::from_value(template::with_boot_sets(name, &json!([set])))?;
        let templates: Api<SessionTemplate> = Api::namespaced(self.rig.client(), NAMESPACE);
        templates.create(&PostParams::default(), &object).await?;
        let seen = |object: Option<&SessionTemplate>| {
            object.is_some_and(|object| object.status.as_ref().is_some_and(|status| status.observed_generation >= 1))
        };
        within("the template is looked at", await_condition(templates, name, seen)).await??;
        Ok(())
    }

    /// Creates the Session of a case.
    pub async fn apply(&self, name: &str, more: Value) -> anyhow::Result<Run> {
        let (since, seq) = (self.site.elapsed(), self.last_call());
        let mut spec = json!({"operation": "Boot", "templateName": name});
        spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let object: Session = serde_json::from_str(&template::session_with(name, &spec))?;
        let sessions: Api<Session> = Api::namespaced(self.rig.client(), NAMESPACE);
        let created = sessions.create(&PostParams::default(), &object).await?;
        Ok(Run { name: name.to_owned(), uid: created.uid().context("a uid")?, since, seq })
    }

    fn last_call(&self) -> u64 {
        self.site.calls(&CallFilter { limit: Some(1), ..CallFilter::default() }).last().map_or(0, |call| call.seq)
    }

    /// The calls to the site since the run began.
    pub fn calls(&self, run: &Run) -> Vec<CallRecord> {
        self.site.calls(&CallFilter { since: Some(run.seq), ..CallFilter::default() })
    }

    /// SIGKILL; returns when the process has ended.
    pub fn kill(&self) {
        self.rig.operator().process().unwrap().kill();
    }

    /// Runs a Session and kills the operator at a call to the site; the call gets no answer.
    pub async fn killed_at_call(&self, name: &str, what: Match, when: When) -> anyhow::Result<Run> {
        self.begin(name).await?;
        let mut hook = self.site.on(what, when);
        let run = self.apply(name, json!({})).await?;
        let held: Held = within("the call comes", hook.reached()).await?.context("the site has stopped")?;
        self.kill();
        held.abandon();
        Ok(run)
    }

    /// Runs a Session and kills the operator at a write to the API server; the write gets no answer.
    pub async fn killed_at_write(&self, name: &str, rule: Rule) -> anyhow::Result<Run> {
        self.begin(name).await?;
        let hit = self.rig.proxy().unwrap().on(rule);
        let run = self.apply(name, json!({})).await?;
        let process = self.rig.operator().process().unwrap();
        within("the write comes", hit.kill(&process)).await??;
        Ok(run)
    }

    /// Waits until a Session has ended and its records are gone.
    pub async fn ended(&self, run: &Run) -> anyhow::Result<Session> {
        let session = self.rig.wait_session(&run.name, Rig::is_complete, PATIENCE).await?;
        self.settled(run).await?;
        Ok(session)
    }

    /// Waits until the records of a Session are gone.
    pub async fn settled(&self, run: &Run) -> anyhow::Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.rig.client(), NAMESPACE);
        for record in [labels::journal_name(&run.uid), labels::plan_name(&run.uid, 0)] {
            let gone = |object: Option<&ConfigMap>| object.is_none();
            within(&format!("{record} is removed"), await_condition(maps.clone(), &record, gone)).await??;
        }
        Ok(())
    }

    /// Removes what the case made.
    pub async fn clear(&self, run: &Run) -> anyhow::Result<()> {
        let sessions: Api<Session> = Api::namespaced(self.rig.client(), NAMESPACE);
        sessions.delete(&run.name, &DeleteParams::default()).await?;
        let templates: Api<SessionTemplate> = Api::namespaced(self.rig.client(), NAMESPACE);
        templates.delete(&run.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// What the operator logged last, for messages.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.rig.operator().log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// Tells the boot of one case from that of another in what a node runs with.
pub fn marker(name: &str) -> String {
    format!("bos_case={name}")
}

/// Waits, but not for ever.
pub async fn within<F: Future>(what: &str, work: F) -> anyhow::Result<F::Output> {
    tokio::time::timeout(PATIENCE, work).await.with_context(|| format!("after {} s still not: {what}", PATIENCE.as_secs()))
}

/// Collects what went wrong in the cases of a table and shows all of it at the end.
#[derive(Default)]
pub struct Verdicts {
    wrong: Vec<String>,
    cases: usize,
}

impl Verdicts {
    /// After so many cases that failed the rest would only take time.
    const ENOUGH: usize = 4;

    pub fn add(&mut self, bench: &Bench, name: &str, result: anyhow::Result<Problems>) {
        self.cases += 1;
        eprintln!("case {name} has ended {:.1} s after the start", bench.site.elapsed());
        let problems = result.unwrap_or_else(|error| vec![format!("{error:#}")]);
        if !problems.is_empty() {
            let text = format!("case {name}:\n  {}\nThe operator logged last:\n{}", problems.join("\n  "), bench.log());
            eprintln!("FAILED {text}");
            self.wrong.push(format!("{name}: {}", problems.join("; ")));
        }
    }

    pub fn hopeless(&self) -> bool {
        self.wrong.len() >= Self::ENOUGH
    }

    pub fn judge(self) {
        assert!(self.wrong.is_empty(), "{} of {} cases failed:\n{}", self.wrong.len(), self.cases, self.wrong.join("\n"));
    }
}
