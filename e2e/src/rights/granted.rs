//! What the roles in a rendered folder of manifests grant to our service accounts, right by right.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context as _;
use serde_json::Value;

use crate::control_plane::Asked;
use crate::rig::NAMESPACE;

/// The smallest part of a rule: one verb on one resource, of one name where the rule has names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Whose.
    pub account: String,
    /// Which verb.
    pub verb: String,
    /// Of which group.
    pub group: String,
    /// With its part: `sessions/status`.
    pub resource: String,
    /// Only of this name.
    pub name: Option<String>,
    /// In all namespaces; otherwise in ours.
    pub everywhere: bool,
}

impl Right {
    /// Whether it lets this request pass.
    pub fn covers(&self, asked: &Asked) -> bool {
        let right = (&self.account, &self.verb, &self.group, &self.resource);
        right == (&asked.account, &asked.verb, &asked.group, &asked.resource)
            && self.name.as_ref().is_none_or(|name| *name == asked.name)
            && (self.everywhere || asked.namespace == NAMESPACE)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        write!(to, "{}: {} {group} {}", self.account, self.verb, self.resource)?;
        if let Some(name) = &self.name {
            write!(to, " {name}")?;
        }
        write!(to, "{}", if self.everywhere { "" } else { ", in the operator's namespace" })
    }
}

/// The rights of all service accounts that the text (YAML of `kubectl kustomize`) brings, in their order.
pub fn granted(rendered: &str) -> anyhow::Result<Vec<Right>> {
    let mut roles: BTreeMap<(String, String), Value> = BTreeMap::new();
    let mut bindings = Vec::new();
    for document in rendered.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).context("a document of the manifests")?;
        let kind = text(&object["kind"]);
        match kind.as_str() {
            "Role" | "ClusterRole" => drop(roles.insert((kind, text(&object["metadata"]["name"])), object)),
            "RoleBinding" | "ClusterRoleBinding" => bindings.push(object),
            _ => {}
        }
    }
    let mut rights = Vec::new();
    for binding in &bindings {
        let (name, role) = (text(&binding["metadata"]["name"]), &binding["roleRef"]);
        let key = (text(&role["kind"]), text(&role["name"]));
        let found = roles.get(&key).with_context(|| format!("{name} binds the {} {}, which is not in the manifests", key.0, key.1))?;
        for subject in items(&binding["subjects"]) {
            anyhow::ensure!(subject["kind"] == "ServiceAccount", "{name} binds {subject}, which is no service account");
            let everywhere = binding["kind"] == "ClusterRoleBinding";
            for rule in items(&found["rules"]) {
                rights.extend(of_rule(rule, &text(&subject["name"]), everywhere)?);
            }
        }
    }
    Ok(rights)
}

fn of_rule(rule: &Value, account: &str, everywhere: bool) -> anyhow::Result<Vec<Right>> {
    let all = |key: &str| -> Vec<String> { items(&rule[key]).iter().map(text).collect() };
    let names = all("resourceNames");
    let names: Vec<Option<String>> = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
    let mut rights = Vec::new();
    for group in all("apiGroups") {
        for resource in all("resources") {
            for verb in all("verbs") {
                anyhow::ensure!(![&group, &resource, &verb].iter().any(|word| word.contains('*')), "a rule of {account} has a wildcard");
                let right = |name: &Option<String>| Right {
                    account: account.to_owned(),
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                    everywhere,
                };
                rights.extend(names.iter().map(right));
            }
        }
    }
    anyhow::ensure!(!rights.is_empty(), "a rule of {account} grants no right to a resource: {rule}");
    Ok(rights)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
