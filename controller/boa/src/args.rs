//! The command line and the environment: a flag wins over its variable, that over the configuration file, that over the default.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bos_engine::lease::LeaseConfig;
use bos_engine::records::SessionKey;
use bos_services::ServicesConfig;
use bos_services::flags::{LogFormat, ServiceFlags};
use clap::Parser;
use serde::Deserialize;

const AFTER_HELP: &str = "\
WHAT IT DOES
  It reads plan and journal of the Session, asks HSM for the nodes and S3 for kernel, initrd and root file system, then stores
  boot parameters in BSS, switches power by PCS or CAPMC, waits until HSM calls the nodes Ready, and has CFS configure them:
  as much of that as the Session's operation needs. Before each call the record of it is written, so that another pod of the
  same Job goes on where this one was. bos-operator makes the Job and ends it; there is no need to start this by hand.

CONFIGURATION FILE (--config, YAML)
  The file of bos-operator; only services and lease times are read from it. Settings of services can be flags and environment
  variables too.

KUBERNETES
  The service account inside a cluster, otherwise KUBECONFIG or ~/.kube/config.

EXIT CODES
  0   the Session succeeded, was cancelled, or every node was taken over     10  some nodes did not get there
  2   wrong settings                                                         11  no node got there
  3   another agent or the operator has the Session now                      75  something that another start may not meet";

/// Carries one Session of mode v1 out: boots, reboots, shuts down or configures its nodes, and ends.
#[derive(Debug, Parser)]
#[command(name = "bos-boa", version, after_long_help = AFTER_HELP, max_term_width = 120)]
pub(crate) struct Args {
    /// The Session, as namespace/name. Default: none, must be given
    #[arg(long, env = "BOS_SESSION", value_name = "NAMESPACE/NAME")]
    session: String,

    /// Its metadata.uid. Default: none, must be given
    #[arg(long, env = "BOS_SESSION_UID", value_name = "UID")]
    session_uid: String,

    /// metadata.uid of the Job that this process belongs to. Default: none, must be given
    #[arg(long, env = "BOS_JOB_UID", value_name = "UID")]
    job_uid: String,

    /// YAML file with settings; see CONFIGURATION FILE below. Default: none.
    #[arg(long, env = "BOS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Namespace of the operator: plan, journal and the agent's Lease are there. Default: bos
    #[arg(long, env = "BOS_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,

    /// Name of this process in the Lease; must be its own. In a cluster the name of the pod. Default: none, must be given
    #[arg(long, env = "BOS_IDENTITY", value_name = "NAME")]
    identity: String,

    /// How log lines are written. Default: text
    #[arg(long, env = "BOS_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,

    /// What is logged: a level, or levels by module. Default: info
    #[arg(long, env = "BOS_LOG", value_name = "FILTER")]
    log: Option<String>,

    #[command(flatten)]
    services: ServiceFlags,
}

/// What is read from the file of bos-operator, which checks the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConfigFile {
    lease_duration_seconds: Option<f64>,
    lease_renew_deadline_seconds: Option<f64>,
    lease_period_seconds: Option<f64>,
    services: ServicesConfig,
}

/// The Session to carry out.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) session: SessionKey,
    pub(crate) uid: String,
    pub(crate) job: String,
}

/// Everything the agent was told, with defaults filled in.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) charge: Given,
    pub(crate) namespace: String,
    pub(crate) identity: String,
    pub(crate) log_format: LogFormat,
    pub(crate) log: String,
    pub(crate) lease: LeaseConfig,
    pub(crate) services: ServicesConfig,
}

impl Config {
    /// Puts flags, environment and file together; `variable` looks up an environment variable of the services.
    ///
    /// # Errors
    /// When the file cannot be read, or a value cannot be used. The error names it.
    pub(crate) fn load(args: Args, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let file = args.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let (namespace, name) = args.session.split_once('/').context("--session: it is namespace/name")?;
        ensure!(!args.session_uid.trim().is_empty(), "--session-uid: must not be empty");
        ensure!(!args.job_uid.trim().is_empty(), "--job-uid: must not be empty");
        ensure!(!args.identity.trim().is_empty(), "--identity: must not be empty");
        let mut services = file.services;
        services.apply_env(variable)?;
        args.services.apply(&mut services)?;
        services.validate()?;
        let default = LeaseConfig::default();
        let seconds = |given: Option<f64>, default: std::time::Duration| {
            given.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok()).unwrap_or(default)
        };
        let lease = LeaseConfig {
            duration: seconds(file.lease_duration_seconds, default.duration),
            renew_deadline: seconds(file.lease_renew_deadline_seconds, default.renew_deadline),
            period: seconds(file.lease_period_seconds, default.period),
        };
        ensure!(lease.is_sound(), "the times of the lease in the configuration file do not fit each other");
        Ok(Self {
            charge: Given { session: SessionKey::new(namespace, name), uid: args.session_uid, job: args.job_uid },
            namespace: args.namespace.unwrap_or_else(|| "bos".to_owned()),
            identity: args.identity,
            log_format: args.log_format.unwrap_or(LogFormat::Text),
            log: args.log.unwrap_or_else(|| "info".to_owned()),
            lease,
            services,
        })
    }
}

fn read_file(path: &Path) -> anyhow::Result<ConfigFile> {
    let text = std::fs::read_to_string(path).with_context(|| format!("configuration file {}", path.display()))?;
    if text.trim().is_empty() {
        return Ok(ConfigFile::default());
    }
    serde_saphyr::from_str(&text).with_context(|| format!("configuration file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn load(args: &[&str]) -> anyhow::Result<Config> {
        let args = ["bos-boa"].into_iter().chain(args.iter().copied());
        let keys = |name: &str| matches!(name, "S3_ACCESS_KEY" | "S3_SECRET_KEY").then(|| "secret".to_owned());
        Config::load(Args::try_parse_from(args)?, keys)
    }

    #[test]
    fn the_session_must_be_named() {
        Args::command().debug_assert();
        assert!(load(&["--session=bos/boot-1", "--identity=p"]).is_err());
        let error = load(&["--session=boot-1", "--session-uid=u", "--job-uid=j", "--identity=p"]).unwrap_err();
        assert!(format!("{error:#}").contains("--session"), "{error:#}");
        let config = load(&["--session=bos/boot-1", "--session-uid=u", "--job-uid=j", "--identity=p"]).unwrap();
        assert_eq!((config.charge.session.to_string().as_str(), config.charge.uid.as_str()), ("bos/boot-1", "u"));
        assert_eq!((config.namespace.as_str(), config.lease), ("bos", LeaseConfig::default()));
    }
}
