//! Builds the kernel parameters of a boot set.
//!
//! The order is BOS's, and the order matters because Linux lets the later word win: words of the image's boot parameters, the boot set's own
//! parameters, the root file system, the memory dump, and how often the node shall report.
//!
//! BSS changes some words before a node sees them (see [`bss_warnings`]), so what is built here is checked for those.

use std::fmt;

use crate::manifest::Manifest;

/// The parameter by which a node learns how often it shall report; the last word of every string built here.
pub const UPDATE_FREQUENCY: &str = "bos_update_frequency=";

/// The most that x86 Linux reads of its command line, in bytes.
const COMMAND_LINE_BYTES: usize = 2048;

/// Room that BSS needs for the words it adds (xname, nid, referral token, cloud-init server).
const BSS_BYTES: usize = 160;

/// A service that serves the root file system to booted nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootfsProvider {
    /// Scalable Boot Provisioning Service: the root file system over iSCSI.
    Sbps,
    /// Content Projection Service over DVS; offered by BOS up to 2.44.
    Cpss3,
}

impl RootfsProvider {
    /// All providers by the name a boot set uses.
    pub const NAMES: [&'static str; 2] = ["sbps", "cpss3"];

    /// Reads the name a boot set uses; case matters.
    ///
    /// # Errors
    /// When no such provider is supported; an empty name is none.
    pub fn parse(name: &str) -> Result<Self, UnsupportedProvider> {
        match name {
            "sbps" => Ok(Self::Sbps),
            "cpss3" => Ok(Self::Cpss3),
            other => Err(UnsupportedProvider { name: other.chars().take(64).collect() }),
        }
    }

    /// The name a boot set uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sbps => "sbps",
            Self::Cpss3 => "cpss3",
        }
    }

    const fn protocol(self) -> &'static str {
        match self {
            Self::Sbps => "sbps-s3",
            Self::Cpss3 => "craycps-s3",
        }
    }
}

/// A root file system provider that does not exist here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rootfs provider {name:?} is not supported; leave it out or use one of sbps, cpss3{}", self.intention())]
pub struct UnsupportedProvider {
    /// The name given, shortened.
    pub name: String,
}

impl UnsupportedProvider {
    fn intention(&self) -> String {
        let cleaned = self.name.trim().to_ascii_lowercase();
        match RootfsProvider::NAMES.iter().find(|name| **name == cleaned) {
            Some(name) => format!(" (did you mean {name:?}?)"),
            None => String::new(),
        }
    }
}

/// What the parameters are built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inputs<'a> {
    /// The image's manifest.
    pub manifest: &'a Manifest,
    /// The text of the image's boot-parameters object, where the manifest names one.
    pub image_parameters: Option<&'a str>,
    /// `kernelParameters` of the boot set.
    pub boot_set_parameters: Option<&'a str>,
    /// `rootfsProvider` of the boot set; a name that is there but empty is unsupported, as in BOS.
    pub rootfs_provider: Option<&'a str>,
    /// `rootfsProviderPassthrough` of the boot set.
    pub rootfs_provider_passthrough: Option<&'a str>,
    /// How often nodes report: the option `componentActualStateTtl` as it is written, for example `4h`.
    pub update_frequency: &'a str,
}

/// Why no parameters could be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// The provider is not supported.
    #[error(transparent)]
    Provider(#[from] UnsupportedProvider),
    /// The provider needs a root file system and the image has none.
    #[error("rootfs provider {:?} needs a root file system, but the image manifest has no rootfs", provider.as_str())]
    NoRootfs {
        /// The provider.
        provider: RootfsProvider,
    },
}

/// Kernel parameters, and what a person should know about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelParameters {
    /// The whole string.
    pub text: String,
    /// What will not work as written.
    pub warnings: Vec<ParameterWarning>,
}

/// A part of the kernel parameters that will not reach the node as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterWarning {
    /// BSS cuts the first word that contains `initrd`.
    CutByBss {
        /// The word.
        word: String,
    },
    /// BSS leaves out its own value because a word begins like it.
    SuppressesBss {
        /// The word.
        word: String,
        /// What it begins with, for example `xname=`.
        prefix: &'static str,
    },
    /// The operator appends its own value, and the later one wins.
    Overridden {
        /// The word.
        word: String,
    },
    /// The provider would be given a root file system without a location.
    EmptyRootfsPath,
    /// Longer than x86 Linux reads.
    TooLong {
        /// The length in bytes.
        bytes: usize,
    },
}

impl fmt::Display for ParameterWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutByBss { word } => write!(f, "BSS removes the word {word:?}, because it contains \"initrd\""),
            Self::SuppressesBss { word, prefix } => {
                write!(f, "the word {word:?} keeps BSS from adding its own {prefix}, so every node gets this one")
            }
            Self::Overridden { word } => write!(f, "the word {word:?} has no effect, because the operator appends its own"),
            Self::EmptyRootfsPath => {
                f.write_str("the rootfs of the image manifest has an empty path; nodes will not find their root file system")
            }
            Self::TooLong { bytes } => {
                write!(
                    f,
                    "the parameters are {bytes} bytes long; with what BSS adds that is more than the {COMMAND_LINE_BYTES} bytes x86 Linux reads"
                )
            }
        }
    }
}

/// Builds the parameters of a boot set.
///
/// # Errors
/// When the provider is not supported, or needs a root file system the image does not have.
pub fn build(inputs: &Inputs<'_>) -> Result<KernelParameters, ParameterError> {
    let mut parts: Vec<String> = Vec::new();
    let mut warnings = Vec::new();
    // A text without an object in the manifest would be another image's.
    let image = inputs.image_parameters.filter(|_| inputs.manifest.boot_parameters.is_some()).unwrap_or_default();
    parts.extend(blank_separated(image).map(str::to_owned));
    let own = inputs.boot_set_parameters.unwrap_or_default();
    if !own.is_empty() {
        parts.push(on_one_line(own));
    }
    warnings.extend(bss_warnings(&format!("{image} {own}")));
    parts.extend(rootfs_words(inputs, &mut warnings)?);
    parts.push(format!("{UPDATE_FREQUENCY}{}", inputs.update_frequency));
    let text = parts.join(" ");
    if text.len() + BSS_BYTES > COMMAND_LINE_BYTES {
        warnings.push(ParameterWarning::TooLong { bytes: text.len() });
    }
    Ok(KernelParameters { text, warnings })
}

/// The `root=` and `nmd_data=` words.
fn rootfs_words(inputs: &Inputs<'_>, warnings: &mut Vec<ParameterWarning>) -> Result<Vec<String>, ParameterError> {
    let passthrough = inputs.rootfs_provider_passthrough.filter(|text| !text.is_empty()).map(on_one_line);
    let Some(name) = inputs.rootfs_provider else {
        return Ok(passthrough.map(|text| format!("root=::{text}")).into_iter().collect());
    };
    let provider = RootfsProvider::parse(name)?;
    let rootfs = inputs.manifest.rootfs.as_ref().ok_or(ParameterError::NoRootfs { provider })?;
    let etag = rootfs.etag.as_deref().unwrap_or_default();
    if rootfs.path.is_empty() {
        warnings.push(ParameterWarning::EmptyRootfsPath);
    }
    let mut root = format!("root={}:{}:{etag}", provider.protocol(), rootfs.path);
    if let Some(text) = passthrough {
        root.push(':');
        root.push_str(&text);
    }
    let dump: Vec<String> = [("url=", rootfs.path.as_str()), ("etag=", etag)]
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key}{value}"))
        .collect();
    let dump = (!dump.is_empty()).then(|| format!("nmd_data={}", dump.join(",")));
    Ok(std::iter::once(root).chain(dump).collect())
}

/// What BSS, or the operator itself, will change about these parameters.
///
/// BSS cuts the first word that contains `initrd`, and adds `xname=`, `nid=`, `bss_referral_token=` and `ds=` only where no word begins so.
#[must_use]
pub fn bss_warnings(parameters: &str) -> Vec<ParameterWarning> {
    let mut warnings = Vec::new();
    let mut initrd_seen = false;
    for word in blank_separated(parameters) {
        let shown = || word.chars().take(64).collect::<String>();
        if word.contains("initrd") && !initrd_seen {
            initrd_seen = true;
            warnings.push(ParameterWarning::CutByBss { word: shown() });
        }
        if let Some(prefix) = ["xname=", "nid=", "bss_referral_token=", "ds="].into_iter().find(|prefix| word.starts_with(prefix)) {
            warnings.push(ParameterWarning::SuppressesBss { word: shown(), prefix });
        }
        if word.starts_with(UPDATE_FREQUENCY) {
            warnings.push(ParameterWarning::Overridden { word: shown() });
        }
    }
    warnings
}

/// The words of a parameter string as Linux sees them: separated by blanks, except inside double quotes.
pub(crate) fn words(parameters: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    parameters
        .split(move |c: char| {
            if c == '"' {
                quoted = !quoted;
            }
            !quoted && is_blank(c)
        })
        .filter(|word| !word.is_empty())
}

/// Blanks as BOS splits the image's parameters, which knows no quotes.
fn blank_separated(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_blank).filter(|word| !word.is_empty())
}

fn is_blank(c: char) -> bool {
    // Python's notion of white space, which is what image parameters are split by, has four more control characters than Unicode's.
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Line breaks would end the boot script's line in the middle; a block text in YAML brings one easily.
fn on_one_line(text: &str) -> String {
    let kept = text.trim_end_matches(['\n', '\r']);
    kept.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Link;

    fn manifest() -> Manifest {
        let link = |name: &str| Link { path: format!("s3://b/i/{name}"), etag: Some(format!("e-{name}")) };
        Manifest { kernel: link("kernel"), initrd: link("initrd"), rootfs: Some(link("rootfs")), boot_parameters: Some(link("params")) }
    }

    fn inputs(manifest: &Manifest) -> Inputs<'_> {
        Inputs {
            manifest,
            image_parameters: Some("quiet"),
            boot_set_parameters: None,
            rootfs_provider: None,
            rootfs_provider_passthrough: None,
            update_frequency: "4h",
        }
    }

    #[test]
    fn cpss3_has_its_own_protocol() {
        let manifest = manifest();
        let given = Inputs { rootfs_provider: Some("cpss3"), rootfs_provider_passthrough: Some("dvs:gw:300:nmn0"), ..inputs(&manifest) };
        assert_eq!(
            build(&given).unwrap().text,
            "quiet root=craycps-s3:s3://b/i/rootfs:e-rootfs:dvs:gw:300:nmn0 nmd_data=url=s3://b/i/rootfs,etag=e-rootfs bos_update_frequency=4h"
        );
    }

    #[test]
    fn unknown_providers_are_refused_with_a_suggestion() {
        let manifest = manifest();
        let error = build(&Inputs { rootfs_provider: Some("SBPS "), ..inputs(&manifest) }).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"rootfs provider "SBPS " is not supported; leave it out or use one of sbps, cpss3 (did you mean "sbps"?)"#
        );
        assert!(build(&Inputs { rootfs_provider: Some(""), ..inputs(&manifest) }).is_err());
        let bare = Manifest { rootfs: None, ..manifest.clone() };
        let error = build(&Inputs { rootfs_provider: Some("sbps"), ..inputs(&bare) }).unwrap_err();
        assert_eq!(error, ParameterError::NoRootfs { provider: RootfsProvider::Sbps });
    }

    #[test]
    fn line_breaks_do_not_reach_the_boot_script() {
        let manifest = manifest();
        let given = Inputs { boot_set_parameters: Some("a=1\nb=2\n"), ..inputs(&manifest) };
        assert_eq!(build(&given).unwrap().text, "quiet a=1 b=2 bos_update_frequency=4h");
    }

    #[test]
    fn warns_of_words_that_bss_changes() {
        let manifest = manifest();
        let given = Inputs {
            image_parameters: Some("ds=nocloud"),
            boot_set_parameters: Some("rd.initrd=1 xname=x1 noinitrd bos_update_frequency=1h"),
            ..inputs(&manifest)
        };
        let warnings = build(&given).unwrap().warnings;
        assert_eq!(
            warnings,
            [
                ParameterWarning::SuppressesBss { word: "ds=nocloud".into(), prefix: "ds=" },
                ParameterWarning::CutByBss { word: "rd.initrd=1".into() },
                ParameterWarning::SuppressesBss { word: "xname=x1".into(), prefix: "xname=" },
                ParameterWarning::Overridden { word: "bos_update_frequency=1h".into() },
            ]
        );
    }

    #[test]
    fn words_keep_quoted_blanks() {
        assert_eq!(words(r#" a=1  b="x  y"	c "#).collect::<Vec<_>>(), ["a=1", r#"b="x  y""#, "c"]);
    }

    #[test]
    fn warns_of_more_than_linux_reads() {
        let manifest = manifest();
        let long = "a".repeat(1900);
        let built = build(&Inputs { boot_set_parameters: Some(&long), ..inputs(&manifest) }).unwrap();
        assert!(matches!(built.warnings.as_slice(), [ParameterWarning::TooLong { .. }]), "{:?}", built.warnings);
    }
}
