//! One look at a boot set: its manifest, what that names, and its image in IMS. Set-up of a Session and the look at templates
//! share it, so that a template that is shown as ready can be set up.

use bos_core::artifacts::ArtifactSet;
use bos_core::fold::Fault;
use bos_core::health::Service;
use bos_core::images::{self, ImageFound, ImageRules, ImageVerdict};
use bos_core::manifest::{MAX_MANIFEST_BYTES, Manifest, S3Path};
use bos_core::session_setup::SetupFault;
use bos_crds::{BootSet, bounded, reasons};
use bos_services::{Clients, S3Error, S3ErrorKind};
use futures::future::try_join;

use crate::again::again;

/// The bound of an image's name in the schema.
const IMAGE_CHARS: usize = 256;

/// What a look needs to know of the options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookRules {
    /// `componentActualStateTtl` as it is written: it is part of the kernel parameters.
    pub update_frequency: String,
    /// What is asked of images in IMS.
    pub images: ImageRules,
}

impl Default for LookRules {
    fn default() -> Self {
        Self { update_frequency: "4h".to_owned(), images: ImageRules::default() }
    }
}

/// What was found of a boot set that can be booted.
#[derive(Debug, Clone)]
pub struct Looked {
    /// What its nodes are to boot, with IMS's name of the image or its short id.
    pub artifacts: ArtifactSet,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Reads the manifest of a boot set and looks for everything that it names.
///
/// # Errors
/// The first thing that is missing, does not answer, or can never work.
pub async fn look(services: &Clients, set: &BootSet, rules: &LookRules) -> Result<Looked, SetupFault> {
    let path = S3Path::parse(&set.path).map_err(|error| refused(reasons::TEMPLATE_INVALID, format!("path: {error}")))?;
    let read = again(|| services.objects.get(&path.bucket, &path.key, MAX_MANIFEST_BYTES)).await;
    let read = read.map_err(|error| not_read("manifest", &path, &error))?;
    let manifest = Manifest::parse(&read.bytes).map_err(|error| missing(format!("manifest {path}: {error}")))?;
    let heads = try_join(present(services, "kernel", &manifest.kernel.path), present(services, "initrd", &manifest.initrd.path));
    let (parameters, _) = try_join(image_parameters(services, &manifest), heads).await?;
    let (artifacts, told) = ArtifactSet::of_image(set, &manifest, parameters.as_deref(), &rules.update_frequency)
        .map_err(|error| refused(reasons::UNSUPPORTED_PROVIDER, error.to_string()))?;
    let mut warnings: Vec<String> = told.iter().map(ToString::to_string).collect();
    warnings.extend(other_etag(set, &path, &read.etag));
    let image = image(services, set, &path, rules.images).await?;
    warnings.extend(image.warning);
    // What people see of the nodes that run it; the digest does not depend on it.
    let artifacts = ArtifactSet { image: bounded(&image.name, IMAGE_CHARS), ..artifacts };
    Ok(Looked { artifacts, warnings })
}

/// Looks whether everything that nodes are to boot is still there.
///
/// # Errors
/// The first thing that is missing or does not answer.
pub async fn verify(services: &Clients, artifacts: &ArtifactSet) -> Result<(), SetupFault> {
    let rootfs = async {
        match &artifacts.rootfs {
            Some(rootfs) => present(services, "root file system", rootfs).await,
            None => Ok(()),
        }
    };
    try_join(try_join(present(services, "kernel", &artifacts.kernel), present(services, "initrd", &artifacts.initrd)), rootfs).await?;
    Ok(())
}

/// The text of the image's own kernel parameters, where the manifest names one.
async fn image_parameters(services: &Clients, manifest: &Manifest) -> Result<Option<String>, SetupFault> {
    const WHAT: &str = "boot parameters";
    let Some(link) = &manifest.boot_parameters else { return Ok(None) };
    let path = location(WHAT, &link.path)?;
    let read = again(|| services.objects.get(&path.bucket, &path.key, MAX_MANIFEST_BYTES)).await;
    let read = read.map_err(|error| not_read(WHAT, &path, &error))?;
    let text = String::from_utf8(read.bytes.to_vec());
    text.map(Some).map_err(|_| missing(format!("{WHAT} {path} are not UTF-8 text")))
}

async fn present(services: &Clients, what: &str, link: &str) -> Result<(), SetupFault> {
    let path = location(what, link)?;
    let head = again(|| services.objects.head(&path.bucket, &path.key)).await;
    head.map(|_| ()).map_err(|error| not_read(what, &path, &error))
}

fn location(what: &str, link: &str) -> Result<S3Path, SetupFault> {
    S3Path::parse(link).map_err(|error| missing(format!("{what}: {error}")))
}

/// BOS compares etags for its log only (§2.4); a person should see that the image is not the one that was meant.
fn other_etag(set: &BootSet, path: &S3Path, found: &str) -> Option<String> {
    let meant = set.etag.as_deref().map(|etag| etag.trim().trim_matches('"')).filter(|etag| !etag.is_empty() && *etag != found)?;
    Some(format!("manifest {path} has the etag {found}, not {meant}; it is not the one this template was written for"))
}

struct ImageLook {
    name: String,
    warning: Option<String>,
}

async fn image(services: &Clients, set: &BootSet, path: &S3Path, rules: ImageRules) -> Result<ImageLook, SetupFault> {
    let short = path.short_image_name();
    // What is not where IMS keeps images it cannot be asked about; validation says so. A site may have no IMS.
    let asked = path.image_id().filter(|_| !services.absent.contains(&Service::Ims));
    let Some(id) = asked else { return Ok(ImageLook { name: short, warning: None }) };
    let (name, found) = match again(|| services.images.image(id)).await {
        Ok(Some(image)) => (Some(image.name).filter(|name| !name.is_empty()), ImageFound::Known { arch: image.arch }),
        Ok(None) => (None, ImageFound::Unknown),
        Err(error) => (None, ImageFound::Unanswered(error.to_string())),
    };
    let name = name.unwrap_or(short);
    match images::judge(id, set.arch, &found, rules) {
        ImageVerdict::Good => Ok(ImageLook { name, warning: None }),
        ImageVerdict::Warning(text) => Ok(ImageLook { name, warning: Some(text) }),
        ImageVerdict::Refused(text) => Err(refused(reasons::IMAGE_REFUSED, text)),
        ImageVerdict::Missing(text) => Err(missing(text)),
        ImageVerdict::Wait(text) => Err(SetupFault::Unavailable(Fault { service: Service::Ims, detail: text.into() })),
    }
}

fn refused(reason: &'static str, message: String) -> SetupFault {
    SetupFault::Refused { reason, message }
}

fn missing(message: String) -> SetupFault {
    refused(reasons::ARTIFACTS_MISSING, message)
}

fn not_read(what: &str, path: &S3Path, error: &S3Error) -> SetupFault {
    match error.kind {
        S3ErrorKind::NotFound => missing(format!("{what} {path} does not exist in S3")),
        S3ErrorKind::TooLarge => missing(format!("{what} {path} is larger than {MAX_MANIFEST_BYTES} bytes")),
        S3ErrorKind::InvalidName => refused(reasons::TEMPLATE_INVALID, format!("{what} {path}: {}", error.detail)),
        S3ErrorKind::AccessDenied | S3ErrorKind::Unavailable => {
            SetupFault::Unavailable(Fault { service: Service::S3, detail: format!("{what} {path}: {}", error.detail).into() })
        }
    }
}
