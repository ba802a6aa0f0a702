//! The simulated site: the services of a machine room and its virtual nodes, in one process.
//!
//! For tests, benchmarks and demos only. It answers like the real services, with their oddities, and
//! shares no code with the clients that it tests. Start it with [`Site::start`], point the operator at
//! [`Site::urls`], tell it where reports go with [`SiteHandle::set_operator_url`], and look at
//! [`SiteHandle::calls`] and [`SiteHandle::history`] afterwards.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use bos_e2e::site::{Match, Service, Site, SiteConfig, When};
//!
//! let site = Site::start(SiteConfig::with_nodes(100)).await?;
//! site.set_operator_url("http://127.0.0.1:8080");
//! let mut hook = site.on(Match::new(Service::Pcs, "POST").path("/transitions"), When::AnswerWithheld);
//! if let Some(held) = hook.reached().await {
//!     // Kill the operator here: PCS has taken the transition, nobody has heard of it.
//!     held.abandon();
//! }
//! assert_eq!(site.power_cycles("x1000c0s0b0n0"), 0);
//! # Ok(()) }
//! ```

mod admin;
mod answers;
mod bss;
mod bss_http;
mod calls;
mod capmc_http;
mod cfs;
mod cfs_http;
mod config;
mod core;
mod faults;
mod fixtures;
mod gate;
mod handle;
mod history;
mod hooks;
mod hsm;
mod ims;
mod listener;
mod names;
mod node;
mod outages;
mod pcs;
mod pcs_http;
mod query;
mod reporter;
mod s3;
mod sigv4;
mod world;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// What the admin listener offers, one line per call.
pub use admin::HELP as ADMIN_HELP;
pub use calls::{CallFilter, CallOutcome, CallRecord};
pub use config::{FaultRule, ImageDefect, ImageSpec, InitialState, Inventory, NodeBlock, Service, ServiceSettings, Settings, SiteConfig};
pub use faults::{Faults, OutageKind, OutageSpec};
pub use handle::{NodeView, SiteHandle};
pub use history::{PowerEvent, PowerRecord};
pub use hooks::{Held, Hook, Match, When};
pub use outages::OutageView;

use self::core::Core;
use listener::{Connection, Door, SiteListener};
use sigv4::Keys;
use world::World;

/// Takes a lock; a panic elsewhere does not take the whole site down.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A time as the services print it.
pub(crate) fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Where the services are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Urls {
    /// HSM, with `/hsm/v2`.
    pub hsm: String,
    /// PCS: routes exist below it with and without `/v1`.
    pub pcs: String,
    /// CAPMC, with `/capmc/v1`.
    pub capmc: String,
    /// BSS, with `/boot/v1`.
    pub bss: String,
    /// CFS, with `/v3`.
    pub cfs: String,
    /// IMS, with `/v3`.
    pub ims: String,
    /// Object store endpoint, path style.
    pub s3: String,
    /// Access key of the object store.
    pub s3_access_key: String,
    /// Secret key of the object store.
    pub s3_secret_key: String,
    /// The site's own listener for people and scripts.
    pub admin: String,
}

/// A running site. It ends when this is dropped.
#[derive(Debug)]
pub struct Site {
    handle: SiteHandle,
}

impl Deref for Site {
    type Target = SiteHandle;

    fn deref(&self) -> &SiteHandle {
        &self.handle
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.handle.core.stop.cancel();
    }
}

impl Site {
    /// Starts all services, the nodes and the admin listener.
    ///
    /// # Errors
    /// When a port cannot be bound.
    pub async fn start(config: SiteConfig) -> anyhow::Result<Self> {
        let (reports, jobs) = mpsc::unbounded_channel();
        let keys = Keys { access: config.s3_access_key.clone(), secret: config.s3_secret_key.clone() };
        let core = Arc::new(Core::new(World::new(&config), config.settings.clone(), keys, config.seed, reports));
        // If anything below fails, what was started by then must not stay.
        let guard = core.stop.clone().drop_guard();
        let mut bases = BTreeMap::new();
        let mut doors = BTreeMap::new();
        for service in Service::ALL {
            let (door, address) = open(&core, service, port(&config, service.name())).await?;
            doors.insert(service, door);
            bases.insert(service, address);
        }
        let base = |service: Service, path: &str| format!("http://{}{path}", bases.get(&service).map_or("", String::as_str));
        let door = Door::new(core.stop.child_token());
        let listener = SiteListener::bind(port(&config, "admin"), door).await.context("cannot bind the admin listener")?;
        let urls = Urls {
            hsm: base(Service::Hsm, "/hsm/v2"),
            pcs: base(Service::Pcs, ""),
            capmc: base(Service::Capmc, "/capmc/v1"),
            bss: base(Service::Bss, "/boot/v1"),
            cfs: base(Service::Cfs, "/v3"),
            ims: base(Service::Ims, "/v3"),
            s3: base(Service::S3, ""),
            s3_access_key: config.s3_access_key.clone(),
            s3_secret_key: config.s3_secret_key.clone(),
            admin: format!("http://{}", listener.address()),
        };
        // Both are set once, here, before any request can need them.
        let _ = core.s3_url.set(urls.s3.clone());
        let _ = core.bss_address.set(base(Service::Bss, ""));
        lock(&core.world).start(&core, &config);
        let handle = SiteHandle::new(core.clone(), urls, doors);
        serve(&core, listener, admin::routes(handle.clone()));
        tokio::spawn(core.clone().run_timers());
        tokio::spawn(reporter::run(core, jobs));
        for outage in config.outages {
            handle.add_outage(outage);
        }
        guard.disarm();
        Ok(Self { handle })
    }

    /// A handle that can be cloned and moved into tasks. It does not keep the site running.
    pub fn handle(&self) -> SiteHandle {
        self.handle.clone()
    }
}

fn port(config: &SiteConfig, name: &str) -> u16 {
    config.ports.get(name).copied().unwrap_or(0)
}

async fn open(core: &Arc<Core>, service: Service, port: u16) -> anyhow::Result<(Door, String)> {
    let routes = match service {
        Service::Hsm => hsm::routes(core.clone()),
        Service::Pcs => pcs_http::routes(core.clone()),
        Service::Capmc => capmc_http::routes(core.clone()),
        Service::Bss => bss_http::routes(core.clone()),
        Service::Cfs => cfs_http::routes(core.clone()),
        Service::Ims => ims::routes(core.clone()),
        Service::S3 => s3::routes(core.clone()),
    };
    let gated = core.clone();
    let routes = routes.layer(DefaultBodyLimit::disable()).layer(from_fn(move |request: Request, next: Next| {
        let core = gated.clone();
        async move {
            match gate::connection(&request) {
                Some(connection) => gate::pass(core, service, connection, request, next).await,
                None => next.run(request).await,
            }
        }
    }));
    let door = Door::new(core.stop.child_token());
    let listener =
        SiteListener::bind(port, door.clone()).await.with_context(|| format!("cannot bind {} to port {port}", service.name()))?;
    let address = listener.address().to_string();
    serve(core, listener, routes);
    Ok((door, address))
}

fn serve(core: &Arc<Core>, listener: SiteListener, routes: Router) {
    let stop = core.stop.clone();
    let server = axum::serve(listener, routes.into_make_service_with_connect_info::<Connection>());
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            _ = server.into_future() => {}
        }
    });
}
