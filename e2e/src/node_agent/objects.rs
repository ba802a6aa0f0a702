//! What a pod refers to: values of its own fields, keys of ConfigMaps and Secrets.

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectFieldSelector, Pod, Secret};
use kube::{Api, Client};

use super::{ADDRESS, NODE};

/// Reads ConfigMaps and Secrets of one namespace.
#[derive(Clone)]
pub(super) struct Objects {
    config_maps: Api<ConfigMap>,
    secrets: Api<Secret>,
}

/// The keys of a ConfigMap or Secret, and their values.
pub(super) type Data = BTreeMap<String, Vec<u8>>;

impl Objects {
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        Self { config_maps: Api::namespaced(client.clone(), namespace), secrets: Api::namespaced(client, namespace) }
    }

    /// The data of a ConfigMap; nothing if it does not exist and need not.
    pub(super) async fn config_map(&self, name: &str, optional: bool) -> anyhow::Result<Option<Data>> {
        let found = self.config_maps.get_opt(name).await.with_context(|| format!("reading ConfigMap {name}"))?;
        anyhow::ensure!(optional || found.is_some(), "configmap \"{name}\" not found");
        Ok(found.map(|object| {
            let text = object.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
            let binary = object.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
            text.chain(binary).collect()
        }))
    }

    /// The data of a Secret; nothing if it does not exist and need not.
    pub(super) async fn secret(&self, name: &str, optional: bool) -> anyhow::Result<Option<Data>> {
        let found = self.secrets.get_opt(name).await.with_context(|| format!("reading Secret {name}"))?;
        anyhow::ensure!(optional || found.is_some(), "secret \"{name}\" not found");
        Ok(found.map(|object| object.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)).collect()))
    }
}

/// The value of a pod's field as the downward API has it.
pub(super) fn field(pod: &Pod, selector: &ObjectFieldSelector) -> anyhow::Result<String> {
    let (meta, spec) = (&pod.metadata, pod.spec.as_ref());
    let path = selector.field_path.as_str();
    let known = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "spec.nodeName" => Some(NODE.to_owned()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" | "status.hostIP" | "status.podIPs" | "status.hostIPs" => Some(ADDRESS.to_owned()),
        _ => {
            return member(path, "labels", meta.labels.as_ref())
                .or_else(|| member(path, "annotations", meta.annotations.as_ref()))
                .with_context(|| format!("the test node agent does not know the field {path}"));
        }
    };
    Ok(known.unwrap_or_default())
}

/// The value for `metadata.KIND['key']`; one that is not set is empty.
fn member(path: &str, kind: &str, values: Option<&BTreeMap<String, String>>) -> Option<String> {
    let key = path.strip_prefix("metadata.")?.strip_prefix(kind)?.strip_prefix("['")?.strip_suffix("']")?;
    Some(values.and_then(|values| values.get(key)).cloned().unwrap_or_default())
}
