//! The life of a virtual node: power, boot, report, configuration.

use jiff::Timestamp;
use std::time::Duration;

use super::bss::Script;
use super::config::Service;
use super::core::{Core, Event};
use super::history::PowerEvent;
use super::reporter::{ReportJob, backoff};
use super::world::{Running, World};

/// A power command as it reaches a node's BMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    On,
    SoftOff,
    ForceOff,
}

impl World {
    /// A command reaches the BMC. What comes of it depends on the node's faults.
    pub(crate) fn command(&mut self, core: &Core, at: usize, command: Command, by: &str) {
        let settings = core.settings();
        let by = by.to_owned();
        let faults = &self.nodes[at].faults;
        let deaf = faults.bmc_undefined
            || match command {
                Command::On => faults.never_powers_on,
                Command::SoftOff => faults.ignores_soft_off || faults.ignores_power_off,
                Command::ForceOff => faults.ignores_power_off,
            };
        let (event, on, delay) = match command {
            Command::On => (PowerEvent::OnRequested { by }, true, settings.on_delay),
            Command::SoftOff => (PowerEvent::SoftOffRequested { by }, false, settings.off_delay),
            Command::ForceOff => (PowerEvent::ForceOffRequested { by }, false, settings.force_off_delay),
        };
        self.note(core, at, event);
        if deaf {
            return;
        }
        let node = &mut self.nodes[at];
        node.command += 1;
        let event = Event::Power { node: at, command: node.command, on };
        self.timers.set(core, delay, event);
    }

    pub(crate) fn power_applied(&mut self, core: &Core, at: usize, command: u64, on: bool) {
        let node = &self.nodes[at];
        if node.command == command && node.power != on {
            self.set_power(core, at, on);
        }
    }

    /// Changes the power of a node at once.
    pub(crate) fn set_power(&mut self, core: &Core, at: usize, on: bool) {
        let settings = core.settings();
        let node = &mut self.nodes[at];
        node.power = on;
        node.boot += 1;
        node.chain += 1;
        node.run = None;
        if settings.sample_interval.is_zero() {
            node.sampled = on;
            node.power_changed = Timestamp::now();
        }
        if settings.state_follows_power {
            node.state = if on { "On" } else { "Off" };
        }
        let boot = node.boot;
        self.note(core, at, if on { PowerEvent::PoweredOn } else { PowerEvent::PoweredOff });
        if on {
            self.timers.set(core, settings.script_delay, Event::Script { node: at, boot });
        }
    }

    /// The firmware asks BSS for a boot script and loads what it names.
    pub(crate) fn fetch_script(&mut self, core: &Core, at: usize, boot: u64) {
        if self.nodes[at].boot != boot || self.nodes[at].faults.never_boots {
            return;
        }
        if self.nodes[at].failed_boots < self.nodes[at].faults.fail_boots {
            self.nodes[at].failed_boots += 1;
            self.note(core, at, PowerEvent::BootFailed { reason: "the node hangs in its firmware".into() });
            return;
        }
        match self.load(core, at) {
            Ok(script) => self.run_kernel(core, at, script),
            Err(reason) => {
                self.note(core, at, PowerEvent::BootFailed { reason });
                let wait = core.settings().boot_retry_delay.max(Duration::from_millis(10));
                self.timers.set(core, wait, Event::Script { node: at, boot });
            }
        }
    }

    fn load(&mut self, core: &Core, at: usize) -> Result<Script, String> {
        let xname = self.nodes[at].xname.clone();
        let path = format!("/boot/v1/bootscript?name={xname}");
        if let Some(failure) = core.node_call_fails(Service::Bss, "GET", &path) {
            return Err(failure);
        }
        let text = self.boot_script(core, at)?;
        let script = Script::parse(&text)?;
        self.note(core, at, PowerEvent::ScriptFetched { token: script.word("bss_referral_token") });
        for url in [&script.kernel_url, &script.initrd_url] {
            self.load_object(core, url)?;
        }
        Ok(script)
    }

    fn load_object(&mut self, core: &Core, url: &str) -> Result<(), String> {
        let target = url.strip_prefix(core.s3_url.get().map_or("", String::as_str)).ok_or_else(|| format!("cannot load {url}"))?;
        if let Some(failure) = core.node_call_fails(Service::S3, "GET", target) {
            return Err(failure);
        }
        self.s3.check_presigned(core, target)
    }

    fn run_kernel(&mut self, core: &Core, at: usize, script: Script) {
        let settings = core.settings();
        let kernel = script.kernel_path();
        let node = &mut self.nodes[at];
        node.run = Some(Running { token: script.word("bss_referral_token"), kernel, params: script.params, up: false });
        let boot = node.boot;
        let rest = settings.boot_time.saturating_sub(settings.script_delay) + settings.boot_spread.mul_f64(core.random());
        self.timers.set(core, rest, Event::Up { node: at, boot });
    }

    /// The operating system is up: its reporters start.
    pub(crate) fn come_up(&mut self, core: &Core, at: usize, boot: u64) {
        let node = &mut self.nodes[at];
        if node.boot != boot {
            return;
        }
        let Some(run) = &mut node.run else { return };
        run.up = true;
        if node.faults.wrong_token {
            run.token = Some(core.uuid().to_string());
        }
        if core.settings().state_follows_power {
            node.state = "Ready";
        }
        let event = PowerEvent::Up { token: run.token.clone(), kernel: run.kernel.clone() };
        let late = node.faults.report_late.unwrap_or_default();
        self.note(core, at, event);
        self.begin_reports(core, at, late);
        self.timers.set(core, Duration::ZERO, Event::CfsReport { node: at, boot, attempt: 1 });
    }

    /// Starts the bos-reporter of a node anew.
    pub(crate) fn begin_reports(&mut self, core: &Core, at: usize, after: Duration) {
        self.nodes[at].chain += 1;
        let chain = self.nodes[at].chain;
        self.timers.set(core, after, Event::Report { node: at, chain, attempt: 1 });
    }

    /// The bos-reporter of a node sends what it found on its command line.
    pub(crate) fn send_report(&mut self, core: &Core, at: usize, chain: u64, attempt: u32) {
        let node = &self.nodes[at];
        if node.chain != chain || node.faults.never_reports || !node.is_up() {
            return;
        }
        // Without a token on the command line there is nothing to report.
        let Some(token) = node.run.as_ref().and_then(|r| r.token.clone()) else { return };
        let job = ReportJob { node: at, xname: node.xname.clone(), chain, attempt, token };
        // The reporter ends only with the site.
        let _ = core.reports.send(job);
    }

    /// Notes the answer to a report and sets the time of the next one.
    pub(crate) fn report_answered(&mut self, core: &Core, job: &ReportJob, status: Option<u16>, retry_after: Option<Duration>) {
        let settings = core.settings();
        let acknowledged = status == Some(200);
        self.note(
            core,
            job.node,
            if acknowledged { PowerEvent::ReportAcknowledged { token: job.token.clone() } } else { PowerEvent::ReportFailed { status } },
        );
        let node = &self.nodes[job.node];
        if node.chain != job.chain {
            return;
        }
        let next = if acknowledged {
            settings.periodic_reports.then(|| self.report_period(core, job.node)).map(|after| (after, 1))
        } else {
            let wait = retry_after.unwrap_or_else(|| backoff(job.attempt).mul_f64(settings.report_backoff_scale));
            Some((wait.max(Duration::from_millis(1)), job.attempt.saturating_add(1)))
        };
        if let Some((after, attempt)) = next {
            self.timers.set(core, after, Event::Report { node: job.node, chain: job.chain, attempt });
        }
    }

    /// Three quarters of `bos_update_frequency`; the first period is cut at random.
    fn report_period(&self, core: &Core, at: usize) -> Duration {
        let node = &self.nodes[at];
        let params = node.run.as_ref().map_or("", |r| r.params.as_str());
        let every = params.split_whitespace().rev().find_map(|w| w.strip_prefix("bos_update_frequency=")).and_then(parse_period);
        let period = every.unwrap_or(Duration::from_secs(4 * 3600)).mul_f64(0.75);
        let first = node.history.acknowledged() <= 1;
        (if first { period.mul_f64(core.random()) } else { period }).max(Duration::from_secs(1))
    }

    /// The cfs-state-reporter of a node forgets the old layers and enables it in CFS.
    pub(crate) fn report_to_cfs(&mut self, core: &Core, at: usize, boot: u64, attempt: u32) {
        let node = &self.nodes[at];
        if node.boot != boot || node.faults.no_cfs_reporter || node.faults.missing_from_cfs {
            return;
        }
        let path = format!("/v3/components/{}", node.xname);
        if core.node_call_fails(Service::Cfs, "PATCH", &path).is_some() {
            let wait = backoff(attempt).mul_f64(core.settings().report_backoff_scale).max(Duration::from_millis(1));
            self.timers.set(core, wait, Event::CfsReport { node: at, boot, attempt: attempt.saturating_add(1) });
            return;
        }
        let xname = node.xname.clone();
        self.cfs.node_reports(&xname);
        self.note(core, at, PowerEvent::CfsReported);
        self.cfs_kick(core, at);
    }

    /// Starts configuration of a node that waits for it.
    pub(crate) fn cfs_kick(&mut self, core: &Core, at: usize) {
        let node = &self.nodes[at];
        if !node.is_up() || node.faults.cfs_pending {
            return;
        }
        let settings = core.settings();
        if let Some(generation) = self.cfs.wants_run(&node.xname, settings.cfs_retries) {
            self.timers.set(core, settings.cfs_delay, Event::CfsRun { node: at, generation });
        }
    }

    /// CFS has worked on a node.
    pub(crate) fn cfs_run(&mut self, core: &Core, at: usize, generation: u64) {
        let node = &self.nodes[at];
        let xname = node.xname.clone();
        let retries = core.settings().cfs_retries;
        if !node.is_up() || node.faults.cfs_pending || !self.cfs.is_current(&xname, generation) {
            return;
        }
        if node.faults.cfs_fails {
            self.cfs.layer_failed(&xname);
            if self.cfs.wants_run(&xname, retries).is_some() {
                self.cfs_kick(core, at);
            } else {
                self.note(core, at, PowerEvent::ConfigurationFailed);
            }
        } else if let Some(configuration) = self.cfs.layers_applied(&xname) {
            self.note(core, at, PowerEvent::Configured { configuration });
        }
    }
}

/// `4h`, `90m`, `30s`, `1d` or plain seconds.
fn parse_period(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return text.parse().ok().map(Duration::from_secs),
    };
    text[..text.len() - 1].parse::<u64>().ok().map(|n| Duration::from_secs(n.saturating_mul(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reporters_wait_longer_each_time_but_never_over_half_a_minute() {
        let waits: Vec<u64> = [1, 2, 14, 15, 16, u32::MAX].into_iter().map(|n| backoff(n).as_secs()).collect();
        assert_eq!(waits, [2, 4, 28, 30, 30, 30]);
    }

    #[test]
    fn periods_have_units() {
        let read = |text| parse_period(text).map(|p| p.as_secs());
        assert_eq!(
            [read("4h"), read("90m"), read("30s"), read("1d"), read("7")],
            [Some(14_400), Some(5_400), Some(30), Some(86_400), Some(7)]
        );
        assert_eq!([read(""), read("h"), read("soon")], [None; 3]);
    }
}
