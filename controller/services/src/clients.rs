//! All clients, made from one configuration.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::absent::Absent;
use crate::auth::ServiceAuth;
use crate::bss::{BootParameters, BssClient};
use crate::capmc::CapmcClient;
use crate::cfs::{CfsClient, Configuration};
use crate::config::{ConfigError, PowerService, ServiceConfig, ServicesConfig};
use crate::error::Service;
use crate::hsm::{HsmClient, Inventory};
use crate::http::{CallObserver, Credentials, Settings, StopSwitch, Timeouts, Transport};
use crate::ims::{Images, ImsClient};
use crate::pcs::{PcsClient, Power};
use crate::s3::{ObjectStore, S3Client};
use crate::token::TokenSource;

/// The services, each behind its trait; cloning is cheap. A test puts its own implementations here.
#[derive(Clone)]
pub struct Clients {
    /// HSM.
    pub inventory: Arc<dyn Inventory>,
    /// PCS or CAPMC.
    pub power: Arc<dyn Power>,
    /// BSS.
    pub boot_parameters: Arc<dyn BootParameters>,
    /// CFS.
    pub configuration: Arc<dyn Configuration>,
    /// IMS.
    pub images: Arc<dyn Images>,
    /// S3.
    pub objects: Arc<dyn ObjectStore>,
    /// Services that the site does not have.
    pub absent: BTreeSet<Service>,
    /// Holds back every power action while it is set.
    pub stop: StopSwitch,
    /// The time limits for whole answers, to follow the `*_read_timeout` options of BOS while running.
    pub timeouts: Timeouts,
}

impl Clients {
    /// Makes the clients. Nothing is sent. Files of certificate authorities are read now and at each call, tokens at each call.
    ///
    /// # Errors
    /// Everything that [`ServicesConfig::validate`] finds, or a file of authorities that cannot be read.
    pub fn new(config: &ServicesConfig, observer: Arc<dyn CallObserver>) -> Result<Self, ConfigError> {
        config.validate()?;
        let timeouts = Timeouts::default();
        let stop = StopSwitch::default();
        let tokens = TokenSource::of(&config.auth)?;
        let transport = |service, of: &ServiceConfig| {
            timeouts.set(service, Duration::from_secs(of.timeout_seconds));
            let base = of.url(service).map_err(ConfigError::one)?;
            let settings = Settings {
                service,
                credentials: credentials(of, &base, tokens.as_ref()),
                stop: Some(if matches!(service, Service::Pcs | Service::Capmc) { stop.clone() } else { stop.without_power() }),
                base,
                ca_file: of.ca_file.clone(),
                insecure: of.insecure,
                max_in_flight: of.max_in_flight,
            };
            Transport::new(settings, timeouts.clone(), Arc::clone(&observer))
        };
        let inventory: Arc<dyn Inventory> = Arc::new(HsmClient::new(transport(Service::Hsm, &config.hsm)?));
        let power: Arc<dyn Power> = match config.power_service {
            PowerService::Pcs => Arc::new(PcsClient::new(transport(Service::Pcs, &config.pcs)?, config.power_task_deadline_minutes)),
            PowerService::Capmc => {
                let (http, rest) = (transport(Service::Capmc, &config.capmc)?, Duration::from_secs(config.power_rest_seconds));
                Arc::new(CapmcClient::new(http, Arc::clone(&inventory), config.power_state_source, rest))
            }
        };
        let absent = [(Service::Cfs, &config.cfs), (Service::Ims, &config.ims)].into_iter().filter(|(_, of)| of.is_absent());
        let absent: BTreeSet<Service> = absent.map(|(service, _)| service).collect();
        let configuration: Arc<dyn Configuration> = if absent.contains(&Service::Cfs) {
            Arc::new(Absent(Service::Cfs))
        } else {
            Arc::new(CfsClient::new(transport(Service::Cfs, &config.cfs)?))
        };
        let images: Arc<dyn Images> = if absent.contains(&Service::Ims) {
            Arc::new(Absent(Service::Ims))
        } else {
            Arc::new(ImsClient::new(transport(Service::Ims, &config.ims)?))
        };
        Ok(Self {
            inventory,
            power,
            boot_parameters: Arc::new(BssClient::new(transport(Service::Bss, &config.bss)?)),
            configuration,
            images,
            objects: Arc::new(object_store(config, &timeouts, &observer)?),
            absent,
            stop: stop.clone(),
            timeouts: timeouts.clone(),
        })
    }
}

/// What a service is shown of who we are. A token goes out in the clear only where somebody said so.
fn credentials(of: &ServiceConfig, base: &Url, tokens: Option<&TokenSource>) -> Credentials {
    match (&of.token_file, of.auth, tokens) {
        (Some(file), ..) => Credentials::File(file.clone()),
        (None, Some(ServiceAuth::Oauth), Some(tokens)) => Credentials::Source(tokens.clone()),
        (None, None, Some(tokens)) if base.scheme() == "https" => Credentials::Source(tokens.clone()),
        _ => Credentials::None,
    }
}

fn object_store(config: &ServicesConfig, timeouts: &Timeouts, observer: &Arc<dyn CallObserver>) -> Result<S3Client, ConfigError> {
    let s3 = &config.s3;
    let endpoint = s3.url().map_err(ConfigError::one)?;
    timeouts.set(Service::S3, Duration::from_secs(s3.timeout_seconds));
    let settings = Settings {
        service: Service::S3,
        stop: None,
        base: endpoint.clone(),
        ca_file: s3.ca_file.clone(),
        credentials: Credentials::None,
        insecure: s3.insecure,
        max_in_flight: s3.max_in_flight,
    };
    Ok(S3Client::new(Transport::new(settings, timeouts.clone(), Arc::clone(observer))?, endpoint, s3))
}
