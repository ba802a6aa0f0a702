//! Nodes that are on and of which nothing shows that they are up (rule 8).

use std::iter::Sum;
use std::time::Duration;

use bos_crds::reasons;

use crate::health::{Outage, Service};
use crate::model::{EndKind, HoldReason, Issued, Script};
use crate::options::Options;
use crate::plan::{Evidence, RunningPolicy};
use crate::session::Run;
use crate::status::{Case, unknown_image_up};
use crate::time::{Timestamp, span_text};
use crate::want::Decision;

/// After we begin to listen, a live node is heard within this time: bos-reporter retries at least every 30 s.
const REPORT_RETRY: Duration = Duration::from_secs(60);

/// Nodes whose silence is judged together: those of a session, and besides those of all runs by hand, as one person's loop over a
/// machine makes as many of these as there are nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Silence {
    /// Nodes that are silent past their deadline, with those that were cycled for it lately.
    pub silent: usize,
    /// Of so many that the session has owned: of a staged one those whose state was applied.
    pub among: usize,
}

impl Silence {
    /// Those that were cycled for it lately; those that are silent now are added to them.
    pub(super) fn lately(run: &Run, options: &Options, now: Timestamp) -> Self {
        let lately = run.timeout_cycles.iter().filter(|(at, _)| now.since(*at) < options.max_boot_wait);
        let nodes: u32 = lately.map(|(_, nodes)| *nodes).sum();
        Self { silent: nodes as usize, among: 0 }
    }

    /// So many that something else is at fault than the nodes.
    #[must_use]
    pub fn is_of_many(self, options: &Options) -> bool {
        self.silent > options.mass_timeout_limit(self.among)
    }
}

impl Sum for Silence {
    fn sum<I: Iterator<Item = Self>>(each: I) -> Self {
        each.fold(Self::default(), |all, one| Self { silent: all.silent + one.silent, among: all.among + one.among })
    }
}

impl Case<'_> {
    /// On past its boot deadline, and nothing shows that it runs the image it should.
    pub(super) fn judge_silent(&self, issued: &Issued) -> Option<Decision> {
        let options = &self.world.options;
        if self.node.spoke_since(issued.decided) {
            return Some(unknown_image_up());
        }
        if self.nobody_can_tell() {
            return None;
        }
        if !self.can_be_heard(issued) {
            return self.wait_for_the_path();
        }
        // In mode v1 none is cycled anyway.
        if !self.run.plan.agent && (self.run.mass_timeout.is_some() || self.mass_silence) {
            return self.hold_or_fail(HoldReason::MassBootTimeout, options.max_boot_wait);
        }
        if self.drive.script == Script::NotAsked && self.world.services.down(Service::Bss).is_none() {
            // BSS is asked once whether the node ever came for its boot script.
            return None;
        }
        if self.drive.attempts.on >= self.limit() {
            let message = format!("{} power-ons; {}. Left on: see its console.", self.drive.attempts.on, self.silence(issued, "the last"));
            return Some(Decision::End(EndKind::Failed, reasons::BOOT_TIMEOUT.into(), message.into()));
        }
        // It was on when the session took it: what was asked for running nodes holds for it too.
        if let Some(left) = self.left_as_it_was_found(issued) {
            return Some(left);
        }
        let last = format!("power-on {}", self.drive.attempts.on);
        (!self.stale()).then(|| Decision::CycleSilent(format!("{}; power-cycled", self.silence(issued, &last)).into()))
    }

    /// The boot that stays silent is an older session's, and this one is to leave such a node alone.
    fn left_as_it_was_found(&self, issued: &Issued) -> Option<Decision> {
        let slot = self.run.slots.get(self.drive.index as usize)?;
        if issued.decided >= slot.since.unwrap_or(self.run.started) {
            return None;
        }
        if self.run.plan.running == RunningPolicy::Leave {
            return Some(self.left(
                reasons::LEFT_RUNNING,
                "An older Session was booting it and it did not report in time; it is on, and runningNodes is Leave.",
            ));
        }
        Some(self.cycle()).filter(|decision| !matches!(decision, Decision::Cycle))
    }

    /// Until it has had time to be heard; only a path that stays closed makes this end in failure.
    pub(super) fn wait_for_the_path(&self) -> Option<Decision> {
        self.hold_or_fail(HoldReason::ReportPathDown, self.world.options.max_boot_wait.max(2 * self.time_to_be_heard()))
    }

    /// It is to be cycled for its silence, the power-off has been held up, and by now its reports would not reach us.
    pub(super) fn silence_means_nothing_any_more(&self) -> bool {
        self.drive.last_on.is_some() && self.run.plan.evidence == Evidence::NodeReport && !self.reports_are_heard()
    }

    fn reports_are_heard(&self) -> bool {
        self.world.reports.listening_since.is_some_and(|since| self.now >= since + self.time_to_be_heard())
    }

    /// A site that waits less than that for a boot is as impatient here.
    fn time_to_be_heard(&self) -> Duration {
        REPORT_RETRY.min(self.world.options.max_boot_wait)
    }

    /// Whether the silence of a node means something: what proves its boot has a way to us.
    fn can_be_heard(&self, issued: &Issued) -> bool {
        match self.run.plan.evidence {
            Evidence::NodeReport => self.reports_are_heard(),
            Evidence::HsmReady => self.node.state.is_some_and(|seen| seen.at >= issued.boot_by),
            Evidence::PowerState => true,
        }
    }

    /// HSM, which is to say that the node is up, does not answer, or has only just come back and has to hear of its nodes first. That is no
    /// silence of the node, and like every outage it has no deadline (rule 14).
    fn nobody_can_tell(&self) -> bool {
        let away = |outage: &Outage| outage.until.is_none_or(|until| self.now < until + self.time_to_be_heard());
        let mut outages = self.world.services.outages();
        self.run.plan.evidence == Evidence::HsmReady && outages.any(|(service, outage)| service == Service::Hsm && away(outage))
    }

    /// What was not seen of the node since this power-on, and how far it came.
    fn silence(&self, issued: &Issued, power_on: &str) -> String {
        let waited = span_text(issued.boot_by.since(issued.at));
        let missing = match (self.run.plan.evidence, self.node.state) {
            (Evidence::HsmReady, Some(seen)) if seen.ready => "HSM said Ready all along, so that proves no boot",
            (Evidence::HsmReady, _) if self.run.plan.agent && self.world.options.v1_ssh_check => {
                "HSM did not say Ready, or its port 22 (SSH) was not reached,"
            }
            (Evidence::HsmReady, _) => "HSM did not say Ready",
            (Evidence::NodeReport | Evidence::PowerState, _) => "no report",
        };
        let script = match self.drive.script {
            Script::NotAsked | Script::Unknown => String::new(),
            Script::NeverFetched => "; it never fetched its boot script".to_owned(),
            Script::Fetched(at) => format!("; boot script fetched {}", at.clock()),
        };
        format!("{missing} within {waited} of {power_on}{script}")
    }
}
