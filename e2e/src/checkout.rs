//! Where the sources are that a program is of. All checkouts of a user build in one folder, and cargo may take over what another of them
//! built: the folder that a program was compiled in may be another version's, or gone.

use std::path::{Path, PathBuf};

/// Builds the control plane. That it is there tells a checkout from other folders.
pub(crate) const CONTROL_PLANE_SCRIPT: &str = "hack/control-plane/build.sh";

/// The checkout that the program was started in; outside of any, the one in which it was compiled.
pub(crate) fn checkout() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    around(&here).unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
}

fn around(here: &Path) -> Option<PathBuf> {
    here.ancestors().find(|folder| folder.join(CONTROL_PLANE_SCRIPT).is_file()).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_around_the_folder_in_which_a_program_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("e2e/src");
        std::fs::create_dir_all(&inner).unwrap();
        assert_eq!(around(&inner), None);
        let mark = folder.path().join(CONTROL_PLANE_SCRIPT);
        std::fs::create_dir_all(mark.parent().unwrap()).unwrap();
        std::fs::write(mark, "").unwrap();
        assert_eq!(around(&inner).as_deref(), Some(folder.path()));
    }
}
