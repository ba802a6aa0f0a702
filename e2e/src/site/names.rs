//! Component names (xnames): making them, and judging those that clients send.

/// The n-th node name of a run that begins in the given cabinet.
pub(crate) fn node_name(cabinet: u32, n: usize) -> String {
    let (cab, rest) = (cabinet as usize + n / 256, n % 256);
    format!("x{}c{}s{}b{}n{}", cab, rest / 32, rest / 4 % 8, rest / 2 % 2, rest % 2)
}

/// The BMC that a node belongs to.
pub(crate) fn bmc_of(node: &str) -> &str {
    node.rfind('n').map_or(node, |at| &node[..at])
}

/// What kind of thing a well-formed xname means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum XnameKind {
    /// Has power and can run an image.
    Node,
    /// Well-formed, but something without node power.
    Other(&'static str),
}

/// The kind of an xname, or `None` when it is malformed. As in PCS, upper case and padded numbers
/// count as malformed.
pub(crate) fn kind(xname: &str) -> Option<XnameKind> {
    if xname == "s0" {
        return Some(XnameKind::Other("System"));
    }
    let mut letters = String::new();
    let mut rest = xname;
    while let Some(letter) = rest.chars().next() {
        let digits: String = rest.chars().skip(1).take_while(char::is_ascii_digit).collect();
        if !letter.is_ascii_lowercase() || digits.is_empty() || digits.len() > 5 || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        letters.push(letter);
        rest = &rest[1 + digits.len()..];
    }
    Some(match letters.as_str() {
        "xcsbn" => XnameKind::Node,
        "xcsb" => XnameKind::Other("NodeBMC"),
        "xcs" => XnameKind::Other("ComputeModule"),
        "xc" => XnameKind::Other("Chassis"),
        "xcb" => XnameKind::Other("ChassisBMC"),
        "x" => XnameKind::Other("Cabinet"),
        "xcr" => XnameKind::Other("RouterModule"),
        "xcrb" => XnameKind::Other("RouterBMC"),
        "xcw" => XnameKind::Other("MgmtSwitch"),
        "xm" => XnameKind::Other("CabinetPDUController"),
        _ => return None,
    })
}

/// The form in which HSM stores a name: lower case, without padding.
pub(crate) fn normalise(xname: &str) -> String {
    let mut out = String::with_capacity(xname.len());
    let mut digits = String::new();
    let flush = |digits: &mut String, out: &mut String| {
        if !digits.is_empty() {
            let trimmed = digits.trim_start_matches('0');
            out.push_str(if trimmed.is_empty() { "0" } else { trimmed });
            digits.clear();
        }
    };
    for c in xname.trim().chars() {
        if c.is_ascii_digit() {
            digits.push(c);
        } else {
            flush(&mut digits, &mut out);
            out.push(c.to_ascii_lowercase());
        }
    }
    flush(&mut digits, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_run_through_a_cabinet_and_on_to_the_next() {
        assert_eq!(node_name(1000, 0), "x1000c0s0b0n0");
        assert_eq!(node_name(1000, 3), "x1000c0s0b1n1");
        assert_eq!(node_name(1000, 4), "x1000c0s1b0n0");
        assert_eq!(node_name(1000, 255), "x1000c7s7b1n1");
        assert_eq!(node_name(1000, 256), "x1001c0s0b0n0");
        assert_eq!(bmc_of("x1000c0s0b1n1"), "x1000c0s0b1");
    }

    #[test]
    fn malformed_names_are_told_from_well_formed_ones() {
        assert_eq!(kind("x1000c0s0b0n0"), Some(XnameKind::Node));
        assert_eq!(kind("x3000"), Some(XnameKind::Other("Cabinet")));
        for bad in ["", "garbage", "X1000c0s0b0n0", "x1000c0s01b0n0", "x1000c0s0b0n", "x1000c0s0b0n0 "] {
            assert_eq!(kind(bad), None, "{bad:?}");
        }
        assert_eq!(normalise("X3000C0S01B0N0"), "x3000c0s1b0n0");
        assert_eq!(normalise("x1000c0s0b00n0"), "x1000c0s0b0n0");
    }
}
