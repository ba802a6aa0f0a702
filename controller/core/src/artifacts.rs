//! What a boot set gives its nodes to boot, and the digest that names it.

use std::fmt::Write as _;

use bos_crds::BootSet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel_parameters::{Inputs, ParameterError, ParameterWarning, UPDATE_FREQUENCY, build, words};
use crate::manifest::{Manifest, S3Path};

/// Characters of the digest in names and statuses.
const SHORT_DIGEST_CHARS: usize = 20;

/// Kernel, initrd and parameters, as they are handed to BSS, and where they come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactSet {
    /// Location of the kernel.
    pub kernel: String,
    /// Location of the initial RAM disk.
    pub initrd: String,
    /// The whole kernel parameter string.
    pub params: String,
    /// The etags the image manifest records.
    #[serde(default, skip_serializing_if = "Etags::is_empty")]
    pub etags: Etags,
    /// Location of the root file system, where the image has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<String>,
    /// A short name of the image for people; no part of the digest.
    #[serde(default)]
    pub image: String,
}

/// The etags of the parts of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Etags {
    /// Of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Of the initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<String>,
    /// Of the root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<String>,
}

impl Etags {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ArtifactSet {
    /// What a boot set gives its nodes, and what a person should know about its kernel parameters.
    ///
    /// `image_parameters` is the text of the image's boot-parameters object, where the manifest names one; `update_frequency` is the option
    /// `componentActualStateTtl` as it is written.
    ///
    /// # Errors
    /// When the root file system provider is not supported, or needs a root file system the image does not have.
    pub fn of_image(
        boot_set: &BootSet,
        manifest: &Manifest,
        image_parameters: Option<&str>,
        update_frequency: &str,
    ) -> Result<(Self, Vec<ParameterWarning>), ParameterError> {
        let built = build(&Inputs {
            manifest,
            image_parameters,
            boot_set_parameters: boot_set.kernel_parameters.as_deref(),
            rootfs_provider: boot_set.rootfs_provider.as_deref(),
            rootfs_provider_passthrough: boot_set.rootfs_provider_passthrough.as_deref(),
            update_frequency,
        })?;
        let rootfs = manifest.rootfs.as_ref();
        let set = Self {
            kernel: manifest.kernel.path.clone(),
            initrd: manifest.initrd.path.clone(),
            params: built.text,
            etags: Etags {
                kernel: manifest.kernel.etag.clone(),
                initrd: manifest.initrd.etag.clone(),
                rootfs: rootfs.and_then(|link| link.etag.clone()),
            },
            rootfs: rootfs.map(|link| link.path.clone()),
            image: S3Path::parse(&boot_set.path).map(|path| path.short_image_name()).unwrap_or_default(),
        };
        Ok((set, built.warnings))
    }

    /// The SHA-256 of what makes two boots different, in hexadecimal.
    ///
    /// The word `bos_update_frequency=` is left out: it says how often a node reports and follows an option, so with it a changed option would
    /// make every running node look as if it ran another image. Blanks between words and the short name do not count either.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"bos-artifact-set-1");
        field(&mut hash, Some(&self.kernel));
        field(&mut hash, Some(&self.initrd));
        field(&mut hash, Some(&structural_params(&self.params)));
        for part in [&self.etags.kernel, &self.etags.initrd, &self.etags.rootfs, &self.rootfs] {
            field(&mut hash, part.as_deref());
        }
        hash.finalize().iter().fold(String::with_capacity(64), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }

    /// The first 20 characters of the digest, short enough for the name of an object and for a status.
    #[must_use]
    pub fn short_digest(&self) -> String {
        self.digest().chars().take(SHORT_DIGEST_CHARS).collect()
    }

    /// Whether two sets would boot a node the same way.
    #[must_use]
    pub fn same_boot(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

/// The parameters without what only says how often to report, one blank between words.
fn structural_params(params: &str) -> String {
    words(params).filter(|word| !word.starts_with(UPDATE_FREQUENCY)).collect::<Vec<_>>().join(" ")
}

/// Adds one field with its length, so that no two different sets can give the same bytes.
fn field(hash: &mut Sha256, value: Option<&str>) {
    match value {
        None => hash.update([0]),
        Some(text) => {
            hash.update([1]);
            // Eight bytes on every platform.
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Link;

    fn set() -> ArtifactSet {
        ArtifactSet {
            kernel: "s3://b/i/kernel".into(),
            initrd: "s3://b/i/initrd".into(),
            params: "quiet root=x bos_update_frequency=4h".into(),
            etags: Etags { kernel: Some("k".into()), ..Etags::default() },
            rootfs: Some("s3://b/i/rootfs".into()),
            image: "i".into(),
        }
    }

    #[test]
    fn what_does_not_change_a_boot_does_not_change_the_digest() {
        let base = set();
        for same in [
            ArtifactSet { params: "quiet root=x bos_update_frequency=24h".into(), ..set() },
            ArtifactSet { params: " quiet  root=x".into(), ..set() },
            ArtifactSet { image: "another name".into(), ..set() },
        ] {
            assert_eq!(same.digest(), base.digest(), "{same:?}");
        }
    }

    #[test]
    fn every_structural_part_changes_the_digest() {
        let base = set();
        let changed = [
            ArtifactSet { kernel: "k2".into(), ..set() },
            ArtifactSet { initrd: "i2".into(), ..set() },
            ArtifactSet { params: "quiet root=y".into(), ..set() },
            ArtifactSet { params: "root=x quiet".into(), ..set() },
            ArtifactSet { etags: Etags::default(), ..set() },
            ArtifactSet { etags: Etags { kernel: None, initrd: Some("k".into()), rootfs: None }, ..set() },
            ArtifactSet { rootfs: None, ..set() },
            ArtifactSet { rootfs: Some(String::new()), ..set() },
            ArtifactSet { kernel: "s3://b/i/kernels".into(), initrd: "3://b/i/initrd".into(), ..set() },
        ];
        for other in changed {
            assert!(!other.same_boot(&base), "{other:?}");
        }
    }

    #[test]
    fn the_digest_is_stable_across_releases() {
        assert_eq!(set().digest().len(), 64);
        assert_eq!(set().short_digest(), "cda1e9c0eff8ece04f9e");
    }

    #[test]
    fn is_made_of_boot_set_and_image() {
        let link = |name: &str| Link { path: format!("s3://b/7f0c/{name}"), etag: Some(format!("e-{name}")) };
        let manifest = Manifest { kernel: link("kernel"), initrd: link("initrd"), rootfs: Some(link("rootfs")), boot_parameters: None };
        let boot_set =
            BootSet { path: "s3://b/7f0c/manifest.json".into(), kernel_parameters: Some("xname=x1".into()), ..BootSet::default() };
        let (set, warnings) = ArtifactSet::of_image(&boot_set, &manifest, None, "4h").unwrap();
        assert_eq!((set.params.as_str(), set.image.as_str()), ("xname=x1 bos_update_frequency=4h", "7f0c"));
        assert_eq!((set.kernel.as_str(), set.etags.rootfs.as_deref()), ("s3://b/7f0c/kernel", Some("e-rootfs")));
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn survives_storage() {
        let text = serde_json::to_string(&set()).unwrap();
        assert_eq!(serde_json::from_str::<ArtifactSet>(&text).unwrap(), set());
    }
}
