//! Sends node reports to the operator as bos-reporter does.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;

use super::core::Core;
use super::history::PowerEvent;
use super::lock;

/// One report to send.
#[derive(Clone, Debug)]
pub(crate) struct ReportJob {
    pub(crate) node: usize,
    pub(crate) xname: String,
    pub(crate) chain: u64,
    pub(crate) attempt: u32,
    pub(crate) token: String,
}

/// The reporter's wait after this many failures in a row.
pub(crate) fn backoff(attempt: u32) -> Duration {
    Duration::from_secs(u64::from(attempt.saturating_mul(2).min(30)))
}

/// Sends reports until the site stops, each by itself: no node waits for another.
pub(crate) async fn run(core: Arc<Core>, mut jobs: mpsc::UnboundedReceiver<ReportJob>) {
    let clients = Clients::new();
    loop {
        let job = tokio::select! {
            () = core.stop.cancelled() => return,
            job = jobs.recv() => job,
        };
        let Some(job) = job else { return };
        let (core, clients) = (core.clone(), clients.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = core.stop.cancelled() => {}
                () = report(&core, &clients, &job) => {}
            }
        });
    }
}

#[derive(Clone, Debug)]
struct Clients {
    strict: Option<reqwest::Client>,
    insecure: Option<reqwest::Client>,
}

impl Clients {
    fn new() -> Self {
        // Somebody else in the process may have installed a provider; theirs is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Nodes share no connections; and looking for one to share takes the longer, the more of them report.
        let build =
            |insecure| reqwest::Client::builder().danger_accept_invalid_certs(insecure).pool_max_idle_per_host(0).no_proxy().build().ok();
        Self { strict: build(false), insecure: build(true) }
    }
}

async fn report(core: &Core, clients: &Clients, job: &ReportJob) {
    let settings = core.settings();
    let client = if settings.operator_insecure { &clients.insecure } else { &clients.strict };
    // It may be about a boot that is over by now, or overtaken by a newer one.
    if lock(&core.world).nodes[job.node].chain != job.chain {
        return;
    }
    let answer = match (&settings.operator_url, client) {
        (Some(base), Some(client)) => {
            lock(&core.world).note(core, job.node, PowerEvent::ReportSent { token: job.token.clone() });
            let url = format!("{}/apis/bos/v2/components/{}", base.trim_end_matches('/'), job.xname);
            let body = json!({"id": job.xname, "actual_state": {"bss_token": job.token}});
            let mut request = client.patch(url).json(&body).timeout(settings.report_timeout);
            if let Some(token) = settings.report_tokens.get(&job.xname) {
                request = request.bearer_auth(token);
            }
            request.send().await.ok()
        }
        _ => None,
    };
    let status = answer.as_ref().map(|a| a.status().as_u16());
    let retry_after =
        answer.as_ref().and_then(|a| a.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
    lock(&core.world).report_answered(core, job, status, retry_after);
    core.changed.notify_waiters();
}
