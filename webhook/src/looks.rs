//! Questions to outside services, within the time that a review has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bos_core::admission::{ConfigurationSeen, TemplateSeen};
use bos_core::model::{NodeId, Power};
use bos_core::resolve::Snapshot;
use bos_core::xname::Xname;
use bos_crds::SessionTemplateSpec;
use bos_engine::boot_set::LookRules;
use bos_engine::{read_power, setup, template_looks};
use bos_services::Clients;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::{Instant, timeout_at};

/// So old may an inventory be that a review is judged by.
const INVENTORY_AGE: Duration = Duration::from_secs(5);

type Read = Shared<BoxFuture<'static, Result<Arc<Snapshot>, String>>>;

/// Asks the services.
pub(crate) struct Looks {
    services: Clients,
    inventory: Mutex<Option<(Instant, Read)>>,
}

/// Why there is no answer.
pub(crate) type NoAnswer = String;

impl Looks {
    pub(crate) const fn new(services: Clients) -> Self {
        Self { services, inventory: Mutex::new(None) }
    }

    /// The whole inventory. Reviews that come together share one read, which goes on when they are over.
    pub(crate) async fn inventory(&self, deadline: Instant) -> Result<Arc<Snapshot>, NoAnswer> {
        let read = self.current_read();
        timeout_at(deadline, read).await.unwrap_or_else(|_| Err("HSM did not answer in time".to_owned()))
    }

    fn current_read(&self) -> Read {
        let mut current = self.inventory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((begun, read)) = &*current
            && (begun.elapsed() < INVENTORY_AGE || read.peek().is_none())
        {
            return read.clone();
        }
        let services = self.services.clone();
        let read = async move { setup::inventory(&services).await.map(Arc::new).map_err(|error| error.to_string()) };
        let read = read.boxed().shared();
        *current = Some((Instant::now(), read.clone()));
        tokio::spawn(read.clone());
        read
    }

    /// Images and configurations of a template; `Err` names what was not answered in time.
    pub(crate) async fn template(
        &self,
        template: &SessionTemplateSpec,
        rules: &LookRules,
        wanted: Wanted,
        deadline: Instant,
    ) -> (TemplateSeen, Vec<NoAnswer>) {
        let late = |what: &str| format!("{what} did not answer in time");
        let images = async {
            let images = timeout_at(deadline, template_looks::boot_sets(&self.services, template, rules));
            if wanted.images { images.await.map_err(|_| late("S3 or IMS")) } else { Ok(Vec::new()) }
        };
        let configurations = async {
            let configurations = timeout_at(deadline, template_looks::configurations(&self.services, template));
            if wanted.configurations { configurations.await.map_err(|_| late("CFS")) } else { Ok(Vec::new()) }
        };
        let (images, configurations) = futures::join!(images, configurations);
        let mut late = Vec::new();
        let mut seen = TemplateSeen::default();
        match images {
            Ok(images) => seen.boot_sets = images,
            Err(why) => late.push(why),
        }
        match configurations {
            Ok(configurations) => seen.configurations = configurations,
            Err(why) => late.push(why),
        }
        (seen, late)
    }

    /// What CFS says of one configuration.
    pub(crate) async fn configuration(&self, name: &str, deadline: Instant) -> ConfigurationSeen {
        let asked = timeout_at(deadline, template_looks::configuration(&self.services, name)).await;
        asked.unwrap_or_else(|_| ConfigurationSeen::Unanswered("it did not answer in time".to_owned()))
    }

    /// The power of these nodes, in calls of at most so many.
    pub(crate) async fn power(&self, nodes: &[Xname], batch: usize, deadline: Instant) -> Result<BTreeMap<Xname, Power>, NoAnswer> {
        let numbered: Vec<(NodeId, Xname)> = (0..).map(NodeId).zip(nodes.iter().cloned()).collect();
        let calls = numbered.chunks(batch.max(1)).map(|nodes| read_power(&self.services, nodes));
        let all = timeout_at(deadline, futures::future::try_join_all(calls)).await;
        let service = self.services.power.service();
        let read = all.map_err(|_| format!("{service} did not answer in time"))?.map_err(|fault| format!("{service}: {}", fault.detail))?;
        let named = |(id, power, _): (NodeId, Power, _)| Some((nodes.get(id.0 as usize)?.clone(), power));
        Ok(read.into_iter().flatten().filter_map(named).collect())
    }
}

/// What of a template is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) images: bool,
    pub(crate) configurations: bool,
}
