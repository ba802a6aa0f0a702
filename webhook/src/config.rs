//! The effective configuration: flag, then environment, then file, then default.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use bos_services::ServicesConfig;
use bos_services::flags::LogFormat;
use serde::Serialize;

use crate::args::{Args, WebhookSettings};
use crate::certificates;

/// Of a certificate.
const SHORTEST_LIFE: u64 = 30;

/// Everything the webhook was told, with defaults filled in. Serialising it shows no secrets.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    pub(crate) namespace: String,
    pub(crate) listen: SocketAddr,
    pub(crate) health_listen: SocketAddr,
    pub(crate) log_format: LogFormat,
    pub(crate) log: String,
    names: Vec<String>,
    secret: String,
    configuration: String,
    certificate_seconds: u64,
    overlap_seconds: u64,
    /// Certificate and key that somebody else renews.
    pub(crate) files: Option<(PathBuf, PathBuf)>,
    pub(crate) services: ServicesConfig,
}

impl Config {
    /// Puts the four sources together; `variable` looks up an environment variable of the services.
    ///
    /// # Errors
    /// When the file cannot be read or names an unknown key, or a value cannot be used. The error names the key.
    pub(crate) fn load(args: Args, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let file = args.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let mut given = args.webhook.or(file);
        let mut services = given.services.take().unwrap_or_default();
        services.apply_env(variable)?;
        args.services.apply(&mut services)?;
        let namespace = given.namespace.unwrap_or_else(|| "bos".to_owned());
        let config = Self {
            listen: given.listen.unwrap_or((Ipv4Addr::UNSPECIFIED, 8443).into()),
            health_listen: given.health_listen.unwrap_or((Ipv4Addr::UNSPECIFIED, 8081).into()),
            log_format: given.log_format.unwrap_or(LogFormat::Text),
            log: given.log.unwrap_or_else(|| "info".to_owned()),
            names: given.names.unwrap_or_else(|| vec![format!("bos-webhook.{namespace}.svc")]),
            secret: given.secret.unwrap_or_else(|| "bos-webhook-tls".to_owned()),
            configuration: given.configuration.unwrap_or_else(|| "bos-webhook".to_owned()),
            certificate_seconds: given.certificate_seconds.unwrap_or(90 * 24 * 3600),
            overlap_seconds: given.overlap_seconds.unwrap_or(60),
            files: given.tls_certificate_file.zip(given.tls_key_file),
            namespace,
            services,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.namespace.trim().is_empty(), "namespace: must not be empty");
        ensure!(!self.names.is_empty() && self.names.iter().all(|name| !name.trim().is_empty()), "names: must not be empty");
        let (life, overlap) = (self.certificate_seconds, self.overlap_seconds);
        ensure!(life >= SHORTEST_LIFE, "certificateSeconds: {life} is less than {SHORTEST_LIFE}");
        ensure!(
            overlap >= 1 && overlap.saturating_mul(10) <= life,
            "overlapSeconds: {overlap} must be from 1 to a tenth of certificateSeconds, {life}"
        );
        self.services.validate()?;
        Ok(())
    }

    /// How certificates are made, where that is done here.
    pub(crate) fn certificates(&self) -> certificates::Settings {
        certificates::Settings {
            namespace: self.namespace.clone(),
            secret: self.secret.clone(),
            configuration: self.configuration.clone(),
            names: self.names.clone(),
            lifetime: Duration::from_secs(self.certificate_seconds),
            overlap: Duration::from_secs(self.overlap_seconds),
        }
    }

    /// The whole configuration as one line, without secrets.
    pub(crate) fn shown(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("(cannot be shown: {error})"))
    }
}

fn read_file(path: &Path) -> anyhow::Result<WebhookSettings> {
    let of = || format!("configuration file {}", path.display());
    let text = std::fs::read_to_string(path).with_context(of)?;
    if text.trim().is_empty() {
        return Ok(WebhookSettings::default());
    }
    serde_saphyr::from_str(&text).with_context(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn keys(name: &str) -> Option<String> {
        let value = match name {
            "S3_ACCESS_KEY" => "key",
            "S3_SECRET_KEY" => "very-secret",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn load(file: &str, flags: &[&str]) -> anyhow::Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap();
        let arguments = ["bos-webhook", "--config", path].into_iter().chain(flags.iter().copied());
        Config::load(Args::try_parse_from(arguments).unwrap(), keys)
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let config = load("", &[]).unwrap();
        assert_eq!((config.listen.to_string().as_str(), config.health_listen.port()), ("0.0.0.0:8443", 8081));
        let made = config.certificates();
        assert_eq!((made.names, made.secret.as_str()), (vec!["bos-webhook.bos.svc".to_owned()], "bos-webhook-tls"));
        assert_eq!((made.lifetime.as_secs(), made.overlap.as_secs()), (7_776_000, 60));
        assert!(!config.shown().contains("very-secret"));
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = "namespace: from-file\nlisten: 127.0.0.1:1\nservices:\n  hsm: {baseUrl: 'http://file'}\n";
        let config = load(file, &["--listen=127.0.0.1:2"]).unwrap();
        assert_eq!((config.namespace.as_str(), config.listen.port()), ("from-file", 2));
        assert_eq!(config.services.hsm.base_url.as_deref(), Some("http://file"));
        assert_eq!(config.certificates().names, ["bos-webhook.from-file.svc"]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let failed = |file: &str, flags: &[&str]| format!("{:#}", load(file, flags).unwrap_err());
        assert!(failed("listn: 127.0.0.1:1", &[]).contains("listn"));
        assert!(failed("", &["--certificate-seconds=29"]).contains("certificateSeconds: 29"));
        assert!(failed("", &["--certificate-seconds=60", "--overlap-seconds=7"]).contains("overlapSeconds: 7"));
        assert!(failed("", &["--hsm-base-url=hsm"]).contains("hsm.baseUrl"));
    }
}
