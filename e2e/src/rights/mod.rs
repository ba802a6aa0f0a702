//! Holds the roles of our programs against what they have asked of API servers in a run of all tests: nothing is missing, nothing is
//! unused, and each rule says in a comment what it is for.
//!
//! The tests run the programs under their own service accounts. The API server says of each request which binding let it pass, so a test
//! that gave them more would be seen.

mod compare;
mod granted;

use std::path::Path;

use anyhow::Context as _;

pub use compare::{Excused, compare};
pub use granted::{Right, granted};

use crate::control_plane::Asked;

/// What each control plane of a run was asked by our programs.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Vec<Asked>>> {
    let files = std::fs::read_dir(folder).with_context(|| format!("no test has been run: reading {}", folder.display()))?;
    let mut all = Vec::new();
    for file in files {
        let path = file?.path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let asked: Result<Vec<Asked>, _> = text.lines().map(serde_json::from_str).collect();
        all.push(asked.with_context(|| format!("reading {}", path.display()))?);
    }
    Ok(all)
}

/// The lines of a file of roles at which a rule begins that says nothing of itself.
pub fn without_comment(manifest: &str) -> Vec<usize> {
    let lines: Vec<&str> = manifest.lines().map(str::trim_start).collect();
    let silent = |number: &usize| lines[*number].starts_with("- apiGroups:") && !lines[number.saturating_sub(1)].starts_with('#');
    (0..lines.len()).filter(silent).map(|number| number + 1).collect()
}

#[cfg(test)]
mod tests;
