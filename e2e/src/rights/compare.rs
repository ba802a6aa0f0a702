//! The comparison itself.

use std::collections::BTreeSet;

use super::Right;
use crate::control_plane::Asked;

/// A right that no test uses: as [`Right`] is shown, and why it is needed.
pub type Excused<'a> = (&'a str, &'a str);

/// What is wrong with these rights, each in words. `planes` has what each control plane was asked.
pub fn compare(rights: &[Right], planes: &[Vec<Asked>], excused: &[Excused<'_>]) -> Vec<String> {
    let mut wrong = BTreeSet::new();
    let accounts: BTreeSet<&str> = rights.iter().map(|right| right.account.as_str()).collect();
    for plane in planes {
        for asked in plane.iter().filter(|asked| accounts.contains(asked.account.as_str()) && !of_everybody(asked)) {
            if !asked.allowed && !came_late(asked, plane) {
                wrong.insert(format!("missing, and was refused: {}", words(asked)));
            } else if asked.allowed && !by_our_role(asked) {
                wrong.insert(format!("the tests give more than our roles: {}, {}", words(asked), asked.reason));
            } else if !rights.iter().any(|right| right.covers(asked)) {
                wrong.insert(format!("missing: {}", words(asked)));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for right in rights {
        if !seen.insert(right) {
            wrong.insert(format!("granted twice: {right}"));
        }
        let used = planes.iter().flatten().any(|asked| asked.allowed && asked.done && right.covers(asked));
        let is_excused = excused.iter().any(|(name, _)| *name == right.to_string());
        match (used, is_excused) {
            (false, false) => drop(wrong.insert(format!("unused: {right}"))),
            (true, true) => drop(wrong.insert(format!("used, so it needs no excuse: {right}"))),
            _ => {}
        }
    }
    wrong.into_iter().collect()
}

/// Let pass by a role that Kubernetes gives to every account, such as that for discovery.
fn of_everybody(asked: &Asked) -> bool {
    asked.allowed && asked.reason.contains(" of ClusterRole \"system:")
}

fn by_our_role(asked: &Asked) -> bool {
    [" of ClusterRole \"", " of Role \""].iter().any(|of| asked.reason.contains(&format!("{of}{}", asked.account)))
}

/// Refused before the API server knew of a role that was applied just before; then our programs wait and ask again.
fn came_late(asked: &Asked, plane: &[Asked]) -> bool {
    let what =
        |asked: &Asked| (asked.account.clone(), asked.verb.clone(), asked.group.clone(), asked.resource.clone(), asked.namespace.clone());
    plane.iter().any(|later| later.allowed && what(later) == what(asked))
}

fn words(asked: &Asked) -> String {
    let Asked { account, verb, group, resource, namespace, name, .. } = asked;
    let group = if group.is_empty() { "core" } else { group };
    // Of names there are many, and few are in roles.
    let name = if namespace.is_empty() { format!(", such as {name:?}") } else { format!(" in namespace {namespace}, such as {name:?}") };
    format!("{account}: {verb} {group} {resource}{name}")
}
