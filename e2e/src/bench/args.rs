//! The command line of the benchmark.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;

use crate::demo::{ModeArg, Operation, PowerArg, ProfileArg, some_nodes};

const AFTER_HELP: &str = "\
WHAT IS MEASURED
  wall          from the start of `kubectl apply` of the Session until it is Complete. Discovery is over by then.
  costs         CPU time from then until no more statuses are written; the peak of resident memory since the start.
  API writes    of everybody, by the API server's own metrics, over the same time.
  calls         of the operator, by service.
  event         for each node, from what tells the operator of it to the call that follows, as the site sees both: from the
  to action     answer of one call to the next call, from the first answer of the power service that can show it off, from the
                node's report; and from a report to its answer.
  passes        of the operators over all nodes; projections, of what is shown of the nodes that a pass touched; and writes of
                journals: how many, what they took together, and what 99 of 100 took at most.
  raw limit     in the same run, how long the same API server takes alone, with the operator stopped, for two status merge
                patches a node on the same objects, 16 in flight; the median of some runs.

BUDGETS
  wall          1.5 times (hardware + raw limit), plus 2 s
  API writes    of BootComponents, per node: Boot 4, Reboot 5, Shutdown 3
  operator      CPU 8 s at two of these writes a node and 12 s at four, for up to 10,000 nodes; memory 300 MiB
  to action     99 of 100 within 1 s, and what led to it seen for 99 of 100 nodes; not in mode v1, where an agent acts
  idle          0.1 s of CPU a minute

MAKE
  make bench [NODES=1000] [OPERATION=Boot] [POWER=pcs] [MODE=v2] [JSON=out.json] [HARDWARE_SECONDS=3] [IDLE_SECONDS=0]

EXIT CODE
  0 if every node came to what was asked for, none was power-cycled more or less often, and what each was answered
  200 for is shown in its BootComponent; with --check only if the budgets were kept too.";

/// Measures an operation on simulated nodes and a real control plane.
#[derive(Debug, Clone, Parser)]
#[command(name = "bench", after_long_help = AFTER_HELP, max_term_width = 120)]
pub struct Args {
    /// How many nodes, at least one.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = some_nodes)]
    pub(super) nodes: usize,
    /// What the Session does. Reboot and Shutdown boot the nodes first, before the clock starts.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Operation::Boot)]
    pub(super) operation: Operation,
    /// Who carries the Session out: v2, the operator; v1, an agent in a Job.
    #[arg(long, value_enum, ignore_case = true, default_value_t = ModeArg::V2)]
    pub(super) mode: ModeArg,
    /// Which service switches power.
    #[arg(long, value_enum, ignore_case = true, default_value_t = PowerArg::Pcs)]
    pub(super) power: PowerArg,
    /// Seconds that the hardware takes from power-on to the report. A node is off at once.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pub(super) hardware_seconds: f64,
    /// Write the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Fail if a budget was not kept.
    #[arg(long)]
    pub(super) check: bool,
    /// How often the raw limit is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(super) raw_limit_runs: usize,
    /// Afterwards, watch for so long what an operator costs that has nothing to do.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    idle_seconds: f64,
    /// How long a Session may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 900.0)]
    limit: f64,
    /// Which operator is measured; `make bench` says release. BOS_OPERATOR_BIN=FILE measures that one.
    #[arg(long, value_enum, default_value_t = ProfileArg::Dev)]
    pub(super) profile: ProfileArg,
}

impl Args {
    /// Reads the command line; ends the process for `--help` and mistakes.
    pub fn from_process() -> Self {
        Self::parse()
    }

    /// Where the figures go.
    pub fn json(&self) -> Option<&std::path::Path> {
        self.json.as_deref()
    }

    /// Whether budgets count.
    pub fn check(&self) -> bool {
        self.check
    }

    pub(super) fn boot_time(&self) -> anyhow::Result<Duration> {
        seconds("hardware-seconds", self.hardware_seconds)
    }

    /// Seconds of the operation in which nothing but the hardware is at work.
    pub(super) fn waits_for_hardware(&self) -> f64 {
        match self.operation {
            Operation::Boot | Operation::Reboot => self.hardware_seconds,
            Operation::Shutdown | Operation::Configure => 0.0,
        }
    }

    pub(super) fn idle(&self) -> anyhow::Result<Duration> {
        seconds("idle-seconds", self.idle_seconds)
    }

    pub(super) fn limit(&self) -> anyhow::Result<Duration> {
        seconds("limit", self.limit)
    }
}

fn seconds(flag: &str, value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("--{flag}: {value} is not a number of seconds"))
}
