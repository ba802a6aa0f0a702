//! Where the services are and how to talk to them.
//!
//! Everything has a default that is right inside the service mesh of a CSM system. A file (camelCase keys) comes first,
//! environment variables override it:
//!
//! | variable | meaning |
//! |---|---|
//! | `BOS_POWER_SERVICE` | which service switches power: `pcs` or `capmc` |
//! | `BOS_POWER_STATE_SOURCE` | where CAPMC takes power states from: `redfish` or `hsm` |
//! | `BOS_POWER_REST_SECONDS` | how long a node rests between off and on, with CAPMC |
//! | `BOS_<SERVICE>_BASE_URL` | base URL; `<SERVICE>` is `HSM`, `PCS`, `CAPMC`, `BSS`, `CFS` or `IMS`; `none` for CFS and IMS where there is none |
//! | `BOS_<SERVICE>_TIMEOUT_SECONDS` | time for a whole answer |
//! | `BOS_<SERVICE>_CA_FILE` | PEM file; only these authorities are trusted |
//! | `BOS_<SERVICE>_TOKEN_FILE` | file with a bearer token, read at every call |
//! | `BOS_<SERVICE>_AUTH` | `none`: no token; `oauth`: the token of `BOS_AUTH_TOKEN_URL`, over plain HTTP too |
//! | `BOS_<SERVICE>_INSECURE` | `true`: certificates are not checked |
//! | `BOS_AUTH_TOKEN_URL`, `BOS_AUTH_CLIENT_ID_FILE`, `BOS_AUTH_CLIENT_SECRET_FILE` | where tokens for `https` services come from |
//! | `BOS_AUTH_SCOPE`, `BOS_AUTH_CA_FILE`, `BOS_AUTH_INSECURE`, `BOS_AUTH_TIMEOUT_SECONDS` | the same |
//! | `S3_PROTOCOL`, `S3_GATEWAY` | `https` and the host (with port) of the object store, as for BOS |
//! | `S3_ACCESS_KEY`, `S3_SECRET_KEY` | keys of the object store, as for BOS |
//! | `S3_REGION`, `S3_CA_FILE`, `S3_INSECURE`, `S3_TIMEOUT_SECONDS` | the same for the object store |

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use bos_core::health::PowerService;
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use crate::auth::{AuthConfig, ServiceAuth};
use crate::error::Service;

/// How long to wait for a connection, in seconds.
pub const CONNECT_TIMEOUT_SECONDS: u64 = 3;

/// Configuration of all services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServicesConfig {
    /// Where tokens come from, for services behind an API gateway.
    pub auth: AuthConfig,
    /// Hardware State Manager.
    pub hsm: ServiceConfig,
    /// Which service tells and switches power; the other one is not called.
    pub power_service: PowerService,
    /// Power Control Service.
    pub pcs: ServiceConfig,
    /// Cray Advanced Platform Monitoring and Control.
    #[serde(deserialize_with = "capmc")]
    pub capmc: ServiceConfig,
    /// Where CAPMC takes power states from.
    pub power_state_source: PowerStateSource,
    /// How many seconds a node that was seen to go off rests before it is powered on through CAPMC. CAPMC 3 has the power-off
    /// done by PCS, which looks every 15 s whether it is done, and would take an early power-on for a power-off without
    /// effect and cut the power. Without PCS behind CAPMC it can be 0. 0 to 600.
    pub power_rest_seconds: u64,
    /// Boot Script Service.
    pub bss: ServiceConfig,
    /// Configuration Framework Service.
    pub cfs: ServiceConfig,
    /// Image Management Service.
    pub ims: ServiceConfig,
    /// The object store.
    pub s3: S3Config,
    /// How many minutes PCS tries to reach a power state. Until then it holds the nodes of the request, and no other
    /// request for them succeeds; keep it short. 1 to 60.
    pub power_task_deadline_minutes: u32,
}

impl Default for ServicesConfig {
    fn default() -> Self {
        Self {
            auth: AuthConfig::default(),
            hsm: ServiceConfig::default(),
            power_service: PowerService::default(),
            pcs: ServiceConfig::default(),
            capmc: ServiceConfig { timeout_seconds: CAPMC_TIMEOUT_SECONDS, ..ServiceConfig::default() },
            power_state_source: PowerStateSource::default(),
            power_rest_seconds: 45,
            bss: ServiceConfig::default(),
            cfs: ServiceConfig::default(),
            ims: ServiceConfig::default(),
            s3: S3Config::default(),
            power_task_deadline_minutes: 1,
        }
    }
}

/// Time for a whole answer of CAPMC: it talks to the hardware before it answers, some versions until the hardware has obeyed.
const CAPMC_TIMEOUT_SECONDS: u64 = 120;

/// What a file leaves out of CAPMC's section is CAPMC's own default, not that of the other services.
fn capmc<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ServiceConfig, D::Error> {
    let mut given = serde_json::Map::deserialize(deserializer)?;
    given.entry("timeoutSeconds").or_insert(CAPMC_TIMEOUT_SECONDS.into());
    serde_json::from_value(given.into()).map_err(|error| serde::de::Error::custom(format!("capmc: {error}")))
}

/// Where CAPMC takes power states from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerStateSource {
    /// The hardware controllers, each time. From CAPMC 3.0 on, PCS.
    #[default]
    Redfish,
    /// HSM, which hears of changes; it can miss some.
    Hsm,
}

impl FromStr for PowerStateSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "redfish" => Ok(Self::Redfish),
            "hsm" => Ok(Self::Hsm),
            other => Err(format!("{other:?} is not redfish or hsm")),
        }
    }
}

/// Configuration of one HTTP service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceConfig {
    /// Base URL; by default the address inside the mesh, see [`default_base_url`]. `none` for CFS or IMS: the site has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Time for a whole answer, in seconds. The options of BOS change it while the operator runs.
    pub timeout_seconds: u64,
    /// PEM file of certificate authorities; only these are trusted. Without it those of the system are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// File with a bearer token that somebody else renews. Read at every call, so it may be rotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Whether the service is shown the token of `auth`. Without it, it is where the base URL is `https`, and no `tokenFile` is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<ServiceAuth>,
    /// Do not check certificates.
    pub insecure: bool,
    /// At most this many calls at a time; others wait.
    pub max_in_flight: usize,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { base_url: None, timeout_seconds: 20, ca_file: None, token_file: None, auth: None, insecure: false, max_in_flight: 8 }
    }
}

/// Configuration of the object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct S3Config {
    /// Base URL; buckets are the first part of the path.
    pub endpoint: String,
    /// The region used in signatures.
    pub region: String,
    /// Access key.
    pub access_key: String,
    /// Secret key. Better given as `S3_SECRET_KEY` from a Secret.
    #[serde(skip_serializing)]
    pub secret_key: Secret,
    /// PEM file of certificate authorities; only these are trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Do not check certificates. (BOS never checks those of the object store.)
    pub insecure: bool,
    /// Time for a whole answer, in seconds.
    pub timeout_seconds: u64,
    /// At most this many calls at a time; others wait.
    pub max_in_flight: usize,
}

impl Default for S3Config {
    fn default() -> Self {
        Self {
            endpoint: "https://rgw-vip".to_owned(),
            region: "us-east-1".to_owned(),
            access_key: String::new(),
            secret_key: Secret::default(),
            ca_file: None,
            insecure: false,
            timeout_seconds: 60,
            max_in_flight: 8,
        }
    }
}

/// A text that no log shows.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(hidden)" })
    }
}

/// Everything that is wrong with a configuration, each with the key that has to be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service configuration: {}", problems.join("; "))]
pub struct ConfigError {
    /// One sentence for each problem.
    pub problems: Vec<String>,
}

impl ConfigError {
    pub(crate) fn one(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()] }
    }
}

/// The base URL of a service inside the mesh; the object store's is in [`S3Config`].
#[must_use]
pub const fn default_base_url(service: Service) -> &'static str {
    match service {
        Service::Hsm => "http://cray-smd/hsm/v2",
        Service::Pcs => "http://cray-power-control",
        Service::Capmc => "http://cray-capmc/capmc/v1",
        Service::Bss => "http://cray-bss/boot/v1",
        Service::Cfs => "http://cray-cfs-api/v3",
        Service::Ims => "http://cray-ims/v3",
        Service::S3 => "https://rgw-vip",
    }
}

impl ServicesConfig {
    /// The six services that are not the object store, by name.
    fn services(&self) -> [(Service, &ServiceConfig); 6] {
        [
            (Service::Hsm, &self.hsm),
            (Service::Pcs, &self.pcs),
            (Service::Capmc, &self.capmc),
            (Service::Bss, &self.bss),
            (Service::Cfs, &self.cfs),
            (Service::Ims, &self.ims),
        ]
    }

    /// Takes over what the environment says; `get` looks up one variable. An empty variable counts as not set.
    ///
    /// # Errors
    /// When a variable cannot be understood; the error names it.
    pub fn apply_env(&mut self, get: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let get = |name: &str| get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let mut problems = Vec::new();
        let services = [
            (Service::Hsm, &mut self.hsm),
            (Service::Pcs, &mut self.pcs),
            (Service::Capmc, &mut self.capmc),
            (Service::Bss, &mut self.bss),
            (Service::Cfs, &mut self.cfs),
            (Service::Ims, &mut self.ims),
        ];
        for (service, config) in services {
            let prefix = format!("BOS_{}", service.name());
            set(&mut config.base_url, get(&format!("{prefix}_BASE_URL")).map(Some));
            set(&mut config.ca_file, get(&format!("{prefix}_CA_FILE")).map(|path| Some(path.into())));
            set(&mut config.token_file, get(&format!("{prefix}_TOKEN_FILE")).map(|path| Some(path.into())));
            set(&mut config.auth, parsed(&get, &format!("{prefix}_AUTH"), "none or oauth", &mut problems).map(Some));
            set(&mut config.timeout_seconds, parsed(&get, &format!("{prefix}_TIMEOUT_SECONDS"), NUMBER, &mut problems));
            set(&mut config.insecure, parsed(&get, &format!("{prefix}_INSECURE"), SWITCH, &mut problems));
        }
        set(&mut self.power_service, parsed(&get, "BOS_POWER_SERVICE", "pcs or capmc", &mut problems));
        set(&mut self.power_state_source, parsed(&get, "BOS_POWER_STATE_SOURCE", "redfish or hsm", &mut problems));
        set(&mut self.power_rest_seconds, parsed(&get, "BOS_POWER_REST_SECONDS", NUMBER, &mut problems));
        self.auth.apply_env(&get, &mut problems);
        self.s3.apply_env(&get, &mut problems);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// Checks everything that can be checked without asking anybody.
    ///
    /// # Errors
    /// Every problem, each with its key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        for (service, config) in self.services() {
            config.check(service, &mut problems);
            if config.auth == Some(ServiceAuth::Oauth) && self.auth.token_url.is_none() {
                problems.push(format!("{}.auth: oauth needs auth.tokenUrl", service.label()));
            }
        }
        problems.extend(self.auth.client().err().into_iter().flatten());
        self.s3.check(&mut problems);
        if !(1..=60).contains(&self.power_task_deadline_minutes) {
            problems.push(format!("powerTaskDeadlineMinutes: {} is not within 1 to 60", self.power_task_deadline_minutes));
        }
        if self.power_rest_seconds > 600 {
            problems.push(format!("powerRestSeconds: {} is not within 0 to 600", self.power_rest_seconds));
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }
}

/// In place of a base URL: the site does not have this service.
const NONE: &str = "none";

impl ServiceConfig {
    /// The site does not have this service.
    pub(crate) fn is_absent(&self) -> bool {
        self.base_url.as_deref() == Some(NONE)
    }

    pub(crate) fn url(&self, service: Service) -> Result<Url, String> {
        parse_base(self.base_url.as_deref().unwrap_or_else(|| default_base_url(service)))
    }

    fn check(&self, service: Service, problems: &mut Vec<String>) {
        let key = service.label();
        if self.is_absent() {
            if !matches!(service, Service::Cfs | Service::Ims) {
                problems.push(format!("{key}.baseUrl: only cfs and ims can be none; nothing works without {service}"));
            }
        } else if let Err(problem) = self.url(service) {
            problems.push(format!("{key}.baseUrl: {problem}"));
        }
        check_limits(key, self.timeout_seconds, self.max_in_flight, problems);
        if self.auth.is_some() && self.token_file.is_some() {
            problems.push(format!("{key}.auth: contradicts {key}.tokenFile; choose one"));
        }
        if self.insecure && self.ca_file.is_some() {
            problems.push(format!("{key}.insecure: contradicts {key}.caFile; choose one"));
        }
    }
}

impl S3Config {
    pub(crate) fn url(&self) -> Result<Url, String> {
        parse_base(&self.endpoint)
    }

    fn apply_env(&mut self, get: &impl Fn(&str) -> Option<String>, problems: &mut Vec<String>) {
        let gateway = get("S3_GATEWAY").map(|gateway| {
            // BOS joins protocol and gateway; a gateway that already is a URL is taken as it is.
            if gateway.contains("://") {
                gateway
            } else {
                format!("{}://{gateway}", get("S3_PROTOCOL").unwrap_or_else(|| "https".to_owned()))
            }
        });
        set(&mut self.endpoint, gateway);
        set(&mut self.access_key, get("S3_ACCESS_KEY"));
        set(&mut self.secret_key, get("S3_SECRET_KEY").map(Secret));
        set(&mut self.region, get("S3_REGION"));
        set(&mut self.ca_file, get("S3_CA_FILE").map(|path| Some(path.into())));
        set(&mut self.insecure, parsed(get, "S3_INSECURE", SWITCH, problems));
        set(&mut self.timeout_seconds, parsed(get, "S3_TIMEOUT_SECONDS", NUMBER, problems));
    }

    fn check(&self, problems: &mut Vec<String>) {
        if let Err(problem) = self.url() {
            problems.push(format!("s3.endpoint: {problem}"));
        }
        if self.region.is_empty() {
            problems.push("s3.region: must not be empty".to_owned());
        }
        if self.access_key.is_empty() {
            problems.push("s3.accessKey: missing; set it or S3_ACCESS_KEY".to_owned());
        }
        if self.secret_key.expose().is_empty() {
            problems.push("s3.secretKey: missing; set it or S3_SECRET_KEY".to_owned());
        }
        check_limits("s3", self.timeout_seconds, self.max_in_flight, problems);
        if self.insecure && self.ca_file.is_some() {
            problems.push("s3.insecure: contradicts s3.caFile; choose one".to_owned());
        }
    }
}

fn check_limits(key: &str, timeout: u64, in_flight: usize, problems: &mut Vec<String>) {
    if !(1..=86_400).contains(&timeout) {
        problems.push(format!("{key}.timeoutSeconds: {timeout} is not within 1 to 86400"));
    }
    if !(1..=1000).contains(&in_flight) {
        problems.push(format!("{key}.maxInFlight: {in_flight} is not within 1 to 1000"));
    }
}

pub(crate) fn parse_base(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{text:?} must begin with http:// or https://"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query (?) or a fragment (#)".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user or password; use a token file".to_owned());
    }
    Ok(url)
}

pub(crate) fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// What a variable must be, for people.
pub(crate) const NUMBER: &str = "a whole number";
pub(crate) const SWITCH: &str = "true or false";

pub(crate) fn parsed<T: FromStr>(get: &impl Fn(&str) -> Option<String>, name: &str, wanted: &str, problems: &mut Vec<String>) -> Option<T> {
    let text = get(name)?;
    let value = text.parse().ok();
    if value.is_none() {
        problems.push(format!("{name}: {text:?} is not {wanted}"));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_keys() -> ServicesConfig {
        let mut config = ServicesConfig::default();
        config.s3.access_key = "a".to_owned();
        config.s3.secret_key = Secret::new("s");
        config
    }

    fn problems(config: &ServicesConfig) -> Vec<String> {
        config.validate().expect_err("has problems").problems
    }

    #[test]
    fn the_defaults_are_the_addresses_of_the_mesh() {
        let config = with_keys();
        config.validate().unwrap();
        assert_eq!(config.hsm.url(Service::Hsm).unwrap().as_str(), "http://cray-smd/hsm/v2");
        assert_eq!(config.capmc.url(Service::Capmc).unwrap().as_str(), "http://cray-capmc/capmc/v1");
        assert_eq!((config.power_service, config.capmc.timeout_seconds, config.pcs.timeout_seconds), (PowerService::Pcs, 120, 20));
        assert_eq!(config.s3.url().unwrap().as_str(), "https://rgw-vip/");
    }

    #[test]
    fn a_file_may_name_only_what_differs() {
        let config: ServicesConfig =
            serde_json::from_str(r#"{"hsm":{"timeoutSeconds":5},"s3":{"endpoint":"http://localhost:9000"}}"#).unwrap();
        assert_eq!(config.hsm.timeout_seconds, 5);
        assert_eq!(config.hsm.url(Service::Hsm).unwrap().as_str(), "http://cray-smd/hsm/v2");
        assert_eq!(config.s3.region, "us-east-1");
        let config: ServicesConfig =
            serde_json::from_str(r#"{"powerService":"capmc","powerStateSource":"hsm","capmc":{"baseUrl":"http://c"}}"#).unwrap();
        assert_eq!((config.power_service, config.power_state_source), (PowerService::Capmc, PowerStateSource::Hsm));
        assert_eq!((config.capmc.timeout_seconds, config.capmc.base_url.as_deref()), (120, Some("http://c")));
        let error = serde_json::from_str::<ServicesConfig>(r#"{"capmc":{"timeout":5}}"#).unwrap_err().to_string();
        assert!(error.contains("capmc") && error.contains("timeout"), "{error}");
        let error = serde_json::from_str::<ServicesConfig>(r#"{"hsm":{"timeout":5}}"#).unwrap_err().to_string();
        assert!(error.contains("timeout"), "{error}");
    }

    #[test]
    fn a_site_may_have_no_cfs_and_no_ims_but_the_others() {
        let mut config = with_keys();
        config.cfs.base_url = Some("none".to_owned());
        config.ims.base_url = Some("none".to_owned());
        config.validate().unwrap();
        config.hsm.base_url = Some("none".to_owned());
        assert_eq!(problems(&config), vec!["hsm.baseUrl: only cfs and ims can be none; nothing works without HSM"]);
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let mut config = ServicesConfig::default();
        config
            .apply_env(|name| {
                Some(
                    match name {
                        "BOS_HSM_BASE_URL" => "http://127.0.0.1:27779/hsm/v2",
                        "BOS_PCS_TIMEOUT_SECONDS" => " 7 ",
                        "BOS_CFS_INSECURE" => "true",
                        "BOS_CAPMC_BASE_URL" => "http://127.0.0.1:27777/capmc/v1",
                        "BOS_POWER_SERVICE" => "capmc",
                        "BOS_POWER_STATE_SOURCE" => "hsm",
                        "BOS_POWER_REST_SECONDS" => "0",
                        "BOS_BSS_TOKEN_FILE" => "/run/token",
                        "S3_PROTOCOL" => "http",
                        "S3_GATEWAY" => "rgw-vip.nmn:8080",
                        "S3_ACCESS_KEY" => "AK",
                        "S3_SECRET_KEY" => "SK",
                        "BOS_IMS_BASE_URL" => "",
                        _ => return None,
                    }
                    .to_owned(),
                )
            })
            .unwrap();
        config.validate().unwrap();
        assert_eq!(config.hsm.base_url.as_deref(), Some("http://127.0.0.1:27779/hsm/v2"));
        assert_eq!((config.pcs.timeout_seconds, config.cfs.insecure), (7, true));
        assert_eq!(config.bss.token_file, Some("/run/token".into()));
        assert_eq!(config.capmc.base_url.as_deref(), Some("http://127.0.0.1:27777/capmc/v1"));
        let power = (config.power_service, config.power_state_source, config.power_rest_seconds);
        assert_eq!(power, (PowerService::Capmc, PowerStateSource::Hsm, 0));
        assert_eq!(config.ims.base_url, None);
        assert_eq!(config.s3.endpoint, "http://rgw-vip.nmn:8080");
    }

    #[test]
    fn a_bad_variable_is_named() {
        let error = ServicesConfig::default().apply_env(|name| (name == "BOS_HSM_INSECURE").then(|| "yes".to_owned())).unwrap_err();
        assert_eq!(error.problems, [r#"BOS_HSM_INSECURE: "yes" is not true or false"#]);
        let error = ServicesConfig::default().apply_env(|name| (name == "BOS_POWER_SERVICE").then(|| "PCS".to_owned())).unwrap_err();
        assert_eq!(error.problems, [r#"BOS_POWER_SERVICE: "PCS" is not pcs or capmc"#]);
    }

    #[test]
    fn every_problem_is_named_with_its_key() {
        let mut config = ServicesConfig::default();
        config.hsm.base_url = Some("cray-smd/hsm/v2".to_owned());
        config.pcs.base_url = Some("ftp://pcs".to_owned());
        config.bss.base_url = Some("http://user:pw@bss".to_owned());
        config.cfs.timeout_seconds = 0;
        config.ims.max_in_flight = 0;
        config.power_task_deadline_minutes = 0;
        config.power_rest_seconds = 601;
        let problems = problems(&config);
        let keys: Vec<&str> = problems.iter().filter_map(|problem| problem.split(':').next()).collect();
        assert_eq!(
            keys,
            [
                "hsm.baseUrl",
                "pcs.baseUrl",
                "bss.baseUrl",
                "cfs.timeoutSeconds",
                "ims.maxInFlight",
                "s3.accessKey",
                "s3.secretKey",
                "powerTaskDeadlineMinutes",
                "powerRestSeconds"
            ]
        );
    }

    #[test]
    fn a_secret_is_never_shown() {
        let config = with_keys();
        assert!(!format!("{config:?}").contains("\"s\""), "{config:?}");
        assert!(!serde_json::to_string(&config).unwrap().contains("secret"));
    }
}
