//! Writes `manifests/crds`. Run it in the top folder, or give the folder to write to.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("manifests/crds"), PathBuf::from);
    if !folder.is_dir() {
        eprintln!("{} is not a folder; run crdgen in the top folder of the checkout or name the folder to write to", folder.display());
        return ExitCode::FAILURE;
    }
    for file in bos_crds::manifests::files() {
        let path = folder.join(&file.name);
        if let Err(error) = std::fs::write(&path, &file.content) {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
        println!("{}", path.display());
    }
    ExitCode::SUCCESS
}
