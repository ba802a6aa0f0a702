//! The tenants that TAPMS keeps as custom resources, where the cluster has them. They are read again and again rather than watched:
//! the kind may be missing, come, or go.

use std::time::Duration;

use bos_core::tenants::Tenant;
use bos_core::xname::Xname;
use futures::future::{Either, select};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::gvk::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clients::{CALL_TIMEOUT, bounded};
use crate::watches::News;

/// TAPMS's API group.
const GROUP: &str = "tapms.hpe.com";

/// Between two reads.
const PAUSE: Duration = Duration::from_secs(15);

/// After the first read.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Answers without the kind, after it was there, that are not believed.
const MISSING: u32 = 4;

/// The part of a Tenant's status that says what is its own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    childnamespaces: Vec<String>,
    tenantresources: Vec<Resource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resource {
    xnames: Vec<String>,
}

/// Reads the tenants until `cancel` is cancelled.
pub async fn follow(client: Client, news: mpsc::Sender<News>, cancel: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    let (mut known, mut missing) = (false, 0);
    loop {
        let read = all(&client).await;
        let seen = match read {
            Ok(Some(tenants)) => {
                (known, missing) = (true, 0);
                Some(tenants)
            }
            // A kind that was there does not go by one answer.
            Ok(None) if known && missing < MISSING => {
                missing += 1;
                None
            }
            Ok(None) => Some(Vec::new()),
            Err(error) => {
                tracing::warn!(error, "the tenants (TAPMS) cannot be read; what was read last holds");
                None
            }
        };
        // The engine waits for the first answer; that there is none says that nobody knows.
        if (seen.is_some() || pause == FIRST_PAUSE) && news.send(News::Tenants(seen)).await.is_err() {
            return;
        }
        pause = PAUSE;
        let cancelled = std::pin::pin!(cancel.cancelled());
        let slept = std::pin::pin!(tokio::time::sleep(pause));
        if let Either::Left(_) = select(cancelled, slept).await {
            return;
        }
    }
}

/// All tenants; None where the cluster does not know the kind.
///
/// # Errors
/// What the API server says, for people.
pub async fn all(client: &Client) -> Result<Option<Vec<Tenant>>, String> {
    let groups = bounded(CALL_TIMEOUT, client.list_api_groups()).await.map_err(|error| error.message())?;
    let Some(group) = groups.groups.into_iter().find(|group| group.name == GROUP) else { return Ok(None) };
    let Some(version) = group.preferred_version.or_else(|| group.versions.into_iter().next()) else { return Ok(None) };
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, &version.version, "Tenant"), "tenants");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let list = bounded(CALL_TIMEOUT, api.list(&ListParams::default())).await.map_err(|error| error.message())?;
    Ok(Some(list.items.iter().filter_map(tenant).collect()))
}

/// A tenant whose status cannot be read owns nothing.
fn tenant(object: &DynamicObject) -> Option<Tenant> {
    let status = object.data.get("status").cloned().unwrap_or_default();
    let status: Status = match serde_json::from_value(status) {
        Ok(status) => status,
        Err(error) => {
            tracing::error!(tenant = object.name_any(), %error, "the status of a tenant cannot be read; it owns nothing");
            return None;
        }
    };
    let nodes = status.tenantresources.iter().flat_map(|resource| &resource.xnames).filter_map(|name| Xname::parse(name).ok()).collect();
    let namespaces = status.childnamespaces.iter().map(|name| name.as_str().into()).collect();
    Some(Tenant { name: object.name_any().into(), namespaces, nodes })
}
