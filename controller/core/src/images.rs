//! What IMS says of the image a boot set names, and what that means for a boot (BOS behaviour §15.3).

use bos_crds::Arch;

/// What was found out about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageFound {
    /// IMS has it, with this architecture.
    Known {
        /// `x86_64` or `aarch64`; an image without one is x86_64, as in BOS.
        arch: String,
    },
    /// IMS does not have it.
    Unknown,
    /// IMS did not answer, for this reason.
    Unanswered(String),
}

/// What a site asks of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImageRules {
    /// The option `imsErrorsFatal`.
    pub errors_fatal: bool,
    /// The option `imsImagesMustExist`.
    pub must_exist: bool,
}

/// What follows for the boot set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageVerdict {
    /// Nothing speaks against it.
    Good,
    /// It is booted, but a person should know this.
    Warning(String),
    /// It cannot boot these nodes.
    Refused(String),
    /// It must be there, and is not yet.
    Missing(String),
    /// IMS has to answer first.
    Wait(String),
}

/// Judges the image `id` for a boot set of an architecture.
#[must_use]
pub fn judge(id: &str, wanted: Arch, found: &ImageFound, rules: ImageRules) -> ImageVerdict {
    let fits = match wanted {
        Arch::X86 | Arch::Unknown => Some("x86_64"),
        Arch::Arm => Some("aarch64"),
        Arch::Other => None,
    };
    match (found, fits) {
        (ImageFound::Known { arch }, Some(fits)) if effective(arch) == fits => ImageVerdict::Good,
        (ImageFound::Known { arch }, Some(fits)) => ImageVerdict::Refused(format!(
            "image {id} is for {}, but nodes of architecture {} need {fits}",
            effective(arch),
            wanted.as_str()
        )),
        (ImageFound::Known { arch }, None) => ImageVerdict::Warning(format!(
            "image {id} is for {}; whether that fits nodes of architecture Other nobody can tell",
            effective(arch)
        )),
        (ImageFound::Unknown, _) if rules.must_exist => {
            ImageVerdict::Missing(format!("IMS has no image {id}, and option imsImagesMustExist asks for one"))
        }
        (ImageFound::Unknown, _) => ImageVerdict::Warning(format!("IMS has no image {id}")),
        (ImageFound::Unanswered(why), _) if rules.errors_fatal => ImageVerdict::Wait(why.clone()),
        (ImageFound::Unanswered(why), _) => ImageVerdict::Warning(format!("IMS could not be asked about image {id}: {why}")),
    }
}

fn effective(arch: &str) -> &str {
    if arch.is_empty() { "x86_64" } else { arch }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_the_table() {
        let known = |arch: &str| ImageFound::Known { arch: arch.to_owned() };
        let away = ImageFound::Unanswered("503".into());
        for (wanted, found, errors_fatal, must_exist, want) in [
            (Arch::X86, known("x86_64"), false, false, "good"),
            (Arch::X86, known(""), true, true, "good"),
            (Arch::Unknown, known("x86_64"), false, false, "good"),
            (Arch::Arm, known("aarch64"), false, false, "good"),
            (Arch::X86, known("aarch64"), false, false, "refused"),
            (Arch::Arm, known("x86_64"), false, false, "refused"),
            (Arch::Arm, known(""), false, false, "refused"),
            (Arch::Other, known("x86_64"), true, true, "warning"),
            (Arch::X86, ImageFound::Unknown, true, false, "warning"),
            (Arch::X86, ImageFound::Unknown, false, true, "missing"),
            (Arch::Arm, away.clone(), false, true, "warning"),
            (Arch::Arm, away, true, false, "wait"),
        ] {
            let verdict = match judge("7f0c", wanted, &found, ImageRules { errors_fatal, must_exist }) {
                ImageVerdict::Good => "good",
                ImageVerdict::Warning(text) => {
                    assert!(text.contains("7f0c"), "{text}");
                    "warning"
                }
                ImageVerdict::Refused(_) => "refused",
                ImageVerdict::Missing(_) => "missing",
                ImageVerdict::Wait(_) => "wait",
            };
            assert_eq!(verdict, want, "{wanted:?} {found:?} {errors_fatal} {must_exist}");
        }
    }
}
