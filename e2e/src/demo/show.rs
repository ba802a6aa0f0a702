//! What the demo prints.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bos_crds::{Session, SessionStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use tokio::time::MissedTickBehavior;

use super::Operation;
use crate::rig::{NAMESPACE, Rig, SiteSummary, Truth, template};

/// How many nodes the tables show.
const SAMPLE: usize = 8;
/// Tables are shown when so many per cent of the nodes are done for the first time.
const MILESTONES: [i32; 3] = [1, 50, 90];

/// A line that has not changed is repeated after so long, to show that somebody is there.
const REPEAT: Duration = Duration::from_secs(10);

/// A step that begins.
pub(super) fn step(text: &str) {
    line(&format!("== {text}"));
}

/// What a command answered.
pub(super) fn indented(text: &str) {
    for part in text.trim_end().lines() {
        line(&format!("   {part}"));
    }
}

/// Prints a line, even where nobody reads any more: the demo goes on.
fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _unread = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// What a task does until it is dropped.
pub(super) struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn timed(started: Instant, text: &str) {
    line(&format!("{:6.1} s  {text}", started.elapsed().as_secs_f64()));
}

/// Kills the operator again and again until the answer is dropped. The rig starts it again, as the kubelet would.
pub(super) fn kill_now_and_then(rig: &Rig, every: Duration) -> Aborted {
    let killer = rig.operator().killer();
    Aborted(tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            if let Some(pid) = killer.kill() {
                line(&format!("   !! killed the operator (kill -9 {pid})"));
            }
        }
    }))
}

/// Shows one rig.
pub(super) struct Show<'a> {
    rig: &'a Rig,
    sample: Vec<String>,
}

impl<'a> Show<'a> {
    /// Chooses the nodes that tables show: some from everywhere.
    pub(super) async fn new(rig: &'a Rig, nodes: usize) -> anyhow::Result<Self> {
        let names = rig.site().nodes().await.context("asking the site for its nodes")?.into_iter().map(|node| node.xname);
        let sample = names.step_by(nodes.div_ceil(SAMPLE).max(1)).take(SAMPLE).collect();
        Ok(Self { rig, sample })
    }

    /// How to look from outside while it works.
    pub(super) fn where_things_are(&self, took: Duration) {
        step(&format!("running after {:.1} s; to look from another terminal:", took.as_secs_f64()));
        let control_plane = self.rig.control_plane();
        indented(&format!("export KUBECONFIG={}", control_plane.admin_kubeconfig().display()));
        if let Some(folder) = control_plane.kubectl_binary().parent() {
            indented(&format!("export PATH={}:$PATH   # kubectl", folder.display()));
        }
        indented(&format!("logs: {}   site: {}", self.rig.folder().display(), self.rig.site().admin_url()));
    }

    /// Follows a Session to its end: a line each second in which something changed, tables at milestones.
    pub(super) async fn follow(&self, name: &str, limit: Duration) -> anyhow::Result<Session> {
        let started = Instant::now();
        let latest: Mutex<Option<SessionStatus>> = Mutex::new(None);
        let keep = |session: &Session| {
            latest.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&session.status);
        };
        let mut end = std::pin::pin!(self.rig.follow_session(name, Rig::is_complete, limit, keep));
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut milestones = MILESTONES.iter().peekable();
        let mut shown = (String::new(), started);
        loop {
            tokio::select! {
                ended = &mut end => {
                    let session = ended?;
                    let now = self.progress(session.status.as_ref()).await;
                    timed(started, &now);
                    return Ok(session);
                }
                _ = tick.tick() => {}
            }
            let status = latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let now = self.progress(status.as_ref()).await;
            if now != shown.0 || shown.1.elapsed() >= REPEAT {
                timed(started, &now);
                shown = (now, Instant::now());
            }
            let done = status.as_ref().map_or(0, |status| status.counts.done * 100 / status.counts.nodes.max(1));
            let mut reached = false;
            while milestones.next_if(|percent| done >= **percent).is_some() {
                reached = true;
            }
            if reached && done < 100 {
                self.tables().await;
            }
        }
    }

    /// The site's own truth beside what our Session says.
    async fn progress(&self, status: Option<&SessionStatus>) -> String {
        let site = match self.rig.site().summary().await {
            Ok(summary) => said(&summary),
            Err(error) => format!("(the site does not answer: {error:#})"),
        };
        let session = status.map_or_else(|| "not seen yet".to_owned(), session_line);
        format!("{site} | {session}")
    }

    async fn tables(&self) {
        self.kubectl(&["get", "sessions.bos.hpe.com"]).await;
        let mut get = vec!["get", "bootcomponents.bos.hpe.com"];
        get.extend(self.sample.iter().map(String::as_str));
        self.kubectl(&get).await;
    }

    /// Runs kubectl as a person would, and shows command and answer.
    async fn kubectl(&self, args: &[&str]) {
        line(&format!("\n$ kubectl -n {NAMESPACE} {}", args.join(" ")));
        match self.rig.kubectl(args).await {
            Ok(text) => line(text.trim_end()),
            Err(error) => line(&format!("{error:#}")),
        }
    }

    /// Tables and the Session's description, afterwards.
    pub(super) async fn summary(&self, session: &Session) -> anyhow::Result<()> {
        self.tables().await;
        let name = session.metadata.name.as_deref().unwrap_or_default();
        line(&format!("\n$ kubectl -n {NAMESPACE} describe session {name}"));
        let text = self.rig.kubectl(&["describe", "sessions.bos.hpe.com", name]).await?;
        // What stands before the status is what was applied above.
        line(text.find("Status:").map_or(text.as_str(), |at| &text[at..]));
        let exits = self.rig.operator().exits();
        if !exits.is_empty() {
            line(&format!("The operator ended {} times and was started again.", exits.len()));
        }
        Ok(())
    }

    /// The Job of a Session of mode v1, and the end of what its agent logged.
    pub(super) async fn agent(&self, session: &str) -> anyhow::Result<()> {
        let selector = format!("--selector={}={session}", bos_crds::labels::SESSION_NAME);
        step(&format!("kubectl -n {NAMESPACE} get jobs,pods {selector}"));
        indented(&self.rig.kubectl(&["-n", NAMESPACE, "get", "jobs,pods", &selector]).await?);
        let pods: Api<Pod> = Api::namespaced(self.rig.client(), NAMESPACE);
        let found = pods.list(&ListParams::default().labels(&format!("{}={session}", bos_crds::labels::SESSION_NAME))).await?;
        for pod in &found.items {
            let Some(node) = self.rig.node_agent() else { continue };
            step(&format!("the end of the log of pod {}; all of it is in {}", pod.name_any(), node.log(pod).display()));
            let text = node.log_text(pod)?;
            let lines: Vec<&str> = text.lines().filter(|line| !line.contains(" node xname=")).collect();
            indented(&lines[lines.len().saturating_sub(14)..].join("\n"));
        }
        Ok(())
    }

    /// Commands for a person who goes on from here.
    pub(super) fn what_to_try(&self, session: &str, webhook: bool) {
        let node = self.sample.first().map_or("x1000c0s0b0n0", String::as_str);
        line("\nEverything stays up until Ctrl-C. In another terminal:\n");
        let control_plane = self.rig.control_plane();
        indented(&format!("export KUBECONFIG={}", control_plane.admin_kubeconfig().display()));
        if let Some(folder) = control_plane.kubectl_binary().parent() {
            indented(&format!("export PATH={}:$PATH", folder.display()));
        }
        indented(&format!(
            "kubectl get bootcomponents -o wide
kubectl get bc --field-selector status.status=Failed        # also status.power=Off, spec.session.name={session}
kubectl -n {NAMESPACE} describe session {session}
kubectl describe bootcomponent {node}
kubectl explain sessions.spec.limit
kubectl -n {NAMESPACE} create -f - <<< '{{apiVersion: bos.hpe.com/v1alpha1, kind: Session, metadata: {{generateName: again-}}, spec: {{operation: Reboot, templateName: {template}, limit: {node}}}}}'
kubectl -n {NAMESPACE} wait --for=condition=Complete sessions --all --timeout=5m",
            template = super::TEMPLATE
        ));
        if webhook {
            // The preview of a reboot: nothing is created.
            let preview = template::session("preview", super::TEMPLATE, "Reboot");
            indented(&format!("kubectl -n {NAMESPACE} apply --dry-run=server -f - <<< '{preview}'"));
        }
        indented(&format!(
            "curl -s {}/nodes/summary              # the site's own truth; GET / lists what else it can do",
            self.rig.site().admin_url()
        ));
    }
}

fn said(site: &SiteSummary) -> String {
    let SiteSummary { nodes, on, up, reported, configured, cycled } = site;
    let cycled = if *cycled > 0 { format!(", {cycled} power-cycled") } else { String::new() };
    format!("site: {on}/{nodes} on, {up} up, {reported} reported, {configured} configured{cycled}")
}

fn session_line(status: &SessionStatus) -> String {
    let phase = status.phase.map_or("not looked at", bos_crds::SessionPhase::as_str);
    let outcome = status.outcome.map_or("", bos_crds::Outcome::as_str);
    let words = [phase, outcome, &status.progress, &status.message];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What the site says in the end.
pub(super) fn truth(truth: &Truth, operation: Operation) {
    const SHOWN: usize = 10;
    let Truth { nodes, on, up, right_image, reported, configured, cycled, wrong } = truth;
    line("The site itself says:");
    match operation {
        Operation::Shutdown => indented(&format!("{} of {nodes} nodes are off", nodes - on)),
        Operation::Boot | Operation::Reboot | Operation::Configure => indented(&format!(
            "of {nodes} nodes {on} are on, {up} up, {right_image} run the image, {reported} were heard, {configured} are configured; {cycled} were power-cycled"
        )),
    }
    for problem in wrong.iter().take(SHOWN) {
        indented(problem);
    }
    if wrong.len() > SHOWN {
        indented(&format!("... and {} more", wrong.len() - SHOWN));
    }
    if wrong.is_empty() {
        line(&format!("All {nodes} nodes are {}.", operation.done()));
    }
}
