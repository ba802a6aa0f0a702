//! The command line and the environment.
//!
//! Every setting is `None` here unless it was given; [`crate::config`] puts flag, environment, file and default together.

use std::net::SocketAddr;
use std::path::PathBuf;

use bos_services::ServicesConfig;
use bos_services::flags::{LogFormat, ServiceFlags};
use clap::{Args as ClapArgs, Parser};
use serde::Deserialize;

const AFTER_HELP: &str = "\
PRECEDENCE
  A flag wins over its environment variable, that over the configuration file, that over the default.
  An empty environment variable counts as not set.

CONFIGURATION FILE (--config, YAML)
  Keys are the names of the flags in camelCase; unknown keys are errors. Settings of services are under `services`, the
  same as in the file of bos-operator. Only HSM, PCS or CAPMC, CFS, IMS and S3 are asked, and nothing is changed there.

CERTIFICATES
  Without --tls-certificate-file the webhook makes and rotates its own: they are in the Secret, and the authorities in
  both webhook configurations. With it somebody else does, cert-manager for example; files are read again when they change.

KUBERNETES
  The service account inside a cluster, otherwise KUBECONFIG or ~/.kube/config.

EXIT CODES
  0  ended by SIGTERM or SIGINT      1  failed      2  wrong settings";

/// Admission for the boot operator: says at `kubectl apply` what can never work, and warns of what may not.
///
/// The decisions are those of bos-operator, which makes them again: without this webhook nothing unsafe happens, people only
/// hear later of their mistakes.
#[derive(Debug, Parser)]
#[command(name = "bos-webhook", version, after_long_help = AFTER_HELP, max_term_width = 120)]
pub(crate) struct Args {
    /// YAML file with settings; see CONFIGURATION FILE below. Default: none.
    #[arg(long, env = "BOS_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) webhook: WebhookSettings,

    #[command(flatten)]
    pub(crate) services: ServiceFlags,
}

/// Settings of the webhook itself, as far as flags or the file give them.
#[derive(Debug, Clone, Default, ClapArgs, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct WebhookSettings {
    /// Namespace of the operator and of this webhook: its records and the Secret are there. Default: bos
    #[arg(long, env = "BOS_NAMESPACE", value_name = "NAME")]
    pub(crate) namespace: Option<String>,

    /// Address for reviews, HTTPS. Port 0 takes a free one; the log names it. Default: 0.0.0.0:8443
    #[arg(long, env = "BOS_WEBHOOK_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,

    /// Address for /healthz and /readyz, plain HTTP. Default: 0.0.0.0:8081
    #[arg(long, env = "BOS_HEALTH_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) health_listen: Option<SocketAddr>,

    /// How log lines are written. Default: text
    #[arg(long, env = "BOS_LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,

    /// What is logged: a level, or levels by module. Default: info
    #[arg(long, env = "BOS_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,

    /// Names and addresses that API servers call this webhook by, separated by commas. Default: bos-webhook.NAMESPACE.svc
    #[arg(long, env = "BOS_WEBHOOK_NAMES", value_name = "NAMES", value_delimiter = ',')]
    pub(crate) names: Option<Vec<String>>,

    /// Secret with the certificate that the webhook makes itself. Default: bos-webhook-tls
    #[arg(long, env = "BOS_WEBHOOK_SECRET", value_name = "NAME")]
    pub(crate) secret: Option<String>,

    /// Name of the ValidatingWebhookConfiguration and the MutatingWebhookConfiguration that are told whom to trust. Default: bos-webhook
    #[arg(long, env = "BOS_WEBHOOK_CONFIGURATION", value_name = "NAME")]
    pub(crate) configuration: Option<String>,

    /// How long a certificate that the webhook makes is good, in seconds, at least 30; it is replaced when a third is left. Default: 7776000 (90 days)
    #[arg(long, env = "BOS_WEBHOOK_CERTIFICATE_SECONDS", value_name = "SECONDS")]
    pub(crate) certificate_seconds: Option<u64>,

    /// How long API servers may take to hear of another authority, and replicas of another certificate, in seconds; at most a tenth of the life of a certificate. Default: 60
    #[arg(long, env = "BOS_WEBHOOK_OVERLAP_SECONDS", value_name = "SECONDS")]
    pub(crate) overlap_seconds: Option<u64>,

    /// Certificate chain in PEM that somebody else renews, with --tls-key-file. Default: none, the webhook makes its own
    #[arg(long, env = "BOS_WEBHOOK_TLS_CERTIFICATE_FILE", value_name = "FILE", requires = "tls_key_file")]
    pub(crate) tls_certificate_file: Option<PathBuf>,

    /// Its key in PEM. Default: none
    #[arg(long, env = "BOS_WEBHOOK_TLS_KEY_FILE", value_name = "FILE", requires = "tls_certificate_file")]
    pub(crate) tls_key_file: Option<PathBuf>,

    /// Settings of the services, in the file; flags and environment change them.
    #[arg(skip)]
    pub(crate) services: Option<ServicesConfig>,
}

impl WebhookSettings {
    /// These, and what they lack from others.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            namespace: self.namespace.or(other.namespace),
            listen: self.listen.or(other.listen),
            health_listen: self.health_listen.or(other.health_listen),
            log_format: self.log_format.or(other.log_format),
            log: self.log.or(other.log),
            names: self.names.or(other.names),
            secret: self.secret.or(other.secret),
            configuration: self.configuration.or(other.configuration),
            certificate_seconds: self.certificate_seconds.or(other.certificate_seconds),
            overlap_seconds: self.overlap_seconds.or(other.overlap_seconds),
            tls_certificate_file: self.tls_certificate_file.or(other.tls_certificate_file),
            tls_key_file: self.tls_key_file.or(other.tls_key_file),
            services: self.services.or(other.services),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bos_e2e::tables::{differences, known_keys, settings};
    use clap::{Command, CommandFactory};

    use super::*;

    const PAGE: &str = include_str!("../../docs/configure.md");

    #[test]
    fn the_command_line_is_consistent_and_names_every_default() {
        Args::command().debug_assert();
        for arg in Args::command().get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")) {
            let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(text.contains("Default"), "--{} does not say its default: {text}", arg.get_id());
        }
    }

    #[test]
    fn docs_configure_lists_every_setting_and_no_other() {
        let listed = settings(PAGE, "## Settings of the webhook");
        let keys: BTreeSet<String> = listed.iter().map(|setting| setting.key.clone()).collect();
        let mut known = known_keys(&serde_json::from_str::<WebhookSettings>(r#"{"?": 1}"#).unwrap_err().to_string());
        assert!(known.remove("services"));
        assert_eq!(keys, known);
        let own = WebhookSettings::augment_args(Command::new("bos-webhook"));
        assert_eq!(differences(&listed, &own), Vec::<String>::new());
    }
}
