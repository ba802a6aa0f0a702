//! HTTP clients by whom they trust, made again when the file of authorities changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Certificate, Client};
use tower::util::MapResultLayer;
use url::Url;

use crate::config::{CONNECT_TIMEOUT_SECONDS, ConfigError, parse_base};
use crate::http::{StopSwitch, Stopped, chain, read_body};

/// What clients are made of.
pub(crate) struct Trust {
    /// The section of the configuration, for errors.
    pub(crate) key: &'static str,
    /// Only plain HTTP is spoken.
    pub(crate) plain: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) insecure: bool,
    /// Holds back the calls that change something.
    pub(crate) stop: Option<StopSwitch>,
}

/// The clients that are in use.
pub(crate) struct Made {
    /// For reads: keeps connections.
    pub(crate) pooled: Client,
    /// For calls that change something: a new connection each time. A kept connection may be closed by the service at the
    /// very moment we write to it, and then nobody knows whether the call was heard.
    pub(crate) fresh: Client,
    /// The file of authorities they were made from.
    pem: Option<Vec<u8>>,
}

/// Clients of one address.
pub(crate) struct HttpClients {
    trust: Trust,
    made: RwLock<Arc<Made>>,
}

impl HttpClients {
    /// Makes them.
    ///
    /// # Errors
    /// When the file of authorities cannot be read or holds none.
    pub(crate) fn new(trust: Trust) -> Result<Self, ConfigError> {
        // A second call finds a provider in place, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let problem = |path: &Path, why: String| ConfigError::one(format!("{}.caFile {}: {why}", trust.key, path.display()));
        let pem = match &trust.ca_file {
            Some(path) => Some(std::fs::read(path).map_err(|error| problem(path, error.to_string()))?),
            None => None,
        };
        let made = trust.make(pem).map_err(|why| match &trust.ca_file {
            Some(path) => problem(path, why),
            None => ConfigError::one(format!("{}: cannot set up HTTP: {why}", trust.key)),
        })?;
        Ok(Self { trust, made: RwLock::new(Arc::new(made)) })
    }

    /// Those that trust what the file of authorities says now. Where it cannot be used the ones before go on.
    pub(crate) async fn current(&self) -> Arc<Made> {
        let made = Arc::clone(&self.made.read().unwrap_or_else(PoisonError::into_inner));
        let Some(path) = &self.trust.ca_file else { return made };
        let again = match tokio::fs::read(path).await {
            Ok(pem) if made.pem.as_ref() == Some(&pem) => return made,
            Ok(pem) => self.trust.make(Some(pem)),
            Err(error) => Err(error.to_string()),
        };
        let (key, file) = (self.trust.key, path.display());
        match again {
            Ok(again) => {
                tracing::info!(key, %file, "the file of authorities changed and is in use");
                let again = Arc::new(again);
                *self.made.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&again);
                again
            }
            Err(why) => {
                tracing::warn!(key, %file, why, "the file of authorities cannot be used; the one before stays in use");
                made
            }
        }
    }
}

impl Trust {
    fn make(&self, pem: Option<Vec<u8>>) -> Result<Made, String> {
        let authorities = match &pem {
            Some(pem) => {
                let found = Certificate::from_pem_bundle(pem).map_err(|error| chain(&error))?;
                if found.is_empty() {
                    return Err("holds no certificate".to_owned());
                }
                Some(found)
            }
            // Plain HTTP needs no authorities; an image without any must still start.
            None => self.plain.then(Vec::new),
        };
        let pooled = self.client(4, None, authorities.clone())?;
        let fresh = self.client(0, self.stop.clone(), authorities)?;
        Ok(Made { pooled, fresh, pem })
    }

    fn client(&self, idle: usize, stop: Option<StopSwitch>, authorities: Option<Vec<Certificate>>) -> Result<Client, String> {
        let mut builder = Client::builder()
            .connect_timeout(Duration::from_secs(CONNECT_TIMEOUT_SECONDS))
            // Shorter than any of the services keeps an idle connection.
            .pool_idle_timeout(Duration::from_secs(1))
            .pool_max_idle_per_host(idle)
            // A redirect is a login page or a wrong address, never an answer; and a proxy meant for the outside world must not
            // see calls inside the mesh.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Nothing is ever sent twice without the engine knowing.
            .retry(reqwest::retry::never())
            .http1_only()
            .user_agent(concat!("bos-operator/", env!("CARGO_PKG_VERSION")))
            .tls_danger_accept_invalid_certs(self.insecure);
        if let Some(stop) = stop {
            // Without kept connections every call makes one, and this is looked at between that and the first byte of the call.
            builder = builder.connector_layer(MapResultLayer::new(move |made: Result<_, tower::BoxError>| {
                made.and_then(|connection| if stop.is_set() { Err(Stopped.into()) } else { Ok(connection) })
            }));
        }
        if let Some(authorities) = authorities {
            builder = builder.tls_certs_only(authorities);
        }
        builder.build().map_err(|error| chain(&error))
    }
}

/// A document at a fixed address that is read over HTTPS, such as the keys of an issuer of tokens.
pub struct Document {
    url: Url,
    http: HttpClients,
    timeout: Duration,
}

/// The largest document.
const LARGEST: usize = 1024 * 1024;

impl Document {
    /// Nothing is sent. `key` is the setting that names the address, for errors.
    ///
    /// # Errors
    /// When the address is none of HTTPS, or the file of authorities cannot be read.
    pub fn new(key: &'static str, url: &str, ca_file: Option<PathBuf>, timeout: Duration) -> Result<Self, ConfigError> {
        let url = parse_base(url).map_err(|problem| ConfigError::one(format!("{key}: {problem}")))?;
        if url.scheme() != "https" {
            return Err(ConfigError::one(format!(
                "{key}: {url} must begin with https://; whoever could change it on the way could be anybody"
            )));
        }
        Ok(Self { url, http: HttpClients::new(Trust { key, plain: false, ca_file, insecure: false, stop: None })?, timeout })
    }

    /// Its content now.
    ///
    /// # Errors
    /// Who answered what, for people.
    pub async fn read(&self) -> Result<Bytes, String> {
        let url = &self.url;
        let network = |error: reqwest::Error| format!("{url}: {}", chain(&error.without_url()));
        let response = self.http.current().await.pooled.get(url.clone()).timeout(self.timeout).send().await.map_err(network)?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(format!("{url} answered {status}"));
        }
        read_body(response, LARGEST).await.map_err(network)?.ok_or_else(|| format!("{url} answered more than {LARGEST} bytes"))
    }
}
