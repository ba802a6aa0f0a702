//! The command line and the environment.
//!
//! Every setting is `None` here unless it was given, so that a flag can win over the environment, the environment over the
//! configuration file, and the file over the default; [`crate::config`] puts the four together.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bos_services::flags::{LogFormat, ServiceFlags};
use clap::{Args as ClapArgs, Parser};

use crate::node_identity::ReportAuthentication;

const AFTER_HELP: &str = "\
PRECEDENCE
  A flag wins over its environment variable, that over the configuration file, that over the default.
  An empty environment variable counts as not set.

CONFIGURATION FILE (--config, YAML)
  Keys are the names of the flags in camelCase; unknown keys are errors. Settings of services are under `services`:

    reportListen: 0.0.0.0:8080
    reportAuthentication: jwks       # or token-review, or none
    reportIssuers: [\"http://spire.local/shasta/vshastaio\"]
    reportJwksUrl: https://spire-jwks.spire/keys
    logFormat: json
    services:
      auth: {tokenUrl: \"https://api-gw-service-nmn.local/keycloak/realms/shasta/protocol/openid-connect/token\",
             clientIdFile: /etc/bos-oauth/client-id, clientSecretFile: /etc/bos-oauth/client-secret, caFile: /etc/bos/ca.pem}
      hsm: {baseUrl: \"https://api-gw-service-nmn.local/apis/smd/hsm/v2\", caFile: /etc/bos/ca.pem}   # https: with a token of auth
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
    pub(crate) services: ServiceFlags,
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

    /// Address for the reports of nodes (bos-reporter), plain HTTP; takes --report-authentication. Default: off
    #[arg(long, env = "BOS_REPORT_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) report_listen: Option<SocketAddr>,

    /// Address at which other operators reach this one, to pass on what nodes report while they stand by. In a cluster the IP of the
    /// pod. Default: none, and an operator that stands by tells nodes to come again later
    #[arg(long, env = "BOS_POD_IP", value_name = "ADDRESS")]
    pub(crate) pod_ip: Option<IpAddr>,

    /// How it is found out which node reports; docs/security.md says more. Default: none is chosen, which --report-listen takes for a mistake
    #[arg(long, env = "BOS_REPORT_AUTHENTICATION", value_enum)]
    pub(crate) report_authentication: Option<ReportAuthentication>,

    /// For whom the tokens of nodes must be made (aud). Default: system-compute with jwks, as SPIRE of CSM makes them; bos-operator with token-review
    #[arg(long, env = "BOS_REPORT_AUDIENCE", value_name = "NAME")]
    pub(crate) report_audience: Option<String>,

    /// What nodes are called in their tokens (sub, or the user name of a token review), with {xname} for the name of the node; several with commas. Default: with jwks those of SPIRE of CSM, spiffe://shasta/compute/{xname}/workload/bos-reporter and the same with ncn; otherwise must be given
    #[arg(long, env = "BOS_REPORT_SUBJECTS", value_name = "PATTERNS", value_delimiter = ',')]
    pub(crate) report_subjects: Option<Vec<String>>,

    /// Whose tokens are accepted (iss), with jwks; several with commas. Default: none, must be given
    #[arg(long, env = "BOS_REPORT_ISSUERS", value_name = "NAMES", value_delimiter = ',')]
    pub(crate) report_issuers: Option<Vec<String>>,

    /// Where the issuer publishes its keys, with jwks; https. Default: none, must be given
    #[arg(long, env = "BOS_REPORT_JWKS_URL", value_name = "URL")]
    pub(crate) report_jwks_url: Option<String>,

    /// PEM file of certificate authorities for that address; only these are trusted. Default: those of the system
    #[arg(long, env = "BOS_REPORT_JWKS_CA_FILE", value_name = "FILE")]
    pub(crate) report_jwks_ca_file: Option<PathBuf>,

    /// YAML file with the pod of agents (a PodTemplateSpec), for Sessions of mode v1. If it names no image, agents get that of the
    /// operator's own pod. Default: none, and such Sessions are refused
    #[arg(long, env = "BOS_AGENT_TEMPLATE", value_name = "FILE")]
    pub(crate) agent_template: Option<PathBuf>,

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

#[cfg(test)]
mod tests {
    use bos_services::config::ServiceConfig;
    use bos_services::{PowerService, PowerStateSource, ServicesConfig};
    use clap::CommandFactory;

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
        args.services.apply(&mut config).unwrap();
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
