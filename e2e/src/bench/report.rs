//! The figures, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::args::Args;
use super::costs::Costs;
use super::figures::Work;
use super::reaction::{Reactions, Times};
use crate::control_plane::ProcStat;
use crate::demo::{ModeArg, Operation, PowerArg};

/// What one process has cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// User and system time during the operation.
    pub cpu_seconds: f64,
    /// The most memory that was ever resident.
    #[serde(rename = "peakRssMiB")]
    pub peak_rss_mib: f64,
}

impl From<ProcStat> for Cost {
    fn from(stat: ProcStat) -> Self {
        Self { cpu_seconds: rounded(stat.cpu_seconds, 2), peak_rss_mib: rounded(stat.peak_rss_mib(), 1) }
    }
}

/// All figures of one run; the keys of the JSON file.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How many nodes.
    pub nodes: usize,
    /// Boot, Reboot or Shutdown.
    pub operation: String,
    /// Who carried it out.
    pub mode: ModeArg,
    /// What switched power.
    pub power: PowerArg,
    /// From the start of `kubectl apply` until the Session was Complete.
    pub wall_seconds: f64,
    /// What the simulated hardware takes of it: nothing for a Shutdown.
    pub hardware_seconds: f64,
    /// What the API server takes alone for two status writes a node.
    pub raw_limit_seconds: f64,
    /// The operator.
    pub operator: Cost,
    /// kube-apiserver.
    pub api_server: Cost,
    /// etcd.
    pub etcd: Cost,
    /// The simulated site and its nodes.
    pub site: Cost,
    /// All writes to the API server, divided by the nodes.
    pub api_writes_per_node: f64,
    /// Writes by verb and resource.
    pub api_writes: BTreeMap<String, u64>,
    /// The operator's calls by service.
    pub service_calls: BTreeMap<String, u64>,
    /// Passes of all operators over the World.
    pub passes: Work,
    /// What was to be shown after each pass.
    pub projections: Work,
    /// Writes of journals.
    pub journal_writes: Work,
    /// From what the operator was told to the call that follows, by call; see `--help`.
    pub event_to_action: BTreeMap<String, Times>,
    /// What is missing in them: calls of which it was not seen what led to them, and reports without an answer.
    pub events_unpaired: usize,
    /// After it all, with nothing to do; only with `--idle-seconds`.
    pub idle: Option<Idle>,
}

/// What an operator costs that has nothing to do, a minute.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Idle {
    /// How long it was watched.
    pub seconds: f64,
    /// CPU time of the operator.
    pub cpu_seconds_a_minute: f64,
    /// Writes to the API server, of the lease too.
    pub api_writes_a_minute: f64,
    /// Calls of services.
    pub calls_a_minute: f64,
}

impl Idle {
    pub(super) fn new(watched: Duration, costs: &Costs, calls: u64) -> Self {
        let minutes = watched.as_secs_f64() / 60.0;
        Self {
            seconds: watched.as_secs_f64(),
            cpu_seconds_a_minute: rounded(costs.operator.cpu_seconds / minutes, 3),
            api_writes_a_minute: rounded(costs.writes.sum() as f64 / minutes, 1),
            calls_a_minute: rounded(calls as f64 / minutes, 1),
        }
    }
}

/// What one run gave.
pub(super) struct Measured {
    pub(super) wall: Duration,
    pub(super) raw_limit: Duration,
    pub(super) costs: Costs,
    pub(super) calls: BTreeMap<String, u64>,
    pub(super) reactions: Reactions,
    pub(super) idle: Option<Idle>,
}

impl Report {
    pub(super) fn new(args: &Args, measured: Measured) -> Self {
        let Measured { wall, raw_limit, costs, calls, reactions, idle } = measured;
        let api_writes = costs.writes.0.iter().map(|(kind, count)| (format!("{} {}", kind.verb, kind.resource), *count)).collect();
        Self {
            nodes: args.nodes,
            operation: args.operation.name().to_owned(),
            mode: args.mode,
            power: args.power,
            wall_seconds: rounded(wall.as_secs_f64(), 3),
            hardware_seconds: args.waits_for_hardware(),
            raw_limit_seconds: rounded(raw_limit.as_secs_f64(), 3),
            operator: costs.operator.into(),
            api_server: costs.api_server.into(),
            etcd: costs.etcd.into(),
            site: costs.site.into(),
            api_writes_per_node: rounded(costs.writes.sum() as f64 / args.nodes.max(1) as f64, 3),
            api_writes,
            service_calls: calls,
            passes: costs.passes.into(),
            projections: costs.projections.into(),
            journal_writes: costs.journals.into(),
            event_to_action: reactions.times,
            events_unpaired: reactions.unpaired,
            idle,
        }
    }

    /// What the wall time must stay within: hardware and raw limit with half as much again, and two seconds.
    pub fn wall_budget_seconds(&self) -> f64 {
        1.5 * (self.hardware_seconds + self.raw_limit_seconds) + 2.0
    }

    /// Writes of BootComponents alone. What a Session costs whatever its size (its own status, plan and journal) is left out.
    pub fn component_writes_per_node(&self) -> f64 {
        let of_components = |name: &str| name.split([' ', '/']).nth(1) == Some("bootcomponents");
        let writes: u64 = self.api_writes.iter().filter(|(name, _)| of_components(name)).map(|(_, count)| count).sum();
        rounded(writes as f64 / self.nodes.max(1) as f64, 3)
    }

    /// How often a node's BootComponent may be written.
    pub fn write_budget(&self) -> f64 {
        match self.operation.as_str() {
            name if name == Operation::Reboot.name() => 5.0,
            name if name == Operation::Shutdown.name() => 3.0,
            _ => 4.0,
        }
    }

    /// What the operator's CPU time must stay within: 8 s at two writes a node and 12 s at four, for up to ten thousand nodes.
    fn cpu_budget_seconds(&self) -> f64 {
        let size = (self.nodes as f64 / 10_000.0).max(1.0);
        size * (8.0 + 2.0 * (self.component_writes_per_node() - 2.0)).clamp(8.0, 12.0)
    }

    /// The budgets: what each is of, what was measured, and the most it may be.
    fn budgets(&self) -> Vec<(&'static str, f64, f64)> {
        let slowest = self.event_to_action.values().map(|times| times.p99).fold(0.0, f64::max);
        let mut budgets = vec![
            ("wall time, s", self.wall_seconds, self.wall_budget_seconds()),
            ("writes of BootComponents a node", self.component_writes_per_node(), self.write_budget()),
            ("operator: CPU, s", self.operator.cpu_seconds, self.cpu_budget_seconds()),
            ("operator: memory, MiB", self.operator.peak_rss_mib, 300.0),
        ];
        // Where an agent acts, the operator does not, and a report is stored when the agent has ended.
        if self.mode == ModeArg::V2 {
            let unpaired = self.events_unpaired as f64 * 100.0 / self.nodes.max(1) as f64;
            budgets.push(("event to action, 99 %, s", slowest, 1.0));
            budgets.push(("events not paired, % of nodes", unpaired, 1.0));
        }
        budgets.extend(self.idle.iter().map(|idle| ("idle: CPU a minute, s", idle.cpu_seconds_a_minute, 0.1)));
        budgets
    }

    /// Whether all budgets were kept.
    pub fn is_within_budgets(&self) -> bool {
        self.budgets().iter().all(|(_, measured, most)| measured <= most)
    }

    /// The figures for a person.
    pub fn table(&self) -> String {
        let mut lines = vec![
            format!("{} of {} nodes", self.operation, self.nodes),
            format!("  wall time          {:8.2} s", self.wall_seconds),
            format!("  hardware           {:8.2} s", self.hardware_seconds),
            format!("  raw limit          {:8.2} s   two status writes a node, API server alone", self.raw_limit_seconds),
            format!("  API writes a node  {:8.2}     all of them, of everybody", self.api_writes_per_node),
            format!("    of BootComponents{:8.2}", self.component_writes_per_node()),
            String::from("  costs                CPU s   peak MiB"),
        ];
        let costs = [("operator", self.operator), ("kube-apiserver", self.api_server), ("etcd", self.etcd), ("site", self.site)];
        lines.extend(costs.iter().map(|(name, cost)| format!("    {name:<16} {:8.2}   {:8.1}", cost.cpu_seconds, cost.peak_rss_mib)));
        lines.push(String::from("  API writes"));
        lines.extend(counted(&self.api_writes));
        lines.push(String::from("  calls of services"));
        lines.extend(counted(&self.service_calls));
        let work = [("passes", &self.passes), ("projections", &self.projections), ("journal writes", &self.journal_writes)];
        lines.extend(
            work.iter().map(|(name, work)| format!("  {name:<18} {:8}     {:.3} s together, p99 {}", work.count, work.seconds, p99(work))),
        );
        lines.push(String::from("  event to action        nodes        p50      p99  longest"));
        let times = self.event_to_action.iter();
        lines.extend(times.map(|(name, t)| format!("    {name:<20} {:8} {:8.3} {:8.3} {:8.3} s", t.count, t.p50, t.p99, t.longest)));
        lines.push(format!("    without a pair       {:8}", self.events_unpaired));
        lines.extend(self.idle.iter().map(|idle| {
            let Idle { seconds, cpu_seconds_a_minute, api_writes_a_minute, calls_a_minute } = idle;
            format!("  idle, a minute     {cpu_seconds_a_minute} CPU s, {api_writes_a_minute} API writes, {calls_a_minute} calls (watched for {seconds} s)")
        }));
        lines.push(String::from("  budgets                             measured  at most"));
        lines.extend(self.budgets().iter().map(|(name, measured, most)| {
            let word = if measured <= most { "" } else { "  EXCEEDED" };
            format!("    {name:<34}{measured:8.2} {most:8.2}{word}")
        }));
        lines.push(String::from(if self.is_within_budgets() { "Within the budgets." } else { "A BUDGET IS EXCEEDED." }));
        lines.join("\n")
    }
}

fn counted(counts: &BTreeMap<String, u64>) -> impl Iterator<Item = String> {
    let mut largest_first: Vec<(&String, &u64)> = counts.iter().collect();
    largest_first.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    largest_first.into_iter().map(|(name, count)| format!("    {name:<32} {count:8}"))
}

fn p99(work: &Work) -> String {
    work.p99_seconds_at_most.map_or_else(|| String::from("over every bound"), |seconds| format!("at most {seconds} s"))
}

fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(operation: &str, wall: f64, writes: u64) -> Report {
        let cost = Cost { cpu_seconds: 1.0, peak_rss_mib: 100.0 };
        Report {
            nodes: 1000,
            operation: operation.to_owned(),
            mode: ModeArg::V2,
            power: PowerArg::Pcs,
            wall_seconds: wall,
            hardware_seconds: 3.0,
            raw_limit_seconds: 3.0,
            operator: cost,
            api_server: cost,
            etcd: cost,
            site: cost,
            api_writes_per_node: 6.0,
            api_writes: BTreeMap::from([
                ("patch bootcomponents/status".to_owned(), writes - 1000),
                ("patch bootcomponents".to_owned(), 1000),
                ("update configmaps".to_owned(), 900),
            ]),
            service_calls: BTreeMap::from([("pcs".to_owned(), 5)]),
            passes: Work { count: 10.0, seconds: 0.1, p99_seconds_at_most: Some(0.01) },
            projections: Work { count: 10.0, seconds: 0.1, p99_seconds_at_most: Some(0.01) },
            journal_writes: Work { count: 10.0, seconds: 0.1, p99_seconds_at_most: None },
            event_to_action: BTreeMap::new(),
            events_unpaired: 0,
            idle: None,
        }
    }

    #[test]
    fn budgets_depend_on_the_operation() {
        assert!(report("Boot", 11.0, 4000).is_within_budgets());
        assert!(!report("Boot", 11.1, 4000).is_within_budgets());
        assert!(!report("Boot", 11.0, 4100).is_within_budgets());
        assert!(report("Reboot", 11.0, 5000).is_within_budgets());
        assert!(!report("Shutdown", 11.0, 3100).is_within_budgets());
    }

    #[test]
    fn every_budget_counts() {
        let kept = |change: fn(&mut Report)| {
            let mut report = report("Boot", 11.0, 3000);
            change(&mut report);
            report.is_within_budgets()
        };
        let times = |p99| BTreeMap::from([("bss".to_owned(), Times { count: 1, p50: 0.1, p99, longest: 9.0 })]);
        let idle = |cpu| Some(Idle { seconds: 600.0, cpu_seconds_a_minute: cpu, api_writes_a_minute: 8.0, calls_a_minute: 2.0 });
        assert!(kept(|report| report.operator = Cost { cpu_seconds: 10.0, peak_rss_mib: 300.0 }), "three writes a node");
        assert!(!kept(|report| report.operator.cpu_seconds = 10.1));
        assert!(!kept(|report| report.operator.peak_rss_mib = 300.1));
        assert!(kept(|report| report.events_unpaired = 10) && !kept(|report| report.events_unpaired = 11));
        let mut slow = report("Boot", 11.0, 3000);
        slow.event_to_action = times(1.1);
        assert!(!slow.is_within_budgets() && slow.table().contains("EXCEEDED"));
        slow.mode = ModeArg::V1;
        assert!(slow.is_within_budgets(), "an agent acts");
        slow.mode = ModeArg::V2;
        slow.event_to_action = times(1.0);
        assert!(slow.is_within_budgets() && !slow.table().contains("EXCEEDED"));
        slow.idle = idle(0.11);
        assert!(!slow.is_within_budgets());
    }

    #[test]
    fn the_file_has_the_agreed_keys() {
        let value = serde_json::to_value(report("Boot", 5.0, 3000)).unwrap();
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let agreed = [
            "apiServer",
            "apiWrites",
            "apiWritesPerNode",
            "etcd",
            "eventToAction",
            "eventsUnpaired",
            "hardwareSeconds",
            "idle",
            "journalWrites",
            "mode",
            "nodes",
            "operation",
            "operator",
            "passes",
            "power",
            "projections",
            "rawLimitSeconds",
            "serviceCalls",
            "site",
            "wallSeconds",
        ];
        assert_eq!(keys, agreed);
        assert_eq!(value["apiServer"], serde_json::json!({"cpuSeconds": 1.0, "peakRssMiB": 100.0}));
    }
}
