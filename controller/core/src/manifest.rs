//! Reads the manifest of an image: which kernel, initrd, root file system and boot parameters belong to it.
//!
//! The rules are those BOS applies at set-up, and they are applied at validation too, so that a template that is called valid
//! can be set up. Everything that is wrong is reported at once.

use std::fmt;

use serde_json::{Map, Value};

/// A manifest longer than this is refused unread, as BOS does.
pub const MAX_MANIFEST_BYTES: usize = 1024 * 1024;

/// The kinds of artifact that matter for a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArtifactKind {
    /// The Linux kernel; required.
    Kernel,
    /// The initial RAM disk; required.
    Initrd,
    /// The squashfs root file system; required by root file system providers.
    Rootfs,
    /// A text of kernel parameters that belong to the image; optional.
    BootParameters,
}

impl ArtifactKind {
    const ALL: [Self; 4] = [Self::Kernel, Self::Initrd, Self::Rootfs, Self::BootParameters];

    /// The media type that marks this kind in a manifest.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Kernel => "application/vnd.cray.image.kernel",
            Self::Initrd => "application/vnd.cray.image.initrd",
            Self::Rootfs => "application/vnd.cray.image.rootfs.squashfs",
            Self::BootParameters => "application/vnd.cray.image.parameters.boot",
        }
    }

    /// BOS reads the etag of these two whether it needs it or not, so a manifest without it has never worked.
    const fn needs_etag(self) -> bool {
        match self {
            Self::Rootfs | Self::BootParameters => true,
            Self::Kernel | Self::Initrd => false,
        }
    }

    /// A boot without these is impossible.
    const fn required(self) -> bool {
        match self {
            Self::Kernel | Self::Initrd => true,
            Self::Rootfs | Self::BootParameters => false,
        }
    }
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Rootfs => "rootfs",
            Self::BootParameters => "boot parameters",
        })
    }
}

/// Where an artifact is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The location, for example `s3://boot-images/7f0c/kernel`.
    pub path: String,
    /// The etag the manifest records; `None` where the manifest has no such key (an empty etag is kept).
    pub etag: Option<String>,
}

/// A manifest with everything a boot needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The kernel.
    pub kernel: Link,
    /// The initial RAM disk.
    pub initrd: Link,
    /// The root file system, if the image has one.
    pub rootfs: Option<Link>,
    /// The object with the image's own kernel parameters, if there is one.
    pub boot_parameters: Option<Link>,
}

/// One thing that is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestProblem {
    /// Longer than [`MAX_MANIFEST_BYTES`].
    #[error("it is {bytes} bytes long, more than the {MAX_MANIFEST_BYTES} bytes a manifest may have; does the path name another object?")]
    TooBig {
        /// Its length.
        bytes: usize,
    },
    /// Not text.
    #[error("it is not UTF-8 text; does the path name another object?")]
    NotUtf8,
    /// Not JSON.
    #[error("it is not JSON: {detail}")]
    NotJson {
        /// What the parser says.
        detail: String,
    },
    /// JSON, but not an object.
    #[error("it should be a JSON object, but is {found}")]
    NotAnObject {
        /// What it is instead.
        found: &'static str,
    },
    /// There is no list `artifacts`.
    #[error("it should have a list \"artifacts\", but that is {found}")]
    NoArtifacts {
        /// What it is instead.
        found: &'static str,
    },
    /// An entry is not an object, or lacks a text `type`.
    #[error("artifacts[{index}] has no text \"type\"")]
    EntryWithoutType {
        /// Position in the list, from 0.
        index: usize,
    },
    /// A needed artifact is not there.
    #[error("it has no {kind} (an artifact of type {})", kind.media_type())]
    Missing {
        /// Which one.
        kind: ArtifactKind,
    },
    /// An artifact is there more than once, so nobody can tell which one is meant.
    #[error("it has {count} artifacts of type {}, but one {kind} is allowed", kind.media_type())]
    Duplicate {
        /// Which one.
        kind: ArtifactKind,
        /// How often.
        count: usize,
    },
    /// An entry has no `link.path`.
    #[error("its {kind} has no text \"link.path\"")]
    NoPath {
        /// Which one.
        kind: ArtifactKind,
    },
    /// The kernel or initrd has an empty path.
    #[error("the \"link.path\" of its {kind} is empty")]
    EmptyPath {
        /// Which one.
        kind: ArtifactKind,
    },
    /// An entry that needs `link.etag` has none.
    #[error("its {kind} has no text \"link.etag\"")]
    NoEtag {
        /// Which one.
        kind: ArtifactKind,
    },
}

/// Everything that is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// At least one problem.
    pub problems: Vec<ManifestProblem>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is not a usable image manifest: ")?;
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestError {}

impl From<ManifestProblem> for ManifestError {
    fn from(problem: ManifestProblem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl Manifest {
    /// Reads a manifest from the bytes of the object.
    ///
    /// # Errors
    /// When it cannot be used for a boot; all problems at once.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestProblem::TooBig { bytes: bytes.len() }.into());
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ManifestProblem::NotUtf8)?;
        let value: Value = serde_json::from_str(text).map_err(|error| ManifestProblem::NotJson { detail: error.to_string() })?;
        let Value::Object(object) = &value else {
            return Err(ManifestProblem::NotAnObject { found: kind_of(Some(&value)) }.into());
        };
        let Some(Value::Array(entries)) = object.get("artifacts") else {
            return Err(ManifestProblem::NoArtifacts { found: kind_of(object.get("artifacts")) }.into());
        };
        Self::from_entries(entries)
    }

    fn from_entries(entries: &[Value]) -> Result<Self, ManifestError> {
        let mut problems = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            if media_type(entry).is_none() {
                problems.push(ManifestProblem::EntryWithoutType { index });
            }
        }
        let [kernel, initrd, rootfs, boot_parameters] = ArtifactKind::ALL.map(|kind| find(entries, kind, &mut problems));
        match (kernel, initrd) {
            (Some(kernel), Some(initrd)) if problems.is_empty() => Ok(Self { kernel, initrd, rootfs, boot_parameters }),
            _ => Err(ManifestError { problems }),
        }
    }
}

fn media_type(entry: &Value) -> Option<&str> {
    entry.as_object()?.get("type")?.as_str()
}

/// The link of the one artifact of this kind; what is wrong goes to `problems`.
fn find(entries: &[Value], kind: ArtifactKind, problems: &mut Vec<ManifestProblem>) -> Option<Link> {
    let found: Vec<&Map<String, Value>> =
        entries.iter().filter(|entry| media_type(entry) == Some(kind.media_type())).filter_map(Value::as_object).collect();
    match found.as_slice() {
        [] if kind.required() => problems.push(ManifestProblem::Missing { kind }),
        [] => {}
        [entry] => return read_link(entry, kind).map_err(|problem| problems.push(problem)).ok(),
        several => problems.push(ManifestProblem::Duplicate { kind, count: several.len() }),
    }
    None
}

fn read_link(entry: &Map<String, Value>, kind: ArtifactKind) -> Result<Link, ManifestProblem> {
    let link = entry.get("link").and_then(Value::as_object);
    let path = link.and_then(|link| link.get("path")).and_then(Value::as_str).ok_or(ManifestProblem::NoPath { kind })?;
    if path.is_empty() && kind.required() {
        return Err(ManifestProblem::EmptyPath { kind });
    }
    let etag = link.and_then(|link| link.get("etag")).and_then(Value::as_str).map(str::to_owned);
    if etag.is_none() && kind.needs_etag() {
        return Err(ManifestProblem::NoEtag { kind });
    }
    Ok(Link { path: path.to_owned(), etag })
}

fn kind_of(value: Option<&Value>) -> &'static str {
    match value {
        None => "missing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a text",
        Some(Value::Array(_)) => "a list",
        Some(Value::Object(_)) => "an object",
    }
}

/// The location of an object: `s3://bucket/key`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct S3Path {
    /// The bucket, for example `boot-images`.
    pub bucket: String,
    /// The key inside the bucket, for example `7f0c/manifest.json`; never empty.
    pub key: String,
}

/// Why a text is not the location of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidS3Path {
    /// It does not begin with `s3://`.
    #[error("{text:?} does not begin with s3://; expected s3://<bucket>/<key>, for example s3://boot-images/<image id>/manifest.json")]
    NoScheme {
        /// What was given, shortened.
        text: String,
    },
    /// There is no bucket.
    #[error("{text:?} names no bucket; expected s3://<bucket>/<key>")]
    NoBucket {
        /// What was given, shortened.
        text: String,
    },
    /// There is no key.
    #[error("{text:?} names a bucket but no object in it; expected s3://<bucket>/<key>")]
    NoKey {
        /// What was given, shortened.
        text: String,
    },
    /// It has a query or a fragment, for example a version id.
    #[error("{text:?} has a {character:?}; versions and queries are not supported, name the object by its key alone")]
    Query {
        /// What was given, shortened.
        text: String,
        /// `?` or `#`.
        character: char,
    },
    /// It has a blank or a control character.
    #[error("{text:?} has a blank or a control character in it")]
    Blank {
        /// What was given, shortened.
        text: String,
    },
}

impl S3Path {
    /// Reads `s3://bucket/key`.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, InvalidS3Path> {
        let shown = || text.chars().take(200).collect::<String>();
        let rest = text.strip_prefix("s3://").ok_or_else(|| InvalidS3Path::NoScheme { text: shown() })?;
        if let Some(character) = rest.chars().find(|c| matches!(c, '?' | '#')) {
            return Err(InvalidS3Path::Query { text: shown(), character });
        }
        if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidS3Path::Blank { text: shown() });
        }
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(InvalidS3Path::NoBucket { text: shown() });
        }
        if key.trim_matches('/').is_empty() {
            return Err(InvalidS3Path::NoKey { text: shown() });
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.trim_start_matches('/').to_owned() })
    }

    /// The id of the IMS image the object belongs to: the first part of the key, if more follows it.
    #[must_use]
    pub fn image_id(&self) -> Option<&str> {
        let (first, rest) = self.key.split_once('/')?;
        (!first.is_empty() && !rest.is_empty()).then_some(first)
    }

    /// A short name of the image for tables: the first eight characters of an id that is a UUID, otherwise the id or
    /// the last part of the key, at most 32 characters.
    #[must_use]
    pub fn short_image_name(&self) -> String {
        let name = self.image_id().unwrap_or_else(|| self.key.rsplit('/').next().unwrap_or(&self.key));
        let length = if is_uuid(name) { 8 } else { 32 };
        name.chars().take(length).collect()
    }
}

impl fmt::Display for S3Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == lengths.len()
        && groups.iter().zip(lengths).all(|(group, length)| group.len() == length && group.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: ArtifactKind, path: &str) -> String {
        format!(r#"{{"type":"{}","md5":"m","link":{{"path":"{path}","etag":"e","type":"s3"}}}}"#, kind.media_type())
    }

    #[test]
    fn reads_all_four_artifacts() {
        let list = ArtifactKind::ALL.map(|kind| entry(kind, &format!("s3://b/i/{kind}"))).join(",");
        let manifest = Manifest::parse(format!(r#"{{"version":"1.0","artifacts":[{list}]}}"#).as_bytes()).unwrap();
        assert_eq!(manifest.kernel, Link { path: "s3://b/i/kernel".into(), etag: Some("e".into()) });
        assert_eq!(manifest.boot_parameters.unwrap().path, "s3://b/i/boot parameters");
    }

    #[test]
    fn names_everything_that_is_wrong_at_once() {
        let kernel = entry(ArtifactKind::Kernel, "s3://b/i/k");
        let rootfs = format!(r#"{{"type":"{}","link":{{"path":"s3://b/i/r"}}}}"#, ArtifactKind::Rootfs.media_type());
        let error = Manifest::parse(format!(r#"{{"artifacts":[{kernel},{kernel},{rootfs},{{}}]}}"#).as_bytes()).unwrap_err();
        assert_eq!(
            error.problems,
            [
                ManifestProblem::EntryWithoutType { index: 3 },
                ManifestProblem::Duplicate { kind: ArtifactKind::Kernel, count: 2 },
                ManifestProblem::Missing { kind: ArtifactKind::Initrd },
                ManifestProblem::NoEtag { kind: ArtifactKind::Rootfs },
            ]
        );
        assert!(error.to_string().contains("it has no initrd (an artifact of type application/vnd.cray.image.initrd)"), "{error}");
    }

    #[test]
    fn splits_paths() {
        let path = S3Path::parse("s3://boot-images/7f0c/manifest.json").unwrap();
        assert_eq!((path.bucket.as_str(), path.key.as_str(), path.image_id()), ("boot-images", "7f0c/manifest.json", Some("7f0c")));
        assert_eq!(path.to_string(), "s3://boot-images/7f0c/manifest.json");
        assert_eq!(path.short_image_name(), "7f0c");
        let uuid = S3Path::parse("s3://boot-images/4bf91021-8d99-4adf-945f-46de2ff50a3d/manifest.json").unwrap();
        assert_eq!(uuid.short_image_name(), "4bf91021");
        assert_eq!(S3Path::parse("s3://boot-images/manifest.json").unwrap().image_id(), None);
    }

    #[test]
    fn refuses_what_is_not_a_path() {
        for text in [
            "",
            "img-p",
            "boot-images/img-p/manifest.json",
            "S3://b/k",
            "s3://",
            "s3:///k",
            "s3://b",
            "s3://b/",
            "s3://b//",
            "s3://b/k?versionId=3",
            "s3://b/k k",
        ] {
            assert!(S3Path::parse(text).is_err(), "{text}");
        }
    }
}
