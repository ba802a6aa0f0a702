//! Names of nodes as HPE's hardware naming writes them, for example `x3000c0s19b1n0`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of one node in normal form: lower case, no leading zeros (`X3000C0S01B0N0` is `x3000c0s1b0n0`).
///
/// HSM normalises names by itself, PCS, BSS and CFS do not (PCS refuses a whole call for one malformed name), so only
/// normal forms travel through this code. Cloning is cheap; ordering is the order of the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xname(Arc<str>);

/// Why a text is not the name of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the name of a node; expected x<cabinet>c<chassis>s<slot>b<bmc>n<node>, for example x1000c0s0b0n0")]
pub struct InvalidXname {
    /// What was given, cut to 64 characters.
    pub text: String,
}

impl From<&Xname> for Arc<str> {
    fn from(xname: &Xname) -> Self {
        Self::clone(&xname.0)
    }
}

impl Xname {
    /// Reads a node name in any case and with leading zeros, and brings it to normal form.
    ///
    /// # Errors
    /// When the text is not of the form `x#c#s#b#n#`.
    pub fn parse(text: &str) -> Result<Self, InvalidXname> {
        Self::normalise(text).ok_or_else(|| InvalidXname { text: text.chars().take(64).collect() })
    }

    fn normalise(text: &str) -> Option<Self> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        for letter in ['x', 'c', 's', 'b', 'n'] {
            let mut chars = rest.chars();
            if chars.next()?.to_ascii_lowercase() != letter {
                return None;
            }
            rest = chars.as_str();
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || digits > 9 {
                return None;
            }
            let (number, tail) = rest.split_at(digits);
            let significant = number.trim_start_matches('0');
            out.push(letter);
            out.push_str(if significant.is_empty() { "0" } else { significant });
            rest = tail;
        }
        rest.is_empty().then(|| Self(out.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Xname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Xname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Xname {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Xname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for Xname {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Xname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brings_names_to_normal_form() {
        assert_eq!(Xname::parse("X3000C0S01B0N0").unwrap().as_str(), "x3000c0s1b0n0");
        assert_eq!(Xname::parse("x0c00s000b0n01").unwrap().as_str(), "x0c0s0b0n1");
    }

    #[test]
    fn refuses_what_is_not_a_node() {
        for text in [
            "",
            "x",
            "x3000",
            "x3000c0s19b1",
            "x3000c0s19b1n0 ",
            "nid000001",
            "x1c1s1b1n1e0",
            "x1c1s1b1n",
            "x9999999999c0s0b0n0",
            "é1c0s0b0n0",
        ] {
            assert!(Xname::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_normal_form_is_the_same_whatever_the_spelling(
            numbers in proptest::array::uniform5(0u32..9_999_999), zeros in 0usize..3, upper in proptest::bool::ANY,
        ) {
            let [x, c, s, b, n] = numbers;
            let plain = format!("x{x}c{c}s{s}b{b}n{n}");
            let zeros = "0".repeat(zeros);
            let padded = format!("x{x}c{zeros}{c}s{s}b{zeros}{b}n{n}");
            let spelled = if upper { padded.to_uppercase() } else { padded };
            let name = Xname::parse(&spelled).unwrap();
            proptest::prop_assert_eq!(name.as_str(), &plain);
            proptest::prop_assert_eq!(Xname::parse(name.as_str()).unwrap(), name);
        }

        #[test]
        fn parsing_never_panics_and_never_gives_a_blank(text in "\\PC{0,40}|[xcsbnXCSBN0-9]{0,20}") {
            if let Ok(name) = Xname::parse(&text) {
                proptest::prop_assert!(!name.as_str().contains(char::is_whitespace));
            }
        }
    }
}
