//! Reads for set-up: a fresh, complete inventory, the artifacts of every boot set, and whether CFS knows the configurations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bos_core::fold::Fault;
use bos_core::health::clause;
use bos_core::resolve::{Facts, Snapshot};
use bos_core::session_setup::{SetupFault, SetupRead, boots, configuration_name};
use bos_core::xname::Xname;
use bos_crds::{Operation, SessionTemplateSpec, reasons};
use bos_services::{Clients, ServiceError};
use futures::future::{try_join, try_join_all};

use crate::again::again;
use crate::boot_set::{LookRules, Looked, look};
use crate::dispatch;

/// Reads the whole inventory, or nothing.
///
/// # Errors
/// The first read that failed.
pub async fn inventory(services: &Clients) -> Result<Snapshot, ServiceError> {
    let hsm = &services.inventory;
    let ((components, groups), (partitions, locked)) = try_join(
        try_join(again(|| hsm.components()), again(|| hsm.groups())),
        try_join(again(|| hsm.partitions()), again(|| hsm.locked())),
    )
    .await?;
    let mut locked = locked;
    let mut nodes = BTreeMap::new();
    for component in components.nodes {
        if component.locked {
            locked.insert(component.xname.clone());
        }
        let facts = Facts {
            nid: component.nid,
            arch: component.arch.map(Into::into),
            role: component.role.map(Into::into),
            sub_role: component.sub_role.map(Into::into),
            state: component.state.map(Into::into),
            // HSM leaves the flag out only where it does not know it; it is never taken for a yes.
            enabled: component.enabled.unwrap_or(false),
        };
        nodes.insert(component.xname, facts);
    }
    Ok(Snapshot {
        nodes,
        groups: groups.into_iter().map(|group| (group.label, group.members.into_iter().collect())).collect(),
        partitions: partitions.into_iter().map(|partition| (partition.name, partition.members.into_iter().collect())).collect(),
        locked,
    })
}

/// The hardware addresses of all nodes; none where HSM does not say. Nothing waits for them: they only tell nodes apart.
pub async fn interfaces(services: &Clients) -> BTreeMap<Xname, BTreeSet<Arc<str>>> {
    let mut found: BTreeMap<Xname, BTreeSet<Arc<str>>> = BTreeMap::new();
    match services.inventory.interfaces().await {
        Ok(interfaces) => {
            for interface in interfaces {
                found.entry(interface.xname).or_default().insert(interface.mac.into());
            }
        }
        Err(error) => tracing::debug!(%error, "HSM does not tell the hardware addresses of nodes"),
    }
    found
}

/// Everything set-up of a session needs.
///
/// # Errors
/// What is not there yet, does not answer, or can never work.
pub async fn read(
    services: &Clients,
    template: Option<(SessionTemplateSpec, i64)>,
    operation: Operation,
    rules: &LookRules,
) -> Result<SetupRead, SetupFault> {
    let Some((template, template_generation)) = template else { return Err(SetupFault::TemplateMissing) };
    let snapshot = async { inventory(services).await.map_err(|error| unavailable(&error)) };
    let looks = async {
        // A shutdown needs HSM and power only (rule 14).
        if operation != Operation::Shutdown {
            configurations(services, &template).await?;
        }
        if !boots(operation) {
            return Ok(Vec::new());
        }
        // Asked for nothing else, but nodes are not to be switched off for a boot that nobody can prepare.
        again(|| services.boot_parameters.is_there()).await.map_err(|error| unavailable(&error))?;
        boot_sets(services, &template, rules).await
    };
    let (snapshot, looks) = try_join(snapshot, looks).await?;
    let (mut artifacts, mut warnings) = (BTreeMap::new(), Vec::new());
    for (name, look) in looks {
        warnings.extend(look.warnings.iter().map(|text| format!("Boot set {name}: {}.", clause(text))));
        artifacts.insert(name, look.artifacts);
    }
    Ok(SetupRead { snapshot, template, template_generation, artifacts, warnings })
}

async fn boot_sets(services: &Clients, template: &SessionTemplateSpec, rules: &LookRules) -> Result<Vec<(String, Looked)>, SetupFault> {
    let looks = template.boot_sets.iter().map(|set| async move {
        let looked = look(services, set, rules).await.map_err(|fault| of_boot_set(&set.name, fault))?;
        Ok((set.name.clone(), looked))
    });
    try_join_all(looks).await
}

fn of_boot_set(name: &str, fault: SetupFault) -> SetupFault {
    match fault {
        SetupFault::Refused { reason, message } => {
            SetupFault::Refused { reason, message: format!("Boot set {name}: {}.", clause(&message)) }
        }
        SetupFault::Unavailable(fault) => {
            SetupFault::Unavailable(Fault { detail: format!("boot set {name}: {}", fault.detail).into(), ..fault })
        }
        SetupFault::TemplateMissing => SetupFault::TemplateMissing,
    }
}

async fn configurations(services: &Clients, template: &SessionTemplateSpec) -> Result<(), SetupFault> {
    let names: BTreeSet<&str> =
        template.boot_sets.iter().map(|set| configuration_name(template, set)).filter(|name| !name.is_empty()).collect();
    for name in names {
        let known = again(|| services.configuration.configuration_exists(name)).await.map_err(|error| not_asked(name, &error))?;
        if !known {
            let message = format!("CFS has no configuration {name:?}.");
            return Err(SetupFault::Refused { reason: reasons::CONFIGURATION_UNKNOWN, message });
        }
    }
    Ok(())
}

/// CFS did not answer; or it refused, or the site has none.
fn not_asked(name: &str, error: &ServiceError) -> SetupFault {
    match unavailable(error) {
        SetupFault::Refused { .. } => {
            SetupFault::Refused { reason: reasons::CONFIGURATION_UNKNOWN, message: format!("Configuration {name:?}: {error}.") }
        }
        other => other,
    }
}

fn unavailable(error: &ServiceError) -> SetupFault {
    if error.is_transient() {
        SetupFault::Unavailable(dispatch::fault(error))
    } else {
        SetupFault::Refused { reason: reasons::SETUP_FAILED, message: error.to_string() }
    }
}
