//! The command line and the environment.
//!
//! Every setting is `None` here unless it was given, so that a flag can win over the environment, the environment over the
//! configuration file, and the file over the default; [`crate::config`] puts the four together.

use std::net::SocketAddr;
use std::path::PathBuf;

use bos_services::config::{Secret, ServiceConfig};
use bos_services::{PowerService, PowerStateSource, ServicesConfig};
use clap::builder::Resettable;
use clap::{Args as ClapArgs, CommandFactory, FromArgMatches, Parser, ValueEnum};
use serde::{Deserialize, Serialize};

const AFTER_HELP: &str = "\
PRECEDENCE
  A flag wins over its environment variable, that over the configuration file, that over the default.
  An empty environment variable counts as not set.

CONFIGURATION FILE (--config, YAML)
  Keys are the names of the flags in camelCase; unknown keys are errors. Settings of services are under `services`:

    reportListen: 0.0.0.0:8080
    logFormat: json
    services:
      hsm: {baseUrl: \"https://api-gw-service-nmn.local/apis/smd/hsm/v2\", caFile: /etc/bos/ca.pem, tokenFile: /run/bos/token}
      pcs: {timeoutSeconds: 30, maxInFlight: 4}
      s3:  {endpoint: \"https://rgw-vip\", accessKey: BOS, caFile: /etc/bos/ca.pem}   # secretKey: better as S3_SECRET_KEY
      powerTaskDeadlineMinutes: 1
      powerService: pcs              # capmc on a CSM without PCS, with capmc: {...} and powerStateSource: redfish or hsm

KUBERNETES
  The service account inside a cluster, otherwise KUBECONFIG or ~/.kube/config. Kubernetes 1.32 or newer.

EXIT CODES
  0  ended by SIGTERM or SIGINT      2  wrong settings
  1  failed                          3  the leadership is lost; start it again";

/// Boots, reboots, shuts down and configures the nodes of a system, as the Sessions of its Kubernetes API say.
///
/// The operator takes a leader lease, reads SessionTemplates, Sessions and BootComponents, and calls HSM (inventory),
/// PCS or CAPMC (power), BSS (boot parameters), CFS (configuration), IMS (images) and S3 (boot artifacts).
#[derive(Debug, Parser)]
#[command(name = "bos-operator", version, after_long_help = AFTER_HELP, max_term_width = 120)]
pub(crate) struct Args {
    /// YAML file with settings; see CONFIGURATION FILE below. Default: none.
    #[arg(long, env = "BOS_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) operator: OperatorSettings,

    #[command(flatten)]
    hsm: HsmArgs,
    #[command(flatten)]
    pcs: PcsArgs,
    #[command(flatten)]
    capmc: CapmcArgs,
    #[command(flatten)]
    bss: BssArgs,
    #[command(flatten)]
    cfs: CfsArgs,
    #[command(flatten)]
    ims: ImsArgs,
    #[command(flatten)]
    s3: S3Args,

    /// How long PCS tries to reach a power state, in minutes, 1 to 60. Until then it holds the nodes of the request. Default: 1
    #[arg(long, env = "BOS_POWER_TASK_DEADLINE_MINUTES", value_name = "MINUTES", help_heading = "PCS, the Power Control Service")]
    power_task_deadline_minutes: Option<u32>,

    /// Which service switches power: pcs, or capmc on a CSM without PCS. Default: pcs [env: BOS_POWER_SERVICE]
    #[arg(long, value_name = "SERVICE", help_heading = "Power")]
    power_service: Option<PowerService>,

    /// Where CAPMC takes power states from: redfish (the hardware) or hsm. Default: redfish [env: BOS_POWER_STATE_SOURCE]
    #[arg(long, value_name = "SOURCE", help_heading = "Power")]
    power_state_source: Option<PowerStateSource>,

    /// How long a node rests between off and on, with CAPMC, in seconds, 0 to 600; 0 is enough where no PCS is behind CAPMC. Default: 45 [env: BOS_POWER_REST_SECONDS]
    #[arg(long, value_name = "SECONDS", help_heading = "Power")]
    power_rest_seconds: Option<u64>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Settings of the operator itself, as far as flags and the environment give them.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct OperatorSettings {
    /// Namespace of the operator: its lease, its records and the emergency stop are there. Default: bos
    #[arg(long, env = "BOS_NAMESPACE", value_name = "NAME")]
    pub(crate) namespace: Option<String>,

    /// Name of this process in the leader lease; must be its own. In a cluster the name of the pod. Default: host name and process id
    #[arg(long, env = "BOS_IDENTITY", value_name = "NAME")]
    pub(crate) identity: Option<String>,

    /// Address for /livez, /readyz and /metrics. Port 0 takes a free one; the log names it. Default: 0.0.0.0:8081
    #[arg(long, env = "BOS_HEALTH_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) health_listen: Option<SocketAddr>,

    /// Address for the reports of nodes (bos-reporter), plain HTTP and open to everybody who reaches it. Default: off
    #[arg(long, env = "BOS_REPORT_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) report_listen: Option<SocketAddr>,

    /// How log lines are written. Default: text
    #[arg(long, env = "BOS_LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,

    /// What is logged: a level, or levels by module, for example "info,bos_engine=debug". Default: info
    #[arg(long, env = "BOS_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,

    /// How long another operator leaves the lease alone when it is not renewed, in seconds. Default: 15
    #[arg(long, env = "BOS_LEASE_DURATION_SECONDS", value_name = "SECONDS")]
    pub(crate) lease_duration_seconds: Option<f64>,

    /// How long to go on without a renewal, in seconds; less than the duration. Default: 10
    #[arg(long, env = "BOS_LEASE_RENEW_DEADLINE_SECONDS", value_name = "SECONDS")]
    pub(crate) lease_renew_deadline_seconds: Option<f64>,

    /// How often to renew, in seconds; at most half the renew deadline. Default: 2
    #[arg(long, env = "BOS_LEASE_PERIOD_SECONDS", value_name = "SECONDS")]
    pub(crate) lease_period_seconds: Option<f64>,
}

/// Takes over what is given.
fn take<T>(slot: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *slot = given;
    }
}

/// Declares the flags of one HTTP service. Their environment variables are read by [`ServicesConfig::apply_env`].
macro_rules! service_args {
    ($name:ident, $flag:literal, $var:literal, $title:literal, $base:literal, $seconds:literal) => {
        #[derive(Debug, Clone, Default, ClapArgs)]
        #[command(next_help_heading = $title)]
        struct $name {
            #[arg(id = concat!($flag, "-base-url"), long = concat!($flag, "-base-url"), value_name = "URL",
                  help = concat!("Base URL. Default: ", $base, " [env: BOS_", $var, "_BASE_URL]"))]
            base_url: Option<String>,
            #[arg(id = concat!($flag, "-timeout-seconds"), long = concat!($flag, "-timeout-seconds"), value_name = "SECONDS",
                  help = concat!("Time for a whole answer, in seconds, 1 to 86400. Default: ", $seconds, " [env: BOS_", $var, "_TIMEOUT_SECONDS]"))]
            timeout_seconds: Option<u64>,
            #[arg(id = concat!($flag, "-ca-file"), long = concat!($flag, "-ca-file"), value_name = "FILE",
                  help = concat!("PEM file of certificate authorities; only these are trusted. Default: those of the system [env: BOS_", $var, "_CA_FILE]"))]
            ca_file: Option<PathBuf>,
            #[arg(id = concat!($flag, "-token-file"), long = concat!($flag, "-token-file"), value_name = "FILE",
                  help = concat!("File with a bearer token, read at every call. Default: no token [env: BOS_", $var, "_TOKEN_FILE]"))]
            token_file: Option<PathBuf>,
            #[arg(id = concat!($flag, "-insecure"), long = concat!($flag, "-insecure"), value_name = "BOOL",
                  num_args = 0..=1, default_missing_value = "true",
                  help = concat!("Do not check certificates. Default: false [env: BOS_", $var, "_INSECURE]"))]
            insecure: Option<bool>,
            #[arg(id = concat!($flag, "-max-in-flight"), long = concat!($flag, "-max-in-flight"), value_name = "CALLS",
                  env = concat!("BOS_", $var, "_MAX_IN_FLIGHT"),
                  help = "Calls at a time, 1 to 1000; others wait. Default: 8")]
            max_in_flight: Option<usize>,
        }

        impl $name {
            fn apply(self, config: &mut ServiceConfig) {
                take(&mut config.base_url, self.base_url.map(Some));
                take(&mut config.timeout_seconds, self.timeout_seconds);
                take(&mut config.ca_file, self.ca_file.map(Some));
                take(&mut config.token_file, self.token_file.map(Some));
                take(&mut config.insecure, self.insecure);
                take(&mut config.max_in_flight, self.max_in_flight);
            }
        }
    };
}

service_args!(HsmArgs, "hsm", "HSM", "HSM, the Hardware State Manager", "http://cray-smd/hsm/v2", "20");
service_args!(PcsArgs, "pcs", "PCS", "PCS, the Power Control Service", "http://cray-power-control", "20");
service_args!(CapmcArgs, "capmc", "CAPMC", "CAPMC, Cray Advanced Platform Monitoring and Control", "http://cray-capmc/capmc/v1", "120");
service_args!(BssArgs, "bss", "BSS", "BSS, the Boot Script Service", "http://cray-bss/boot/v1", "20");
service_args!(
    CfsArgs,
    "cfs",
    "CFS",
    "CFS, the Configuration Framework Service (base URL none: the site has none)",
    "http://cray-cfs-api/v3",
    "20"
);
service_args!(ImsArgs, "ims", "IMS", "IMS, the Image Management Service (base URL none: the site has none)", "http://cray-ims/v3", "20");

#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "S3, the object store")]
struct S3Args {
    /// Base URL; buckets are the first part of the path. Default: https://rgw-vip [env: S3_GATEWAY, with S3_PROTOCOL]
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
    /// Region in signatures. Default: us-east-1 [env: S3_REGION]
    #[arg(long, value_name = "NAME")]
    s3_region: Option<String>,
    /// Access key. Default: none, must be given [env: S3_ACCESS_KEY]
    #[arg(long, value_name = "KEY")]
    s3_access_key: Option<String>,
    /// File with the secret key. Default: the variable S3_SECRET_KEY, which must be given otherwise
    #[arg(long, env = "S3_SECRET_KEY_FILE", value_name = "FILE")]
    s3_secret_key_file: Option<PathBuf>,
    /// PEM file of certificate authorities; only these are trusted. Default: those of the system [env: S3_CA_FILE]
    #[arg(long, value_name = "FILE")]
    s3_ca_file: Option<PathBuf>,
    /// Do not check certificates. Default: false [env: S3_INSECURE]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    s3_insecure: Option<bool>,
    /// Time for a whole answer, in seconds, 1 to 86400. Default: 60 [env: S3_TIMEOUT_SECONDS]
    #[arg(long, value_name = "SECONDS")]
    s3_timeout_seconds: Option<u64>,
    /// Calls at a time, 1 to 1000; others wait. Default: 8
    #[arg(long, env = "S3_MAX_IN_FLIGHT", value_name = "CALLS")]
    s3_max_in_flight: Option<usize>,
}

impl S3Args {
    fn apply(self, config: &mut ServicesConfig) -> anyhow::Result<()> {
        let s3 = &mut config.s3;
        take(&mut s3.endpoint, self.s3_endpoint);
        take(&mut s3.region, self.s3_region);
        take(&mut s3.access_key, self.s3_access_key);
        take(&mut s3.ca_file, self.s3_ca_file.map(Some));
        take(&mut s3.insecure, self.s3_insecure);
        take(&mut s3.timeout_seconds, self.s3_timeout_seconds);
        take(&mut s3.max_in_flight, self.s3_max_in_flight);
        if let Some(file) = self.s3_secret_key_file {
            let secret = std::fs::read_to_string(&file)
                .map_err(|error| anyhow::anyhow!("--s3-secret-key-file: cannot read {}: {error}", file.display()))?;
            s3.secret_key = Secret::new(secret.trim());
        }
        Ok(())
    }
}

impl Args {
    /// Reads the command line and the environment of this process; ends it for `--help`, `--version` and mistakes.
    pub(crate) fn from_process() -> Self {
        let matches = without_empty_variables(Self::command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Takes over the flags of the services.
    ///
    /// # Errors
    /// When the file with the secret key cannot be read.
    pub(crate) fn apply_services(self, config: &mut ServicesConfig) -> anyhow::Result<()> {
        self.hsm.apply(&mut config.hsm);
        self.pcs.apply(&mut config.pcs);
        self.capmc.apply(&mut config.capmc);
        self.bss.apply(&mut config.bss);
        self.cfs.apply(&mut config.cfs);
        self.ims.apply(&mut config.ims);
        take(&mut config.power_task_deadline_minutes, self.power_task_deadline_minutes);
        take(&mut config.power_service, self.power_service);
        take(&mut config.power_state_source, self.power_state_source);
        take(&mut config.power_rest_seconds, self.power_rest_seconds);
        self.s3.apply(config)
    }
}

/// A Deployment often sets a variable from something that is empty; that is not a value.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if empty { arg.env(Resettable::Reset) } else { arg }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn help_names_every_default() {
        let help = Args::command().render_long_help().to_string();
        let defaults = ServicesConfig::default();
        for base in bos_services::Service::ALL.map(bos_services::config::default_base_url) {
            assert!(help.contains(&format!("Default: {base} ")), "{base} is not in the help");
        }
        let seconds = |seconds: u64| format!("1 to 86400. Default: {seconds} ");
        for timeout in [defaults.hsm.timeout_seconds, defaults.capmc.timeout_seconds, defaults.s3.timeout_seconds] {
            assert!(help.contains(&seconds(timeout)), "{timeout} is not in the help");
        }
        assert!(help.contains(&format!("no PCS is behind CAPMC. Default: {} ", defaults.power_rest_seconds)));
        assert!(help.contains(&format!("others wait. Default: {}", defaults.hsm.max_in_flight)));
        for arg in Args::command().get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")) {
            let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(text.contains("Default"), "--{} does not say its default: {text}", arg.get_id());
        }
    }

    #[test]
    fn flags_go_to_their_service() {
        let args = Args::try_parse_from([
            "bos-operator",
            "--hsm-base-url=http://h/v2",
            "--cfs-insecure",
            "--bss-insecure=false",
            "--pcs-timeout-seconds=7",
            "--s3-endpoint=http://s3:9000",
            "--power-task-deadline-minutes=3",
            "--power-service=capmc",
            "--power-state-source=hsm",
            "--power-rest-seconds=0",
            "--capmc-base-url=http://c",
        ])
        .unwrap();
        let mut config = ServicesConfig::default();
        config.bss.insecure = true;
        args.apply_services(&mut config).unwrap();
        assert_eq!(config.hsm.base_url.as_deref(), Some("http://h/v2"));
        assert_eq!((config.cfs.insecure, config.bss.insecure, config.pcs.timeout_seconds), (true, false, 7));
        assert_eq!((config.s3.endpoint.as_str(), config.power_task_deadline_minutes), ("http://s3:9000", 3));
        assert_eq!(config.ims, ServiceConfig::default());
        let power = (config.power_service, config.power_state_source, config.power_rest_seconds);
        assert_eq!(power, (PowerService::Capmc, PowerStateSource::Hsm, 0));
        assert_eq!((config.capmc.base_url.as_deref(), config.capmc.timeout_seconds), (Some("http://c"), 120));
        assert!(Args::try_parse_from(["bos-operator", "--power-service=redfish"]).is_err());
    }
}
