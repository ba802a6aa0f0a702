//! The configuration service: components, configurations, and the status computed from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A layer of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Layer {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) clone_url: String,
    #[serde(default)]
    pub(crate) playbook: String,
    #[serde(default)]
    pub(crate) commit: String,
}

/// A named configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Configuration {
    pub(crate) name: String,
    pub(crate) last_updated: String,
    pub(crate) layers: Vec<Layer>,
}

/// What was done on a node for one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerState {
    pub(crate) clone_url: String,
    pub(crate) playbook: String,
    pub(crate) commit: String,
    pub(crate) status: String,
    pub(crate) last_updated: String,
    pub(crate) session_name: String,
}

/// The record of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Component {
    pub(crate) desired_config: String,
    pub(crate) state: Vec<LayerState>,
    pub(crate) enabled: bool,
    pub(crate) error_count: u32,
    pub(crate) retry_policy: Option<u32>,
    pub(crate) tags: BTreeMap<String, String>,
    /// Status that was last computed by a read; a write answers with this old one.
    pub(crate) stale_status: &'static str,
    /// Counts changes, so that work begun before a change has no effect after it.
    pub(crate) generation: u64,
}

/// What the service has stored.
#[derive(Debug, Default)]
pub(crate) struct Cfs {
    pub(crate) components: BTreeMap<String, Component>,
    pub(crate) configurations: BTreeMap<String, Configuration>,
}

pub(crate) fn now() -> String {
    super::stamp(jiff::Timestamp::now())
}

impl Cfs {
    pub(crate) fn add_component(&mut self, xname: &str) {
        // As the hardware sync creates it: enabled, nothing wanted, nothing done.
        self.components.insert(xname.to_owned(), Component { enabled: true, stale_status: "unconfigured", ..Component::default() });
    }

    pub(crate) fn add_configuration(&mut self, name: &str) {
        let layer = Layer {
            name: format!("{name}-layer"),
            clone_url: "https://vcs.local/vcs/cray/cos-config-management.git".into(),
            playbook: "site.yml".into(),
            commit: "43ecfa8236bed625b54325ebb70916f55884b3a4".into(),
        };
        self.configurations.insert(name.to_owned(), Configuration { name: name.to_owned(), last_updated: now(), layers: vec![layer] });
    }

    pub(crate) fn set_configured(&mut self, xname: &str, configuration: &str) {
        if !self.configurations.contains_key(configuration) {
            self.add_configuration(configuration);
        }
        if let Some(component) = self.components.get_mut(xname) {
            component.desired_config = configuration.to_owned();
        }
        self.layers_applied(xname);
    }

    /// The status as a read computes it.
    pub(crate) fn status(&self, component: &Component, retries: u32) -> &'static str {
        if component.desired_config.is_empty() {
            return if component.state.is_empty() { "unconfigured" } else { "configured" };
        }
        let Some(configuration) = self.configurations.get(&component.desired_config) else { return "unconfigured" };
        let done = |layer: &Layer| {
            let same = |s: &&LayerState| s.clone_url == layer.clone_url && s.playbook == layer.playbook && s.commit == layer.commit;
            component.state.iter().find(same).is_some_and(|s| s.status == "applied")
        };
        if configuration.layers.iter().all(done) {
            "configured"
        } else if component.error_count >= component.retry_policy.unwrap_or(retries) {
            "failed"
        } else {
            "pending"
        }
    }

    /// The node's own reporter: forget what was done, enable.
    pub(crate) fn node_reports(&mut self, xname: &str) {
        if let Some(component) = self.components.get_mut(xname) {
            component.state.clear();
            component.error_count = 0;
            component.enabled = true;
            component.generation += 1;
        }
    }

    /// The generation to work on, if the node is to be configured.
    pub(crate) fn wants_run(&self, xname: &str, retries: u32) -> Option<u64> {
        let component = self.components.get(xname)?;
        (component.enabled && self.status(component, retries) == "pending").then_some(component.generation)
    }

    pub(crate) fn is_current(&self, xname: &str, generation: u64) -> bool {
        self.components.get(xname).is_some_and(|c| c.generation == generation)
    }

    pub(crate) fn layers_applied(&mut self, xname: &str) -> Option<String> {
        let component = self.components.get_mut(xname)?;
        let configuration = self.configurations.get(&component.desired_config)?;
        component.state = configuration.layers.iter().map(|l| layer_state(l, "applied")).collect();
        component.generation += 1;
        Some(configuration.name.clone())
    }

    pub(crate) fn layer_failed(&mut self, xname: &str) {
        let Some(component) = self.components.get_mut(xname) else { return };
        let Some(configuration) = self.configurations.get(&component.desired_config) else { return };
        component.state = configuration.layers.first().map(|l| layer_state(l, "failed")).into_iter().collect();
        component.error_count += 1;
        component.generation += 1;
    }
}

fn layer_state(layer: &Layer, status: &str) -> LayerState {
    LayerState {
        clone_url: layer.clone_url.clone(),
        playbook: layer.playbook.clone(),
        commit: layer.commit.clone(),
        status: status.to_owned(),
        last_updated: now(),
        session_name: "batcher-00000000-0000-0000-0000-000000000001".into(),
    }
}
