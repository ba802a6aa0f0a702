//! What the parts have cost so far.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::figures::Histogram;
use crate::control_plane::{ControlPlane, ProcStat, RequestTotals, procstat};
use crate::rig::Rig;

/// How long nothing may be written for it to count as quiet.
const QUIET: Duration = Duration::from_millis(1500);
/// How often that is looked at. Each look costs the API server its whole metrics page.
const LOOK: Duration = Duration::from_millis(500);

/// Costs of all parts at one time, or between two.
#[derive(Debug, Clone, Default)]
pub(super) struct Costs {
    pub(super) operator: ProcStat,
    pub(super) api_server: ProcStat,
    pub(super) etcd: ProcStat,
    pub(super) site: ProcStat,
    pub(super) writes: RequestTotals,
    pub(super) passes: Histogram,
    pub(super) projections: Histogram,
    pub(super) journals: Histogram,
}

impl Costs {
    pub(super) async fn of(rig: &Rig) -> anyhow::Result<Self> {
        let control_plane = rig.control_plane();
        let writes = control_plane.request_totals().await?.writes();
        let metrics = rig.operator_metrics().await?;
        Ok(Self {
            operator: rig.operator().stats().context("the operator has ended; it is not started again while it is measured")?,
            api_server: procstat(control_plane.api_server_pid())?,
            etcd: procstat(control_plane.etcd_pid().context("no etcd of our own")?)?,
            site: procstat(rig.site_pid())?,
            writes,
            passes: Histogram::read(&metrics, "bos_pass_duration_seconds"),
            projections: Histogram::read(&metrics, "bos_projection_duration_seconds"),
            journals: Histogram::read(&metrics, "bos_journal_write_duration_seconds"),
        })
    }

    /// CPU time and writes since an earlier look; memory as it is now.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let cpu = |now: ProcStat, then: ProcStat| ProcStat { cpu_seconds: now.cpu_seconds - then.cpu_seconds, ..now };
        Self {
            operator: cpu(self.operator, earlier.operator),
            api_server: cpu(self.api_server, earlier.api_server),
            etcd: cpu(self.etcd, earlier.etcd),
            site: cpu(self.site, earlier.site),
            writes: self.writes.since(&earlier.writes),
            passes: self.passes.since(&earlier.passes),
            projections: self.projections.since(&earlier.projections),
            journals: self.journals.since(&earlier.journals),
        }
    }
}

/// Waits until nobody has written a BootComponent, a Session or a ConfigMap for a while. Leases are renewed for ever.
pub(super) async fn wait_quiet(control_plane: &ControlPlane, limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    let mut last = (0, Instant::now());
    loop {
        let writes = control_plane.request_totals().await?.writes();
        let now: u64 = writes.0.iter().filter(|(kind, _)| counts(&kind.resource)).map(|(_, count)| count).sum();
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() >= QUIET {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "objects are still written after {} s", limit.as_secs());
        tokio::time::sleep(LOOK).await;
    }
}

fn counts(resource: &str) -> bool {
    let resource = resource.split('/').next().unwrap_or_default();
    matches!(resource, "bootcomponents" | "sessions" | "configmaps" | "sessiontemplates" | "bootoptions")
}
