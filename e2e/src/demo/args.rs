//! The command line of the demo.

use std::time::Duration;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, ValueEnum};
use serde::Serialize;

use super::faults::{Fault, Trouble};
use crate::rig::{PowerBy, Profile, template};

const AFTER_HELP: &str = "\
FAULTS (--faults, separated by commas; N nodes from the first one on, S seconds)
  never-reports=N     N nodes come up but send no report: cycled within the retry budget, then Failed (BootTimeout) and left on;
                      where no other node was heard meanwhile they are not cycled, as reports may be lost (ReportPathDown)
  never-powers-on=N   N nodes take the power-on command and stay off
  fails-first-boot=N  N nodes die once before they fetch their boot script
  late=N              N nodes report only after the deadline of their first attempt
  bmc-unknown=N       the BMCs of N nodes do not answer: held, never cycled, then Failed (PowerUnknown)
  stuck=N             N nodes do not react to a graceful power-off (Reboot and Shutdown)
  cfs-fails=N         CFS cannot configure N nodes
  outage=NAME:S[:KIND]  HSM, PCS, CAPMC, BSS, CFS, IMS or S3 fails for S seconds from the start of the Session. KIND: unavailable
                      (default), internal-error, hang, reset, refuse, garbage, html, empty, store-down
  latency=S           every call of a service takes S seconds longer
  errors=SHARE        this share of all calls, 0 to 1, is answered 503
  kill=S              the operator is killed with -9 every S seconds while the Session runs
  Faults of nodes make the operator wait for deadlines, which the demo shortens to the longest boot time and ten seconds (--boot-wait).

MAKE
  make demo [NODES=100] [ONCE=1] [BOOT_TIME=3] [FAULTS=...] [OPERATION=Boot] [POWER=pcs] [MODE=v2] [WEBHOOK=1]
  make demo NODES=20 FAULTS=never-reports=1,outage=PCS:10 ONCE=1

EXIT CODE
  0 only if every node came to what was asked for, as the simulated site itself knows it, and the Session Succeeded.
  BOS_E2E_KEEP_LOGS=1 keeps the folder with all logs. KUBEBUILDER_ASSETS names a folder with a ready-made control plane.";

/// Boots virtual nodes on a real control plane and shows it.
///
/// Starts etcd and kube-apiserver, installs our manifests with kubectl, starts a simulated site (HSM, PCS, CAPMC, BSS, CFS, IMS, S3 and
/// its nodes) and the operator, applies a SessionTemplate and a Session, and follows the nodes. Nothing outside a temporary folder
/// and loopback ports is touched, and all of it ends with this program.
#[derive(Debug, Clone, Parser)]
#[command(name = "demo", after_long_help = AFTER_HELP, max_term_width = 120)]
pub struct Args {
    /// How many nodes, at least one.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = some_nodes)]
    pub(super) nodes: usize,
    /// End after the Session has ended, instead of staying up until Ctrl-C.
    #[arg(long)]
    pub(super) once: bool,
    /// What the Session does. Reboot, Shutdown and Configure boot the nodes first.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Operation::Boot)]
    pub(super) operation: Operation,
    /// Who carries the Session out: v2, the operator; v1, an agent in a Job, for which a small node runs too (takes root).
    #[arg(long, value_enum, ignore_case = true, default_value_t = ModeArg::V2)]
    pub(super) mode: ModeArg,
    /// Which service switches power.
    #[arg(long, value_enum, ignore_case = true, default_value_t = PowerArg::Pcs)]
    pub(super) power: PowerArg,
    /// Seconds that a node takes from power to its report.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = some_time)]
    pub(super) boot_time: f64,
    /// How unlike the nodes are: the slowest takes this share of the boot time longer.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share_of_time)]
    pub(super) spread: f64,
    /// What goes wrong, see FAULTS below.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(super) faults: Vec<Fault>,
    /// How long the operator waits for a node at each step, in seconds. Default: that of the options, unless nodes have faults.
    #[arg(long, value_name = "SECONDS", value_parser = some_time)]
    pub(super) boot_wait: Option<f64>,
    /// How long the Session may take, in seconds; then the demo fails.
    #[arg(long, value_name = "SECONDS", default_value_t = 900.0, value_parser = some_time)]
    limit: f64,
    /// Run the webhook too: `kubectl apply` says what would go wrong, and `--dry-run=server` what a Session would do.
    #[arg(long)]
    pub(super) webhook: bool,
    /// Run a kube-controller-manager too.
    #[arg(long)]
    pub(super) controller_manager: bool,
    /// Which operator is run.
    #[arg(long, value_enum, default_value_t = ProfileArg::Dev)]
    pub(super) profile: ProfileArg,
}

impl Args {
    /// Reads the command line; ends the process for `--help` and mistakes.
    pub fn from_process() -> Self {
        let args = Self::parse();
        if let Err(text) = args.check() {
            Self::command().error(ErrorKind::ValueValidation, text).exit();
        }
        args
    }

    /// What one argument cannot tell by itself: before anything is built up, not after.
    fn check(&self) -> Result<(), String> {
        let (nodes, hurt) = (self.nodes, Trouble::of(&self.faults).nodes_hurt());
        if hurt > nodes {
            return Err(format!("--faults name {hurt} nodes, and --nodes is {nodes}; each fault has nodes of its own"));
        }
        Ok(())
    }

    pub(super) fn boot_time(&self) -> anyhow::Result<Duration> {
        seconds("boot-time", self.boot_time)
    }

    pub(super) fn limit(&self) -> anyhow::Result<Duration> {
        seconds("limit", self.limit)
    }
}

/// A number of nodes, as the command line has it.
///
/// # Errors
/// When it is none, or 0.
pub(crate) fn some_nodes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least one node is needed".to_owned()),
        Ok(nodes) => Ok(nodes),
        Err(_) => Err("not a number of nodes".to_owned()),
    }
}

/// A day is more than any demo takes, and no sum of such times is too long for a clock.
const LONGEST: f64 = 86_400.0;

fn some_time(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0 && *seconds <= LONGEST);
    seconds.ok_or_else(|| format!("not a number of seconds between 0 and {LONGEST}"))
}

fn share_of_time(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| (0.0..=100.0).contains(share));
    share.ok_or_else(|| "not a number from 0 to 100, for example 0.5".to_owned())
}

fn seconds(flag: &str, value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("--{flag}: {value} is not a number of seconds"))
}

/// What a Session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Operation {
    /// Bring nodes up.
    Boot,
    /// Power nodes off and bring them up.
    Reboot,
    /// Power nodes off.
    Shutdown,
    /// Configure nodes that are up.
    Configure,
}

impl Operation {
    /// Its name in a Session.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boot => "Boot",
            Self::Reboot => "Reboot",
            Self::Shutdown => "Shutdown",
            Self::Configure => "Configure",
        }
    }

    /// What its nodes are afterwards.
    pub(super) fn done(self) -> &'static str {
        match self {
            Self::Boot => "booted",
            Self::Reboot => "rebooted",
            Self::Shutdown => "off",
            Self::Configure => "configured",
        }
    }
}

/// Who carries the Session out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeArg {
    /// The operator.
    V2,
    /// An agent in a Job, as BOS v1 did it.
    V1,
}

impl ModeArg {
    /// A Session of this mode.
    pub fn session(self, name: &str, template: &str, operation: Operation) -> String {
        match self {
            Self::V2 => template::session(name, template, operation.name()),
            Self::V1 => template::v1_session(name, template, operation.name()),
        }
    }
}

/// Which service switches power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerArg {
    /// PCS, the Power Control Service.
    Pcs,
    /// CAPMC, which older systems have instead.
    Capmc,
}

impl From<PowerArg> for PowerBy {
    fn from(arg: PowerArg) -> Self {
        match arg {
            PowerArg::Pcs => Self::Pcs,
            PowerArg::Capmc => Self::Capmc,
        }
    }
}

/// How the operator is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileArg {
    /// As for tests.
    Dev,
    /// As it is shipped.
    Release,
}

impl From<ProfileArg> for Profile {
    fn from(arg: ProfileArg) -> Self {
        match arg {
            ProfileArg::Dev => Self::Dev,
            ProfileArg::Release => Self::Release,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_shown_is_refused_before_anything_is_started() {
        for (line, named) in [
            ("--nodes 0", "at least one node"),
            ("--nodes many", "not a number of nodes"),
            ("--boot-time 0", "not a number of seconds"),
            ("--boot-time=-3", "not a number of seconds"),
            ("--boot-time NaN", "not a number of seconds"),
            ("--spread=-1", "from 0 to 100"),
            ("--boot-wait inf", "not a number of seconds"),
            ("--limit 1e30", "not a number of seconds"),
            ("--operation Apply", "invalid value"),
            ("--mode v3", "invalid value"),
        ] {
            let error = Args::try_parse_from(std::iter::once("demo").chain(line.split(' '))).unwrap_err().to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn faults_need_nodes_of_their_own() {
        let check = |line: &str| Args::try_parse_from(std::iter::once("demo").chain(line.split(' '))).unwrap().check();
        assert_eq!(check("--nodes 5 --faults never-reports=2,stuck=3"), Ok(()));
        let error = check("--nodes 4 --faults never-reports=2,stuck=3").unwrap_err();
        assert!(error.contains("name 5 nodes"), "{error}");
    }
}
