//! Reads for set-up: a fresh, complete inventory, the artifacts of every boot set, and whether CFS knows the configurations.

use std::collections::{BTreeMap, BTreeSet};

use bos_core::artifacts::ArtifactSet;
use bos_core::fold::Fault;
use bos_core::manifest::{Manifest, S3Path};
use bos_core::resolve::{Facts, Snapshot};
use bos_core::session_setup::{SetupFault, SetupRead, boots, configuration_name};
use bos_crds::{BootSet, Operation, SessionTemplateSpec, reasons};
use bos_services::{Clients, S3Error, S3ErrorKind, ServiceError};
use futures::future::{try_join, try_join_all};

use crate::dispatch;

/// BOS refuses larger manifests too (§7.5).
const MANIFEST_BYTES: usize = 1024 * 1024;

/// Reads the whole inventory, or nothing.
///
/// # Errors
/// The first read that failed.
pub async fn inventory(services: &Clients) -> Result<Snapshot, ServiceError> {
    let hsm = &services.inventory;
    let ((components, groups), (partitions, locked)) =
        try_join(try_join(hsm.components(), hsm.groups()), try_join(hsm.partitions(), hsm.locked())).await?;
    let mut locked = locked;
    let mut nodes = BTreeMap::new();
    for component in components.nodes {
        if component.locked {
            locked.insert(component.xname.clone());
        }
        let facts = Facts {
            nid: component.nid,
            arch: component.arch,
            role: component.role,
            sub_role: component.sub_role,
            state: component.state,
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

/// Everything set-up of a session needs.
///
/// # Errors
/// What is not there yet, does not answer, or can never work.
pub async fn read(
    services: &Clients,
    template: Option<(SessionTemplateSpec, i64)>,
    operation: Operation,
    ttl: &str,
) -> Result<SetupRead, SetupFault> {
    let Some((template, template_generation)) = template else { return Err(SetupFault::TemplateMissing) };
    let snapshot = async { inventory(services).await.map_err(|error| unavailable(&error)) };
    let artifacts = async {
        // A shutdown needs HSM and power only (rule 14).
        if operation != Operation::Shutdown {
            configurations(services, &template).await?;
        }
        if boots(operation) { artifacts(services, &template, ttl).await } else { Ok(BTreeMap::new()) }
    };
    let (snapshot, artifacts) = try_join(snapshot, artifacts).await?;
    Ok(SetupRead { snapshot, template, template_generation, artifacts })
}

async fn artifacts(services: &Clients, template: &SessionTemplateSpec, ttl: &str) -> Result<BTreeMap<String, ArtifactSet>, SetupFault> {
    let sets = template.boot_sets.iter().map(|set| async move { Ok((set.name.clone(), boot_set(services, set, ttl).await?)) });
    Ok(try_join_all(sets).await?.into_iter().collect())
}

/// Reads one boot set's manifest and what it names.
///
/// # Errors
/// As [`read`].
pub async fn boot_set(services: &Clients, set: &BootSet, ttl: &str) -> Result<ArtifactSet, SetupFault> {
    let at = |what: &str| format!("boot set {}: {what}", set.name);
    let path = S3Path::parse(&set.path).map_err(|error| refused(reasons::TEMPLATE_INVALID, at(&format!("path: {error}"))))?;
    let manifest =
        services.objects.get(&path.bucket, &path.key, MANIFEST_BYTES).await.map_err(|error| object(&error, &at("manifest"), &path))?;
    let manifest =
        Manifest::parse(&manifest.bytes).map_err(|error| refused(reasons::ARTIFACTS_MISSING, at(&format!("manifest {path}: {error}"))))?;
    let (kernel, initrd) = (location(&manifest.kernel.path, &at("kernel"))?, location(&manifest.initrd.path, &at("initrd"))?);
    let parameters = async {
        let Some(link) = &manifest.boot_parameters else { return Ok(None) };
        let path = location(&link.path, &at("boot parameters"))?;
        let read = services
            .objects
            .get(&path.bucket, &path.key, MANIFEST_BYTES)
            .await
            .map_err(|error| object(&error, &at("boot parameters"), &path))?;
        let text = String::from_utf8(read.bytes.to_vec());
        text.map(Some).map_err(|_| refused(reasons::ARTIFACTS_MISSING, at(&format!("boot parameters {path} are not UTF-8 text"))))
    };
    let present = |path: S3Path, what: String| async move {
        services.objects.head(&path.bucket, &path.key).await.map_err(|error| object(&error, &what, &path)).map(|_| ())
    };
    let heads = try_join(present(kernel, at("kernel")), present(initrd, at("initrd")));
    let (parameters, _) = try_join(parameters, heads).await?;
    let (artifacts, _warnings) = ArtifactSet::of_image(set, &manifest, parameters.as_deref(), ttl)
        .map_err(|error| refused(reasons::UNSUPPORTED_PROVIDER, at(&error.to_string())))?;
    Ok(artifacts)
}

fn location(path: &str, what: &str) -> Result<S3Path, SetupFault> {
    S3Path::parse(path).map_err(|error| refused(reasons::ARTIFACTS_MISSING, format!("{what}: {error}")))
}

async fn configurations(services: &Clients, template: &SessionTemplateSpec) -> Result<(), SetupFault> {
    let names: BTreeSet<&str> =
        template.boot_sets.iter().map(|set| configuration_name(template, set)).filter(|name| !name.is_empty()).collect();
    for name in names {
        let known = services.configuration.configuration_exists(name).await.map_err(|error| unavailable(&error))?;
        if !known {
            return Err(refused(reasons::CONFIGURATION_UNKNOWN, format!("CFS has no configuration {name:?}.")));
        }
    }
    Ok(())
}

fn refused(reason: &'static str, message: String) -> SetupFault {
    SetupFault::Refused { reason, message }
}

fn unavailable(error: &ServiceError) -> SetupFault {
    if error.is_transient() { SetupFault::Unavailable(dispatch::fault(error)) } else { refused(reasons::SETUP_FAILED, error.to_string()) }
}

fn object(error: &S3Error, what: &str, path: &S3Path) -> SetupFault {
    match error.kind {
        S3ErrorKind::NotFound => refused(reasons::ARTIFACTS_MISSING, format!("{what} {path} does not exist in S3.")),
        S3ErrorKind::TooLarge => refused(reasons::ARTIFACTS_MISSING, format!("{what} {path} is larger than {MANIFEST_BYTES} bytes.")),
        S3ErrorKind::InvalidName => refused(reasons::TEMPLATE_INVALID, format!("{what} {path}: {}", error.detail)),
        S3ErrorKind::AccessDenied | S3ErrorKind::Unavailable => SetupFault::Unavailable(Fault {
            service: bos_core::health::Service::S3,
            detail: format!("{what} {path}: {}", error.detail).into(),
        }),
    }
}
