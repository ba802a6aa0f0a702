//! The effective configuration: flag, then environment, then file, then default.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bos_engine::lease::LeaseConfig;
use bos_services::ServicesConfig;
use bos_services::flags::LogFormat;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Deserialize, Serialize};

use crate::args::{Args, OperatorSettings};
use crate::node_identity::{self, ReportAuthentication};

/// The port of the health listener.
const HEALTH_PORT: u16 = 8081;

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ConfigFile {
    namespace: Option<String>,
    identity: Option<String>,
    health_listen: Option<SocketAddr>,
    report_listen: Option<SocketAddr>,
    pod_ip: Option<IpAddr>,
    report_authentication: Option<ReportAuthentication>,
    report_audience: Option<String>,
    report_subjects: Option<Vec<String>>,
    report_issuers: Option<Vec<String>>,
    report_jwks_url: Option<String>,
    report_jwks_ca_file: Option<PathBuf>,
    agent_template: Option<PathBuf>,
    log_format: Option<LogFormat>,
    log: Option<String>,
    lease_duration_seconds: Option<f64>,
    lease_renew_deadline_seconds: Option<f64>,
    lease_period_seconds: Option<f64>,
    services: ServicesConfig,
}

/// Everything the operator was told, with defaults filled in. Serialising it shows no secrets.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    pub(crate) namespace: String,
    pub(crate) identity: String,
    pub(crate) health_listen: SocketAddr,
    pub(crate) report_listen: Option<SocketAddr>,
    pod_ip: Option<IpAddr>,
    #[serde(flatten)]
    pub(crate) node_identity: node_identity::Settings,
    pub(crate) agent_template: Option<PathBuf>,
    pub(crate) log_format: LogFormat,
    pub(crate) log: String,
    lease_duration_seconds: f64,
    lease_renew_deadline_seconds: f64,
    lease_period_seconds: f64,
    pub(crate) services: ServicesConfig,
}

impl Config {
    /// Puts the four sources together; `variable` looks up an environment variable of the services.
    ///
    /// # Errors
    /// When the file cannot be read or names an unknown key, or a value cannot be used. The error names the key.
    pub(crate) fn load(args: Args, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let file = args.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let operator = args.operator.clone();
        let node_identity = node_identity(&operator, &file);
        let mut services = file.services;
        services.apply_env(variable)?;
        args.services.apply(&mut services)?;
        let lease = LeaseConfig::default();
        let config = Self {
            namespace: operator.namespace.or(file.namespace).unwrap_or_else(|| "bos".to_owned()),
            identity: operator.identity.or(file.identity).unwrap_or_else(own_identity),
            health_listen: operator.health_listen.or(file.health_listen).unwrap_or((Ipv4Addr::UNSPECIFIED, HEALTH_PORT).into()),
            report_listen: operator.report_listen.or(file.report_listen),
            pod_ip: operator.pod_ip.or(file.pod_ip),
            node_identity,
            agent_template: operator.agent_template.or(file.agent_template),
            log_format: operator.log_format.or(file.log_format).unwrap_or(LogFormat::Text),
            log: operator.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
            lease_duration_seconds: or_seconds(operator.lease_duration_seconds.or(file.lease_duration_seconds), lease.duration),
            lease_renew_deadline_seconds: or_seconds(
                operator.lease_renew_deadline_seconds.or(file.lease_renew_deadline_seconds),
                lease.renew_deadline,
            ),
            lease_period_seconds: or_seconds(operator.lease_period_seconds.or(file.lease_period_seconds), lease.period),
            services,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.namespace.trim().is_empty(), "namespace: must not be empty");
        ensure!(!self.identity.trim().is_empty(), "identity: must not be empty");
        let is_free = self.report_listen.is_some_and(|address| address.port() == 0);
        ensure!(
            self.pod_ip.is_none() || !is_free,
            "podIp: other operators cannot know a port that is taken as it comes; set that of reportListen"
        );
        let lease = self.lease()?;
        if !lease.is_sound() {
            bail!(
                "leaseDurationSeconds {}, leaseRenewDeadlineSeconds {}, leasePeriodSeconds {}: the renew deadline must be less than the \
                 duration, and the period at most half the renew deadline",
                self.lease_duration_seconds,
                self.lease_renew_deadline_seconds,
                self.lease_period_seconds
            );
        }
        self.node_identity.check(self.report_listen.is_some())?;
        self.agent_template()?;
        self.services.validate()?;
        Ok(())
    }

    /// Where other operators reach the endpoint for reports.
    pub(crate) fn reports_at(&self) -> Option<String> {
        let port = self.report_listen.map(|address| address.port())?;
        self.pod_ip.map(|ip| format!("http://{}", SocketAddr::new(ip, port)))
    }

    /// The times of the leader election.
    ///
    /// # Errors
    /// When one is not a time.
    pub(crate) fn lease(&self) -> anyhow::Result<LeaseConfig> {
        Ok(LeaseConfig {
            duration: seconds("leaseDurationSeconds", self.lease_duration_seconds)?,
            renew_deadline: seconds("leaseRenewDeadlineSeconds", self.lease_renew_deadline_seconds)?,
            period: seconds("leasePeriodSeconds", self.lease_period_seconds)?,
        })
    }

    /// The pod of agents, read anew at each start.
    ///
    /// # Errors
    /// When the file cannot be read or is no PodTemplateSpec with a container.
    pub(crate) fn agent_template(&self) -> anyhow::Result<Option<PodTemplateSpec>> {
        let Some(path) = &self.agent_template else { return Ok(None) };
        let read = || -> anyhow::Result<PodTemplateSpec> {
            let template: PodTemplateSpec = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
            ensure!(template.spec.as_ref().is_some_and(|spec| !spec.containers.is_empty()), "it has no spec with a container");
            Ok(template)
        };
        read().map(Some).with_context(|| format!("agentTemplate: {}", path.display()))
    }

    /// The whole configuration as one line, without secrets.
    pub(crate) fn shown(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("(cannot be shown: {error})"))
    }
}

/// Who nodes are is told by SPIRE on a CSM system, so the defaults are its.
fn node_identity(given: &OperatorSettings, file: &ConfigFile) -> node_identity::Settings {
    let authentication = given.report_authentication.or(file.report_authentication);
    let jwks = authentication == Some(ReportAuthentication::Jwks);
    let subjects = if jwks { node_identity::CSM_SUBJECTS.map(str::to_owned).to_vec() } else { Vec::new() };
    let audience = if jwks { "system-compute" } else { "bos-operator" };
    node_identity::Settings {
        authentication,
        audience: given.report_audience.clone().or(file.report_audience.clone()).unwrap_or_else(|| audience.to_owned()),
        subjects: given.report_subjects.clone().or(file.report_subjects.clone()).unwrap_or(subjects),
        issuers: given.report_issuers.clone().or(file.report_issuers.clone()).unwrap_or_default(),
        jwks_url: given.report_jwks_url.clone().or(file.report_jwks_url.clone()),
        jwks_ca_file: given.report_jwks_ca_file.clone().or(file.report_jwks_ca_file.clone()),
    }
}

fn read_file(path: &Path) -> anyhow::Result<ConfigFile> {
    let text = std::fs::read_to_string(path).with_context(|| format!("configuration file {}", path.display()))?;
    if text.trim().is_empty() {
        return Ok(ConfigFile::default());
    }
    parse_file(&text).with_context(|| format!("configuration file {}", path.display()))
}

fn parse_file(text: &str) -> anyhow::Result<ConfigFile> {
    Ok(serde_saphyr::from_str(text)?)
}

fn or_seconds(given: Option<f64>, default: Duration) -> f64 {
    given.unwrap_or(default.as_secs_f64())
}

fn seconds(key: &str, value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| anyhow::anyhow!("{key}: {value} is not a time in seconds"))
}

/// Another name for each process: a lease with our own name in it is taken over at once.
fn own_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "bos-operator" } else { host.trim() };
    format!("{host}-{}", std::process::id())
}

#[cfg(test)]
mod documented;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn keys(name: &str) -> Option<String> {
        matches!(name, "S3_ACCESS_KEY" | "S3_SECRET_KEY").then(|| "very-secret".to_owned())
    }

    fn load(file: &str, flags: &[&str], variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap();
        let arguments = ["bos-operator", "--config", path].into_iter().chain(flags.iter().copied());
        Config::load(Args::try_parse_from(arguments).unwrap(), variable)
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let config = load("", &[], keys).unwrap();
        assert_eq!((config.namespace.as_str(), config.log.as_str(), config.log_format), ("bos", "info", LogFormat::Text));
        assert_eq!((config.health_listen.to_string().as_str(), config.report_listen), ("0.0.0.0:8081", None));
        assert_eq!(config.lease().unwrap(), LeaseConfig::default());
        assert!(config.identity.ends_with(&std::process::id().to_string()), "{}", config.identity);
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let file = "namespace: from-file\nreportListen: 127.0.0.1:1\nreportAuthentication: none\nservices:\n  hsm: {baseUrl: 'http://file', timeoutSeconds: 1}\n  pcs: {timeoutSeconds: 4}\n";
        let variable = |name: &str| match name {
            "BOS_HSM_BASE_URL" => Some("http://env".to_owned()),
            "BOS_HSM_TIMEOUT_SECONDS" => Some("2".to_owned()),
            _ => keys(name),
        };
        let config = load(file, &["--hsm-timeout-seconds=3", "--report-listen=127.0.0.1:2"], variable).unwrap();
        assert_eq!(config.namespace, "from-file");
        assert_eq!(config.report_listen.unwrap().port(), 2);
        assert_eq!(config.services.hsm.base_url.as_deref(), Some("http://env"));
        assert_eq!((config.services.hsm.timeout_seconds, config.services.pcs.timeout_seconds), (3, 4));
    }

    #[test]
    fn others_are_told_where_reports_are_taken() {
        let file = "reportAuthentication: none";
        let at = |flags: &[&str]| load(file, flags, keys).unwrap().reports_at();
        assert_eq!(at(&["--report-listen=0.0.0.0:8080"]), None);
        assert_eq!(at(&["--pod-ip=10.1.2.3"]), None);
        assert_eq!(at(&["--report-listen=0.0.0.0:8080", "--pod-ip=10.1.2.3"]).unwrap(), "http://10.1.2.3:8080");
        assert_eq!(at(&["--report-listen=[::]:8080", "--pod-ip=fd00::7"]).unwrap(), "http://[fd00::7]:8080");
        let error = load(file, &["--report-listen=0.0.0.0:0", "--pod-ip=10.1.2.3"], keys).unwrap_err();
        assert!(format!("{error:#}").starts_with("podIp:"), "{error:#}");
    }

    #[test]
    fn an_unknown_key_is_named() {
        for (file, key) in [("reportListn: 127.0.0.1:1", "reportListn"), ("services:\n  hsm: {timeout: 5}", "timeout")] {
            let error = format!("{:#}", load(file, &[], keys).unwrap_err());
            assert!(error.contains(key) && error.contains("config.yaml"), "{error}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_used_is_named() {
        let failed = |flags: &[&str]| format!("{:#}", load("", flags, keys).unwrap_err());
        assert!(failed(&["--lease-period-seconds=6"]).contains("leasePeriodSeconds 6"));
        assert!(failed(&["--lease-duration-seconds=-1"]).contains("leaseDurationSeconds: -1"));
        assert!(failed(&["--hsm-base-url=hsm"]).contains("hsm.baseUrl"));
        assert!(format!("{:#}", load("", &[], |_| None).unwrap_err()).contains("s3.accessKey"));
    }

    #[test]
    fn reports_are_heard_only_where_somebody_chose_who_may_send_them() {
        let failed = |file: &str| format!("{:#}", load(file, &["--report-listen=127.0.0.1:2"], keys).unwrap_err());
        assert!(failed("").contains("reportAuthentication: must be chosen"));
        assert!(load("", &[], keys).is_ok(), "nobody listens");
        assert!(failed("reportAuthentication: jwks").contains("reportIssuers: missing"));
        assert!(failed("reportAuthentication: jwks\nreportIssuers: [i]").contains("reportJwksUrl: missing"));
        assert!(failed("reportAuthentication: token-review").contains("reportSubjects: missing"));
        for subject in ["system:node", "a:{xname}:{xname}"] {
            let file = format!("reportAuthentication: token-review\nreportSubjects: ['{subject}']");
            assert!(failed(&file).contains(&format!("{subject:?} must have {{xname}} in it once")), "{subject}");
        }
        let file = "reportAuthentication: jwks\nreportIssuers: [i]\nreportJwksUrl: https://j/keys";
        let config = load(file, &["--report-listen=127.0.0.1:2", "--report-subjects=a:{xname},b:{xname}"], keys).unwrap().node_identity;
        assert_eq!((config.audience.as_str(), config.subjects.len(), config.issuers), ("system-compute", 2, vec!["i".to_owned()]));
        assert_eq!(load(file, &[], keys).unwrap().node_identity.subjects, node_identity::CSM_SUBJECTS);
    }

    #[test]
    fn no_secret_is_shown() {
        let shown = load("services: {s3: {accessKey: a, secretKey: very-secret}}", &["--s3-access-key=b"], |_| None).unwrap().shown();
        assert!(!shown.contains("very-secret"), "{shown}");
        assert!(shown.contains(r#""baseUrl""#) || shown.contains(r#""timeoutSeconds":20"#), "{shown}");
    }
}
