//! The command line of every program that calls the services: their flags, and how it is read.
//!
//! Every setting is `None` unless it was given, so that a flag can win over the environment, that over the configuration file, and
//! that over the default.

use std::path::PathBuf;

use clap::builder::Resettable;
use clap::{Args as ClapArgs, Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::auth::{AuthConfig, ServiceAuth};
use crate::config::{ConfigError, PowerService, PowerStateSource, Secret, ServiceConfig, ServicesConfig};

/// Where the services are and how to talk to them.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct ServiceFlags {
    #[command(flatten)]
    auth: AuthArgs,
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
            #[arg(id = concat!($flag, "-auth"), long = concat!($flag, "-auth"), value_name = "KIND",
                  help = concat!("none: without a token; oauth: with that of --auth-token-url, over plain HTTP too. Default: oauth where the base URL is https [env: BOS_", $var, "_AUTH]"))]
            auth: Option<ServiceAuth>,
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
                take(&mut config.auth, self.auth.map(Some));
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
#[command(next_help_heading = "Tokens for services behind an API gateway (OAuth2, client credentials)")]
struct AuthArgs {
    /// Token endpoint of the authorization server. Default: none, and services get no such token [env: BOS_AUTH_TOKEN_URL]
    #[arg(long, value_name = "URL")]
    auth_token_url: Option<String>,
    /// File with the client id, read at every fetch. Default: none, must be given with --auth-token-url [env: BOS_AUTH_CLIENT_ID_FILE]
    #[arg(long, value_name = "FILE")]
    auth_client_id_file: Option<PathBuf>,
    /// File with the client secret, read at every fetch. Default: none, must be given with --auth-token-url [env: BOS_AUTH_CLIENT_SECRET_FILE]
    #[arg(long, value_name = "FILE")]
    auth_client_secret_file: Option<PathBuf>,
    /// Scope to ask for. Default: none, the server decides [env: BOS_AUTH_SCOPE]
    #[arg(long, value_name = "SCOPE")]
    auth_scope: Option<String>,
    /// PEM file of certificate authorities; only these are trusted. Default: those of the system [env: BOS_AUTH_CA_FILE]
    #[arg(long, value_name = "FILE")]
    auth_ca_file: Option<PathBuf>,
    /// Do not check certificates. Default: false [env: BOS_AUTH_INSECURE]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    auth_insecure: Option<bool>,
    /// Time for a whole answer, in seconds, 1 to 300. Default: 10 [env: BOS_AUTH_TIMEOUT_SECONDS]
    #[arg(long, value_name = "SECONDS")]
    auth_timeout_seconds: Option<u64>,
}

impl AuthArgs {
    fn apply(self, config: &mut AuthConfig) {
        take(&mut config.token_url, self.auth_token_url.map(Some));
        take(&mut config.client_id_file, self.auth_client_id_file.map(Some));
        take(&mut config.client_secret_file, self.auth_client_secret_file.map(Some));
        take(&mut config.scope, self.auth_scope.map(Some));
        take(&mut config.ca_file, self.auth_ca_file.map(Some));
        take(&mut config.insecure, self.auth_insecure);
        take(&mut config.timeout_seconds, self.auth_timeout_seconds);
    }
}

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
    fn apply(self, config: &mut ServicesConfig) -> Result<(), ConfigError> {
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
                .map_err(|error| ConfigError::one(format!("--s3-secret-key-file: cannot read {}: {error}", file.display())))?;
            s3.secret_key = Secret::new(secret.trim());
        }
        Ok(())
    }
}

impl ServiceFlags {
    /// Takes over the flags.
    ///
    /// # Errors
    /// When the file with the secret key cannot be read.
    pub fn apply(self, config: &mut ServicesConfig) -> Result<(), ConfigError> {
        self.auth.apply(&mut config.auth);
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

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Reads the command line and the environment of this process; ends it for `--help`, `--version` and mistakes.
#[must_use]
pub fn from_process<Args: Parser>() -> Args {
    let matches = without_empty_variables(Args::command()).get_matches();
    Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// A Deployment often sets a variable from something that is empty; that is not a value.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if empty { arg.env(Resettable::Reset) } else { arg }
    })
}
